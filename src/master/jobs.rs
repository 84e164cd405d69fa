//! Jobs: processes that run once, with a deadline and a verdict. A job that is late is told to end (TERM) and killed when it has not
//! ended after a while (KILL).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use log::warn;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::world::{Exit, Whom, World};
use crate::release::{Generation, Name};
use crate::supervisor::WorkerId;

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// It checks the configuration.
    Check,
    /// It is the command `before` of an app.
    Before(Name),
    /// It asks the first worker of a generation for a page.
    Probe {
        app: Name,
        worker: WorkerId,
        generation: Generation,
    },
}

/// How much time a job has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// To do what it is for.
    pub(super) time: Duration,
    /// To end when it is told to.
    pub(super) grace: Duration,
}

struct Job {
    task: Task,
    limits: Limits,
    began: Instant,
    /// It was told to end.
    told: bool,
    /// Its program could not be executed.
    not_executed: Option<String>,
}

/// A job that has ended.
pub(super) struct Ended {
    pub(super) task: Task,
    pub(super) pid: Pid,
    /// How long it ran.
    pub(super) time: Duration,
    /// What was wrong, unless it has succeeded.
    pub(super) verdict: Result<(), String>,
    /// The last lines that it has written to standard error.
    pub(super) words: Option<String>,
}

/// All jobs that run.
#[derive(Default)]
pub(super) struct Jobs {
    running: HashMap<Pid, Job>,
    deadlines: Timers<Pid>,
}

impl Jobs {
    /// A job was started.
    pub(super) fn add<W>(&mut self, turn: &Turn<W>, pid: Pid, task: Task, limits: Limits) {
        let job = Job {
            task,
            limits,
            began: turn.now,
            told: false,
            not_executed: None,
        };
        self.running.insert(pid, job);
        self.deadlines.set(pid, Some(turn.now + limits.time));
    }

    /// Its program could not be executed; false if the process is no job.
    pub(super) fn not_executed(&mut self, pid: Pid, why: String) -> bool {
        let job = self.running.get_mut(&pid);
        job.map(|job| job.not_executed = Some(why)).is_some()
    }

    /// A process was reaped. None if it is no job.
    pub(super) fn ended<W>(
        &mut self,
        turn: &Turn<W>,
        pid: Pid,
        exit: Exit,
        words: Option<String>,
    ) -> Option<Ended> {
        let job = self.running.remove(&pid)?;
        self.deadlines.set(pid, None);
        let time = turn.now.saturating_duration_since(job.began);
        let most = report::short(job.limits.time);
        let verdict = match (job.not_executed, exit.is_success(), job.told) {
            (Some(why), ..) => Err(why),
            (None, true, false) => Ok(()),
            (None, _, true) => Err(format!(
                "did not end within {most} and was told to: {exit} after {}",
                report::short(time)
            )),
            (None, false, false) => Err(format!("{exit} after {}", report::short(time))),
        };
        Some(Ended {
            task: job.task,
            pid,
            time,
            verdict,
            words,
        })
    }

    /// Tells jobs to end of which nobody wants to know any more.
    pub(super) fn abandon<W: World>(&mut self, turn: &mut Turn<W>, which: impl Fn(&Task) -> bool) {
        for (&pid, job) in self.running.iter_mut().filter(|(_, job)| which(&job.task)) {
            if !std::mem::replace(&mut job.told, true) {
                terminate(turn, pid);
                self.deadlines.set(pid, Some(turn.now + job.limits.grace));
            }
        }
    }

    /// Leaves jobs that were told to end no more than so long.
    pub(super) fn hurry(&mut self, now: Instant, grace: Duration) {
        let latest = now + grace;
        for (&pid, job) in &self.running {
            if job.told && self.deadlines.get(&pid).is_some_and(|at| at > latest) {
                self.deadlines.set(pid, Some(latest));
            }
        }
    }

    /// Tells the late ones to end, and kills those that have not ended then.
    pub(super) fn end_overdue<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.deadlines.take_due(turn.now) {
            let Some(job) = self.running.get_mut(&pid) else {
                continue;
            };
            if job.told {
                let grace = report::short(job.limits.grace);
                warn!("job pid={pid}: sending SIGKILL (it did not end within {grace} of SIGTERM)");
                turn.world.signal(pid, Signal::SIGKILL, Whom::Session);
            } else {
                job.told = true;
                terminate(turn, pid);
                self.deadlines.set(pid, Some(turn.now + job.limits.grace));
            }
        }
    }

    /// When the next job is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Whether a process is a job.
    pub(super) fn is_job(&self, pid: Pid) -> bool {
        self.running.contains_key(&pid)
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

/// Tells a job to end; one that is stopped has to go on for that.
fn terminate<W: World>(turn: &mut Turn<W>, pid: Pid) {
    for signal in [Signal::SIGTERM, Signal::SIGCONT] {
        turn.world.signal(pid, signal, Whom::Session);
    }
}
