//! Performs the actions of supervisors.

use log::{debug, error, info, warn};
use nix::sys::signal::Signal;

use super::world::World;
use super::{Master, Outcome, report};
use crate::release::{Fact, Name, State};
use crate::supervisor::{Action, WorkerId};

impl<W: World> Master<W> {
    pub(super) fn perform(&mut self, name: &Name, action: Action) {
        debug!("app={name}: {action:?}");
        let turn = &mut self.turn;
        let (worker, order) = match action {
            Action::Spawn {
                worker,
                slot,
                generation,
            } => return self.workers.spawn(name, worker, slot, generation),
            Action::TakeOut(worker, reason) => {
                return self.workers.take_out(turn, name, worker, reason);
            }
            Action::Terminate(worker, reason) => (worker, (Signal::SIGTERM, reason)),
            Action::Abort(worker, reason) => (worker, (Signal::SIGABRT, reason)),
            Action::Kill(worker, reason) => (worker, (Signal::SIGKILL, reason)),
            Action::Ready(worker) => return self.is_ready(name, worker),
            Action::Check(worker) => return self.begin_check(name, worker),
            Action::Proven(generation) => {
                return turn.queue_fact(Fact::Proven(name.clone(), generation));
            }
            Action::Failed(generation) => {
                return turn.queue_fact(Fact::Failed(name.clone(), generation));
            }
            Action::GaveUp(limits) => {
                let within = report::short(limits.within);
                let crashes = limits.crashes;
                error!("app={name}: given up: {crashes} failures within {within}");
                if limits.exit && !self.is_stopping() {
                    return self.stop_with(Outcome::GaveUp, format!("app={name} was given up"));
                }
                let app = self.workers.apps.get(name);
                let runs = app.is_some_and(|app| app.supervisor.counts().ready > 0);
                let kept = match runs {
                    true => "its running workers are kept",
                    false => "none of its workers is ready",
                };
                return warn!(
                    "app={name}: {kept}; no worker is started until {}",
                    report::again(name)
                );
            }
            Action::Resumed {
                generation,
                again,
                gap,
            } => {
                let gap = report::short(gap);
                match again {
                    true => warn!(
                        "app={name}: generation {generation} runs again, after {gap} without a ready worker"
                    ),
                    false => info!(
                        "app={name}: generation {generation} runs, after {gap} without a ready worker"
                    ),
                }
                return;
            }
            Action::Retire(generation) => {
                let key = (name.clone(), generation);
                self.workers.end_template(turn, &mut self.templates, &key);
                return self.workers.retire(name, generation);
            }
            Action::Settled => return self.has_settled(name),
            Action::Exit => {
                if let Some(app) = self.workers.apps.get_mut(name) {
                    app.ended = true;
                }
                return;
            }
        };
        self.workers
            .signal(turn, &mut self.templates, name, worker, order);
    }

    /// An app has all its workers.
    fn has_settled(&mut self, name: &Name) {
        let app = self.workers.apps.get_mut(name);
        let installed = app.filter(|app| app.is_installed());
        let awaited = installed.and_then(|app| app.installed.take()).is_some();
        // The line about the whole generation follows otherwise.
        if awaited && *self.release.state() == State::Idle {
            info!("app={name}: all its workers are ready now");
        }
    }

    fn is_ready(&mut self, name: &Name, worker: WorkerId) {
        let turn = &mut self.turn;
        let children = &mut self.workers.children;
        let Some(pid) = children.pid(name, worker) else {
            return;
        };
        let Some(child) = children.get_mut(pid) else {
            return;
        };
        child.ready_at = Some(turn.now);
        self.workers.fronts.changed(name);
        let time = report::short(turn.now.saturating_duration_since(child.asked_for));
        let address = turn.world.own_address(pid);
        let address = address.map_or(String::new(), |address| format!(", at {address}"));
        info!("{}: ready after {time}{address}", report::Tag(child, pid));
        if child.plan.output.taken_over {
            // It has switched to its real standard error: its output from the start does not explain a later death.
            self.logs.last_output(turn, pid);
        }
        if let Some(child) = children.get(pid) {
            self.checks.begin(turn, pid, child);
        }
        self.watch.begin(turn, children, pid);
    }
}
