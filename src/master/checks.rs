//! Checks workers that serve, for apps whose check has `every`.
//!
//! Where a check reaches one certain worker, because it has an address of its own or is the only one, that worker is taken for
//! hung after `failures` checks in a row that failed. Behind a shared listener the check cannot tell which worker has failed to
//! answer, so all of them are recycled. [`CheckWaits`] says how soon they are replaced for that again.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::unistd::Pid;
use preforkd_worker::env;

use super::check_waits::{CheckWaits, Held};
use super::jobs::{Ended, First, Jobs, Limits, Task};
use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::watch::Watch;
use super::workers::children::{Child, Children};
use super::world::{Private, Role, Start, World};
use crate::config::Address;
use crate::plan::{Ask, Check, Hang};
use crate::release::Name;
use crate::supervisor::{Event, WorkerId};

/// The time of a probe beyond its request.
const SLACK: Duration = Duration::from_secs(2);

/// What is checked: all workers of an app, or the one that has an address of its own.
pub(super) type Checked = (Name, Option<WorkerId>);

/// When what is checked next, and what the last checks have found.
#[derive(Default)]
pub(super) struct Checks {
    due: Timers<Checked>,
    /// How many checks in a row have failed.
    failed: BTreeMap<Checked, u32>,
    /// The replacements for failed checks.
    waits: CheckWaits,
    /// First workers of a generation of which another attempt is due.
    again: Timers<First>,
}

impl Checks {
    /// A worker is ready: it is checked from now on, if its app wants that.
    pub(super) fn begin<W: World>(&mut self, turn: &Turn<W>, pid: Pid, child: &Child) {
        let check = child.plan.check.as_ref();
        let Some(every) = check.and_then(|check| check.every) else {
            return;
        };
        let has_own = turn.world.own_address(pid).is_some() || child.plan.sockets.is_empty();
        let own = has_own.then_some(child.worker);
        let target = (child.app.clone(), own);
        // A random part of the time, so that apps that were started together are not checked together.
        if self.due.get(&target).is_none() && !self.failed.contains_key(&target) {
            let wait = every.mul_f64(0.5 + fastrand::f64() / 2.0);
            self.due.set(target, Some(turn.now + wait));
        }
    }

    /// A worker was reaped.
    pub(super) fn end(&mut self, child: &Child) {
        let target = (child.app.clone(), Some(child.worker));
        self.failed.remove(&target);
        self.due.set(target, None);
    }

    /// When the next check is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.next().into_iter().chain(self.again.next()).min()
    }

    /// The first worker of a generation has failed its check, and gets another attempt.
    pub(super) fn again(&mut self, now: Instant, first: &First) {
        let mut next = first.clone();
        next.left -= 1;
        self.again.set(next, Some(now + crate::probe::PAUSE));
    }

    /// The attempts of which the time has come.
    pub(super) fn due_again(&mut self, now: Instant) -> Vec<First> {
        self.again.take_due(now).into_iter().collect()
    }

    /// Begins the checks that are due. Each target has one at a time: its timer is set again when the check has ended.
    pub(super) fn look<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &Children,
        jobs: &mut Jobs,
    ) {
        for target in self.due.take_due(turn.now) {
            // Without a worker that serves there is nothing to check; the next one that is ready begins anew.
            self.failed.entry(target.clone()).or_default();
            if !self.ask(turn, children, jobs, &target) {
                self.failed.remove(&target);
            }
        }
    }

    fn ask<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &Children,
        jobs: &mut Jobs,
        target: &Checked,
    ) -> bool {
        let Some((pid, child)) = serving(children, target).pop() else {
            return false;
        };
        let Some(check) = child.plan.check.as_ref() else {
            return false;
        };
        let Some(every) = check.every else {
            return false;
        };
        if jobs.proves(&target.0, child.worker) || self.proves(&target.0, child.worker) {
            self.due.set(target.clone(), Some(turn.now + every));
            return true;
        }
        let limits = Limits {
            time: Some(match check.ask {
                Ask::Command(_) => check.timeout,
                Ask::Page { .. } | Ask::Connection => check.timeout + SLACK,
            }),
            grace: SLACK,
        };
        match start(turn, check, pid, child, 1) {
            Ok(pid) => jobs.add(turn, pid, Task::Recheck(target.clone()), limits),
            Err(error) => {
                debug!("app={}: cannot start a check: {error}", target.0);
                self.due.set(target.clone(), Some(turn.now + every));
            }
        }
        true
    }

    /// Whether another attempt to check the first worker of a generation is due.
    fn proves(&self, app: &Name, worker: WorkerId) -> bool {
        let mut keys = self.again.keys();
        keys.any(|first| first.app == *app && first.worker == worker)
    }

    /// Whether the checks of an app fail: workers were replaced for that, and no check has passed since.
    pub(super) fn fails(&self, children: &Children, app: &Name) -> bool {
        self.waits.fails(app, |generation| {
            let mut children = children.of(app);
            children.any(|(_, child)| child.generation == generation)
        })
    }

    /// A check has ended.
    pub(super) fn ended<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &mut Children,
        watch: &mut Watch,
        target: &Checked,
        job: &Ended,
    ) {
        let Some(failed) = self.failed.remove(target) else {
            return;
        };
        note(children, target, job);
        let serving = serving(children, target);
        let Some((pid, child)) = serving.last().map(|(pid, child)| (*pid, (*child).clone())) else {
            return;
        };
        let Some(check) = child.plan.check.as_ref() else {
            return;
        };
        let Some(every) = check.every else { return };
        let app = &target.0;
        let wait = every.mul_f64(0.9 + fastrand::f64() / 10.0);
        self.due.set(target.clone(), Some(turn.now + wait));
        let since = target.1.and(child.ready_at);
        let Err(end) = &job.verdict else {
            if self.waits.passed(app, since) || failed > 0 {
                info!("app={app} check: passed again");
            }
            self.failed.insert(target.clone(), 0);
            return;
        };
        if serving.iter().all(|(_, child)| is_busy(turn, child)) {
            debug!("app={app} check: not answered, as all workers are busy");
            self.failed.insert(target.clone(), failed);
            return;
        }
        let why = reason(Some(check), job, end);
        let (failed, most) = (failed + 1, check.failures);
        if failed < most {
            warn!("app={app} check: failed ({failed} of {most} in a row): {why}");
            self.failed.insert(target.clone(), failed);
            return;
        }
        let said = format!("{most} checks in a row failed: {why}");
        let row = every.saturating_mul(most);
        let next = match self.waits.replace(turn.now, app, child.generation, row) {
            Ok(next) => report::short(next),
            Err(held) => {
                // The next failure asks again.
                self.failed.insert(target.clone(), most - 1);
                say_held(app, &held, &said);
                return;
            }
        };
        let said = format!("{said}; the next time not before {next}, unless a check passes");
        match serving[..] {
            [_] => {
                // Its replacement begins anew.
                self.due.set(target.clone(), None);
                watch.hangs(turn, &child, pid, &said);
            }
            _ => {
                error!("app={app}: {said}; all its workers are replaced, one at a time");
                self.failed.insert(target.clone(), 0);
                let pids: Vec<Pid> = serving.iter().map(|(pid, _)| *pid).collect();
                for pid in pids {
                    if let Some(child) = children.get_mut(pid) {
                        child.retired = true;
                        turn.queue_event(&child.app, Event::Recycle(child.worker));
                    }
                }
            }
        }
    }
}

/// Says why workers go on although their checks fail, once.
fn say_held(app: &Name, held: &Held, said: &str) {
    let Held { times, is_new, .. } = held;
    let left = report::short(held.left);
    let line = format!(
        "app={app}: {said}; not replaced again for {left} (number of replacements since a check has passed: {times})"
    );
    match is_new {
        true => warn!("{line}"),
        false => debug!("{line}"),
    }
}

/// The workers of a target that serve, oldest first.
fn serving<'a>(children: &'a Children, target: &Checked) -> Vec<(Pid, &'a Child)> {
    let serves = |child: &Child| {
        let is_meant = target.1.is_none_or(|worker| worker == child.worker);
        let goes_on = child.signalled.is_none() && !child.stopping && !child.retired;
        is_meant && goes_on && child.ready_at.is_some()
    };
    let all = children.of(&target.0);
    all.filter(|(_, child)| serves(child)).collect()
}

/// Starts a check of a worker, other than over a listener of its own.
pub(super) fn start<W: World>(
    turn: &mut Turn<W>,
    check: &Check,
    pid: Pid,
    child: &Child,
    attempts: u32,
) -> io::Result<Pid> {
    let Ask::Command(launch) = &check.ask else {
        let address = address(turn, pid, child);
        let address = address.ok_or_else(|| io::Error::other("it has no address"))?;
        return turn.world.start_probe_at(check, attempts, &address);
    };
    let own = turn.world.own_address(pid);
    let mut launch = own.map_or_else(|| (**launch).clone(), |own| launch.at(own));
    launch.env.insert(env::CHECKED_PID.into(), pid.to_string());
    turn.world.start(&Start {
        app: &child.app,
        plan: &child.plan,
        launch: &launch,
        role: Role::Check(child.slot),
        generation: child.generation,
        captured: true,
        private: Private::None,
    })
}

/// What a check does.
pub(super) fn words<W: World>(turn: &Turn<W>, check: &Check, pid: Pid) -> String {
    let own = turn.world.own_address(pid);
    match &check.ask {
        Ask::Page { path, .. } => format!("GET {path}"),
        Ask::Connection => match own {
            Some(own) => format!("connecting to {own}"),
            None => "connecting".into(),
        },
        Ask::Command(launch) => format!("running {}", launch.args.join(" ")),
    }
}

/// Why a check has failed.
pub(super) fn reason(check: Option<&Check>, job: &Ended, end: &str) -> String {
    let said = job.output.as_deref();
    match check.map(|check| &check.ask) {
        Some(Ask::Command(launch)) => {
            let said = said.map_or(String::new(), |said| format!(": {said}"));
            let program = launch.args.first().map_or("it", String::as_str);
            format!("{program} {end}{said}")
        }
        _ => said.map_or_else(|| format!("it {end}"), str::to_owned),
    }
}

/// Notes the last result, for the status.
fn note(children: &mut Children, target: &Checked, job: &Ended) {
    let found = serving(children, target);
    let check = found
        .last()
        .and_then(|(_, child)| child.plan.check.as_ref());
    let end = job.verdict.as_ref().err();
    let why = end.map(|end| reason(check, job, end).into());
    let pids = found.into_iter().map(|(pid, _)| pid);
    for pid in pids.collect::<Vec<Pid>>() {
        if let Some(child) = children.get_mut(pid) {
            child.check_failed.clone_from(&why);
        }
    }
}

/// Where a worker is asked.
fn address<W: World>(turn: &Turn<W>, pid: Pid, child: &Child) -> Option<OsString> {
    if let Some(own) = turn.world.own_address(pid) {
        return Some(own.to_string().into());
    }
    let mut sockets = child.plan.sockets.iter();
    sockets.find_map(|(_, address)| match address {
        Address::Tcp(address) => Some(address.to_string().into()),
        Address::Unix(path) => {
            let mut text = OsString::from("unix:");
            text.push::<&OsStr>(path.as_ref());
            Some(text)
        }
        Address::Inherited(_) => None,
    })
}

/// Whether the scoreboard shows that all threads of a worker are in requests, none for longer than `timeout`.
fn is_busy<W: World>(turn: &Turn<W>, child: &Child) -> bool {
    let (Hang::Request(most), Some(record)) = (child.plan.hang, child.record) else {
        return false;
    };
    let served = turn.now.saturating_duration_since(child.asked_for);
    let seen = turn.world.read(&child.app, record, served);
    seen.is_some_and(|seen| {
        let threads = child.plan.threads.unwrap_or(1);
        seen.threads_busy >= threads.into() && seen.busy.is_some_and(|age| age < most)
    })
}
