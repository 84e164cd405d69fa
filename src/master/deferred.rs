//! Commands `before` of apps that take a generation over without proof: they run beside everything else, and no worker of the
//! generation starts until its command has succeeded.

use std::collections::BTreeMap;

use nix::unistd::Pid;

use super::Master;
use super::jobs::{Ended, Jobs, Task};
use super::preparation::{start_command, verdict};
use super::turn::Turn;
use super::world::{Left, World};
use crate::release::{Generation, Name};
use crate::supervisor::Event;

/// The commands that hold back the workers of their apps.
#[derive(Default)]
pub(super) struct Deferred {
    /// The apps whose command has not ended with a verdict, and the generation that waits for it.
    waiting: BTreeMap<Name, Generation>,
    /// The commands that run, also those that were told to end.
    running: BTreeMap<Pid, (Name, Generation)>,
}

impl Deferred {
    /// The generation that waits has been replaced, or the app removed.
    pub(super) fn forget<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, name: &Name) {
        if self.waiting.remove(name).is_some() {
            let running = self.running.iter().filter(|(_, (app, _))| app == name);
            for pid in running.map(|(&pid, _)| pid) {
                jobs.abandon_one(turn, pid);
            }
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
    /// The workers of this generation wait for the command `before` of their app.
    pub(super) fn defer(&mut self, name: &Name, generation: Generation) {
        self.turn.queue_event(name, Event::Hold(generation));
        self.deferred.waiting.insert(name.clone(), generation);
        self.run_deferred();
    }

    /// Starts the commands that are waited for, unless one of the same app runs: one that was interrupted, or that of a candidate.
    pub(super) fn run_deferred(&mut self) {
        if self.is_stopping() {
            return;
        }
        let waiting = self.deferred.waiting.iter();
        let idle = waiting.filter(|(name, _)| {
            !self.jobs.has(&Task::Before((*name).clone())) && !self.preparation.runs_command(name)
        });
        let idle: Vec<_> = idle.map(|(name, at)| (name.clone(), *at)).collect();
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
        let is_wanted = self.deferred.waiting.get(&name) == Some(&generation);
        if is_wanted && !job.abandoned && !self.is_stopping() {
            self.decide(&name, generation, verdict(&name, job));
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
