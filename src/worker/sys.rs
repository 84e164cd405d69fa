//! What has no safe form in a worker of ours: adopting descriptors, mapping the scoreboard and what lies behind it and other shared memory,
//! and looking how much of what was sent is unread.
//!
//! Other files are safe code, so each function here sees to its preconditions itself.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::scoreboard::{
    CONNECTIONS_BY_CLIENT, COUNTERS, PURGES, RECORD_BYTES, RECORD_WORDS, RECORDS, RUNNING,
    SHARED_BYTES,
};
use crate::{connections, counters, purges, running};

/// The last of the standard streams.
const STDERR: RawFd = 2;

/// The bytes that are on their way (unix(7)). Its number depends on the machine.
const SIOCOUTQ: Opcode = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    0x7472
} else if cfg!(any(
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc64"
)) {
    0x4004_7473
} else {
    0x5411
};

/// The descriptors that were taken over.
static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over a descriptor that the master passed; it is not inherited any further.
///
/// # Errors
/// There is no such descriptor, or it is a standard stream or was taken over before.
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    let mut adopted = ADOPTED.lock().map_err(|_| io::ErrorKind::Other)?;
    if fd <= STDERR || !adopted.insert(fd) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is not -1, and the borrow lasts for this call only, which fails if nothing is open there.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, as the call before showed. It is no standard stream, and is given out once, as the set
    // shows. The contract says that it is there for this process, whose other code has not run yet and cannot own it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Maps record `index` of the scoreboard. The mapping stays for the rest of the process.
///
/// # Errors
/// The memory is not sealed or too small, or cannot be mapped.
pub(crate) fn map_record(memory: &OwnedFd, index: u32) -> io::Result<&'static [AtomicU64]> {
    let offset = u64::from(index) * RECORD_BYTES as u64;
    map(memory, offset, RECORD_WORDS, &format!("record {index}"))
}

/// Maps the memory behind the records of the scoreboard. The mapping stays for the rest of the process.
///
/// # Errors
/// As those of [`map_record`].
pub(crate) fn map_shared(memory: &OwnedFd) -> io::Result<&'static [AtomicU64]> {
    let offset = u64::from(RECORDS) * RECORD_BYTES as u64;
    map(memory, offset, SHARED_BYTES / 8, "shared memory")
}

/// The bytes of memory that hold what was written to a Unix socket and its peer has not read.
///
/// # Errors
/// It is no socket.
pub(crate) fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: SIOCOUTQ, which terminals know as TIOCOUTQ, stores an int and does nothing else (tty_ioctl(2), unix(7)).
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) }?;
    usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Maps the counters of the front. The mapping stays for the rest of the process.
///
/// # Errors
/// As those of [`map_record`].
pub(crate) fn map_counters(memory: &OwnedFd) -> io::Result<&'static [AtomicU64]> {
    map(memory, COUNTERS, counters::WORDS, "counters")
}

/// Maps the counts of open connections. The mapping stays for the rest of the process.
///
/// # Errors
/// As those of [`map_record`].
pub(crate) fn map_connections(memory: &OwnedFd) -> io::Result<&'static [AtomicU64]> {
    let what = "counts of open connections";
    map(memory, CONNECTIONS_BY_CLIENT, connections::WORDS, what)
}

/// Maps the counts of running requests. The mapping stays for the rest of the process.
///
/// # Errors
/// As those of [`map_record`].
pub(crate) fn map_running(memory: &OwnedFd) -> io::Result<&'static [AtomicU64]> {
    map(
        memory,
        RUNNING,
        running::WORDS,
        "counts of running requests",
    )
}

/// Maps the numbers of what was purged from the cache of the front. The mapping stays for the rest of the process.
///
/// # Errors
/// As those of [`map_record`].
pub(crate) fn map_purges(memory: &OwnedFd) -> io::Result<&'static [AtomicU64]> {
    map(memory, PURGES, purges::WORDS, "numbers of what was purged")
}

/// Words of a memory file, from its beginning on, that are mapped as long as this lives.
#[derive(Debug)]
pub(crate) struct Words {
    address: *mut c_void,
    words: usize,
}

// SAFETY: the memory belongs to the process and not to a thread, and is used as atomic words only.
unsafe impl Send for Words {}
// SAFETY: as for `Send`.
unsafe impl Sync for Words {}

impl Words {
    /// Maps so many words.
    ///
    /// # Errors
    /// As those of [`map_record`].
    pub fn map(memory: &OwnedFd, words: usize) -> io::Result<Self> {
        let address = new_mapping(memory, 0, words, "words")?.cast_mut().cast();
        Ok(Self { address, words })
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the words lie within the mapping (`new_mapping`), which lasts as long as the borrow of `self`. AtomicU64 is valid for
        // all bits and for memory that other processes read and write.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.words) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping begins here and has this size. Nothing borrows from it any more, as `deref` borrows `self`.
        let _ = unsafe { munmap(self.address, self.words * size_of::<AtomicU64>()) };
    }
}

/// Maps so many words from a place on, which is a multiple of 8, for the rest of the process.
fn map(
    memory: &OwnedFd,
    offset: u64,
    words: usize,
    what: &str,
) -> io::Result<&'static [AtomicU64]> {
    let address = new_mapping(memory, offset, words, what)?;
    // SAFETY: the words lie within the mapping (`new_mapping`). It is never unmapped, hence 'static. AtomicU64 is valid for all bits and
    // for memory that other processes read and write.
    Ok(unsafe { std::slice::from_raw_parts(address, words) })
}

/// Makes a mapping with so many words of the file, from a place on that is a multiple of 8; the address of the first. All of them lie within it,
/// and within the file.
fn new_mapping(
    memory: &OwnedFd,
    offset: u64,
    words: usize,
    what: &str,
) -> io::Result<*const AtomicU64> {
    // Without the seals another process could cut the memory off under the mapping, and an access would be SIGBUS.
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    if !fcntl_get_seals(memory)?.contains(sealed) {
        return Err(io::Error::other(
            "its size is not sealed (F_SEAL_SHRINK and F_SEAL_GROW)",
        ));
    }
    let bytes = words * size_of::<AtomicU64>();
    let length = fstat(memory)?.st_size;
    if !offset.is_multiple_of(8) || u64::try_from(length).unwrap_or(0) < offset + bytes as u64 {
        return Err(io::Error::other(format!(
            "the scoreboard has {length} bytes and no {what}"
        )));
    }
    let page = rustix::param::page_size() as u64;
    let start = offset / page * page;
    let before = (offset - start) as usize;
    let (size, protection) = (before + bytes, ProtFlags::READ | ProtFlags::WRITE);
    let anywhere = ptr::null_mut();
    // SAFETY: a new shared mapping at a place that the kernel chooses; no existing memory is touched.
    let address = unsafe { mmap(anywhere, size, protection, MapFlags::SHARED, memory, start) }?;
    // SAFETY: the words begin `before` bytes behind the start of the mapping, which was made larger by that. The size of the file was checked and
    // is sealed. They are aligned to 8 bytes, as the offset and the page are.
    Ok(unsafe { address.byte_add(before) }.cast_const().cast())
}
