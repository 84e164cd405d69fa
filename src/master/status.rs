//! What the master says about itself: its phase, and the status of all apps in one line.

use std::time::Duration;

use super::report::{self, Health};
use super::world::World;
use super::{Master, Outcome, stop_order};
use crate::plan::App;
use crate::release::{Release, State};
use crate::supervisor::Counts;

/// The time for what goes on before a configuration is there.
const UNKNOWN: Duration = Duration::from_secs(60);

impl<W: World> Master<W> {
    /// Notes what goes on, for which the init system must allow time.
    pub(super) fn note_phase(&mut self, stepped: bool) {
        let waits = self.waits_for_earlier();
        let candidate = self
            .preparation
            .candidate()
            .map(|candidate| &candidate.plan);
        let plans = self.current.iter().chain(candidate);
        match self.phase() {
            "ready" => self.init.settled(),
            "stopping" => {
                let runs = self.schedules.time_to_stop();
                let chains =
                    plans.filter_map(|plan| stop_order::longest(&plan.apps, App::time_to_stop));
                let before = self.lame_duck().unwrap_or_default();
                let longest = || before + chains.chain(runs).max().unwrap_or(UNKNOWN);
                self.init
                    .goes_on(self.turn.now, "stopping", stepped, longest);
            }
            phase => {
                let apps = plans.flat_map(|plan| plan.apps.values());
                let longest = || apps.map(App::time_to_start).max().unwrap_or(UNKNOWN);
                // What is waited for ends in its own time, which its guard knows.
                self.init
                    .goes_on(self.turn.now, phase, stepped || waits, longest);
            }
        }
    }

    /// Updates the status line of all apps. Returns whether it has changed.
    pub(super) fn update_status(&mut self) -> bool {
        if !std::mem::take(&mut self.workers.changed) {
            return false;
        }
        let apps = self.workers.apps.iter().filter(|(_, app)| !app.is_gone());
        let apps = apps.map(|(name, app)| {
            let supervisor = &app.supervisor;
            let health = match report::Health::of(supervisor) {
                _ if app.waits.as_ref().is_some_and(|waits| waits.whole) => Health::FailedBeside,
                _ if app.waits.is_some() => Health::Waits,
                Health::Well if self.checks.fails(&self.workers.children, name) => {
                    Health::CheckFails
                }
                Health::GivenUp if app.not_started.is_some() => Health::NotStarted,
                health => health,
            };
            (&**name, supervisor.counts(), health)
        });
        let later = self.later();
        let later = later.iter().map(|app| {
            let counts = Counts {
                wanted: app.wanted,
                ..Counts::default()
            };
            (&*app.name, counts, Health::Later)
        });
        let apps = apps.chain(later);
        let stopped = self.plan().into_iter().flat_map(|plan| &plan.stopped);
        let gone = stopped.filter(|name| {
            let app = self.workers.apps.get(name.as_str());
            app.is_none_or(|app| app.is_gone())
        });
        let not_run: Vec<_> = self.schedules.unfit().collect();
        let status = report::status(
            apps,
            gone.map(String::as_str),
            self.schedules.len(),
            &not_run,
        );
        self.init.update(status)
    }

    /// The phase of the master, in one word for the status.
    pub(super) fn phase(&self) -> &'static str {
        match self.stops_at {
            Some(_) => "stopping",
            None => phase(&self.release),
        }
    }

    pub(super) fn status_line(&self) -> String {
        let status = &self.init.status;
        let running = match (self.release.current(), self.is_ending()) {
            (_, true) if self.outcome != Outcome::Stopped => {
                return self.refused.clone().unwrap_or_default();
            }
            (_, true) => return format!("stopping: {status}"),
            (None, _) => return format!("starting: {status}"),
            (Some(generation), _) => format!("generation {generation}: {status}"),
        };
        match &self.refused {
            Some(refused) => format!("{refused}; {running}"),
            None => running,
        }
    }
}

/// The phase of the release.
fn phase(release: &Release) -> &'static str {
    match (release.state(), release.current()) {
        (State::Stopped, _) => "stopping",
        (_, None) => "starting",
        (State::Idle, _) => "ready",
        (State::RollingOut { .. }, _) if release.outcome().is_none() => "starting",
        _ => "reloading",
    }
}
