//! Doing what the supervisors say.

use log::{debug, error, info, warn};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::children::Name;
use super::{Master, Outcome, report};
use crate::supervisor::{Action, Event, Reason, WorkerId};

impl Master {
    pub(super) fn perform(&mut self, name: &Name, action: Action) {
        debug!("app={name}: {action:?}");
        match action {
            Action::Spawn {
                worker,
                slot,
                generation,
            } => self.spawn(name, worker, slot, generation),
            Action::Terminate(worker, reason) => self.signal(name, worker, Signal::SIGTERM, reason),
            Action::Abort(worker, reason) => self.signal(name, worker, Signal::SIGABRT, reason),
            Action::Kill(worker, reason) => self.signal(name, worker, Signal::SIGKILL, reason),
            Action::Ready(worker) => {
                if let Some(pid) = self.children.pid(name, worker)
                    && let Some(child) = self.children.get_mut(pid)
                {
                    child.ready = true;
                    let time = report::short(child.asked_for.elapsed());
                    info!("{}: ready after {time}", report::Tag(child, pid));
                    self.stop_overhearing(name, pid);
                    self.begin_watching(pid);
                    self.begin_ageing(pid);
                }
            }
            Action::Check(worker) => self.check(name, worker),
            Action::Proven(generation) => self.proven(name, generation),
            Action::Failed(generation) => self.candidate_failed(name, generation),
            Action::GaveUp(limits) => {
                let within = report::short(limits.within);
                error!(
                    "app={name}: given up: {} failures within {within}",
                    limits.crashes
                );
                if limits.exit {
                    self.outcome = Outcome::GaveUp;
                    self.refused = Some(format!("app={name} was given up"));
                    self.stop(&Event::Stop);
                } else {
                    warn!(
                        "app={name}: what runs is kept; no worker is started until the next reload"
                    );
                }
            }
            Action::Retire(generation) => {
                let retired = (name.clone(), generation);
                self.end_templates(|key| *key == retired);
                if let Some(app) = self.apps.get_mut(name) {
                    app.plans.remove(&generation);
                }
            }
            Action::Settled => debug!("app={name}: settled"),
            Action::Exit => {
                if let Some(app) = self.apps.get_mut(name) {
                    app.ended = true;
                }
            }
        }
    }

    /// Sends a signal to a worker, or to the template that it was to come from.
    pub(super) fn signal(&mut self, name: &Name, worker: WorkerId, signal: Signal, reason: Reason) {
        if let Some(pid) = self.children.pid(name, worker) {
            if signal == Signal::SIGTERM {
                self.leave_queue_to_others(pid, reason);
            }
            if let Some(child) = self.children.get_mut(pid) {
                // When it dies, the log says why it got SIGABRT first.
                let first = match (reason, child.told) {
                    (Reason::AbortGrace, Some((_, first))) => first,
                    _ => reason,
                };
                child.told = Some((signal, first));
                match signal {
                    Signal::SIGTERM => debug!(
                        "{}: {signal} ({})",
                        report::Tag(child, pid),
                        report::reason_text(reason)
                    ),
                    _ => warn!(
                        "{}: {signal} ({})",
                        report::Tag(child, pid),
                        report::reason_text(reason)
                    ),
                }
            }
            send(pid, signal);
            return;
        }
        let Some(child) = self.children.expected(name, worker) else {
            return;
        };
        child.told = Some((signal, reason));
        let key = (name.clone(), child.generation);
        let Some(template) = self.templates.get_mut(&key) else {
            return;
        };
        if signal == Signal::SIGTERM && template.cancel(worker.0) {
            let idle = template.is_idle() && !template.is_loaded();
            self.not_started(name, worker, Event::Exited(worker));
            if idle {
                self.end_templates(|other| *other == key);
            }
        } else if !template.is_loaded() {
            // What keeps the worker from starting is the application's import.
            warn!(
                "app={name} template gen={} pid={}: {signal} ({})",
                key.1,
                template.pid,
                report::reason_text(reason)
            );
            send(template.pid, signal);
        } else if signal != Signal::SIGTERM {
            // It was forked, or should have been, and never said who it is: it died of something that the
            // application does at a fork, or hangs in it and may hold the template up.
            let what = format!(
                "gave no worker ({}): what the application does at a fork fails or hangs",
                report::reason_text(reason)
            );
            error!(
                "app={name} template gen={} pid={}: {what}; giving it up",
                key.1, template.pid
            );
            if let Some(reload) = &mut self.reload {
                reload.note_template(name, key.1, &what);
            }
            self.end_templates(|other| *other == key);
        }
    }
}

impl Master {
    /// Tells a worker that is to end whether it need empty the accept queues: not when others go on with them.
    fn leave_queue_to_others(&self, pid: Pid, reason: Reason) {
        let others = matches!(
            reason,
            Reason::Replaced | Reason::Recycled | Reason::ScaledDown | Reason::RolledBack
        ) && self.current.is_some();
        let Some(child) = self.children.get(pid).filter(|_| others) else {
            return;
        };
        let mut sockets = child.listens_on.iter();
        if let Some(record) = child.record
            && sockets.all(|at| self.listeners.socket(at).is_some())
            && let Some(scoreboard) = self.scoreboards.get(&child.app)
            && let Err(error) = scoreboard.succeed(record)
        {
            debug!("cannot write record {record} of the scoreboard: {error}");
        }
    }
}

/// Signals a process of the table. It has not been reaped, so its number is its own.
pub(super) fn send(pid: Pid, signal: Signal) {
    if signal == Signal::SIGKILL {
        // The whole session: what the worker started must not hold on to the listeners.
        let _ = killpg(pid, signal);
    }
    if let Err(error) = kill(pid, signal) {
        warn!("cannot send {signal} to pid {pid}: {error}");
    }
}
