//! Workers that have ended for good, because the policy does not replace them ([`Restart`]).

use std::time::Instant;

use super::candidate::Trial;
use super::facts::End;
use super::roster::{Done, Tally};
use super::worker::{Cause, Worker};
use super::{Current, Restart, Supervisor, WorkerId};

#[cfg(test)]
mod tests;

impl Supervisor {
    /// Records that a worker has ended of itself, with status 0.
    pub(super) fn finished(&mut self, id: WorkerId, now: Instant) {
        let worker = self.roster.get(id);
        if worker.is_none_or(|worker| self.restart(worker) == Restart::Always) {
            return self.ended(id, End::Own, now);
        }
        self.roster.finish(id, Done::Finished);
        self.recycling.remove(id);
        if let Some(candidate) = &mut self.candidate
            && candidate.canary() == Some(id)
        {
            candidate.trial = Trial::Finished(id);
        }
        self.rest();
    }

    /// Whether a worker that has failed just now is not replaced; if so, records that.
    pub(super) fn failed_for_good(&mut self, id: WorkerId) -> bool {
        let worker = self.roster.get(id);
        let is_canary = self.candidate.as_ref().and_then(|c| c.canary()) == Some(id);
        let for_good = worker.is_some_and(|worker| self.restart(worker) == Restart::Never);
        if is_canary || !for_good {
            return false;
        }
        self.roster.finish(id, Done::Failed);
        self.recycling.remove(id);
        self.rest();
        true
    }

    /// Whether a worker that has ended just now is replaced: always, if it was told to end.
    fn restart(&self, worker: Worker) -> Restart {
        let candidate = self.candidate.as_ref().map(|c| c.generation);
        let runs = [self.generation(), candidate].contains(&Some(worker.generation));
        let of_itself = matches!(worker.state.cause(), Cause::Worker { .. });
        let policy = self.policy(worker.generation);
        let policy = policy.filter(|_| runs && of_itself);
        policy.map_or(Restart::Always, |policy| policy.restart)
    }

    /// Ends the backoff if there is nothing that it could delay.
    fn rest(&mut self) {
        let current = self.current.as_ref();
        let tally = current.map(|current| (current, self.roster.tally(current.generation)));
        if tally.is_some_and(|(current, tally)| current.to_run(tally) == 0) {
            self.backoff.clear();
        }
    }
}

impl Current {
    /// The number of workers that should run: those that have ended for good count as wanted ones.
    pub(super) fn to_run(&self, tally: Tally) -> usize {
        (self.wanted as usize).saturating_sub(tally.done())
    }
}
