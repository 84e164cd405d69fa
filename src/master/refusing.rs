//! Apps that are not required and have no worker: their listeners are closed until the next attempt to start one, so that clients are
//! refused at once and need not wait for nobody.
//!
//! What has served keeps its listeners while it is tried again, like any other app: that is an interruption, and its clients may wait.

use log::info;

use super::Master;
use super::workers::App;
use super::world::World;
use crate::config::Address;
use crate::plan;
use crate::release::Name;

impl<W: World> Master<W> {
    /// Closes the listeners of apps of which no worker is about to start.
    pub(super) fn refuse_clients(&mut self) {
        if self.is_stopping() {
            return;
        }
        let now = self.turn.now;
        let idle = self.workers.configured().filter(|(name, app)| {
            // What is left of its workers holds the sockets, too.
            is_idle(app, now) && !self.templates.has_of(name) && !self.leftovers.has_of(name)
        });
        let idle = idle.filter(|(_, app)| !self.is_prepared_for(app));
        let idle: Vec<_> = idle.map(|(name, _)| name.clone()).collect();
        for name in idle {
            self.refuse_clients_of(&name);
        }
    }

    /// Whether the candidate has a listener of this app, whichever app it is for then: it was open already when the candidate was prepared.
    fn is_prepared_for(&self, app: &App) -> bool {
        let candidate = self.preparation.candidate();
        let wanted = candidate.map_or(&[][..], |candidate| &candidate.plan.listeners);
        let Some((_, plan)) = app.current() else {
            return false;
        };
        let mut sockets = plan.sockets.iter();
        sockets.any(|(_, address)| wanted.iter().any(|listener| listener.address == *address))
    }

    fn refuse_clients_of(&mut self, name: &Name) {
        let Some(app) = self.workers.apps.get_mut(name) else {
            return;
        };
        app.refuses = true;
        let Some((generation, plan)) = app.current() else {
            return;
        };
        let addresses: Vec<&Address> = plan.sockets.iter().map(|(_, address)| address).collect();
        let closed = self.turn.world.close_for_now(&addresses, generation);
        for address in &closed {
            self.ignored.closed(address);
        }
        let is_new = app.refused_in.replace(generation) != Some(generation);
        if is_new && !closed.is_empty() {
            let closed: Vec<_> = closed.iter().map(Address::to_string).collect();
            let closed = closed.join(", ");
            info!("app={name} gen={generation}: not listening on {closed} while no worker runs");
        }
    }
}

/// Whether no worker of an app runs or is about to be started, apart from the next attempt.
fn is_idle(app: &App, now: std::time::Instant) -> bool {
    let (supervisor, counts) = (&app.supervisor, app.supervisor.counts());
    // The load that a listener reports starts workers.
    let may_be = |plan: &plan::App| !plan.required && plan.policy.range.is_none();
    let is_held = supervisor.is_held() || app.waits.is_some();
    let waits = supervisor.retry_at().is_some_and(|at| at > now) && supervisor.lacks_workers();
    !app.refuses
        && counts.ready + counts.starting + counts.leaving == 0
        && (supervisor.is_given_up() || app.installed && (waits || is_held))
        && !supervisor.is_paused()
        && !supervisor.has_candidate()
        && !supervisor.is_displaced()
        && app.current().is_some_and(|(_, plan)| may_be(plan))
}
