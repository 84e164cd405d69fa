//! Performing what supervisors decide, and what follows from the ends of processes.

use log::{debug, error, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::jobs::{Ended, Limits, Task};
use super::world::{Change, Exit, World};
use super::{Master, Outcome, report};
use crate::plan::Check;
use crate::release::{Fact, Name};
use crate::supervisor::{Action, Event, WorkerId};
use crate::sys::Progress;

/// What a probe may take beyond its attempts and the pauses between them.
const PROBE_SLACK: std::time::Duration = std::time::Duration::from_secs(5);

/// So many ends of processes are taken in one turn.
const MOST_ENDS: usize = 256;

impl<W: World> Master<W> {
    pub(super) fn perform(&mut self, name: &Name, action: Action) {
        debug!("app={name}: {action:?}");
        let turn = &mut self.turn;
        let (worker, order) = match action {
            Action::Spawn {
                worker,
                slot,
                generation,
            } => return self.workers.spawn(name, worker, slot, generation),
            Action::Terminate(worker, reason) => (worker, (Signal::SIGTERM, reason)),
            Action::Abort(worker, reason) => (worker, (Signal::SIGABRT, reason)),
            Action::Kill(worker, reason) => (worker, (Signal::SIGKILL, reason)),
            Action::Ready(worker) => return self.is_ready(name, worker),
            Action::Check(worker) => return self.begin_check(name, worker),
            Action::Proven(generation) => {
                return turn.report(Fact::Proven(name.clone(), generation));
            }
            Action::Failed(generation) => {
                return turn.report(Fact::Failed(name.clone(), generation));
            }
            Action::GaveUp(limits) => {
                let within = report::short(limits.within);
                let crashes = limits.crashes;
                error!("app={name}: given up: {crashes} failures within {within}");
                if limits.exit {
                    return self.stop_with(Outcome::GaveUp, format!("app={name} was given up"));
                }
                return warn!(
                    "app={name}: its running workers are kept; no worker is started until the next reload"
                );
            }
            Action::Retire(generation) => {
                let key = (name.clone(), generation);
                self.workers.end_template(turn, &mut self.templates, &key);
                return self.workers.retire(name, generation);
            }
            Action::Settled => return,
            Action::Exit => {
                if let Some(app) = self.workers.apps.get_mut(name) {
                    app.ended = true;
                }
                return;
            }
        };
        self.workers
            .signal(turn, &mut self.templates, name, worker, order);
    }

    fn is_ready(&mut self, name: &Name, worker: WorkerId) {
        let turn = &mut self.turn;
        let children = &mut self.workers.children;
        let Some(pid) = children.pid(name, worker) else {
            return;
        };
        let Some(child) = children.get_mut(pid) else {
            return;
        };
        child.ready_at = Some(turn.now);
        let time = report::short(turn.now.saturating_duration_since(child.asked_for));
        info!("{}: ready after {time}", report::Tag(child, pid));
        if child.plan.output.taken_over {
            // It has gone over to its real standard error: what it wrote while it started is not why it dies one day.
            self.logs.last_words(turn, pid);
        }
        self.watch.begin(turn, children, pid);
    }

    /// The first worker of a candidate is ready: it has to answer a request.
    fn begin_check(&mut self, name: &Name, worker: WorkerId) {
        let generation = self.workers.candidate;
        let app = self.workers.apps.get(name);
        let plan = app.and_then(|app| app.plans.get(&generation?).cloned());
        let (Some(generation), Some(check)) =
            (generation, plan.as_ref().and_then(|p| p.check.as_ref()))
        else {
            return self.check_failed(name, worker, "could not be checked: it has no check");
        };
        match self.turn.world.start_probe(name, check) {
            Ok(pid) => {
                info!("app={name} check pid={pid}: GET {}", check.path);
                let task = Task::Probe {
                    app: name.clone(),
                    worker,
                    generation,
                };
                self.jobs.add(&self.turn, pid, task, limits(check));
            }
            Err(error) => {
                self.check_failed(name, worker, &format!("could not be checked: {error}"));
            }
        }
    }

    fn check_failed(&mut self, app: &Name, worker: WorkerId, why: &str) {
        if let Some(generation) = self.workers.candidate {
            let reason = format!("its first worker {why}");
            self.turn
                .report(Fact::Reason(app.clone(), generation, reason));
        }
        self.turn.tell(app, Event::CheckFailed(worker));
    }

    /// A process has come further on its way to its program.
    pub(super) fn note_progress(&mut self, pid: Pid) {
        let turn = &mut self.turn;
        let progress = turn.world.progress(pid);
        if matches!(progress, Progress::Pending) || self.workers.progressed(turn, pid, &progress) {
            return;
        }
        if let Progress::Failed(stage, reason) = progress {
            let why = format!("failed at {}: {reason}", report::stage(stage));
            if !self.jobs.not_executed(pid, why.clone()) {
                error!("template pid={pid}: {why}");
            }
        }
    }

    /// Takes the ends of processes. Before each, all messages are read: what a process said before it
    /// died counts, and the first message of a template's worker tells who it was. False if there may be more.
    pub(super) fn reap(&mut self) -> bool {
        for _ in 0..MOST_ENDS {
            let Some((pid, change)) = self.turn.world.changed() else {
                return true;
            };
            let child = self.workers.children.get(pid);
            match (change, child) {
                (Change::Ended { cleanly }, _) => self.reap_one(pid, cleanly),
                (Change::Stopped, Some(child)) => self.watch.stopped(self.turn.now, pid, child),
                (Change::Continued, Some(child)) => self.watch.continued(pid, child),
                _ => {}
            }
        }
        false
    }

    fn reap_one(&mut self, pid: Pid, cleanly: bool) {
        if self.workers.children.get(pid).is_none() && !self.is_known(pid) {
            // It may be a worker that was just forked and has not been introduced.
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
        // What it said before its death is told before its death, as long as it still has its number.
        self.tell();
        // What a crashed worker had started, or a template had forked, would go on, with the listeners, and be nobody's. As long
        // as it is not reaped, the number of its session cannot be anybody else's.
        let is_ours = self.workers.children.get(pid).is_some() || self.is_known(pid);
        if let Some(exit) = self.turn.world.reap(pid, is_ours && !cleanly) {
            self.ended(pid, exit);
        }
    }

    fn is_known(&self, pid: Pid) -> bool {
        self.templates.is_template(pid) || self.jobs.is_job(pid)
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        let turn = &mut self.turn;
        let words = self.logs.last_words(turn, pid);
        if let Some(child) = self.workers.remove_child(turn, pid) {
            self.watch.end(pid);
            self.worker_ended(&child, pid, exit, words.as_deref());
        } else if self.jobs.is_job(pid) {
            if let Some(job) = self.jobs.ended(turn, pid, exit, words) {
                self.job_ended(job);
            }
        } else if let Some(key) = self.templates.key(pid).cloned() {
            self.workers
                .template_ended(turn, &mut self.templates, &key, exit, words.as_deref());
        } else if !self.templates.ended_as_told(pid, exit)
            && !self.logs.writer_ended(turn, pid, exit)
        {
            self.workers.forget(pid);
            debug!("pid {pid}, no worker: {exit}");
        }
    }

    fn worker_ended(
        &mut self,
        child: &super::workers::children::Child,
        pid: Pid,
        exit: Exit,
        words: Option<&str>,
    ) {
        let now = self.turn.now;
        let sent = child.told.map(|(signal, _)| signal);
        let out_of_memory = matches!(exit, Exit::Signal(Signal::SIGKILL, _))
            && sent != Some(Signal::SIGKILL)
            && self.turn.world.out_of_memory();
        let mut death = report::death(child, exit, now, out_of_memory);
        let tag = report::Tag(child, pid);
        let actions = self
            .workers
            .handle(&child.app, vec![Event::Exited(child.worker)], now);
        let app = self.workers.apps.get(&child.app).map(|app| &app.supervisor);
        let retry = app
            .filter(|app| app.lacks_workers())
            .and_then(|app| app.retry_at());
        let wait = retry.map(|at| at.saturating_duration_since(now));
        if sent == Some(Signal::SIGTERM) {
            info!("{tag}: {death}");
        } else {
            death += &report::last_words(words);
            match self.is_stopping() || sent.is_some() {
                true => warn!("{tag}: {death}"),
                false => error!("{tag}: {death}; {}", report::consequence(&actions, wait)),
            }
        }
        self.turn.report(Fact::Reason(
            child.app.clone(),
            child.generation,
            format!("its first worker {death}"),
        ));
        for action in actions {
            self.perform(&child.app, action);
        }
    }

    fn job_ended(&mut self, job: Ended) {
        let turn = &mut self.turn;
        match &job.task {
            Task::Check => self.preparation.checked(turn, &mut self.jobs, job),
            Task::Before(name) => {
                let name = name.clone();
                self.preparation
                    .command_ended(turn, &mut self.jobs, &name, job);
            }
            Task::Probe {
                app,
                worker,
                generation,
            } => {
                // Otherwise its release has failed meanwhile; the next one asks for itself.
                if self.workers.candidate == Some(*generation) {
                    let (app, worker, generation) = (app.clone(), *worker, *generation);
                    self.probe_ended(&app, worker, generation, &job);
                }
            }
        }
    }

    fn probe_ended(&mut self, name: &Name, worker: WorkerId, generation: u64, job: &Ended) {
        if let Err(end) = &job.verdict {
            let why = job
                .words
                .clone()
                .unwrap_or_else(|| format!("the probe {end}"));
            return self.check_failed(name, worker, &format!("failed its check: {why}"));
        }
        info!("app={name} check pid={}: passed", job.pid);
        let app = self.workers.apps.get(name);
        let plan = app.and_then(|app| app.plans.get(&generation));
        // To a Python worker this is the sign to accept elsewhere. Another program would find it readable for ever.
        let is_sign = plan.is_some_and(|plan| plan.output.taken_over);
        self.turn.world.end_private(name, is_sign);
        self.turn.tell(name, Event::Checked(worker));
    }
}

fn limits(check: &Check) -> Limits {
    Limits {
        time: (check.timeout + crate::probe::PAUSE) * check.attempts + PROBE_SLACK,
        grace: PROBE_SLACK,
    }
}
