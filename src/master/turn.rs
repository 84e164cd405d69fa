//! One turn of the loop, as its owners see it: the world, one `now`, and what is still to be told to whom.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::release::{self, Name};
use crate::supervisor::Event;

/// The world and what has happened in it that nobody was told yet.
pub(super) struct Turn<W> {
    pub(super) world: W,
    /// The time of this turn; it does not move while the turn lasts.
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

    /// Something that an app's supervisor is to be told.
    pub(super) fn tell(&mut self, app: &Name, event: Event) {
        match self.events.get_mut(app) {
            Some(events) => events.push(event),
            None => {
                self.events.insert(app.clone(), vec![event]);
            }
        }
    }

    /// Something that the release is to be told.
    pub(super) fn report(&mut self, fact: release::Fact) {
        self.facts.push_back(fact);
    }

    /// All that one app's supervisor is to be told.
    pub(super) fn next_events(&mut self) -> Option<(Name, Vec<Event>)> {
        self.events.pop_first()
    }

    /// What the release is told next.
    pub(super) fn next_fact(&mut self) -> Option<release::Fact> {
        self.facts.pop_front()
    }
}
