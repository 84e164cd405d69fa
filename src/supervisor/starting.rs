//! Which workers are to come.

use std::time::{Duration, Instant};

use super::worker::{State, Worker};
use super::{Action, Generation, Reason, Supervisor, Wish, WorkerId};

impl Supervisor {
    pub(super) fn start_missing(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.wish == Wish::Stop {
            return;
        }
        if let Some(candidate) = &self.candidate
            && candidate.canary.is_none()
        {
            let (generation, limit) = (candidate.generation, candidate.policy.start_timeout);
            let canary = self.spawn(generation, limit, now, actions);
            if let Some(candidate) = &mut self.candidate {
                candidate.canary = Some(canary);
            }
        }
        while self.wants_more() {
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

    /// Whether one more worker of the current generation should be started, were it not for the backoff.
    pub(super) fn wants_more(&self) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        if self.wish != Wish::Run || self.given_up {
            return false;
        }
        let mine = self.count(|w| w.active() && w.generation == current.generation && !w.stale);
        let older = self.count(|w| w.active() && self.is_old(w));
        // During a rollout at most `surge` more than wanted exist at a time.
        mine < current.wanted
            && mine + older < current.wanted + current.policy.surge(current.wanted)
    }

    pub(super) fn spawn(
        &mut self,
        generation: Generation,
        start_timeout: Duration,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> WorkerId {
        let worker = WorkerId(self.next_id);
        self.next_id += 1;
        let taken = |slot| {
            let mut workers = self.workers.values();
            workers.any(|w| w.generation == generation && w.slot == slot)
        };
        let slot = (0..)
            .find(|&slot| !taken(slot))
            .expect("fewer than 2^32 workers");
        self.workers.insert(
            worker,
            Worker {
                slot,
                generation,
                state: State::Starting,
                deadline: Some(now + start_timeout),
                overdue: Reason::StartTimeout,
                matures: None,
                ready_at: None,
                asked: false,
                due: false,
                stale: false,
                may_accept_until: None,
            },
        );
        actions.push(Action::Spawn {
            worker,
            slot,
            generation,
        });
        worker
    }
}
