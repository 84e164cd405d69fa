//! Files for what is too large to be held in a buffer. They are unlinked files in the folder for temporary files. Where none can be
//! made or written, as on a read-only root without such a folder, they are anonymous files in memory, memfd_create(2).

use std::fs::File;
use std::io::{self, Read, Seek};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::message::budget::Budget;

/// Makes a file.
///
/// # Errors
/// Not even one in memory can be made.
pub(crate) fn create(budget: &Budget) -> io::Result<File> {
    tempfile::tempfile().or_else(|error| in_memory(budget, &error))
}

/// Makes a file in memory, as none in the folder can be used for this reason.
///
/// # Errors
/// It cannot be made.
pub(crate) fn in_memory(budget: &Budget, reason: &io::Error) -> io::Result<File> {
    let file = memfd_create("preforkd", MemfdFlags::CLOEXEC)?;
    budget.warn(reason);
    Ok(file.into())
}

/// Replaces a file that cannot be written any more by one in memory, which has its first `length` bytes and is at its end.
///
/// # Errors
/// The one cannot be read, or the other not be made or written.
pub(crate) fn move_to_memory(
    file: &mut File,
    length: u64,
    budget: &Budget,
    reason: &io::Error,
) -> io::Result<()> {
    let mut memory = in_memory(budget, reason)?;
    file.rewind()?;
    if io::copy(&mut (&*file).take(length), &mut memory)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *file = memory;
    Ok(())
}

/// Makes a file in the folder, as a large body needs one, and lets go of it.
///
/// # Errors
/// It cannot be made there.
pub fn try_temporary_file() -> io::Result<()> {
    tempfile::tempfile().map(drop)
}
