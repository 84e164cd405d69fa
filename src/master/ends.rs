//! Handles the ends of processes: reaps them, and tells whoever owns them.

use log::{debug, error};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Master;
use super::census;
use super::jobs::{Ended, Task};
use super::leftovers::End;
use super::worker_ends::is_out_of_memory;
use super::world::{Exit, Rest, World};
use crate::launcher::progress::Progress;
use crate::release::State;

/// The maximum number of processes reaped per turn.
const MAX_ENDS: usize = 256;

/// The maximum number of stops and continuations handled in a turn.
const MAX_STOPS: usize = 64;

impl<W: World> Master<W> {
    /// Handles progress of a process before its program runs.
    pub(super) fn note_progress(&mut self, pid: Pid) {
        let turn = &mut self.turn;
        let progress = turn.world.progress(pid);
        if matches!(progress, Progress::Pending) || self.workers.progressed(turn, pid, &progress) {
            return;
        }
        if let Progress::Failed(why) = progress
            && !self.jobs.not_executed(pid, &why)
            && !self.templates.not_executed(pid, &why)
        {
            error!("pid={pid}: {why}");
        }
    }

    /// Reaps processes. Before each, all messages are read: a message sent before the death counts, and the first message
    /// of a template's worker identifies it. Returns false if there may be more.
    pub(super) fn reap(&mut self) -> bool {
        for _ in 0..MAX_ENDS {
            match self.turn.world.ended() {
                Some((pid, cleanly)) => self.reap_one(pid, cleanly),
                None => return self.handle_stops(),
            }
        }
        false
    }

    /// Handles children that signals have stopped or continued. Returns false if there may be more.
    fn handle_stops(&mut self) -> bool {
        let now = self.turn.now;
        for _ in 0..MAX_STOPS {
            let Some((pid, stopped)) = self.turn.world.stopped() else {
                return true;
            };
            let Some(child) = self.workers.children.get(pid) else {
                continue;
            };
            let logged = self.floods.may_log_stop(&child.app, now);
            match stopped {
                true => self.watch.stopped(now, pid, child, logged),
                false => self.watch.continued(pid, child, logged),
            }
        }
        false
    }

    fn reap_one(&mut self, pid: Pid, cleanly: bool) {
        if self.workers.children.get(pid).is_none() && !self.is_known(pid) {
            // It may be a worker that was just forked and has not introduced itself.
            for key in self.templates.keys() {
                self.read_template(&key);
            }
        }
        if let Some(app) = self
            .workers
            .children
            .get(pid)
            .map(|child| child.app.clone())
        {
            self.read_messages(&app);
        }
        self.note_progress(pid);
        // Its last messages are handled before its death, while its pid is still its own.
        self.dispatch();
        if cleanly {
            self.note_strays(pid);
        }
        // Processes that a crashed template has forked would keep the listeners open and be unknown. Until it is reaped, its session
        // id cannot be reused. What a worker has started gets some time to end.
        self.floods.forget_template(pid);
        // What a check leaves would become more with each one.
        let dies_whole = self.is_known(pid) && !self.jobs.is_run(pid);
        let dies_whole = dies_whole && (!cleanly || self.jobs.is_check(pid));
        let is_worker = self.workers.children.get(pid).is_some();
        let cpu = is_worker.then(|| self.turn.world.cpu(pid)).flatten();
        if let Some(exit) = self.turn.world.reap(pid, dies_whole) {
            self.ended(pid, exit, cpu.unwrap_or_default());
        }
    }

    fn is_known(&self, pid: Pid) -> bool {
        self.templates.is_template(pid) || self.jobs.is_job(pid)
    }

    fn ended(&mut self, pid: Pid, exit: Exit, cpu: u64) {
        let turn = &mut self.turn;
        self.workers.forget(pid);
        let output = self.logs.last_output(turn, pid);
        if let Some(child) = self.workers.children.get(pid) {
            let out_of_memory = is_out_of_memory(turn, child, exit);
            let cause = census::cause(child, exit, out_of_memory);
            self.census.ended(turn, child, cause, cpu);
            let Some(child) = self.workers.remove_child(turn, pid) else {
                return;
            };
            self.watch.end(pid);
            self.checks.end(&child);
            self.worker_ended(&child, pid, exit, out_of_memory, output.as_deref());
        } else if self.jobs.is_job(pid) {
            if let Some(job) = self.jobs.ended(turn, pid, exit, output) {
                self.job_ended(job);
            }
        } else if let Some(key) = self.templates.key(pid).cloned() {
            self.workers
                .template_ended(turn, &mut self.templates, &key, exit, output.as_deref());
        } else if !self.templates.ended_as_told(pid, exit)
            && !self.logs.writer_ended(turn, pid, exit)
        {
            self.leftovers.reaped();
            debug!("unknown process pid={pid}: {exit}");
        }
    }

    fn job_ended(&mut self, job: Ended) {
        let turn = &mut self.turn;
        match &job.task {
            Task::Check => {
                if let Some(found) = self.preparation.checked(turn, job) {
                    self.propose_found(found);
                }
            }
            Task::CheckFirst(client) => {
                let client = *client;
                self.checked_first(client, job.pid);
            }
            Task::Before(_) if self.deferred.is_command(job.pid) => self.deferred_ended(job),
            Task::Before(name) => {
                let name = name.clone();
                self.preparation
                    .command_ended(turn, &mut self.jobs, &name, job);
                self.run_deferred();
            }
            Task::Run(name, _) => {
                let rest = End {
                    app: Some(name.clone()),
                    tag: format!("{} pid={}", job.task, job.pid),
                    signal: Signal::SIGTERM,
                    group_knows: false,
                    grace: self.schedules.grace(name),
                };
                let session = Rest::Session(job.pid);
                match job.killed {
                    true => self.leftovers.end_killed(session, rest),
                    false => self.leftovers.end(session, rest),
                }
                self.schedules.ended(name, &job);
            }
            Task::Certificates => self.certificates_found(&job),
            Task::Keeper => self.keeper_ended(&job),
            Task::Metrics => self.exporter.ended(turn, &job),
            Task::Recheck(_) if self.release.state() == &State::Stopped => {}
            Task::Recheck(target) => {
                let (children, watch) = (&mut self.workers.children, &mut self.watch);
                let failed = self.checks.fails(children, &target.0);
                self.checks.ended(turn, children, watch, target, &job);
                self.workers.changed |= failed != self.checks.fails(children, &target.0);
            }
            Task::Probe(first) => {
                // Otherwise its release has failed meanwhile; the next release checks again.
                if self.workers.candidate == Some(first.generation) {
                    self.probe_ended(first, &job);
                }
            }
        }
    }
}
