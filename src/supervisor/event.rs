//! The facts that the master reports.

use super::{Generation, Load, Policy, WorkerId};

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
