//! The real loop in a simulated world: forks fail, exits come in any order and their signals merge, messages are late or lost,
//! process ids are reused at once, configurations, checks, commands and templates fail or hang, and the master itself is suspended
//! for a while. Whatever happens, the promises hold after every turn.
//!
//! A failed history prints its steps, which proptest has minimised; known ones are kept as tests below.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::Reply;
use proptest::prelude::*;

mod disk;
mod kernel;
mod one_app;
mod renamed;
mod schedules;
mod world;

use super::world::{Arrived, ClientId, Notice, Sender, Source, World};
use super::{Master, Outcome};
use crate::release::{self, Name, State};
use crate::supervisor::{Replace, Restart};
use disk::{Code, Disk, End, NAMES, Periodic, Written};
use kernel::{Due, Kernel, Kind, Process};
use one_app::Orders;

#[derive(Debug, Clone)]
enum Step {
    /// An app is added to the configuration, changed, or removed.
    Write(usize, Option<Written>),
    /// A syntax error is made, or corrected.
    Spoil(bool),
    /// The app with a schedule is added, changed, or removed.
    Schedule(Option<Periodic>),
    /// Somebody sets the clock by so many seconds.
    SetClock(i64),
    /// The machine sleeps for so many seconds.
    Sleep(u64),
    /// The master gets a signal: HUP, TTIN, TTOU, WINCH, USR1.
    Signal(Signal),
    /// A client of the control socket sends a request.
    Request(&'static str),
    /// A process chosen by the number dies on its own.
    Crash(usize),
    /// A worker reports that it ends, and does so later.
    Leaves(usize),
    /// A worker asks to be replaced.
    Retires(usize),
    /// A worker begins a request that never ends.
    Hangs(usize),
    /// A process that is not a worker sends READY=1.
    UnknownProcess(usize),
    /// A process with a template's socket claims to be the worker of this ticket.
    Forges(usize, u64),
    /// The next forks fail, this many.
    NoForks(u32),
    /// Whether opening a listener fails from now on.
    NoListeners(bool),
    /// Messages from now on are delayed by so many milliseconds; `None`: lost.
    MessageDelay(Option<u64>),
    /// Time passes while the master runs.
    Pass(u64),
    /// Time passes while the master is suspended.
    Stopped(u64),
}

/// A master in its world, and the promises to check.
struct History {
    master: Master<Kernel>,
    outcome: Option<Outcome>,
    /// The minimum number of ready workers of an app: the number wanted when it last settled, unless there was a fault since, or
    /// another number was requested.
    floors: BTreeMap<Name, u32>,
    /// The apps whose replacements the backoff delayed at the last turn, and until when.
    waited: BTreeMap<Name, Instant>,
    /// The generations that served each app before the current release.
    serving: BTreeMap<Name, BTreeSet<u64>>,
    orders: Orders,
    /// The apps that come before each app, as they were when the stop began; without those that are paused.
    order: BTreeMap<String, BTreeSet<String>>,
    /// The master was told to hurry.
    urgent: bool,
}

impl History {
    fn new(apps: &[(&'static str, Written)]) -> Self {
        let apps = apps.iter().copied().collect();
        Self::with(Disk {
            apps,
            periodic: None,
            spoilt: false,
        })
    }

    fn with(disk: Disk) -> Self {
        let plan = disk.plan().expect("it is good");
        let plan = plan.only(|_, app| app.enabled);
        let mut kernel = Kernel::new(disk);
        kernel
            .open_listeners(&plan.listeners, 1)
            .expect("nothing is open");
        let mut history = Self {
            master: Master::new(kernel, plan),
            outcome: None,
            floors: BTreeMap::new(),
            waited: BTreeMap::new(),
            serving: BTreeMap::new(),
            orders: Orders::default(),
            order: BTreeMap::new(),
            urgent: false,
        };
        history.pass(0);
        history
    }

    fn kernel(&mut self) -> &mut Kernel {
        &mut self.master.turn.world
    }

    fn turn(&mut self) {
        let now = self.kernel().now;
        // A worker that is started in this turn may have been decided on in the last one.
        let waits = self.waits(now);
        let waited = std::mem::replace(&mut self.waited, waits.clone());
        let held =
            |(name, at): (Name, Instant)| (waited.get(&name) == Some(&at)).then_some((name, at));
        let waits = waits.into_iter().filter_map(held).collect();
        self.kernel().started.clear();
        self.note_order();
        self.outcome = self
            .master
            .turn()
            .expect("the simulated poll does not fail");
        self.check(&waits);
    }

    /// The apps whose replacements the backoff delays, and until when.
    fn waits(&self, now: Instant) -> BTreeMap<Name, Instant> {
        let apps = self.master.workers.apps.iter();
        let waits = apps.filter_map(|(name, app)| {
            let at = app.supervisor.retry_at().filter(|at| *at > now);
            Some((name.clone(), at?))
        });
        waits.collect()
    }

    fn check(&mut self, waits: &BTreeMap<Name, Instant>) {
        self.check_stopped();
        let kernel = &self.master.turn.world;
        let current = self.master.release.current();
        for (app, generation) in &kernel.started {
            let supervisor = &self.master.workers.apps[app].supervisor;
            // A permitted start, or a worker that has stayed up, changes the delay of the others.
            let held = waits
                .get(app)
                .is_some_and(|at| supervisor.retry_at() == Some(*at));
            let held = held && Some(*generation) == current;
            assert!(!held, "no fork comes before the backoff allows it");
        }
        self.check_alone();
        let living = || {
            kernel
                .processes
                .values()
                .filter(|process| process.dead.is_none())
        };
        let slots: Vec<_> = living().filter_map(slot).collect();
        let distinct: BTreeSet<_> = slots.iter().collect();
        assert_eq!(
            distinct.len(),
            slots.len(),
            "no slot is given twice: {slots:?}"
        );
        let state = self.master.release.state();
        if *state == State::Stopped {
            return self.check_stop_order();
        }
        for name in self.master.workers.apps.keys() {
            let untold = living()
                .filter(|p| p.app == *name && !p.signalled && !p.leaves && slot(p).is_some());
            let serving: BTreeSet<_> = untold.map(|process| process.generation).collect();
            // An app may continue with an older generation than the others.
            let own = self.master.workers.apps[name].supervisor.generation();
            // A release after one in trouble does not wait until that has no older workers.
            let before = self.serving.entry(name.clone()).or_default();
            match state {
                State::RollingOut { .. } => {}
                // Workers of the running generation may also start while the next one is proven.
                State::Proving { .. } => before.extend(own),
                _ => before.clone_from(&serving),
            }
            let new = [current, self.master.release.candidate(), own];
            let known =
                |generation: &u64| before.contains(generation) || new.contains(&Some(*generation));
            assert!(
                serving.iter().all(known),
                "{name}: {serving:?} serve, and before the release {before:?} did"
            );
        }
        self.check_floors();
    }

    fn note_order(&mut self) {
        if self.master.is_stopping() {
            return;
        }
        let plan = self.master.plan();
        let apps = plan.into_iter().flat_map(|plan| &plan.apps);
        let workers = &self.master.workers.apps;
        let serves = |name: &&String| {
            let app = workers.get(name.as_str());
            app.is_some_and(|app| !app.removed && !app.supervisor.is_paused())
        };
        let order = apps.map(|(name, app)| {
            let before = app.after.iter().filter(serves).cloned();
            (name.clone(), before.collect())
        });
        self.order = order.collect();
    }

    /// At a graceful stop, no app is told to end while an app that comes after it has a process.
    fn check_stop_order(&self) {
        if self.urgent {
            return;
        }
        let processes = || {
            let all = self.master.turn.world.processes.values();
            all.filter(|p| p.dead.is_none() && !matches!(p.kind, Kind::Job(_)))
        };
        for (then, before) in &self.order {
            let lives = processes().any(|process| *process.app == **then);
            for first in before.iter().filter(|_| lives) {
                let serves = processes().any(|p| *p.app == **first && slot(p).is_some());
                // One that only the candidate has is rolled back, and serves nobody.
                let app = self.master.workers.apps.get(first.as_str());
                let runs = app.is_some_and(|app| app.supervisor.generation().is_some());
                let waits = self.master.stop_order.has(first);
                assert!(
                    waits || !serves || !runs,
                    "{first} was told before {then} has ended: {:?}",
                    self.master.turn.world.processes
                );
            }
        }
    }

    /// A worker that must be alone was started when there were fewer than wanted, with all that earlier ones have started.
    fn check_alone(&self) {
        let kernel = &self.master.turn.world;
        for (name, generation) in &kernel.started {
            let supervisor = &self.master.workers.apps[name].supervisor;
            if !supervisor.stops_first() {
                continue;
            }
            let processes = || kernel.processes.values().filter(|p| p.app == *name);
            // A canary whose own definition starts first may start beside them.
            let mut own = processes().filter(|p| p.generation == *generation);
            if supervisor.generation() != Some(*generation) && own.all(|p| !p.alone) {
                continue;
            }
            let living: Vec<_> = processes()
                .filter(|p| {
                    // A canary of a definition that starts first is not waited for when that is rolled back.
                    let counts = slot(p).is_some() && p.alone || matches!(p.kind, Kind::Rest(_));
                    p.dead.is_none() && counts
                })
                .collect();
            let wanted = supervisor.counts().wanted as usize;
            assert!(living.len() <= wanted, "{name}: {living:?}");
            let mut others = living.iter();
            let same = others.all(|process| process.generation == *generation);
            assert!(same, "{name}: {living:?}");
        }
    }

    fn check_floors(&mut self) {
        // The current release may still reduce the number.
        let kernel = &self.master.turn.world;
        let quiet = kernel.idle && kernel.is_quiet();
        self.floors.retain(|name, _| {
            let app = self.master.workers.apps.get(name);
            app.is_some_and(|app| !app.removed)
        });
        for (name, app) in self.master.workers.configured() {
            let counts = app.supervisor.counts();
            // A pause during the first start begins when it is over.
            // A worker that is the only one, and whose repeated check fails, is aborted; such an app may be there without proof.
            let mut plans = app.plans.values();
            let may_abort = plans.any(|plan| !plan.required && plan.check.is_some());
            if app.supervisor.stops_first() || app.supervisor.is_paused() || may_abort {
                self.floors.remove(name);
                continue;
            }
            if let Some(floor) = self.floors.get_mut(name) {
                *floor = counts.wanted.min(*floor);
                assert!(
                    counts.ready >= *floor,
                    "{name}: {} of {floor} are ready",
                    counts.ready
                );
            }
            if app.supervisor.is_settled() && quiet {
                let done = counts.finished + counts.failed;
                let running = counts.wanted.saturating_sub(done);
                self.floors.insert(name.clone(), running);
            }
        }
    }

    /// Time passes.
    fn pass(&mut self, milliseconds: u64) {
        let until = self.kernel().now + Duration::from_millis(milliseconds);
        self.kernel().until = until;
        self.kernel().spins = 0;
        while self.outcome.is_none() {
            self.turn();
            if self.kernel().idle && self.outcome.is_none() {
                return;
            }
        }
    }

    fn nth(&mut self, n: usize) -> Option<Pid> {
        let processes = self.kernel().processes.iter();
        let living = processes.filter(|(_, process)| process.dead.is_none());
        living.map(|(&pid, _)| pid).nth(n)
    }

    /// A living worker.
    fn worker(&mut self, n: usize) -> Option<(Pid, Name)> {
        let processes = self.kernel().processes.iter();
        let workers =
            processes.filter(|(_, process)| process.dead.is_none() && slot(process).is_some());
        workers
            .map(|(&pid, process)| (pid, process.app.clone()))
            .nth(n)
    }

    fn send(&mut self, signal: Signal) {
        self.send_from(signal, Sender::Process(1));
    }

    fn send_from(&mut self, signal: Signal, sender: Sender) {
        let number = signal as i32;
        let kernel = self.kernel();
        kernel.signals.push(Arrived { number, sender });
        kernel.sources.insert(Source::Signals);
    }

    fn order(&mut self, order: &str) {
        let kernel = self.kernel();
        let number = kernel.asked as i32;
        kernel.asked += 1;
        let client = ClientId::example(number);
        kernel.requests.insert(number, (client, order.to_owned()));
        kernel.sources.insert(Source::Client(number));
        self.orders.sent(number, order);
    }

    fn take(&mut self, step: &Step) {
        let harmless = matches!(
            step,
            Step::Pass(_)
                | Step::Write(..)
                | Step::Spoil(_)
                | Step::Schedule(_)
                | Step::SetClock(_)
                | Step::Sleep(_)
                | Step::Signal(Signal::SIGHUP | Signal::SIGUSR1)
                | Step::Request("status" | "reload" | "reopen")
                | Step::Retires(_)
                | Step::UnknownProcess(_)
                | Step::NoListeners(_)
        );
        if !harmless {
            self.floors.clear();
        }
        match *step {
            Step::Write(n, written) => {
                let apps = &mut self.kernel().disk.apps;
                match written {
                    Some(written) => drop(apps.insert(NAMES[n], written)),
                    None if apps.len() > 1 => drop(apps.remove(NAMES[n])),
                    None => {}
                }
            }
            Step::Schedule(periodic) => self.kernel().disk.periodic = periodic,
            Step::SetClock(seconds) => {
                let by = SignedDuration::from_secs(seconds);
                self.kernel().set_clock(by);
            }
            Step::Sleep(seconds) => {
                self.kernel().slept += Duration::from_secs(seconds);
                self.kernel().ring();
            }
            Step::Spoil(spoilt) => self.kernel().disk.spoilt = spoilt,
            Step::Signal(signal) => self.send(signal),
            Step::Request(order) => self.order(order),
            Step::Crash(n) => {
                if let Some(pid) = self.nth(n) {
                    self.kernel().end(pid, false);
                }
            }
            Step::Leaves(n) => {
                if let Some((pid, _)) = self.worker(n) {
                    let process = self.kernel().processes.get_mut(&pid);
                    process.expect("it lives").leaves = true;
                    self.kernel().send_after(0, pid, "STOPPING=1");
                    self.kernel().after(300, Due::Ends(pid, true));
                }
            }
            Step::Retires(n) => {
                if let Some((pid, app)) = self.worker(n) {
                    self.kernel()
                        .send_message(&app, pid, "RETIRE=it is too old");
                }
            }
            Step::Hangs(n) => {
                if let Some((pid, app)) = self.worker(n) {
                    self.hang(pid, &app);
                }
            }
            Step::UnknownProcess(n) => {
                let app = Name::from(NAMES[n % NAMES.len()]);
                self.kernel()
                    .send_message(&app, Pid::from_raw(7), "READY=1");
            }
            Step::Forges(n, ticket) => {
                let templates: Vec<_> = self.kernel().replies.keys().copied().collect();
                if let Some(template) = templates.get(n) {
                    let reply = Reply::Forked { ticket };
                    self.kernel().reply(*template, Pid::from_raw(7), reply);
                }
            }
            Step::NoForks(number) => self.kernel().failing_forks = number,
            Step::NoListeners(refuses) => self.kernel().refuses_listeners = refuses,
            Step::MessageDelay(delay) => self.kernel().delay = delay,
            Step::Pass(milliseconds) => self.pass(milliseconds),
            Step::Stopped(milliseconds) => {
                let to = self.kernel().now + Duration::from_millis(milliseconds);
                return self.kernel().advance(to);
            }
        }
        self.pass(0);
    }

    fn hang(&mut self, pid: Pid, app: &Name) {
        let since = self.kernel().nanoseconds();
        let Some(process) = self
            .kernel()
            .processes
            .get_mut(&pid)
            .filter(|process| process.ready)
        else {
            return;
        };
        process.busy_since = Some(since);
        if std::mem::take(&mut process.marked) {
            self.kernel().send_message(app, pid, "BUSY=1");
        }
    }

    /// From now on there are no faults.
    fn stop_faults(&mut self) {
        let kernel = self.kernel();
        kernel.failing_forks = 0;
        kernel.refuses_listeners = false;
        kernel.delay = Some(0);
        kernel.disk.spoilt = false;
        kernel.disk.periodic = None;
        for written in kernel.disk.apps.values_mut() {
            written.code = Code::Good;
            written.enabled = true;
            written.check = written.check.map(|_| End::Well);
            written.before = written.before.map(|_| End::Well);
        }
    }
}

/// The worker that a process is, if it is one.
fn slot(process: &Process) -> Option<(Name, u64, u32)> {
    match process.kind {
        Kind::Worker { slot, .. } => Some((process.app.clone(), process.generation, slot)),
        _ => None,
    }
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Well),
        1 => Just(End::Badly),
        1 => Just(End::Hangs),
        1 => Just(End::IgnoresSignals),
    ]
}

fn written() -> impl Strategy<Value = Written> {
    let code = prop_oneof![
        4 => Just(Code::Good),
        1 => Just(Code::Broken),
        1 => Just(Code::NeverReady),
        1 => Just(Code::IgnoresSignals),
    ];
    let rare = || prop::option::weighted(0.2, end());
    let part = (prop::bool::weighted(0.7), any::<bool>());
    let reloads = (prop::bool::weighted(0.9), prop::bool::weighted(0.3));
    let kind = prop_oneof![
        6 => Just((Replace::StartFirst, Restart::Always)),
        2 => Just((Replace::StopFirst, Restart::Always)),
        1 => Just((Replace::StartFirst, Restart::OnFailure)),
        1 => Just((Replace::StopFirst, Restart::Never)),
    ];
    let all = (
        code,
        1..6u32,
        any::<bool>(),
        rare(),
        rare(),
        0..3u8,
        (kind, part, reloads),
    );
    all.prop_map(
        |(
            code,
            workers,
            template,
            check,
            before,
            listeners,
            ((replace, restart), (required, ordered), (enabled, on_change)),
        )| Written {
            code,
            workers,
            // Only programs may be alone or end.
            template: template && (replace, restart) == (Replace::StartFirst, Restart::Always),
            check,
            before,
            listeners,
            required,
            ordered,
            replace,
            restart,
            enabled,
            on_change,
        },
    )
}

fn periodic() -> impl Strategy<Value = Periodic> {
    let cron = prop_oneof![
        Just("*/7 * * * * *"),
        Just("*/2 * * * *"),
        Just("30 1 * * *")
    ];
    let timeout = (1..60u64).prop_map(|seconds| Some(Duration::from_secs(seconds)));
    let enabled = prop::bool::weighted(0.8);
    let all = (cron, end(), timeout, enabled);
    all.prop_map(|(cron, end, timeout, enabled)| Periodic {
        cron,
        end,
        timeout,
        enabled,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let signal = prop_oneof![
        3 => Just(Signal::SIGHUP),
        1 => Just(Signal::SIGTTIN),
        1 => Just(Signal::SIGTTOU),
        1 => Just(Signal::SIGWINCH),
        1 => Just(Signal::SIGUSR1),
    ];
    let order = prop_oneof![
        Just("status"),
        Just("reload"),
        Just("reopen"),
        Just("scale web=+1"),
        Just("scale queue=2"),
        Just("dance"),
        Just("reload web"),
        Just("reload queue web"),
        Just("reload none"),
        Just("stop web"),
        Just("stop queue api"),
        Just("start web"),
        Just("start queue web"),
        Just("restart web"),
        Just("restart api queue"),
        Just("reload periodic"),
        Just("stop periodic"),
        Just("start periodic"),
        Just("restart periodic web"),
    ];
    prop_oneof![
        4 => (0..3usize, prop::option::weighted(0.8, written())).prop_map(|(n, written)| Step::Write(n, written)),
        1 => any::<bool>().prop_map(Step::Spoil),
        2 => prop::option::weighted(0.8, periodic()).prop_map(Step::Schedule),
        1 => (-20_000..20_000i64).prop_map(Step::SetClock),
        1 => (0..20_000u64).prop_map(Step::Sleep),
        6 => signal.prop_map(Step::Signal),
        4 => order.prop_map(Step::Request),
        3 => (0..12usize).prop_map(Step::Crash),
        1 => (0..8usize).prop_map(Step::Leaves),
        1 => (0..8usize).prop_map(Step::Retires),
        1 => (0..8usize).prop_map(Step::Hangs),
        1 => (0..3usize).prop_map(Step::UnknownProcess),
        1 => (0..3usize, 0..12u64).prop_map(|(n, ticket)| Step::Forges(n, ticket)),
        1 => (0..6u32).prop_map(Step::NoForks),
        1 => any::<bool>().prop_map(Step::NoListeners),
        1 => prop::option::of(0..500u64).prop_map(Step::MessageDelay),
        4 => (0..400u64).prop_map(Step::Pass),
        2 => (0..20_000u64).prop_map(Step::Pass),
        2 => (0..9000u64).prop_map(Step::Stopped),
    ]
}

/// The number of histories is PREFORKD_HISTORIES; by default it is small.
fn config() -> ProptestConfig {
    let cases = std::env::var("PREFORKD_HISTORIES").ok();
    let cases = cases.and_then(|number| number.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(1000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn run_steps(steps: &[Step]) -> History {
    let mut history = History::new(&[("queue", Written::good(1)), ("web", Written::good(2))]);
    for step in steps {
        history.take(step);
        if history.outcome.is_some() {
            break;
        }
    }
    history
}

/// A history, then a world without faults and a last reload: every app must have all its wanted workers, of that reload.
fn run_and_settle(steps: &[Step]) {
    let mut history = run_steps(steps);
    history.stop_faults();
    if history.outcome.is_none() {
        for order in ["start api", "start queue", "start web", "reload"] {
            history.take(&Step::Request(order));
            history.pass(600_000);
        }
    }
    if history.outcome == Some(Outcome::CouldNotStart) {
        // A fault came before anything was ready.
        return;
    }
    // A worker may just be recycled for its age.
    for _ in 0..40 {
        let mut apps = history.master.workers.apps.values();
        if apps.all(|app| app.supervisor.is_settled()) && history.kernel().is_quiet() {
            break;
        }
        history.pass(500);
    }
    let Master {
        workers,
        release,
        turn,
        jobs,
        ..
    } = &history.master;
    let kernel = &turn.world;
    assert_eq!(*release.state(), State::Idle, "every release has ended");
    let generation = release.current().expect("something runs");
    assert_eq!(release.outcome(), Some(&release::Outcome::Done(generation)));
    assert!(jobs.is_empty());
    let configured: BTreeSet<_> = workers.apps.keys().map(|name| &**name).collect();
    assert_eq!(configured, kernel.disk.apps.keys().copied().collect());
    let (mut wanted, mut templates, mut kept) = (0, 0, 0);
    for (name, app) in &workers.apps {
        assert!(app.supervisor.is_settled(), "without faults {name} settles");
        let counts = app.supervisor.counts();
        wanted += counts.wanted - counts.finished - counts.failed;
        let written = kernel.disk.apps[&**name];
        templates += u32::from(written.template);
        // No reload starts the template of such an app again if it has crashed and no worker is needed.
        kept += u32::from(written.template && written.on_change);
    }
    let most = wanted + templates;
    let number = kernel.processes.len() as u32;
    assert!(
        (most - kept..=most).contains(&number),
        "{number} of {most}: {:?}",
        kernel.processes
    );
    for process in kernel.processes.values() {
        let own = workers.apps[&process.app].supervisor.generation();
        assert_eq!(Some(process.generation), own, "{process:?}");
        let may_be_kept = kernel.disk.apps[&*process.app].on_change;
        assert!(
            process.generation == generation || may_be_kept,
            "{process:?}"
        );
    }
    assert_eq!(
        kernel.answers.len() as u32,
        kernel.asked,
        "every client was answered"
    );
    assert!(
        kernel
            .listeners
            .values()
            .all(|since| *since <= kernel.running)
    );
    let last = |which: fn(&Notice) -> bool| kernel.notices.iter().rposition(which);
    let reloading = last(|notice| *notice == Notice::Reloading);
    let ready = last(|notice| matches!(notice, Notice::Ready(_)));
    assert!(ready > reloading, "the init system is told of the end");
}

/// A history, then a stop: everything ends and is reaped.
fn run_and_stop(steps: &[Step], signal: Option<Signal>) {
    let mut history = run_steps(steps);
    history.floors.clear();
    if history.outcome.is_none() {
        history.order("stop");
        if let Some(signal) = signal {
            history.urgent = true;
            history.send(signal);
        }
        history.pass(400_000);
    }
    let kernel = &history.master.turn.world;
    assert!(history.outcome.is_some(), "it ends: {:?}", kernel.processes);
    assert!(kernel.processes.is_empty());
    assert!(kernel.answers.len() as u32 >= kernel.asked.saturating_sub(1));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_keeps_the_promises_and_settles(steps in prop::collection::vec(step(), 0..30)) {
        run_and_settle(&steps);
    }

    #[test]
    fn a_stop_ends_any_history(
        steps in prop::collection::vec(step(), 0..30),
        signal in prop::option::of(prop_oneof![Just(Signal::SIGTERM), Just(Signal::SIGINT)]),
    ) {
        run_and_stop(&steps, signal);
    }
}

#[test]
fn an_app_that_is_not_required_fails_in_the_background() {
    let broken = Written {
        code: Code::Broken,
        required: false,
        ..Written::good(1)
    };
    let mut history = History::new(&[("queue", broken), ("web", Written::good(2))]);
    history.pass(10_000);
    assert_eq!(history.outcome, None);
    let ready = |history: &mut History| {
        let notices = history.kernel().notices.iter();
        let ready = notices.filter_map(|notice| match notice {
            Notice::Ready(line) => Some(line.clone()),
            _ => None,
        });
        ready.collect::<Vec<_>>()
    };
    let lines = ready(&mut history);
    assert_eq!(lines.len(), 1, "the others are ready: {lines:?}");
    assert!(lines[0].contains("queue 0/1 ready"), "{lines:?}");
    let status = &history.master.init.status;
    assert!(status.contains("failing"), "{status}");

    // It holds up no reload of the others either.
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    assert_eq!(
        history.master.release.outcome(),
        Some(&release::Outcome::Done(2))
    );

    // Once it serves, a release that would break it is refused.
    history.kernel().disk.apps.insert(
        "queue",
        Written {
            code: Code::Good,
            ..broken
        },
    );
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    let queue = Name::from("queue");
    assert!(history.master.workers.apps[&queue].supervisor.is_settled());
    assert!(!history.master.workers.apps[&queue].installed);
    history.kernel().disk.apps.insert("queue", broken);
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(_))),
        "{outcome:?}"
    );
    assert!(history.master.workers.apps[&queue].supervisor.is_settled());
}

#[test]
fn an_app_that_is_not_required_waits_for_its_listener() {
    let mut history = History::new(&[("web", Written::good(2))]);
    let optional = Written {
        required: false,
        ..Written::good(3)
    };
    history.kernel().refuses_listeners = true;
    history.kernel().disk.apps.insert("queue", optional);
    history.send(Signal::SIGHUP);
    history.pass(60_000);
    let done = |number| Some(release::Outcome::Done(number));
    assert_eq!(history.master.release.outcome(), done(2).as_ref());
    let queue = Name::from("queue");
    let app = &history.master.workers.apps[&queue];
    assert_eq!(app.supervisor.counts().ready, 0);
    assert!(app.not_started.is_some());

    history.kernel().refuses_listeners = false;
    history.pass(60_000);
    let app = &history.master.workers.apps[&queue];
    // One may be being recycled.
    assert_eq!(app.supervisor.counts().ready, 3);
    assert!(app.not_started.is_none());

    // It serves, so that a reload that would take its listener away is refused.
    history.kernel().refuses_listeners = true;
    let more = Written {
        listeners: 2,
        ..optional
    };
    history.kernel().disk.apps.insert("queue", more);
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(_))),
        "{outcome:?}"
    );
    let supervisor = &history.master.workers.apps[&queue].supervisor;
    assert_eq!(supervisor.counts().ready, 3);
    assert_eq!(supervisor.generation(), Some(2));
}

#[test]
fn the_first_worker_of_an_app_waits_for_the_apps_before_it() {
    let ordered = Written {
        ordered: true,
        ..Written::good(2)
    };
    let mut history = History::new(&[("queue", Written::good(2)), ("web", ordered)]);
    let started = |history: &mut History, name: &str| {
        let processes = history.kernel().processes.values();
        processes.filter(|process| &*process.app == name).count()
    };
    for _ in 0..1000 {
        let queue = Name::from("queue");
        let counts = history.master.workers.apps[&queue].supervisor.counts();
        if counts.ready > 0 {
            break;
        }
        assert_eq!(started(&mut history, "web"), 0);
        history.pass(1);
    }
    history.pass(10_000);
    assert_eq!(started(&mut history, "web"), 2);
}

/// Two apps that serve, with templates: web comes after queue.
fn ordered() -> History {
    let web = Written {
        ordered: true,
        template: true,
        ..Written::good(2)
    };
    let queue = Written {
        template: true,
        ..Written::good(1)
    };
    let mut history = History::new(&[("queue", queue), ("web", web)]);
    history.pass(10_000);
    history
}

/// Whether each living worker of an app was told to end.
fn told(history: &mut History, name: &str) -> Vec<bool> {
    let processes = history.kernel().processes.values();
    let workers = processes.filter(|process| {
        &*process.app == name && process.dead.is_none() && slot(process).is_some()
    });
    workers.map(|process| process.signalled).collect()
}

#[test]
fn an_app_is_told_to_end_when_all_that_come_after_it_have_ended() {
    let mut history = ordered();
    history.send(Signal::SIGTERM);
    history.pass(0);
    assert_eq!(told(&mut history, "web"), [true, true]);
    assert_eq!(told(&mut history, "queue"), [false]);
    let queue = |process: &Process| &*process.app == "queue" && slot(process).is_some();

    // It serves until then: a worker that crashes is replaced.
    let mut processes = history.kernel().processes.iter();
    let worker = processes.find(|(_, process)| queue(process));
    let worker = *worker.expect("it serves").0;
    history.kernel().end(worker, false);
    history.pass(5);
    assert_eq!(told(&mut history, "web"), [true, true]);
    assert_eq!(told(&mut history, "queue"), [false]);
    for _ in 0..1000 {
        if told(&mut history, "web").is_empty() {
            break;
        }
        assert_eq!(told(&mut history, "queue"), [false]);
        history.pass(1);
    }
    history.pass(100);
    assert_ne!(told(&mut history, "queue"), [false]);
    history.pass(10_000);
    assert_eq!(history.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_second_stop_ends_the_order() {
    for (first, second) in [
        (Signal::SIGTERM, Some(Signal::SIGTERM)),
        (Signal::SIGTERM, Some(Signal::SIGINT)),
        (Signal::SIGINT, None),
    ] {
        let mut history = ordered();
        history.urgent = true;
        for signal in std::iter::once(first).chain(second) {
            history.send(signal);
            history.pass(0);
        }
        assert!(told(&mut history, "queue").iter().all(|told| *told));
        let templates = history.kernel().processes.values();
        let mut templates = templates.filter(|p| p.kind == Kind::Template);
        assert!(templates.all(|p| p.signalled));
        history.pass(10_000);
        assert_eq!(history.outcome, Some(Outcome::Stopped));
    }
}

#[test]
fn an_app_ends_before_those_that_it_comes_after() {
    let ordered = |written| Written {
        ordered: true,
        ..written
    };
    let slow = Written {
        code: Code::IgnoresSignals,
        ..Written::good(2)
    };
    let alive = |history: &mut History, name: &str| {
        let processes = history.kernel().processes.values();
        let alive = processes.filter(|process| &*process.app == name && process.dead.is_none());
        alive.count()
    };
    for web in [Written::good(2), slow] {
        let mut history = History::new(&[("queue", Written::good(2)), ("web", ordered(web))]);
        history.pass(10_000);
        history.send(Signal::SIGTERM);
        let mut seen = 0;
        while history.outcome.is_none() {
            let (queue, web) = (alive(&mut history, "queue"), alive(&mut history, "web"));
            assert!(queue == 2 || web == 0, "{queue} and {web}");
            seen += usize::from(queue == 2 && web == 0);
            history.pass(1);
        }
        assert!(seen > 0, "it ends only then");
        assert_eq!(history.outcome, Some(Outcome::Stopped));
    }
    // The second time nobody waits.
    let mut history = History::new(&[("queue", Written::good(2)), ("web", ordered(slow))]);
    history.pass(10_000);
    history.urgent = true;
    for _ in 0..2 {
        history.send(Signal::SIGTERM);
        history.pass(100);
    }
    assert_eq!(alive(&mut history, "queue"), 0);
}

#[test]
fn no_process_takes_the_place_of_a_worker_that_its_template_was_not_asked_for() {
    let web = Written {
        template: true,
        ..Written::good(1)
    };
    // By the socket of the template that runs, and by that of the candidate, which is loading.
    for template in 0..2 {
        let mut history = History::new(&[("web", web)]);
        history.pass(10_000);
        history.send(Signal::SIGHUP);
        history.pass(100);
        assert_eq!(history.kernel().replies.len(), 2);
        history.take(&Step::Forges(template, 1));
        history.pass(10_000);
        let outcome = history.master.release.outcome();
        assert_eq!(outcome, Some(&release::Outcome::Done(2)), "{template}");
    }
}

#[test]
fn the_end_of_the_terminal_stops_gracefully_however_often_it_is_said() {
    let mut history = run_steps(&[Step::Pass(5000)]);
    for _ in 0..3 {
        history.send_from(Signal::SIGHUP, Sender::Kernel);
        history.turn();
    }
    assert!(history.master.is_stopping());
    let notices = &history.kernel().notices;
    assert!(!notices.contains(&Notice::Reloading), "it is no reload");
    history.pass(120_000);
    assert_eq!(history.outcome, Some(Outcome::Stopped));
}

// Known failures.

#[test]
fn a_worker_that_was_ready_in_time_is_not_late_because_the_master_was_suspended() {
    run_and_settle(&[
        Step::Stopped(5000),
        Step::Signal(Signal::SIGTTIN),
        Step::Stopped(2000),
    ]);
}

#[test]
fn a_first_worker_that_hangs_when_it_becomes_ready_proves_nothing() {
    run_and_settle(&[
        Step::Signal(Signal::SIGHUP),
        Step::Stopped(200),
        Step::Hangs(0),
        Step::Stopped(2000),
    ]);
}

#[test]
fn a_reload_goes_on_when_one_app_is_paused_and_another_in_trouble() {
    run_and_settle(&[
        Step::MessageDelay(None),
        Step::Pass(5251),
        Step::Crash(2),
        Step::Signal(Signal::SIGWINCH),
    ]);
}

#[test]
fn a_worker_that_leaves_before_it_matures_does_not_keep_the_loop_awake() {
    let stuck = Written {
        code: Code::NeverReady,
        listeners: 0,
        ..Written::good(5)
    };
    run_and_settle(&[
        Step::Write(0, Some(stuck)),
        Step::Signal(Signal::SIGHUP),
        Step::Pass(1070),
        Step::Signal(Signal::SIGTTIN),
        Step::Leaves(2),
        Step::Stopped(4701),
        Step::Write(0, None),
    ]);
}
