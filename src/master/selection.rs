//! Commands about single apps: what a release makes of the configuration, and when an app that was stopped has ended.

use std::collections::{BTreeMap, BTreeSet};

use log::{error, info};
use nix::unistd::Pid;

use super::Master;
use super::choices::{Request, Scope, Wanted, join, unknown_app};
use super::jobs::Task;
use super::preparation::CHECK;
use super::preview;
use super::proposal::{Proposal, task_stopped_text};
use super::workers::App;
use super::world::{ClientId, World};
use crate::plan::{self, Extent, Plan};
use crate::release::{Fact, Name};
use crate::supervisor::Supervisor;

/// Who has stopped an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoppedBy {
    Command,
    Configuration,
    /// Nobody: it is a task of apps that are stopped.
    ItsApps,
}

impl<W: World> Master<W> {
    /// Begins a release: it stops apps, or reads the configuration.
    pub(super) fn prepare(&mut self) {
        let generation = self.release.next();
        let (turn, jobs) = (&mut self.turn, &mut self.jobs);
        let Some(running) = &self.current else {
            let whole = Extent::default();
            return self.preparation.begin(turn, jobs, generation, &whole);
        };
        let Some(stops) = self.choices.begin(running) else {
            let extent = self.choices.scope().extent(running);
            return self.preparation.begin(turn, jobs, generation, &extent);
        };
        if self.choices.is_wanted() {
            turn.queue_fact(Fact::Requested);
        }
        let proposal = Proposal::without(running, |name| stops.contains(name));
        let children = &self.workers.children;
        self.preparation
            .begin_checked(turn, children, generation, proposal);
    }

    /// The configuration was read: continues with what the release is about.
    pub(super) fn propose_found(&mut self, found: Plan) {
        let mut must_start = self.serving_well();
        must_start.extend(self.schedules.fit().map(str::to_owned));
        let turn = &mut self.turn;
        let Some(running) = &self.current else {
            let proposal = Proposal::first(found, &self.choices);
            let children = &self.workers.children;
            return self.preparation.open(turn, children, proposal);
        };
        if let Some(why) = running.lost_folder(&found) {
            return self.preparation.fail(turn, why.to_owned());
        }
        let known = |name: &str| found.knows(name) || running.runs(name);
        let all = names_of(&found);
        if let Some(reason) = self.choices.refuse_unknown(turn, known, &all) {
            return self.preparation.fail(turn, reason);
        }
        self.choices.follow_static_files(running, &found);
        must_start.extend(self.choices.scope().names());
        let may_stay = |name: &str| self.workers.may_stay(name);
        match Proposal::new(found, running, &self.choices, may_stay) {
            Ok(mut proposal) => {
                proposal.must_start = must_start;
                if self.choices.scope().is_whole() {
                    for name in &proposal.kept {
                        info!("app={name}: nothing has changed, so its workers stay");
                    }
                }
                let children = &self.workers.children;
                self.preparation.open(turn, children, proposal);
            }
            Err(reason) => self.preparation.fail(turn, reason),
        }
    }

    /// A client wants some apps reloaded.
    pub(super) fn reload_some(&mut self, client: ClientId, names: BTreeSet<Name>) {
        let stopped = self.stopped();
        let is_stopped = names.iter().any(|name| stopped.contains_key(&**name));
        match is_stopped || self.has_unknown(&names) {
            true => self.check_first(client, names, Wanted::Reload),
            false => self.reload_known(client, names),
        }
    }

    fn reload_known(&mut self, client: ClientId, names: BTreeSet<Name>) {
        info!("control: reload of {}", join(&names));
        self.request(client, names, false);
    }

    /// Whether the running configuration lacks one of these apps. The file may have it by now.
    fn has_unknown(&self, names: &BTreeSet<Name>) -> bool {
        let plan = self.plan();
        plan.is_some_and(|plan| names.iter().any(|name| !plan.knows(name)))
    }

    /// A client wants some apps started.
    pub(super) fn start(&mut self, client: ClientId, names: BTreeSet<Name>) {
        match self.has_unknown(&names) {
            true => self.check_first(client, names, Wanted::Start),
            false => self.start_known(client, names),
        }
    }

    fn start_known(&mut self, client: ClientId, names: BTreeSet<Name>) {
        let runs_well = |name: &Name| {
            let is_wanted = self.plan().is_some_and(|plan| plan.runs(name));
            let app = self.workers.apps.get(name).map(|app| &app.supervisor);
            // One without a worker fails, or has finished: it is started again.
            let runs =
                |app: &Supervisor| !app.is_given_up() && !app.is_paused() && app.is_running();
            let in_trouble = app.is_some_and(|app| !runs(app)) || !self.schedules.goes_on(name);
            is_wanted && !in_trouble && !self.choices.is_ending(name)
        };
        let missing: BTreeSet<_> = names.iter().filter(|n| !runs_well(n)).cloned().collect();
        if missing.is_empty() {
            let lines = names
                .iter()
                .map(|name| format!("{name}: already running\n"));
            let answer = format!("ok\n{}", lines.collect::<String>());
            return self.turn.world.answer(client, &answer);
        }
        info!("control: start of {}", join(&missing));
        let stopped = self.stopped();
        let is_ending = |name: &Name| stopped.contains_key(&**name) && !self.is_gone(name);
        let waits = |name: &Name| self.choices.is_ending(name) || is_ending(name);
        let ending: BTreeSet<_> = missing.iter().filter(|n| waits(n)).cloned().collect();
        match ending.is_empty() {
            true => self.request(client, missing, true),
            false => self.choices.start_later(client, missing, ending),
        }
    }

    /// A client wants some apps stopped and started again. They are stopped only if the configuration is right.
    pub(super) fn restart(&mut self, client: ClientId, names: BTreeSet<Name>) {
        self.check_first(client, names, Wanted::Restart);
    }

    /// A client wants to know what a reload would do.
    pub(super) fn preview(&mut self, client: ClientId, names: BTreeSet<Name>) {
        self.check_first(client, names, Wanted::Preview);
    }

    /// The configuration was checked for that.
    fn checked_preview(
        &mut self,
        client: ClientId,
        names: BTreeSet<Name>,
        found: Result<Plan, String>,
    ) {
        let told = match (found, &self.current) {
            (Err(reason), _) if reason.is_empty() => {
                Err("the configuration could not be checked".to_owned())
            }
            (Err(reason), _) => Err(format!("a reload would be refused: {reason}")),
            (Ok(_), None) => Err("the first generation is still being started".to_owned()),
            (Ok(found), Some(running)) => {
                let scope = Scope::reload(client, names);
                let told = self.reload_told(found, running, scope);
                told.map_err(|why| format!("a reload would be refused: {why}"))
            }
        };
        let answer = match told {
            Ok(text) => format!("ok\n{text}"),
            Err(reason) => format!("error {reason}\n"),
        };
        self.turn.world.answer(client, &answer);
    }

    /// What a reload of this scope would do.
    ///
    /// # Errors
    /// It would be refused, for this reason.
    fn reload_told(&self, found: Plan, running: &Plan, mut scope: Scope) -> Result<String, String> {
        if let Some(why) = running.lost_folder(&found) {
            return Err(why.to_owned());
        }
        let (names, stopped) = (scope.names(), self.stopped());
        let known = |name: &str| found.knows(name) || running.runs(name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(unknown_app(name, &names_of(&found)));
        }
        if let Some(name) = names.iter().find(|name| stopped.contains_key(*name)) {
            return Err(is_stopped_text(name));
        }
        scope.follow_static_files(running, &found);
        let may_stay = |name: &str| self.workers.may_stay(name);
        let proposal = Proposal::about(found, running, &self.choices, &scope, may_stay)?;
        Ok(preview::describe(running, &proposal, &scope))
    }

    /// Checks the configuration before a request is performed: a misspelt name is refused at once, whatever release goes on.
    fn check_first(&mut self, client: ClientId, names: BTreeSet<Name>, wanted: Wanted) {
        let extent = self.extent(&names, wanted);
        match self.turn.world.start_check(&extent) {
            Ok(pid) => {
                let task = Task::CheckFirst(client);
                self.jobs.add(&self.turn, pid, task, CHECK);
                self.choices.check_first(client, names, wanted);
            }
            Err(error) => {
                let nothing = match wanted {
                    Wanted::Restart => "; nothing was stopped",
                    Wanted::Reload | Wanted::Start | Wanted::Preview => "",
                };
                let answer = format!(
                    "error cannot start the process that checks the configuration: {error}{nothing}\n"
                );
                self.turn.world.answer(client, &answer);
            }
        }
    }

    /// How far the check goes for a request.
    fn extent(&self, names: &BTreeSet<Name>, wanted: Wanted) -> Extent {
        let names = match wanted {
            Wanted::Preview if names.is_empty() => return Extent::default(),
            Wanted::Preview | Wanted::Restart => names.iter().map(Name::to_string).collect(),
            // Only the names count; the release asks the applications.
            Wanted::Reload | Wanted::Start => BTreeSet::new(),
        };
        let running = self.current.as_ref();
        running.map_or_else(Extent::default, |running| Extent::part(names, running))
    }

    /// The configuration was checked for a request.
    pub(super) fn checked_first(&mut self, client: ClientId, job: Pid) {
        let found = self.turn.world.checked(job);
        // Otherwise it was answered: a later command has stopped its apps, or the master stops.
        let Some((names, wanted)) = self.choices.take_checked(client) else {
            return;
        };
        match wanted {
            Wanted::Restart => return self.checked_restart(client, names, found),
            Wanted::Preview => return self.checked_preview(client, names, found),
            Wanted::Reload | Wanted::Start => {}
        }
        let known = |name: &str, found: &Plan| {
            found.knows(name) || self.plan().is_some_and(|plan| plan.runs(name))
        };
        if wanted == Wanted::Reload {
            let stopped = self.stopped();
            let mut stopped = names.iter().filter(|name| stopped.contains_key(&***name));
            if let Some(name) = stopped.next() {
                let reason = match self.choices.waits_for_start(name) {
                    true => format!(
                        "{name} is being started by another command (repeat this when it runs)"
                    ),
                    false => is_stopped_in(found.as_ref().ok(), name),
                };
                return self.turn.world.answer(client, &format!("error {reason}\n"));
            }
        }
        // An error in the file is what the release says.
        let unknown = found.as_ref().ok().and_then(|found| {
            let name = names.iter().find(|name| !known(name, found))?;
            Some(unknown_app(name, &names_of(found)))
        });
        match unknown {
            Some(reason) => {
                error!("control: {reason}; nothing is changed");
                let answer = format!("error {reason}; nothing is changed\n");
                self.turn.world.answer(client, &answer);
            }
            None if wanted == Wanted::Reload => self.reload_known(client, names),
            None => self.start_known(client, names),
        }
    }

    /// The configuration was checked for a restart.
    fn checked_restart(
        &mut self,
        client: ClientId,
        names: BTreeSet<Name>,
        found: Result<Plan, String>,
    ) {
        let unknown = |plan: &Plan| {
            let unknown = names.iter().find(|name| !plan.knows(name));
            let unknown = unknown.map(|name| unknown_app(name, &names_of(plan)));
            unknown.or_else(|| {
                let running = self.plan()?;
                let new = names.iter().find(|name| !running.knows(name))?;
                Some(format!(
                    "{new} is new in the configuration and does not run yet (start it with `preforkd start {new}`, or reload)"
                ))
            })
        };
        let running = self.current.as_ref();
        let cannot_start = |plan: &Plan| {
            let lost = running.and_then(|running| running.lost_folder(plan));
            let mut names = names.iter();
            let why = lost.or_else(|| names.find_map(|name| plan.cannot_start(name)));
            why.map(str::to_owned)
        };
        let task_is_stopped = |plan: &Plan| {
            let is_down = |name: &str| {
                self.choices.stopped_by_command(name) && !self.choices.will_start(&name.into())
            };
            let runs = |name: &str, _: &plan::App| {
                names.contains(name) || plan.is_task(name) && !is_down(name)
            };
            let pair = plan.task_not_run(runs);
            pair.map(|(task, app)| task_stopped_text(task, app))
        };
        let refused = match found {
            Ok(plan) => cannot_start(&plan)
                .or_else(|| unknown(&plan))
                .or_else(|| task_is_stopped(&plan)),
            Err(reason) if reason.is_empty() => {
                Some("the configuration could not be checked".to_owned())
            }
            Err(reason) => Some(reason),
        };
        match refused {
            Some(reason) => {
                error!(
                    "not restarting {}: {reason}; nothing was stopped",
                    join(&names)
                );
                let answer = format!("error {reason}; nothing was stopped\n");
                self.turn.world.answer(client, &answer);
            }
            None => self.stop_some(client, names, true),
        }
    }

    /// A client wants some apps stopped, and perhaps started again.
    pub(super) fn stop_some(&mut self, client: ClientId, names: BTreeSet<Name>, restarts: bool) {
        let Some(plan) = self.plan() else {
            let answer = "error the configuration is not read yet\n";
            return self.turn.world.answer(client, answer);
        };
        if let Some(name) = names.iter().find(|name| !plan.knows(name)) {
            let answer = format!("error {}\n", unknown_app(name, &names_of(plan)));
            return self.turn.world.answer(client, &answer);
        }
        // The release that goes on may start them.
        let candidate = self.preparation.candidate();
        let runs = |name: &&Name| {
            let will_run = candidate.is_some_and(|candidate| candidate.plan.runs(name));
            plan.runs(name) || will_run || self.choices.scope().starts(name)
        };
        let running = names.iter().filter(runs).cloned().collect();
        let what = if restarts { "restart" } else { "stop" };
        info!("control: {what} of {}", join(&names));
        self.choices
            .stop(&mut self.turn, client, names.clone(), &running, restarts);
        let restarted = names.iter().filter(|_| restarts);
        for name in restarted {
            let plan = self
                .current
                .as_ref()
                .and_then(|plan| plan.apps.get(&**name));
            let policy = plan.map(|app| &app.policy);
            // One that follows the load finds its number again.
            if let Some(policy) = policy.filter(|policy| policy.range.is_none())
                && let Some(app) = self.workers.apps.get(name).filter(|app| !app.removed)
            {
                let wanted = app.supervisor.counts().wanted;
                self.choices.keep_number(name, policy.workers, wanted);
            }
        }
        if !names.is_disjoint(&running) {
            self.turn.queue_fact(Fact::Requested);
        }
    }

    fn request(&mut self, client: ClientId, names: BTreeSet<Name>, starts: bool) {
        self.choices.request(Request {
            client,
            names,
            starts,
        });
        self.turn.queue_fact(Fact::Requested);
    }

    /// The plan that runs; before there is one, the one that is being started.
    pub(super) fn plan(&self) -> Option<&Plan> {
        let candidate = self.preparation.candidate();
        let candidate = candidate.map(|candidate| &candidate.plan);
        self.current.as_ref().or(candidate)
    }

    /// The apps that are stopped, and by what.
    pub(super) fn stopped(&self) -> BTreeMap<String, StoppedBy> {
        let Some(plan) = self.plan() else {
            return BTreeMap::new();
        };
        let stopped = plan.stopped.iter().map(|name| {
            let by = match self.choices.stopped_by_command(name) {
                true => StoppedBy::Command,
                false if plan.idle.contains(name) => StoppedBy::ItsApps,
                false => StoppedBy::Configuration,
            };
            (name.clone(), by)
        });
        stopped.collect()
    }

    /// Forgets apps that have ended, and goes on with commands that waited for that. Returns whether there is something to do.
    pub(super) fn follow_ends(&mut self) -> bool {
        let forgotten = self.workers.forget_removed();
        for name in &forgotten {
            self.turn.world.remove_app(name);
            self.floods.forget(name);
            self.unread.remove(name);
            self.has_gone(name);
        }
        let is_awaited = !forgotten.is_empty() && self.release.candidate().is_some();
        if !self.choices.is_waiting() || self.is_stopping() {
            return is_awaited;
        }
        let ending = self.choices.ending();
        let gone: BTreeSet<_> = ending.filter(|name| self.is_gone(name)).collect();
        let starts = self.choices.ended(&mut self.turn, &gone);
        if starts {
            self.turn.queue_fact(Fact::Requested);
        }
        starts || is_awaited
    }

    /// Whether no process of an app is left of when it was stopped. It may run again.
    fn is_gone(&self, name: &Name) -> bool {
        let goes_on = |app: &App| app.removed;
        let left = self.workers.apps.get(name).is_some_and(goes_on)
            || self.templates.has_of(name)
            || self.leftovers.has_of(name)
            || self.deferred.runs(name)
            || self.schedules.is_leaving(name);
        !left || self.plan().is_some_and(|plan| plan.runs(name))
    }
}

/// Why a reload of a stopped app is refused, by the configuration that was found.
fn is_stopped_in(found: Option<&Plan>, name: &str) -> String {
    match found {
        Some(found) if !found.knows(name) => format!(
            "{name} is stopped, and the configuration does not have it any more (a reload of all apps forgets it)"
        ),
        _ => is_stopped_text(name),
    }
}

/// Why a command about a stopped app is refused.
pub(super) fn is_stopped_text(name: &str) -> String {
    format!("{name} is stopped (start it with `preforkd start {name}`)")
}

fn names_of(plan: &Plan) -> String {
    let all: BTreeSet<&str> = plan
        .apps
        .keys()
        .chain(plan.scheduled.keys())
        .chain(&plan.stopped)
        .map(String::as_str)
        .collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}
