//! The process that answers `/metrics`, `/healthz` and `/readyz`. It is started again when it has ended, and replaced when it is to read
//! other scoreboards; its listeners stay open meanwhile. It ends last at a stop.

use std::time::Instant;

use log::warn;
use preforkd_worker::census::{Head, Phase};
use preforkd_worker::metrics::Metrics;
use preforkd_worker::metrics::orders::{self, Orders};
use preforkd_worker::metrics::sites::Front;

use super::census::{self, Census};
use super::jobs::{Ended, Jobs, Task};
use super::lasting::Lasting;
use super::turn::Turn;
use super::workers::App;
use super::world::World;
use super::{Master, report, sites};
use crate::plan::{self, Plan};
use crate::release::{Generation, Name};

/// The process.
#[derive(Default)]
pub(super) struct Exporter {
    /// What it is, what it is told, and the generation whose listeners it has.
    wanted: Option<(plan::Metrics, Orders, Generation)>,
    job: Lasting,
}

impl Exporter {
    /// Has it read the scoreboards of the apps of this plan.
    pub(super) fn follow<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        jobs: &mut Jobs,
        census: &mut Census,
        plan: &Plan,
        generation: Generation,
    ) {
        let wanted = plan.metrics.clone().map(|metrics| {
            let listeners = u32::try_from(metrics.listeners.len()).unwrap_or_default();
            let apps = plan.apps.iter().map(|(name, app)| orders::App {
                name: name.clone(),
                number: census.number(&name.as_str().into()),
                listeners: app.sockets.iter().map(|(_, at)| at.to_string()).collect(),
                sites: app.sites.clone(),
            });
            let orders = Orders {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                master: std::process::id(),
                listeners,
                apps: apps.collect(),
            };
            (metrics, orders)
        });
        let has_all = |metrics: &plan::Metrics, since: Generation| {
            let mut listeners = metrics.listeners.iter();
            listeners.all(|address| turn.world.has_successors(address, since))
        };
        let same = match (&self.wanted, &wanted) {
            (None, None) => true,
            (Some((metrics, orders, since)), Some(wanted)) => {
                (metrics, orders) == (&wanted.0, &wanted.1) && has_all(metrics, *since)
            }
            _ => false,
        };
        self.wanted = wanted.map(|(metrics, orders)| (metrics, orders, generation));
        if same {
            return;
        }
        self.job.reset(turn, jobs);
        self.start(turn, jobs);
    }

    fn start<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        let Some((metrics, orders, generation)) = &self.wanted else {
            return;
        };
        match turn.world.start_metrics(metrics, orders, *generation) {
            Ok(pid) => self.job.started(turn, jobs, Task::Metrics, pid),
            Err(error) => self.failed(turn, &format!("cannot be started: {error}")),
        }
    }

    /// A process of it has ended.
    pub(super) fn ended<W>(&mut self, turn: &Turn<W>, job: &Ended) {
        if self.job.ended(job.pid) && !job.abandoned {
            let ended = job.verdict.as_ref().err();
            self.failed(turn, ended.map_or("has ended", String::as_str));
        }
    }

    fn failed<W>(&mut self, turn: &Turn<W>, why: &str) {
        let shown = report::short(self.job.failed(turn.now));
        warn!(
            "the process that answers /metrics: {why}; nobody answers until it runs; retrying in {shown}"
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

    /// Everything else has ended.
    pub(super) fn stop<W: World>(&mut self, turn: &mut Turn<W>, jobs: &mut Jobs) {
        self.wanted = None;
        self.job.reset(turn, jobs);
    }
}

impl<W: World> Master<W> {
    /// Writes for the process what has changed.
    pub(super) fn write_census(&mut self) {
        let head = self.census_head();
        let checks = &self.checks;
        let failing: Vec<Name> = self
            .workers
            .apps
            .keys()
            .filter(|name| checks.fails(&self.workers.children, name))
            .cloned()
            .collect();
        let lacks = |name: &Name, app: &App| lacks(app, failing.contains(name));
        self.census
            .write(&mut self.turn, &mut self.workers, head, lacks);
    }

    fn census_head(&self) -> Head {
        Head {
            phase: Phase::from_name(self.phase()).unwrap_or_default(),
            generation: self.release.current().unwrap_or_default(),
        }
    }

    /// All that is counted, for the command `preforkd metrics`.
    pub(super) fn metrics(&self) -> Metrics {
        let head = self.census_head();
        let mut metrics = Metrics::new(env!("CARGO_PKG_VERSION"), head);
        for (name, _) in self.workers.configured() {
            let past = self.census.past(name);
            metrics
                .apps
                .push(census::app(&self.turn, &self.workers, name, past));
        }
        metrics.is_ready = self.takes_requests();
        metrics.front = self.front_metrics();
        metrics
    }

    /// Whether requests should be sent here, as /readyz says.
    pub(super) fn takes_requests(&self) -> bool {
        let children = &self.workers.children;
        let mut apps = self.workers.configured();
        let goes_on = matches!(self.phase(), "ready" | "reloading");
        goes_on && !apps.any(|(name, app)| lacks(app, self.checks.fails(children, name)))
    }

    fn front_metrics(&self) -> Option<Front> {
        sites::metrics(&self.turn, &self.workers, self.current.as_ref()?)
    }
}

/// Whether an app is required and no worker of it serves, or none is meant to go on.
fn lacks(app: &App, check_fails: bool) -> bool {
    let counts = app.supervisor.counts();
    let has_none = counts.wanted > 0 && counts.ready + counts.finished == 0;
    app.is_required() && (app.supervisor.is_paused() || check_fails || has_none)
}
