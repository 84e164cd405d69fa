//! Apps whose number of workers follows their load.
//!
//! While an app is busy the master checks its load every [`TICK`]. When the app was quiet for [`QUIET`] the checks stop: the marks
//! in the scoreboard (see [`super::watch`]) make WSGI workers report the beginning of a request, and for other apps, and those
//! without workers, the next connection to a listener wakes the master.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::debug;

use super::timers::Timers;
use super::turn::Turn;
use super::workers::Workers;
use super::world::World;
use crate::config::Address;
use crate::plan::{self, Plan};
use crate::release::Name;
use crate::supervisor::{Event, Load};

/// The interval of load checks of a busy app.
const TICK: Duration = Duration::from_millis(100);

/// The time without load after which the checks of an app stop.
const QUIET: Duration = Duration::from_secs(1);

/// The result of a load check.
struct Seen {
    load: Load,
    /// A request is running or a connection is waiting.
    active: bool,
    /// The records of the idle workers.
    records: Vec<u32>,
}

/// The apps whose load is followed, and when each is checked next.
#[derive(Default)]
pub(super) struct Loads {
    /// The plans of the apps whose number of workers follows their load.
    followed: BTreeMap<Name, plan::App>,
    looks: Timers<Name>,
    quiet_since: BTreeMap<Name, Instant>,
    /// Listeners whose next connection wakes the master, with the apps that wait for it.
    listeners: BTreeMap<Address, BTreeSet<Name>>,
}

impl Loads {
    /// A configuration was committed: follows the load of its apps from now on.
    pub(super) fn follow<W: World>(&mut self, turn: &mut Turn<W>, plan: &Plan) {
        self.stop(turn);
        for (name, app) in &plan.apps {
            if app.policy.range.is_some() {
                let name = Name::from(name.as_str());
                self.looks.set(name.clone(), Some(turn.now));
                self.followed.insert(name, app.clone());
            }
        }
    }

    /// Follows no app any more, because a listener is about to be closed, or an app to be removed.
    pub(super) fn stop<W: World>(&mut self, turn: &mut Turn<W>) {
        for address in std::mem::take(&mut self.listeners).into_keys() {
            turn.world.watch_listener(&address, false);
        }
        *self = Self::default();
    }

    /// A worker of an app has become busy.
    pub(super) fn becomes_busy<W>(&mut self, turn: &Turn<W>, name: &Name) {
        if self.followed.contains_key(name) {
            self.look_from(name, turn.now);
        }
    }

    /// A connection waits at a watched listener.
    pub(super) fn connection_waits<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &Workers,
        address: &Address,
    ) {
        let Some(names) = self.listeners.remove(address) else {
            return;
        };
        turn.world.watch_listener(address, false);
        for name in names {
            self.stop_waiting(turn, &name);
            let app = workers.apps.get(&name);
            let ready = app.map_or(0, |app| app.supervisor.counts().ready);
            // If a worker may accept it at once, give it time to do so.
            let patience = if ready == 0 { Duration::ZERO } else { TICK };
            self.look_from(&name, turn.now + patience);
        }
    }

    /// When the next load check is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looks.next()
    }

    /// Checks the load of all apps that are due.
    pub(super) fn look<W: World>(&mut self, turn: &mut Turn<W>, workers: &Workers) {
        for name in self.looks.take_due(turn.now) {
            if let Some(plan) = self.followed.get(&name).cloned() {
                self.look_at(turn, workers, &name, &plan);
            }
        }
    }

    fn look_at<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &Workers,
        name: &Name,
        plan: &plan::App,
    ) {
        let Some(app) = workers.apps.get(name) else {
            return;
        };
        let seen = see(turn, workers, name, plan);
        // A worker that is starting may be all that is needed.
        if seen.load.busy.is_some() || app.supervisor.counts().starting == 0 {
            turn.queue_event(name, Event::Load(seen.load));
        }
        if seen.active {
            self.quiet_since.remove(name);
            self.looks.set(name.clone(), Some(turn.now + TICK));
            return;
        }
        let quiet_since = *self.quiet_since.entry(name.clone()).or_insert(turn.now);
        if quiet_since + QUIET > turn.now {
            self.looks.set(name.clone(), Some(turn.now + TICK));
        } else {
            self.stop_checks(turn, workers, name, plan, &seen.records);
        }
    }

    /// The app is quiet: lets the workers, or the listeners, report the next load.
    fn stop_checks<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &Workers,
        name: &Name,
        plan: &plan::App,
        records: &[u32],
    ) {
        for &record in records {
            if let Err(error) = turn.world.mark(name, record) {
                debug!("app={name}: cannot mark record {record} of the scoreboard: {error}");
            }
        }
        let may_be_none = plan.policy.range.is_some_and(|range| range.min == 0);
        if plan.threads.is_none() || may_be_none {
            for (_, address) in &plan.sockets {
                let waiting = self.listeners.entry(address.clone()).or_default();
                waiting.insert(name.clone());
                turn.world.watch_listener(address, true);
            }
        }
        // A request may have begun just before the mark was set.
        if see(turn, workers, name, plan).active {
            self.look_from(name, turn.now + TICK);
        }
    }

    fn look_from(&mut self, name: &Name, at: Instant) {
        self.quiet_since.remove(name);
        let sooner = self.looks.get(name).map_or(at, |next| next.min(at));
        self.looks.set(name.clone(), Some(sooner));
    }

    /// An app waits for no connection any more.
    fn stop_waiting<W: World>(&mut self, turn: &mut Turn<W>, name: &Name) {
        self.listeners.retain(|address, names| {
            let needed = !names.remove(name) || !names.is_empty();
            if !needed {
                turn.world.watch_listener(address, false);
            }
            needed
        });
    }
}

fn see<W: World>(turn: &Turn<W>, workers: &Workers, name: &Name, plan: &plan::App) -> Seen {
    let queues = plan.sockets.iter();
    let queue: u32 = queues
        .filter_map(|(_, at)| turn.world.accept_queue(at))
        .sum();
    let Some(threads) = plan.threads else {
        let load = Load {
            busy: None,
            waiting: queue,
        };
        return Seen {
            load,
            active: queue > 0,
            records: Vec::new(),
        };
    };
    let (mut ready, mut busy, mut active, mut records) = (0, 0, false, Vec::new());
    let children = workers.children.of(name).map(|(_, child)| child);
    for child in children.filter(|child| child.ready_at.is_some()) {
        let Some(record) = child.record else { continue };
        let age = turn.now.saturating_duration_since(child.asked_for);
        let running = turn.world.read(name, record, age);
        let running = running.map_or(0, |seen| seen.threads_busy);
        active |= running > 0;
        if child.signalled.is_none() {
            ready += 1;
            busy += u32::from(running >= u64::from(threads));
            if running == 0 {
                records.push(record);
            }
        }
    }
    // A waiting connection is about to be accepted if a worker is free.
    let waiting = if busy < ready { 0 } else { queue };
    Seen {
        load: Load {
            busy: Some(busy),
            waiting,
        },
        active: active || waiting > 0,
        records,
    }
}
