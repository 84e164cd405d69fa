//! Signals to child processes, and their ends: waitid(2).

use log::{debug, warn};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid, getsid};

use crate::master::world::{Exit, Target};

/// Signals a child that was not reaped.
pub(super) fn signal(pid: Pid, signal: Signal, target: Target) {
    if target == Target::Session {
        // It may not lead its process group yet.
        let _ = killpg(pid, signal);
    }
    if let Err(error) = kill(pid, signal) {
        warn!("cannot send {signal} to pid={pid}: {error}");
    }
}

/// A child that has ended, and whether with status 0. It is returned again until it is reaped.
pub(super) fn ended() -> Option<(Pid, bool)> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        return match waitid(Id::All, flags) {
            Ok(WaitStatus::Exited(pid, status)) => Some((pid, status == 0)),
            Ok(WaitStatus::Signaled(pid, ..)) => Some((pid, false)),
            Err(Errno::EINTR) => continue,
            _ => None,
        };
    }
}

/// A child that a signal has stopped (true) or continued (false) since it was last returned.
pub(super) fn stopped() -> Option<(Pid, bool)> {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
    loop {
        return match waitid(Id::All, flags) {
            Ok(WaitStatus::Stopped(pid, _)) => Some((pid, true)),
            Ok(WaitStatus::Continued(pid)) => Some((pid, false)),
            Err(Errno::EINTR) => continue,
            _ => None,
        };
    }
}

/// Reaps a child that has ended; before that, kills its session if asked to.
pub(super) fn reap(pid: Pid, kill_session: bool) -> Option<Exit> {
    if kill_session {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    let status = loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    match status {
        Ok(WaitStatus::Exited(_, code)) => Some(Exit::Status(code)),
        Ok(WaitStatus::Signaled(_, signal, core)) => Some(Exit::Signal(signal, core)),
        Ok(other) => {
            debug!("pid={pid} has not ended: {other:?}");
            None
        }
        Err(error) => {
            warn!("cannot reap pid={pid}: {error}");
            None
        }
    }
}

/// Signals the rest of a session whose leader was reaped. Its processes have become children of the master, a subreaper, or are
/// descendants of such.
///
/// A child that was not reaped keeps its pid, and with it the numbers of its process group and session. So as long as there is one, no
/// other process is reached.
pub(super) fn signal_rest(leader: Pid, signal: Option<Signal>) -> usize {
    // Mostly there are none, and a group without processes does not exist. The list of all children is long.
    if killpg(leader, None) == Err(Errno::ESRCH) {
        return 0;
    }
    let Ok(children) = std::fs::read_to_string("/proc/thread-self/children") else {
        return 0;
    };
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    let rest: Vec<Pid> = children
        .map(Pid::from_raw)
        .filter(|&pid| pid != leader && getsid(Some(pid)) == Ok(leader) && is_running(pid))
        .collect();
    let (group, others): (Vec<Pid>, Vec<Pid>) = rest
        .iter()
        .partition(|&&pid| getpgid(Some(pid)) == Ok(leader));
    if !group.is_empty() {
        // A process that ends meanwhile is not missed.
        let _ = killpg(leader, signal);
    }
    for pid in others {
        let _ = kill(pid, signal);
    }
    rest.len()
}

/// Whether a child runs.
fn is_running(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), flags) == Ok(WaitStatus::StillAlive)
}

/// Whether a process is a child that was not reaped.
pub(super) fn is_child(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(pid), flags) {
            Err(Errno::EINTR) => {}
            other => return other != Err(Errno::ECHILD),
        }
    }
}
