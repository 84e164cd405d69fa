//! The apps and their workers: which ones run, in which generation, which are to be started, and which to end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::Fork;

use super::report;
use super::templates::{Key, TemplateMessage, Templates};
use super::timers::Timers;
use super::turn::Turn;
use super::world::{Exit, Private, Role, Start, Target, World};
use crate::plan;
use crate::release::{Fact, Generation, Name};
use crate::supervisor::{Action, Event, Reason, Slot, Supervisor, WorkerId};
use crate::sys::Progress;

pub(super) mod children;

use children::{Child, Children};

/// An app: its supervisor, and how workers of each of its generations are started.
pub(super) struct App {
    pub(super) supervisor: Supervisor,
    pub(super) plans: BTreeMap<Generation, Rc<plan::App>>,
    /// It is no longer configured, and is forgotten when its last worker has ended.
    pub(super) removed: bool,
    /// All its workers have ended after a stop.
    pub(super) ended: bool,
}

/// The interval of checks whether a worker of a template has become the master's child, which takes milliseconds.
const ADOPTION_LOOK: Duration = Duration::from_millis(5);

/// The time in which a worker of a template must become the master's child.
const ADOPTION: Duration = Duration::from_secs(6);

/// The maximum number of replies of a template per turn, so that one that floods does not take all the time.
const MAX_REPLIES: usize = 256;

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
    /// The status has changed.
    pub(super) changed: bool,
    deadlines: Timers<Name>,
    /// The workers to start, in this order. A start takes a fraction of a millisecond, and other events must not wait for many.
    queue: VecDeque<Spawn>,
    /// Queued workers that are still wanted.
    queued: BTreeSet<(Name, WorkerId)>,
    /// Workers of templates that are not children of the master yet, and since when they are known.
    unadopted: BTreeMap<Pid, Instant>,
    /// When each of them is checked.
    looks: Timers<Pid>,
}

impl Workers {
    /// Gives an app a plan for a generation; creates the app if it is new.
    pub(super) fn configure(&mut self, name: &Name, generation: Generation, plan: plan::App) {
        let app = self.apps.entry(name.clone()).or_insert_with(|| App {
            supervisor: Supervisor::new(fastrand::u64(..)),
            plans: BTreeMap::new(),
            removed: false,
            ended: false,
        });
        app.removed = false;
        app.plans.insert(generation, Rc::new(plan));
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
            info!("app={name}: {wanted} workers wanted, because of its load");
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
            .min()
    }

    /// Forgets apps that are no longer configured and have no workers left. Returns their names.
    pub(super) fn forget_removed(&mut self) -> Vec<Name> {
        let gone = |app: &App| app.removed && app.supervisor.is_empty();
        let gone = self.apps.iter().filter(|(_, app)| gone(app));
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

    // Starting.

    /// Queues a worker to be started.
    pub(super) fn spawn(
        &mut self,
        app: &Name,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
    ) {
        self.queued.insert((app.clone(), worker));
        self.queue.push_back(Spawn {
            app: app.clone(),
            worker,
            slot,
            generation,
        });
    }

    /// Starts the next queued workers, up to a number. Returns how many.
    pub(super) fn start_some<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        most: usize,
    ) -> usize {
        let mut started = 0;
        while started < most
            && let Some(spawn) = self.queue.pop_front()
        {
            // Otherwise it was told to end before it was started.
            if self.queued.remove(&(spawn.app.clone(), spawn.worker)) {
                self.start(turn, templates, spawn);
                started += 1;
            }
        }
        started
    }

    fn start<W: World>(&mut self, turn: &mut Turn<W>, templates: &mut Templates, spawn: Spawn) {
        let Spawn {
            app,
            worker,
            slot,
            generation,
        } = spawn;
        let plans = self.apps.get(&app).map(|app| &app.plans);
        let Some(plan) = plans.and_then(|plans| plans.get(&generation)).cloned() else {
            error!(
                "app={app} worker={slot} gen={generation}: not started: the generation is unknown (this is a bug in preforkd)"
            );
            turn.queue_event(&app, Event::SpawnFailed(worker));
            return;
        };
        let record = turn.world.allocate(&app).inspect_err(|error| {
            warn!("app={app} worker={slot} gen={generation}: starting without a scoreboard record: {error}");
        });
        let child = Child {
            app,
            worker,
            slot,
            generation,
            record: record.ok(),
            adopted: !plan.template,
            plan,
            asked_for: turn.now,
            ready_at: None,
            stopping: false,
            retired: false,
            status_text: None,
            signalled: None,
        };
        if child.plan.template {
            self.start_from_template(turn, templates, child);
        } else {
            self.start_alone(turn, child);
        }
    }

    fn start_alone<W: World>(&mut self, turn: &mut Turn<W>, child: Child) {
        let own = child.plan.output.taken_over;
        let started = turn.world.start(&Start {
            app: &child.app,
            plan: &child.plan,
            launch: &child.plan.launch,
            role: Role::Worker(child.slot, child.record),
            generation: child.generation,
            // A program that never closes the pipe is read only if its last output would end a release.
            captured: own || self.is_first(child.generation),
            private: self.private(&child, !own),
        });
        match started {
            Ok(pid) => {
                debug!("{}: started", report::Tag(&child, pid));
                self.children.insert(pid, child);
            }
            Err(error) => self.refused(turn, child, "start a worker", &error),
        }
    }

    fn start_from_template<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        child: Child,
    ) {
        let key = (child.app.clone(), child.generation);
        let private = self.private(&child, false);
        if let Err(error) = templates.ensure(turn, &key, &child.plan, private) {
            return self.refused(turn, child, "start a template", &error);
        }
        let order = Fork {
            ticket: child.worker.0,
            slot: child.slot,
            record: child.record,
        };
        self.children.expect(child);
        templates.request(turn, &key, order);
    }

    fn refused<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        child: Child,
        what: &str,
        error: &std::io::Error,
    ) {
        let Child { app, slot, .. } = &child;
        error!("app={app} worker={slot}: cannot {what}: {error}; retrying");
        release(turn, &child);
        turn.queue_event(&child.app, Event::Refused(child.worker));
    }

    /// Whether a worker of this generation has to prove it.
    fn is_first(&self, generation: Generation) -> bool {
        self.candidate == Some(generation)
    }

    /// The private listener that a process gets. A program knows it by its number among the listeners, so each of its workers
    /// has one.
    fn private(&self, child: &Child, always: bool) -> Private {
        if child.plan.check.is_none() {
            Private::None
        } else if self.serving && self.is_first(child.generation) {
            Private::Probed
        } else if always {
            Private::Unused
        } else {
            Private::None
        }
    }

    /// Handles progress of a process before its program runs. Returns false if it is not a worker.
    pub(super) fn progressed<W>(
        &mut self,
        turn: &mut Turn<W>,
        pid: Pid,
        progress: &Progress,
    ) -> bool {
        let Some(child) = self.children.get(pid) else {
            return false;
        };
        match progress {
            Progress::Failed(stage, reason) => {
                let stage = report::stage(*stage);
                error!("{}: failed at {stage}: {reason}", report::Tag(child, pid));
            }
            Progress::Executed => turn.queue_event(&child.app, Event::Executed(child.worker)),
            Progress::Pending => {}
        }
        true
    }

    // Templates.

    /// Handles messages of a template and of the workers that it has forked. Returns false if there may be more.
    pub(super) fn read_template<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
    ) -> bool {
        for _ in 0..MAX_REPLIES {
            let Some(said) = templates.receive(turn, key) else {
                return true;
            };
            let name = &key.0;
            match said {
                TemplateMessage::Loaded(pid) => {
                    info!(
                        "app={name} template gen={} pid={pid}: application loaded",
                        key.1
                    );
                    // Its output while it was loading does not explain a later failure.
                    turn.world.last_output(pid);
                }
                TemplateMessage::Forked(ticket, pid) => {
                    self.arrived(turn, templates, name, WorkerId(ticket), pid);
                }
                TemplateMessage::Failed(ticket, reason) => {
                    error!(
                        "{}: cannot fork a worker: {reason}; retrying",
                        templates.tag(key)
                    );
                    self.not_started(turn, name, Event::Refused(WorkerId(ticket)));
                }
                TemplateMessage::Lost(tickets, reason) => {
                    let what = format!("cannot fork {}: {reason}", report::workers(tickets.len()));
                    error!("{}: {what}", templates.tag(key));
                    note_reason(turn, key, &what);
                    for ticket in tickets {
                        self.not_started(turn, name, Event::SpawnFailed(WorkerId(ticket)));
                    }
                }
            }
        }
        false
    }

    fn arrived<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &Templates,
        name: &Name,
        worker: WorkerId,
        pid: Pid,
    ) {
        if self.children.get(pid).is_some() || templates.is_template(pid) {
            // It is another process of the table already, so the message is forged.
            return;
        }
        self.children.arrived(name, worker, pid);
        if self.children.get(pid).is_some() {
            turn.queue_event(name, Event::Executed(worker));
        }
        self.unadopted.insert(pid, turn.now);
        self.looks.set(pid, Some(turn.now));
        self.adopt(turn);
    }

    /// Checks whether workers that were forked by templates have become children of the master, and sends them the signals that
    /// they have missed; one that arrives after it was given up is killed. Before that a signal might reach another process with a
    /// reused pid.
    pub(super) fn adopt<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.looks.take_due(turn.now) {
            let since = self.unadopted.get(&pid).copied();
            let Some(since) = since.filter(|_| !self.is_adopted(turn, pid)) else {
                continue;
            };
            if turn.now.saturating_duration_since(since) < ADOPTION {
                self.looks.set(pid, Some(turn.now + ADOPTION_LOOK));
            } else {
                self.disown(turn, pid);
            }
        }
    }

    /// Whether a worker is a child of the master by now. Its messages count only then.
    pub(super) fn is_adopted<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) -> bool {
        if self.unadopted.contains_key(&pid) {
            if !turn.world.is_child(pid) {
                return false;
            }
            self.forget(pid);
            let missed = self.adopted(pid);
            missed
                .into_iter()
                .for_each(|signal| send(turn, pid, signal));
        }
        true
    }

    /// A process that a template has forked is the master's child. Returns the signal to send now.
    fn adopted(&mut self, pid: Pid) -> Option<Signal> {
        let Some(child) = self.children.get_mut(pid) else {
            return Some(Signal::SIGKILL);
        };
        child.adopted = true;
        debug!("{}: forked from the template", report::Tag(child, pid));
        child.signalled.map(|(signal, _)| signal)
    }

    /// A process that was not a worker was reaped.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.unadopted.remove(&pid);
        self.looks.set(pid, None);
    }

    /// A process has introduced itself as a worker, but is not a child of the master.
    fn disown<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) {
        self.unadopted.remove(&pid);
        if let Some(child) = self.remove_child(turn, pid) {
            error!(
                "{}: rejected, because it is not a child of the master",
                report::Tag(&child, pid)
            );
            turn.queue_event(&child.app, Event::SpawnFailed(child.worker));
        }
    }

    /// An expected worker will not arrive; the event is the reason.
    fn not_started<W: World>(&mut self, turn: &mut Turn<W>, name: &Name, event: Event) {
        if let Event::Refused(worker) | Event::SpawnFailed(worker) | Event::Exited(worker) = event
            && let Some(child) = self.children.give_up(name, worker)
        {
            release(turn, &child);
            turn.queue_event(name, event);
        }
    }

    /// Ends a template after handling all its messages. No one waits for its import any more.
    pub(super) fn end_template<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
    ) {
        self.read_rest(turn, templates, key);
        for ticket in templates.end(turn, key) {
            self.not_started(turn, &key.0, Event::SpawnFailed(WorkerId(ticket)));
        }
    }

    /// A template has ended on its own.
    pub(super) fn template_ended<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
        exit: Exit,
        output: Option<&str>,
    ) {
        self.read_rest(turn, templates, key);
        let when = match templates.is_loaded(key) {
            true => "",
            false => ", before the application was loaded",
        };
        let death = format!("{exit}{when}{}", report::last_output(output));
        error!("{}: {death}", templates.tag(key));
        note_reason(turn, key, &death);
        for ticket in templates.remove(turn, key) {
            self.not_started(turn, &key.0, Event::SpawnFailed(WorkerId(ticket)));
        }
    }

    /// Handles all messages of a template, and allows no further ones: no worker may run that is not in the table.
    fn read_rest<W: World>(&mut self, turn: &mut Turn<W>, templates: &mut Templates, key: &Key) {
        templates.shut_down(turn, key);
        while !self.read_template(turn, templates, key) {}
    }

    // Ending.

    /// A process was reaped. Returns its worker.
    pub(super) fn remove_child<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) -> Option<Child> {
        let child = self.children.remove(pid)?;
        self.forget(pid);
        release(turn, &child);
        Some(child)
    }

    /// Sends a signal to a worker. For one that has not arrived yet, decides what happens to its template.
    pub(super) fn signal<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        name: &Name,
        worker: WorkerId,
        (signal, reason): (Signal, Reason),
    ) {
        if self.queued.remove(&(name.clone(), worker)) {
            turn.queue_event(name, Event::Exited(worker));
        } else if let Some(pid) = self.children.pid(name, worker) {
            self.signal_process(turn, pid, signal, reason);
        } else if let Some(child) = self.children.expected(name, worker) {
            child.signalled = Some((signal, reason));
            let key = (name.clone(), child.generation);
            self.signal_expected(turn, templates, &key, worker, (signal, reason));
        }
    }

    fn signal_process<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        pid: Pid,
        signal: Signal,
        reason: Reason,
    ) {
        let Some(child) = self.children.get_mut(pid) else {
            return;
        };
        if signal == Signal::SIGTERM && self.serving {
            leave_queue_to_others(turn, child, reason);
        }
        // When it dies, the log gives the reason of the SIGABRT.
        let first = match (reason, child.signalled) {
            (Reason::AbortGrace, Some((_, first))) => first,
            _ => reason,
        };
        child.signalled = Some((signal, first));
        let (tag, why) = (report::Tag(child, pid), report::reason(reason));
        match signal {
            Signal::SIGTERM => debug!("{tag}: sending {signal} ({why})"),
            _ => warn!("{tag}: sending {signal} ({why})"),
        }
        if child.adopted {
            send(turn, pid, signal);
        }
    }

    fn signal_expected<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
        worker: WorkerId,
        (signal, reason): (Signal, Reason),
    ) {
        let why = report::reason(reason);
        if signal == Signal::SIGTERM && templates.cancel(key, worker.0) {
            self.not_started(turn, &key.0, Event::Exited(worker));
            if templates.is_idle(key) && !templates.is_loaded(key) {
                self.end_template(turn, templates, key);
            }
        } else if let Some(pid) = templates.pid(key).filter(|_| !templates.is_loaded(key)) {
            // The import of the application keeps the worker from starting.
            warn!("{}: sending {signal} ({why})", templates.tag(key));
            send(turn, pid, signal);
        } else if signal != Signal::SIGTERM && templates.pid(key).is_some() {
            // It was or should have been forked and has not introduced itself: a hook that the application runs at a fork has
            // killed it, or blocks and may hold up the template.
            let what = format!(
                "forked no worker in time ({why}): a hook that the application registered with os.register_at_fork() may fail or block"
            );
            error!("{}: {what}; ending the template", templates.tag(key));
            note_reason(turn, key, &what);
            self.end_template(turn, templates, key);
        }
    }
}

/// Notes that a template is the reason why a release fails.
fn note_reason<W>(turn: &mut Turn<W>, key: &Key, what: &str) {
    turn.queue_fact(Fact::Reason(
        key.0.clone(),
        key.1,
        format!("its template {what}"),
    ));
}

/// Releases a worker's scoreboard record.
pub(super) fn release<W: World>(turn: &mut Turn<W>, child: &Child) {
    if let Some(record) = child.record {
        turn.world.release(&child.app, record);
    }
}

/// Signals a process of the table. KILL goes to the whole session: no process that the worker started may keep the listeners open.
pub(super) fn send<W: World>(turn: &mut Turn<W>, pid: Pid, signal: Signal) {
    let target = match signal {
        Signal::SIGKILL => Target::Session,
        _ => Target::Process,
    };
    turn.world.signal(pid, signal, target);
}

/// Tells a worker that is to end whether it must empty the accept queues: not if others accept from them.
fn leave_queue_to_others<W: World>(turn: &mut Turn<W>, child: &Child, reason: Reason) {
    let others = matches!(
        reason,
        Reason::Replaced | Reason::Recycled | Reason::ScaledDown | Reason::RolledBack
    );
    let mut sockets = child.plan.sockets.iter();
    if let Some(record) = child.record.filter(|_| others)
        && sockets.all(|(_, at)| turn.world.accept_queue(at).is_some())
        && let Err(error) = turn.world.succeed(&child.app, record)
    {
        debug!(
            "cannot write record {record} of the scoreboard of {}: {error}",
            child.app
        );
    }
}
