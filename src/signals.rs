//! What each signal to the master asks for, and exit statuses in words. Pure.

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

/// What a signal to the master asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Take the configuration and the code anew.
    Reload,
    /// End when everything that is being served is finished.
    Stop,
    /// End now.
    StopNow,
    /// One worker more.
    More,
    /// One worker fewer.
    Fewer,
    /// End all workers, keep the listeners.
    Pause,
    /// Open the log files anew.
    Reopen,
    /// Replace the master's program.
    Upgrade,
}

/// The whole vocabulary, as in preforkd(8).
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

/// What a signal number asks for.
pub fn request(number: i32) -> Option<(Signal, Request)> {
    TABLE
        .into_iter()
        .find(|(signal, _)| *signal as i32 == number)
}

/// How a process ended, in words.
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
    fn statuses_are_told_in_words() {
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
    fn every_signal_asks_for_one_thing() {
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
