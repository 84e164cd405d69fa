//! What a generation wants of its workers, and the constants of supervision.

use std::time::Duration;

use super::{Range, backoff};

/// How long a worker has to end when everything must stop now.
pub const STOP_NOW: Duration = Duration::from_secs(1);

/// How long a reload waits for an old worker to report that it no longer accepts. A worker that has not reported by then is in
/// a long request, and does not accept while that runs.
pub const LAST_ACCEPT: Duration = Duration::from_secs(1);

/// A program of which only its execution is known is ready when it has run for this long. Otherwise it would depend on chance whether one
/// that ends at once was ready: on whether its end is seen together with its execution.
pub const READY_AFTER_EXEC: Duration = Duration::from_secs(1);

/// A worker that was ready for this long has stayed up.
pub const STAYED_UP: Duration = Duration::from_secs(1);

/// When an app is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GiveUp {
    /// After this number of failures (of workers that had not stayed up)...
    pub crashes: u32,
    /// ...within this time.
    pub within: Duration,
    /// Whether the master ends then. Otherwise it keeps the workers that run.
    pub exit: bool,
}

/// When a worker counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Readiness {
    /// It sends `READY=1`.
    Notify,
    /// Its program has run for this time since it was executed.
    After(Duration),
    /// Never: it has to finish, within the time that it has to get ready.
    Finished,
}

/// When a worker that has ended of itself is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Restart {
    /// In any case.
    Always,
    /// If it has failed.
    OnFailure,
    /// Never.
    Never,
}

/// Which comes first when a worker takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Replace {
    /// The new one is ready before the old one ends.
    StartFirst,
    /// The old one has ended before the new one starts: there are never more of them than wanted.
    StopFirst,
}

/// What one generation wants of an app's workers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// The number of workers that should be ready. If the number follows the load: at first.
    pub workers: u32,
    /// The limits, if the number follows the load.
    pub range: Option<Range>,
    /// When a worker counts as ready.
    pub readiness: Readiness,
    /// When a worker that has ended of itself is replaced.
    pub restart: Restart,
    /// Which comes first when a worker takes the place of another.
    pub replace: Replace,
    /// Whether its workers send `STOPPING=1` when they no longer accept.
    pub announces_end: bool,
    /// Whether a worker that serves is first taken out, and told to end when the requests that it has are answered: a program that knows
    /// nothing of draining loses none then.
    pub ends_quiet: bool,
    /// A worker that is not ready after this time has failed.
    pub start_timeout: Duration,
    /// A worker that was told to end has this time to finish what it serves.
    pub graceful_timeout: Duration,
    /// A worker that was told to report what it is doing and die (ABRT) has this time before it is killed.
    pub abort_grace: Duration,
    /// The first worker of a generation is checked when it is ready.
    pub check: bool,
    /// The first worker of a generation must stay ready for this time.
    pub soak: Duration,
    /// How many workers more than wanted may exist while a new generation takes over; `None`: a quarter.
    pub surge: Option<u32>,
    /// How many older generations may still finish what they serve. If there are more, the oldest are killed.
    pub max_draining: u32,
    /// When the app is given up; `None`: never.
    pub give_up: Option<GiveUp>,
    /// How crashes hold back replacements.
    pub backoff: backoff::Policy,
}

/// The part of its time to end for which a worker that was taken out may serve on before it is told: half of it. The other half is for
/// programs that finish by themselves what lasts longer, and tell their clients.
pub(super) const QUIET_PART: u32 = 2;

impl Policy {
    /// How long a worker that was taken out may serve on before it is told to end.
    #[cfg(test)]
    pub fn quiet_timeout(&self) -> Duration {
        self.graceful_timeout / QUIET_PART
    }

    /// Whether more workers than configured do no harm: each does the same work, and for ever.
    pub fn may_be_many(&self) -> bool {
        self.replace == Replace::StartFirst && self.restart != Restart::Never
    }

    /// The policy for the first start of the master: nothing serves yet that could be protected by waiting.
    #[must_use]
    pub fn at_first_start(self) -> Self {
        Self {
            check: false,
            soak: Duration::ZERO,
            ..self
        }
    }

    /// How many workers more than wanted may exist while a new generation takes over. The default, a quarter, is
    /// that of other rolling updates: it neither doubles the memory nor takes one start time for each worker.
    pub fn surge(&self, wanted: u32) -> u32 {
        self.surge.unwrap_or(wanted.div_ceil(4)).max(1)
    }
}
