//! The terminal that the master was started on, and whether it was closed.
//!
//! When a terminal is closed, the kernel sends SIGHUP to the leader of the session and, when that ends, to the foreground processes:
//! credentials(7). A shell that leads the session also sends it to its jobs before it ends.

use std::io::{IsTerminal, stderr, stdin};

use nix::sys::signal::Signal;
use nix::unistd::getsid;

use super::signals::{Arrived, Sender};

/// The terminal of this process.
pub struct Terminal {
    /// Whether its session had a terminal at the start.
    existed: bool,
}

impl Terminal {
    /// The terminal that the process has now.
    pub fn of_now() -> Self {
        Self {
            existed: is_controlled(),
        }
    }

    /// Whether the session of the process had one.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// Whether the process runs on a terminal.
    pub fn exists(&self) -> bool {
        stdin().is_terminal() || stderr().is_terminal()
    }

    /// Whether a signal means that the terminal was closed.
    pub fn has_hung_up(&self, arrived: &Arrived) -> bool {
        // A leader in another namespace of processes has the number 0, and so has every sender there.
        let leader = getsid(None).ok().map(|leader| leader.as_raw());
        let leader = leader.filter(|leader| *leader > 0);
        is_hang_up(arrived, leader, || self.existed && !is_controlled())
    }
}

/// Whether the session of this process has a terminal. A session loses it when it is closed.
fn is_controlled() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat");
    stat.is_ok_and(|stat| has_terminal(&stat))
}

/// The same by proc_pid_stat(5). The name of the program, in parentheses, may contain anything.
fn has_terminal(stat: &str) -> bool {
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let terminal = after_name.split_whitespace().nth(4);
    terminal.is_some_and(|number| number != "0")
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
    fn the_terminal_of_a_session_is_found() {
        assert!(has_terminal("7 (a) b (c) S 1 7 7 34816 7 4194560 110"));
        assert!(!has_terminal("7 (a) b (c) S 1 7 7 0 -1 4194560 110"));
        assert!(!has_terminal("7"));
    }

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
