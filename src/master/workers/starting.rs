//! Starting workers: by executing their program, or through a template.

use std::collections::BTreeMap;

use log::{debug, error, warn};
use nix::unistd::Pid;
use preforkd_worker::messages::{Along, Fork};

use super::children::Child;
use super::ending::release;
use super::{Spawn, Workers};
use crate::config::Address;
use crate::launcher::progress::Progress;
use crate::master::report;
use crate::master::templates::Templates;
use crate::master::turn::Turn;
use crate::master::world::{Private, Role, Start, World};
use crate::plan;
use crate::release::{Generation, Name};
use crate::supervisor::{Event, Restart, Slot, WorkerId};

impl Workers {
    /// Queues a worker to be started.
    pub(in crate::master) fn spawn(
        &mut self,
        app: &Name,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
    ) {
        self.queued.insert((app.clone(), worker));
        self.queue.push_back(Spawn {
            app: app.clone(),
            worker,
            slot,
            generation,
        });
    }

    /// Starts the next queued workers, up to a number. Returns how many.
    pub(in crate::master) fn start_some<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        most: usize,
    ) -> usize {
        let mut started = 0;
        while started < most
            && let Some(spawn) = self.queue.pop_front()
        {
            // Otherwise it was told to end before it was started.
            if self.queued.remove(&(spawn.app.clone(), spawn.worker)) {
                self.start(turn, templates, spawn);
                started += 1;
            }
        }
        started
    }

    pub(super) fn start<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        spawn: Spawn,
    ) {
        let plans = self.apps.get(&spawn.app).map(|app| &app.plans);
        let plan = plans.and_then(|plans| plans.get(&spawn.generation));
        let plan = plan.cloned();
        if let Some(plan) = &plan
            && !self.has_all(turn, &spawn, plan)
        {
            return;
        }
        let Spawn {
            app,
            worker,
            slot,
            generation,
        } = spawn;
        let Some(plan) = plan else {
            error!(
                "app={app} worker={slot} gen={generation}: not started: the generation is unknown (this is a bug in preforkd)"
            );
            turn.queue_event(&app, Event::SpawnFailed(worker));
            return;
        };
        let record = turn.world.allocate(&app).inspect_err(|error| {
            warn!("app={app} worker={slot} gen={generation}: starting without a scoreboard record: {error}");
        });
        let record = record.ok();
        let address = own_listener(turn, &app, record, &plan);
        let mut child = Child {
            app,
            worker,
            slot,
            generation,
            record,
            address,
            on_trial: false,
            leaves: false,
            adopted: !plan.template,
            plan,
            asked_for: turn.now,
            ready_at: None,
            stopping: false,
            retired: false,
            status_text: None,
            check_failed: None,
            not_executed: None,
            signalled: None,
            told_at: None,
            strays: BTreeMap::new(),
        };
        child.on_trial = self.private(&child, false) == Private::Probed;
        if child.plan.template {
            self.start_from_template(turn, templates, child);
        } else {
            self.start_alone(turn, child);
        }
    }

    pub(super) fn start_alone<W: World>(&mut self, turn: &mut Turn<W>, child: Child) {
        let own = child.plan.output.taken_over;
        // Such a program is started once, and its last output says why it has failed.
        let runs_once = child.plan.policy.restart == Restart::Never;
        let started = turn.world.start(&Start {
            app: &child.app,
            plan: &child.plan,
            launch: &child.plan.launch,
            role: Role::Worker(child.slot, child.record),
            generation: child.generation,
            // A program that never closes the pipe is read only if its last output would end a release.
            captured: own || runs_once || self.is_first(child.generation),
            private: self.private(&child, !own),
        });
        match started {
            Ok(pid) => {
                debug!("{}: started", report::Tag(&child, pid));
                self.children.insert(pid, child);
            }
            Err(error) => self.refused(turn, child, "start a worker", &error),
        }
    }

    pub(super) fn start_from_template<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        templates: &mut Templates,
        child: Child,
    ) {
        let key = (child.app.clone(), child.generation);
        let private = self.private(&child, false);
        if let Err(error) = templates.ensure(turn, &key, &child.plan, private) {
            return self.refused(turn, child, "start a template", &error);
        }
        let order = Fork {
            ticket: child.worker.0,
            slot: child.slot,
            record: child.record,
            along: Along::default(),
        };
        self.children.expect(child);
        templates.request(turn, &key, order);
    }

    pub(super) fn refused<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        child: Child,
        what: &str,
        error: &std::io::Error,
    ) {
        let Child { app, slot, .. } = &child;
        error!("app={app} worker={slot}: cannot {what}: {error}; retrying");
        release(turn, &child);
        turn.queue_event(&child.app, Event::Refused(child.worker));
    }

    /// Whether a worker of this generation has to prove it.
    pub(in crate::master) fn is_first(&self, generation: Generation) -> bool {
        self.candidate == Some(generation)
    }

    /// Whether a worker has to prove its generation. Those of an app that takes a generation over without proof serve at once.
    fn is_on_trial(&self, child: &Child) -> bool {
        let app = self.apps.get(&child.app);
        let current = app.and_then(|app| app.supervisor.generation());
        self.is_first(child.generation) && current != Some(child.generation)
    }

    /// The private listener that a process gets. A program knows it by its number among the listeners, so each of its workers
    /// has one.
    pub(super) fn private(&self, child: &Child, always: bool) -> Private {
        if child.plan.check.as_ref().is_none_or(|check| !check.private) {
            Private::None
        } else if self.serving && self.is_on_trial(child) {
            Private::Probed
        } else if always {
            Private::Unused
        } else {
            Private::None
        }
    }

    /// Handles progress of a process before its program runs. Returns false if it is not a worker.
    pub(in crate::master) fn progressed<W>(
        &mut self,
        turn: &mut Turn<W>,
        pid: Pid,
        progress: &Progress,
    ) -> bool {
        let Some(child) = self.children.get_mut(pid) else {
            return false;
        };
        match progress {
            // Its death follows, and gives this as its reason.
            Progress::Failed(why) => child.not_executed = Some(why.as_str().into()),
            Progress::Executed => turn.queue_event(&child.app, Event::Executed(child.worker)),
            Progress::Pending | Progress::Ended => {}
        }
        true
    }
}

/// Opens the listener that the worker with this record has for itself, if its app has such listeners. Returns its address.
fn own_listener<W: World>(
    turn: &mut Turn<W>,
    app: &Name,
    record: Option<u32>,
    plan: &plan::App,
) -> Option<Box<str>> {
    let wanted = plan.own_listener.as_ref()?;
    let opened = turn.world.open_own_listener(app, record?, wanted);
    let opened = opened.inspect_err(|error| {
        warn!(
            "app={app}: cannot open a listener for one worker: {error}; the front reaches it only by the listener that all workers share"
        );
    });
    Some(Address::Unix(opened.ok()?).to_string().into())
}
