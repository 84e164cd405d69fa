//! The listeners of apps that are being restarted: they stay open, so that clients wait until the app runs again, and nobody can take the
//! address meanwhile. An init system that keeps descriptors holds a closed one for a while, and the address with it.

use log::info;

use super::Master;
use super::choices::Choices;
use super::world::World;
#[cfg(test)]
use crate::config::Address;
use crate::plan::{Listener, Plan};
use crate::release::Name;

/// Listeners of apps that do not run and will be started.
#[derive(Default)]
pub(super) struct Held {
    listeners: Vec<(Name, Listener)>,
}

impl Held {
    /// Whether it is one of those.
    #[cfg(test)]
    pub(super) fn has(&self, address: &Address) -> bool {
        let mut held = self.listeners.iter();
        held.any(|(_, listener)| listener.address == *address)
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
                self.listeners.push((app.into(), listener.clone()));
            }
        }
        let is_new = |held: &Listener| new.listeners.iter().any(|it| it.address == held.address);
        self.listeners
            .retain(|(app, held)| choices.will_start(app) && !new.runs(app) && !is_new(held));
        let held = self.listeners.iter().map(|(_, listener)| listener);
        new.listeners.iter().chain(held).cloned().collect()
    }
}

impl<W: World> Master<W> {
    /// Closes the listeners of apps that will not be started after all.
    pub(super) fn close_held(&mut self) {
        let will_start = |(app, _): &(Name, Listener)| self.choices.will_start(app);
        if self.held.listeners.iter().all(will_start)
            // It closes them when it takes over, or this is done when it has failed.
            || self.preparation.candidate().is_some()
            || self.is_stopping()
        {
            return;
        }
        let Some(plan) = &self.current else {
            return;
        };
        let keep = self.held.take_over(None, plan, &self.choices);
        let (closed, _) = self.turn.world.keep_listeners(&keep);
        for address in closed {
            info!("no longer listening on {address}");
        }
    }
}
