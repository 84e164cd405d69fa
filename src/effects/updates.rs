//! Updates for the workers of the front ([`preforkd_worker::updates`]): one socket for each of them.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg,
};
use nix::unistd::Pid;

/// The master's end of the socket of one worker.
pub struct Channel {
    socket: OwnedFd,
    /// What the worker has not been sent, as its queue is full.
    waiting: BTreeMap<String, Rc<OwnedFd>>,
    /// How many it has been sent.
    sent: u64,
}

impl Channel {
    /// A channel, and the worker's end of it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (socket, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let waiting = BTreeMap::new();
        Ok((
            Self {
                socket,
                waiting,
                sent: 0,
            },
            theirs,
        ))
    }

    /// The descriptor to poll for writing.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Sends an update, at once or when there is room; then only the latest of those with the same packet.
    pub fn send(&mut self, packet: &str, update: &Rc<OwnedFd>) {
        self.waiting.insert(packet.to_owned(), update.clone());
        self.flush();
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            match send(&self.socket, entry.key(), entry.get()) {
                // Descriptors that many workers have not received count too: unix(7), ETOOMANYREFS.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => return,
                // Whoever has no other end any more needs none.
                Err(_) => drop(entry.remove()),
                Ok(()) => {
                    self.sent += 1;
                    drop(entry.remove());
                }
            }
        }
    }
}

fn send(socket: &OwnedFd, packet: &str, update: &OwnedFd) -> nix::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let along = [update.as_raw_fd()];
    let along = [ControlMessage::ScmRights(&along)];
    let packet = [IoSlice::new(packet.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &packet, &along, flags, None).map(drop)
}

/// The channels of all workers of the front.
#[derive(Default)]
pub struct Updates {
    channels: HashMap<Pid, Channel>,
}

impl Updates {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// A worker was started that has the other end.
    pub fn insert(&mut self, worker: Pid, channel: Channel) {
        self.channels.insert(worker, channel);
    }

    /// A worker was reaped. Returns its channel.
    pub fn remove(&mut self, worker: Pid) -> Option<Channel> {
        self.channels.remove(&worker)
    }

    /// Whether a worker that has taken so many in has taken all.
    pub fn has_taken(&self, worker: Pid, number: u64) -> bool {
        let channel = self.channels.get(&worker);
        channel.is_none_or(|channel| channel.waiting.is_empty() && channel.sent == number)
    }

    /// Sends an update to a worker.
    pub fn send(&mut self, worker: Pid, packet: &str, update: &Rc<OwnedFd>) {
        if let Some(channel) = self.channels.get_mut(&worker) {
            channel.send(packet, update);
        }
    }

    /// Sends an update to all workers.
    pub fn send_all(&mut self, packet: &str, update: &Rc<OwnedFd>) {
        for channel in self.channels.values_mut() {
            channel.send(packet, update);
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        self.channels.values_mut().for_each(Channel::flush);
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::os::fd::AsFd;

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    const PACKET: &str = "KIND";

    /// The length of the next packet, and of the descriptors with it.
    fn receive(theirs: &OwnedFd) -> nix::Result<(usize, usize)> {
        let mut bytes = [0; 64];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut room = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_DONTWAIT;
        let found = recvmsg::<()>(theirs.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
        let mut fds = 0;
        for message in found.cmsgs()? {
            if let ControlMessageOwned::ScmRights(found) = message {
                fds += found.len();
            }
        }
        Ok((found.bytes, fds))
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_sent_later_and_only_the_latest() {
        let (mut channel, theirs) = Channel::new().expect("a pair");
        let (end, _other) = io::pipe().expect("a pipe");
        let update = Rc::new(end.as_fd().try_clone_to_owned().expect("a copy"));
        let mut sent = 0;
        while channel.waiting.is_empty() {
            channel.send(PACKET, &update);
            sent += 1;
            assert!(sent < 100_000, "the queue has no end");
        }
        channel.send(PACKET, &update);
        let mut updates = Updates::default();
        let worker = Pid::from_raw(7);
        updates.insert(worker, channel);
        assert!(!updates.has_taken(worker, sent - 1), "one waits");
        let length = PACKET.len();
        for _ in 1..sent {
            assert_eq!(receive(&theirs), Ok((length, 1)));
        }
        assert_eq!(receive(&theirs), Err(Errno::EAGAIN));
        updates.flush();
        assert!(updates.has_taken(worker, sent) && !updates.has_taken(worker, sent - 1));
        let mut channel = updates.remove(worker).expect("it is there");
        assert_eq!(receive(&theirs), Ok((length, 1)));
        assert_eq!(receive(&theirs), Err(Errno::EAGAIN), "the latest only");
        drop(theirs);
        channel.send(PACKET, &update);
        assert!(channel.waiting.is_empty(), "nobody needs it any more");
    }
}
