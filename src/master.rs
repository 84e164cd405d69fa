//! The master: waits for events, passes them to the supervisors and the release, and performs their actions. It has the only
//! clock, one thread, and never communicates with clients of an app.
//!
//! Its parts own their state: `workers` the apps and their processes, `templates` the processes that fork workers, `jobs` the
//! processes that run once, `schedules` the apps that have one, `logs` the output, `control` the waiting clients of the control
//! socket, `init` the status of the init system, `watch` and `load` the times of the next checks, and `preparation` the candidate.
//! They meet in a turn of the loop.
//! All system calls are behind the trait `World`.

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use log::info;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::effects::config_check::Configuration;
use crate::effects::listen::Listeners;
use crate::effects::ready_fd::ReadyFd;
use crate::effects::signals::Signals;
use crate::guard::orphans::Orphans;
use crate::guard::waiting;
use crate::plan::Plan;
use crate::release::{Name, Release};
use crate::signals as vocabulary;

mod acme;
mod actions;
mod census;
mod certificates;
mod check_waits;
mod checks;
mod choices;
mod control;
mod deferred;
mod displacing;
mod earlier;
mod ends;
mod first_checks;
mod floods;
mod held;
mod ignored;
mod init;
mod jobs;
mod lasting;
mod later;
mod leftovers;
mod limit;
mod load;
mod logs;
mod messages;
mod metrics;
mod preparation;
mod preview;
mod proposal;
mod refusing;
mod repeated;
mod report;
mod rollout;
mod schedules;
mod selection;
mod signals;
#[cfg(test)]
mod simulation;
mod sites;
mod standing;
mod status;
mod stop_order;
mod system;
mod templates;
mod timers;
mod turn;
mod watch;
mod worker_ends;
mod workers;
mod world;

use acme::Keeper;
use census::Census;
use certificates::Certificates;
use checks::Checks;
use choices::Choices;
use control::{Control, Whole};
use deferred::Deferred;
use displacing::Displaced;
use earlier::Earlier;
use floods::Floods;
use held::Held;
use ignored::Ignored;
use init::Init;
use jobs::{Jobs, Task};
use leftovers::Leftovers;
use load::Loads;
use logs::Logs;
use metrics::Exporter;
use preparation::Preparation;
use repeated::Repeated;
use schedules::Schedules;
use stop_order::StopOrder;
use system::System;
use templates::Templates;
use turn::Turn;
use watch::Watch;
use worker_ends::is_known;
use workers::Workers;
use world::{Notice, Source, World};

/// The maximum number of workers started per turn, so that other events are not delayed.
const MAX_STARTS: usize = 32;

/// How the master ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped as requested.
    Stopped,
    /// The first generation could not start.
    CouldNotStart,
    /// An app with `then = "exit"` was given up.
    GaveUp,
}

/// The master process, in a world.
struct Master<W> {
    turn: Turn<W>,
    workers: Workers,
    templates: Templates,
    jobs: Jobs,
    schedules: Schedules,
    leftovers: Leftovers,
    logs: Logs,
    control: Control,
    choices: Choices,
    displaced: Displaced,
    earlier: Earlier,
    deferred: Deferred,
    init: Init,
    watch: Watch,
    checks: Checks,
    certificates: Certificates,
    keeper: Keeper,
    census: Census,
    exporter: Exporter,
    loads: Loads,
    ignored: Ignored,
    floods: Floods,
    held: Held,
    /// Apps with unread messages.
    unread: BTreeSet<Name>,
    /// Templates with unread replies.
    unread_templates: BTreeSet<Pid>,
    /// There are unreaped processes left.
    unreaped: bool,
    /// The apps that are told to end later than others.
    stop_order: StopOrder,
    /// When the stop begins that was asked for, while all apps go on serving.
    stops_at: Option<Instant>,
    repeated: Repeated,
    release: Release,
    preparation: Preparation,
    /// The committed configuration.
    current: Option<Plan>,
    /// Why the last reload failed; shown until one succeeds.
    refused: Option<String>,
    /// Whether that was about all apps.
    refused_whole: bool,
    outcome: Outcome,
}

/// Catches the signals of the master. Call it first: a HUP that arrives while the program still reads its configuration must
/// not kill it.
///
/// # Errors
/// No descriptor is available.
pub fn catch_signals() -> io::Result<Signals> {
    let numbers = vocabulary::TABLE.iter().map(|(signal, _)| *signal as i32);
    Signals::catch(numbers.chain([Signal::SIGCHLD as i32]))
}

/// Runs the checked `configuration` with `listeners`, until everything has ended after a stop. `ready_fd` is told when the
/// first generation is ready.
///
/// # Errors
/// A necessary resource is missing: descriptors, memory, the folder of the pid file. Or the poll fails permanently.
pub fn run(
    configuration: Configuration,
    plan: Plan,
    listeners: Listeners,
    signals: Signals,
    ready_fd: Option<ReadyFd>,
    earlier: (Vec<waiting::Earlier>, Orphans),
) -> io::Result<Outcome> {
    let system = System::new(configuration, &plan, listeners, signals, ready_fd, earlier)?;
    let mut master = Master::new(system, plan);
    loop {
        if let Some(outcome) = master.turn()? {
            master.turn.world.leave();
            return Ok(outcome);
        }
    }
}

impl<W: World> Master<W> {
    /// A master with a checked configuration.
    fn new(world: W, plan: Plan) -> Self {
        let now = world.now();
        let mut turn = Turn::new(world, now);
        let init = Init::new(&turn);
        let mut preparation = Preparation::default();
        let release = Release::new();
        preparation.begin_first(&mut turn, plan, release.next());
        Self {
            turn,
            workers: Workers::default(),
            templates: Templates::default(),
            leftovers: Leftovers::default(),
            jobs: Jobs::default(),
            schedules: Schedules::default(),
            logs: Logs::default(),
            control: Control::default(),
            choices: Choices::default(),
            displaced: Displaced::default(),
            earlier: Earlier::default(),
            deferred: Deferred::default(),
            init,
            watch: Watch::default(),
            checks: Checks::default(),
            certificates: Certificates::default(),
            keeper: Keeper::default(),
            census: Census::default(),
            exporter: Exporter::default(),
            loads: Loads::default(),
            ignored: Ignored::default(),
            floods: Floods::default(),
            held: Held::default(),
            unread: BTreeSet::new(),
            unread_templates: BTreeSet::new(),
            unreaped: false,
            stop_order: StopOrder::default(),
            stops_at: None,
            repeated: Repeated::default(),
            release,
            preparation,
            current: None,
            refused: None,
            refused_whole: false,
            outcome: Outcome::Stopped,
        }
    }

    /// One turn of the loop: does what is due, waits, and handles events. Returns the outcome when everything has ended.
    fn turn(&mut self) -> io::Result<Option<Outcome>> {
        self.settle();
        if self.has_ended() {
            info!("stopped");
            self.control.stop_ends(&mut self.turn);
            return Ok(Some(self.outcome));
        }
        let deadline = self.deadline();
        let sources = self.turn.world.wait(deadline)?;
        self.turn.now = self.turn.world.now();
        let by_event = !sources.is_empty() || self.has_unread();
        if by_event && self.floods.is_turning_too_often(self.turn.now) {
            self.turn.world.rest();
            self.turn.now = self.turn.world.now();
        }
        self.handle_events(sources);
        Ok(None)
    }

    /// Handles events.
    fn handle_events(&mut self, mut sources: BTreeSet<Source>) {
        sources.extend(self.unread.iter().cloned().map(Source::Messages));
        let templates = std::mem::take(&mut self.unread_templates);
        sources.extend(templates.into_iter().map(Source::Template));
        for source in sources {
            self.handle_source(source);
        }
        if self.handle_signals() || self.unreaped {
            self.unreaped = !self.reap();
        }
        let turn = &mut self.turn;
        self.floods.resume(turn);
        self.init.send_due(turn);
        self.jobs.end_overdue(turn);
        self.preparation.give_up_opening(turn);
        self.templates.kill_overdue(turn);
        let (children, templates, jobs) = (&self.workers.children, &self.templates, &self.jobs);
        self.leftovers
            .act(turn, &|pid| is_known(children, templates, jobs, pid));
        self.logs.replace_writers(turn);
        self.logs.resume(turn);
        self.watch.look(turn, &mut self.workers.children);
        self.checks
            .look(turn, &self.workers.children, &mut self.jobs);
        self.check_again();
        self.look_for_earlier();
        self.preparation.look_again(&mut self.turn, &mut self.jobs);
        let turn = &mut self.turn;
        self.certificates.look(turn, &mut self.jobs);
        self.keeper.look(turn, &mut self.jobs);
        self.exporter.look(turn, &mut self.jobs);
        self.loads.look(turn, &self.workers);
        self.ignored.look(turn, &self.workers);
        self.workers.adopt(turn);
        self.workers.look_for_quiet(turn);
        self.workers.queue_deadlines(turn);
        self.stop_in_time();
    }

    fn handle_source(&mut self, source: Source) {
        let turn = &mut self.turn;
        match source {
            // Signals are read in each turn: one that has interrupted the poll counts even if no event was queued for it.
            Source::Signals => {}
            Source::Messages(app) => self.read_messages(&app),
            Source::Template(pid) => {
                if let Some(key) = self.templates.key(pid).cloned() {
                    self.read_template(&key);
                }
            }
            Source::Launch(pid) => self.note_progress(pid),
            Source::Stderr(pid) => self.logs.read(turn, pid),
            Source::Clients => self.control.accept(turn),
            Source::Client(fd) => {
                if let Some((client, request)) = turn.world.request(fd) {
                    self.serve_client(client, &request);
                }
            }
            Source::Listener(address) => {
                if !self.ignored.connection_waits(turn, &address) {
                    self.loads.connection_waits(turn, &self.workers, &address);
                }
            }
            Source::Alarm => self.schedules.look(turn, &mut self.jobs),
            Source::LogFiles => self.preparation.opened(turn),
            // `wait` has done that.
            Source::ControlFile => {}
        }
    }

    /// Passes queued facts on and performs the resulting actions, until there are none.
    fn settle(&mut self) {
        let mut starts = MAX_STARTS;
        loop {
            self.dispatch();
            let (turn, templates) = (&mut self.turn, &mut self.templates);
            let started = self.workers.start_some(turn, templates, starts);
            starts -= started;
            if started == 0
                && !self.watch_rollout()
                && !self.restore_displaced()
                && !self.follow_ends()
                && !self.follow_tasks()
                && !self.stop_free()
            {
                break;
            }
        }
        self.refuse_requests();
        self.workers.tell_fronts(&mut self.turn);
        for address in std::mem::take(&mut self.workers.opened) {
            self.ignored.opened(&mut self.turn, &address);
        }
        self.refuse_clients();
        self.close_held();
        let stopping = self.is_stopping();
        self.control
            .answer_scaled(&mut self.turn, &self.workers, stopping);
        let whole = Whole {
            generation: self.release.current(),
            phase: self.phase(),
            refused: self.refused.as_deref(),
            stopped: self.stopped(),
            later: self.later(),
            schedules: &self.schedules,
            checks: &self.checks,
            census: &self.census,
            is_ready: self.takes_requests(),
            plan: self.current.as_ref(),
        };
        self.control.resume(&mut self.turn, &self.workers, &whole);
        let changed = self.update_status();
        if changed {
            let line = self.status_line();
            self.turn.world.notify_init(&Notice::Status(line));
        }
        self.note_phase(changed);
        self.write_census();
        self.control.tell_followers(&mut self.turn);
    }

    /// Passes all queued facts to supervisors and release, including those that result from their actions.
    fn dispatch(&mut self) {
        loop {
            while let Some((name, events)) = self.turn.next_events() {
                let actions = self.workers.handle(&name, events, self.turn.now);
                self.workers.prepare(&mut self.turn, &name, &actions);
                for action in actions {
                    self.perform(&name, action);
                }
            }
            if self.preparation.is_ready()
                && let Some(fact) = self.prepared()
            {
                self.turn.queue_fact(fact);
            }
            let Some(fact) = self.turn.next_fact() else {
                return;
            };
            for action in self.release.handle(fact) {
                self.perform_release(action);
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let has_ended = self.is_stopping()
            && self.workers.apps.values().all(|app| app.ended)
            && self.templates.is_empty()
            && self.jobs.all(|task| *task == Task::Metrics);
        if !(has_ended && self.leaves_nothing()) {
            return false;
        }
        // Until now it has told everybody that the master stops.
        self.exporter.stop(&mut self.turn, &mut self.jobs);
        self.jobs.all(|_| false) && self.logs.are_written(&mut self.turn)
    }

    /// Whether nothing that the workers have started is left. The whole stop takes no longer than the apps may take.
    fn leaves_nothing(&mut self) -> bool {
        let time = |app: &crate::plan::App| app.policy.graceful_timeout;
        let plans = self.current.iter();
        let chains = plans.filter_map(|plan| stop_order::longest(&plan.apps, time));
        let apps = self.current.iter().flat_map(Plan::all_apps);
        let times = apps.map(|(_, app)| time(app)).chain(chains);
        let whole = times.max().unwrap_or_default();
        let jobs = &self.jobs;
        self.leftovers
            .are_gone(&mut self.turn, whole, &|pid| jobs.is_job(pid))
    }

    fn deadline(&self) -> Option<Instant> {
        let now = self.turn.now;
        let at_once = self.has_unread().then_some(now);
        at_once
            .into_iter()
            .chain(self.workers.deadline(now))
            .chain(self.init.deadline())
            .chain(self.jobs.deadline())
            .chain(self.preparation.deadline())
            .chain(self.earlier.deadline())
            .chain(self.logs.deadline(&self.turn))
            .chain(self.control.deadline(now))
            .chain(self.watch.deadline())
            .chain(self.checks.deadline())
            .chain(self.certificates.deadline())
            .chain(self.keeper.deadline())
            .chain(self.exporter.deadline())
            .chain(self.stops_at)
            .chain(self.loads.deadline())
            .chain(self.ignored.deadline())
            .chain(self.templates.deadline())
            .chain(self.leftovers.deadline())
            .chain(self.floods.deadline())
            .min()
    }

    /// Whether the last turn has left something that can be read at once.
    fn has_unread(&self) -> bool {
        self.unreaped || !(self.unread.is_empty() && self.unread_templates.is_empty())
    }
}
