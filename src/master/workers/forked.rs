//! Workers that templates fork: from the order to the adoption, and the ends of templates.

use std::time::Duration;

use log::{debug, error, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Workers;
use super::ending::{release, send, signal_or_order};
use crate::master::report;
use crate::master::templates::{Key, TemplateMessage, Templates};
use crate::master::turn::Turn;
use crate::master::world::{Exit, World};
use crate::release::{Fact, Name};
use crate::supervisor::{Event, Reason, WorkerId};

/// The interval of checks whether a worker of a template has become the master's child, which takes milliseconds.
const ADOPTION_LOOK: Duration = Duration::from_millis(5);

/// The time in which a worker of a template must become the master's child.
const ADOPTION: Duration = Duration::from_secs(6);

/// The maximum number of replies of a template per turn, so that one that floods does not take all the time.
pub(in crate::master) const MAX_REPLIES: usize = 256;

impl Workers {
    /// Handles messages of a template and of the workers that it has forked. Returns how many; there may be more if it is [`MAX_REPLIES`].
    pub(in crate::master) fn read_template<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
    ) -> usize {
        for number in 0..MAX_REPLIES {
            let Some(said) = templates.receive(turn, key) else {
                return number;
            };
            let name = &key.0;
            match said {
                TemplateMessage::Nothing => {}
                TemplateMessage::Loaded(pid) => {
                    info!(
                        "app={name} template gen={} pid={pid}: application loaded",
                        key.1
                    );
                    // Its output while it was loading does not explain a later failure.
                    turn.world.last_output(pid);
                }
                TemplateMessage::Forked(ticket, pid) => {
                    self.arrived(turn, templates, name, Some(WorkerId(ticket)), pid);
                }
                TemplateMessage::Uninvited(pid) => self.arrived(turn, templates, name, None, pid),
                TemplateMessage::Failed(ticket, reason) => {
                    error!(
                        "{}: cannot fork a worker: {reason}; retrying",
                        templates.tag(key)
                    );
                    self.not_started(turn, name, Event::Refused(WorkerId(ticket)));
                }
                TemplateMessage::Lost(tickets, reason) => {
                    let what = format!("cannot fork {}: {reason}", report::workers(tickets.len()));
                    error!("{}: {what}", templates.tag(key));
                    note_reason(turn, key, &what);
                    for ticket in tickets {
                        self.not_started(turn, name, Event::SpawnFailed(WorkerId(ticket)));
                    }
                }
            }
        }
        MAX_REPLIES
    }

    /// A process has introduced itself, as a worker that was requested, or as none.
    pub(super) fn arrived<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &Templates,
        name: &Name,
        worker: Option<WorkerId>,
        pid: Pid,
    ) {
        if self.children.get(pid).is_some() || templates.is_template(pid) {
            // It is another process of the table already, so the message is forged.
            return;
        }
        if let Some(worker) = worker {
            self.children.arrived(name, worker, pid);
            if self.children.get(pid).is_some() {
                turn.queue_event(name, Event::Executed(worker));
            }
        }
        if self.children.get(pid).is_none() {
            self.uninvited.insert(pid, name.clone());
        }
        self.unadopted.insert(pid, turn.now);
        self.looks.set(pid, Some(turn.now));
        self.adopt(turn);
    }

    /// Checks whether workers that were forked by templates have become children of the master, and sends them the signals that
    /// they have missed; one that arrives after it was given up is killed. Before that a signal might reach another process with a
    /// reused pid.
    pub(in crate::master) fn adopt<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.looks.take_due(turn.now) {
            let since = self.unadopted.get(&pid).copied();
            let Some(since) = since.filter(|_| !self.is_adopted(turn, pid)) else {
                continue;
            };
            if turn.now.saturating_duration_since(since) < ADOPTION {
                self.looks.set(pid, Some(turn.now + ADOPTION_LOOK));
            } else {
                self.disown(turn, pid);
            }
        }
    }

    /// Whether a worker is a child of the master by now. Its messages count only then.
    pub(in crate::master) fn is_adopted<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) -> bool {
        if self.unadopted.contains_key(&pid) {
            if !turn.world.is_child(pid) {
                return false;
            }
            self.look_no_more(pid);
            let missed = self.adopted(pid);
            missed
                .into_iter()
                .for_each(|signal| signal_or_order(turn, pid, signal, false));
        }
        true
    }

    /// A process that a template has forked is the master's child. Returns the signal to send now.
    pub(super) fn adopted(&mut self, pid: Pid) -> Option<Signal> {
        let Some(child) = self.children.get_mut(pid) else {
            return Some(Signal::SIGKILL);
        };
        child.adopted = true;
        self.fronts.changed(&child.app);
        debug!("{}: forked from the template", report::Tag(child, pid));
        child.signalled.map(|(signal, _)| signal)
    }

    fn look_no_more(&mut self, pid: Pid) {
        self.unadopted.remove(&pid);
        self.looks.set(pid, None);
    }

    /// A process was reaped, or is not a child of the master.
    pub(in crate::master) fn forget(&mut self, pid: Pid) {
        self.look_no_more(pid);
        self.uninvited.remove(&pid);
    }

    /// A process has introduced itself as a worker, but is not a child of the master.
    pub(super) fn disown<W: World>(&mut self, turn: &mut Turn<W>, pid: Pid) {
        self.forget(pid);
        // Nobody will reap it, so its pipe ends here.
        turn.world.order_stop(pid);
        if let Some(child) = self.remove_child(turn, pid) {
            error!(
                "{}: rejected, because it is not a child of the master",
                report::Tag(&child, pid)
            );
            turn.queue_event(&child.app, Event::SpawnFailed(child.worker));
        }
    }

    /// An expected worker will not arrive; the event is the reason.
    pub(super) fn not_started<W: World>(&mut self, turn: &mut Turn<W>, name: &Name, event: Event) {
        if let Event::Refused(worker) | Event::SpawnFailed(worker) | Event::Exited(worker) = event
            && let Some(child) = self.children.give_up(name, worker)
        {
            release(turn, &child);
            turn.queue_event(name, event);
        }
    }

    /// Ends a template after handling all its messages. No one waits for its import any more.
    pub(in crate::master) fn end_template<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
    ) {
        self.read_rest(turn, templates, key);
        for ticket in templates.end(turn, key) {
            self.not_started(turn, &key.0, Event::SpawnFailed(WorkerId(ticket)));
        }
    }

    /// A template has ended on its own.
    pub(in crate::master) fn template_ended<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
        exit: Exit,
        output: Option<&str>,
    ) {
        self.read_rest(turn, templates, key);
        let when = match templates.is_loaded(key) {
            true => "",
            false => ", before the application was loaded",
        };
        let exit = report::ended(exit, templates.failure(key));
        let death = format!("{exit}{when}{}", report::last_output(output));
        error!("{}: {death}", templates.tag(key));
        note_reason(turn, key, &death);
        for ticket in templates.remove(turn, key) {
            self.not_started(turn, &key.0, Event::SpawnFailed(WorkerId(ticket)));
        }
    }

    /// Handles all messages of a template, and allows no further ones: no worker may run that is not in the table.
    pub(super) fn read_rest<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
    ) {
        templates.shut_down(turn, key);
        while self.read_template(turn, templates, key) == MAX_REPLIES {}
    }

    pub(super) fn signal_expected<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        key: &Key,
        worker: WorkerId,
        (signal, reason): (Signal, Reason),
    ) {
        let why = report::reason(reason);
        if signal == Signal::SIGTERM && templates.cancel(key, worker.0) {
            self.not_started(turn, &key.0, Event::Exited(worker));
            if templates.is_idle(key) && !templates.is_loaded(key) {
                self.end_template(turn, templates, key);
            }
        } else if let Some(pid) = templates.pid(key).filter(|_| !templates.is_loaded(key)) {
            // The import of the application keeps the worker from starting.
            warn!("{}: sending {signal} ({why})", templates.tag(key));
            send(turn, pid, signal);
        } else if signal != Signal::SIGTERM && templates.pid(key).is_some() {
            // It was or should have been forked and has not introduced itself: a hook that the application runs at a fork has
            // killed it, or blocks and may hold up the template.
            let what = format!(
                "forked no worker in time ({why}): a hook that the application registered with os.register_at_fork() may fail or block"
            );
            error!("{}: {what}; ending the template", templates.tag(key));
            note_reason(turn, key, &what);
            self.end_template(turn, templates, key);
        }
    }
}

/// Notes that a template is the reason why a release fails.
fn note_reason<W>(turn: &mut Turn<W>, key: &Key, what: &str) {
    turn.queue_fact(Fact::Reason(
        key.0.clone(),
        key.1,
        format!("its template {what}"),
    ));
}
