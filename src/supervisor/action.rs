//! What the master has to do, and why.

use super::{Generation, GiveUp, Slot, WorkerId};

/// What the master has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Spawn {
        /// Its name in later events.
        worker: WorkerId,
        /// Its number within the generation.
        slot: Slot,
        /// The configuration to start it from.
        generation: Generation,
    },
    /// Tell a worker to finish and exit (TERM).
    Terminate(WorkerId, Reason),
    /// Tell a worker to say what it is doing and die (ABRT).
    Abort(WorkerId, Reason),
    /// End a worker (KILL).
    Kill(WorkerId, Reason),
    /// A worker serves, by its own word or by the policy's.
    Ready(WorkerId),
    /// The canary of the candidate is ready: check it.
    Check(WorkerId),
    /// The canary of the candidate is ready, and was checked, and has lived long enough.
    Proven(Generation),
    /// The candidate cannot start: its canary ended, or failed its check. The candidate is already gone here.
    Failed(Generation),
    /// Too many workers failed: no more are started until the next reload.
    GaveUp(GiveUp),
    /// No worker of this generation will be started any more.
    Retire(Generation),
    /// The wanted number of workers of the current generation is ready, and no older worker serves.
    Settled,
    /// Everything has ended after a stop.
    Exit,
}

/// Why a worker is told to end; for the log.
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
    /// All workers are drained (WINCH).
    Paused,
    /// Its generation was given up.
    RolledBack,
    /// It was not ready within `start_timeout`.
    StartTimeout,
    /// It had not ended within `graceful_timeout`.
    GracefulTimeout,
    /// More than `max_draining` generations were draining, and its was the oldest.
    MaxDraining,
    /// It was in one request, or silent, for longer than `timeout` or `watchdog` allows.
    Hung,
    /// It had not died of ABRT.
    AbortGrace,
}
