//! The apps and their workers: which ones run, in which generation, which are to be started, and which to end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use log::info;
use nix::unistd::Pid;

use super::earlier::Waits;
use super::report;
use super::timers::Timers;
use super::turn::Turn;
use crate::config::Address;
use crate::plan;
use crate::release::{Generation, Name};
use crate::supervisor::{Action, Event, Slot, Supervisor, WorkerId};

pub(super) mod children;
mod ending;
mod forked;
mod fronts;
mod lacking;
mod quiet;
mod starting;

use children::Children;
pub(super) use ending::send;
pub(super) use forked::MAX_REPLIES;
use fronts::Fronts;
use lacking::NotStarted;
use quiet::Quiet;

/// An app: its supervisor, and how workers of each of its generations are started.
pub(super) struct App {
    pub(super) supervisor: Supervisor,
    pub(super) plans: BTreeMap<Generation, Rc<plan::App>>,
    /// It is no longer configured, and is forgotten when its last worker has ended.
    pub(super) removed: bool,
    /// All its workers have ended after a stop.
    pub(super) ended: bool,
    /// The generation that has taken over without proof, until it has had all its workers.
    pub(super) installed: Option<Generation>,
    /// It waits for what an earlier master has left.
    pub(super) waits: Option<Waits>,
    /// Why its latest worker was not started.
    pub(super) not_started: Option<NotStarted>,
    /// The latest generation in which it was said that listeners are closed, and these.
    pub(super) refused: (Generation, BTreeSet<Address>),
    /// How a worker of its newest generation has failed last.
    pub(super) failure: Option<String>,
    /// The last output that was quoted for that.
    pub(super) last_output: Option<String>,
}

impl App {
    /// Whether it is no longer configured, and nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.removed && self.supervisor.is_empty()
    }

    /// Its current generation, with the plan.
    pub(super) fn current(&self) -> Option<(Generation, &plan::App)> {
        let generation = self.supervisor.generation()?;
        Some((generation, self.plans.get(&generation)?))
    }

    /// Whether its current generation has taken over without proof, and has not had all its workers yet: nothing waits for it.
    pub(super) fn is_installed(&self) -> bool {
        self.installed.is_some() && self.installed == self.supervisor.generation()
    }

    /// Whether the first start fails without it. One that has no plan is taken for required.
    pub(super) fn is_required(&self) -> bool {
        self.current().is_none_or(|(_, plan)| plan.required)
    }

    /// No worker of this generation can be started, for this reason.
    pub(super) fn cannot_start(&mut self, generation: Generation, reason: String) {
        if let Some(plan) = self.plans.get_mut(&generation) {
            let mut unfit = plan::App::clone(plan);
            unfit.unfit = Some(reason);
            *plan = Rc::new(unfit);
        }
    }

    /// Whether this last output of a worker is that of the one before. Notes it.
    pub(super) fn has_said(&mut self, output: Option<&str>) -> bool {
        let Some(output) = output else { return false };
        let before = self.last_output.replace(output.to_owned());
        before.as_deref() == Some(output)
    }
}

/// A worker that the supervisor wants started.
struct Spawn {
    app: Name,
    worker: WorkerId,
    slot: Slot,
    generation: Generation,
}

/// All apps and workers.
#[derive(Default)]
pub(super) struct Workers {
    pub(super) apps: BTreeMap<Name, App>,
    pub(super) children: Children,
    /// The generation that is being proven.
    pub(super) candidate: Option<Generation>,
    /// Whether a generation was committed and serves while a candidate is proven.
    pub(super) serving: bool,
    /// Listeners that were missing and could be opened now.
    pub(super) opened: Vec<Address>,
    /// The status has changed.
    pub(super) changed: bool,
    /// What front workers are told of them.
    pub(super) fronts: Fronts,
    quiet: Quiet,
    deadlines: Timers<Name>,
    /// The workers to start, in this order. A start takes a fraction of a millisecond, and other events must not wait for many.
    queue: VecDeque<Spawn>,
    /// Queued workers that are still wanted.
    queued: BTreeSet<(Name, WorkerId)>,
    /// Workers of templates that are not children of the master yet, and since when they are known.
    unadopted: BTreeMap<Pid, Instant>,
    /// When each of them is checked.
    looks: Timers<Pid>,
    /// Processes that templates have forked and that are no workers, each with its app. They are killed.
    uninvited: BTreeMap<Pid, Name>,
}

impl Workers {
    /// Whether an app whose plan has not changed runs as it should, so that a reload may leave it alone.
    pub(super) fn may_stay(&self, name: &str) -> bool {
        self.apps.get(name).is_some_and(|app| {
            let waits = app.waits.is_some();
            let app = &app.supervisor;
            !app.is_paused() && !app.is_in_trouble() && !app.is_held() && !waits
        })
    }

    /// Gives an app a plan for a generation; creates the app if it is new.
    pub(super) fn configure(&mut self, name: &Name, generation: Generation, plan: plan::App) {
        let app = self.apps.entry(name.clone()).or_insert_with(|| App {
            supervisor: Supervisor::new(fastrand::u64(..)),
            plans: BTreeMap::new(),
            removed: false,
            ended: false,
            installed: None,
            waits: None,
            not_started: None,
            refused: (0, BTreeSet::new()),
            failure: None,
            last_output: None,
        });
        app.removed = false;
        app.failure = None;
        app.last_output = None;
        app.plans.insert(generation, Rc::new(plan));
        self.fronts.changed(name);
    }

    /// Gives the current generation of an app new certificates. Returns the workers that are to get them.
    pub(super) fn renew_certificates(
        &mut self,
        name: &Name,
        certificates: &plan::Secret,
    ) -> Vec<Pid> {
        let Some(app) = self.apps.get_mut(name) else {
            return Vec::new();
        };
        let Some(generation) = app.supervisor.generation() else {
            return Vec::new();
        };
        if let Some(plan) = app.plans.get_mut(&generation) {
            let mut renewed = plan::App::clone(plan);
            renewed.certificates = Some(certificates.clone());
            *plan = Rc::new(renewed);
        }
        let workers = self.children.of(name);
        let workers = workers.filter(|(_, child)| child.generation == generation);
        workers.map(|(pid, _)| pid).collect()
    }

    /// The names of the apps.
    pub(super) fn names(&self) -> Vec<Name> {
        self.apps.keys().cloned().collect()
    }

    /// The configured apps.
    pub(super) fn configured(&self) -> impl Iterator<Item = (&Name, &App)> {
        self.apps.iter().filter(|(_, app)| !app.removed)
    }

    /// Passes events to a supervisor, and returns its actions.
    pub(super) fn handle(&mut self, name: &Name, events: Vec<Event>, now: Instant) -> Vec<Action> {
        let Some(app) = self.apps.get_mut(name) else {
            return Vec::new();
        };
        let by_load = |event: &Event| matches!(event, Event::Load(_) | Event::Deadline);
        let by_load = events.iter().all(by_load);
        let before = app.supervisor.counts().wanted;
        let actions = app.supervisor.handle_all(events, now);
        let wanted = app.supervisor.counts().wanted;
        if by_load && wanted != before {
            let wanted = report::number(wanted as usize, "worker");
            info!("app={name}: {wanted} wanted, because of its load");
        }
        self.deadlines.set(name.clone(), app.supervisor.deadline());
        self.changed = true;
        actions
    }

    /// Queues deadlines of supervisors that are due.
    pub(super) fn queue_deadlines<W>(&mut self, turn: &mut Turn<W>) {
        for name in self.deadlines.take_due(turn.now) {
            turn.queue_event(&name, Event::Deadline);
        }
    }

    /// When the next supervisor has a deadline, or the next worker is to be started.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let starts = (!self.queued.is_empty()).then_some(now);
        let starts = starts.into_iter();
        starts
            .chain(self.deadlines.next())
            .chain(self.looks.next())
            .chain(self.quiet.deadline())
            .min()
    }

    /// Forgets apps that are no longer configured and have no processes left. Returns their names.
    pub(super) fn forget_removed(&mut self) -> Vec<Name> {
        let lives = |name: &Name| self.uninvited.values().any(|app| app == name);
        let gone = self.apps.iter();
        let gone = gone.filter(|(name, app)| app.is_gone() && !lives(name));
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.apps.remove(name);
            self.deadlines.set(name.clone(), None);
        }
        gone
    }

    /// An app is no longer configured.
    pub(super) fn remove<W>(&mut self, turn: &mut Turn<W>, name: &Name) {
        if let Some(app) = self.apps.get_mut(name)
            && !app.removed
        {
            app.removed = true;
            turn.queue_event(name, Event::Remove);
        }
    }

    /// No worker of this generation will be started any more.
    pub(super) fn retire(&mut self, name: &Name, generation: Generation) {
        if let Some(app) = self.apps.get_mut(name) {
            app.plans.remove(&generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_output_is_new_once_in_each_generation() {
        let mut workers = Workers::default();
        let name = Name::from("web");
        for generation in 1..3 {
            workers.configure(&name, generation, plan::App::example(1));
            let app = workers.apps.get_mut(&name).expect("it is configured");
            assert!(!app.has_said(Some("no such table")));
            assert!(app.has_said(Some("no such table")));
            assert!(!app.has_said(None));
            assert!(app.has_said(Some("no such table")));
            assert!(!app.has_said(Some("no such host")));
        }
    }
}
