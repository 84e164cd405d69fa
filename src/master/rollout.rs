//! Performs the actions of [`crate::release`].

use std::collections::{BTreeMap, BTreeSet};

use log::{debug, error, info, warn};

use super::certificates;
use super::choices::{Purpose, not_started};
use super::displacing::why_removed;
use super::workers::App;
use super::world::{Notice, World};
use super::{Master, Outcome, report};
use crate::config::Address;
use crate::plan::{Plan, TRIED_AGAIN};
use crate::release::{Action, Fact, Generation, Name, State};
use crate::supervisor::{Event, Policy};

/// What a refused release leaves: the running generation, of which these apps have no worker at present.
fn keeping(generation: Generation, down: &[&str]) -> String {
    match down {
        [] => format!("keeping generation {generation}"),
        _ => {
            let down = down.join(", ");
            format!(
                "keeping generation {generation}; {down}: no worker at present, generation {generation} is being started again"
            )
        }
    }
}

impl<W: World> Master<W> {
    pub(super) fn perform_release(&mut self, action: Action) {
        debug!("release: {action:?}");
        let turn = &mut self.turn;
        match action {
            Action::Prepare => {
                turn.world.notify_init(&Notice::Reloading);
                self.prepare();
            }
            Action::Abandon => self.preparation.abandon(turn, &mut self.jobs),
            Action::Propose(generation, names) => self.propose(generation, &names),
            Action::Displace(generation, name) => self.displace(generation, &name),
            Action::Commit(name) => {
                self.deferred.forget(turn, &mut self.jobs, &name);
                turn.queue_event(&name, Event::Commit);
            }
            Action::Install(generation, name) => self.install(generation, &name),
            Action::Postpone(generation, name) => self.postpone(generation, &name),
            Action::Remove(name) => {
                if self
                    .release
                    .current()
                    .is_some_and(|g| Some(g) != self.release.candidate())
                {
                    debug!("app={name}: removed");
                }
                self.displaced.suspend(&name);
                self.deferred.forget(turn, &mut self.jobs, &name);
                self.workers.remove(turn, &name);
            }
            Action::RollBack(name) => self.roll_back(&name),
            Action::TakeOver(generation) => self.take_over(generation),
            Action::Discard => {
                self.workers.candidate = None;
                self.preparation.discard(turn);
            }
            Action::Done(generation) => self.announce(generation),
            Action::RolledBack(reason) => self.announce_failure(&reason),
            Action::CannotStart(reason) => {
                error!("cannot start: {reason}");
                self.stop_with(Outcome::CouldNotStart, format!("cannot start: {reason}"));
            }
        }
    }

    /// Starts one worker of each of these apps to prove the candidate.
    fn propose(&mut self, generation: Generation, names: &BTreeSet<Name>) {
        self.workers.candidate = Some(generation);
        for name in names {
            match self.configure(generation, name) {
                Ok(Some(policy)) => {
                    let fixed = policy.range.is_none();
                    let kept = self.choices.kept_number(name, policy.workers);
                    let policy = match self.release.current() {
                        Some(_) => policy,
                        None => policy.at_first_start(),
                    };
                    let proposal = Event::Propose(generation, policy);
                    self.turn.queue_event(name, proposal);
                    if let Some(by) = kept.filter(|_| fixed) {
                        self.turn.queue_event(name, Event::Scale(by));
                    }
                }
                Ok(None) => {}
                Err(reason) => {
                    let reason = Fact::Reason(name.clone(), generation, reason);
                    self.turn.queue_fact(reason);
                    self.turn.queue_fact(Fact::Failed(name.clone(), generation));
                }
            }
        }
    }

    /// Makes the candidate the current generation of an app without proof.
    fn install(&mut self, generation: Generation, name: &Name) {
        self.deferred.forget(&mut self.turn, &mut self.jobs, name);
        match self.configure(generation, name) {
            Ok(Some(policy)) => {
                let plan = self.workers.apps.get(name);
                let plan = plan.and_then(|app| app.plans.get(&generation));
                // Why it is not started is said then.
                if plan.is_none_or(|plan| plan.unfit.is_none()) {
                    info!("app={name}: not required, so that nothing waits until it is ready");
                }
                let warnings = plan.map_or(&[][..], |plan| &plan.warnings);
                for warning in warnings.iter().filter(|it| it.ends_with(TRIED_AGAIN)) {
                    warn!("app={name} {warning}");
                }
                if let Some(app) = self.workers.apps.get_mut(name) {
                    app.installed = Some(generation);
                }
                let installation = Event::Install(generation, policy);
                self.turn.queue_event(name, installation);
                self.defer(name, generation);
            }
            Ok(None) => {}
            Err(reason) => error!(
                "app={name}: {reason}; it is not started until {}",
                report::again(name)
            ),
        }
    }

    /// Gives an app its plan of the candidate; none if it has none.
    fn configure(&mut self, generation: Generation, name: &Name) -> Result<Option<Policy>, String> {
        self.displaced.suspend(name);
        let candidate = self.preparation.candidate();
        let Some(app) = candidate.and_then(|candidate| candidate.plan.apps.get(&**name)) else {
            return Ok(None);
        };
        let added = self.turn.world.add_app(name, app);
        added.map_err(|error| format!("cannot receive messages from its workers: {error}"))?;
        let policy = app.policy.clone();
        self.workers.configure(name, generation, app.clone());
        self.wait_for_earlier(name);
        Ok(Some(policy))
    }

    /// Makes the candidate the running configuration.
    fn take_over(&mut self, generation: Generation) {
        let Some(candidate) = self.preparation.take() else {
            return;
        };
        let (turn, plan) = (&mut self.turn, candidate.plan);
        if let Some(old) = &self.current {
            for name in &candidate.kept {
                let of = |plan: &Plan| plan.apps.get(name).and_then(|app| app.certificates.clone());
                if let Some(new) = of(&plan).filter(|new| Some(new) != of(old).as_ref()) {
                    certificates::renew(turn, &mut self.workers, &name.as_str().into(), &new);
                }
            }
            match self.choices.scope().purpose() {
                Purpose::Reload => info!("generation {generation} is proven and takes over"),
                Purpose::Start(_) => {
                    let names = self.choices.scope().names();
                    let (scheduled, others): (Vec<_>, Vec<_>) = names
                        .into_iter()
                        .partition(|name| plan.scheduled.contains_key(name));
                    if !others.is_empty() {
                        info!("{}: proven, starting all workers", others.join(", "));
                    }
                    if !scheduled.is_empty() {
                        let names = scheduled.join(", ");
                        info!("{names}: started, and runs at the next time of its schedule");
                    }
                }
                Purpose::Stop(_) => {}
            }
            for name in old
                .apps
                .keys()
                .filter(|name| !plan.apps.contains_key(*name))
                .filter(|name| !plan.scheduled.contains_key(*name))
            {
                // The workers of one that was displaced have ended.
                let app = self.workers.apps.get(name.as_str());
                if app.is_none_or(|app| !app.supervisor.is_displaced()) {
                    let why = why_removed(&plan, name);
                    info!("app={name}: {why}; its workers finish their requests");
                }
            }
            turn.world.keep_master_files(&plan);
        }
        self.workers.candidate = None;
        self.workers.serving = true;
        self.loads.stop(turn);
        self.ignored.stop(turn);
        let no_longer_staying = self.held.no_longer_staying(&plan);
        let old = self.current.as_ref();
        let listeners = self.held.take_over(old, &plan, &self.choices);
        let (closed, failures) = turn.world.keep_listeners(&listeners);
        for failure in failures {
            warn!("the change of a listener does not take effect: {failure}");
        }
        for address in closed {
            info!("{}", report::no_longer_listening(&address));
        }
        turn.world.keep_log_files(&plan.log_files());
        if self.current.is_some() {
            // They are paths too, at which another file may be by now, or none.
            turn.world.reopen_log_files();
        }
        // That some apps are as wanted does not mend what was refused about all.
        if self.choices.scope().is_whole() || !self.refused_whole {
            self.refused = None;
        }
        self.choices.taken_over(&plan);
        let scope = self.choices.scope();
        let scope_is_paused = scope.is_paused();
        let concerns = |name: &str| scope.includes(name);
        self.schedules
            .follow(turn, &mut self.jobs, &plan, generation, concerns);
        self.workers.changed = true;
        self.certificates.follow(turn, &mut self.jobs, &plan);
        self.keeper.follow(turn, &mut self.jobs, &plan);
        self.census
            .set(plan.metrics.is_some(), &mut self.workers.children);
        self.exporter
            .follow(turn, &mut self.jobs, &mut self.census, &plan, generation);
        self.loads.follow(turn, &plan);
        self.ignored.follow(turn, &plan);
        self.current = Some(plan);
        for name in no_longer_staying {
            self.refuse_clients_without_worker(&name);
        }
        // The first generation must start.
        if scope_is_paused && self.release.outcome().is_some() {
            self.pause_all();
        }
    }

    fn announce(&mut self, generation: Generation) {
        let listeners = self.current.iter().flat_map(|plan| &plan.listeners);
        let is_open = |address: &Address| self.turn.world.accept_queue(address).is_some();
        let listeners = listeners.filter(|listener| is_open(&listener.address));
        let listeners: Vec<_> = listeners.map(|l| l.address.to_string()).collect();
        let place = match listeners.is_empty() {
            true => String::new(),
            false => format!(", listening on {}", listeners.join(", ")),
        };
        self.update_status();
        let status = &self.init.status;
        let apps = self.workers.configured();
        let lacking = apps.filter(|(_, app)| !app.supervisor.is_settled());
        let paused = self
            .workers
            .configured()
            .any(|(_, app)| app.supervisor.is_paused());
        let (installed, required): (Vec<_>, Vec<_>) =
            lacking.partition(|(_, app)| app.is_installed() || !app.is_required());
        let installed: Vec<_> = installed.iter().map(|(name, _)| &***name).collect();
        let purpose = self.choices.scope().purpose();
        if let Purpose::Stop(names) = &purpose {
            info!("stopping {names}; generation {generation}: {status}{place}");
        } else if paused {
            info!(
                "generation {generation} has taken over, and is paused (SIGHUP resumes): {status}{place}"
            );
        } else if required.is_empty() && installed.is_empty() {
            match &purpose {
                Purpose::Start(names) => {
                    info!("{names} started; generation {generation}: {status}{place}");
                }
                _ => info!("generation {generation} is ready: {status}{place}"),
            }
        } else if required.is_empty() {
            let installed = installed.join(", ");
            info!(
                "generation {generation} is ready, apart from what is not required ({installed}): {status}{place}"
            );
        } else {
            warn!(
                "generation {generation} serves, but not all its workers are ready: {status}{place}"
            );
        }
        let result = Ok(format!("generation {generation}: {status}"));
        let pauses = self.choices.scope().is_paused();
        let line = self.status_line();
        self.turn.world.notify_init(&Notice::Ready(line));
        let failing = self.failing();
        self.choices.over(&mut self.turn, &result, &failing);
        if pauses {
            self.pause_all();
        }
    }

    /// Reports that a release has failed, and the consequence.
    fn announce_failure(&mut self, reason: &str) {
        let keeping = match self.release.current() {
            Some(generation) => {
                let apps = self.workers.configured();
                let down = apps.filter(|(_, app)| app.supervisor.is_displaced_wholly());
                let down: Vec<_> = down.map(|(name, _)| &**name).collect();
                keeping(generation, &down)
            }
            None => "nothing runs yet".into(),
        };
        let scope = self.choices.scope();
        self.schedules
            .resume(&mut self.turn, |name| scope.includes(name));
        if scope.is_paused() {
            self.pause_all();
        }
        let refused = match self.choices.scope().purpose() {
            Purpose::Reload => format!("reload failed: {reason}"),
            Purpose::Start(names) => not_started(&names, reason),
            Purpose::Stop(names) => format!("{names} could not be stopped: {reason}"),
        };
        error!("{refused}; {keeping}");
        let notice = Notice::Ready(format!("{refused}; {keeping}"));
        self.turn.world.notify_init(&notice);
        self.refused = Some(refused);
        self.refused_whole = self.choices.scope().is_whole();
        let result = Err(format!("{reason}; {keeping}"));
        let stopped = self.current.iter().flat_map(|plan| &plan.stopped);
        let stopped = stopped.map(|name| (name.as_str().into(), "stays stopped".into()));
        let stopped = stopped.collect();
        self.choices.over(&mut self.turn, &result, &stopped);
        self.run_deferred();
    }

    /// The apps of the release that do not run although they have taken over, and why.
    fn failing(&self) -> BTreeMap<Name, String> {
        let names = self.choices.scope().names().into_iter();
        let failing = names.filter_map(|name| {
            let app = self.workers.apps.get(name.as_str())?;
            let fails = app.supervisor.is_in_trouble() || app.supervisor.counts().failed > 0;
            let lacks = app.not_started.as_ref().map(|last| &last.why);
            let why = lacks.or(app.failure.as_ref()).filter(|_| fails)?;
            Some((name.into(), format!("was started and fails: {why}")))
        });
        failing.collect()
    }

    /// Reports the progress of the rollout to the release.
    pub(super) fn watch_rollout(&mut self) -> bool {
        if !matches!(self.release.state(), State::RollingOut { .. }) {
            return false;
        }
        // Do not wait for a generation in trouble, except the first one, which must start.
        let may_be_in_trouble = self.release.outcome().is_some();
        let complete = self.rolled_out().all(|app| {
            let s = &app.supervisor;
            let waits = s.is_in_trouble() || s.is_paused();
            self.need_not_wait_for(app) || s.is_settled() || may_be_in_trouble && waits
        });
        let fact = match complete {
            true => Fact::RolledOut,
            false if self.release.is_wanted() && self.is_stuck() => Fact::Stuck,
            false => return false,
        };
        self.turn.queue_fact(fact);
        true
    }

    /// The apps that have taken over the current generation. The others continue with theirs.
    fn rolled_out(&self) -> impl Iterator<Item = &App> {
        let generation = self.release.current();
        let apps = self.workers.configured().map(|(_, app)| app);
        apps.filter(move |app| app.supervisor.generation() == generation)
    }

    /// Whether no app makes progress: each is complete, in trouble, or paused without workers.
    fn is_stuck(&self) -> bool {
        self.rolled_out().all(|app| {
            let supervisor = &app.supervisor;
            let counts = supervisor.counts();
            let has_none = counts.ready + counts.starting == 0;
            let waits = supervisor.is_in_trouble() || has_none;
            self.need_not_wait_for(app) || supervisor.is_settled() || waits
        })
    }

    /// Whether the rollout does not wait for an app: it has taken over without proof. At the first start that is any app that is not
    /// required, also one that was ready and has failed since.
    fn need_not_wait_for(&self, app: &App) -> bool {
        app.is_installed() || self.release.outcome().is_none() && !app.is_required()
    }
}

#[cfg(test)]
mod tests {
    use super::keeping;

    #[test]
    fn a_refusal_names_the_apps_that_have_no_worker() {
        assert_eq!(keeping(4, &[]), "keeping generation 4");
        let expected = "keeping generation 4; api, web: no worker at present, generation 4 is being started again";
        assert_eq!(keeping(4, &["api", "web"]), expected);
    }
}
