//! Apps that have no worker and are not required or were given up: their listeners are closed until the next attempt to start one, so that
//! clients are refused at once and need not wait for nobody. Sites refuse their requests, and those of apps that are stopped or given up.
//!
//! A listener is opened with the start of a worker ([`World::open_missing_listener`]), whatever goes on meanwhile: so it can be closed
//! whenever its app has no worker, also during the first start and a reload.
//!
//! What has served keeps its listeners while it is tried again, like any other app: that is an interruption, and its clients may wait. Not
//! so where no worker comes before the next release, as the app was given up: then a required app refuses its clients, too.

use std::collections::BTreeSet;

use log::info;

use super::Master;
use super::workers::App;
use super::world::World;
use crate::config::Address;
use crate::release::Name;

impl<W: World> Master<W> {
    /// Closes the listeners of apps of which no worker runs or was requested.
    pub(super) fn refuse_clients(&mut self) {
        if self.is_stopping() {
            return;
        }
        let idle = self.workers.configured().filter(|(_, app)| is_idle(app));
        let idle: Vec<_> = idle.map(|(name, _)| name.clone()).collect();
        for name in idle {
            self.refuse_clients_of(&name);
        }
    }

    /// Closes the listeners of an app of which no worker runs, though one may be about to start.
    pub(super) fn refuse_clients_without_worker(&mut self, name: &Name) {
        let app = self.workers.apps.get(name);
        if app.is_some_and(|app| !has_worker(app)) {
            self.refuse_clients_of(name);
        }
    }

    /// Has the front refuse the requests of apps of which no worker runs or is about to start.
    pub(super) fn refuse_requests(&mut self) {
        if self.is_stopping() {
            return;
        }
        let apps = self.workers.apps.iter();
        let without = apps.filter(|(_, app)| app.removed || is_idle(app) || is_given_up(app));
        let without = without.map(|(name, _)| name.clone());
        let stopped = self.plan().into_iter().flat_map(|plan| &plan.stopped);
        let stopped = stopped.map(|name| Name::from(name.as_str()));
        // The candidate may have one of them already.
        let stopped = stopped.filter(|name| !self.workers.apps.contains_key(name));
        let refuse: BTreeSet<_> = without
            .chain(stopped)
            // One that is restarted is stopped only for a moment.
            .filter(|name| !self.choices.will_start(name))
            .collect();
        self.workers.fronts.refuse(refuse);
    }

    fn refuse_clients_of(&mut self, name: &Name) {
        let Some(app) = self.workers.apps.get(name) else {
            return;
        };
        let Some((generation, plan)) = app.current() else {
            return;
        };
        // What is left of its workers holds the sockets, too. A unix socket that is closed here listens on there.
        let is_shared = self.templates.has_of(name) || self.leftovers.has_of(name);
        let addresses = plan.sockets.iter().map(|(_, address)| address);
        let addresses: Vec<&Address> = addresses
            .filter(|address| !(is_shared && matches!(address, Address::Unix(_))))
            .filter(|address| !self.is_needed(name, address))
            .collect();
        let closed = self.turn.world.close_for_now(&addresses, generation);
        for address in &closed {
            self.ignored.closed(address);
        }
        let Some(app) = self.workers.apps.get_mut(name) else {
            return;
        };
        let (told_in, told) = &mut app.refused;
        if *told_in != generation {
            (*told_in, *told) = (generation, BTreeSet::new());
        }
        // They are opened and closed again with each attempt to start a worker.
        let news = closed
            .iter()
            .filter(|address| told.insert((*address).clone()));
        let news: Vec<_> = news.map(Address::to_string).collect();
        if !news.is_empty() {
            let news = news.join(", ");
            info!("app={name} gen={generation}: not listening on {news} while no worker runs");
        }
    }

    /// Whether a listener of an app without a worker must be open for another app, or stays open in the candidate.
    fn is_needed(&self, name: &Name, address: &Address) -> bool {
        let candidate = self.preparation.candidate();
        let mut proposed = candidate.iter().flat_map(|it| &it.plan.listeners);
        if proposed.any(|listener| listener.stays_open && listener.address == *address) {
            return true;
        }
        let others = self.workers.apps.iter().filter(|(other, _)| *other != name);
        let mut others = others.filter(|(_, app)| !is_idle(app));
        others.any(|(_, app)| {
            let plans = app.plans.values();
            let mut sockets = plans.flat_map(|plan| &plan.sockets);
            sockets.any(|(_, theirs)| theirs == address)
        })
    }
}

/// Whether an app was given up, and no candidate of it is being tried.
fn is_given_up(app: &App) -> bool {
    let counts = app.supervisor.counts();
    app.supervisor.is_given_up() && counts.ready + counts.starting == 0
}

/// Whether a worker of an app lives.
fn has_worker(app: &App) -> bool {
    let counts = app.supervisor.counts();
    counts.ready + counts.starting + counts.leaving > 0
}

/// Whether an app has no worker and its clients need not wait for one: it was given up, or it may refuse clients, and one that could be
/// started now was requested.
fn is_idle(app: &App) -> bool {
    let (supervisor, counts) = (&app.supervisor, app.supervisor.counts());
    if has_worker(app) || supervisor.is_paused() {
        return false;
    }
    // The load that a listener reports starts workers.
    let may_refuse = app
        .current()
        .is_some_and(|(_, plan)| !plan.required && plan.policy.range.is_none());
    let is_done = counts.finished + counts.failed >= counts.wanted;
    supervisor.is_given_up() || may_refuse && (app.is_installed() || is_done)
}
