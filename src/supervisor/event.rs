//! The facts that the master reports.

use super::{Generation, Load, Policy, WorkerId};

/// A fact that the master reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A configuration was accepted as the candidate. Its first worker has to prove it.
    Propose(Generation, Policy),
    /// A configuration becomes the current generation without a trial.
    Install(Generation, Policy),
    /// No worker of this generation may start until [`Event::Release`], if it is the current one.
    Hold(Generation),
    /// Its workers may start.
    Release(Generation),
    /// The candidate becomes the current generation.
    Commit,
    /// The candidate is dropped, because it failed here or in another app.
    Rollback,
    /// This candidate does not have the app: its workers end before those of other apps start. It is removed then, or the candidate is
    /// dropped.
    Displace(Generation),
    /// The candidate is dropped, and what it has displaced waits until [`Event::Restore`]: workers of other apps may still hold what it needs.
    Withdraw,
    /// What was displaced by a candidate that was withdrawn starts again.
    Restore,
    /// This many more workers are wanted, or fewer if negative; at least one is kept.
    Scale(i32),
    /// The current load.
    Load(Load),
    /// The worker's program was executed.
    Executed(WorkerId),
    /// The worker reports that it serves.
    Ready(WorkerId),
    /// The first worker of the candidate has passed its check.
    Checked(WorkerId),
    /// The first worker of the candidate has failed its check.
    CheckFailed(WorkerId),
    /// The worker reports that it no longer accepts and will end, on request or on its own initiative.
    Stopping(WorkerId),
    /// The worker was taken out ([`super::Action::TakeOut`]) and has no requests any more.
    Quiet(WorkerId),
    /// The worker should be recycled: it is old or large enough.
    Recycle(WorkerId),
    /// The worker should be recycled, because it became too large soon after its start. A fresh one may do the same, so such
    /// workers are replaced at growing intervals.
    Outgrown(WorkerId),
    /// The worker has been busy with one request, or silent, for too long, and does nothing else.
    Hung(WorkerId),
    /// The worker has been busy with one request for too long, but its other threads serve: they may finish.
    HungInPart(WorkerId),
    /// The worker's process was reaped.
    Exited(WorkerId),
    /// The worker's process was reaped. It has ended of itself, with status 0.
    Finished(WorkerId),
    /// The worker's process was reaped, and no other one would do better: start none until the next reload.
    Hopeless(WorkerId),
    /// The worker could not be started; there is no process.
    SpawnFailed(WorkerId),
    /// The system refused to create a process for the worker, which is not the app's fault.
    Refused(WorkerId),
    /// The worker could not be started, because something is missing that others may bring; there is no process.
    Missing(WorkerId),
    /// Whether something is left of an earlier run beside which no worker may be started.
    EarlierLeft(bool),
    /// End all workers, and start none until the next commit or rollback.
    Pause,
    /// The app is no longer configured: end its workers.
    Remove,
    /// End everything, after finishing running requests.
    Stop,
    /// End everything within a second; if repeated, at once.
    StopNow,
    /// The instant that [`super::Supervisor::deadline`] returned has come.
    Deadline,
}
