//! The real loop in a simulated world: forks fail, exits come in any order and their signals merge, messages are late or lost,
//! process ids are reused at once, configurations, checks, commands and templates fail or hang, and the master itself is suspended
//! for a while. Whatever happens, the promises hold after every turn.
//!
//! A failed history prints its steps, which proptest has minimised; known ones are kept as tests in `known`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::Reply;
use proptest::prelude::*;

mod any;
mod disk;
mod earlier;
mod keeping;
mod kernel;
mod known;
mod one_app;
mod optional;
mod order;
mod promises;
mod renamed;
mod schedules;
mod steps;
mod upstreams;
mod world;

use super::world::{Arrived, ClientId, Notice, Sender, Source, World};
use super::{Master, Outcome};
use crate::config::Address;
use crate::release::{self, Name, State};
use crate::supervisor::{Replace, Restart};
use disk::{Code, Disk, End, NAMES, Periodic, Written};
use kernel::{Due, Kernel, Kind, Process};
use one_app::Orders;
use steps::{Step, step, written};

/// A master in its world, and the promises to check.
struct History {
    master: Master<Kernel>,
    outcome: Option<Outcome>,
    /// The minimum number of ready workers of an app: the number wanted when it last settled, unless there was a fault since, or
    /// another number was requested.
    floors: BTreeMap<Name, u32>,
    /// The apps whose replacements the backoff delayed at the last turn, and until when.
    waited: BTreeMap<Name, Instant>,
    /// The number of workers that each app wanted after the last turn.
    wanted: BTreeMap<Name, u32>,
    /// The generations that served each app before the current release.
    serving: BTreeMap<Name, BTreeSet<u64>>,
    orders: Orders,
    /// The apps of which a worker was ready, as long as they are known.
    served: BTreeSet<Name>,
    /// For how many turns a listener has been open for nobody.
    deserted: BTreeMap<Address, u32>,
    /// The apps that come before each app, as they were when the stop began; without those that are paused.
    order: BTreeMap<String, BTreeSet<String>>,
    /// The master was told to hurry.
    urgent: bool,
}

impl History {
    fn new(apps: &[(&'static str, Written)]) -> Self {
        Self::with(disk(apps))
    }

    fn with(disk: Disk) -> Self {
        Self::with_kernel(disk, |_| {})
    }

    fn with_kernel(disk: Disk, change: impl FnOnce(&mut Kernel)) -> Self {
        let plan = disk.plan().expect("it is good");
        let plan = plan.only(|_, app| app.enabled);
        let mut kernel = Kernel::new(disk);
        kernel
            .open_listeners(&plan.listeners, 1)
            .expect("nothing is open");
        change(&mut kernel);
        let mut history = Self {
            master: Master::new(kernel, plan),
            outcome: None,
            floors: BTreeMap::new(),
            waited: BTreeMap::new(),
            wanted: BTreeMap::new(),
            serving: BTreeMap::new(),
            orders: Orders::default(),
            served: BTreeSet::new(),
            deserted: BTreeMap::new(),
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
        let apps = self.master.workers.apps.iter();
        let wanted = apps.map(|(name, app)| (name.clone(), app.supervisor.counts().wanted));
        self.wanted = wanted.collect();
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
        self.send_from(signal, Sender::Unknown);
    }

    fn send_from(&mut self, signal: Signal, sender: Sender) {
        let number = signal as i32;
        let kernel = self.kernel();
        kernel.heard.signalled(signal);
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
}

fn disk(apps: &[(&'static str, Written)]) -> Disk {
    Disk {
        apps: apps.iter().copied().collect(),
        periodic: None,
        spoilt: false,
    }
}

/// The worker that a process is, if it is one.
fn slot(process: &Process) -> Option<(Name, u64, u32)> {
    match process.kind {
        Kind::Worker { slot, .. } => Some((process.app.clone(), process.generation, slot)),
        _ => None,
    }
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
