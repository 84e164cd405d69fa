//! What comes before the workers of apps that take a generation over without proof: their command `before`, and their tasks. These run
//! beside everything else, and no worker of the generation starts until they have succeeded.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::Pid;

use super::Master;
use super::jobs::{Ended, Jobs, Task};
use super::preparation::{start_command, verdict};
use super::turn::Turn;
use super::world::{Left, World};
use crate::release::{Generation, Name, State};
use crate::supervisor::Event;

/// What a generation of an app waits for.
#[derive(Default)]
struct Waiting {
    generation: Generation,
    /// For the verdict of its command.
    command: bool,
    /// For the end of these tasks.
    tasks: BTreeSet<Name>,
}

/// The apps whose workers are held back.
#[derive(Default)]
pub(super) struct Deferred {
    waiting: BTreeMap<Name, Waiting>,
    /// The commands that run, also those that were told to end.
    running: BTreeMap<Pid, (Name, Generation)>,
}

impl Deferred {
    /// The generation that waits has been replaced, or the app removed.
    pub(super) fn forget<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, name: &Name) {
        if self.waiting.remove(name).is_some() {
            self.interrupt(turn, jobs, name);
        }
    }

    fn interrupt<W: World>(&self, turn: &mut Turn<W>, jobs: &mut Jobs, name: &Name) {
        let running = self.running.iter().filter(|(_, (app, _))| app == name);
        for pid in running.map(|(&pid, _)| pid) {
            jobs.abandon_one(turn, pid);
        }
    }

    /// Whether a process is such a command.
    pub(super) fn is_command(&self, pid: Pid) -> bool {
        self.running.contains_key(&pid)
    }

    /// Whether the command of an app runs.
    pub(super) fn runs(&self, name: &Name) -> bool {
        self.running.values().any(|(app, _)| app == name)
    }
}

impl<W: World> Master<W> {
    /// Holds the workers of this generation until the command `before` of their app, if it is to be run, and its tasks have succeeded.
    pub(super) fn defer(&mut self, name: &Name, generation: Generation) {
        let command = self.preparation.owes_command(name);
        let plan = self.preparation.candidate();
        let plan = plan.map(|candidate| &candidate.plan);
        let before = plan.and_then(|plan| Some((plan, plan.apps.get(&**name)?)));
        let tasks = before.into_iter().flat_map(|(plan, app)| {
            let tasks = app.after.iter().filter(|name| plan.is_task(name));
            tasks.map(|name| Name::from(name.as_str()))
        });
        let waiting = Waiting {
            generation,
            command,
            tasks: tasks.collect(),
        };
        if !command && waiting.tasks.is_empty() {
            return;
        }
        self.turn.queue_event(name, Event::Hold(generation));
        self.deferred.waiting.insert(name.clone(), waiting);
        self.run_deferred();
    }

    /// Goes on with apps of which a task has ended. Returns whether there are any.
    pub(super) fn follow_tasks(&mut self) -> bool {
        if self.deferred.waiting.is_empty() || self.is_stopping() {
            return false;
        }
        let apps = &self.workers.apps;
        let (mut failed, mut free) = (Vec::new(), Vec::new());
        for (name, waiting) in &mut self.deferred.waiting {
            let generation = waiting.generation;
            // Its earlier runs do not count.
            let of = |task: &Name| {
                let supervisor = &apps.get(task)?.supervisor;
                let current = supervisor.generation() == Some(generation);
                current.then(|| (supervisor.counts(), supervisor.is_given_up()))
            };
            let mut tasks = waiting.tasks.iter();
            let has_failed = |task: &&Name| of(task).is_some_and(|(n, up)| n.failed > 0 || up);
            if let Some(task) = tasks.find(has_failed) {
                let reason = format!("app={name}: its task {task} has failed");
                failed.push((name.clone(), generation, reason));
                continue;
            }
            let had = waiting.tasks.len();
            waiting
                .tasks
                .retain(|task| of(task).is_none_or(|(counts, _)| counts.finished == 0));
            if had > 0 && waiting.tasks.is_empty() && !waiting.command {
                free.push((name.clone(), generation));
            }
        }
        let any = !failed.is_empty() || !free.is_empty();
        for (name, generation, reason) in failed {
            self.deferred
                .interrupt(&mut self.turn, &mut self.jobs, &name);
            self.decide(&name, generation, Err(reason));
        }
        for (name, generation) in free {
            self.decide(&name, generation, Ok(()));
        }
        any
    }

    /// Starts the commands that are waited for, unless one of the same app runs: one that was interrupted, or that of a candidate.
    pub(super) fn run_deferred(&mut self) {
        if self.is_stopping() {
            return;
        }
        let waiting = self.deferred.waiting.iter();
        let idle = waiting.filter(|(name, waiting)| {
            waiting.command
                && !self.jobs.has(&Task::Before((*name).clone()))
                && !self.preparation.runs_command(name)
        });
        let idle = idle.map(|(name, waiting)| (name.clone(), waiting.generation));
        let idle: Vec<_> = idle.collect();
        for (name, generation) in idle {
            // That of an earlier master.
            let left = self.turn.world.earlier_left(&Left::CommandOf(&name));
            if left.is_some() {
                self.earlier.look_again(self.turn.now);
                continue;
            }
            let app = self.workers.apps.get(&name);
            let Some(plan) = app.and_then(|app| app.plans.get(&generation)).cloned() else {
                continue;
            };
            match start_command(&mut self.turn, &mut self.jobs, &name, &plan, generation) {
                Ok(pid) => {
                    self.deferred.running.insert(pid, (name, generation));
                }
                Err(reason) => self.decide(&name, generation, Err(reason)),
            }
        }
    }

    /// A command has ended.
    pub(super) fn deferred_ended(&mut self, job: Ended) {
        let Some((name, generation)) = self.deferred.running.remove(&job.pid) else {
            return;
        };
        let waiting = self.deferred.waiting.get_mut(&name);
        let waiting = waiting.filter(|waiting| waiting.generation == generation);
        if let Some(waiting) = waiting
            && !job.abandoned
            && self.release.state() != &State::Stopped
        {
            waiting.command = false;
            let waits = !waiting.tasks.is_empty();
            let result = verdict(&name, job);
            if result.is_err() || !waits {
                self.decide(&name, generation, result);
            }
        }
        self.preparation.proceed(&mut self.turn, &mut self.jobs);
        self.run_deferred();
    }

    /// The workers of a generation start, or none does until the next reload.
    fn decide(&mut self, name: &Name, generation: Generation, result: Result<(), String>) {
        self.deferred.waiting.remove(name);
        if let Err(reason) = result {
            let plan = match &mut self.current {
                Some(plan) => plan.apps.get_mut(&**name),
                None => self.preparation.candidate_app(name),
            };
            if let Some(app) = plan {
                app.unfit = Some(reason.clone());
            }
            if let Some(app) = self.workers.apps.get_mut(name) {
                app.cannot_start(generation, reason);
            }
        }
        self.turn.queue_event(name, Event::Release(generation));
    }
}
