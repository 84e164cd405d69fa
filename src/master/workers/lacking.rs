//! Workers that are not started, because something is missing that their app needs: a listener, or what the configuration names.

use std::time::Instant;

use log::{debug, error, info};

use super::{Spawn, Workers};
use crate::master::report;
use crate::master::turn::Turn;
use crate::master::world::World;
use crate::plan;
use crate::release::{Fact, Generation};
use crate::supervisor::Event;

/// Why the latest worker of an app was not started.
pub(in crate::master) struct NotStarted {
    pub(in crate::master) why: String,
    generation: Generation,
    at: Instant,
}

impl Workers {
    /// Whether a worker has all that it needs. Otherwise its supervisor is told: it waits for a listener with backoff, and for anything
    /// else until the next reload.
    pub(super) fn has_all<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        spawn: &Spawn,
        plan: &plan::App,
    ) -> bool {
        let (worker, generation) = (spawn.worker, spawn.generation);
        let (end, why, consequence) = match &plan.unfit {
            Some(why) => (
                Event::Hopeless(worker),
                why.clone(),
                format!("not started until {}", report::again(&spawn.app)),
            ),
            None => match self.open_listeners(turn, spawn, plan) {
                Ok(()) => {
                    if let Some(app) = self.apps.get_mut(&spawn.app) {
                        app.not_started = None;
                    }
                    return true;
                }
                Err(why) => (Event::Missing(worker), why, "retrying".to_owned()),
            },
        };
        let is_first = self.is_first(generation);
        if let Some(app) = self.apps.get_mut(&spawn.app) {
            let (known, name) = (app.not_started.as_ref(), &spawn.app);
            // The other workers lack the same, and later attempts perhaps.
            let is_new = |known: &NotStarted| known.generation != generation || known.why != why;
            if known.is_none_or(is_new) {
                match is_first && !app.is_installed() {
                    true => error!("app={name} gen={generation}: {why}"),
                    false => error!("app={name} gen={generation}: {why}; {consequence}"),
                }
            }
            app.not_started = Some(NotStarted {
                why: why.clone(),
                generation,
                at: turn.now,
            });
        }
        turn.queue_fact(Fact::Reason(spawn.app.clone(), generation, why));
        turn.queue_event(&spawn.app, end);
        false
    }

    /// Opens the listeners that are not open. Those of a required app are, unless it has waited for what an earlier master has left.
    fn open_listeners<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        spawn: &Spawn,
        plan: &plan::App,
    ) -> Result<(), String> {
        let (name, generation) = (&spawn.app, spawn.generation);
        let tried = self.apps.get(name).and_then(|app| app.not_started.as_ref());
        let tried = tried.filter(|last| last.generation == generation && last.at == turn.now);
        if let Some(last) = tried {
            return Err(last.why.clone());
        }
        let app = self.apps.get(name);
        let was_missing = app.is_some_and(|app| app.not_started.is_some());
        let mut opened = Vec::new();
        for (_, address) in &plan.sockets {
            let is_new = turn.world.open_missing_listener(address, generation);
            if is_new.map_err(|not_opened| not_opened.why)? {
                opened.push(address.clone());
            }
        }
        for address in &opened {
            match was_missing {
                true => info!("app={name} gen={generation}: {address} could be opened now"),
                false => debug!("app={name} gen={generation}: listening on {address}"),
            }
        }
        self.opened.extend(opened);
        Ok(())
    }
}
