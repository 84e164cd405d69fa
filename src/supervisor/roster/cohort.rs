//! Indexes over the workers of one generation.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use super::super::worker::{State, Worker};
use super::super::{Slot, WorkerId};
use super::{Done, Tally};

/// The workers of one generation, by state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cohort {
    pub(super) slots: Slots,
    pub(super) starting: BTreeMap<Slot, WorkerId>,
    /// Ready, and not to be replaced.
    pub(super) fresh: BTreeMap<Slot, WorkerId>,
    /// Ready, and to be replaced by a new worker.
    pub(super) stale: BTreeMap<Slot, WorkerId>,
    /// All ready workers, by the time they became ready.
    ready_since: BTreeSet<(Instant, WorkerId)>,
    /// Workers that are ending and have not been killed.
    pub(super) ending: BTreeSet<WorkerId>,
    /// The number of workers that were killed and have not been reaped.
    killed: usize,
    /// The number of ending workers that may still accept requests.
    accepting: usize,
    /// The workers that have ended for good.
    pub(super) done: BTreeMap<Slot, Done>,
    /// The number of those that have failed.
    pub(super) failed: usize,
}

impl Cohort {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            starting: self.starting.len(),
            fresh: self.fresh.len(),
            stale: self.stale.len(),
            accepting: self.accepting,
            draining: !self.ending.is_empty() || self.killed > 0,
            finished: self.done.len() - self.failed,
            failed: self.failed,
        }
    }

    /// The number of workers in any state.
    pub(super) fn size(&self) -> usize {
        let ready = self.fresh.len() + self.stale.len();
        self.starting.len() + ready + self.ending.len() + self.killed
    }

    /// When the first of the workers became ready that did so after an instant and are still ready.
    pub(super) fn first_ready_after(&self, instant: Instant) -> Option<Instant> {
        let after = Bound::Excluded((instant, WorkerId(u64::MAX)));
        let mut later = self.ready_since.range((after, Bound::Unbounded));
        later.next().map(|(since, _)| *since)
    }

    pub(super) fn insert(&mut self, id: WorkerId, worker: &Worker) {
        match worker.state {
            State::Starting { .. } => {
                self.starting.insert(worker.slot, id);
            }
            State::Ready { since, stale } => {
                self.ready_map(stale).insert(worker.slot, id);
                self.ready_since.insert((since, id));
            }
            State::Killed { .. } => self.killed += 1,
            state => {
                self.ending.insert(id);
                self.accepting += usize::from(may_accept(state));
            }
        }
    }

    pub(super) fn remove(&mut self, id: WorkerId, worker: &Worker) {
        match worker.state {
            State::Starting { .. } => {
                self.starting.remove(&worker.slot);
            }
            State::Ready { since, stale } => {
                self.ready_map(stale).remove(&worker.slot);
                self.ready_since.remove(&(since, id));
            }
            State::Killed { .. } => self.killed -= 1,
            state => {
                self.ending.remove(&id);
                self.accepting -= usize::from(may_accept(state));
            }
        }
    }

    fn ready_map(&mut self, stale: bool) -> &mut BTreeMap<Slot, WorkerId> {
        match stale {
            true => &mut self.stale,
            false => &mut self.fresh,
        }
    }
}

fn may_accept(state: State) -> bool {
    matches!(
        state,
        State::Draining {
            may_accept_until: Some(_),
            ..
        }
    )
}

/// The taken slots of a generation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// The lowest slot above all taken ones.
    end: Slot,
    /// The free slots below `end`.
    free: BTreeSet<Slot>,
}

impl Slots {
    /// Takes the lowest free slot.
    pub(super) fn take(&mut self) -> Slot {
        self.free.pop_first().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    pub(super) fn release(&mut self, slot: Slot) {
        self.free.insert(slot);
        while self.end > 0 && self.free.remove(&(self.end - 1)) {
            self.end -= 1;
        }
    }

    /// Whether no slot is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Takes a given slot.
    #[cfg(test)]
    pub(super) fn take_exactly(&mut self, slot: Slot) {
        self.free.extend(self.end..slot);
        self.free.remove(&slot);
        self.end = self.end.max(slot + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_is_taken() {
        let mut slots = Slots::default();
        assert_eq!([0; 4].map(|_| slots.take()), [0, 1, 2, 3]);
        for slot in [2, 0, 3] {
            slots.release(slot);
        }
        assert_eq!([0; 3].map(|_| slots.take()), [0, 2, 3]);
        for slot in 0..4 {
            assert!(!slots.is_empty());
            slots.release(slot);
        }
        assert!(slots.is_empty());
        assert_eq!(slots, Slots::default());
    }
}
