//! Apps whose number of workers follows their load: looking at it while there is something to do, and noticing when
//! there is something to do again.
//!
//! While an app is busy the master looks at it every [`TICK`]. When it was quiet for [`QUIET`] it stops: the marks in
//! the scoreboard (see [`super::watching`]) make WSGI workers say when they begin a request, and the
//! listeners of other apps, and of those that may have no worker at all, wake the master by the next connection.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use log::{debug, warn};
use nix::unistd::Pid;

use super::Master;
use super::children::Name;
use crate::plan;
use crate::supervisor::{Event, Load};
use crate::sys;

/// How often the load of a busy app is looked at.
const TICK: Duration = Duration::from_millis(100);

/// After so long without anything to do an app is left alone.
const QUIET: Duration = Duration::from_secs(1);

/// When to look at an app's load.
#[derive(Debug, Default)]
pub(super) struct Looks {
    next: Option<Instant>,
    quiet_since: Option<Instant>,
    /// Listeners that wake the master by their next connection.
    listeners: Vec<RawFd>,
}

/// What a look has found.
struct Seen {
    load: Load,
    /// Something is being done, or waits.
    active: bool,
    /// The records of the idle workers.
    records: Vec<u32>,
}

impl Master {
    /// A configuration has come into force: the load of its apps counts from now on.
    pub(super) fn begin_following(&mut self) {
        let now = Instant::now();
        for name in self.followed() {
            self.stop_waiting_for_connections(&name);
            if let Some(app) = self.apps.get_mut(&name) {
                app.looks.next = Some(now);
                app.looks.quiet_since = None;
            }
        }
    }

    /// A listener is about to be closed, or an app to go: connections no longer wake the master.
    pub(super) fn stop_following(&mut self) {
        let names: Vec<_> = self.apps.keys().cloned().collect();
        for name in names {
            self.stop_waiting_for_connections(&name);
            if let Some(app) = self.apps.get_mut(&name) {
                app.looks = Looks::default();
            }
        }
    }

    /// A worker has begun to do something.
    pub(super) fn load_begins(&mut self, pid: Pid) {
        let name = self.children.get(pid).map(|child| child.app.clone());
        if let Some(name) = name.filter(|name| self.range(name).is_some()) {
            self.look_at_load_from(&name, Instant::now());
        }
    }

    /// A connection waits at a listener that wakes the master.
    pub(super) fn connection_waits(&mut self, fd: RawFd) {
        let waiting = |name: &Name| self.apps[name].looks.listeners.contains(&fd);
        let names: Vec<_> = self
            .apps
            .keys()
            .filter(|name| waiting(name))
            .cloned()
            .collect();
        for name in names {
            self.stop_waiting_for_connections(&name);
            let counts = self.apps[&name].supervisor.counts();
            // Where somebody may take it at once, it is given the time for it.
            let patience = if counts.ready == 0 {
                Duration::ZERO
            } else {
                TICK
            };
            self.look_at_load_from(&name, Instant::now() + patience);
        }
    }

    pub(super) fn next_look_at_load(&self) -> Option<Instant> {
        self.apps.values().filter_map(|app| app.looks.next).min()
    }

    /// Looks at all apps whose time has come.
    pub(super) fn look_at_loads(&mut self, now: Instant) {
        for name in self.followed() {
            if self.apps[&name].looks.next.is_some_and(|at| at <= now) {
                self.look_at_load(&name, now);
            }
        }
    }

    fn look_at_load(&mut self, name: &Name, now: Instant) {
        let Some(plan) = self.current_plan(name).cloned() else {
            return;
        };
        let seen = self.see(name, &plan);
        let counts = self.apps[name].supervisor.counts();
        // Who starts just now may be all that is needed.
        if seen.load.busy.is_some() || counts.starting == 0 {
            self.facts.push_back((name.clone(), Event::Load(seen.load)));
        }
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        if seen.active {
            app.looks.quiet_since = None;
            app.looks.next = Some(now + TICK);
            return;
        }
        let quiet_since = *app.looks.quiet_since.get_or_insert(now);
        app.looks.next = (quiet_since + QUIET > now).then(|| now + TICK);
        if app.looks.next.is_none() {
            self.leave_alone(name, &plan, &seen.records, now);
        }
    }

    /// Nothing is to be seen any more: lets the workers, or the listeners, say when there is.
    fn leave_alone(&mut self, name: &Name, plan: &plan::App, records: &[u32], now: Instant) {
        for &record in records {
            if let Some(scoreboard) = self.scoreboards.get(name)
                && let Err(error) = scoreboard.mark(record)
            {
                debug!("cannot mark record {record} of the scoreboard: {error}");
            }
        }
        let may_be_none = plan.policy.range.is_some_and(|range| range.min == 0);
        if plan.threads.is_none() || may_be_none {
            self.wait_for_connections(name, plan);
        }
        // It may have begun just before the mark was there.
        if self.see(name, plan).active {
            self.look_at_load_from(name, now + TICK);
        }
    }

    fn look_at_load_from(&mut self, name: &Name, at: Instant) {
        if let Some(app) = self.apps.get_mut(name) {
            app.looks.quiet_since = None;
            app.looks.next = Some(app.looks.next.map_or(at, |next| next.min(at)));
        }
    }

    fn see(&self, name: &Name, plan: &plan::App) -> Seen {
        let listeners = plan.sockets.iter();
        let listeners = listeners.filter_map(|(_, at)| self.listeners.socket(at));
        let queue: u32 = listeners.map(|socket| sys::accept_queue(&socket)).sum();
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
        let workers = self.children.iter().map(|(_, child)| child);
        for child in workers.filter(|child| child.app == *name && child.ready) {
            let Some(record) = child.record else { continue };
            let running = self.noted(child).map_or(0, |seen| seen.threads_busy);
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

    fn wait_for_connections(&mut self, name: &Name, plan: &plan::App) {
        let sockets = plan.sockets.iter();
        let sockets = sockets.filter_map(|(_, at)| self.listeners.socket(at));
        let fds: Vec<_> = sockets.map(|socket| socket.as_raw_fd()).collect();
        for fd in fds {
            // Another app may wait there already.
            match self.watch(&fd) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    warn!("app={name}: cannot wait for connections: {error}");
                }
                _ => {}
            }
            if let Some(app) = self.apps.get_mut(name) {
                app.looks.listeners.push(fd);
            }
        }
    }

    fn stop_waiting_for_connections(&mut self, name: &Name) {
        let app = self.apps.get_mut(name);
        let fds = app.map(|app| std::mem::take(&mut app.looks.listeners));
        for fd in fds.into_iter().flatten() {
            let mut others = self.apps.values();
            if !others.any(|app| app.looks.listeners.contains(&fd)) {
                self.unwatch(&fd);
            }
        }
    }

    /// The apps whose number of workers follows their load.
    fn followed(&self) -> Vec<Name> {
        let names = self.apps.keys().filter(|name| self.range(name).is_some());
        names.cloned().collect()
    }

    fn range(&self, name: &Name) -> Option<crate::supervisor::Range> {
        self.current_plan(name)?.policy.range
    }

    fn current_plan(&self, name: &Name) -> Option<&plan::App> {
        let (_, current) = self.current.as_ref()?;
        current.apps.get(&**name)
    }
}
