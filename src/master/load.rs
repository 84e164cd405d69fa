//! Apps whose number of workers follows their load: looking at it while there is something to do, and noticing when
//! there is something to do again.
//!
//! While an app is busy the master looks at it every [`TICK`]. When it was quiet for [`QUIET`] it stops: the marks in
//! the scoreboard (see [`super::watch`]) make WSGI workers say when they begin a request, and the
//! listeners of other apps, and of those that may have no worker at all, wake the master by the next connection.

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

/// How often the load of a busy app is looked at.
const TICK: Duration = Duration::from_millis(100);

/// After so long without anything to do an app is left alone.
const QUIET: Duration = Duration::from_secs(1);

/// What a look has found.
struct Seen {
    load: Load,
    /// Something is being done, or waits.
    active: bool,
    /// The records of the idle workers.
    records: Vec<u32>,
}

/// The apps that are followed, and when each is looked at.
#[derive(Default)]
pub(super) struct Loads {
    /// The plans of the apps whose number of workers follows their load.
    followed: BTreeMap<Name, plan::App>,
    looks: Timers<Name>,
    quiet_since: BTreeMap<Name, Instant>,
    /// Listeners that wake the master by their next connection, with the apps that wait for it.
    listeners: BTreeMap<Address, BTreeSet<Name>>,
}

impl Loads {
    /// A configuration has come into force: the load of its apps counts from now on.
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

    /// A listener is about to be closed, or an app to go: nothing is followed any more.
    pub(super) fn stop<W: World>(&mut self, turn: &mut Turn<W>) {
        for address in std::mem::take(&mut self.listeners).into_keys() {
            turn.world.watch_listener(&address, false);
        }
        *self = Self::default();
    }

    /// A worker of an app has begun to do something.
    pub(super) fn begins<W>(&mut self, turn: &Turn<W>, name: &Name) {
        if self.followed.contains_key(name) {
            self.look_from(name, turn.now);
        }
    }

    /// A connection waits at a listener that wakes the master.
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
            // Where somebody may take it at once, it is given the time for it.
            let patience = if ready == 0 { Duration::ZERO } else { TICK };
            self.look_from(&name, turn.now + patience);
        }
    }

    /// When an app is looked at next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looks.next()
    }

    /// Looks at all apps whose time has come.
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
        // Who starts just now may be all that is needed.
        if seen.load.busy.is_some() || app.supervisor.counts().starting == 0 {
            turn.tell(name, Event::Load(seen.load));
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
            self.leave_alone(turn, workers, name, plan, &seen.records);
        }
    }

    /// Nothing is to be seen any more: lets the workers, or the listeners, say when there is.
    fn leave_alone<W: World>(
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
        // It may have begun just before the mark was there.
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
        if child.told.is_none() {
            ready += 1;
            busy += u32::from(running >= u64::from(threads));
            if running == 0 {
                records.push(record);
            }
        }
    }
    // What waits while somebody is free is about to be taken.
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
