//! What follows from the end of a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{error, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::jobs::Jobs;
use super::leftovers::End;
use super::templates::Templates;
use super::turn::Turn;
use super::workers::children::{Child, Children};
use super::world::{Exit, Rest, World};
use super::{Master, Outcome, report};
use crate::plan::Stop;
use crate::release::Fact;
use crate::supervisor::{Action, Event, Readiness, Replace, Restart};

/// A program that puts itself into the background does so within this time.
const SOON: Duration = Duration::from_secs(10);

impl<W: World> Master<W> {
    pub(super) fn worker_ended(
        &mut self,
        child: &Child,
        pid: Pid,
        exit: Exit,
        out_of_memory: bool,
        output: Option<&str>,
    ) {
        let now = self.turn.now;
        let sent = child.signalled.map(|(signal, _)| signal);
        let mut death = report::death(child, exit, now, out_of_memory);
        let tag = report::Tag(child, pid);
        let background = self.background(child, pid, exit);
        let finished = exit.is_success() && child.signalled.is_none();
        let end = match background {
            0 if finished => Event::Finished(child.worker),
            0 => Event::Exited(child.worker),
            number => {
                death += &report::background(number);
                Event::Hopeless(child.worker)
            }
        };
        let mut rests = vec![Rest::Session(pid), Rest::Background(pid)];
        if background > 0 {
            // They may leave the session only now.
            let strays = child.strays.iter();
            let strays = strays.flat_map(|(&stray, &session)| [stray, session]);
            let strays: BTreeSet<_> = strays.filter(|&id| id != pid).collect();
            rests.extend(strays.into_iter().map(Rest::Stray));
        }
        let waits = self.must_be_alone(child, background) && self.leaves_any_of(&rests);
        for rest in &rests {
            let end = end_of_rest(child, tag.to_string(), now);
            self.leftovers.end(*rest, end);
        }
        let failed_beside = match end {
            // A program that cannot be executed fails without the others as well.
            Event::Exited(_) if !waits && child.not_executed.is_none() => {
                self.failed_beside(&child.app)
            }
            _ => None,
        };
        let actions = match waits {
            true => {
                self.leftovers.hold(rests, child.app.clone(), end);
                // It is not ready any more, and its slot is taken.
                let leaves = vec![Event::Stopping(child.worker)];
                self.workers.handle(&child.app, leaves, now)
            }
            false => {
                let left = failed_beside.as_ref().map(|_| Event::EarlierLeft(true));
                let events = left.into_iter().chain([end]).collect();
                self.workers.handle(&child.app, events, now)
            }
        };
        let failed = self.workers.apps.get_mut(&child.app);
        let has_said = failed.is_some_and(|app| app.has_said(output));
        let app = self.workers.apps.get(&child.app).map(|app| &app.supervisor);
        let retry = app
            .filter(|app| app.lacks_workers())
            .and_then(|app| app.retry_at());
        let wait = retry.map(|at| at.saturating_duration_since(now));
        if sent == Some(Signal::SIGTERM) {
            info!("{tag}: {death}");
        } else if finished && child.plan.policy.restart != Restart::Always {
            info!("{tag}: {}", report::finished(child, now));
        } else {
            let short = death.clone();
            death += &match output {
                None => report::silence(child, exit).unwrap_or_default(),
                Some(_) => report::last_output(output),
            };
            let beside_old = self.workers.serving && self.workers.is_first(child.generation);
            if let Some(output) = output.filter(|_| beside_old) {
                death += report::address_in_use(child, output);
            }
            if finished && fails(&actions) {
                death += report::MAY_FINISH;
            }
            // It is in the log already, and what the worker has written perhaps as well.
            let death = match has_said {
                true => short + " (its last output: the same as before)",
                false => death.clone(),
            };
            match self.is_stopping() || sent.is_some() {
                true => {
                    let follows = report::follows(&actions, wait).filter(|_| !self.is_stopping());
                    let follows = follows.map_or(String::new(), |what| format!("; {what}"));
                    warn!("{tag}: {death}{follows}");
                }
                false if background > 0 && app.is_some_and(|app| app.is_given_up()) => {
                    error!(
                        "{tag}: {death}; its app is given up until {}",
                        report::again(&child.app)
                    );
                }
                false if failed_beside.is_some() => {
                    let killed = failed_beside.map(|killed| killed.to_string());
                    let killed = killed.unwrap_or_default();
                    error!("{tag}: {death}; it is tried again when this has ended: {killed}");
                }
                false if waits => {
                    error!("{tag}: {death}; its app goes on when what it has started has ended");
                }
                false if child.plan.policy.restart == Restart::Never && !fails(&actions) => {
                    error!(
                        "{tag}: {death}; it is not started again until {}",
                        report::again(&child.app)
                    );
                }
                false => error!("{tag}: {death}; {}", report::consequence(&actions, wait)),
            }
        }
        if child.signalled.is_none()
            && !finished
            && let Some(app) = self.workers.apps.get_mut(&child.app)
        {
            app.failure = Some(death.clone());
        }
        if !self.is_stopping() {
            // Some programs remove the file of a listener when they end, as if they had bound it.
            for (_, address) in &child.plan.sockets {
                match self.turn.world.restore_listener(address) {
                    Ok(true) => info!("{tag}: the file of {address} was removed; made it again"),
                    Ok(false) => {}
                    Err(reason) => error!(
                        "{tag}: the file of {address} was removed and cannot be made again: {reason} (reload to bind a new socket); no client can connect"
                    ),
                }
            }
        }
        self.turn.queue_fact(Fact::Reason(
            child.app.clone(),
            child.generation,
            match death.starts_with("killed") {
                true => format!("its first worker was {death}"),
                false => format!("its first worker {death}"),
            },
        ));
        self.workers.prepare(&mut self.turn, &child.app, &actions);
        for action in actions {
            self.perform(&child.app, action);
        }
        let app = self.workers.apps.get(&child.app);
        let given_up = app.is_some_and(|app| {
            app.supervisor.is_given_up() && app.is_required() && !app.is_installed()
        });
        // Otherwise the first start would wait for it for ever.
        if background > 0 && given_up && self.release.outcome().is_none() && !self.is_stopping() {
            let reason = format!("app={} puts itself into the background", child.app);
            self.stop_with(Outcome::CouldNotStart, reason);
        }
    }

    /// Whether no worker of this one's app may start before all that it has started has ended.
    fn must_be_alone(&self, child: &Child, background: usize) -> bool {
        let app = self.workers.apps.get(&child.app);
        let alone = child.plan.policy.replace == Replace::StopFirst
            || app.is_some_and(|app| app.supervisor.stops_first());
        // An app that is given up starts none.
        let displaces = self.workers.serving && self.workers.is_first(child.generation);
        alone && (background == 0 || displaces)
    }

    fn leaves_any_of(&mut self, rests: &[Rest]) -> bool {
        let found = self.rest_of(&rests.iter().copied().collect());
        found.values().any(|pids| !pids.is_empty())
    }

    fn rest_of(&mut self, wanted: &BTreeSet<Rest>) -> BTreeMap<Rest, Vec<Pid>> {
        let (children, templates, jobs) = (&self.workers.children, &self.templates, &self.jobs);
        let is_known = |pid| is_known(children, templates, jobs, pid);
        self.turn.world.rest_of(wanted, &is_known)
    }

    /// The number of processes that a worker has put into the background, if that is why it has ended.
    fn background(&mut self, child: &Child, pid: Pid, exit: Exit) -> usize {
        if !exit.is_success() || !self.may_have_left_for_background(child) {
            return 0;
        }
        let wanted = [Rest::Session(pid), Rest::Background(pid)].into();
        let found = self.rest_of(&wanted);
        let found = found.into_values().flatten();
        found
            .chain(child.strays.keys().copied())
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Whether a worker that has ended with status 0 may be one that has put itself into the background: it did so soon, and in good
    /// order. A program that says when it is ready does not do that.
    fn may_have_left_for_background(&self, child: &Child) -> bool {
        let is_ready = child.ready_at.is_some();
        let soon = self.turn.now.saturating_duration_since(child.asked_for) < SOON;
        let is_python = child.plan.threads.is_some();
        let knows = is_python || is_ready && child.plan.policy.readiness == Readiness::Notify;
        let of_itself = child.signalled.is_none() && !child.stopping;
        let may_end = child.plan.policy.restart != Restart::Always;
        soon && of_itself && !may_end && !knows && !self.is_stopping()
    }

    /// Looks for what a worker has put into the background before it is reaped: they are compared with it.
    pub(super) fn note_strays(&mut self, pid: Pid) {
        let child = self.workers.children.get(pid);
        if !child.is_some_and(|child| self.may_have_left_for_background(child)) {
            return;
        }
        let (children, templates, jobs) = (&self.workers.children, &self.templates, &self.jobs);
        let is_known = |pid| is_known(children, templates, jobs, pid);
        let strays = self.turn.world.strays(pid, &is_known);
        if let Some(child) = self.workers.children.get_mut(pid) {
            child.strays = strays;
        }
    }
}

/// Whether the kernel has killed a worker because memory ran out. It is asked once for each.
pub(super) fn is_out_of_memory<W: World>(turn: &mut Turn<W>, child: &Child, exit: Exit) -> bool {
    let sent = child.signalled.map(|(signal, _)| signal);
    matches!(exit, Exit::Signal(Signal::SIGKILL, _))
        && sent != Some(Signal::SIGKILL)
        && turn.world.out_of_memory()
}

fn fails(actions: &[Action]) -> bool {
    let mut actions = actions.iter();
    actions.any(|action| matches!(action, Action::Failed(_)))
}

/// How what is left of a worker is ended: its session has as much time as the worker itself.
fn end_of_rest(child: &Child, tag: String, now: Instant) -> End {
    let Stop { signal, group } = child.plan.stop;
    let whole = child.plan.policy.graceful_timeout;
    let was_killed = matches!(child.signalled, Some((Signal::SIGKILL, _)));
    let since = child.told_at.map(|at| now.saturating_duration_since(at));
    End {
        app: Some(child.app.clone()),
        tag,
        signal: signal.into(),
        group_knows: group && child.told_at.is_some(),
        grace: match was_killed {
            true => Duration::ZERO,
            false => whole.saturating_sub(since.unwrap_or_default()),
        },
    }
}

/// Whether the master has started a process, or a template has for it.
pub(super) fn is_known(children: &Children, templates: &Templates, jobs: &Jobs, pid: Pid) -> bool {
    children.get(pid).is_some() || templates.is_template(pid) || jobs.is_job(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Reason;

    #[test]
    fn the_session_of_a_worker_has_as_long_as_the_worker_itself() {
        let now = Instant::now();
        let mut child = Child::example(1);
        let whole = child.plan.policy.graceful_timeout;
        let grace = |child: &Child, now| end_of_rest(child, String::new(), now).grace;
        assert_eq!(grace(&child, now), whole, "it has ended of itself");
        child.signalled = Some((Signal::SIGTERM, Reason::Stop));
        child.told_at = Some(now);
        let later = now + whole / 4;
        assert_eq!(grace(&child, later), whole - whole / 4);
        assert_eq!(grace(&child, now + whole * 2), Duration::ZERO);
        child.signalled = Some((Signal::SIGKILL, Reason::GracefulTimeout));
        assert_eq!(grace(&child, later), Duration::ZERO);
    }
}
