//! `check`: the first worker of a new generation has to answer a request, over a listener of its own, before it gets
//! any other. A process of its own asks ([`crate::probe`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use log::{info, warn};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::Master;
use super::children::{Child, Name};
use crate::effects::private::Private;
use crate::effects::probe;
use crate::effects::tail::Tail;
use crate::plan;
use crate::signals::describe;
use crate::supervisor::{Event, Generation, WorkerId};

/// What a probe that runs is about.
pub(super) struct Checking {
    app: Name,
    worker: WorkerId,
    generation: Generation,
}

impl Master {
    /// The listener over which a worker that is about to start can be probed.
    pub(super) fn private_listener(&mut self, plan: &plan::App, child: &Child) -> Option<OwnedFd> {
        plan.check.as_ref()?;
        let is_probed = self.is_first_of_reload(child.generation) && self.current.is_some();
        // A program is told by a number which of its listeners this is, so each of its workers has one.
        if !is_probed && plan.output.taken_over {
            return None;
        }
        let app = &child.app;
        let made = Private::new().and_then(|private| {
            let theirs = private.socket().try_clone_to_owned()?;
            Ok((private, theirs))
        });
        let (private, theirs) = made
            .inspect_err(|error| warn!("app={app}: no listener to check a worker over: {error}"))
            .ok()?;
        // That of a worker that is not probed is dropped, and so reached by nobody.
        if is_probed && let Some(reload) = &mut self.reload {
            reload.private.insert(app.clone(), private);
        }
        Some(theirs)
    }

    /// The first worker of a generation is ready: it is probed now.
    pub(super) fn check(&mut self, name: &Name, worker: WorkerId) {
        if let Err(error) = self.begin_check(name, worker) {
            self.check_failed(name, worker, &format!("could not be checked: {error}"));
        }
    }

    fn begin_check(&mut self, name: &Name, worker: WorkerId) -> io::Result<()> {
        let missing = || io::Error::other("there is nothing to check");
        let reload = self.reload.as_ref().ok_or_else(missing)?;
        let plan = self
            .apps
            .get(name)
            .and_then(|app| app.plans.get(&reload.generation));
        let check = plan
            .and_then(|plan| plan.check.as_ref())
            .ok_or_else(missing)?;
        let listener = reload.private.get(name).ok_or_else(missing)?;
        let (tail, theirs) = Tail::unheard()?;
        let pid = probe::start(check, listener.socket(), theirs.as_fd())?;
        info!("app={name} check pid={pid}: GET {}", check.path);
        self.tails.insert(pid, tail);
        let checking = Checking {
            app: name.clone(),
            worker,
            generation: reload.generation,
        };
        self.checks.insert(pid, checking);
        Ok(())
    }

    /// Whether a process was a probe; if so, what follows from its end is done.
    pub(super) fn check_ended(
        &mut self,
        pid: Pid,
        status: WaitStatus,
        words: Option<&str>,
    ) -> bool {
        let Some(checking) = self.checks.remove(&pid) else {
            return false;
        };
        if !self.is_first_of_reload(checking.generation) {
            // Its reload has failed meanwhile; the next one asks for itself.
            return true;
        }
        let Checking {
            app,
            worker,
            generation,
        } = checking;
        if matches!(status, WaitStatus::Exited(_, 0)) {
            info!("app={app} check pid={pid}: passed");
            let reload = self.reload.as_mut();
            let private = reload.and_then(|reload| reload.private.remove(&app));
            let plans = self.apps.get(&app).map(|app| &app.plans);
            let plan = plans.and_then(|plans| plans.get(&generation));
            // To a Python worker this is the sign to accept elsewhere. Another program would find it readable for ever.
            let is_sign = plan.is_some_and(|plan| plan.output.taken_over);
            let shut = private
                .filter(|_| is_sign)
                .map(|private| private.shut_down());
            if let Some(Err(error)) = shut {
                warn!(
                    "app={app}: cannot close the listener that a worker was checked over: {error}"
                );
            }
            self.facts.push_back((app, Event::Checked(worker)));
        } else {
            let why = match words {
                Some(words) => words.to_owned(),
                None => format!("the probe {}", describe(status)),
            };
            self.check_failed(&app, worker, &format!("failed its check: {why}"));
        }
        true
    }

    fn check_failed(&mut self, app: &Name, worker: WorkerId, why: &str) {
        if let Some(reload) = &mut self.reload {
            reload.note(app, format!("its first worker {why}"));
        }
        self.facts
            .push_back((app.clone(), Event::CheckFailed(worker)));
    }
}
