//! The terminal that the master was started on, and whether it was closed.
//!
//! When a terminal is closed, the kernel sends SIGHUP to the leader of the session and, when that ends, to the foreground processes:
//! credentials(7). A shell that leads the session also sends it to its jobs before it ends.

use std::io::{IsTerminal, stderr, stdin};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::getsid;

use super::signals::{Arrived, Sender};

/// The terminal of this process.
pub struct Terminal {
    /// Whether standard input and standard error were terminals at the start. One that was closed is none any more.
    input: bool,
    errors: bool,
}

impl Terminal {
    /// The terminal that the process has now.
    pub fn of_now() -> Self {
        Self {
            input: stdin().is_terminal(),
            errors: stderr().is_terminal(),
        }
    }

    /// Whether the process runs on a terminal.
    pub fn exists(&self) -> bool {
        stdin().is_terminal() || stderr().is_terminal()
    }

    /// Whether a signal means that the terminal was closed.
    pub fn has_hung_up(&self, arrived: &Arrived) -> bool {
        let leader = getsid(None).ok().map(|leader| leader.as_raw());
        is_hang_up(arrived, leader, || self.is_closed())
    }

    fn is_closed(&self) -> bool {
        let (input, errors) = (stdin(), stderr());
        let input = self.input.then(|| input.as_fd());
        let errors = self.errors.then(|| errors.as_fd());
        let mut terminals = input.into_iter().chain(errors);
        terminals.any(|fd| {
            let mut sources = [PollFd::new(fd, PollFlags::empty())];
            // Hanging up is always reported: poll(2).
            poll(&mut sources, PollTimeout::ZERO).is_ok()
                && sources[0]
                    .revents()
                    .is_some_and(|events| events.contains(PollFlags::POLLHUP))
        })
    }
}

/// Whether a signal means that the terminal was closed: SIGHUP of the kernel, or of the leader of the session when it is so. Everybody
/// else asks for a reload with it.
fn is_hang_up(arrived: &Arrived, leader: Option<i32>, is_closed: impl Fn() -> bool) -> bool {
    arrived.number == Signal::SIGHUP as i32
        && match arrived.sender {
            Sender::Kernel => true,
            Sender::Process(pid) => Some(pid) == leader && is_closed(),
            Sender::Unknown => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_and_the_shell_of_a_closed_terminal_hang_up() {
        let (hup, term) = (Signal::SIGHUP as i32, Signal::SIGTERM as i32);
        for (number, sender, closed, expected) in [
            (hup, Sender::Kernel, true, true),
            (hup, Sender::Kernel, false, true),
            (term, Sender::Kernel, true, false),
            (hup, Sender::Process(7), true, true),
            // An administrator reloads from the same shell.
            (hup, Sender::Process(7), false, false),
            // From another shell, after this terminal was closed.
            (hup, Sender::Process(8), true, false),
            (hup, Sender::Unknown, true, false),
        ] {
            let arrived = Arrived { number, sender };
            let found = is_hang_up(&arrived, Some(7), || closed);
            assert_eq!(found, expected, "{arrived:?} {closed}");
        }
    }
}
