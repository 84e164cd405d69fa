//! The requests that signals to the master make, and descriptions of exit statuses. Pure.

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

/// The request that a signal to the master makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read the configuration and the code again.
    Reload,
    /// Stop when all requests are finished.
    Stop,
    /// Stop now.
    StopNow,
    /// Add a worker.
    More,
    /// Remove a worker.
    Fewer,
    /// Drain all workers, keep the listeners.
    Pause,
    /// Reopen the log files.
    Reopen,
    /// Replace the master's program.
    Upgrade,
}

/// All signals, as in preforkd(8).
pub const TABLE: [(Signal, Request); 9] = [
    (Signal::SIGHUP, Request::Reload),
    (Signal::SIGTERM, Request::Stop),
    (Signal::SIGQUIT, Request::Stop),
    (Signal::SIGINT, Request::StopNow),
    (Signal::SIGTTIN, Request::More),
    (Signal::SIGTTOU, Request::Fewer),
    (Signal::SIGWINCH, Request::Pause),
    (Signal::SIGUSR1, Request::Reopen),
    (Signal::SIGUSR2, Request::Upgrade),
];

/// The request of a signal number.
pub fn request(number: i32) -> Option<(Signal, Request)> {
    TABLE
        .into_iter()
        .find(|(signal, _)| *signal as i32 == number)
}

/// Describes how a process ended.
pub fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exited with status {code}"),
        WaitStatus::Signaled(_, signal, core) => {
            let core = if core { " (core dumped)" } else { "" };
            format!("killed by {signal}{core}")
        }
        other => format!("changed its state: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;

    #[test]
    fn statuses_are_described() {
        let pid = Pid::from_raw(1);
        assert_eq!(describe(WaitStatus::Exited(pid, 3)), "exited with status 3");
        assert_eq!(
            describe(WaitStatus::Signaled(pid, Signal::SIGKILL, false)),
            "killed by SIGKILL"
        );
        assert_eq!(
            describe(WaitStatus::Signaled(pid, Signal::SIGSEGV, true)),
            "killed by SIGSEGV (core dumped)"
        );
    }

    #[test]
    fn every_signal_makes_one_request() {
        assert_eq!(
            request(Signal::SIGHUP as i32),
            Some((Signal::SIGHUP, Request::Reload))
        );
        assert_eq!(request(Signal::SIGCHLD as i32), None);
        let mut signals: Vec<_> = TABLE.iter().map(|(signal, _)| *signal as i32).collect();
        signals.sort_unstable();
        signals.dedup();
        assert_eq!(signals.len(), TABLE.len());
    }
}
