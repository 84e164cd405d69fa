//! The listeners of apps that are being restarted: they stay open, so that clients wait until the app runs again, and nobody can take the
//! address meanwhile. An init system that keeps descriptors holds a closed one for a while, and the address with it.

use std::collections::BTreeSet;

use log::info;

use super::choices::Choices;
use super::world::World;
use super::{Master, report};
use crate::plan::{Listener, Plan};
use crate::release::Name;

/// A listener of an app that does not run.
struct OfRestarted {
    app: Name,
    listener: Listener,
    /// The app is not started after all, so clients are refused already.
    is_refusing: bool,
}

/// Listeners of apps that do not run and will be started.
#[derive(Default)]
pub(super) struct Held {
    listeners: Vec<OfRestarted>,
}

impl Held {
    /// The apps of held listeners that the new plan opens only with the start of a worker.
    pub(super) fn no_longer_staying(&self, new: &Plan) -> BTreeSet<Name> {
        let opened_late = |held: &OfRestarted| {
            let mut listeners = new.listeners.iter();
            listeners.any(|it| it.address == held.listener.address && !it.stays_open)
        };
        let held = self.listeners.iter().filter(|held| opened_late(held));
        held.map(|held| held.app.clone()).collect()
    }

    /// A new plan takes the place of the `old` one. Returns the listeners to keep: those of the new plan, and what is held.
    pub(super) fn take_over(
        &mut self,
        old: Option<&Plan>,
        new: &Plan,
        choices: &Choices,
    ) -> Vec<Listener> {
        for listener in old.iter().flat_map(|plan| &plan.listeners) {
            let app = old.and_then(|plan| plan.app_at(&listener.address));
            // The clients of others are refused at once.
            if let Some(app) = app.filter(|_| listener.stays_open) {
                self.listeners.push(OfRestarted {
                    app: app.into(),
                    listener: listener.clone(),
                    is_refusing: false,
                });
            }
        }
        self.listeners.retain(|held| {
            let mut listeners = new.listeners.iter();
            let is_new = listeners.any(|it| it.address == held.listener.address);
            held.is_wanted(choices) && !new.runs(&held.app) && !is_new
        });
        let held = self.listeners.iter().map(|held| &held.listener);
        new.listeners.iter().chain(held).cloned().collect()
    }
}

impl OfRestarted {
    fn is_wanted(&self, choices: &Choices) -> bool {
        !self.is_refusing && choices.will_start(&self.app)
    }
}

impl<W: World> Master<W> {
    /// Closes the listeners of apps that will not be started after all.
    pub(super) fn close_held(&mut self) {
        let mut held = self.held.listeners.iter();
        if held.all(|held| held.is_wanted(&self.choices)) || self.is_stopping() {
            return;
        }
        if self.preparation.candidate().is_some() {
            self.refuse_clients_of_held();
            return;
        }
        let Some(plan) = &self.current else {
            return;
        };
        let keep = self.held.take_over(None, plan, &self.choices);
        let (closed, _) = self.turn.world.keep_listeners(&keep);
        for address in closed {
            info!("{}", report::no_longer_listening(&address));
        }
    }

    /// Which addresses become free is decided when the candidate has taken over or failed. Until then their clients are refused.
    fn refuse_clients_of_held(&mut self) {
        let candidate = self.preparation.candidate();
        let proposed = candidate.into_iter().flat_map(|it| &it.plan.listeners);
        let proposed: BTreeSet<_> = proposed.map(|listener| &listener.address).collect();
        let generation = self.release.current().unwrap_or_default();
        for held in &mut self.held.listeners {
            let address = &held.listener.address;
            if held.is_wanted(&self.choices) || proposed.contains(address) {
                continue;
            }
            held.is_refusing = true;
            for address in self.turn.world.close_for_now(&[address], generation) {
                info!("app={}: not listening on {address}", held.app);
            }
        }
    }
}
