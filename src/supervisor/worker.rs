//! One worker: its id, its slot and its state.

use std::time::{Duration, Instant};

use super::Reason;

/// Counts the accepted configurations of a master. Never reused.
pub type Generation = u64;

/// A worker's number within its app and generation, from 0: the lowest one that is free when the worker is started.
pub type Slot = u32;

/// Identifies one worker of an app. Unlike a process id or a slot it is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) generation: Generation,
    pub(super) slot: Slot,
    pub(super) state: State,
    pub(super) own: Own,
}

/// What a worker has been started with. Its generation may have no policy any more when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    /// How long it may take to finish, if no policy says so.
    pub(super) graceful_timeout: Duration,
    /// It is told to end when no request runs there.
    pub(super) ends_quiet: bool,
}

/// The state of a worker, with everything that is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was requested and is not ready yet.
    Starting {
        ready_at_latest: Instant,
        /// When it becomes ready by time alone ([`super::Readiness::After`]).
        matures: Option<Instant>,
    },
    /// It serves.
    Ready {
        since: Instant,
        /// It is being replaced by a new worker, and counts like one of an older generation.
        stale: bool,
    },
    /// It was ready and is ending on its own initiative.
    Leaving {
        ready_since: Instant,
        deadline: Instant,
    },
    /// It was ready and was told to finish what it serves.
    Draining {
        deadline: Instant,
        overdue: Overdue,
        /// Until this time, or until it sends `STOPPING=1`, it may still accept requests.
        may_accept_until: Option<Instant>,
        /// It was taken out, and was not told yet.
        untold: Option<Untold>,
    },
    /// It was told to end before it was ready.
    Doomed { deadline: Instant, limit: Limit },
    /// It was told to report what it is doing and die (ABRT).
    Aborting { deadline: Instant, cause: Cause },
    /// It was killed and has not been reaped yet.
    Killed { cause: Cause },
}

/// The cause of a worker's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The supervisor told it to end.
    Supervisor,
    /// The worker itself. If it dies young, that is a failure.
    Worker { ready_since: Option<Instant> },
}

/// What follows when a draining worker exceeds its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Kill(Limit),
    /// It drains because one of its requests hangs: it must report where before it is killed.
    Abort,
}

/// A worker that is told to end when it has no requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Untold {
    /// When it is told at the latest.
    pub(super) until: Instant,
    pub(super) reason: Reason,
}

/// The limit that a deadline stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    GracefulTimeout,
    /// [`super::policy::STOP_NOW`].
    StopNow,
}

impl Limit {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::GracefulTimeout => Reason::GracefulTimeout,
            Self::StopNow => Reason::Stop,
        }
    }
}

impl State {
    /// Whether it counts towards the wanted number.
    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Ready { .. })
    }

    /// The cause of the worker's end, if it ends now.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::Starting { .. } => Cause::Worker { ready_since: None },
            Self::Ready { since, .. } => Cause::Worker {
                ready_since: Some(since),
            },
            Self::Leaving { ready_since, .. } => Cause::Worker {
                ready_since: Some(ready_since),
            },
            Self::Draining { .. } | Self::Doomed { .. } => Cause::Supervisor,
            Self::Aborting { cause, .. } | Self::Killed { cause } => cause,
        }
    }

    /// When time alone changes the state next.
    pub(super) fn due(self) -> Option<Instant> {
        let earlier = |deadline: Instant, other: Option<Instant>| {
            Some(other.map_or(deadline, |other| deadline.min(other)))
        };
        match self {
            Self::Starting {
                ready_at_latest,
                matures,
            } => earlier(ready_at_latest, matures),
            Self::Draining {
                deadline,
                may_accept_until,
                untold,
                ..
            } => {
                let told = untold.map_or(deadline, |untold| untold.until.min(deadline));
                earlier(told, may_accept_until)
            }
            Self::Leaving { deadline, .. }
            | Self::Doomed { deadline, .. }
            | Self::Aborting { deadline, .. } => Some(deadline),
            Self::Ready { .. } | Self::Killed { .. } => None,
        }
    }
}
