//! Performs the actions of supervisors, and handles the ends of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::checks;
use super::jobs::{Ended, First, Jobs, Limits, Task};
use super::leftovers::End;
use super::templates::Templates;
use super::workers::children::{Child, Children};
use super::world::{Exit, Rest, World};
use super::{Master, Outcome, report};
use crate::launcher::progress::Progress;
use crate::plan::{Ask, Check, Stop};
use crate::release::{Fact, Name, State};
use crate::supervisor::{Action, Event, Readiness, Replace, Restart, WorkerId};

/// The time of a probe beyond its attempts and the pauses between them.
const PROBE_SLACK: Duration = Duration::from_secs(5);

/// A program that puts itself into the background does so within this time.
const SOON: Duration = Duration::from_secs(10);

/// The maximum number of processes reaped per turn.
const MAX_ENDS: usize = 256;

/// The maximum number of stops and continuations handled in a turn.
const MAX_STOPS: usize = 64;

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
                return turn.queue_fact(Fact::Proven(name.clone(), generation));
            }
            Action::Failed(generation) => {
                return turn.queue_fact(Fact::Failed(name.clone(), generation));
            }
            Action::GaveUp(limits) => {
                let within = report::short(limits.within);
                let crashes = limits.crashes;
                error!("app={name}: given up: {crashes} failures within {within}");
                if limits.exit && !self.is_stopping() {
                    return self.stop_with(Outcome::GaveUp, format!("app={name} was given up"));
                }
                return warn!(
                    "app={name}: its running workers are kept; no worker is started until the next reload"
                );
            }
            Action::Resumed {
                generation,
                again,
                gap,
            } => {
                let gap = report::short(gap);
                match again {
                    true => warn!(
                        "app={name}: generation {generation} runs again, after {gap} without a worker"
                    ),
                    false => info!(
                        "app={name}: generation {generation} runs, after {gap} without a worker"
                    ),
                }
                return;
            }
            Action::Retire(generation) => {
                let key = (name.clone(), generation);
                self.workers.end_template(turn, &mut self.templates, &key);
                return self.workers.retire(name, generation);
            }
            Action::Settled => return self.has_settled(name),
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

    /// An app has all its workers.
    fn has_settled(&mut self, name: &Name) {
        let app = self.workers.apps.get_mut(name);
        let awaited = app.is_some_and(|app| std::mem::take(&mut app.installed));
        // The line about the whole generation follows otherwise.
        if awaited && *self.release.state() == State::Idle {
            info!("app={name}: all its workers are ready now");
        }
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
        if let Some(app) = self.workers.apps.get_mut(name) {
            app.not_started = None;
        }
        let time = report::short(turn.now.saturating_duration_since(child.asked_for));
        let address = turn.world.own_address(pid);
        let address = address.map_or(String::new(), |address| format!(", at {address}"));
        info!("{}: ready after {time}{address}", report::Tag(child, pid));
        if child.plan.output.taken_over {
            // It has switched to its real standard error: its output from the start does not explain a later death.
            self.logs.last_output(turn, pid);
        }
        if let Some(child) = children.get(pid) {
            self.checks.begin(turn, pid, child);
        }
        self.watch.begin(turn, children, pid);
    }

    /// Checks the first worker of a candidate, which is ready.
    fn begin_check(&mut self, name: &Name, worker: WorkerId) {
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
        if let Some(exit) = self.turn.world.reap(pid, dies_whole) {
            self.ended(pid, exit);
        }
    }

    fn is_known(&self, pid: Pid) -> bool {
        self.templates.is_template(pid) || self.jobs.is_job(pid)
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        let turn = &mut self.turn;
        let output = self.logs.last_output(turn, pid);
        if let Some(child) = self.workers.remove_child(turn, pid) {
            self.watch.end(pid);
            self.checks.end(&child);
            self.worker_ended(&child, pid, exit, output.as_deref());
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
            self.workers.forget(pid);
            self.leftovers.reaped();
            debug!("unknown process pid={pid}: {exit}");
        }
    }

    fn worker_ended(&mut self, child: &Child, pid: Pid, exit: Exit, output: Option<&str>) {
        let now = self.turn.now;
        let sent = child.signalled.map(|(signal, _)| signal);
        let out_of_memory = matches!(exit, Exit::Signal(Signal::SIGKILL, _))
            && sent != Some(Signal::SIGKILL)
            && self.turn.world.out_of_memory();
        let mut death = report::death(child, exit, now, out_of_memory);
        let tag = report::Tag(child, pid);
        let background = self.background(child, pid, exit);
        let finished = exit.is_success() && child.signalled.is_none();
        let end = match background {
            0 if finished => Event::Finished(child.worker),
            0 => Event::Exited(child.worker),
            number => {
                death += &report::background(number);
                Event::Hopeless(child.worker)
            }
        };
        let mut rests = vec![Rest::Session(pid), Rest::Background(pid)];
        if background > 0 {
            // They may leave the session only now.
            let strays = child.strays.iter();
            let strays = strays.flat_map(|(&stray, &session)| [stray, session]);
            let strays: BTreeSet<_> = strays.filter(|&id| id != pid).collect();
            rests.extend(strays.into_iter().map(Rest::Stray));
        }
        let waits = self.must_be_alone(child, background) && self.leaves_any_of(&rests);
        for rest in &rests {
            let end = end_of_rest(child, tag.to_string(), now);
            self.leftovers.end(*rest, end);
        }
        let actions = match waits {
            true => {
                self.leftovers.hold(rests, child.app.clone(), end);
                // It is not ready any more, and its slot is taken.
                let leaves = vec![Event::Stopping(child.worker)];
                self.workers.handle(&child.app, leaves, now)
            }
            false => self.workers.handle(&child.app, vec![end], now),
        };
        let app = self.workers.apps.get(&child.app).map(|app| &app.supervisor);
        let retry = app
            .filter(|app| app.lacks_workers())
            .and_then(|app| app.retry_at());
        let wait = retry.map(|at| at.saturating_duration_since(now));
        if sent == Some(Signal::SIGTERM) {
            info!("{tag}: {death}");
        } else if finished && child.plan.policy.restart != Restart::Always {
            info!("{tag}: {}", report::finished(child, now));
        } else {
            death += &match output {
                None => report::silence(child, exit).unwrap_or_default(),
                Some(_) => report::last_output(output),
            };
            let beside_old = self.workers.serving && self.workers.is_first(child.generation);
            if let Some(output) = output.filter(|_| beside_old) {
                death += report::address_in_use(child, output);
            }
            match self.is_stopping() || sent.is_some() {
                true => warn!("{tag}: {death}"),
                false if background > 0 && app.is_some_and(|app| app.is_given_up()) => {
                    error!("{tag}: {death}; its app is given up until the next reload");
                }
                false if waits => {
                    error!("{tag}: {death}; its app goes on when what it has started has ended");
                }
                false if child.plan.policy.restart == Restart::Never && !fails(&actions) => {
                    error!("{tag}: {death}; it is not started again until the next reload");
                }
                false => error!("{tag}: {death}; {}", report::consequence(&actions, wait)),
            }
        }
        if !self.is_stopping() {
            // Some programs remove the file of a listener when they end, as if they had bound it.
            for (_, address) in &child.plan.sockets {
                match self.turn.world.restore_listener(address) {
                    Ok(true) => info!("{tag}: the file of {address} was removed; made it again"),
                    Ok(false) => {}
                    Err(reason) => error!(
                        "{tag}: the file of {address} was removed and cannot be made again: {reason} (reload to bind a new socket); no client can connect"
                    ),
                }
            }
        }
        self.turn.queue_fact(Fact::Reason(
            child.app.clone(),
            child.generation,
            match death.starts_with("killed") {
                true => format!("its first worker was {death}"),
                false => format!("its first worker {death}"),
            },
        ));
        for action in actions {
            self.perform(&child.app, action);
        }
        let app = self.workers.apps.get(&child.app);
        let given_up = app.is_some_and(|app| app.supervisor.is_given_up() && !app.installed);
        // Otherwise the first start would wait for it for ever.
        if background > 0 && given_up && self.release.outcome().is_none() && !self.is_stopping() {
            let reason = format!("app={} puts itself into the background", child.app);
            self.stop_with(Outcome::CouldNotStart, reason);
        }
    }

    /// Whether no worker of this one's app may start before all that it has started has ended.
    fn must_be_alone(&self, child: &Child, background: usize) -> bool {
        let app = self.workers.apps.get(&child.app);
        let alone = child.plan.policy.replace == Replace::StopFirst
            || app.is_some_and(|app| app.supervisor.stops_first());
        // An app that is given up starts none.
        let displaces = self.workers.serving && self.workers.is_first(child.generation);
        alone && (background == 0 || displaces)
    }

    fn leaves_any_of(&mut self, rests: &[Rest]) -> bool {
        let found = self.rest_of(&rests.iter().copied().collect());
        found.values().any(|pids| !pids.is_empty())
    }

    fn rest_of(&mut self, wanted: &BTreeSet<Rest>) -> BTreeMap<Rest, Vec<Pid>> {
        let (children, templates, jobs) = (&self.workers.children, &self.templates, &self.jobs);
        let is_known = |pid| is_known(children, templates, jobs, pid);
        self.turn.world.rest_of(wanted, &is_known)
    }

    /// The number of processes that a worker has put into the background, if that is why it has ended.
    fn background(&mut self, child: &Child, pid: Pid, exit: Exit) -> usize {
        if !exit.is_success() || !self.may_have_left_for_background(child) {
            return 0;
        }
        let wanted = [Rest::Session(pid), Rest::Background(pid)].into();
        let found = self.rest_of(&wanted);
        let found = found.into_values().flatten();
        found
            .chain(child.strays.keys().copied())
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Whether a worker that has ended with status 0 may be one that has put itself into the background: it did so soon, and in good
    /// order. A program that says when it is ready does not do that.
    fn may_have_left_for_background(&self, child: &Child) -> bool {
        let is_ready = child.ready_at.is_some();
        let soon = self.turn.now.saturating_duration_since(child.asked_for) < SOON;
        let is_python = child.plan.threads.is_some();
        let knows = is_python || is_ready && child.plan.policy.readiness == Readiness::Notify;
        let of_itself = child.signalled.is_none() && !child.stopping;
        let may_end = child.plan.policy.restart != Restart::Always;
        soon && of_itself && !may_end && !knows && !self.is_stopping()
    }

    /// Looks for what a worker has put into the background before it is reaped: they are compared with it.
    fn note_strays(&mut self, pid: Pid) {
        let child = self.workers.children.get(pid);
        if !child.is_some_and(|child| self.may_have_left_for_background(child)) {
            return;
        }
        let (children, templates, jobs) = (&self.workers.children, &self.templates, &self.jobs);
        let is_known = |pid| is_known(children, templates, jobs, pid);
        let strays = self.turn.world.strays(pid, &is_known);
        if let Some(child) = self.workers.children.get_mut(pid) {
            child.strays = strays;
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
            Task::CheckRestart(client) => {
                let client = *client;
                self.checked_restart(client, job.pid);
            }
            Task::Before(name) => {
                let name = name.clone();
                self.preparation
                    .command_ended(turn, &mut self.jobs, &name, job);
            }
            Task::Run(name, _) => {
                let rest = End {
                    app: Some(name.clone()),
                    tag: format!("{} pid={}", job.task, job.pid),
                    signal: Signal::SIGTERM,
                    group_knows: false,
                    grace: self.schedules.grace(name),
                };
                self.leftovers.end(Rest::Session(job.pid), rest);
                self.schedules.ended(name, &job);
            }
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

    fn probe_ended(&mut self, first: &First, job: &Ended) {
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
        self.turn.queue_event(name, Event::Checked(*worker));
    }
}

/// Whether the master has started a process, or a template has for it.
pub(super) fn is_known(children: &Children, templates: &Templates, jobs: &Jobs, pid: Pid) -> bool {
    children.get(pid).is_some() || templates.is_template(pid) || jobs.is_job(pid)
}

fn fails(actions: &[Action]) -> bool {
    let mut actions = actions.iter();
    actions.any(|action| matches!(action, Action::Failed(_)))
}

/// How what is left of a worker is ended: its session has as much time as the worker itself.
fn end_of_rest(child: &Child, tag: String, now: Instant) -> End {
    let Stop { signal, group } = child.plan.stop;
    let whole = child.plan.policy.graceful_timeout;
    let was_killed = matches!(child.signalled, Some((Signal::SIGKILL, _)));
    let since = child.told_at.map(|at| now.saturating_duration_since(at));
    End {
        app: Some(child.app.clone()),
        tag,
        signal: signal.into(),
        group_knows: group && child.told_at.is_some(),
        grace: match was_killed {
            true => Duration::ZERO,
            false => whole.saturating_sub(since.unwrap_or_default()),
        },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Reason;

    #[test]
    fn the_session_of_a_worker_has_as_long_as_the_worker_itself() {
        let now = Instant::now();
        let mut child = Child::example(1);
        let whole = child.plan.policy.graceful_timeout;
        let grace = |child: &Child, now| end_of_rest(child, String::new(), now).grace;
        assert_eq!(grace(&child, now), whole, "it has ended of itself");
        child.signalled = Some((Signal::SIGTERM, Reason::Stop));
        child.told_at = Some(now);
        let later = now + whole / 4;
        assert_eq!(grace(&child, later), whole - whole / 4);
        assert_eq!(grace(&child, now + whole * 2), Duration::ZERO);
        child.signalled = Some((Signal::SIGKILL, Reason::GracefulTimeout));
        assert_eq!(grace(&child, later), Duration::ZERO);
    }
}
