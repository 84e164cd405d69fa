//! Which workers end, and by which signal.

use std::time::Instant;

use super::facts::Extent;
use super::worker::{Limit, Overdue, State, Untold};
use super::{Action, Generation, Reason, Supervisor, Urgency, Wish, WorkerId, policy};

impl Supervisor {
    pub(super) fn abort_hung(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for (id, extent) in std::mem::take(&mut self.hung) {
            match (extent, self.roster.state(id)) {
                (
                    Extent::Whole,
                    Some(State::Ready { .. } | State::Leaving { .. } | State::Draining { .. }),
                ) => self.abort(id, Reason::Hung, now, actions),
                (Extent::Part, Some(State::Ready { .. } | State::Leaving { .. })) => {
                    self.end(id, Reason::Hung, now, actions);
                }
                _ => {}
            }
        }
    }

    pub(super) fn end_surplus(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.wish {
            Wish::Stop(urgency) => self.stop(urgency, now, actions),
            Wish::Pause => self.pause(now, actions),
            Wish::Run => {
                self.end_useless(now, actions);
                if self.is_displaced() {
                    return self.displace(now, actions);
                }
                if let Some(current) = &self.current {
                    let generation = current.generation;
                    let wanted = current.to_run(self.roster.tally(generation));
                    self.end_replaced(generation, wanted, now, actions);
                    self.end_unwanted(generation, wanted, now, actions);
                }
            }
        }
    }

    fn stop(&mut self, urgency: Urgency, now: Instant, actions: &mut Vec<Action>) {
        match urgency {
            Urgency::Graceful => {
                for id in self.roster.all_active() {
                    self.end(id, Reason::Stop, now, actions);
                }
            }
            Urgency::Soon => {
                for id in self.roster.all() {
                    self.hurry(id, now, actions);
                }
            }
            Urgency::AtOnce => {
                for id in self.roster.all() {
                    self.kill(id, Reason::Stop, actions);
                }
            }
        }
        // A more urgent stop has already been performed.
        self.wish = Wish::Stop(Urgency::Graceful);
    }

    fn pause(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // A canary that is tried during a pause stays: its commit ends the pause.
        let canary = self.candidate.as_ref().and_then(|c| c.canary());
        for id in self.roster.all_active() {
            if Some(id) != canary {
                self.end(id, Reason::Paused, now, actions);
            }
        }
    }

    /// Ends useless workers: those of a generation that was rolled back or removed, and those of an older one that are not
    /// ready.
    fn end_useless(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let current = self.generation();
        let candidate = self.candidate.as_ref().map(|c| c.generation);
        let removed = self.removed.as_ref().map(|r| r.newest);
        let mut strays = Vec::new();
        for (generation, _) in self.roster.generations() {
            if [current, candidate].contains(&Some(generation)) {
                continue;
            }
            if current.is_some_and(|current| generation < current) {
                let starting = self.roster.starting_of(generation);
                strays.extend(starting.map(|id| (id, Reason::Replaced)));
                continue;
            }
            let reason = match removed {
                Some(newest) if generation <= newest => Reason::Removed,
                _ => Reason::RolledBack,
            };
            let active = self.roster.active_of(generation);
            strays.extend(active.map(|id| (id, reason)));
        }
        for (id, reason) in strays {
            self.end(id, reason, now, actions);
        }
    }

    /// Ends older workers, as long as the wanted number stays ready, or without regard to it if they must end first.
    fn end_replaced(
        &mut self,
        current: Generation,
        wanted: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let mine = self.roster.tally(current).ready();
        let older = self.roster.generations_before(current);
        let older: usize = older.map(|(_, tally)| tally.ready()).sum();
        let surplus = match self.stops_first() {
            true => usize::MAX,
            false => (mine + older).saturating_sub(wanted),
        };
        if surplus == 0 {
            return;
        }
        let older = self.roster.generations_before(current);
        let older = older.flat_map(|(generation, _)| self.roster.ready_of(generation));
        let older = older.map(|id| (id, Reason::Replaced));
        let stale = self.roster.stale_of(current);
        let stale = stale.map(|id| (id, Reason::Recycled));
        let replaced: Vec<_> = older.chain(stale).take(surplus).collect();
        for (id, reason) in replaced {
            self.end(id, reason, now, actions);
        }
    }

    /// Ends workers if fewer are wanted: first those that are not ready, then those in the highest slots.
    fn end_unwanted(
        &mut self,
        current: Generation,
        wanted: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let tally = self.roster.tally(current);
        let surplus = (tally.starting + tally.fresh).saturating_sub(wanted);
        let starting = self.roster.starting_of(current).rev();
        let highest = starting.chain(self.roster.fresh_of(current).rev());
        for id in highest.take(surplus).collect::<Vec<_>>() {
            self.end(id, Reason::ScaledDown, now, actions);
        }
    }

    /// Kills the remaining workers of the oldest generations, so that frequent reloads do not accumulate generations.
    pub(super) fn end_oldest_drain(&mut self, actions: &mut Vec<Action>) {
        let Some(current) = &self.current else { return };
        let most = current.policy.max_draining as usize;
        let older = self.roster.generations_before(current.generation);
        let draining: Vec<_> = older.filter(|(_, tally)| tally.draining).collect();
        let surplus = draining.len().saturating_sub(most);
        let oldest = draining.into_iter().take(surplus);
        let ids = oldest.flat_map(|(generation, _)| self.roster.ending_of(generation));
        for id in ids.collect::<Vec<_>>() {
            self.kill(id, Reason::MaxDraining, actions);
        }
    }

    /// Sends the next stronger signal to workers that have exceeded their time.
    pub(super) fn escalate(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for id in self.roster.due(now) {
            match self.roster.state(id) {
                Some(State::Starting { .. }) => {
                    self.abort(id, Reason::StartTimeout, now, actions);
                }
                Some(State::Leaving { .. }) => self.kill(id, Reason::GracefulTimeout, actions),
                Some(State::Draining {
                    deadline,
                    overdue,
                    may_accept_until,
                    untold: Some(Untold { until, reason }),
                }) if until <= now => {
                    let draining = State::Draining {
                        // If the master stood still, it has as much time as it would have had.
                        deadline: deadline.max(now + (deadline - until)),
                        overdue,
                        may_accept_until: may_accept_until.filter(|until| *until > now),
                        untold: None,
                    };
                    self.roster.set(id, draining);
                    actions.push(Action::Terminate(id, reason));
                }
                Some(State::Draining {
                    deadline,
                    overdue,
                    untold,
                    ..
                }) if deadline > now => {
                    let draining = State::Draining {
                        deadline,
                        overdue,
                        may_accept_until: None,
                        untold,
                    };
                    self.roster.set(id, draining);
                }
                Some(State::Draining { overdue, .. }) => match overdue {
                    Overdue::Abort => self.abort(id, Reason::Hung, now, actions),
                    Overdue::Kill(limit) => self.kill(id, limit.reason(), actions),
                },
                Some(State::Doomed { limit, .. }) => self.kill(id, limit.reason(), actions),
                Some(State::Aborting { .. }) => self.kill(id, Reason::AbortGrace, actions),
                Some(State::Ready { .. } | State::Killed { .. }) | None => {}
            }
        }
    }

    /// Tells a worker to finish its requests and exit, within its `graceful_timeout`; or has it taken out before, which is a part of
    /// that time.
    pub(super) fn end(
        &mut self,
        id: WorkerId,
        reason: Reason,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(worker) = self.roster.get(id) else {
            return;
        };
        let policy = self.policy(worker.generation);
        let time = policy.map_or(worker.own.graceful_timeout, |p| p.graceful_timeout);
        let deadline = now + time;
        let says_when = policy.is_some_and(|p| p.announces_end);
        // What hangs is not waited for.
        let is_waited_for = worker.own.ends_quiet && reason != Reason::Hung;
        let untold = is_waited_for.then(|| Untold {
            until: now + time / policy::QUIET_PART,
            reason,
        });
        let untold = untold.filter(|untold| untold.until > now);
        let limit = Limit::GracefulTimeout;
        let overdue = match reason {
            Reason::Hung => Overdue::Abort,
            _ => Overdue::Kill(limit),
        };
        let state = match worker.state {
            State::Starting { .. } => State::Doomed { deadline, limit },
            State::Ready { .. } => State::Draining {
                deadline,
                overdue,
                may_accept_until: says_when.then(|| now + policy::LAST_ACCEPT),
                untold,
            },
            State::Leaving { .. } => State::Draining {
                deadline,
                overdue,
                may_accept_until: None,
                untold: None,
            },
            _ => return,
        };
        self.roster.set(id, state);
        // It may have become due again while its replacement started.
        self.recycling.remove(id);
        actions.push(match state {
            State::Draining {
                untold: Some(_), ..
            } => Action::TakeOut(id, reason),
            _ => Action::Terminate(id, reason),
        });
    }

    /// Leaves a worker at most [`policy::STOP_NOW`]. Signals it, unless it already knows that it has to end.
    fn hurry(&mut self, id: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        let until = now + policy::STOP_NOW;
        let limit = Limit::StopNow;
        let overdue = Overdue::Kill(limit);
        let (state, is_new) = match self.roster.state(id) {
            Some(State::Starting { .. }) => {
                let deadline = until;
                (State::Doomed { deadline, limit }, true)
            }
            Some(State::Ready { .. } | State::Leaving { .. }) => (
                State::Draining {
                    deadline: until,
                    overdue,
                    may_accept_until: None,
                    untold: None,
                },
                true,
            ),
            Some(State::Draining {
                deadline,
                may_accept_until,
                untold,
                ..
            }) => (
                State::Draining {
                    deadline: deadline.min(until),
                    overdue,
                    may_accept_until,
                    untold: None,
                },
                untold.is_some(),
            ),
            Some(State::Doomed { deadline, .. }) => {
                let deadline = deadline.min(until);
                (State::Doomed { deadline, limit }, false)
            }
            Some(State::Aborting { deadline, cause }) => {
                let deadline = deadline.min(until);
                (State::Aborting { deadline, cause }, false)
            }
            Some(State::Killed { .. }) | None => return,
        };
        self.roster.set(id, state);
        if is_new {
            actions.push(Action::Terminate(id, Reason::Stop));
        }
    }

    /// Makes a worker report what it is doing and die, within its `abort_grace`.
    fn abort(&mut self, id: WorkerId, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        let Some(worker) = self.roster.get(id) else {
            return;
        };
        let policy = self.policy(worker.generation);
        let grace = policy.map_or(policy::STOP_NOW, |p| p.abort_grace);
        let aborting = State::Aborting {
            deadline: now + grace,
            cause: worker.state.cause(),
        };
        self.roster.set(id, aborting);
        actions.push(Action::Abort(id, reason));
    }

    fn kill(&mut self, id: WorkerId, reason: Reason, actions: &mut Vec<Action>) {
        let Some(state) = self.roster.state(id) else {
            return;
        };
        let cause = state.cause();
        self.roster.set(id, State::Killed { cause });
        actions.push(Action::Kill(id, reason));
    }
}
