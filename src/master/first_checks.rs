//! The checks of first workers: they are part of the proof of a candidate.

use std::time::Duration;

use log::info;

use super::Master;
use super::checks;
use super::jobs::{Ended, First, Limits, Task};
use super::world::World;
use crate::plan::{Ask, Check};
use crate::release::{Fact, Name};
use crate::supervisor::{Event, WorkerId};

/// The time of a probe beyond its attempts and the pauses between them.
const PROBE_SLACK: Duration = Duration::from_secs(5);

impl<W: World> Master<W> {
    /// Checks the first worker of a candidate, which is ready.
    pub(super) fn begin_check(&mut self, name: &Name, worker: WorkerId) {
        let generation = self.workers.candidate;
        let app = self.workers.apps.get(name);
        let plan = app.and_then(|app| app.plans.get(&generation?).cloned());
        let (Some(generation), Some(check)) =
            (generation, plan.as_ref().and_then(|p| p.check.as_ref()))
        else {
            return self.check_failed(name, worker, "could not be checked: no check is configured");
        };
        // A program is started once for each attempt.
        let left = match check.ask {
            Ask::Command(_) => check.attempts - 1,
            Ask::Page { .. } | Ask::Connection => 0,
        };
        self.attempt(First {
            app: name.clone(),
            worker,
            generation,
            left,
        });
    }

    /// Makes the attempts to check first workers that are due.
    pub(super) fn check_again(&mut self) {
        for first in self.checks.due_again(self.turn.now) {
            self.attempt(first);
        }
    }

    fn attempt(&mut self, first: First) {
        let (name, worker) = (first.app.clone(), first.worker);
        let pid = self.workers.children.pid(&name, worker);
        let found = pid.and_then(|pid| Some((pid, self.workers.children.get(pid)?.clone())));
        // Otherwise its release has failed meanwhile; the next release checks again.
        let is_wanted = self.workers.candidate == Some(first.generation);
        let Some((pid, child)) = found.filter(|_| is_wanted) else {
            return;
        };
        let Some(check) = &child.plan.check else {
            return;
        };
        let turn = &mut self.turn;
        let started = match &check.ask {
            Ask::Page { .. } if check.private => turn.world.start_probe(&name, check),
            _ => checks::start(turn, check, pid, &child, check.attempts),
        };
        match started {
            Ok(job) => {
                let what = checks::words(turn, check, pid);
                info!("app={name} check pid={job}: {what}");
                self.jobs.add(turn, job, Task::Probe(first), limits(check));
            }
            Err(error) => {
                self.check_failed(&name, worker, &format!("could not be checked: {error}"));
            }
        }
    }

    fn check_failed(&mut self, app: &Name, worker: WorkerId, why: &str) {
        if let Some(generation) = self.workers.candidate {
            let reason = format!("its first worker {why}");
            self.turn
                .queue_fact(Fact::Reason(app.clone(), generation, reason));
        }
        self.turn.queue_event(app, Event::CheckFailed(worker));
    }

    pub(super) fn probe_ended(&mut self, first: &First, job: &Ended) {
        let First {
            app: name,
            worker,
            generation,
            left,
        } = first;
        if let Err(end) = &job.verdict {
            let app = self.workers.apps.get(name);
            let plan = app.and_then(|app| app.plans.get(generation));
            let check = plan.and_then(|plan| plan.check.as_ref());
            let why = checks::reason(check, job, end);
            if *left > 0 && !job.abandoned {
                info!("app={name} check pid={}: {why}; trying again", job.pid);
                self.checks.again(self.turn.now, first);
                return;
            }
            return self.check_failed(name, *worker, &format!("failed its check: {why}"));
        }
        info!("app={name} check pid={}: passed", job.pid);
        let app = self.workers.apps.get(name);
        let plan = app.and_then(|app| app.plans.get(generation));
        // This tells a Python worker to accept on its other listeners. For another program the listener would stay readable.
        let is_sign = plan.is_some_and(|plan| plan.output.taken_over);
        self.turn.world.end_private(name, is_sign);
        self.workers.passed(name, *worker);
        self.turn.queue_event(name, Event::Checked(*worker));
    }
}

fn limits(check: &Check) -> Limits {
    let time = match check.ask {
        // Each attempt is a job.
        Ask::Command(_) => check.timeout,
        Ask::Page { .. } | Ask::Connection => {
            (check.timeout + crate::probe::PAUSE) * check.attempts + PROBE_SLACK
        }
    };
    Limits {
        time: Some(time),
        grace: PROBE_SLACK,
    }
}
