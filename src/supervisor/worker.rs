//! What is known of one worker.

use std::time::{Duration, Instant};

use super::{Action, Generation, Reason, Slot, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    Leaving,
    Doomed,
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) state: State,
    /// When the state has lasted too long.
    pub(super) deadline: Option<Instant>,
    /// What the passing of `deadline` is called.
    pub(super) overdue: Reason,
    /// When it became ready by the mere passing of time ([`super::Readiness::After`]).
    pub(super) matures: Option<Instant>,
    pub(super) ready_at: Option<Instant>,
    /// Its end would be our own doing, not a crash.
    pub(super) asked: bool,
    /// It should make room for a fresh one, when it is its turn.
    pub(super) due: bool,
    /// It is its turn: it counts as one of an older generation.
    pub(super) stale: bool,
    /// Told to end, it may still accept until it says `STOPPING=1`, or for so long at most.
    pub(super) may_accept_until: Option<Instant>,
}

impl Worker {
    pub(super) fn active(&self) -> bool {
        matches!(self.state, State::Starting | State::Ready)
    }
}

/// Tells a worker to end within `grace`; one that was told already only gets less time, never more.
pub(super) fn leave(
    id: WorkerId,
    worker: &mut Worker,
    reason: Reason,
    grace: Duration,
    now: Instant,
    actions: &mut Vec<Action>,
) {
    let until = now + grace;
    let told = !worker.active() && worker.asked;
    if !told {
        worker.state = match worker.state {
            State::Starting | State::Doomed => State::Doomed,
            State::Ready | State::Leaving => State::Leaving,
        };
        worker.asked = true;
        worker.matures = None;
        worker.overdue = Reason::GracefulTimeout;
        actions.push(Action::Terminate(id, reason));
        worker.deadline = Some(until);
    } else if let Some(deadline) = &mut worker.deadline {
        *deadline = until.min(*deadline);
    }
}
