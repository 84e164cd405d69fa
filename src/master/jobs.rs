//! Jobs: processes that run once, with a deadline and a verdict. A job that exceeds its deadline gets SIGTERM, and SIGKILL after
//! a grace period.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use log::{info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::checks::Checked;
use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::world::{ClientId, Exit, Target, World};
use crate::release::{Generation, Name};
use crate::supervisor::WorkerId;

/// The task of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Checks the configuration.
    Check,
    /// Checks the configuration before a request of this client is performed.
    CheckFirst(ClientId),
    /// Runs the command `before` of an app.
    Before(Name),
    /// Runs the program of an app with a schedule, as this generation has it.
    Run(Name, Generation),
    /// Checks the first worker of a generation.
    Probe(First),
    /// Checks workers that serve.
    Recheck(Checked),
    /// Watches the certificates of sites.
    Certificates,
    /// Has certificates of sites issued.
    Keeper,
    /// Answers `/metrics`.
    Metrics,
}

/// The first worker of a generation, which is checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct First {
    pub(super) app: Name,
    pub(super) worker: WorkerId,
    pub(super) generation: Generation,
    /// How many attempts are left.
    pub(super) left: u32,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check | Self::CheckFirst(_) => f.write_str("check of the configuration"),
            Self::Before(app) => write!(f, "app={app} before"),
            Self::Run(app, generation) => write!(f, "app={app} run gen={generation}"),
            Self::Probe(First { app, .. }) | Self::Recheck((app, _)) => {
                write!(f, "app={app} check")
            }
            Self::Certificates => f.write_str("watch of certificates"),
            Self::Keeper => f.write_str("order of certificates"),
            Self::Metrics => f.write_str("metrics"),
        }
    }
}

/// The time limits of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The time for its task; `None` is no limit.
    pub(super) time: Option<Duration>,
    /// The time from SIGTERM to SIGKILL.
    pub(super) grace: Duration,
}

struct Job {
    task: Task,
    limits: Limits,
    began: Instant,
    /// It was signalled to end.
    signalled: Option<Instant>,
    /// It was, because its result is no longer needed.
    abandoned: bool,
    /// It was killed then, with its session.
    killed: bool,
    /// Its program could not be executed.
    not_executed: Option<String>,
}

/// A job that has ended.
pub(super) struct Ended {
    pub(super) task: Task,
    pub(super) pid: Pid,
    /// How long it ran.
    pub(super) time: Duration,
    /// Why it failed; `None` if it has succeeded.
    pub(super) verdict: Result<(), String>,
    /// It was told to end, because its result is no longer needed.
    pub(super) abandoned: bool,
    /// It was killed with all of its session, because it did not end.
    pub(super) killed: bool,
    /// Its last output on standard error.
    pub(super) output: Option<String>,
}

/// All running jobs.
#[derive(Default)]
pub(super) struct Jobs {
    running: HashMap<Pid, Job>,
    deadlines: Timers<Pid>,
}

impl Jobs {
    /// Adds a job that was started.
    pub(super) fn add<W>(&mut self, turn: &Turn<W>, pid: Pid, task: Task, limits: Limits) {
        let job = Job {
            task,
            limits,
            began: turn.now,
            signalled: None,
            abandoned: false,
            killed: false,
            not_executed: None,
        };
        self.running.insert(pid, job);
        let deadline = limits.time.map(|time| turn.now + time);
        self.deadlines.set(pid, deadline);
    }

    /// The program of a process could not be executed. Returns false if the process is not a job.
    pub(super) fn not_executed(&mut self, pid: Pid, why: &str) -> bool {
        let job = self.running.get_mut(&pid);
        job.map(|job| job.not_executed = Some(why.to_owned()))
            .is_some()
    }

    /// A process was reaped. `None` if it is not a job.
    pub(super) fn ended<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        pid: Pid,
        exit: Exit,
        output: Option<String>,
    ) -> Option<Ended> {
        let job = self.running.remove(&pid)?;
        self.deadlines.set(pid, None);
        let time = turn.now.saturating_duration_since(job.began);
        let after = report::short(time);
        let was_killed = matches!(exit, Exit::Signal(Signal::SIGKILL, _));
        let verdict = match (job.not_executed, job.signalled, job.limits.time) {
            (Some(why), ..) => Err(why),
            (None, None, _) if exit.is_success() => Ok(()),
            (None, None, _) if was_killed && turn.world.out_of_memory() => Err(format!(
                "killed by the kernel because memory ran out (SIGKILL) after {after}"
            )),
            (None, Some(_), Some(most)) if !job.abandoned => Err(format!(
                "did not end within {} and was terminated: {exit} after {after}",
                report::short(most)
            )),
            (None, ..) => Err(format!("{exit} after {after}")),
        };
        Some(Ended {
            task: job.task,
            pid,
            time,
            verdict,
            abandoned: job.abandoned,
            killed: job.killed,
            output,
        })
    }

    /// Terminates jobs whose results are no longer needed.
    pub(super) fn abandon<W: World>(&mut self, turn: &mut Turn<W>, which: impl Fn(&Task) -> bool) {
        self.abandon_some(turn, |_, task| which(task));
    }

    /// Terminates the job that is this process.
    pub(super) fn abandon_one<W: World>(&mut self, turn: &mut Turn<W>, process: Pid) {
        self.abandon_some(turn, |pid, _| pid == process);
    }

    fn abandon_some<W: World>(&mut self, turn: &mut Turn<W>, which: impl Fn(Pid, &Task) -> bool) {
        let running = self.running.iter_mut();
        for (&pid, job) in running.filter(|(pid, job)| which(**pid, &job.task)) {
            if job.signalled.is_none() {
                (job.signalled, job.abandoned) = (Some(turn.now), true);
                let task = &job.task;
                let why = match task {
                    Task::Run(..) => "stop",
                    Task::Metrics => "it is not needed any more, or replaced",
                    _ => "its result is no longer needed",
                };
                info!("{task} pid={pid}: sending SIGTERM ({why})");
                terminate(turn, pid);
                self.deadlines.set(pid, Some(turn.now + job.limits.grace));
            }
        }
    }

    /// Limits the remaining time of jobs that were signalled to end.
    pub(super) fn hurry(&mut self, now: Instant, grace: Duration) {
        let latest = now + grace;
        for (pid, _) in self
            .running
            .iter()
            .filter(|(_, job)| job.signalled.is_some())
        {
            self.deadlines.bring_forward(pid, latest);
        }
    }

    /// Terminates jobs that exceed their time, and kills those that do not end then.
    pub(super) fn end_overdue<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.deadlines.take_due(turn.now) {
            let Some(job) = self.running.get_mut(&pid) else {
                continue;
            };
            let task = &job.task;
            if let Some(since) = job.signalled {
                let time = report::short(turn.now.saturating_duration_since(since));
                warn!("{task} pid={pid}: sending SIGKILL (still running {time} after SIGTERM)");
                job.killed = true;
                turn.world.signal(pid, Signal::SIGKILL, Target::Session);
            } else {
                let time = report::short(turn.now.saturating_duration_since(job.began));
                warn!("{task} pid={pid}: sending SIGTERM (still running after {time})");
                job.signalled = Some(turn.now);
                terminate(turn, pid);
                self.deadlines.set(pid, Some(turn.now + job.limits.grace));
            }
        }
    }

    /// When the next time limit of a job expires.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Whether a process is a job.
    pub(super) fn is_job(&self, pid: Pid) -> bool {
        self.running.contains_key(&pid)
    }

    /// Whether a process is a run of an app with a schedule.
    pub(super) fn is_run(&self, pid: Pid) -> bool {
        let job = self.running.get(&pid);
        job.is_some_and(|job| matches!(job.task, Task::Run(..)))
    }

    /// Whether a job with this task runs.
    pub(super) fn has(&self, task: &Task) -> bool {
        self.running.values().any(|job| job.task == *task)
    }

    /// Whether a process checks workers.
    pub(super) fn is_check(&self, pid: Pid) -> bool {
        let job = self.running.get(&pid);
        job.is_some_and(|job| matches!(job.task, Task::Probe(_) | Task::Recheck(_)))
    }

    /// Whether the first worker of a generation is being checked.
    pub(super) fn proves(&self, app: &Name, worker: WorkerId) -> bool {
        let mut running = self.running.values();
        running.any(|job| {
            matches!(&job.task, Task::Probe(first) if first.app == *app && first.worker == worker)
        })
    }

    /// Whether all jobs that run have such tasks.
    pub(super) fn all(&self, which: impl Fn(&Task) -> bool) -> bool {
        self.running.values().all(|job| which(&job.task))
    }
}

/// Sends SIGTERM to a job, and SIGCONT, because a stopped process would not handle it.
fn terminate<W: World>(turn: &mut Turn<W>, pid: Pid) {
    for signal in [Signal::SIGTERM, Signal::SIGCONT] {
        turn.world.signal(pid, signal, Target::Session);
    }
}
