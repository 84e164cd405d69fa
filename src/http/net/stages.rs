//! How far each client's socket has come, for a process that is about to die: it can still answer the requests that it has not begun to
//! serve, where the kernel would reset their connections.
//!
//! Without a lock, as a signal handler reads it.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};

/// Higher numbers are not noted; no worker has as many clients unless its limits were raised beyond all need.
const MOST: usize = 1 << 16;

static STAGES: [AtomicU8; MOST] = [const { AtomicU8::new(0) }; MOST];

/// How far a client's socket has come with the request that is the next to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It is no client's socket.
    None,
    /// Nothing of a request was read.
    Idle,
    /// Something of it was read.
    Asked,
    /// It is being served, or a part of its answer was sent.
    Served,
}

/// Notes the stage of a socket.
pub(crate) fn note(socket: impl AsFd, stage: Stage) {
    note_number(socket.as_fd().as_raw_fd(), stage);
}

/// The same for a socket that the caller knows to be open.
pub(crate) fn note_number(socket: RawFd, stage: Stage) {
    if let Some(noted) = usize::try_from(socket).ok().and_then(|fd| STAGES.get(fd)) {
        noted.store(stage as u8, Ordering::Relaxed);
    }
}

/// The sockets of clients to whom nothing of an answer was sent, and whether something of a request was read from each. It neither
/// allocates nor locks.
pub fn unserved() -> impl Iterator<Item = (RawFd, bool)> {
    let stages = STAGES.iter().zip(0..);
    stages.filter_map(|(stage, fd)| {
        let stage = stage.load(Ordering::Relaxed);
        let asked = stage == Stage::Asked as u8;
        (asked || stage == Stage::Idle as u8).then_some((fd, asked))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn sockets_that_were_sent_nothing_are_listed() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let listed = || {
            let fd = socket.as_raw_fd();
            unserved().find(|(listed, _)| *listed == fd)
        };
        for (stage, expected) in [
            (Stage::Idle, Some(false)),
            (Stage::Asked, Some(true)),
            (Stage::Served, None),
            (Stage::None, None),
        ] {
            note(&socket, stage);
            assert_eq!(listed().map(|(_, asked)| asked), expected, "{stage:?}");
        }
        note_number(-1, Stage::Asked);
        note_number(RawFd::MAX, Stage::Asked);
    }
}
