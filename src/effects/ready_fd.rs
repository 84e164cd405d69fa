//! The descriptor of `--ready-fd`: a newline on it tells an init system such as s6 or dinit that preforkd is ready (s6-supervise(8),
//! "readiness notification support").

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys;

/// A descriptor that is open for writing. No child inherits it.
pub struct ReadyFd(File);

impl ReadyFd {
    /// Takes the descriptor that was passed to this process. Call it before anything else opens descriptors.
    ///
    /// # Errors
    /// It is a standard stream, is not open, or is not open for writing.
    pub fn adopt(fd: RawFd) -> Result<Self, String> {
        let adopted = sys::adopt(fd).map_err(|error| match error.raw_os_error() {
            Some(number) if number == Errno::EBADF as i32 => format!(
                "descriptor {fd} is not open (let the init system pass it: for s6, write {fd} into the file notification-fd)"
            ),
            _ => format!("{error} (use 3 or a higher number)"),
        })?;
        let flags = fcntl(&adopted, FcntlArg::F_GETFL).map_err(|error| error.to_string())?;
        let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
        if mode == OFlag::O_RDONLY || OFlag::from_bits_truncate(flags).contains(OFlag::O_PATH) {
            return Err(format!("descriptor {fd} is not open for writing"));
        }
        Ok(Self(adopted.into()))
    }

    /// Writes the newline, and closes the descriptor. Does not wait for a reader.
    ///
    /// # Errors
    /// It could not be written.
    pub fn announce(mut self) -> io::Result<()> {
        let mut look = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut look, PollTimeout::ZERO)? == 0 {
            return Err(io::Error::other("it is full"));
        }
        self.0.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe;
    use std::io::Read;

    #[test]
    fn a_newline_is_written_once_and_a_full_pipe_is_not_waited_for() {
        let (mut reader, writer) = ends();
        ReadyFd(writer).announce().expect("room");
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("its end");
        assert_eq!(read, "\n");

        let (reader, writer) = ends();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
        let mut full = writer.try_clone().expect("a descriptor");
        while full.write(&[0; 4096]).is_ok() {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe");
        let error = ReadyFd(writer).announce().expect_err("no room");
        assert_eq!(error.to_string(), "it is full");
        drop(reader);

        let (reader, writer) = ends();
        drop(reader);
        let error = ReadyFd(writer).announce().expect_err("no reader");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    fn ends() -> (File, File) {
        let (reader, writer) = pipe().expect("a pipe");
        (reader.into(), writer.into())
    }
}
