//! What each event changes in the facts. Nothing is decided here.

use std::time::Instant;

use super::candidate::add;
use super::worker::{Cause, State};
use super::{Event, Load, Readiness, Supervisor, Urgency, Wish, WorkerId};

/// Why a worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its process has, or could not be started.
    Own,
    /// The system has refused to create a process.
    Refused,
    /// Something is missing that its start needs.
    Missing,
}

/// How much of a worker hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// It does nothing else.
    Whole,
    /// Its other threads serve.
    Part,
}

impl Supervisor {
    pub(super) fn record(&mut self, event: Event, now: Instant) {
        match event {
            Event::Propose(generation, policy) => self.propose(generation, policy),
            Event::Install(generation, policy) => self.install(generation, policy, now),
            Event::Hold(generation) => self.hold(generation, true),
            Event::Release(generation) => self.hold(generation, false),
            Event::Commit => self.commit(now),
            Event::Rollback => {
                self.candidate = None;
                self.resume();
            }
            Event::Displace(generation) => self.displace_for(generation),
            Event::Withdraw => self.withdraw(),
            Event::Restore => self.restore(),
            Event::Scale(by) => self.scale(by),
            Event::Load(load) => self.load(load),
            Event::Executed(id) => self.executed(id, now),
            Event::Ready(id) => {
                if self.may_be_ready(id) {
                    self.ready(id, now);
                }
            }
            Event::Checked(id) => self.checked(id, now),
            Event::CheckFailed(id) => {
                // If it has finished meanwhile, it has proven its generation.
                if self.roster.get(id).is_some() {
                    self.canary_failed(id);
                }
            }
            Event::Stopping(id) => self.stopping(id, now),
            Event::Quiet(id) => self.quiet(id, now),
            Event::Recycle(id) => {
                if self.roster.state(id).is_some_and(State::is_active) {
                    self.recycling.insert(id);
                }
            }
            Event::Outgrown(id) => {
                if self.roster.state(id).is_some_and(State::is_active) {
                    self.recycling.insert_soon(id);
                }
            }
            Event::Hung(id) => self.hung(id, Extent::Whole),
            Event::HungInPart(id) => self.hung(id, Extent::Part),
            Event::Exited(id) | Event::SpawnFailed(id) => self.ended(id, End::Own, now),
            Event::Finished(id) => self.finished(id, now),
            Event::Hopeless(id) => self.hopeless(id, now),
            Event::Refused(id) => self.ended(id, End::Refused, now),
            Event::Missing(id) => self.ended(id, End::Missing, now),
            Event::EarlierLeft(is_left) => self.earlier_left = is_left,
            Event::Pause => {
                if self.wish == Wish::Run {
                    self.wish = Wish::Pause;
                }
            }
            Event::Remove => self.remove(),
            Event::Stop => {
                if !matches!(self.wish, Wish::Stop(_)) {
                    self.wish = Wish::Stop(Urgency::Graceful);
                }
            }
            Event::StopNow => self.stop_now(),
            Event::Deadline => {}
        }
    }

    /// Ends a pause.
    pub(super) fn resume(&mut self) {
        if self.wish == Wish::Pause {
            self.wish = Wish::Run;
        }
    }

    fn scale(&mut self, by: i32) {
        if let Some(candidate) = &mut self.candidate {
            candidate.scaled_meanwhile = candidate.scaled_meanwhile.saturating_add(by);
        }
        if let Some(current) = &mut self.current {
            current.wanted = add(current.wanted, by);
        }
    }

    fn load(&mut self, load: Load) {
        if let Some(current) = &mut self.current
            && let Some(range) = &current.policy.range
        {
            current.demand.note(load, current.wanted, range);
        }
    }

    fn executed(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.roster.get(id) else {
            return;
        };
        let State::Starting {
            ready_at_latest, ..
        } = worker.state
        else {
            return;
        };
        let readiness = self.policy(worker.generation).map(|p| p.readiness);
        let matures = match readiness {
            Some(Readiness::After(time)) => Some(now + time),
            Some(Readiness::Notify | Readiness::Finished) | None => None,
        };
        let starting = State::Starting {
            // It has nothing left to do for which it could be late.
            ready_at_latest: matures.unwrap_or(ready_at_latest).max(ready_at_latest),
            matures,
        };
        self.roster.set(id, starting);
    }

    fn may_be_ready(&self, id: WorkerId) -> bool {
        let worker = self.roster.get(id);
        let policy = worker.and_then(|worker| self.policy(worker.generation));
        policy.is_some_and(|policy| policy.readiness != Readiness::Finished)
    }

    pub(super) fn ready(&mut self, id: WorkerId, now: Instant) {
        if let Some(State::Starting { .. }) = self.roster.state(id) {
            let ready = State::Ready {
                since: now,
                stale: false,
            };
            self.roster.set(id, ready);
            self.became_ready.push(id);
            self.backoff.note_ready();
        }
    }

    fn stopping(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.roster.get(id) else {
            return;
        };
        let state = match worker.state {
            State::Ready { since, .. } => {
                let Some(policy) = self.policy(worker.generation) else {
                    return;
                };
                State::Leaving {
                    ready_since: since,
                    deadline: now + policy.graceful_timeout,
                }
            }
            State::Draining {
                deadline,
                overdue,
                untold,
                ..
            } => State::Draining {
                deadline,
                overdue,
                may_accept_until: None,
                untold,
            },
            _ => return,
        };
        self.roster.set(id, state);
    }

    /// It may be told now.
    fn quiet(&mut self, id: WorkerId, now: Instant) {
        if let Some(mut state) = self.roster.state(id)
            && let State::Draining {
                untold: Some(untold),
                ..
            } = &mut state
        {
            untold.until = untold.until.min(now);
            self.roster.set(id, state);
        }
    }

    fn hung(&mut self, id: WorkerId, extent: Extent) {
        let counts = match self.roster.state(id) {
            Some(State::Ready { .. }) => true,
            // The rest of a worker that is ending may hang too.
            Some(State::Leaving { .. } | State::Draining { .. }) => extent == Extent::Whole,
            _ => false,
        };
        if counts {
            self.hung.push((id, extent));
        }
    }

    pub(super) fn ended(&mut self, id: WorkerId, end: End, now: Instant) {
        if end == End::Own && self.failed_for_good(id) {
            return;
        }
        let Some(worker) = self.roster.remove(id) else {
            return;
        };
        self.recycling.remove(id);
        if self.canary_failed(id) {
            return;
        }
        let Some(current) = &self.current else { return };
        let Cause::Worker { ready_since } = worker.state.cause() else {
            return;
        };
        if worker.generation != current.generation {
            return;
        }
        let pace = &current.policy.backoff;
        let fails = match end {
            End::Own => self.backoff.note_end(ready_since, now, pace),
            End::Refused => {
                self.backoff.note_refusal(now, pace);
                false
            }
            End::Missing => {
                self.backoff.note_missing(now, pace);
                false
            }
        };
        if fails && current.policy.give_up.is_some() && !self.given_up {
            self.failures.push_back(now);
        }
    }

    fn hopeless(&mut self, id: WorkerId, now: Instant) {
        let generation = self.roster.get(id).map(|worker| worker.generation);
        self.ended(id, End::Own, now);
        // A candidate has failed by the end of its first worker, and an older generation starts none.
        self.given_up |= generation.is_some() && generation == self.generation();
    }

    fn stop_now(&mut self) {
        let again = match self.wish {
            // Everything was told to end before, and is signalled again.
            Wish::Stop(Urgency::Graceful) => self.roster.active() == 0,
            Wish::Stop(Urgency::Soon | Urgency::AtOnce) => true,
            Wish::Run | Wish::Pause => false,
        };
        let urgency = if again {
            Urgency::AtOnce
        } else {
            Urgency::Soon
        };
        self.wish = Wish::Stop(urgency);
    }
}
