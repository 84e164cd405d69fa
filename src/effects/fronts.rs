//! What front workers are told: each has a socket, on which the master sends texts in memory files.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::unistd::Pid;

/// The master's ends of the sockets.
#[derive(Default)]
pub struct Fronts {
    sockets: HashMap<Pid, OwnedFd>,
}

/// A socket: the master's end, and the worker's.
///
/// # Errors
/// No descriptor is left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        flags,
    )?)
}

impl Fronts {
    /// A front worker was started that has the other end. Returns the descriptor to poll.
    pub fn insert(&mut self, worker: Pid, ours: OwnedFd) -> RawFd {
        let fd = ours.as_raw_fd();
        self.sockets.insert(worker, ours);
        fd
    }

    /// Sends a memory file. Returns false if the worker has to read first.
    pub fn send(&self, worker: Pid, file: BorrowedFd) -> bool {
        let Some(socket) = self.sockets.get(&worker) else {
            return true;
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let file = [file.as_raw_fd()];
        let along = [ControlMessage::ScmRights(&file)];
        let text = [IoSlice::new(b"upstream")];
        let sent = sendmsg::<()>(socket.as_raw_fd(), &text, &along, flags, None);
        // Whatever else is wrong, it is at its end. ETOOMANYREFS: too many files are on their way, unix(7).
        !matches!(
            sent,
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS)
        )
    }

    /// The worker was reaped. Returns the descriptor that was polled.
    pub fn remove(&mut self, worker: Pid) -> Option<RawFd> {
        let socket = self.sockets.remove(&worker)?;
        Some(socket.as_fd().as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_worker_that_does_not_read_holds_up_nobody() {
        let mut fronts = Fronts::default();
        let (ours, _theirs) = pair().expect("two descriptors");
        let worker = Pid::from_raw(7);
        fronts.insert(worker, ours);
        let file = File::open("/dev/null").expect("it is there");
        let sent = (0..100_000).take_while(|_| fronts.send(worker, file.as_fd()));
        assert!((1..100_000).contains(&sent.count()));
        assert!(fronts.remove(worker).is_some());
        assert!(fronts.send(worker, file.as_fd()), "there is nobody to tell");
    }
}
