//! What a worker of the front asks about its sockets.

use std::io;
use std::os::fd::AsFd;

use crate::sys;

/// Memory that holds what was written to a Unix stream socket and its peer has not read, in bytes; 0 when all of it was read.
///
/// # Errors
/// Those of ioctl(2) with SIOCOUTQ.
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    sys::unread(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_read_is_not_unread() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(unread(&one).unwrap(), 0);
        one.write_all(b"abc").unwrap();
        assert!(unread(&one).unwrap() > 0);
        assert_eq!(unread(&other).unwrap(), 0);
        one.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(unread(&one).unwrap() > 0, "the end changes nothing");
        assert_eq!(other.read(&mut [0; 8]).unwrap(), 3);
        assert_eq!(unread(&one).unwrap(), 0);
    }
}
