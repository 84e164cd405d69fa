//! Templates: processes that have loaded an application and fork workers from it, on request over a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, setsockopt, sockopt,
};
use nix::unistd::Pid;

use super::launch::{Contract, launch};
use super::notify;
use crate::plan::Launch;

/// An order to a template: fork a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Comes back with the answer.
    pub ticket: u64,
    /// The worker's number.
    pub slot: u32,
    /// Its record in the scoreboard.
    pub record: Option<u32>,
}

/// What a template, or a worker just forked from it, says.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The application is loaded.
    Ready,
    /// A worker runs; it says so itself.
    Forked(u64),
    /// The system would not have a worker forked.
    Failed(u64, String),
    /// The process that was to fork these workers ended badly.
    Lost(Vec<u64>, String),
}

/// The master's end of a template's socket.
pub struct Template {
    /// Its process.
    pub pid: Pid,
    socket: OwnedFd,
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
        Ok((Self { pid, socket }, pipe))
    }

    /// What was said before is still to be received; a worker that has not said yet who it is ends instead.
    pub fn hear_no_more(&self) {
        // It can only fail when the other side is gone.
        let _ = socket::shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }

    /// For the poll.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What was said next and who said it, until there is nothing more; what cannot be understood is skipped.
    pub fn receive(&self) -> Option<(Pid, Reply)> {
        loop {
            let (sender, text) = notify::receive(&self.socket)?;
            if let Some(reply) = parse(&text) {
                return Some((sender, reply));
            }
        }
    }

    /// Sends an order.
    ///
    /// # Errors
    /// The socket is full, or the template is gone.
    pub fn send(&self, order: &Order) -> nix::Result<()> {
        let record = order.record.map_or("-".into(), |record| record.to_string());
        let text = format!("FORK {} {} {record}", order.ticket, order.slot);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        socket::send(self.socket.as_raw_fd(), text.as_bytes(), flags).map(drop)
    }
}

fn parse(text: &str) -> Option<Reply> {
    let mut words = text.trim_end().splitn(3, ' ');
    match (words.next()?, words.next(), words.next()) {
        ("READY", None, None) => Some(Reply::Ready),
        ("FORKED", Some(ticket), None) => Some(Reply::Forked(ticket.parse().ok()?)),
        ("FAILED", Some(ticket), reason) => Some(Reply::Failed(
            ticket.parse().ok()?,
            reason.unwrap_or_default().to_owned(),
        )),
        ("LOST", Some(tickets), reason) => Some(Reply::Lost(
            tickets
                .split(',')
                .map(|ticket| ticket.parse().ok())
                .collect::<Option<_>>()?,
            reason.unwrap_or_default().to_owned(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_template_are_understood_and_others_ignored() {
        assert_eq!(parse("READY"), Some(Reply::Ready));
        assert_eq!(parse("FORKED 12"), Some(Reply::Forked(12)));
        assert_eq!(
            parse("FAILED 3 no memory left"),
            Some(Reply::Failed(3, "no memory left".into()))
        );
        assert_eq!(
            parse("LOST 3,4 it was killed"),
            Some(Reply::Lost(vec![3, 4], "it was killed".into()))
        );
        for nonsense in [
            "",
            "READY now",
            "FORKED",
            "FORKED x",
            "FORKED 1 2",
            "fork 1",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
