//! One turn of the loop, as its owners see it: the world, one `now`, and the queued events and facts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::release::{self, Name};
use crate::supervisor::Event;

/// The world, and events in it that were not handled yet.
pub(super) struct Turn<W> {
    pub(super) world: W,
    /// The time of this turn. It does not change during the turn.
    pub(super) now: Instant,
    events: BTreeMap<Name, Vec<Event>>,
    facts: VecDeque<release::Fact>,
}

impl<W> Turn<W> {
    pub(super) fn new(world: W, now: Instant) -> Self {
        Self {
            world,
            now,
            events: BTreeMap::new(),
            facts: VecDeque::new(),
        }
    }

    /// Queues an event for an app's supervisor.
    pub(super) fn queue_event(&mut self, app: &Name, event: Event) {
        match self.events.get_mut(app) {
            Some(events) => events.push(event),
            None => {
                self.events.insert(app.clone(), vec![event]);
            }
        }
    }

    /// Queues a fact for the release.
    pub(super) fn queue_fact(&mut self, fact: release::Fact) {
        self.facts.push_back(fact);
    }

    /// The queued events of one app.
    pub(super) fn next_events(&mut self) -> Option<(Name, Vec<Event>)> {
        self.events.pop_first()
    }

    /// The next queued fact.
    pub(super) fn next_fact(&mut self) -> Option<release::Fact> {
        self.facts.pop_front()
    }
}
