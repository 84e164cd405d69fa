//! Which workers to start.

use std::time::{Duration, Instant};

use super::candidate::Trial;
use super::worker::{Own, State};
use super::{Action, Generation, Supervisor, Wish, WorkerId, policy};

impl Supervisor {
    pub(super) fn start_missing(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.wish, Wish::Stop(_)) || self.earlier_left {
            return;
        }
        if let Some(candidate) = &self.candidate
            && candidate.trial == Trial::Untried
            && (!self.is_displaced() || self.roster.is_empty())
        {
            let (generation, limit) = (candidate.generation, candidate.policy.start_timeout);
            let canary = self.spawn(generation, limit, now, actions);
            if let Some(candidate) = &mut self.candidate {
                candidate.trial = Trial::Starting(canary);
            }
        }
        while self.lacks_workers() {
            let Some(current) = &self.current else { return };
            let generation = current.generation;
            let limit = current.policy.start_timeout;
            let pace = current.policy.backoff;
            let starting = self.is_starting();
            if !self.backoff.permits(now, starting, &pace) {
                return;
            }
            self.spawn(generation, limit, now, actions);
        }
    }

    /// Whether one more worker of the current generation should be started, apart from the backoff.
    pub fn lacks_workers(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let held = current.held || self.earlier_left;
        if self.wish != Wish::Run || self.given_up || held {
            return false;
        }
        let mine = self.roster.tally(current.generation);
        let wanted = current.to_run(mine);
        if self.stops_first() {
            return self.has_room(current.generation, wanted);
        }
        let older = self.roster.generations_before(current.generation);
        let older: usize = older.map(|(_, tally)| tally.active()).sum();
        let surge = current.policy.surge(current.wanted) as usize;
        // During a rollout at most `surge` more than wanted exist at a time.
        mine.starting + mine.fresh < wanted && mine.active() + older < wanted + surge
    }

    /// Whether a worker of the current generation is starting.
    pub(super) fn is_starting(&self) -> bool {
        let generation = self.generation();
        generation.is_some_and(|generation| self.roster.tally(generation).starting > 0)
    }

    fn spawn(
        &mut self,
        generation: Generation,
        start_timeout: Duration,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> WorkerId {
        let starting = State::Starting {
            ready_at_latest: now + start_timeout,
            matures: None,
        };
        let policy = self.policy(generation);
        let own = Own {
            graceful_timeout: policy.map_or(policy::STOP_NOW, |p| p.graceful_timeout),
            ends_quiet: policy.is_some_and(|p| p.ends_quiet),
        };
        let (worker, slot) = self.roster.add(generation, starting, own);
        actions.push(Action::Spawn {
            worker,
            slot,
            generation,
        });
        worker
    }
}
