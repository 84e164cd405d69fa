//! Sockets on their way: from a master to its guard, and from the guard to the next master. A packet has one socket, and the name under
//! which it is kept.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

use crate::sys;

/// The longest name: that of the init system, sd_notify(3).
const MAX_NAME: usize = 255;

/// Sends a socket over a socket for packets. Never blocks.
///
/// # Errors
/// There is no room (EAGAIN), or the other end is closed.
pub fn send(to: impl AsFd, name: &str, socket: BorrowedFd) -> nix::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let along = [socket.as_raw_fd()];
    let along = [ControlMessage::ScmRights(&along)];
    let packet = [IoSlice::new(name.as_bytes())];
    sendmsg::<()>(to.as_fd().as_raw_fd(), &packet, &along, flags, None).map(drop)
}

/// The next socket that was sent; `None` at the end. Packets of another form are left out. Never blocks.
///
/// # Errors
/// There is none yet (EAGAIN), or no descriptor is left.
pub fn receive(from: impl AsFd) -> nix::Result<Option<(String, OwnedFd)>> {
    loop {
        let mut bytes = [0; MAX_NAME + 1];
        let (length, mut sockets) = sys::receive_descriptors(from.as_fd(), &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        let name = std::str::from_utf8(&bytes[..length]).ok();
        if let (Some(name), Some(socket)) = (name, sockets.pop()) {
            return Ok(Some((name.to_owned(), socket)));
        }
    }
}

/// The sockets that a master leaves to its guard when it dies. They wait in a queue that the guard does not read before: so it has none
/// while the master lives, is not woken by changes, and a guard that is started again has them all.
#[derive(Debug)]
pub struct Queue {
    into: OwnedFd,
    out: OwnedFd,
}

impl Queue {
    /// An empty one.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let kind = SockType::SeqPacket;
        let (into, out) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        Ok(Self { into, out })
    }

    /// The end that the guard reads.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.out.as_fd()
    }

    /// Puts these in the place of all others.
    ///
    /// # Errors
    /// There is no room for all.
    pub fn fill<'a>(
        &self,
        sockets: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> nix::Result<()> {
        self.empty();
        let mut sockets = sockets.into_iter();
        sockets.try_for_each(|(name, socket)| send(&self.into, name, socket))
    }

    /// Closes all that it has.
    pub fn empty(&self) {
        while let Ok(Some(_)) | Err(Errno::EINTR) = receive(&self.out) {}
    }
}

/// All sockets that were left in a queue, which has this end.
pub fn left(end: OwnedFd) -> Vec<(String, OwnedFd)> {
    let mut sockets = Vec::new();
    while let Ok(Some(socket)) = receive(&end) {
        sockets.push(socket);
    }
    sockets
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    /// Waits until nobody has the listener. Processes that other tests start have it until they execute a program.
    pub(in crate::guard) fn refused(at: SocketAddr) {
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(at).is_ok() {
            assert!(Instant::now() < until, "somebody has {at}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_left_is_what_the_queue_was_filled_with_last() {
        let queue = Queue::new().expect("descriptors");
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [a, b, c] = listeners.each_ref().map(AsFd::as_fd);
        queue.fill([("a", a), ("b", b)]).expect("room");
        queue.fill([("b", b), ("c", c)]).expect("room");
        let at = |listener: &TcpListener| listener.local_addr().expect("bound");
        let [gone, _, kept] = listeners.each_ref().map(at);
        drop(listeners);
        refused(gone);
        let Queue { into, out } = queue;
        drop(into);
        let found = left(out);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        TcpStream::connect(kept).expect("it is the same socket");
        drop(found);
        refused(kept);
    }

    #[test]
    fn a_queue_that_was_emptied_keeps_nothing_open() {
        let queue = Queue::new().expect("descriptors");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("bound");
        queue.fill([("a", listener.as_fd())]).expect("room");
        drop(listener);
        TcpStream::connect(at).expect("the queue has it");
        queue.empty();
        refused(at);
    }
}
