//! What front workers are told: which workers of each app take requests. The latest state counts; what has not changed is not told.
//!
//! A worker that is to end is taken out before it is told, so that no request goes to a worker that ends.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use log::error;
use nix::unistd::Pid;
use preforkd_worker::env::FRONT_LISTENER;
use preforkd_worker::upstreams::{Ready, Worker};

use super::Workers;
use super::children::Child;
use crate::config::Address;
use crate::master::turn::Turn;
use crate::master::world::World;
use crate::plan;
use crate::release::Name;
use crate::supervisor::{Action, WorkerId};

/// What was told, to whom.
#[derive(Default)]
pub(in crate::master) struct Fronts {
    /// The latest state of each app.
    states: BTreeMap<Name, Rc<str>>,
    /// Apps whose state may be another one.
    changed: BTreeSet<Name>,
    /// Front workers, with the apps of which they still have to be told: they did not read what was sent before.
    workers: BTreeMap<Pid, BTreeSet<Name>>,
}

impl Fronts {
    /// A front worker was started.
    pub(super) fn begin<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) {
        self.workers
            .insert(pid, self.states.keys().cloned().collect());
        self.go_on(turn, pid);
    }

    /// A process was reaped.
    pub(super) fn end(&mut self, pid: Pid) {
        self.workers.remove(&pid);
    }

    /// The state of an app may have changed.
    pub(in crate::master) fn changed(&mut self, app: &Name) {
        if !self.changed.contains(app) {
            self.changed.insert(app.clone());
        }
    }

    /// Tells a front worker what it was not told yet.
    pub(in crate::master) fn go_on<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) {
        let Some(untold) = self.workers.get_mut(&pid) else {
            return;
        };
        while let Some(app) = untold.first() {
            let sent = self
                .states
                .get(app)
                .is_none_or(|state| turn.world.tell_front(pid, state));
            if !sent {
                return;
            }
            untold.pop_first();
        }
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
            if let Action::Terminate(worker, _)
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
            let told = self.apps.get(&app).is_some_and(|known| {
                let mut plans = known.plans.values();
                plans.any(|plan| plan.is_told)
            });
            if !told {
                self.fronts.states.remove(&app);
                continue;
            }
            let Some(state) = self.state(turn, &app) else {
                continue;
            };
            if self
                .fronts
                .states
                .get(&app)
                .is_some_and(|known| **known == *state)
            {
                continue;
            }
            self.fronts.states.insert(app.clone(), state.into());
            let pids: Vec<_> = self.fronts.workers.keys().copied().collect();
            for pid in pids {
                if let Some(untold) = self.fronts.workers.get_mut(&pid) {
                    untold.insert(app.clone());
                }
                self.fronts.go_on(turn, pid);
            }
        }
    }

    /// What front workers should know of an app.
    fn state<W: World>(&self, turn: &Turn<W>, app: &Name) -> Option<String> {
        let children = self.children.of(app);
        let takes = |child: &Child| {
            child.ready_at.is_some() && !child.on_trial && !child.leaves && !child.stopping
        };
        let workers = children.filter(|(_, child)| takes(child));
        let workers = workers.filter_map(|(pid, child)| {
            let own = match &child.address {
                Some(own) => Some(own.to_string()),
                None => turn
                    .world
                    .own_address(pid)
                    .map(|address| address.to_string()),
            };
            let at_a_time = child.plan.threads.filter(|_| own.is_some());
            let address = own.or_else(|| shared(&child.plan))?;
            Some(Worker { address, at_a_time })
        });
        let mut workers: Vec<_> = workers.collect();
        workers.sort_unstable();
        workers.dedup();
        let ready = Ready {
            app: app.to_string(),
            workers,
        };
        let state = ready.encode();
        let state = state.inspect_err(|error| {
            error!("app={app}: cannot encode where its workers are: {error} (this is a bug in preforkd)");
        });
        state.ok()
    }
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
