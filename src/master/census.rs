//! What is noted of apps and workers for the process that answers `/metrics` ([`preforkd_worker::census`]), and what workers that have ended
//! had counted. That is kept as long as the master runs, over reloads and over restarts of that process.

use std::collections::BTreeMap;

use log::warn;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::census::{self, APP_WORDS, Head, Stage, WORKER_WORDS, Worker};
use preforkd_worker::metrics::{App, Cause, Sums};

use super::turn::Turn;
use super::workers::children::{Child, Children};
use super::workers::{self, Workers};
use super::world::{Exit, World};
use crate::release::Name;
use crate::supervisor::Reason;

/// What is noted.
#[derive(Default)]
pub(super) struct Census {
    /// Somebody reads it.
    is_on: bool,
    numbers: BTreeMap<Name, u32>,
    /// What the workers of each app that have ended had counted.
    past: BTreeMap<Name, Sums>,
    /// Records of each app from here on were never used.
    unused: BTreeMap<Name, u64>,
    /// What was written last.
    head: Option<Head>,
    apps: BTreeMap<Name, census::App>,
    /// It was said that it cannot be written.
    said: bool,
}

impl Census {
    /// The number of an app.
    pub(super) fn number(&mut self, app: &Name) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(app.clone()).or_insert(next)
    }

    /// Whether somebody reads it from now on.
    pub(super) fn set(&mut self, is_on: bool, children: &mut Children) {
        if is_on && !self.is_on {
            (self.head, self.apps) = (None, BTreeMap::new());
            children.touch_all();
        }
        self.is_on = is_on;
    }

    /// Writes what has changed. `lacks` says of an app whether it is required and has no worker that serves.
    pub(super) fn write<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        workers: &mut Workers,
        head: Head,
        lacks: impl Fn(&Name, &workers::App) -> bool,
    ) {
        let touched = workers.children.take_touched();
        if !self.is_on {
            return;
        }
        let mut changes = Vec::new();
        for pid in touched {
            let Some(child) = workers.children.get(pid) else {
                continue;
            };
            let Some(record) = child.record else { continue };
            let number = self.number(&child.app);
            let unused = self.unused.entry(child.app.clone()).or_default();
            *unused = (*unused).max(u64::from(record) + 1);
            let words = worker(pid, child).words().to_vec();
            changes.push((census::worker_at(number, record), words));
        }
        for (name, app) in workers.configured() {
            let known = census::App {
                generation: app.supervisor.generation().unwrap_or_default(),
                wanted: app.supervisor.counts().wanted as u64,
                unused: self.unused.get(name).copied().unwrap_or_default(),
                is_lacking: lacks(name, app),
                past: self.past.get(name).cloned().unwrap_or_default(),
            };
            changes.extend(self.change_of(name, known));
        }
        if self.head.replace(head) != Some(head) {
            changes.push((8, head.words().to_vec()));
        }
        self.put(turn, &changes);
    }

    /// A worker was reaped, and its record not released yet: what it has counted is kept.
    pub(super) fn ended<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        child: &Child,
        cause: Cause,
        cpu: u64,
    ) {
        let name = &child.app;
        let age = turn.now.saturating_duration_since(child.asked_for);
        let seen = child
            .record
            .and_then(|record| turn.world.read(name, record, age))
            .filter(|seen| seen.pid != 0);
        let past = self.past.entry(name.clone()).or_default();
        seen.iter().for_each(|seen| past.add(seen));
        past.cpu += cpu;
        past.ended(cause);
        let past = past.clone();
        let Some(known) = self.apps.get(name).cloned().filter(|_| self.is_on) else {
            return;
        };
        let mut changes: Vec<_> = self
            .change_of(name, census::App { past, ..known })
            .into_iter()
            .collect();
        if let Some(record) = child.record {
            let at = census::worker_at(self.number(name), record);
            changes.push((at, vec![0; WORKER_WORDS]));
        }
        self.put(turn, &changes);
    }

    /// What workers of an app that have ended had counted.
    pub(super) fn past(&self, name: &Name) -> Sums {
        self.past.get(name).cloned().unwrap_or_default()
    }

    fn change_of(&mut self, name: &Name, app: census::App) -> Option<(u64, Vec<u64>)> {
        if self.apps.get(name) == Some(&app) {
            return None;
        }
        let words: [u64; APP_WORDS] = app.words();
        self.apps.insert(name.clone(), app);
        Some((census::app_at(self.number(name)), words.to_vec()))
    }

    fn put<W: World>(&mut self, turn: &mut Turn<W>, changes: &[(u64, Vec<u64>)]) {
        if changes.is_empty() {
            return;
        }
        let size = census::size(u32::try_from(self.numbers.len()).unwrap_or(u32::MAX));
        if let Err(error) = turn.world.write_census(size, changes)
            && !std::mem::replace(&mut self.said, true)
        {
            warn!("cannot note for /metrics what runs: {error}; its numbers are not complete");
        }
    }
}

fn worker(pid: Pid, child: &Child) -> Worker {
    Worker {
        pid: u32::try_from(pid.as_raw()).unwrap_or_default(),
        stage: stage(child),
        slot: child.slot,
        generation: child.generation,
    }
}

fn stage(child: &Child) -> Stage {
    match (child.leaves || child.signalled.is_some(), child.ready_at) {
        (true, _) => Stage::Leaving,
        (false, Some(_)) => Stage::Ready,
        (false, None) => Stage::Starting,
    }
}

/// Why a worker has ended.
pub(super) fn cause(child: &Child, exit: Exit, out_of_memory: bool) -> Cause {
    match (child.signalled, exit) {
        (Some((_, reason)), _) => match reason {
            Reason::Stop | Reason::Removed | Reason::Paused => Cause::Stopped,
            Reason::Replaced | Reason::RolledBack | Reason::MaxDraining => Cause::Replaced,
            Reason::Recycled => Cause::Recycled,
            Reason::ScaledDown => Cause::ScaledDown,
            Reason::StartTimeout => Cause::StartTimeout,
            Reason::GracefulTimeout => Cause::GracefulTimeout,
            Reason::Hung | Reason::AbortGrace => Cause::Hung,
        },
        (None, Exit::Status(0)) => Cause::Finished,
        (None, Exit::Status(_)) => Cause::Failed,
        (None, Exit::Signal(Signal::SIGKILL, _)) if out_of_memory => Cause::OutOfMemory,
        (None, Exit::Signal(..)) => Cause::Killed,
    }
}

/// What is counted of an app, as its workers say.
pub(super) fn app<W: World>(turn: &Turn<W>, workers: &Workers, name: &Name, past: Sums) -> App {
    let known = workers.apps.get(name).map(|app| &app.supervisor);
    let mut app = App {
        name: name.to_string(),
        generation: known.and_then(|app| app.generation()).unwrap_or_default(),
        wanted: known.map_or(0, |app| app.counts().wanted as u64),
        sums: past,
        ..App::default()
    };
    let mut addresses = Vec::new();
    for (pid, child) in workers.children.of(name) {
        let age = turn.now.saturating_duration_since(child.asked_for);
        let seen = child
            .record
            .and_then(|record| turn.world.read(name, record, age));
        let seen = seen.filter(|seen| seen.pid != 0);
        app.add(worker(pid, child).pid, stage(child), seen.as_ref());
        addresses.extend(child.plan.sockets.iter().map(|(_, at)| at));
    }
    addresses.sort();
    addresses.dedup();
    let queues = addresses
        .into_iter()
        .filter_map(|at| turn.world.accept_queue(at));
    app.queue = queues.map(u64::from).reduce(u64::saturating_add);
    app
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_we_have_told_to_end_has_ended_for_that_reason() {
        let mut child = Child::example(1);
        let of = |child: &Child, exit| cause(child, exit, false).name();
        let killed = Exit::Signal(Signal::SIGKILL, false);
        assert_eq!(of(&child, Exit::Status(0)), "finished");
        assert_eq!(of(&child, Exit::Status(1)), "failed");
        assert_eq!(of(&child, killed), "killed");
        assert_eq!(cause(&child, killed, true), Cause::OutOfMemory);
        for (reason, name) in [
            (Reason::Hung, "hung"),
            (Reason::Replaced, "replaced"),
            (Reason::GracefulTimeout, "graceful_timeout"),
            (Reason::Paused, "stopped"),
        ] {
            child.signalled = Some((Signal::SIGKILL, reason));
            assert_eq!(of(&child, killed), name);
        }
    }

    #[test]
    fn apps_keep_their_numbers() {
        let mut census = Census::default();
        let (web, api) = (Name::from("web"), Name::from("api"));
        assert_eq!((census.number(&web), census.number(&api)), (0, 1));
        assert_eq!(census.number(&web), 0);
    }
}
