//! The certificates of sites, which workers take in while they run: with a reload, or when a process that watches their files has found
//! others.

use std::path::PathBuf;
use std::time::Instant;

use log::{error, info, warn};

use super::jobs::{Ended, Jobs, Task};
use super::lasting::Lasting;
use super::report;
use super::turn::Turn;
use super::world::World;
use super::{Master, workers::Workers};
use crate::plan::{Plan, Secret};
use crate::release::Name;

/// The process that watches the files.
#[derive(Default)]
pub(super) struct Certificates {
    /// The program that checks them, and those that run, of sites with TLS.
    watched: Option<(PathBuf, Secret)>,
    /// The process.
    job: Lasting,
}

impl Certificates {
    /// Watches the files of the certificates of this plan, and no others.
    pub(super) fn follow<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, plan: &Plan) {
        let wanted = plan.apps.values().find_map(|app| {
            let certificates = app.certificates.clone()?;
            Some((app.launch.program.clone(), certificates))
        });
        if wanted == self.watched && (self.job.runs() || wanted.is_none()) {
            return;
        }
        self.watched = wanted;
        self.job.reset(turn, jobs);
        self.start(turn, jobs);
    }

    fn start<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        let Some((front, running)) = &self.watched else {
            return;
        };
        match turn.world.start_certificate_watch(front, running) {
            Ok(pid) => self.job.started(turn, jobs, Task::Certificates, pid),
            Err(error) => self.failed(turn, &format!("cannot be started: {error}")),
        }
    }

    /// The process has ended. Returns the certificates that it has found.
    pub(super) fn ended<W: World>(&mut self, turn: &mut Turn<W>, job: &Ended) -> Option<Secret> {
        let found = turn.world.found_certificates(job.pid);
        if !self.job.ended(job.pid) {
            return None;
        }
        match (&job.verdict, found) {
            (Ok(()), Ok(Some(found))) => {
                self.job.succeeded();
                return Some(found);
            }
            (Err(why), _) => self.failed(turn, why),
            (_, Err(error)) => self.failed(turn, &error.to_string()),
            (Ok(()), Ok(None)) => self.failed(turn, "has ended without a result"),
        }
        None
    }

    fn failed<W>(&mut self, turn: &Turn<W>, why: &str) {
        let shown = report::short(self.job.failed(turn.now));
        warn!(
            "the watch of certificates: {why}; new ones are taken in at a reload only; retrying in {shown}"
        );
    }

    /// Starts the watch again if it is time.
    pub(super) fn look<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        if self.job.is_due(turn.now) {
            self.start(turn, jobs);
        }
    }

    /// When that is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.job.deadline()
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
