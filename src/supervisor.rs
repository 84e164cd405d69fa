//! Supervises the workers of one app. Pure: no system call, no clock, no I/O.
//!
//! Events only record facts; `Supervisor::advance` then compares the facts with what is wanted and returns actions. There is
//! no "reloading" or "scaling" state: during a reload workers of an older generation exist, and while scaling a number differs
//! from a count. The master performs the [`Action`]s; an action that failed comes back as an [`Event`].
//!
//! A worker keeps its slot until [`Event::Exited`] says that its process was reaped. Until then it is
//!
//! - *starting*: it was requested and is not ready yet;
//! - *ready*: it has reported that it is ready;
//! - *leaving*: it was ready and ends on its own initiative;
//! - *draining*: it was ready and was told to finish what it serves, or will be when it has no requests ([`Action::TakeOut`]);
//! - *doomed*: it was told to end before it was ready;
//! - *aborting*: it was told to report what it is doing and die;
//! - *killed*.
//!
//! One that has ended for good ([`Restart`]) keeps its slot, too, until its generation has retired.
//!
//! A new generation begins as a *candidate* with a single worker, the *canary*, so that a bad generation costs only this
//! worker. When the canary is ready ([`Action::Proven`]) and the master agrees ([`Event::Commit`]), the generation becomes the
//! current one. Until then the workers of the current generation are not touched, so a rollback costs nothing. (They are with
//! [`Replace::StopFirst`]: they end before the canary starts, and a rollback starts them again.)
//!
//! The cost of an event does not grow with the number of workers: `Roster` keeps an index for every question.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

mod action;
mod backoff;
mod candidate;
mod demand;
mod displacing;
mod ending;
mod event;
mod facts;
mod finishing;
mod policy;
mod recycling;
mod roster;
mod starting;
mod worker;

#[cfg(test)]
mod cost;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod quiet;
#[cfg(test)]
mod tests;

pub use action::{Action, Reason};
use backoff::Backoff;
use candidate::Candidate;
use demand::Demand;
pub use demand::{Load, Range};
use displacing::Outage;
pub use event::Event;
use facts::Extent;
pub use policy::{GiveUp, Policy, READY_AFTER_EXEC, Readiness, Replace, Restart, STAYED_UP};
use recycling::Recycling;
use roster::Roster;
use worker::State;
pub use worker::{Generation, Slot, WorkerId};

/// The facts about one app's workers, and what is wanted of them.
#[derive(Debug)]
pub struct Supervisor {
    roster: Roster,
    current: Option<Current>,
    candidate: Option<Candidate>,
    /// What the app was when its configuration was removed, until it has a current generation again.
    removed: Option<Removed>,
    /// A candidate has displaced the current generation, and none has workers again.
    outage: Option<Outage>,
    wish: Wish,
    /// The generations whose workers must be alone, until these have ended.
    alone: BTreeSet<Generation>,
    /// The generations of which workers may still be started.
    generations: BTreeSet<Generation>,
    /// Workers that have become ready, and that were not announced yet.
    became_ready: Vec<WorkerId>,
    /// Hanging workers that were not handled yet.
    hung: Vec<(WorkerId, Extent)>,
    recycling: Recycling,
    backoff: Backoff,
    /// When workers failed, within the time that the policy considers.
    failures: VecDeque<Instant>,
    /// No worker is started until the next commit.
    given_up: bool,
    /// No worker is started, as something is left of an earlier run.
    earlier_left: bool,
    settled: bool,
    exited: bool,
}

/// The generation that serves requests.
#[derive(Debug)]
struct Current {
    generation: Generation,
    policy: Policy,
    wanted: u32,
    demand: Demand,
    /// None of its workers may start yet.
    held: bool,
}

#[derive(Debug)]
struct Removed {
    /// The newest generation that was removed.
    newest: Generation,
    /// The policy by which its workers end.
    policy: Policy,
}

/// What the operator wants of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    Stop(Urgency),
}

/// A requested stop that was not performed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Graceful,
    /// Within [`policy::STOP_NOW`].
    Soon,
    AtOnce,
}

/// How many workers an app has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How many should be ready.
    pub wanted: u32,
    /// How many are ready, of any generation.
    pub ready: u32,
    /// Workers that are not ready yet.
    pub starting: u32,
    /// Workers that are draining or dying.
    pub leaving: u32,
    /// Workers that have ended in good order and are not replaced ([`Restart`]). They count towards the wanted number.
    pub finished: u32,
    /// Workers that have failed and are not replaced.
    pub failed: u32,
}

impl Supervisor {
    /// An app without a configuration. `seed` determines the jitter of the backoff.
    pub fn new(seed: u64) -> Self {
        Self {
            roster: Roster::default(),
            current: None,
            candidate: None,
            removed: None,
            outage: None,
            wish: Wish::Run,
            alone: BTreeSet::new(),
            generations: BTreeSet::new(),
            became_ready: Vec::new(),
            hung: Vec::new(),
            recycling: Recycling::new(seed),
            backoff: Backoff::new(seed),
            failures: VecDeque::new(),
            given_up: false,
            earlier_left: false,
            settled: false,
            exited: false,
        }
    }

    /// Records a fact and returns what to do now.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.handle_all([event], now)
    }

    /// Records everything that is known at one instant, and returns what to do now. Nothing is decided in between: a worker
    /// that has reported in time must not be ended because its report is handled after another event.
    #[must_use]
    pub fn handle_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Instant,
    ) -> Vec<Action> {
        for event in events {
            self.record(event, now);
        }
        let mut actions = Vec::new();
        self.advance(now, &mut actions);
        actions
    }

    /// When [`Event::Deadline`] is due, unless something else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = self.lacks_workers() && !self.is_starting();
        let retry = waits.then(|| self.retry_at()).flatten();
        [
            self.roster.next_due(),
            retry,
            self.backoff_ends_at(),
            self.soaked_at(),
            self.shrinks_at(),
            self.recycles_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The generation that serves requests.
    pub fn generation(&self) -> Option<Generation> {
        self.current.as_ref().map(|current| current.generation)
    }

    /// The numbers of workers by state.
    pub fn counts(&self) -> Counts {
        let first = self.candidate.as_ref().map_or(0, |c| c.policy.workers);
        let candidate = self.candidate.as_ref().map(|c| c.generation);
        let generation = self.generation().or(candidate);
        let tally = generation.map(|generation| self.roster.tally(generation));
        let tally = tally.unwrap_or_default();
        Counts {
            wanted: self.current.as_ref().map_or(first, |c| c.wanted),
            ready: self.roster.ready() as u32,
            starting: self.roster.starting() as u32,
            leaving: self.roster.ending() as u32,
            finished: tally.finished as u32,
            failed: tally.failed as u32,
        }
    }

    /// Whether the wanted number of workers of the current generation is ready, or has ended for good, and no older worker serves.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the app has no workers left.
    pub fn is_empty(&self) -> bool {
        self.roster.is_empty() && self.current.is_none() && self.candidate.is_none()
    }

    /// Whether crashes keep the app from having all its workers, for now or until the next reload.
    pub fn is_in_trouble(&self) -> bool {
        self.given_up || self.retry_at().is_some()
    }

    /// Whether the current generation serves: it has settled, or has ready workers and does not fail.
    pub fn is_well(&self) -> bool {
        let current = self.current.as_ref();
        let serves = |c: &Current| self.roster.tally(c.generation).ready() > 0;
        self.settled || current.is_some_and(serves) && !self.is_in_trouble()
    }

    /// Whether workers are ready, or none is needed because of the load.
    pub fn is_running(&self) -> bool {
        let current = self.current.as_ref();
        let needs_none = current.is_some_and(|c| c.wanted == 0);
        self.roster.ready() > 0 || needs_none
    }

    /// Whether the app was given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether no worker of the current generation may start yet.
    pub fn is_held(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.held)
    }

    /// Whether the app is paused until the next reload.
    pub fn is_paused(&self) -> bool {
        self.wish == Wish::Pause
    }

    /// When the next worker may be started, if the backoff delays it.
    pub fn retry_at(&self) -> Option<Instant> {
        self.backoff.not_before()
    }

    /// Compares the facts with what is wanted. This is the only place that decides.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.ready_by_time(now);
        self.announce_ready(actions);
        // First, because the readiness of a worker has consequences below.
        self.abort_hung(now, actions);
        self.try_candidate(now, actions);
        self.retire(actions);
        self.give_up(now, actions);
        self.end_backoff(now);
        self.follow_load(now);
        loop {
            self.recycle_next(now);
            self.end_surplus(now, actions);
            // The end of one that was replaced may have made room for the next.
            if self.recycles_at().is_none_or(|at| at > now) {
                break;
            }
        }
        self.note_vacancy(now);
        self.start_missing(now, actions);
        self.end_outage(actions);
        self.end_oldest_drain(actions);
        self.escalate(now, actions);
        self.announce(actions);
    }

    /// Workers that never send `READY=1` become ready after the configured time.
    fn ready_by_time(&mut self, now: Instant) {
        for id in self.roster.due(now) {
            if let Some(State::Starting {
                matures: Some(at), ..
            }) = self.roster.state(id)
                && at <= now
            {
                self.ready(id, now);
            }
        }
    }

    fn announce_ready(&mut self, actions: &mut Vec<Action>) {
        let roster = &self.roster;
        let ready = self.became_ready.drain(..);
        // Skip one that was reaped since.
        let ready = ready.filter(|id| roster.get(*id).is_some());
        actions.extend(ready.map(Action::Ready));
    }

    /// Gives up an app whose workers fail too often.
    fn give_up(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let current = self.current.as_ref();
        let Some(limit) = current.and_then(|current| current.policy.give_up) else {
            return;
        };
        let is_past = |at: &Instant| now.saturating_duration_since(*at) > limit.within;
        while self.failures.front().is_some_and(is_past) {
            self.failures.pop_front();
        }
        let failed = self.failures.len();
        if !self.given_up && failed > 0 && failed >= limit.crashes as usize {
            self.given_up = true;
            actions.push(Action::GaveUp(limit));
        }
    }

    /// Ends the backoff when a worker has stayed up.
    fn end_backoff(&mut self, now: Instant) {
        if self.backoff_ends_at().is_some_and(|at| at <= now) {
            self.backoff.clear();
        }
    }

    /// When a worker that became ready after the last failure will have stayed up long enough.
    fn backoff_ends_at(&self) -> Option<Instant> {
        let failed = self.backoff.last_failure()?;
        let current = self.current.as_ref()?;
        let ready = self.roster.first_ready_after(current.generation, failed)?;
        Some(ready + current.policy.backoff.stayed_up)
    }

    /// Adjusts the wanted number of workers to the load.
    fn follow_load(&mut self, now: Instant) {
        let Some(current) = &mut self.current else {
            return;
        };
        let Some(range) = &current.policy.range else {
            return;
        };
        if let Some(needed) = current.demand.grow(now) {
            current.wanted = current.wanted.max(needed);
        } else if self.wish == Wish::Run
            && let Some(enough) = current.demand.shrink(current.wanted, range, now)
        {
            current.wanted = enough;
        }
    }

    /// When the wanted number may shrink.
    fn shrinks_at(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|_| self.wish == Wish::Run)?;
        let range = current.policy.range.as_ref()?;
        current.demand.deadline(current.wanted, range)
    }

    fn announce(&mut self, actions: &mut Vec<Action>) {
        let settled = self.has_settled();
        if settled && !self.settled {
            actions.push(Action::Settled);
        }
        self.settled = settled;
        if matches!(self.wish, Wish::Stop(_)) && self.roster.is_empty() && !self.exited {
            self.exited = true;
            actions.push(Action::Exit);
        }
    }

    fn has_settled(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let tally = self.roster.tally(current.generation);
        let (wanted, serving) = (current.to_run(tally), tally.ready());
        // "Settled" means that the current generation serves every request from now on.
        let mut older = self.roster.generations_before(current.generation);
        self.wish == Wish::Run
            && self.candidate.is_none()
            && !current.held
            && self.roster.active() == wanted
            && serving == wanted
            && older.all(|(_, tally)| tally.accepting == 0)
    }

    /// The policy for workers of a generation: the candidate's for its own, that of the current generation for all others, and
    /// the last one if the app was removed.
    fn policy(&self, generation: Generation) -> Option<&Policy> {
        let candidate = self.candidate.as_ref();
        let candidate = candidate.filter(|c| c.generation == generation);
        let current = self.current.as_ref().map(|c| &c.policy);
        let removed = self.removed.as_ref();
        let removed = removed.filter(|r| generation <= r.newest);
        let removed = removed.map(|r| &r.policy);
        candidate.map(|c| &c.policy).or(current).or(removed)
    }
}
