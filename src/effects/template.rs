//! Templates: processes that have loaded an application and fork workers from it, on requests over a socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, setsockopt,
    sockopt,
};
use nix::unistd::{Pid, geteuid};
use preforkd_worker::messages::{Along, Fork, Reply};

use super::launch::{Contract, launch};
use super::notify;
use crate::launcher::progress::Launching;
use crate::plan::Launch;
use crate::sys;

/// The master's end of a template's socket.
pub struct Template {
    /// The process id.
    pub pid: Pid,
    /// The name of its app.
    pub app: String,
    socket: OwnedFd,
}

impl Template {
    /// Starts a template.
    ///
    /// # Errors
    /// The process or its socket cannot be created.
    pub fn start(launch_as: &Launch, contract: Contract) -> io::Result<(Self, Launching)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let user = launch_as.user.as_ref();
        if user.is_some_and(|user| user.uid != geteuid().as_raw()) {
            // See `notify`.
            let _ = sys::refuse_descriptors(socket.as_fd());
        }
        let contract = Contract {
            template: Some(theirs.as_fd()),
            ..contract
        };
        let (pid, launching) = launch(launch_as, &contract)?;
        let app = contract.app.to_owned();
        Ok((Self { pid, app, socket }, launching))
    }

    /// Stops the template from sending. What it has sent before can still be received; a worker that has not introduced itself
    /// ends.
    pub fn shut_down_read(&self) {
        // This fails only if the other end is closed.
        let _ = socket::shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The next packet: its sender, and the reply, unless it holds none. `None` when the queue is empty.
    pub fn receive(&self) -> Option<(Pid, Option<Reply>)> {
        let (sender, packet) = notify::receive(&self.socket)?;
        // The kernel reports a sender outside of our PID namespace as 0, which for kill(2) is the master's own process group.
        let reply = (sender.as_raw() > 0).then(|| Reply::parse(packet.as_bytes()));
        Some((sender, reply.flatten()))
    }

    /// Sends a request, with the pipe that ends when the worker is to stop, and the listener that only the worker has.
    ///
    /// # Errors
    /// The socket's queue is full, or the template is gone.
    pub fn send(
        &self,
        order: &Fork,
        stop: Option<BorrowedFd>,
        own: Option<BorrowedFd>,
    ) -> nix::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let along = Along {
            stop: stop.is_some(),
            own: own.is_some(),
        };
        let text = Fork { along, ..*order }.encode();
        let fds = stop.iter().chain(&own);
        let fds: Vec<RawFd> = fds.map(AsRawFd::as_raw_fd).collect();
        let along = (!fds.is_empty()).then_some(ControlMessage::ScmRights(&fds));
        let message = [IoSlice::new(text.as_bytes())];
        let socket = self.socket.as_raw_fd();
        socket::sendmsg::<()>(socket, &message, along.as_slice(), flags, None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> (Template, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
                .expect("a pair of sockets");
        setsockopt(&socket, sockopt::PassCred, &true).expect("an option of sockets");
        let pid = Pid::from_raw(1);
        let app = "web".into();
        (Template { pid, app, socket }, theirs)
    }

    fn send_raw(theirs: &OwnedFd, packet: &[u8]) -> bool {
        let flags = MsgFlags::MSG_DONTWAIT;
        socket::send(theirs.as_raw_fd(), packet, flags).is_ok()
    }

    #[test]
    fn requests_and_replies_pass_the_socket_and_invalid_packets_are_no_replies() {
        let (template, theirs) = template();
        let order = Fork {
            ticket: 3,
            slot: 1,
            record: None,
            along: Along::default(),
        };
        let (reader, mut writer) = io::pipe().expect("a pipe");
        assert_eq!(template.send(&order, None, None), Ok(()));
        assert_eq!(template.send(&order, None, Some(reader.as_fd())), Ok(()));
        let mut packet = [0; 64];
        let flags = MsgFlags::MSG_DONTWAIT;
        let length = socket::recv(theirs.as_raw_fd(), &mut packet, flags).expect("an order");
        assert_eq!(Fork::parse(&packet[..length]), Some(order));
        let mut parts = [std::io::IoSliceMut::new(&mut packet)];
        let mut room = nix::cmsg_space!(RawFd);
        let received =
            socket::recvmsg::<()>(theirs.as_raw_fd(), &mut parts, Some(&mut room), flags);
        let received = received.expect("the order again");
        let along: Vec<_> = received.cmsgs().expect("whole").collect();
        assert!(matches!(
            &along[..],
            [socket::ControlMessageOwned::ScmRights(fds)] if fds.len() == 1
        ));
        let length = received.bytes;
        let named = Fork::parse(&packet[..length]).map(|order| order.along);
        let own = Along {
            stop: false,
            own: true,
        };
        assert_eq!(named, Some(own));
        drop(reader);
        std::io::Write::write_all(&mut writer, b"x").expect("the descriptor that came is a reader");
        for packet in [&b"nonsense"[..], b"READY", b"\xff", b"FORKED 3"] {
            assert!(send_raw(&theirs, packet));
        }
        let forked = Reply::Forked { ticket: 3 };
        for reply in [None, Some(Reply::Ready), None, Some(forked)] {
            assert_eq!(template.receive(), Some((Pid::this(), reply)));
        }
        assert_eq!(template.receive(), None);
    }
}
