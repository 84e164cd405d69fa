//! Workers that get no requests any more, and are told to end when no worker of the front has one at them.
//!
//! The front tells nobody when a request has ended, so its shared memory is looked at, at growing intervals, only while there are such
//! workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::info;

use super::Workers;
use crate::master::report;
use crate::master::timers::Timers;
use crate::master::turn::Turn;
use crate::master::world::World;
use crate::release::Name;
use crate::supervisor::{Event, Reason, WorkerId};

/// The first and the longest time between two looks: a worker is told later by the latter at most, and a
/// thousand workers that wait cost little.
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);
/// Workers that are looked at in a turn.
const MOST_LOOKS: usize = 64;

/// The workers that are waited for.
#[derive(Default)]
pub(super) struct Quiet {
    waiting: BTreeMap<(Name, WorkerId), Waiting>,
    looks: Timers<(Name, WorkerId)>,
}

/// A worker that is waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its name in the log.
    tag: String,
    reason: Reason,
    address: String,
    since: Instant,
    /// The time to the next look.
    pause: Duration,
    /// The log says that it is waited for.
    said: bool,
}

impl Quiet {
    /// When the next worker is to be looked at.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looks.next()
    }

    /// A worker is told to end now, or has ended.
    pub(super) fn forget(&mut self, app: &Name, worker: WorkerId) -> Option<Waiting> {
        let key = (app.clone(), worker);
        self.looks.set(key.clone(), None);
        self.waiting.remove(&key)
    }
}

impl Workers {
    /// Tells the supervisor when no request runs at a worker that was taken out.
    pub(in crate::master) fn take_out<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        app: &Name,
        worker: WorkerId,
        reason: Reason,
    ) {
        let pid = self.children.pid(app, worker);
        let child = pid.and_then(|pid| Some((pid, self.children.get(pid)?)));
        let found = child.and_then(|(pid, child)| {
            let address = super::fronts::own_address(turn, pid, child)?;
            Some((address, report::Tag(child, pid).to_string()))
        });
        let Some((address, tag)) = found else {
            return turn.queue_event(app, Event::Quiet(worker));
        };
        let key = (app.clone(), worker);
        let waiting = Waiting {
            tag,
            reason,
            address,
            since: turn.now,
            pause: FIRST,
            said: false,
        };
        self.quiet.waiting.insert(key.clone(), waiting);
        self.look_whether_quiet(turn, key);
    }

    /// Looks at the workers whose time has come.
    pub(in crate::master) fn look_for_quiet<W: World>(&mut self, turn: &mut Turn<W>) {
        for _ in 0..MOST_LOOKS {
            let Some(key) = self.quiet.looks.take_one_due(turn.now) else {
                return;
            };
            self.look_whether_quiet(turn, key);
        }
    }

    fn look_whether_quiet<W: World>(&mut self, turn: &mut Turn<W>, key: (Name, WorkerId)) {
        let Some(waiting) = self.quiet.waiting.get_mut(&key) else {
            return;
        };
        match turn.world.requests_at(&key.0, &waiting.address) {
            Some(0) => {
                self.quiet.waiting.remove(&key);
                return turn.queue_event(&key.0, Event::Quiet(key.1));
            }
            Some(number) if !waiting.said => {
                waiting.said = true;
                info!(
                    "{}: takes no more requests of sites; telling it to end when those that it has are answered ({number} now; {})",
                    waiting.tag,
                    report::reason(waiting.reason)
                );
            }
            _ => {}
        }
        let next = turn.now + waiting.pause;
        waiting.pause = (waiting.pause * 2).min(LONGEST);
        self.quiet.looks.set(key, Some(next));
    }

    /// A worker is told to end. Says so if requests still run at it.
    pub(super) fn is_told<W: World>(&mut self, turn: &Turn<W>, app: &Name, worker: WorkerId) {
        if let Some(waiting) = self.quiet.forget(app, worker)
            && waiting.said
        {
            let waited = report::short(turn.now.saturating_duration_since(waiting.since));
            info!(
                "{}: requests of sites still run there after {waited}; telling it to end all the same",
                waiting.tag
            );
        }
    }
}
