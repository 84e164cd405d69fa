//! Which workers are to go, and how hard they are told.

use std::collections::BTreeSet;
use std::time::Instant;

use super::worker::{State, Worker, leave};
use super::{Action, Reason, Supervisor, Wish, WorkerId, policy};

impl Supervisor {
    /// Lets one worker at a time be replaced by a fresh one, and only when all else is well.
    pub(super) fn recycle(&mut self) {
        let Some(current) = self.current.as_ref().map(|c| c.generation) else {
            return;
        };
        let whole =
            self.candidate.is_none() && self.count(|w| w.state == State::Ready) == self.wanted();
        let calm = self.wish == Wish::Run && self.backoff.last_failure().is_none();
        if whole && calm && self.count(Worker::active) == self.wanted() {
            let mut workers = self.workers.values_mut();
            let next = workers.find(|w| w.due && w.active() && w.generation == current);
            if let Some(worker) = next {
                worker.stale = true;
            }
        }
    }

    /// Whether a worker is to be replaced by a newer one.
    pub(super) fn is_old(&self, worker: &Worker) -> bool {
        let current = self.current.as_ref().map(|c| c.generation);
        worker.stale || current.is_some_and(|current| worker.generation < current)
    }

    pub(super) fn end_surplus(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.wish {
            Wish::Stop => return self.end_all(Reason::Stop, now, actions),
            // A canary that is tried while paused lives on: its commit ends the pause.
            Wish::Pause => return self.end_all(Reason::Paused, now, actions),
            Wish::Run => {}
        }
        let candidate = self.candidate.as_ref().map(|c| c.generation);
        let current = self.current.as_ref().map(|c| c.generation);
        let wanted = self.wanted() as usize;

        // Workers of a generation that was given up, and unready ones of an older one, serve nobody.
        let stray = |w: &Worker| {
            let newer = current.is_none_or(|g| w.generation > g);
            let kept = Some(w.generation) == current || Some(w.generation) == candidate;
            w.active() && !kept && (newer || w.state == State::Starting)
        };
        for id in self.select(stray) {
            let newer = current.is_none_or(|g| self.workers[&id].generation > g);
            let reason = if newer {
                Reason::RolledBack
            } else {
                Reason::Replaced
            };
            self.end(id, reason, now, actions);
        }

        let Some(current) = current else { return };
        // An older worker goes when the wanted number serves without it.
        for id in self.select(|w| w.state == State::Ready && self.is_old(w)) {
            let ready = |w: &Worker| w.state == State::Ready && w.generation <= current;
            if self.select(ready).len() > wanted {
                let older = self.workers[&id].generation < current;
                let reason = if older {
                    Reason::Replaced
                } else {
                    Reason::Recycled
                };
                self.end(id, reason, now, actions);
            }
        }
        // Fewer are wanted: unready workers first, then the highest slots.
        let mut mine = self.select(|w| w.active() && w.generation == current && !w.stale);
        mine.sort_by_key(|id| {
            let worker = &self.workers[id];
            (worker.state == State::Starting, worker.slot)
        });
        for &id in mine.iter().skip(wanted) {
            self.end(id, Reason::ScaledDown, now, actions);
        }
    }

    pub(super) fn end_all(&mut self, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        let canary = match reason {
            Reason::Paused => self.candidate.as_ref().and_then(|c| c.canary),
            _ => None,
        };
        for id in self.select(Worker::active) {
            if Some(id) != canary {
                self.end(id, reason, now, actions);
            }
        }
    }

    /// Reloads that come faster than old workers finish must not pile up generations.
    pub(super) fn end_oldest_drain(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        let (generation, most) = (current.generation, current.policy.max_draining as usize);
        let workers = self
            .workers
            .values()
            .filter(|w| !w.active() && w.generation < generation);
        let draining: BTreeSet<_> = workers.map(|w| w.generation).collect();
        let surplus = draining.len().saturating_sub(most);
        let Some(&last) = draining.iter().take(surplus).next_back() else {
            return;
        };
        for worker in self
            .workers
            .values_mut()
            .filter(|w| !w.active() && w.generation <= last)
        {
            if worker.deadline.is_some_and(|at| at > now) {
                worker.deadline = Some(now);
                worker.overdue = Reason::MaxDraining;
            }
        }
    }

    /// Who has had its time is ended harder.
    pub(super) fn escalate(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for id in self.select(|w| w.deadline.is_some_and(|at| at <= now)) {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            match (worker.state, worker.overdue) {
                (State::Starting, _) => {
                    self.abort(id, Reason::StartTimeout, State::Doomed, now, actions)
                }
                (_, Reason::Hung) => self.abort(id, Reason::Hung, State::Leaving, now, actions),
                (_, overdue) => {
                    worker.deadline = None;
                    actions.push(Action::Kill(id, overdue));
                }
            }
        }
    }

    /// Has a worker say what it is doing and die, within its `abort_grace`.
    pub(super) fn abort(
        &mut self,
        id: WorkerId,
        reason: Reason,
        state: State,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let grace = self
            .policy_of(id)
            .map_or(policy::STOP_NOW, |p| p.abort_grace);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.state = state;
            worker.deadline = Some(now + grace);
            worker.overdue = Reason::AbortGrace;
            worker.may_accept_until = None;
            actions.push(Action::Abort(id, reason));
        }
    }

    pub(super) fn end(
        &mut self,
        id: WorkerId,
        reason: Reason,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let policy = self.policy_of(id);
        let grace = policy.map_or(policy::STOP_NOW, |p| p.graceful_timeout);
        let says_when = policy.is_some_and(|p| p.announces_end);
        if let Some(worker) = self.workers.get_mut(&id) {
            if says_when && worker.state == State::Ready {
                worker.may_accept_until = Some(now + policy::LAST_ACCEPT);
            }
            leave(id, worker, reason, grace, now, actions);
        }
    }
}
