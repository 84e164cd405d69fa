//! The workers of an app, and the indexes that keep the cost of an event independent of their number.
//!
//! Every change of a worker goes through [`Roster::add`], [`Roster::set`] and [`Roster::remove`], which keep the
//! indexes. What is asked of the roster costs O(log n), or O(log n) for each worker in the answer, or O(1) for each
//! generation that has workers: these are few, as `max_draining` limits them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::worker::{Own, State, Worker};
use super::{Generation, Slot, WorkerId};

mod cohort;

use cohort::Cohort;

#[derive(Debug, Default)]
pub(super) struct Roster {
    workers: BTreeMap<WorkerId, Worker>,
    next_id: u64,
    index: Index,
    /// The number of workers and generations visited so far: the cost, independent of any clock.
    #[cfg(test)]
    visits: std::cell::Cell<u64>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    /// Only generations that have workers.
    cohorts: BTreeMap<Generation, Cohort>,
    /// When time alone changes a worker's state.
    due: BTreeSet<(Instant, WorkerId)>,
    starting: usize,
    ready: usize,
}

/// How a worker has ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Finished,
    Failed,
}

/// The number of workers of a generation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) starting: usize,
    /// Ready, and not to be replaced.
    pub(super) fresh: usize,
    /// Ready, and to be replaced by a new worker.
    pub(super) stale: usize,
    /// Those that are ending and may still accept requests.
    pub(super) accepting: usize,
    /// Whether workers are ending or were killed.
    pub(super) draining: bool,
    /// Those that have ended for good, in good order.
    pub(super) finished: usize,
    /// Those that have ended for good, and have failed.
    pub(super) failed: usize,
}

impl Tally {
    pub(super) fn ready(self) -> usize {
        self.fresh + self.stale
    }

    pub(super) fn active(self) -> usize {
        self.starting + self.ready()
    }

    pub(super) fn done(self) -> usize {
        self.finished + self.failed
    }
}

impl Index {
    fn insert(&mut self, id: WorkerId, worker: &Worker) {
        let cohort = self.cohorts.entry(worker.generation).or_default();
        cohort.insert(id, worker);
        self.due.extend(worker.state.due().map(|at| (at, id)));
        match worker.state {
            State::Starting { .. } => self.starting += 1,
            State::Ready { .. } => self.ready += 1,
            _ => {}
        }
    }

    fn remove(&mut self, id: WorkerId, worker: &Worker) {
        if let Some(cohort) = self.cohorts.get_mut(&worker.generation) {
            cohort.remove(id, worker);
        }
        if let Some(at) = worker.state.due() {
            self.due.remove(&(at, id));
        }
        match worker.state {
            State::Starting { .. } => self.starting -= 1,
            State::Ready { .. } => self.ready -= 1,
            _ => {}
        }
    }
}

impl Roster {
    /// Adds a worker in the lowest free slot of its generation.
    pub(super) fn add(
        &mut self,
        generation: Generation,
        state: State,
        own: Own,
    ) -> (WorkerId, Slot) {
        self.visit(1);
        let id = WorkerId(self.next_id);
        self.next_id += 1;
        let cohort = self.index.cohorts.entry(generation).or_default();
        let slot = cohort.slots.take();
        let worker = Worker {
            generation,
            slot,
            state,
            own,
        };
        self.index.insert(id, &worker);
        self.workers.insert(id, worker);
        (id, slot)
    }

    /// Sets the state of a worker.
    pub(super) fn set(&mut self, id: WorkerId, state: State) {
        self.visit(1);
        if let Some(worker) = self.workers.get_mut(&id) {
            self.index.remove(id, worker);
            worker.state = state;
            self.index.insert(id, worker);
        }
    }

    /// Removes a worker and frees its slot.
    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        self.visit(1);
        let worker = self.workers.remove(&id)?;
        self.index.remove(id, &worker);
        if let Some(cohort) = self.index.cohorts.get_mut(&worker.generation) {
            cohort.slots.release(worker.slot);
            if cohort.slots.is_empty() {
                self.index.cohorts.remove(&worker.generation);
            }
        }
        Some(worker)
    }

    /// Removes a worker that has ended for good, and keeps its slot.
    pub(super) fn finish(&mut self, id: WorkerId, done: Done) {
        self.visit(1);
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        self.index.remove(id, &worker);
        if let Some(cohort) = self.index.cohorts.get_mut(&worker.generation) {
            cohort.done.insert(worker.slot, done);
            cohort.failed += usize::from(done == Done::Failed);
        }
    }

    /// Frees the slots of the workers of a generation that have ended for good.
    pub(super) fn forget(&mut self, generation: Generation) {
        self.visit(1);
        if let Some(cohort) = self.index.cohorts.get_mut(&generation) {
            cohort.failed = 0;
            for slot in std::mem::take(&mut cohort.done).into_keys() {
                cohort.slots.release(slot);
            }
            if cohort.slots.is_empty() {
                self.index.cohorts.remove(&generation);
            }
        }
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<Worker> {
        self.visit(1);
        self.workers.get(&id).copied()
    }

    pub(super) fn state(&self, id: WorkerId) -> Option<State> {
        self.get(id).map(|worker| worker.state)
    }

    pub(super) fn is_ready(&self, id: WorkerId) -> bool {
        matches!(self.state(id), Some(State::Ready { .. }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The number of workers in any state.
    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// The number of workers of a generation in any state.
    pub(super) fn size_of(&self, generation: Generation) -> usize {
        self.visit(1);
        let cohort = self.index.cohorts.get(&generation);
        cohort.map_or(0, Cohort::size)
    }

    pub(super) fn starting(&self) -> usize {
        self.index.starting
    }

    pub(super) fn ready(&self) -> usize {
        self.index.ready
    }

    pub(super) fn active(&self) -> usize {
        self.index.starting + self.index.ready
    }

    /// Workers that are neither starting nor ready.
    pub(super) fn ending(&self) -> usize {
        self.workers.len() - self.active()
    }

    /// When time alone changes the state of a worker next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.index.due.first().map(|(at, _)| *at)
    }

    /// The workers whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<WorkerId> {
        let due = self.index.due.range(..=(now, WorkerId(u64::MAX)));
        self.counted(due.map(|(_, id)| *id)).collect()
    }

    /// All workers in any state.
    pub(super) fn all(&self) -> Vec<WorkerId> {
        self.counted(self.workers.keys().copied()).collect()
    }

    /// The number of workers of a generation.
    pub(super) fn tally(&self, generation: Generation) -> Tally {
        self.visit(1);
        let cohort = self.index.cohorts.get(&generation);
        cohort.map(Cohort::tally).unwrap_or_default()
    }

    /// The generations that have workers, oldest first.
    pub(super) fn generations(&self) -> impl Iterator<Item = (Generation, Tally)> {
        self.generations_before(Generation::MAX)
    }

    /// The generations older than `generation`, oldest first.
    pub(super) fn generations_before(
        &self,
        generation: Generation,
    ) -> impl Iterator<Item = (Generation, Tally)> {
        let cohorts = self.index.cohorts.range(..generation);
        self.counted(cohorts.map(|(&generation, cohort)| (generation, cohort.tally())))
    }

    /// All workers that are starting or ready, the oldest generation first.
    pub(super) fn all_active(&self) -> Vec<WorkerId> {
        let generations = self.generations();
        let active = generations.flat_map(|(generation, _)| self.active_of(generation));
        active.collect()
    }

    /// The workers of a generation that are starting or ready.
    pub(super) fn active_of(&self, generation: Generation) -> impl Iterator<Item = WorkerId> {
        let starting = self.starting_of(generation);
        starting.chain(self.ready_of(generation))
    }

    /// The starting workers of a generation, by slot.
    pub(super) fn starting_of(
        &self,
        generation: Generation,
    ) -> impl DoubleEndedIterator<Item = WorkerId> {
        let cohort = self.index.cohorts.get(&generation);
        let ids = cohort.into_iter().flat_map(|c| c.starting.values());
        self.counted(ids.copied())
    }

    /// The ready workers of a generation by slot; those to be replaced come last.
    pub(super) fn ready_of(&self, generation: Generation) -> impl Iterator<Item = WorkerId> {
        let fresh = self.fresh_of(generation);
        fresh.chain(self.stale_of(generation))
    }

    /// The ready workers of a generation that are not to be replaced, by slot.
    pub(super) fn fresh_of(
        &self,
        generation: Generation,
    ) -> impl DoubleEndedIterator<Item = WorkerId> {
        let cohort = self.index.cohorts.get(&generation);
        let ids = cohort.into_iter().flat_map(|c| c.fresh.values());
        self.counted(ids.copied())
    }

    /// The ready workers of a generation that are to be replaced, by slot.
    pub(super) fn stale_of(&self, generation: Generation) -> impl Iterator<Item = WorkerId> {
        let cohort = self.index.cohorts.get(&generation);
        let ids = cohort.into_iter().flat_map(|c| c.stale.values());
        self.counted(ids.copied())
    }

    /// The workers of a generation that are ending and have not been killed.
    pub(super) fn ending_of(&self, generation: Generation) -> impl Iterator<Item = WorkerId> {
        let cohort = self.index.cohorts.get(&generation);
        let ids = cohort.into_iter().flat_map(|c| c.ending.iter());
        self.counted(ids.copied())
    }

    /// When the first of the workers of a generation became ready that did so after an instant and are still ready.
    pub(super) fn first_ready_after(
        &self,
        generation: Generation,
        instant: Instant,
    ) -> Option<Instant> {
        self.visit(1);
        let cohort = self.index.cohorts.get(&generation)?;
        cohort.first_ready_after(instant)
    }

    /// Counts the elements taken from an index.
    fn counted<I: DoubleEndedIterator>(
        &self,
        items: I,
    ) -> impl DoubleEndedIterator<Item = I::Item> {
        items.inspect(|_| self.visit(1))
    }

    #[cfg(not(test))]
    fn visit(&self, _number: u64) {}

    #[cfg(test)]
    fn visit(&self, number: u64) {
        self.visits.set(self.visits.get() + number);
    }
}

#[cfg(test)]
impl Roster {
    pub(super) fn visits(&self) -> u64 {
        self.visits.get()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(&id, worker)| (id, worker))
    }

    /// Compares the indexes with a scan of all workers.
    pub(super) fn check(&self) {
        let mut scanned = Index::default();
        for (id, worker) in self.iter() {
            scanned.insert(id, worker);
            let cohort = scanned.cohorts.get_mut(&worker.generation);
            let cohort = cohort.expect("it was just inserted");
            cohort.slots.take_exactly(worker.slot);
        }
        for (generation, cohort) in &self.index.cohorts {
            for (&slot, &done) in &cohort.done {
                let cohort = scanned.cohorts.entry(*generation).or_default();
                cohort.slots.take_exactly(slot);
                cohort.done.insert(slot, done);
                cohort.failed += usize::from(done == Done::Failed);
            }
        }
        assert_eq!(self.index, scanned);
    }
}
