//! The numbers that the supervisor works by.

use std::time::Duration;

use super::{Range, backoff};

/// How long a worker has to end when everything must stop now.
pub const STOP_NOW: Duration = Duration::from_secs(1);

/// How long a worker that was told to end may take to say that it accepts no more, before a reload counts as
/// complete without that word. It may be in the middle of a long request, and accepts nothing meanwhile.
pub const LAST_ACCEPT: Duration = Duration::from_secs(1);

/// When an app is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GiveUp {
    /// After so many failures (of workers that had not stayed up)...
    pub crashes: u32,
    /// ...in such a time.
    pub within: Duration,
    /// Whether the master ends then; else it keeps what runs.
    pub exit: bool,
}

/// When a worker counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Readiness {
    /// It sends `READY=1`.
    Notify,
    /// Its program was executed.
    Exec,
    /// Its program was executed and has lived so long.
    After(Duration),
}

/// What one generation wants of an app's workers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// The number of workers that should be ready, at first where it follows the load.
    pub workers: u32,
    /// Where the number follows the load.
    pub range: Option<Range>,
    /// When a worker counts as ready.
    pub readiness: Readiness,
    /// Its workers say `STOPPING=1` when they accept no more.
    pub announces_end: bool,
    /// A worker that is not ready after this time has failed.
    pub start_timeout: Duration,
    /// A worker that was told to end has this time to finish what it serves.
    pub graceful_timeout: Duration,
    /// A worker that was told to say what it is doing and die (ABRT) has this time before KILL.
    pub abort_grace: Duration,
    /// The first worker of a generation that takes over from another is checked when it is ready.
    pub check: bool,
    /// The first worker of a generation that takes over from another must live so long after it was ready.
    pub soak: Duration,
    /// How many workers more than wanted may exist while a new generation takes over; `None`: a quarter.
    pub surge: Option<u32>,
    /// So many older generations may still finish what they serve; the oldest of more is ended.
    pub max_draining: u32,
    /// When the app is given up; `None`: never.
    pub give_up: Option<GiveUp>,
    /// How crashes hold back replacements.
    pub backoff: backoff::Policy,
}

impl Policy {
    /// How many workers more than wanted may exist while a new generation takes over. A quarter, as other
    /// rolling updates have it, neither doubles the memory nor takes one start time per worker.
    pub fn surge(&self, wanted: u32) -> u32 {
        self.surge.unwrap_or(wanted.div_ceil(4)).max(1)
    }
}
