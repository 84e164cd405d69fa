//! The words between the master and the supervisor: what it is told, what it says.

use super::{GiveUp, Load, Policy};

/// Counts the accepted configurations of a master; never reused.
pub type Generation = u64;

/// A worker's number within its app and generation, from 0: the lowest that is free when it is started.
pub type Slot = u32;

/// Names one worker of an app for ever; unlike a pid or a slot it is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// A fact that the supervisor is told.
#[expect(
    clippy::large_enum_variant,
    reason = "a policy comes with a reload, and lives for one call"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A configuration was accepted; its first worker has to prove it.
    Propose(Generation, Policy),
    /// The candidate becomes the current generation.
    Commit,
    /// The candidate is given up (it failed here or in another app).
    Rollback,
    /// So many workers more (or fewer, if negative); at least one is kept.
    Scale(i32),
    /// How much there is to do just now.
    Load(Load),
    /// The worker's program was executed.
    Executed(WorkerId),
    /// The worker says that it serves.
    Ready(WorkerId),
    /// The first worker of the candidate has passed its check.
    Checked(WorkerId),
    /// It has not.
    CheckFailed(WorkerId),
    /// The worker says that it accepts no more and ends: as it was told to, or by itself.
    Stopping(WorkerId),
    /// The worker should make room for a fresh one: it has served long enough, or has grown.
    Recycle(WorkerId),
    /// The worker has been in one request, or silent, for too long, and does nothing else.
    Hung(WorkerId),
    /// The worker has been in one request for too long, but its other threads serve: they may finish.
    HungInPart(WorkerId),
    /// The worker's process was reaped.
    Exited(WorkerId),
    /// The worker could not be started; there is no process.
    SpawnFailed(WorkerId),
    /// The system would make no process for the worker, which is not the app's fault.
    Refused(WorkerId),
    /// End all workers, start none, until the next commit or rollback.
    Pause,
    /// The app is no longer configured: end its workers as a newer generation would, but for no other.
    Remove,
    /// End everything: finish what is being served.
    Stop,
    /// End everything within a second; said again, at once.
    StopNow,
    /// The instant that [`super::Supervisor::deadline`] named has come.
    Deadline,
}

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

/// How many workers an app has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// As many should be ready.
    pub wanted: u32,
    /// As many are, of any generation.
    pub ready: u32,
    /// Workers that are not ready yet.
    pub starting: u32,
    /// Workers that finish what they serve, or were told to die.
    pub leaving: u32,
}
