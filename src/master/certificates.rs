//! The certificates of sites, which workers take in while they run: with a reload, or when a process that watches their files has found
//! others.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use nix::unistd::Pid;

use super::jobs::{Ended, Jobs, Limits, Task};
use super::report;
use super::turn::Turn;
use super::world::World;
use super::{Master, workers::Workers};
use crate::plan::{Plan, Secret};
use crate::release::Name;

/// How long to wait before the watch is started again after it has failed, at first and at most.
const WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(10 * 60);

/// A process that watches has no time limit, and nothing to finish.
const LIMITS: Limits = Limits {
    time: None,
    grace: Duration::from_secs(2),
};

/// The process that watches the files.
#[derive(Default)]
pub(super) struct Certificates {
    /// The program that checks them, and those that run, of sites with TLS.
    watched: Option<(PathBuf, Secret)>,
    /// The process, if it runs.
    process: Option<Pid>,
    /// When it is started again, and how long to wait when it fails once more.
    again: Option<(Instant, Duration)>,
}

impl Certificates {
    /// Watches the files of the certificates of this plan, and no others.
    pub(super) fn follow<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, plan: &Plan) {
        let wanted = plan.apps.values().find_map(|app| {
            let certificates = app.certificates.clone()?;
            Some((app.launch.program.clone(), certificates))
        });
        if wanted == self.watched && (self.process.is_some() || wanted.is_none()) {
            return;
        }
        (self.watched, self.again) = (wanted, None);
        if let Some(process) = self.process.take() {
            jobs.abandon_one(turn, process);
        }
        self.start(turn, jobs);
    }

    fn start<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        let Some((front, running)) = &self.watched else {
            return;
        };
        match turn.world.start_certificate_watch(front, running) {
            Ok(pid) => {
                jobs.add(turn, pid, Task::Certificates, LIMITS);
                self.process = Some(pid);
            }
            Err(error) => self.failed(turn, &format!("cannot be started: {error}")),
        }
    }

    /// The process has ended. Returns the certificates that it has found.
    pub(super) fn ended<W: World>(&mut self, turn: &mut Turn<W>, job: &Ended) -> Option<Secret> {
        let found = turn.world.found_certificates(job.pid);
        self.process.take_if(|process| *process == job.pid)?;
        match (&job.verdict, found) {
            (Ok(()), Ok(Some(found))) => {
                self.again = None;
                return Some(found);
            }
            (Err(why), _) => self.failed(turn, why),
            (_, Err(error)) => self.failed(turn, &error.to_string()),
            (Ok(()), Ok(None)) => self.failed(turn, "has ended without a result"),
        }
        None
    }

    fn failed<W>(&mut self, turn: &Turn<W>, why: &str) {
        let wait = self.again.map_or(WAIT, |(_, wait)| wait);
        let shown = report::short(wait);
        warn!(
            "the watch of certificates: {why}; new ones are taken in at a reload only; retrying in {shown}"
        );
        self.again = Some((turn.now + wait, (wait * 2).min(MOST_WAIT)));
    }

    /// Starts the watch again if it is time.
    pub(super) fn look<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        if self.process.is_none() && self.again.is_some_and(|(at, _)| at <= turn.now) {
            self.start(turn, jobs);
        }
    }

    /// When that is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = self.again.filter(|_| self.process.is_none());
        again.map(|(at, _)| at)
    }

    /// The master stops.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }
}

impl<W: World> Master<W> {
    /// The watch of certificates has ended.
    pub(super) fn certificates_found(&mut self, job: &Ended) {
        let Some(found) = self.certificates.ended(&mut self.turn, job) else {
            return;
        };
        let Some(plan) = &mut self.current else {
            return;
        };
        let mut apps = plan.apps.iter_mut();
        let app = apps.find(|(_, app)| app.certificates.is_some());
        if let Some((name, app)) = app {
            app.certificates = Some(found.clone());
            renew(
                &mut self.turn,
                &mut self.workers,
                &name.as_str().into(),
                &found,
            );
        }
        self.certificates
            .follow(&mut self.turn, &mut self.jobs, plan);
    }
}

/// Hands new certificates to the workers of an app, and to those that start from now on.
pub(super) fn renew<W: World>(
    turn: &mut Turn<W>,
    workers: &mut Workers,
    name: &Name,
    certificates: &Secret,
) {
    let told = workers.renew_certificates(name, certificates);
    for pid in &told {
        if let Err(error) = turn.world.hand_certificates(*pid, certificates) {
            error!(
                "app={name} pid={pid}: cannot hand over new certificates: {error}; it keeps the old ones"
            );
        }
    }
    let number = report::workers(told.len());
    info!("app={name}: new certificates, handed to {number}");
}
