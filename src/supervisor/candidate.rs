//! A new generation, from its proposal until it takes over.

use std::time::Instant;

use super::worker::State;
use super::{Action, Current, Demand, Generation, Policy, Removed, Supervisor, WorkerId};

/// A generation that was proposed and has not taken over.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) generation: Generation,
    pub(super) policy: Policy,
    pub(super) trial: Trial,
    /// The change by TTIN and TTOU since the proposal; it survives the commit.
    pub(super) scaled_meanwhile: i32,
}

/// The progress of a candidate's trial by its first worker, the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// No worker was started.
    Untried,
    /// The canary starts.
    Starting(WorkerId),
    /// The canary is ready, and the master checks it.
    Checking(WorkerId),
    /// The canary has to stay ready for a while.
    Soaking { canary: WorkerId, since: Instant },
    /// The canary has ended in good order, and is not replaced.
    Finished(WorkerId),
    /// The canary has passed; the master decides whether the candidate takes over.
    Proven(WorkerId),
    /// The canary has ended or failed its check.
    Failed,
    /// There is no canary, as the candidate does not have the app: its workers end.
    Displacing,
    /// They have ended.
    Displaced,
    /// The candidate was dropped, and what it has displaced does not start yet.
    Withdrawn,
}

impl Candidate {
    pub(super) fn canary(&self) -> Option<WorkerId> {
        match self.trial {
            Trial::Starting(id) | Trial::Checking(id) | Trial::Finished(id) | Trial::Proven(id) => {
                Some(id)
            }
            Trial::Soaking { canary, .. } => Some(canary),
            Trial::Untried
            | Trial::Failed
            | Trial::Displacing
            | Trial::Displaced
            | Trial::Withdrawn => None,
        }
    }
}

// Facts.
impl Supervisor {
    pub(super) fn propose(&mut self, generation: Generation, policy: Policy) {
        self.begin_outage(&policy);
        self.generations.insert(generation);
        if policy.stops_first() {
            self.alone.insert(generation);
        }
        self.candidate = Some(Candidate {
            generation,
            policy,
            trial: Trial::Untried,
            scaled_meanwhile: 0,
        });
    }

    pub(super) fn commit(&mut self, now: Instant) {
        let proven = |c: &mut Candidate| matches!(c.trial, Trial::Proven(_));
        if let Some(candidate) = self.candidate.take_if(proven) {
            self.take_over(candidate, now);
        }
    }

    pub(super) fn install(&mut self, generation: Generation, policy: Policy, now: Instant) {
        self.propose(generation, policy);
        if let Some(candidate) = self.candidate.take() {
            self.take_over(candidate, now);
        }
    }

    pub(super) fn hold(&mut self, generation: Generation, held: bool) {
        let current = self.current.as_mut();
        if let Some(current) = current.filter(|current| current.generation == generation) {
            current.held = held;
        }
    }

    fn take_over(&mut self, candidate: Candidate, now: Instant) {
        let configured = candidate.policy.workers;
        let scaled = || add(configured, candidate.scaled_meanwhile);
        let wanted = match (&self.current, &candidate.policy.range) {
            (None, _) => scaled(),
            // The canary has just been started; it is ended again if there is no load.
            (Some(old), Some(range)) => old.wanted.clamp(range.min.max(1), range.max),
            (Some(old), None) if old.policy.workers == configured && old.policy.range.is_none() => {
                old.wanted
            }
            (Some(_), None) => scaled(),
        };
        self.current = Some(Current {
            generation: candidate.generation,
            policy: candidate.policy,
            wanted,
            demand: Demand::new(now),
            held: false,
        });
        self.removed = None;
        self.recycling.begin_anew();
        self.backoff.clear();
        self.failures.clear();
        self.given_up = false;
        self.resume();
    }

    /// The app is no longer configured.
    pub(super) fn remove(&mut self) {
        let candidate = self.candidate.take().map(|c| (c.generation, c.policy));
        let current = self.current.take().map(|c| (c.generation, c.policy));
        let newest = candidate
            .as_ref()
            .or(current.as_ref())
            .map(|(generation, _)| *generation);
        if let Some(newest) = newest
            && let Some((_, policy)) = current.or(candidate)
        {
            self.removed = Some(Removed { newest, policy });
        }
        self.outage = None;
        self.resume();
    }

    pub(super) fn checked(&mut self, id: WorkerId, now: Instant) {
        if let Some(candidate) = &mut self.candidate
            && candidate.trial == Trial::Checking(id)
        {
            candidate.trial = Trial::Soaking {
                canary: id,
                since: now,
            };
        }
    }

    /// Records that the canary has failed its check or has ended, if the worker is the canary; returns whether it is.
    pub(super) fn canary_failed(&mut self, id: WorkerId) -> bool {
        let candidate = self.candidate.as_mut();
        let failed = candidate.filter(|candidate| candidate.canary() == Some(id));
        // Beside what is left of an earlier run, its end says nothing of the candidate.
        let trial = match self.earlier_left {
            true => Trial::Untried,
            false => Trial::Failed,
        };
        failed.map(|candidate| candidate.trial = trial).is_some()
    }
}

// Decisions.
impl Supervisor {
    /// Takes the trial of the candidate as far as the facts allow.
    pub(super) fn try_candidate(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(failed) = self.candidate.take_if(|c| c.trial == Trial::Failed) {
            actions.push(Action::Failed(failed.generation));
        }
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if let Trial::Starting(canary) = candidate.trial
            && let Some(State::Ready { since, .. }) = self.roster.state(canary)
        {
            candidate.trial = if candidate.policy.check {
                actions.push(Action::Check(canary));
                Trial::Checking(canary)
            } else {
                Trial::Soaking { canary, since }
            };
        }
        if candidate.trial == Trial::Displacing && self.roster.is_empty() {
            candidate.trial = Trial::Displaced;
            actions.push(Action::Proven(candidate.generation));
        }
        if let Trial::Finished(canary) = candidate.trial {
            candidate.trial = Trial::Proven(canary);
            actions.push(Action::Proven(candidate.generation));
        }
        if let Some(at) = self.soaked_at()
            && at <= now
            && let Some(candidate) = &mut self.candidate
            && let Trial::Soaking { canary, .. } = candidate.trial
        {
            candidate.trial = Trial::Proven(canary);
            actions.push(Action::Proven(candidate.generation));
        }
    }

    /// When the canary will have been ready for long enough. A canary that hangs or ends before then proves nothing; its end
    /// will be the failure.
    pub(super) fn soaked_at(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref()?;
        match candidate.trial {
            Trial::Soaking { canary, since } if self.roster.is_ready(canary) => {
                Some(since + candidate.policy.soak)
            }
            _ => None,
        }
    }

    /// Announces the generations of which no worker will be started any more.
    pub(super) fn retire(&mut self, actions: &mut Vec<Action>) {
        let current = self.generation();
        let candidate = self.candidate.as_ref().map(|c| c.generation);
        self.generations.retain(|&generation| {
            let kept = [current, candidate].contains(&Some(generation));
            if !kept {
                self.roster.forget(generation);
                actions.push(Action::Retire(generation));
            }
            kept
        });
        let (generations, roster) = (&self.generations, &self.roster);
        self.alone.retain(|generation| {
            generations.contains(generation) || roster.size_of(*generation) > 0
        });
    }
}

/// A number of workers changed by a signal; at least one.
pub(super) fn add(number: u32, by: i32) -> u32 {
    number.saturating_add_signed(by).max(1)
}
