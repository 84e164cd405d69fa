//! A private listener over which a new worker is checked. Only this user can connect to it: its socket file is in a folder of
//! mode 0700, and exists only while it is needed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{self, AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr};
use nix::unistd::{geteuid, mkdtemp};

use super::paths::{Folder, Trust};

/// A private listener. Once dropped, no one can connect to it, but accepted connections stay open.
#[derive(Debug)]
pub struct Private {
    socket: OwnedFd,
    folder: PathBuf,
}

impl Private {
    /// Binds a new listener.
    ///
    /// # Errors
    /// No descriptor is available, no temporary folder can be created, or, for root, others can change the folder it is in.
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

    /// The socket, for the worker and for the probe.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Shuts the listener down in all processes that hold it: poll(2) says POLLHUP, and accept(2) fails with EINVAL, or with EAGAIN
    /// where it does not block.
    ///
    /// # Errors
    /// None is known for a listener.
    pub fn shut_down(&self) -> io::Result<()> {
        Ok(socket::shutdown(self.socket.as_raw_fd(), Shutdown::Both)?)
    }

    fn name(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

/// A folder for temporary files in which others cannot replace our folder.
fn trusted_folder() -> io::Result<PathBuf> {
    let temporary = std::env::temp_dir();
    match Folder::open(&temporary)?.trust() {
        Trust::Owner { .. } if geteuid().is_root() => {
            let message = format!(
                "others can change the folder {} (set TMPDIR to another one)",
                temporary.display()
            );
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        }
        _ => Ok(temporary),
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // At worst an empty folder stays, which only this user can enter.
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
    fn only_its_user_reaches_it_and_no_one_when_it_is_dropped() {
        let private = Private::new().expect("a listener");
        let (folder, name) = (private.folder.clone(), private.name());
        let mode = folder.metadata().expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        UnixStream::connect(&name).expect("it listens");
        drop(private);
        assert!(!folder.exists());
    }
}
