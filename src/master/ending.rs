//! The ends of processes: workers, and strangers that became our children.

use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::{Master, Phase, report};
use crate::signals::describe;
use crate::supervisor::{Action, Event};

impl Master {
    /// Reaps every child that has ended. Before each, all messages are read: what a process said before it
    /// died counts, and the first message of a template's worker tells who it was.
    pub(super) fn reap(&mut self) {
        let changes = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
        loop {
            match waitid(Id::All, changes) {
                Ok(WaitStatus::Stopped(pid, _)) => self.stopped(pid),
                Ok(WaitStatus::Continued(pid)) => self.continued(pid),
                Err(Errno::EINTR) => {}
                _ => break,
            }
        }
        loop {
            let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let (pid, cleanly) = match waitid(Id::All, peek) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, status == 0),
                Ok(WaitStatus::Signaled(pid, ..)) => (pid, false),
                Err(Errno::EINTR) => continue,
                _ => return,
            };
            self.read_messages();
            self.note_progress(pid);
            // What it said before its death is told before its death, as long as it still has its number.
            self.tell_supervisors();
            if !cleanly && (self.children.get(pid).is_some() || self.is_template(pid)) {
                // What a crashed worker had started, or a template had forked, would go on, with the listeners, and be nobody's. As long
                // as it is not reaped, the number of its session cannot be anybody else's.
                let _ = killpg(pid, Signal::SIGKILL);
            }
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => self.ended(pid, status),
                Err(error) => warn!("cannot reap pid {pid}: {error}"),
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if let Some(pipe) = self.launching.remove(&pid) {
            self.unwatch(&pipe);
        }
        let words = self.last_words(pid);
        if self.step_ended(pid, status, words.as_deref())
            || self.check_ended(pid, status, words.as_deref())
            || self.log_writer_ended(pid, &describe(status))
            || self.ended_as_template(pid, status, words.as_deref())
        {
            return;
        }
        let Some(child) = self.children.remove(pid) else {
            debug!("pid {pid}, no worker: {}", describe(status));
            return;
        };
        self.release(&child);
        let now = Instant::now();
        let sent = child.told.map(|(signal, _)| signal);
        let out_of_memory = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _))
            && sent != Some(Signal::SIGKILL)
            && self.oom_kills.happened();
        let mut death = report::death(&child, status, now, out_of_memory);
        let Some(app) = self.apps.get_mut(&child.app) else {
            return;
        };
        let actions = app.supervisor.handle(Event::Exited(child.worker), now);
        let wait = app
            .supervisor
            .retry_at()
            .filter(|_| app.supervisor.lacks_workers());
        let wait = wait.map(|at| at.saturating_duration_since(now));
        let tag = report::Tag(&child, pid);
        let asked = child
            .told
            .is_some_and(|(signal, _)| signal == Signal::SIGTERM);
        if !asked {
            death += &report::last_words(words.as_deref());
        }
        if asked {
            info!("{tag}: {death}");
        } else if self.phase == Phase::Stopping || child.told.is_some() {
            warn!("{tag}: {death}");
        } else {
            error!("{tag}: {death}; {}", consequence(&actions, wait));
        }
        if let Some(reload) = &mut self.reload {
            reload.note_death(&child, &death);
        }
        for action in actions {
            self.perform(&child.app, action);
        }
    }
}

/// What the supervisor made of a death, in words.
fn consequence(actions: &[Action], wait: Option<Duration>) -> String {
    let any = |which: fn(&Action) -> bool| actions.iter().any(which);
    if any(|action| matches!(action, Action::Failed(_))) {
        return "its generation is given up".into();
    }
    if any(|action| matches!(action, Action::GaveUp(_))) {
        return "its app is given up".into();
    }
    if any(|action| matches!(action, Action::Spawn { .. })) {
        return "a replacement is started".into();
    }
    match wait {
        Some(wait) if !wait.is_zero() => format!("retrying in {}", report::short(wait)),
        _ => "as many others as are wanted run or start".into(),
    }
}
