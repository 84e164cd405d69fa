//! What each event changes in the facts. Nothing is decided here but what the event itself says.

use std::time::Instant;

use super::worker::{State, leave};
use super::{
    Action, Candidate, Current, Demand, Event, Generation, Load, Policy, Readiness, Reason,
    Supervisor, Wish, WorkerId, policy,
};

impl Supervisor {
    pub(super) fn record(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Propose(generation, policy) => self.propose(generation, policy, actions),
            Event::Commit => self.commit(now, actions),
            Event::Rollback => {
                self.drop_candidate(actions);
                self.resume();
            }
            Event::Scale(by) => self.scale(by),
            Event::Load(load) => self.load(load, now),
            Event::Executed(id) => self.executed(id, now),
            Event::Ready(id) => self.ready(id, now, actions),
            Event::Checked(id) => self.checked(id, now),
            Event::CheckFailed(id) => self.check_failed(id, actions),
            Event::Stopping(id) => self.stopping(id, now),
            Event::Recycle(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.due = true;
                }
            }
            Event::Hung(id) => self.hung(id, now, actions),
            Event::HungInPart(id) => {
                if self
                    .workers
                    .get(&id)
                    .is_some_and(|w| w.state == State::Ready)
                {
                    self.end(id, Reason::Hung, now, actions);
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.overdue = Reason::Hung;
                    }
                }
            }
            Event::Exited(id) | Event::SpawnFailed(id) => self.ended(id, false, now, actions),
            Event::Refused(id) => self.ended(id, true, now, actions),
            Event::Pause => {
                if self.wish == Wish::Run {
                    self.wish = Wish::Pause;
                }
            }
            Event::Remove => {
                self.end_all(Reason::Removed, now, actions);
                self.drop_candidate(actions);
                if let Some(current) = self.current.take() {
                    actions.push(Action::Retire(current.generation));
                }
                self.resume();
            }
            Event::Stop => self.wish = Wish::Stop,
            Event::StopNow => self.stop_now(now, actions),
            Event::Deadline => {}
        }
    }

    fn propose(&mut self, generation: Generation, policy: Policy, actions: &mut Vec<Action>) {
        self.drop_candidate(actions);
        self.candidate = Some(Candidate {
            generation,
            policy,
            canary: None,
            soaked_at: None,
            proven: false,
            scaled_meanwhile: 0,
        });
    }

    fn commit(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(candidate) = self.candidate.take_if(|c| c.proven) else {
            return;
        };
        let configured = candidate.policy.workers;
        let wanted = match self.current.take() {
            None => add(configured, candidate.scaled_meanwhile),
            Some(old) => {
                actions.push(Action::Retire(old.generation));
                if let Some(range) = &candidate.policy.range {
                    // The new one has just been started; it goes again when nobody asks anything of it.
                    old.wanted.clamp(range.min.max(1), range.max)
                } else if old.policy.workers == configured && old.policy.range.is_none() {
                    old.wanted
                } else {
                    add(configured, candidate.scaled_meanwhile)
                }
            }
        };
        self.current = Some(Current {
            generation: candidate.generation,
            policy: candidate.policy,
            wanted,
            demand: Demand::new(now),
        });
        self.backoff.clear();
        self.failures.clear();
        self.given_up = false;
        self.resume();
    }

    /// Its canary, if it lives, is a stray from now on.
    fn drop_candidate(&mut self, actions: &mut Vec<Action>) {
        if let Some(candidate) = self.candidate.take() {
            actions.push(Action::Retire(candidate.generation));
        }
    }

    fn resume(&mut self) {
        if self.wish == Wish::Pause {
            self.wish = Wish::Run;
        }
    }

    fn scale(&mut self, by: i32) {
        if let Some(candidate) = &mut self.candidate {
            candidate.scaled_meanwhile += by;
        }
        if let Some(current) = &mut self.current {
            current.wanted = add(current.wanted, by);
        }
    }

    fn load(&mut self, load: Load, now: Instant) {
        if let Some(current) = &mut self.current
            && let Some(range) = &current.policy.range
            && let Some(needed) = current.demand.note(load, current.wanted, range, now)
        {
            current.wanted = needed;
        }
    }

    fn executed(&mut self, id: WorkerId, now: Instant) {
        let readiness = self.policy_of(id).map(|p| p.readiness);
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.state == State::Starting {
            worker.matures = match readiness {
                Some(Readiness::After(time)) => Some(now + time),
                Some(Readiness::Exec) => Some(now),
                _ => None,
            };
        }
    }

    pub(super) fn ready(&mut self, id: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.state != State::Starting {
            return;
        }
        worker.state = State::Ready;
        worker.deadline = None;
        worker.matures = None;
        worker.ready_at = Some(now);
        self.backoff.note_ready();
        actions.push(Action::Ready(id));
        if let Some(candidate) = &mut self.candidate
            && candidate.canary == Some(id)
        {
            // Before there is anything that serves, waiting would help nobody.
            match &self.current {
                None => candidate.soaked_at = Some(now),
                Some(_) if candidate.policy.check => actions.push(Action::Check(id)),
                Some(_) => candidate.soaked_at = Some(now + candidate.policy.soak),
            }
        }
    }

    fn checked(&mut self, id: WorkerId, now: Instant) {
        if let Some(candidate) = &mut self.candidate
            && candidate.canary == Some(id)
        {
            candidate.soaked_at = Some(now + candidate.policy.soak);
        }
    }

    fn check_failed(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        let candidate = self.candidate.as_ref();
        if let Some(candidate) = candidate.filter(|c| c.canary == Some(id)) {
            actions.push(Action::Failed(candidate.generation));
            self.drop_candidate(actions);
        }
    }

    fn stopping(&mut self, id: WorkerId, now: Instant) {
        let grace = self.policy_of(id).map(|p| p.graceful_timeout);
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.may_accept_until = None;
        if worker.state == State::Ready {
            worker.state = State::Leaving;
            worker.deadline = grace.map(|g| now + g);
            worker.overdue = Reason::GracefulTimeout;
        }
    }

    fn hung(&mut self, id: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        if let Some(worker) = self.workers.get(&id)
            && matches!(worker.state, State::Ready | State::Leaving)
            && worker.overdue != Reason::AbortGrace
        {
            self.abort(id, Reason::Hung, State::Leaving, now, actions);
        }
    }

    fn ended(&mut self, id: WorkerId, refused: bool, now: Instant, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        let candidate = self.candidate.as_ref();
        if let Some(candidate) = candidate.filter(|c| c.canary == Some(id)) {
            actions.push(Action::Failed(candidate.generation));
            return self.drop_candidate(actions);
        }
        let Some(current) = self.current.as_ref() else {
            return;
        };
        if worker.generation != current.generation || worker.asked {
            return;
        }
        let policy = &current.policy;
        if refused {
            return self.backoff.note_refusal(now, &policy.backoff);
        }
        let counted = self.backoff.note_end(worker.ready_at, now, &policy.backoff);
        if let Some(give_up) = policy.give_up.filter(|_| counted && !self.given_up) {
            self.failures.push_back(now);
            self.failures
                .retain(|&at| now.saturating_duration_since(at) <= give_up.within);
            if self.failures.len() >= give_up.crashes as usize {
                self.given_up = true;
                actions.push(Action::GaveUp(give_up));
            }
        }
    }

    fn stop_now(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let again = self.wish == Wish::Stop && self.workers.values().all(|w| !w.active());
        self.wish = Wish::Stop;
        for (&id, worker) in &mut self.workers {
            if again {
                worker.deadline = None;
                actions.push(Action::Kill(id, Reason::Stop));
            } else {
                leave(id, worker, Reason::Stop, policy::STOP_NOW, now, actions);
                worker.overdue = Reason::Stop;
            }
        }
    }
}

fn add(number: u32, by: i32) -> u32 {
    number.saturating_add_signed(by).max(1)
}
