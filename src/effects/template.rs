//! Templates: processes that have loaded an application and fork workers from it, on request over a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, setsockopt, sockopt,
};
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};

use super::launch::{Contract, launch};
use super::notify;
use crate::plan::Launch;

/// Most packets that are read at a time, so that a template that floods costs bounded time and memory: more than the
/// queue of a socket holds, so that everything is read that was sent before an end.
const TURN: usize = 1024;

/// One template and its orders.
pub struct Template {
    /// Its process.
    pub pid: Pid,
    socket: OwnedFd,
    loaded: bool,
    /// Orders that were not sent yet, by ticket. Tickets grow, so this is their order.
    waiting: BTreeMap<u64, Fork>,
    /// Tickets of orders that were sent and have no reply yet.
    sent: BTreeSet<u64>,
}

impl Template {
    /// Starts one; the pipe tells how far it comes.
    ///
    /// # Errors
    /// No process or socket could be made.
    pub fn start(launch_as: &Launch, contract: Contract) -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let contract = Contract {
            template: Some(theirs.as_fd()),
            ..contract
        };
        let (pid, pipe) = launch(launch_as, &contract)?;
        let template = Self {
            pid,
            socket,
            loaded: false,
            waiting: BTreeMap::new(),
            sent: BTreeSet::new(),
        };
        Ok((template, pipe))
    }

    /// From now on the template can send nothing. What it has sent before can still be received; a worker that has not introduced
    /// itself ends.
    pub fn hear_no_more(&self) {
        // It can only fail when the other side is gone.
        let _ = socket::shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    /// For the poll.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether the application is loaded.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Asks for a worker, now or as soon as the application is loaded.
    pub fn want(&mut self, order: Fork) {
        self.waiting.insert(order.ticket, order);
        self.send();
    }

    /// Takes back an order that was not sent yet. Whether that was possible.
    pub fn cancel(&mut self, ticket: u64) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// Notes the reply to an order. Whether it was sent and had none yet.
    fn forget(&mut self, ticket: u64) -> bool {
        self.sent.remove(&ticket)
    }

    /// Whether it has no order that is still to be carried out.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// The replies that matter, in their order, and who sent each; and whether there may be more, as a bounded number of
    /// packets is read at a time.
    pub fn receive(&mut self) -> (Vec<(Pid, Reply)>, bool) {
        let mut replies = Vec::new();
        for _ in 0..TURN {
            let Some((sender, packet)) = notify::receive(&self.socket) else {
                return (replies, false);
            };
            let reply = Reply::parse(packet.as_bytes());
            replies.extend(reply.and_then(|reply| Some((sender, self.take(sender, reply)?))));
        }
        (replies, true)
    }

    /// Leaves out replies to orders that were not given, but for a worker that introduces itself: it may be one that
    /// was given up, and must not go on.
    fn take(&mut self, sender: Pid, reply: Reply) -> Option<Reply> {
        let reply = match reply {
            Reply::Ready => {
                self.loaded = true;
                reply
            }
            Reply::Forked { ticket } => {
                // The kernel shows a sender outside of our PID namespace as 0, which to kill(2) is the master's own group.
                if sender.as_raw() <= 0 || sender == self.pid {
                    return None;
                }
                self.forget(ticket);
                reply
            }
            Reply::Failed { ticket, .. } => self.forget(ticket).then_some(reply)?,
            // Some of its workers may be there.
            Reply::Lost {
                mut tickets,
                reason,
            } => {
                tickets.retain(|ticket| self.forget(*ticket));
                (!tickets.is_empty()).then_some(Reply::Lost { tickets, reason })?
            }
        };
        self.send();
        Some(reply)
    }

    /// The tickets of all orders without a reply, when the template has died.
    pub fn unanswered(self) -> impl Iterator<Item = u64> {
        self.sent.into_iter().chain(self.waiting.into_keys())
    }

    fn send(&mut self) {
        while self.loaded
            && let Some(order) = self.waiting.first_entry()
        {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let packet = order.get().encode();
            if socket::send(self.socket.as_raw_fd(), packet.as_bytes(), flags).is_err() {
                // Full: goes on with the next reply. Closed: the kernel tells of its death.
                return;
            }
            self.sent.insert(order.remove().ticket);
        }
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
        let template = Template {
            pid: Pid::from_raw(1),
            socket,
            loaded: false,
            waiting: BTreeMap::new(),
            sent: BTreeSet::new(),
        };
        (template, theirs)
    }

    fn say(theirs: &OwnedFd, reply: &str) {
        socket::send(theirs.as_raw_fd(), reply.as_bytes(), MsgFlags::empty()).expect("room");
    }

    fn order(ticket: u64) -> Fork {
        Fork {
            ticket,
            slot: 0,
            record: None,
        }
    }

    #[test]
    fn orders_wait_for_the_application_to_be_loaded() {
        let (mut template, theirs) = template();
        template.want(order(3));
        let mut packet = [0; 64];
        let flags = MsgFlags::MSG_DONTWAIT;
        let early = socket::recv(theirs.as_raw_fd(), &mut packet, flags);
        assert_eq!(early, Err(nix::Error::EAGAIN));
        say(&theirs, "READY");
        assert_eq!(
            template.receive(),
            (vec![(Pid::this(), Reply::Ready)], false)
        );
        let length = socket::recv(theirs.as_raw_fd(), &mut packet, flags).expect("an order");
        assert_eq!(Fork::parse(&packet[..length]), Some(order(3)));
    }

    #[test]
    fn replies_to_orders_that_were_not_given_are_left_out() {
        let (mut template, theirs) = template();
        template.sent = [3, 4, 5].into();
        for reply in [
            "FAILED 7 no",
            "LOST 7,8 no",
            "FAILED 3 no memory",
            "FAILED 3 again",
            "nonsense",
            "LOST 3,4 it was killed",
            "FORKED 5",
        ] {
            say(&theirs, reply);
        }
        let reason = "no memory".to_owned();
        let (replies, _) = template.receive();
        let replies: Vec<_> = replies.into_iter().map(|(_, reply)| reply).collect();
        assert_eq!(
            replies,
            [
                Reply::Failed { ticket: 3, reason },
                Reply::Lost {
                    tickets: vec![4],
                    reason: "it was killed".into()
                },
                Reply::Forked { ticket: 5 }
            ]
        );
        assert!(template.is_idle());
    }

    #[test]
    fn a_template_is_no_worker_of_its_own() {
        let (mut template, theirs) = template();
        template.pid = Pid::this();
        template.sent = [3].into();
        say(&theirs, "FORKED 3");
        assert_eq!(template.receive(), (Vec::new(), false));
        assert!(!template.is_idle(), "the order is still open");
    }

    #[test]
    fn orders_that_found_no_room_follow_with_the_replies() {
        let (mut template, theirs) = template();
        template.loaded = true;
        let all = 10_000;
        (0..all).for_each(|ticket| template.want(order(ticket)));
        assert!(!template.waiting.is_empty(), "the socket has less room");
        let mut packet = [0; 64];
        for ticket in 0..all {
            let flags = MsgFlags::MSG_DONTWAIT;
            let length = socket::recv(theirs.as_raw_fd(), &mut packet, flags).expect("an order");
            assert_eq!(Fork::parse(&packet[..length]), Some(order(ticket)));
            say(&theirs, &format!("FAILED {ticket} no memory"));
            assert_eq!(template.receive().0.len(), 1);
        }
        assert!(template.is_idle());
    }

    #[test]
    fn a_template_that_sends_without_end_is_heard_in_parts() {
        let (mut template, theirs) = template();
        let sending = || {
            let flags = MsgFlags::MSG_DONTWAIT;
            socket::send(theirs.as_raw_fd(), b"READY", flags).is_ok()
        };
        let queued = std::iter::from_fn(|| sending().then_some(())).count();
        assert!(
            queued < TURN,
            "one turn reads all that the socket holds: {queued}"
        );
        assert_eq!(template.receive().0.len(), queued);
    }
}
