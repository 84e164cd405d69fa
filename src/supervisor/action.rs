//! What the master has to do, and why.

use std::time::Duration;

use super::{Generation, GiveUp, Slot, WorkerId};

/// What the master has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Spawn {
        /// Identifies it in later events.
        worker: WorkerId,
        /// Its number within the generation.
        slot: Slot,
        /// The configuration to start it from.
        generation: Generation,
    },
    /// Send a worker no more requests. Report [`super::Event::Quiet`] when it has none.
    TakeOut(WorkerId, Reason),
    /// Tell a worker to finish its requests and exit (TERM).
    Terminate(WorkerId, Reason),
    /// Tell a worker to report what it is doing and die (ABRT).
    Abort(WorkerId, Reason),
    /// Kill a worker (KILL).
    Kill(WorkerId, Reason),
    /// A worker is ready: it has reported so, or the policy says when it is.
    Ready(WorkerId),
    /// Check the first worker of the candidate, which is ready.
    Check(WorkerId),
    /// The first worker of the candidate is ready, has passed its check, and has stayed ready for long enough; or all workers have ended
    /// that the candidate displaces, if it does not have the app.
    Proven(Generation),
    /// The first worker of the candidate ended or failed its check. The supervisor has dropped the candidate.
    Failed(Generation),
    /// Too many workers failed: no more are started until the next reload.
    GaveUp(GiveUp),
    /// Workers that ended before others were started are back.
    Resumed {
        /// The generation that runs now.
        generation: Generation,
        /// Whether it ran before: the candidate that displaced it has failed.
        again: bool,
        /// For how long there was no worker that was ready.
        gap: Duration,
    },
    /// No worker of this generation will be started any more.
    Retire(Generation),
    /// The wanted number of workers of the current generation is ready, and no older worker serves.
    Settled,
    /// Everything has ended after a stop.
    Exit,
}

/// Why a worker has to end, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The master stops.
    Stop,
    /// A newer generation takes over.
    Replaced,
    /// Its app is no longer configured.
    Removed,
    /// A fresh worker took its place.
    Recycled,
    /// Fewer workers are wanted.
    ScaledDown,
    /// The app was paused (WINCH).
    Paused,
    /// Its generation was given up.
    RolledBack,
    /// It was not ready within `start_timeout`.
    StartTimeout,
    /// It had not ended within `graceful_timeout`.
    GracefulTimeout,
    /// More than `max_draining` generations were draining, and its own was the oldest.
    MaxDraining,
    /// It was busy with one request for longer than `timeout`, or silent for longer than `watchdog`.
    Hung,
    /// It had not died of ABRT within `abort_grace`.
    AbortGrace,
}
