//! Apps whose workers end before those of other apps start: what each of them holds, such as a port, another one may need.

use std::collections::{BTreeMap, BTreeSet};

use log::info;

use super::Master;
use super::world::World;
use crate::plan::Plan;
use crate::release::{Fact, Generation, Name};
use crate::supervisor::Event;

/// The displaced apps that start again when all workers of the candidates have ended that were rolled back, each with their generations:
/// one that is rolled back next may have no worker while those of an earlier one still end.
#[derive(Default)]
pub(super) struct Displaced(BTreeMap<Name, Ending>);

/// What an app waits for.
#[derive(Default)]
struct Ending {
    failed: BTreeSet<Generation>,
    /// It starts again then. Otherwise another candidate decides, and if that is rolled back, these generations are waited for, too.
    restores: bool,
}

impl Displaced {
    /// An app does not start again for now: it has another candidate, or is removed.
    pub(super) fn suspend(&mut self, name: &Name) {
        if let Some(ending) = self.0.get_mut(name) {
            ending.restores = false;
        }
    }
}

impl<W: World> Master<W> {
    /// The apps that a candidate does not have, and of which the old workers end before new ones start; also those that were removed
    /// before and still end.
    pub(super) fn ending(&self, candidate: &Plan) -> BTreeSet<Name> {
        let apps = self.workers.apps.iter();
        let ending = apps.filter(|(name, app)| {
            !candidate.apps.contains_key(&***name) && app.supervisor.stops_first()
        });
        ending.map(|(name, _)| name.clone()).collect()
    }

    /// Ends the workers of an app that the candidate does not have.
    pub(super) fn displace(&mut self, generation: Generation, name: &Name) {
        self.displaced.suspend(name);
        match self.workers.apps.get(name) {
            Some(app) if !app.removed => {
                let candidate = self.preparation.candidate();
                let why = candidate.map_or("", |candidate| why_removed(&candidate.plan, name));
                info!(
                    "app={name}: {why}; its workers end before others start that may need what they hold"
                );
                self.turn.queue_event(name, Event::Displace(generation));
            }
            // It is reported when it is forgotten.
            Some(_) => {}
            None => self.has_gone(name),
        }
    }

    /// Nothing is left of an app that was removed.
    pub(super) fn has_gone(&mut self, name: &Name) {
        if let Some(candidate) = self.release.candidate() {
            let gone = Fact::Proven(name.clone(), candidate);
            self.turn.queue_fact(gone);
        }
    }

    /// Drops the candidate of an app. If that has displaced the running generation, this starts again when no worker of the candidate is
    /// left in any such app.
    pub(super) fn roll_back(&mut self, name: &Name) {
        let app = self.workers.apps.get(name).map(|app| &app.supervisor);
        // What another app has failed at does not end the pause of this one. A task takes part without being named.
        let takes_part = app.is_some_and(|app| app.has_candidate());
        if !takes_part && !self.choices.scope().includes(name) {
            return;
        }
        let is_displaced = app.is_some_and(|app| app.is_displaced());
        let event = match is_displaced {
            true => {
                let failed = self.release.next() - 1;
                let displaced = self.displaced.0.entry(name.clone()).or_default();
                displaced.failed.insert(failed);
                displaced.restores = true;
                Event::Withdraw
            }
            false => Event::Rollback,
        };
        self.turn.queue_event(name, event);
    }

    /// Starts displaced apps again when nothing is left that may hold what they need. Returns whether there are any.
    pub(super) fn restore_displaced(&mut self) -> bool {
        let apps = &self.workers.apps;
        let is_in_use = |failed: &Generation| {
            let mut apps = apps.values();
            apps.any(|app| app.supervisor.has_workers_alone(*failed))
        };
        let (turn, mut any) = (&mut self.turn, false);
        self.displaced.0.retain(|name, ending| {
            ending.failed.retain(is_in_use);
            let waits = !ending.failed.is_empty();
            if !waits && ending.restores {
                turn.queue_event(name, Event::Restore);
                any = true;
            }
            waits
        });
        any
    }
}

/// Why a plan does not have an app.
pub(super) fn why_removed(plan: &Plan, name: &str) -> &'static str {
    match plan.stopped.contains(name) {
        true => "stopped",
        false => "no longer configured",
    }
}
