//! A listener that only this user can reach: over it a worker is checked. Its address is a name in a folder of mode 0700,
//! for as long as it may be reached.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{self, AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr};
use nix::unistd::{geteuid, mkdtemp};

use super::paths::{Folder, Trust};

/// Such a listener; dropped, it can be reached no more, while who has accepted there goes on.
#[derive(Debug)]
pub struct Private {
    socket: OwnedFd,
    folder: PathBuf,
}

impl Private {
    /// Listens.
    ///
    /// # Errors
    /// There is no descriptor left, no folder can be made among the temporary files, or, for root, others can change their folder.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let parent = trusted_folder()?;
        let private = Self {
            socket: socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?,
            folder: mkdtemp(&parent.join("preforkd-check-XXXXXX"))?,
        };
        let address = UnixAddr::new(&private.name())?;
        socket::bind(private.socket.as_raw_fd(), &address)?;
        socket::listen(&private.socket, Backlog::new(16)?)?;
        Ok(private)
    }

    /// For the worker, and for who probes it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Lets all who hold it know that nobody will connect any more: accept(2) fails with EINVAL.
    ///
    /// # Errors
    /// None that is known of a listener.
    pub fn shut_down(&self) -> io::Result<()> {
        Ok(socket::shutdown(self.socket.as_raw_fd(), Shutdown::Both)?)
    }

    fn name(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

/// A folder for temporary files in which nobody can put another folder in the place of ours.
fn trusted_folder() -> io::Result<PathBuf> {
    let temporary = std::env::temp_dir();
    match Folder::open(&temporary)?.trust() {
        Trust::Owner { .. } if geteuid().is_root() => {
            let message = format!(
                "others can change the folder {} (name another in TMPDIR)",
                temporary.display()
            );
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        }
        _ => Ok(temporary),
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What stays is an empty folder that only this user can enter.
        let _ = std::fs::remove_file(self.name());
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_its_user_reaches_it_and_nobody_when_it_is_dropped() {
        let private = Private::new().expect("a listener");
        let (folder, name) = (private.folder.clone(), private.name());
        let mode = folder.metadata().expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        UnixStream::connect(&name).expect("it listens");
        drop(private);
        assert!(!folder.exists());
    }
}
