//! Signals to child processes, and their ends: waitid(2).

use log::{debug, warn};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::master::world::{Exit, Target};

/// Signals a child that was not reaped.
pub(super) fn signal(pid: Pid, signal: Signal, target: Target) {
    match target {
        Target::Process => {}
        // It may not lead its process group yet.
        Target::Group if killpg(pid, signal).is_ok() => return,
        Target::Group => {}
        Target::Session => drop(killpg(pid, signal)),
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
