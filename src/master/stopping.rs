//! Tells the apps to end while the master stops, in their order.

use log::info;

use super::Master;
use super::stop_order::{self, StopOrder};
use super::workers::App;
use super::world::World;
use crate::release::Name;
use crate::supervisor::Event;

impl<W: World> Master<W> {
    /// The order of a stop that begins now. An app that has no workers, is paused or is no longer configured waits for none.
    pub(super) fn order_of_stop(&self) -> StopOrder {
        let Some(plan) = self.plan() else {
            return StopOrder::default();
        };
        let apps = self.workers.configured();
        let running = apps.filter(|(name, app)| {
            has_workers(app) && !app.supervisor.is_paused() && plan.apps.contains_key(&***name)
        });
        let running = running.map(|(name, _)| name.clone()).collect();
        StopOrder::new(&stop_order::before(plan), running)
    }

    /// Tells all apps to end, apart from those that wait for their turn. These continue with what serves.
    pub(super) fn tell_to_stop(&mut self, event: &Event) {
        for (name, behind) in self.stop_order.waiting() {
            let running = |name: &&Name| self.workers.apps.get(*name).is_some_and(has_workers);
            let behind: Vec<_> = behind.iter().filter(running).map(|name| &**name).collect();
            if !behind.is_empty() {
                let behind = behind.join(", ");
                info!("app={name}: ends after the apps that come after it ({behind})");
            }
        }
        for name in self.workers.names() {
            if !self.stop_order.is_waiting(&name) {
                self.turn.queue_event(&name, event.clone());
            } else if self.workers.serving {
                self.turn.queue_event(&name, Event::Rollback);
            }
        }
    }

    /// Tells the apps to end for which all apps after them have ended, with everything that these have started. Returns whether
    /// there are any.
    pub(super) fn stop_next(&mut self) -> bool {
        let (workers, templates, leftovers) = (&self.workers, &self.templates, &self.leftovers);
        let due = self.stop_order.take_due(|name| {
            let app = workers.apps.get(name);
            app.is_none_or(|app| app.ended) && !templates.has_of(name) && !leftovers.has_of(name)
        });
        for name in &due {
            self.turn.queue_event(name, Event::Stop);
        }
        if !due.is_empty() {
            self.end_templates();
        }
        !due.is_empty()
    }

    /// Ends the templates of all apps that were told to end.
    pub(super) fn end_templates(&mut self) {
        for key in self.templates.keys() {
            if !self.stop_order.is_waiting(&key.0) {
                self.workers
                    .end_template(&mut self.turn, &mut self.templates, &key);
            }
        }
    }
}

fn has_workers(app: &App) -> bool {
    let counts = app.supervisor.counts();
    counts.ready + counts.starting + counts.leaving > 0
}
