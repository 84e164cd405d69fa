//! What one app's workers are and what should happen to them. Pure: no system call, no clock, no I/O.
//!
//! Events only record facts; `Supervisor::advance` then compares the facts with what is wanted and says what
//! to do. There is no "reloading" or "scaling" state: a reload is the fact that workers of an older generation
//! exist, scaling is a number that differs from a count. The master performs the [`Action`]s; an effect that
//! failed comes back as an [`Event`].
//!
//! A worker is
//!
//! - `Starting`: asked for, and it has not said that it is ready;
//! - `Ready`: it serves;
//! - `Leaving`: it was ready and was told to end (or said itself that it ends);
//! - `Doomed`: told to end before it was ready.
//!
//! It holds its seat until [`Event::Exited`] says that its process was reaped. A new generation begins as a
//! *candidate* with one worker, the canary. Only when the canary is ready ([`Action::Proven`]) and the master
//! agrees ([`Event::Commit`]) does the generation become the current one; until then the workers of the
//! current generation are not touched, so that taking the candidate back costs nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

mod backoff;
mod demand;
mod ending;
mod facts;
mod policy;
mod starting;
mod vocabulary;
mod worker;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;

use backoff::Backoff;
use demand::Demand;
pub use demand::{Load, Range};
pub use policy::{GiveUp, Policy, Readiness};
pub use vocabulary::{Action, Counts, Event, Generation, Reason, Slot, WorkerId};
use worker::{State, Worker};

#[derive(Debug)]
struct Current {
    generation: Generation,
    policy: Policy,
    wanted: u32,
    demand: Demand,
}

#[derive(Debug)]
struct Candidate {
    generation: Generation,
    policy: Policy,
    canary: Option<WorkerId>,
    /// When the canary, being ready, will have lived long enough.
    soaked_at: Option<Instant>,
    proven: bool,
    /// What TTIN and TTOU asked for while the candidate was tried; it survives the commit.
    scaled_meanwhile: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    Stop,
}

/// The facts about one app's workers, and what is wanted of them.
#[derive(Debug)]
pub struct Supervisor {
    workers: BTreeMap<WorkerId, Worker>,
    current: Option<Current>,
    candidate: Option<Candidate>,
    wish: Wish,
    backoff: Backoff,
    /// When workers failed, as far back as the policy looks.
    failures: VecDeque<Instant>,
    /// No worker is started any more, until the next commit.
    given_up: bool,
    next_id: u64,
    settled: bool,
    exited: bool,
}

impl Supervisor {
    /// An app without any configuration yet; `seed` feeds the jitter of the backoff.
    pub fn new(seed: u64) -> Self {
        Self {
            workers: BTreeMap::new(),
            current: None,
            candidate: None,
            wish: Wish::Run,
            backoff: Backoff::new(seed),
            failures: VecDeque::new(),
            given_up: false,
            next_id: 0,
            settled: false,
            exited: false,
        }
    }

    /// Records a fact and says what has to be done now.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.handle_all([event], now)
    }

    /// Records what is known at one time, and says what has to be done now. Nothing is decided in between: whoever has
    /// said in time that it is ready must not be ended because that is read after another's message.
    #[must_use]
    pub fn handle_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            self.record(event, now, &mut actions);
        }
        self.advance(now, &mut actions);
        actions
    }

    /// When [`Event::Deadline`] is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let due = |w: &Worker| [w.deadline, w.matures, w.may_accept_until];
        let workers = self.workers.values().flat_map(due);
        let waits = self.wants_more() && !self.is_starting();
        let retry = waits.then(|| self.retry_at()).flatten();
        workers
            .flatten()
            .chain(retry)
            .chain(self.calm_at())
            .chain(self.candidate.as_ref().and_then(|c| c.soaked_at))
            .chain(self.shrinks_at())
            .min()
    }

    /// How many workers there are, by what they do.
    pub fn counts(&self) -> Counts {
        let count = |state| self.workers.values().filter(|w| w.state == state).count() as u32;
        let first = self.candidate.as_ref().map_or(0, |c| c.policy.workers);
        Counts {
            wanted: self.current.as_ref().map_or(first, |c| c.wanted),
            ready: count(State::Ready),
            starting: count(State::Starting),
            leaving: count(State::Leaving) + count(State::Doomed),
        }
    }

    /// Whether the wanted number of workers of the current generation is ready and no older worker serves.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether nothing is left of the app.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.current.is_none() && self.candidate.is_none()
    }

    /// Whether more workers should be there than are, or are on their way.
    pub fn lacks_workers(&self) -> bool {
        self.wants_more()
    }

    /// Whether crashes keep the app from having all its workers, for now or until the next reload.
    pub fn is_in_trouble(&self) -> bool {
        self.given_up || self.retry_at().is_some()
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether its workers were told to end until the next reload.
    pub fn is_paused(&self) -> bool {
        self.wish == Wish::Pause
    }

    /// When the next worker may be started, while crashes hold it back.
    pub fn retry_at(&self) -> Option<Instant> {
        self.backoff.not_before()
    }

    /// Compares the facts with what is wanted. The only place that decides.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.mature(now, actions);
        self.prove(now, actions);
        self.calm(now);
        self.shrink(now);
        self.recycle();
        self.end_surplus(now, actions);
        self.start_missing(now, actions);
        self.end_oldest_drain(now);
        self.escalate(now, actions);
        self.announce(now, actions);
    }

    /// Workers that never say `READY=1` are ready when their time has come.
    fn mature(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let ripe: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, w)| w.matures.is_some_and(|at| at <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in ripe {
            self.ready(id, now, actions);
        }
    }

    /// The canary has been ready for long enough.
    fn prove(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let workers = &self.workers;
        let serves = |id| {
            workers
                .get(id)
                .is_some_and(|w: &Worker| w.state == State::Ready)
        };
        if let Some(candidate) = &mut self.candidate
            && candidate.soaked_at.take_if(|at| *at <= now).is_some()
            // One that hangs or ends by itself meanwhile proves nothing; its end will be its failure.
            && candidate.canary.as_ref().is_some_and(serves)
        {
            candidate.proven = true;
            actions.push(Action::Proven(candidate.generation));
        }
    }

    fn calm(&mut self, now: Instant) {
        if self.calm_at().is_some_and(|at| at <= now) {
            self.backoff.clear();
        }
    }

    /// When fewer workers may do.
    fn shrinks_at(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|_| self.wish == Wish::Run)?;
        let range = current.policy.range.as_ref()?;
        current.demand.deadline(current.wanted, range)
    }

    /// Wants fewer workers, when fewer were enough for long.
    fn shrink(&mut self, now: Instant) {
        if self.shrinks_at().is_some_and(|at| at <= now)
            && let Some(current) = &mut self.current
            && let Some(range) = &current.policy.range
            && let Some(enough) = current.demand.shrink(current.wanted, range, now)
        {
            current.wanted = enough;
        }
    }

    /// When a worker that was started after the last failure will have stayed up.
    fn calm_at(&self) -> Option<Instant> {
        let failed = self.backoff.last_failure()?;
        let current = self.current.as_ref()?;
        self.workers
            .values()
            .filter(|w| w.generation == current.generation && w.state == State::Ready)
            .filter_map(|w| w.ready_at)
            .filter(|&at| at > failed)
            .map(|at| at + current.policy.backoff.stayed_up)
            .min()
    }

    fn announce(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for worker in self.workers.values_mut() {
            worker.may_accept_until.take_if(|until| *until <= now);
        }
        let settled = self.wish == Wish::Run
            && self.candidate.is_none()
            && self.current.as_ref().is_some_and(|current| {
                let active = self.count(Worker::active);
                let serving =
                    self.count(|w| w.state == State::Ready && w.generation == current.generation);
                // "Settled" means that what is answered from now on comes from the current generation.
                let accepting = self
                    .count(|w| w.may_accept_until.is_some() && w.generation < current.generation);
                active == current.wanted && serving == current.wanted && accepting == 0
            });
        if settled && !self.settled {
            actions.push(Action::Settled);
        }
        self.settled = settled;
        if self.wish == Wish::Stop && self.workers.is_empty() && !self.exited {
            self.exited = true;
            actions.push(Action::Exit);
        }
    }

    fn wanted(&self) -> u32 {
        self.current.as_ref().map_or(0, |c| c.wanted)
    }

    fn policy_of(&self, id: WorkerId) -> Option<&Policy> {
        let generation = self.workers.get(&id)?.generation;
        let candidate = self
            .candidate
            .as_ref()
            .filter(|c| c.generation == generation);
        candidate
            .map(|c| &c.policy)
            .or(self.current.as_ref().map(|c| &c.policy))
    }

    /// Whether a worker of the current generation is on its way.
    fn is_starting(&self) -> bool {
        let current = self.current.as_ref().map(|c| c.generation);
        let mut workers = self.workers.values();
        workers.any(|w| Some(w.generation) == current && w.state == State::Starting)
    }

    fn count(&self, which: impl Fn(&Worker) -> bool) -> u32 {
        self.workers.values().filter(|w| which(w)).count() as u32
    }

    /// The workers of which something is true, oldest first.
    fn select(&self, which: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        let chosen = self.workers.iter().filter(|(_, w)| which(w));
        chosen.map(|(&id, _)| id).collect()
    }
}
