//! Where each connection stands, for the moment in which the process has to die: a client whose request nobody has begun to serve gets to
//! know it then.
//!
//! Numbers without a lock, by descriptor, as a signal handler reads them.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};

use super::descriptors::{MOST, owned};

static STANDINGS: [AtomicU8; MOST] = [const { AtomicU8::new(0) }; MOST];

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Between requests. One may be in the socket.
    Idle = 1,
    /// A request is there or arriving, nobody has begun to serve it, and nothing of a response was sent.
    Waiting = 2,
    /// A request is being served, or a response is being sent.
    Served = 3,
}

/// Notes where a connection stands; none when it is closed.
#[inline]
pub(crate) fn note(fd: impl AsFd, standing: Option<Standing>) {
    let fd = usize::try_from(fd.as_fd().as_raw_fd()).ok();
    if let Some(place) = fd.and_then(|fd| STANDINGS.get(fd)) {
        place.store(
            standing.map_or(0, |standing| standing as u8),
            Ordering::Relaxed,
        );
    }
}

/// All connections. It neither allocates nor locks.
pub fn connections() -> impl Iterator<Item = (RawFd, Standing)> {
    owned().filter_map(|fd| {
        let place = STANDINGS.get(usize::try_from(fd).ok()?)?;
        let standing = match place.load(Ordering::Relaxed) {
            1 => Standing::Idle,
            2 => Standing::Waiting,
            3 => Standing::Served,
            _ => return None,
        };
        Some((fd, standing))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::net::plain::Plain;
    use crate::net::transport::Transport as _;

    #[test]
    fn connections_are_listed_with_their_standing_as_long_as_they_are_open() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = ours.as_raw_fd();
        let standing = || connections().find(|&(number, _)| number == fd);
        assert_eq!(standing(), None);
        let transport = Plain::over(ours.into(), false);
        assert_eq!(standing(), Some((fd, Standing::Idle)));
        transport.stands(Standing::Waiting);
        assert_eq!(standing(), Some((fd, Standing::Waiting)));
        drop(transport);
        // Another test may have got the number.
        assert_ne!(standing(), Some((fd, Standing::Waiting)));
    }
}
