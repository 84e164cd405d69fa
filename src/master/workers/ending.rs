//! Telling workers to end.

use log::{debug, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Workers;
use super::children::Child;
use crate::config::StopSignal;
use crate::master::report;
use crate::master::templates::Templates;
use crate::master::turn::Turn;
use crate::master::world::{Target, World};
use crate::plan::Stop;
use crate::release::Name;
use crate::supervisor::{Event, Reason, WorkerId};

impl Workers {
    /// A process was reaped. Returns its worker.
    pub(in crate::master) fn remove_child<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        pid: Pid,
    ) -> Option<Child> {
        let child = self.children.remove(pid)?;
        self.quiet.forget(&child.app, child.worker);
        self.forget(pid);
        self.fronts.changed(&child.app);
        release(turn, &child);
        Some(child)
    }

    /// Sends a signal to a worker. For one that has not arrived yet, decides what happens to its template.
    pub(in crate::master) fn signal<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        name: &Name,
        worker: WorkerId,
        (signal, reason): (Signal, Reason),
    ) {
        self.is_told(turn, name, worker);
        if self.queued.remove(&(name.clone(), worker)) {
            turn.queue_event(name, Event::Exited(worker));
        } else if let Some(pid) = self.children.pid(name, worker) {
            self.signal_process(turn, pid, signal, reason);
        } else if let Some(child) = self.children.expected(name, worker) {
            child.signalled = Some((signal, reason));
            let key = (name.clone(), child.generation);
            self.signal_expected(turn, templates, &key, worker, (signal, reason));
        }
    }

    pub(super) fn signal_process<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        pid: Pid,
        signal: Signal,
        reason: Reason,
    ) {
        let Some(child) = self.children.get_mut(pid) else {
            return;
        };
        if signal == Signal::SIGTERM && self.serving {
            leave_queue_to_others(turn, child, reason);
        }
        // When it dies, the log gives the reason of the SIGABRT.
        let first = match (reason, child.signalled) {
            (Reason::AbortGrace, Some((_, first))) => first,
            _ => reason,
        };
        child.signalled = Some((signal, first));
        if signal == Signal::SIGTERM {
            child.told_at = child.told_at.or(Some(turn.now));
        }
        let Stop { signal: end, group } = child.plan.stop;
        let (tag, why) = (report::Tag(child, pid), report::reason_for(child, reason));
        match signal {
            Signal::SIGTERM => debug!("{tag}: sending {} ({why})", Signal::from(end)),
            _ => warn!("{tag}: sending {signal} ({why})"),
        }
        if !child.adopted {
            return;
        }
        match signal {
            Signal::SIGTERM if group => turn.world.signal(pid, end.into(), Target::Group),
            Signal::SIGTERM if end != StopSignal::Term => send(turn, pid, end.into()),
            _ => signal_or_order(turn, pid, signal, child.ready_at.is_some()),
        }
    }
}

/// Signals a worker. One that serves is told to stop over its pipe only, where no handler of the application can interfere; one that
/// is still loading the application does not read that yet.
pub(super) fn signal_or_order<W: World>(
    turn: &mut Turn<W>,
    pid: Pid,
    signal: Signal,
    is_ready: bool,
) {
    let is_ordered = signal == Signal::SIGTERM && turn.world.order_stop(pid);
    if !(is_ordered && is_ready) {
        send(turn, pid, signal);
    }
}

/// Releases a worker's scoreboard record.
pub(in crate::master) fn release<W: World>(turn: &mut Turn<W>, child: &Child) {
    if let Some(record) = child.record {
        turn.world.release(&child.app, record);
    }
}

/// Signals a process of the table. KILL goes to the whole session: no process that the worker started may keep the listeners open.
pub(in crate::master) fn send<W: World>(turn: &mut Turn<W>, pid: Pid, signal: Signal) {
    let target = match signal {
        Signal::SIGKILL => Target::Session,
        _ => Target::Process,
    };
    turn.world.signal(pid, signal, target);
}

/// Tells a worker that is to end whether it must empty the accept queues: not if others accept from them.
fn leave_queue_to_others<W: World>(turn: &mut Turn<W>, child: &Child, reason: Reason) {
    let others = matches!(
        reason,
        Reason::Replaced | Reason::Recycled | Reason::ScaledDown | Reason::RolledBack
    );
    let mut sockets = child.plan.sockets.iter();
    if let Some(record) = child.record.filter(|_| others)
        && sockets.all(|(_, at)| turn.world.has_successors(at, child.generation))
        && let Err(error) = turn.world.succeed(&child.app, record)
    {
        debug!(
            "cannot write record {record} of the scoreboard of {}: {error}",
            child.app
        );
    }
}
