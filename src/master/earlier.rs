//! Apps that wait because of an earlier master, which was killed or has crashed: its guard still ends what that has left of them. The
//! others start.

use std::time::{Duration, Instant};

use log::{debug, info};

use super::workers::App;
use super::world::{Killed, Left, NotOpened, World};
use super::{Master, report};
use crate::release::{Fact, Generation, Name};
use crate::supervisor::Event;

/// How often to look what is left. No event tells it.
pub(super) const EVERY: Duration = Duration::from_millis(50);

/// What an app waits for, and since when.
pub(super) struct Waits {
    pub(super) killed: Killed,
    since: Instant,
    /// For all of its processes, as a worker has failed beside them.
    pub(super) whole: bool,
}

/// When to look again, if apps wait.
#[derive(Default)]
pub(super) struct Earlier {
    next: Option<Instant>,
}

impl Earlier {
    /// Something waits.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.next.get_or_insert(now + EVERY);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

impl<W: World> Master<W> {
    /// Has an app wait, if something is in its way, before its supervisor is told of a new generation. One that this master has started
    /// need not.
    pub(super) fn wait_for_earlier(&mut self, name: &Name) {
        let app = self.workers.apps.get(name);
        let has_run = |app: &App| app.supervisor.generation().is_some() && app.waits.is_none();
        if app.is_some_and(has_run) {
            return;
        }
        let Some(killed) = self.in_the_way(name) else {
            return;
        };
        let now = self.turn.now;
        if let Some(app) = self.workers.apps.get_mut(name)
            && app.waits.is_none()
        {
            info!("app={name}: waiting for {killed}");
            let since = now;
            let whole = false;
            app.waits = Some(Waits {
                killed,
                since,
                whole,
            });
        }
        self.turn.queue_event(name, Event::EarlierLeft(true));
        self.earlier.look_again(now);
    }

    /// The first worker of an app has ended at the first start. If processes of the app are left of an earlier master, which may hold what it
    /// needs, such as a port, it is tried again when they have ended.
    pub(super) fn failed_beside(&mut self, name: &Name) -> Option<Killed> {
        let app = self.workers.apps.get(name)?;
        let is_tried = app.supervisor.generation().is_none() && self.release.current().is_none();
        if !is_tried || self.is_stopping() {
            return None;
        }
        let killed = self.turn.world.earlier_left(&Left::Whole(name))?;
        let (since, whole) = (self.turn.now, true);
        if let Some(app) = self.workers.apps.get_mut(name) {
            app.waits = Some(Waits {
                killed: killed.clone(),
                since,
                whole,
            });
        }
        self.earlier.look_again(since);
        Some(killed)
    }

    /// Whether an app waits.
    pub(super) fn waits_for_earlier(&self) -> bool {
        let waits = self.workers.apps.values().any(|app| app.waits.is_some());
        waits || self.preparation.waits()
    }

    /// Starts the apps that have waited long enough.
    pub(super) fn look_for_earlier(&mut self) {
        let now = self.turn.now;
        if self.earlier.next.take_if(|at| *at <= now).is_none() {
            return;
        }
        let waiting = self.workers.apps.iter();
        let waiting = waiting.filter(|(_, app)| app.waits.is_some());
        let waiting: Vec<Name> = waiting.map(|(name, _)| name.clone()).collect();
        for name in waiting {
            let killed = self.in_the_way(&name);
            let Some(app) = self.workers.apps.get_mut(&name) else {
                continue;
            };
            match (killed, &mut app.waits) {
                (Some(killed), Some(waits)) => {
                    waits.killed = killed;
                    self.earlier.look_again(now);
                }
                (_, waits) => {
                    if let Some(waits) = waits.take() {
                        let time = report::short(now.saturating_duration_since(waits.since));
                        info!("app={name}: waits no longer, after {time}");
                    }
                    self.turn.queue_event(&name, Event::EarlierLeft(false));
                }
            }
        }
        self.run_deferred();
        self.postpone_all();
    }

    /// Another release is requested during the first one: it need not wait for the apps that wait.
    fn postpone_all(&mut self) {
        let candidate = self.release.candidate();
        let is_wanted = self.release.is_wanted() && self.release.current().is_none();
        let Some(generation) = candidate.filter(|_| is_wanted) else {
            return;
        };
        for (name, app) in &self.workers.apps {
            if app.waits.is_some() && app.supervisor.generation().is_none() {
                let fact = Fact::Postponed(name.clone(), generation);
                self.turn.queue_fact(fact);
            }
        }
    }

    /// Makes the first generation the one of an app that waits, without proof.
    pub(super) fn postpone(&mut self, generation: Generation, name: &Name) {
        let app = self.workers.apps.get(name);
        let plan = app.and_then(|app| app.plans.get(&generation));
        if let Some(policy) = plan.map(|plan| plan.policy.clone()) {
            info!("app={name}: what was requested meanwhile does not wait for it");
            let installation = Event::Install(generation, policy);
            self.turn.queue_event(name, installation);
        }
    }

    /// An earlier master that has left something that is in the way of this app.
    fn in_the_way(&mut self, name: &Name) -> Option<Killed> {
        let world = &mut self.turn.world;
        world.earlier_left(&Left::Anything)?;
        let app = self.workers.apps.get(name).filter(|app| !app.removed)?;
        let (&generation, plan) = app.plans.last_key_value()?;
        let candidate = self.preparation.candidate();
        let whole = candidate.map(|candidate| &candidate.plan);
        let has_failed = app.waits.as_ref().is_some_and(|waits| waits.whole);
        let left = match whole.or(self.current.as_ref()) {
            _ if has_failed => Left::Whole(name),
            Some(whole) if !plan.policy.may_be_many() => Left::Alone(name, whole),
            _ => Left::Of(name),
        };
        if let Some(killed) = world.earlier_left(&left) {
            return Some(killed);
        }
        for (_, address) in &plan.sockets {
            match world.open_missing_listener(address, generation) {
                Ok(true) => self.workers.opened.push(address.clone()),
                Ok(false) => {}
                Err(NotOpened { why, holders, .. }) => {
                    debug!("app={name}: {why}");
                    // For a stranger nobody waits: the attempt to start a worker says who it is.
                    return world.earlier_left(&Left::Holding(&holders));
                }
            }
        }
        None
    }
}
