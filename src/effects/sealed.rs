//! A text in a memory file that nobody can change any more: settings for a worker of ours.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Puts a text into a file of its own.
///
/// # Errors
/// The file cannot be created (memfd_create(2)), filled or sealed.
pub fn sealed(text: &str) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file: File = memfd_create(c"preforkd settings", flags)?.into();
    file.write_all(text.as_bytes())?;
    let seals = [
        SealFlag::F_SEAL_WRITE,
        SealFlag::F_SEAL_SHRINK,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_SEAL,
    ];
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals.into_iter().collect()))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn it_holds_the_text_and_cannot_be_changed() {
        let file = File::from(sealed("größe").expect("memory"));
        let mut text = [0; 7];
        file.read_exact_at(&mut text, 0).expect("all of it");
        assert_eq!(&text, "größe".as_bytes());
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
    }
}
