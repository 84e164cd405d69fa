//! Starting workers: by fork and exec, or through a template.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Instant;

use log::{debug, error, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::children::{Child, Name};
use super::outputs::Overheard;
use super::performing::send;
use super::{Master, report};
use crate::effects::launch::{Contract, launch};
use crate::effects::template::{Said, Template, Wanted};
use crate::plan;
use crate::supervisor::{Event, Generation, Slot, WorkerId};
use crate::sys::{Progress, progress};

impl Master {
    pub(super) fn spawn(
        &mut self,
        name: &Name,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
    ) {
        let plan = self
            .apps
            .get(name)
            .and_then(|app| app.plans.get(&generation));
        let Some(plan) = plan.map(Rc::clone) else {
            error!(
                "app={name}: generation {generation} is unknown (a defect of preforkd); its worker is not started"
            );
            self.facts
                .push_back((name.clone(), Event::SpawnFailed(worker)));
            return;
        };
        let record = self.scoreboard.allocate();
        let record = record
            .inspect_err(|error| warn!("app={name}: no scoreboard record for a worker: {error}"));
        let child = Child {
            app: name.clone(),
            worker,
            slot,
            generation,
            record: record.ok(),
            listens_on: plan.sockets.iter().map(|(_, at)| at.clone()).collect(),
            asked_for: Instant::now(),
            ready: false,
            hang: plan.hang,
            recycle: plan.recycle,
            retire_at: None,
            look_at: None,
            stopped_until: None,
            said: None,
            told: None,
        };
        if plan.template {
            self.spawn_from_template(&plan, child);
        } else {
            self.spawn_alone(&plan, child);
        }
    }

    fn spawn_alone(&mut self, plan: &plan::App, child: Child) {
        let private = self.private_listener(plan, &child);
        // A program that never lets go of the pipe is heard only where its last words would end a reload.
        let first = self.is_first_of_reload(child.generation);
        let overheard = (plan.output.taken_over || first).then(|| self.overhear(plan));
        let overheard = overheard.flatten();
        let mut contract = self.contract(plan, &child, true, overheard.as_ref());
        contract.add_private(private.as_ref().map(AsFd::as_fd), plan.output.taken_over);
        match launch(&plan.launch, &contract) {
            Ok((pid, pipe)) => {
                debug!("{}: started", report::Tag(&child, pid));
                self.children.insert(pid, child);
                self.watch_launch(pid, pipe);
                self.listen_to(pid, overheard);
            }
            Err(error) => {
                error!(
                    "app={} worker={}: cannot start a worker: {error} (trying again)",
                    child.app, child.slot
                );
                self.release(&child);
                self.facts
                    .push_back((child.app, Event::Refused(child.worker)));
            }
        }
    }

    fn spawn_from_template(&mut self, plan: &plan::App, child: Child) {
        let key = (child.app.clone(), child.generation);
        if !self.templates.contains_key(&key) {
            let overheard = self.overhear(plan);
            let private = self.private_listener(plan, &child);
            let mut contract = self.contract(plan, &child, false, overheard.as_ref());
            contract.check = private.as_ref().map(AsFd::as_fd);
            match Template::start(&plan.launch, contract) {
                Ok((template, pipe)) => {
                    info!(
                        "app={} template gen={} pid={}: loading the application",
                        key.0, key.1, template.pid
                    );
                    if let Err(error) = self.watch(&template.fd()) {
                        warn!("cannot watch a template: {error}");
                    }
                    self.watch_launch(template.pid, pipe);
                    self.listen_to(template.pid, overheard);
                    self.templates.insert(key.clone(), template);
                }
                Err(error) => {
                    error!(
                        "app={}: cannot start a template: {error} (trying again)",
                        child.app
                    );
                    self.release(&child);
                    self.facts
                        .push_back((child.app, Event::Refused(child.worker)));
                    return;
                }
            }
        }
        if let Some(template) = self.templates.get_mut(&key) {
            template.want(Wanted {
                ticket: child.worker.0,
                slot: child.slot,
                record: child.record,
            });
            self.children.expect(child);
        }
    }

    fn contract<'a>(
        &'a self,
        plan: &'a plan::App,
        child: &'a Child,
        is_worker: bool,
        overheard: Option<&'a Overheard>,
    ) -> Contract<'a> {
        let sockets = plan.sockets.iter();
        Contract {
            app: &child.app,
            slot: is_worker.then_some(child.slot),
            generation: child.generation,
            sockets: sockets
                .filter_map(|(name, address)| {
                    Some((name.as_str(), self.listeners.socket(address)?))
                })
                .collect(),
            notify_socket: self.notify.address(&child.app).unwrap_or_default(),
            scoreboard: child
                .record
                .map(|record| (self.scoreboard.fd(), is_worker.then_some(record))),
            template: None,
            check: None,
            output: self.output(plan, overheard),
        }
    }

    fn watch_launch(&mut self, pid: Pid, pipe: OwnedFd) {
        if let Err(error) = self.watch(&pipe) {
            // Its end is then seen when the process is reaped.
            warn!("cannot watch the start of pid {pid}: {error}");
        }
        self.launching.insert(pid, pipe);
    }

    /// A pipe of a process that is being started can be read.
    pub(super) fn read_launch(&mut self, fd: RawFd) {
        let mut launching = self.launching.iter();
        if let Some((&pid, _)) = launching.find(|(_, pipe)| pipe.as_raw_fd() == fd) {
            self.note_progress(pid);
        }
    }

    /// Notes how far a process has come on its way to its own program.
    pub(super) fn note_progress(&mut self, pid: Pid) {
        let Some(pipe) = self.launching.get(&pid) else {
            return;
        };
        let progress = progress(pipe);
        if matches!(progress, Progress::Pending) {
            return;
        }
        self.unwatch(pipe);
        self.launching.remove(&pid);
        let child = self.children.get(pid);
        match (progress, child) {
            (Progress::Failed(stage, reason), Some(child)) => {
                let stage = report::stage(stage);
                error!("{}: failed at {stage}: {reason}", report::Tag(child, pid));
            }
            (Progress::Failed(stage, reason), None) => {
                let stage = report::stage(stage);
                error!("template pid={pid}: failed at {stage}: {reason}");
            }
            (_, Some(child)) => {
                let fact = (child.app.clone(), Event::Executed(child.worker));
                self.facts.push_back(fact);
            }
            (_, None) => {}
        }
    }

    pub(super) fn read_templates(&mut self) {
        let mut said = Vec::new();
        for ((name, generation), template) in &mut self.templates {
            while let Some(word) = template.receive() {
                said.push((name.clone(), *generation, template.pid, word));
            }
        }
        for (name, generation, pid, word) in said {
            match word {
                Said::Ready => {
                    info!(
                        "app={name} template gen={generation} pid={pid}: the application is loaded"
                    );
                    self.last_words(pid);
                }
                Said::Forked(ticket, pid) => self.arrived(&name, WorkerId(ticket), pid),
                Said::Failed(ticket, reason) => {
                    let worker = WorkerId(ticket);
                    error!(
                        "app={name} template gen={generation} pid={pid}: cannot fork a worker: {reason} (trying again)"
                    );
                    self.not_started(&name, worker, Event::Refused(worker));
                }
                Said::Lost(tickets, reason) => {
                    let workers = match tickets.len() {
                        1 => "a worker".to_owned(),
                        several => format!("{several} workers"),
                    };
                    let what = format!("cannot fork {workers}: {reason}");
                    error!("app={name} template gen={generation} pid={pid}: {what}");
                    if let Some(reload) = &mut self.reload {
                        reload.note_template(&name, generation, &what);
                    }
                    for worker in tickets.into_iter().map(WorkerId) {
                        self.not_started(&name, worker, Event::SpawnFailed(worker));
                    }
                }
            }
        }
    }

    fn arrived(&mut self, name: &Name, worker: WorkerId, pid: Pid) {
        if let Some(signal) = self.children.arrived(name, worker, pid) {
            send(pid, signal);
        }
        let Some(child) = self.children.get(pid) else {
            // It comes after it was given up.
            return send(pid, Signal::SIGKILL);
        };
        debug!("{}: forked from the template", report::Tag(child, pid));
        self.facts
            .push_back((name.clone(), Event::Executed(worker)));
    }

    /// An expected worker will not come.
    pub(super) fn not_started(&mut self, name: &Name, worker: WorkerId, event: Event) {
        if let Some(child) = self.children.give_up(name, worker) {
            self.release(&child);
            self.facts.push_back((name.clone(), event));
        }
    }

    pub(super) fn release(&mut self, child: &Child) {
        if let Some(record) = child.record {
            self.scoreboard.release(record);
        }
    }
}
