//! Which worker is replaced by a fresh one next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::backoff::{self, Backoff};
use super::worker::State;
use super::{Supervisor, Wish, WorkerId};

/// The first wait between workers that are replaced because they became too large soon.
const FIRST: Duration = Duration::from_secs(1);

/// Workers to recycle, one at a time.
#[derive(Debug)]
pub(super) struct Recycling {
    due: BTreeSet<WorkerId>,
    /// Those that became too large soon after their start. A fresh one may do the same, so each waits longer than the one before.
    soon: BTreeSet<WorkerId>,
    pace: Backoff,
}

impl Recycling {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            due: BTreeSet::new(),
            soon: BTreeSet::new(),
            pace: Backoff::new(seed),
        }
    }

    pub(super) fn insert(&mut self, id: WorkerId) {
        self.due.insert(id);
    }

    pub(super) fn insert_soon(&mut self, id: WorkerId) {
        self.soon.insert(id);
    }

    pub(super) fn remove(&mut self, id: WorkerId) {
        self.due.remove(&id);
        self.soon.remove(&id);
    }

    /// Another generation takes over: its workers may need less.
    pub(super) fn begin_anew(&mut self) {
        self.pace.clear();
    }

    /// When the next of those that became too large soon may be replaced.
    fn not_before(&self) -> Option<Instant> {
        self.soon.first().and(self.pace.not_before())
    }

    /// The next one, and whether it became too large soon.
    fn take(&mut self, now: Instant) -> Option<(WorkerId, bool)> {
        if let Some(id) = self.due.pop_first() {
            return Some((id, false));
        }
        if self.not_before().is_some_and(|at| now < at) {
            return None;
        }
        self.soon.pop_first().map(|id| (id, true))
    }

    fn note_replaced_soon(&mut self, now: Instant, pace: &backoff::Policy) {
        let last = self.pace.last_failure();
        // Nothing has happened for longer than the longest wait: those before it do not count.
        if last.is_some_and(|at| now.saturating_duration_since(at) > pace.most * 2) {
            self.pace.clear();
        }
        self.pace.note_missing(now, pace);
    }
}

impl Supervisor {
    /// Recycles one worker at a time, and only if everything else is in order.
    pub(super) fn recycle_next(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        if !self.may_recycle() {
            return;
        }
        let (generation, pace) = (current.generation, current.policy.backoff);
        let pace = backoff::Policy {
            first: FIRST.min(pace.most),
            ..pace
        };
        while let Some((id, soon)) = self.recycling.take(now) {
            if let Some(worker) = self.roster.get(id)
                && let State::Ready { since, .. } = worker.state
                && worker.generation == generation
            {
                if soon {
                    self.recycling.note_replaced_soon(now, &pace);
                }
                return self.roster.set(id, State::Ready { since, stale: true });
            }
        }
    }

    /// When a worker may be recycled that has to wait.
    pub(super) fn recycles_at(&self) -> Option<Instant> {
        let at = self.recycling.not_before()?;
        self.may_recycle().then_some(at)
    }

    fn may_recycle(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let tally = self.roster.tally(current.generation);
        let wanted = current.to_run(tally);
        let complete = self.roster.ready() == wanted && self.roster.active() == wanted;
        let calm = self.wish == Wish::Run && self.backoff.last_failure().is_none();
        let replaces = self.candidate.is_some() || tally.stale > 0;
        complete && calm && !replaces
    }
}
