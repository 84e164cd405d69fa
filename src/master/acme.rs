//! Certificates that an authority issues: the process that orders, keeps and renews them, and the challenges that it wants told.

use std::time::Instant;

use log::warn;
use preforkd_worker::acme::Challenges;

use super::Master;
use super::jobs::{Ended, Jobs, Task};
use super::lasting::Lasting;
use super::report;
use super::turn::Turn;
use super::world::World;
use crate::plan::{Acme, Plan, Secret};

/// The process that keeps certificates.
#[derive(Default)]
pub(super) struct Keeper {
    /// What it does, of sites that want that.
    wanted: Option<Acme>,
    /// The challenges that the workers of the front have been told, as JSON; none have been told if there is none.
    told: Option<Secret>,
    /// The process. What it does is on disk.
    job: Lasting,
}

impl Keeper {
    /// Keeps the certificates of this plan, and no others.
    pub(super) fn follow<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, plan: &Plan) {
        let wanted = plan.apps.values().find_map(|app| app.acme.clone());
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        self.job.reset(turn, jobs);
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
            Ok(pid) => self.job.started(turn, jobs, Task::Keeper, pid),
            Err(error) => self.failed(turn, &format!("cannot be started: {error}")),
        }
    }

    /// The process has ended. The workers of the front get the challenges that it has found before the next one starts.
    fn ended<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs, job: &Ended) {
        let found = turn.world.found_challenges(job.pid);
        if !self.job.ended(job.pid) {
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
                self.told = Some(found);
                self.job.succeeded();
                self.start(turn, jobs);
            }
            Err(error) => self.failed(turn, &format!("its challenges cannot be told: {error}")),
        }
    }

    fn failed<W>(&mut self, turn: &Turn<W>, why: &str) {
        let shown = report::short(self.job.failed(turn.now));
        warn!(
            "the process that orders certificates: {why}; none is ordered or renewed until it runs; retrying in {shown}"
        );
    }

    /// Starts the process again if it is time.
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
    /// The process that keeps certificates has ended.
    pub(super) fn keeper_ended(&mut self, job: &Ended) {
        self.keeper.ended(&mut self.turn, &mut self.jobs, job);
    }
}
