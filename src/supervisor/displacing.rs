//! Workers that end before others take their place ([`Replace::StopFirst`]), because they bind an address of their own or may exist
//! only once.

use std::time::{Duration, Instant};

use super::candidate::{Candidate, Trial};
use super::{Action, Generation, Policy, Reason, Replace, Supervisor};

#[cfg(test)]
mod tests;

/// A candidate has displaced the current generation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    /// The generation that was displaced.
    displaced: Generation,
    /// Since when no worker is ready.
    since: Option<Instant>,
}

impl Policy {
    pub(super) fn stops_first(&self) -> bool {
        self.replace == Replace::StopFirst
    }
}

impl Supervisor {
    /// Whether a worker must have ended, with everything that it has started, before one of the generation that runs takes its place;
    /// if none runs, of the candidate. Workers of an app that was removed also count as long as they live.
    pub fn stops_first(&self) -> bool {
        match (&self.current, &self.candidate) {
            // A candidate that starts first does not change how the others replace each other while it is tried.
            (Some(current), _) => current.policy.stops_first() || self.outage.is_some(),
            (None, candidate) => {
                let candidate = candidate.as_ref();
                let left = || self.alone.iter().any(|&it| self.has_workers_alone(it));
                candidate.is_some_and(|candidate| candidate.policy.stops_first()) || left()
            }
        }
    }

    /// Whether a candidate was proposed, or displaces the app, and is not decided.
    pub fn has_candidate(&self) -> bool {
        let candidate = self.candidate.as_ref();
        candidate.is_some_and(|candidate| candidate.trial != Trial::Withdrawn)
    }

    /// Whether workers of a generation have not ended that must be alone by their own definition, whatever the app is now.
    pub fn has_workers_alone(&self, generation: Generation) -> bool {
        self.alone.contains(&generation) && self.roster.size_of(generation) > 0
    }

    /// Whether no worker of the current generation may run until the candidate is decided.
    pub fn is_displaced(&self) -> bool {
        let candidate = self.candidate.as_ref();
        candidate.is_some_and(|candidate| candidate.policy.stops_first())
    }

    /// Whether a candidate has displaced the current generation, and no worker is ready.
    pub fn is_displaced_wholly(&self) -> bool {
        self.outage.is_some() && self.roster.ready() == 0
    }

    /// A proposed policy may displace the current generation. If that is started again, it is started at once.
    pub(super) fn begin_outage(&mut self, policy: &Policy) {
        let Some(displaced) = self.generation().filter(|_| policy.stops_first()) else {
            return;
        };
        self.outage.get_or_insert(Outage {
            displaced,
            since: None,
        });
        if self.roster.active() > 0 {
            self.backoff.clear();
            self.failures.clear();
            self.given_up = false;
        }
    }

    /// Begins the candidate of a generation that does not have the app.
    pub(super) fn displace_for(&mut self, generation: Generation) {
        let Some(current) = &self.current else {
            return;
        };
        let policy = Policy {
            replace: Replace::StopFirst,
            ..current.policy.clone()
        };
        self.begin_outage(&policy);
        self.candidate = Some(Candidate {
            generation,
            policy,
            trial: Trial::Displacing,
            scaled_meanwhile: 0,
        });
    }

    /// Drops the candidate. What it has displaced does not start yet.
    pub(super) fn withdraw(&mut self) {
        let displaces = self.is_displaced();
        match &mut self.candidate {
            Some(candidate) if displaces => candidate.trial = Trial::Withdrawn,
            candidate => *candidate = None,
        }
        self.resume();
    }

    /// What a candidate has displaced that was withdrawn may start again.
    pub(super) fn restore(&mut self) {
        self.candidate.take_if(|c| c.trial == Trial::Withdrawn);
    }

    /// Ends the workers that the candidate displaces.
    pub(super) fn displace(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(candidate) = &self.candidate else {
            return;
        };
        let (canary, generation) = (candidate.canary(), candidate.generation);
        let reason = match candidate.trial {
            Trial::Displacing | Trial::Displaced => Reason::Removed,
            _ => Reason::Replaced,
        };
        for id in self.roster.all_active() {
            let is_new =
                |id| self.roster.get(id).map(|worker| worker.generation) == Some(generation);
            match id {
                id if Some(id) == canary => {}
                id if is_new(id) => self.end(id, Reason::RolledBack, now, actions),
                id => self.end(id, reason, now, actions),
            }
        }
    }

    pub(super) fn note_vacancy(&mut self, now: Instant) {
        if let Some(outage) = &mut self.outage
            && self.roster.ready() == 0
        {
            outage.since.get_or_insert(now);
        }
    }

    /// Whether one more worker of the current generation has room when there must not be more than wanted.
    pub(super) fn has_room(&self, current: Generation, wanted: usize) -> bool {
        let mine = self.roster.size_of(current);
        // A candidate that displaces nobody may run beside them.
        let candidate = self.candidate.as_ref();
        let canary = candidate.map_or(0, |c| self.roster.size_of(c.generation));
        !self.is_displaced() && self.roster.size() == mine + canary && mine < wanted
    }

    /// Reports how long no worker was ready, when one is ready and it is decided which generation runs.
    pub(super) fn end_outage(&mut self, actions: &mut Vec<Action>) {
        let (Some(outage), Some(current), None) = (self.outage, self.generation(), &self.candidate)
        else {
            return;
        };
        let Some(since) = outage.since else {
            return;
        };
        let tally = self.roster.tally(current);
        if tally.ready() == 0 {
            if tally.done() > 0 {
                self.outage = None;
            }
            return;
        }
        let ready = self.roster.first_ready_after(current, since);
        let gap = ready.map(|ready| ready.saturating_duration_since(since));
        self.outage = None;
        actions.push(Action::Resumed {
            generation: current,
            again: current == outage.displaced,
            gap: gap.unwrap_or(Duration::ZERO),
        });
    }
}
