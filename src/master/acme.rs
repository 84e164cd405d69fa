//! Certificates that an authority issues: the process that orders, keeps and renews them, and the challenges that it wants told.

use std::time::{Duration, Instant};

use log::warn;
use nix::unistd::Pid;
use preforkd_worker::acme::Challenges;

use super::Master;
use super::jobs::{Ended, Jobs, Limits, Task};
use super::report;
use super::turn::Turn;
use super::world::World;
use crate::plan::{Acme, Plan, Secret};

/// How long to wait before the process is started again after it has failed, at first and at most.
const WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(10 * 60);

/// It has no time limit, and what it does is on disk.
const LIMITS: Limits = Limits {
    time: None,
    grace: Duration::from_secs(2),
};

/// The process that keeps certificates.
#[derive(Default)]
pub(super) struct Keeper {
    /// What it does, of sites that want that.
    wanted: Option<Acme>,
    /// The challenges that the workers of the front have been told, as JSON; none have been told if there is none.
    told: Option<Secret>,
    /// The process, if it runs.
    process: Option<Pid>,
    /// When it is started again, and how long to wait when it fails once more.
    again: Option<(Instant, Duration)>,
}

impl Keeper {
    /// Keeps the certificates of this plan, and no others.
    pub(super) fn follow<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, plan: &Plan) {
        let wanted = plan.apps.values().find_map(|app| app.acme.clone());
        if wanted == self.wanted {
            return;
        }
        (self.wanted, self.again) = (wanted, None);
        if let Some(process) = self.process.take() {
            jobs.abandon_one(turn, process);
        }
        self.start(turn, jobs);
    }

    fn start<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        let Some(wanted) = &self.wanted else {
            return;
        };
        match turn
            .world
            .start_certificate_keeper(wanted, self.told.as_ref())
        {
            Ok(pid) => {
                jobs.add(turn, pid, Task::Keeper, LIMITS);
                self.process = Some(pid);
            }
            Err(error) => self.failed(turn, &format!("cannot be started: {error}")),
        }
    }

    /// The process has ended. The workers of the front get the challenges that it has found before the next one starts.
    fn ended<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, job: &Ended) {
        let found = turn.world.found_challenges(job.pid);
        if self
            .process
            .take_if(|process| *process == job.pid)
            .is_none()
        {
            return;
        }
        match (&job.verdict, found) {
            (Ok(()), Ok(Some(found))) if self.told.as_ref() != Some(&found) => {
                self.tell(turn, jobs, found);
            }
            (Err(why), _) => self.failed(turn, why),
            (_, Err(error)) => self.failed(turn, &error.to_string()),
            (Ok(()), Ok(_)) => self.failed(turn, "has ended without a result"),
        }
    }

    fn tell<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, found: Secret) {
        if let Err(error) = Challenges::parse(&found.0) {
            return self.failed(turn, &format!("has ended with something else: {error}"));
        }
        match turn.world.tell_challenges(&found) {
            Ok(()) => {
                (self.told, self.again) = (Some(found), None);
                self.start(turn, jobs);
            }
            Err(error) => self.failed(turn, &format!("its challenges cannot be told: {error}")),
        }
    }

    fn failed<W>(&mut self, turn: &Turn<W>, why: &str) {
        let wait = self.again.map_or(WAIT, |(_, wait)| wait);
        let shown = report::short(wait);
        warn!(
            "the process that orders certificates: {why}; none is ordered or renewed until it runs; retrying in {shown}"
        );
        self.again = Some((turn.now + wait, (wait * 2).min(MOST_WAIT)));
    }

    /// Starts the process again if it is time.
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
    /// The process that keeps certificates has ended.
    pub(super) fn keeper_ended(&mut self, job: &Ended) {
        self.keeper.ended(&mut self.turn, &mut self.jobs, job);
    }
}
