//! Templates: processes that have loaded an application and fork workers from it, on request over a socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, setsockopt, sockopt,
};
use nix::unistd::Pid;

use super::launch::{Contract, launch};
use super::notify;
use crate::plan::Launch;

/// A worker that a template is to fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Comes back with the answer.
    pub ticket: u64,
    /// The worker's number.
    pub slot: u32,
    /// Its record in the scoreboard.
    pub record: Option<u32>,
}

/// What a template, or a worker just forked from it, says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The application is loaded.
    Ready,
    /// A worker runs.
    Forked(u64, Pid),
    /// The system would not have a worker forked.
    Failed(u64, String),
    /// The process that was to fork these workers ended badly.
    Lost(Vec<u64>, String),
}

/// One template and what it was asked for.
pub struct Template {
    /// Its process.
    pub pid: Pid,
    socket: OwnedFd,
    loaded: bool,
    waiting: VecDeque<Wanted>,
    asked: Vec<Wanted>,
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
            waiting: VecDeque::new(),
            asked: Vec::new(),
        };
        Ok((template, pipe))
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

    /// Whether the application is loaded.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Asks for a worker, now or as soon as the application is loaded.
    pub fn want(&mut self, wanted: Wanted) {
        self.waiting.push_back(wanted);
        self.send();
    }

    /// Takes a request back that was not sent yet; says whether that was so.
    pub fn cancel(&mut self, ticket: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|wanted| wanted.ticket != ticket);
        self.waiting.len() < before
    }

    /// Gives up a request that was sent; says whether it was not answered before.
    pub fn forget(&mut self, ticket: u64) -> bool {
        let before = self.asked.len();
        self.asked.retain(|wanted| wanted.ticket != ticket);
        self.asked.len() < before
    }

    /// Whether nobody waits for a worker of it.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }

    /// What was said, until there is nothing more.
    pub fn receive(&mut self) -> Option<Said> {
        loop {
            let (sender, text) = notify::receive(&self.socket)?;
            let mut said = parse(sender, &text);
            match &mut said {
                Some(Said::Ready) => {
                    self.loaded = true;
                    self.send();
                }
                Some(Said::Forked(ticket, _)) => {
                    self.forget(*ticket);
                }
                Some(Said::Failed(ticket, _)) if !self.forget(*ticket) => continue,
                Some(Said::Failed(..)) => {}
                // Some of its workers may be there.
                Some(Said::Lost(tickets, _)) => {
                    tickets.retain(|ticket| self.forget(*ticket));
                    if tickets.is_empty() {
                        continue;
                    }
                }
                None => continue,
            }
            return said;
        }
    }

    /// Everything that was asked for in vain, when the template has died.
    pub fn unanswered(self) -> impl Iterator<Item = u64> {
        self.asked
            .into_iter()
            .chain(self.waiting)
            .map(|wanted| wanted.ticket)
    }

    fn send(&mut self) {
        while self.loaded
            && let Some(wanted) = self.waiting.front()
        {
            let record = wanted
                .record
                .map_or("-".into(), |record| record.to_string());
            let text = format!("FORK {} {} {record}", wanted.ticket, wanted.slot);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            if socket::send(self.socket.as_raw_fd(), text.as_bytes(), flags).is_err() {
                // Full: goes on when the template has answered. Closed: its death is told by the kernel.
                return;
            }
            self.asked.extend(self.waiting.pop_front());
        }
    }
}

fn parse(sender: Pid, text: &str) -> Option<Said> {
    let mut words = text.trim_end().splitn(3, ' ');
    match (words.next()?, words.next(), words.next()) {
        ("READY", None, None) => Some(Said::Ready),
        ("FORKED", Some(ticket), None) => Some(Said::Forked(ticket.parse().ok()?, sender)),
        ("FAILED", Some(ticket), reason) => Some(Said::Failed(
            ticket.parse().ok()?,
            reason.unwrap_or_default().to_owned(),
        )),
        ("LOST", Some(tickets), reason) => Some(Said::Lost(
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
        let pid = Pid::from_raw(7);
        assert_eq!(parse(pid, "READY"), Some(Said::Ready));
        assert_eq!(parse(pid, "FORKED 12"), Some(Said::Forked(12, pid)));
        assert_eq!(
            parse(pid, "FAILED 3 no memory left"),
            Some(Said::Failed(3, "no memory left".into()))
        );
        assert_eq!(
            parse(pid, "LOST 3,4 it was killed"),
            Some(Said::Lost(vec![3, 4], "it was killed".into()))
        );
        for nonsense in [
            "",
            "READY now",
            "FORKED",
            "FORKED x",
            "FORKED 1 2",
            "fork 1",
        ] {
            assert_eq!(parse(pid, nonsense), None, "{nonsense}");
        }
    }
}
