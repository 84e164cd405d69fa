//! What front workers are told: which workers of each app take requests, and of which apps none does. The latest state counts; what has not
//! changed is not told.
//!
//! A worker that is to end is taken out before it is told, so that no request goes to a worker that ends. A program with an address of its own is
//! told when its requests are answered (`quiet`). One that a template has forked
//! is there once it is a child of the master: its message alone does not prove that it exists.

use std::collections::{BTreeMap, BTreeSet};

use log::error;
use nix::unistd::Pid;
use preforkd_worker::env::FRONT_LISTENER;
use preforkd_worker::updates::{Ready, Worker};

use super::Workers;
use super::children::Child;
use crate::config::Address;
use crate::master::turn::Turn;
use crate::master::world::World;
use crate::plan;
use crate::release::Name;
use crate::supervisor::{Action, WorkerId};

/// What was told.
#[derive(Default)]
pub(in crate::master) struct Fronts {
    /// The latest state of each app.
    states: BTreeMap<Name, String>,
    /// Apps whose state may be another one.
    changed: BTreeSet<Name>,
    /// Apps whose requests are refused.
    refuse: BTreeSet<Name>,
}

impl Fronts {
    /// The state of an app may have changed.
    pub(in crate::master) fn changed(&mut self, app: &Name) {
        if !self.changed.contains(app) {
            self.changed.insert(app.clone());
        }
    }

    /// These are the apps whose requests are refused from now on, as long as they have no worker.
    pub(in crate::master) fn refuse(&mut self, apps: BTreeSet<Name>) {
        let others = self.refuse.symmetric_difference(&apps);
        self.changed.extend(others.cloned());
        self.refuse = apps;
    }
}

impl Workers {
    /// These actions are about to be performed. Front workers are told of the workers that will end, before these are.
    pub(in crate::master) fn prepare<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        app: &Name,
        actions: &[Action],
    ) {
        for action in actions {
            if let Action::TakeOut(worker, _)
            | Action::Terminate(worker, _)
            | Action::Abort(worker, _)
            | Action::Kill(worker, _) = action
            {
                self.leaves(app, *worker);
            }
        }
        self.tell_fronts(turn);
    }

    fn leaves(&mut self, app: &Name, worker: WorkerId) {
        let pid = self.children.pid(app, worker);
        if let Some(child) = pid.and_then(|pid| self.children.get_mut(pid)) {
            child.leaves = true;
            self.fronts.changed(app);
        } else if let Some(child) = self.children.expected(app, worker) {
            child.leaves = true;
        }
    }

    /// The first worker of a generation has passed its check.
    pub(in crate::master) fn passed(&mut self, app: &Name, worker: WorkerId) {
        let pid = self.children.pid(app, worker);
        if let Some(child) = pid.and_then(|pid| self.children.get_mut(pid)) {
            child.on_trial = false;
            self.fronts.changed(app);
        }
    }

    /// Tells front workers what has changed.
    pub(in crate::master) fn tell_fronts<W: World>(&mut self, turn: &mut Turn<W>) {
        while let Some(app) = self.fronts.changed.pop_first() {
            let known = self.apps.get(&app).filter(|known| !known.plans.is_empty());
            let told = match known {
                Some(known) => known.plans.values().any(|plan| plan.is_reached),
                // It is stopped, and no plan is left that says whether a site names it.
                None => self.fronts.refuse.contains(&app),
            };
            let state = told.then(|| self.state(turn, &app)).flatten();
            let known = self.fronts.states.get(&app);
            if known == state.as_ref() {
                continue;
            }
            turn.world.tell_fronts(&app, state.as_deref());
            match state {
                Some(state) => drop(self.fronts.states.insert(app, state)),
                None => drop(self.fronts.states.remove(&app)),
            }
        }
    }

    /// What front workers should know of an app.
    fn state<W: World>(&self, turn: &Turn<W>, app: &Name) -> Option<String> {
        let plans = self
            .apps
            .get(app)
            .into_iter()
            .flat_map(|app| app.plans.values());
        // Others share an address, which the front has in its settings.
        let is_told = plans.into_iter().any(|plan| plan.is_told);
        let children = self.children.of(app).filter(|_| is_told);
        let takes = |child: &Child| {
            let serves = child.ready_at.is_some() && child.adopted;
            serves && !child.on_trial && !child.leaves && !child.stopping
        };
        let workers = children.filter(|(_, child)| takes(child));
        let workers = workers.filter_map(|(pid, child)| {
            let own = own_address(turn, pid, child);
            let at_a_time = child.plan.threads.filter(|_| own.is_some());
            let address = own.or_else(|| shared(&child.plan))?;
            Some(Worker { address, at_a_time })
        });
        let mut workers: Vec<_> = workers.collect();
        workers.sort_unstable();
        workers.dedup();
        let ready = Ready {
            app: app.to_string(),
            refuses: workers.is_empty() && self.fronts.refuse.contains(app),
            workers,
        };
        let state = ready.encode();
        let state = state.inspect_err(|error| {
            error!("app={app}: cannot encode where its workers are: {error} (this is a bug in preforkd)");
        });
        state.ok()
    }
}

/// The address where the front reaches this worker and no other one.
pub(super) fn own_address<W: World>(turn: &Turn<W>, pid: Pid, child: &Child) -> Option<String> {
    let own = child.address.as_ref().map(|own| own.to_string());
    own.or_else(|| Some(turn.world.own_address(pid)?.to_string()))
}

/// The address of the listener that all workers of an app share for the front.
fn shared(plan: &plan::App) -> Option<String> {
    let mut sockets = plan.sockets.iter();
    let (_, address) = sockets.find(|(name, _)| name == FRONT_LISTENER)?;
    match address {
        Address::Unix(_) => Some(address.to_string()),
        Address::Tcp(_) | Address::Inherited(_) => None,
    }
}
