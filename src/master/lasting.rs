//! Jobs that run as long as they are wanted. One that fails is started again, at growing intervals.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::jobs::{Jobs, Limits, Task};
use super::turn::Turn;
use super::world::World;

/// How long to wait before such a job is started again after it has failed, at first and at most.
const WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(10 * 60);

/// It has no time limit, and nothing to finish.
const LIMITS: Limits = Limits {
    time: None,
    grace: Duration::from_secs(2),
};

/// Such a job.
#[derive(Default)]
pub(super) struct Lasting {
    /// Its process, if it runs.
    process: Option<Pid>,
    /// When it is started again, and how long to wait when it fails once more.
    again: Option<(Instant, Duration)>,
}

impl Lasting {
    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// It runs as this process from now on.
    pub(super) fn started<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        task: Task,
        pid: Pid,
    ) {
        jobs.add(turn, pid, task, LIMITS);
        self.process = Some(pid);
    }

    /// Whether the process that has ended is its own, and not one that it had before.
    pub(super) fn ended(&mut self, pid: Pid) -> bool {
        self.process.take_if(|process| *process == pid).is_some()
    }

    /// It has done what it is for.
    pub(super) fn succeeded(&mut self) {
        self.again = None;
    }

    /// It has failed, or could not be started. Returns how long to wait.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let wait = self.again.map_or(WAIT, |(_, wait)| wait);
        self.again = Some((now + wait, (wait * 2).min(MOST_WAIT)));
        wait
    }

    /// Ends its process. What has failed before does not count any more.
    pub(super) fn reset<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        self.again = None;
        if let Some(process) = self.process.take() {
            jobs.abandon_one(turn, process);
        }
    }

    /// Whether it is to be started again now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// When it is started again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = self.again.filter(|_| self.process.is_none());
        again.map(|(at, _)| at)
    }
}
