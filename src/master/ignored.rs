//! Listeners that nobody accepts from: a program that does not know of its listener, or that does not keep up.
//!
//! The next connection to a listener of a `command` app wakes the master once; then it looks at the accept queue until that is empty, and
//! waits for a connection again. So an idle app costs nothing, and a busy one a look each second. (A worker of ours accepts from its
//! listeners. For apps whose number of workers follows the load, [`super::load`] waits for connections. The length of a unix socket's queue
//! is not known.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::warn;

use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::workers::Workers;
use super::world::World;
use crate::config::Address;
use crate::plan::Plan;
use crate::release::Name;

/// The interval of looks at a queue in which connections wait.
const TICK: Duration = Duration::from_secs(1);

/// Connections that wait for this time without that any of them is accepted are worth a warning.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same where none was ever seen to be accepted: the program hardly knows of its listener.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(2);

/// A queue that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queue {
    length: u32,
    since: Instant,
    /// How long that may be.
    patience: Duration,
    /// It was warned of, once until it is empty.
    warned: bool,
}

impl Queue {
    /// The queue some time later, when this many connections wait.
    fn later(self, length: u32, now: Instant) -> Self {
        let (since, patience) = match length < self.length {
            true => (now, PATIENCE),
            false => (self.since, self.patience),
        };
        Self {
            length,
            since,
            patience,
            ..self
        }
    }

    fn is_ignored(&self, now: Instant) -> bool {
        !self.warned && now.saturating_duration_since(self.since) >= self.patience
    }
}

/// The listeners that are watched.
#[derive(Default)]
pub(super) struct Ignored {
    apps: BTreeMap<Address, Name>,
    queues: BTreeMap<Address, Queue>,
    /// Those whose queue was seen to shrink.
    accepted: BTreeSet<Address>,
    looks: Timers<Address>,
}

impl Ignored {
    /// A configuration was committed: watches its listeners from now on.
    pub(super) fn follow<W: World>(&mut self, turn: &mut Turn<W>, plan: &Plan) {
        self.stop(turn);
        for (name, app) in &plan.apps {
            let knows = app.threads.is_some() || app.policy.range.is_some();
            for (_, address) in app.sockets.iter().filter(|_| !knows) {
                if matches!(address, Address::Tcp(_)) {
                    self.apps.insert(address.clone(), name.as_str().into());
                    turn.world.watch_listener(address, true);
                }
            }
        }
    }

    /// Watches no listener any more, because one is about to be closed.
    pub(super) fn stop<W: World>(&mut self, turn: &mut Turn<W>) {
        for address in self.apps.keys() {
            turn.world.watch_listener(address, false);
        }
        *self = Self::default();
    }

    /// A listener was closed for now, and is watched no more.
    pub(super) fn closed(&mut self, address: &Address) {
        self.queues.remove(address);
        self.looks.set(address.clone(), None);
    }

    /// A listener was opened after its configuration was committed.
    pub(super) fn opened<W: World>(&self, turn: &mut Turn<W>, address: &Address) {
        if self.apps.contains_key(address) {
            turn.world.watch_listener(address, true);
        }
    }

    /// A connection waits at a listener. Returns false if it is not watched here.
    pub(super) fn connection_waits<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        address: &Address,
    ) -> bool {
        if !self.apps.contains_key(address) {
            return false;
        }
        turn.world.watch_listener(address, false);
        let queue = Queue {
            length: turn.world.accept_queue(address).unwrap_or(0),
            since: turn.now,
            patience: match self.accepted.contains(address) {
                true => PATIENCE,
                false => PATIENCE_AT_FIRST,
            },
            warned: false,
        };
        self.queues.insert(address.clone(), queue);
        self.looks.set(address.clone(), Some(turn.now + TICK));
        true
    }

    /// Looks at the queues that are due.
    pub(super) fn look<W: World>(&mut self, turn: &mut Turn<W>, workers: &Workers) {
        for address in self.looks.take_due(turn.now) {
            let (Some(name), Some(queue)) =
                (self.apps.get(&address), self.queues.get_mut(&address))
            else {
                continue;
            };
            let length = turn.world.accept_queue(&address).unwrap_or(0);
            if length < queue.length {
                self.accepted.insert(address.clone());
            }
            if length == 0 {
                self.queues.remove(&address);
                turn.world.watch_listener(&address, true);
                continue;
            }
            *queue = queue.later(length, turn.now);
            let ready = workers.apps.get(name);
            if ready.is_none_or(|app| app.supervisor.counts().ready == 0) {
                queue.since = turn.now;
            }
            if queue.is_ignored(turn.now) {
                queue.warned = true;
                let time = report::short(queue.patience);
                warn!(
                    "app={name}: connections wait at {address} ({length}), and not fewer than {time} ago: its workers do not keep up, or the program ignores its listener (it gets it as a descriptor: LISTEN_FDS, {{fd}})"
                );
            }
            self.looks.set(address, Some(turn.now + TICK));
        }
    }

    /// When the next look is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looks.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_ignored_when_it_does_not_shrink_for_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let queue = Queue {
            length: 2,
            since: start,
            patience: PATIENCE,
            warned: false,
        };
        let grown = queue.later(2, at(1)).later(3, at(4));
        assert!(!grown.is_ignored(at(4)));
        assert!(grown.is_ignored(at(5)));
        let served = grown.later(2, at(5));
        assert!(!served.is_ignored(at(9)));
        assert!(served.later(9, at(10)).is_ignored(at(10)));
        let warned = Queue {
            warned: true,
            ..grown
        };
        assert!(!warned.is_ignored(at(60)));
        let first = Queue {
            patience: PATIENCE_AT_FIRST,
            ..queue
        };
        assert!(first.later(2, at(2)).is_ignored(at(2)));
        assert!(!first.later(1, at(2)).is_ignored(at(6)));
    }
}
