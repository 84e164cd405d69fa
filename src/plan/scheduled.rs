//! `schedule`: a program that is run at certain times, instead of all the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{App, Draft};
use crate::config::{Key, Place, Schedule, Workers};
use crate::schedule::{Times, Zone};

/// The keys of an app that has a schedule.
const KEYS: [&str; 28] = [
    "command",
    "enabled",
    "required",
    "schedule",
    "chdir",
    "user",
    "group",
    "groups",
    "umask",
    "env",
    "env_file",
    "secrets",
    "env_clear",
    "no_new_privs",
    "capabilities",
    "limits",
    "oom_score_adj",
    "nice",
    "cpu_affinity",
    "landlock",
    "stdout",
    "stderr",
    "prefix_output",
    "log_mode",
    "log_owner",
    "log_group",
    "log_rotate",
    "graceful_timeout",
];

/// An app whose program is run at certain times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// How a run is started, and how long it may take to end when it is told to.
    pub app: App,
    /// The cron expression.
    pub cron: String,
    /// The time zone of the expression.
    pub zone: Zone,
    /// How long a run may take.
    pub timeout: Option<Duration>,
}

impl Scheduled {
    /// Its times.
    ///
    /// # Errors
    /// None for a plan that was checked.
    pub fn times(&self) -> Result<Times, String> {
        Times::new(&self.cron, &self.zone)
    }
}

impl Draft<'_> {
    /// An app with this schedule.
    pub(super) fn scheduled(&self, written: &Schedule) -> Result<Scheduled, Place> {
        if self.written.command.is_some() {
            self.refuse_keys_of_workers()?;
        }
        let app = self.app(&mut Vec::new())?;
        if app.own_address.is_some() {
            let message = "`command` or `env` has {port} or {address}, which have no meaning with `schedule`: a run accepts no connections (remove them)";
            return Err(self.wrong(message));
        }
        let name = written.timezone.as_ref();
        let zone = self.host.time_zone(name.map(|name| name.as_str()));
        let wrong = |message: String| {
            match name {
            Some(name) => name.wrong(format!("schedule.timezone: {message}")),
            None => self.wrong(format!(
                "schedule: {message} (write it as schedule = {{ cron = \"{}\", timezone = \"Europe/Berlin\" }})",
                written.cron.0
            )),
        }
        };
        let scheduled = Scheduled {
            app,
            cron: written.cron.0.clone(),
            zone: zone.map_err(wrong)?,
            timeout: written.timeout.as_ref().map(|time| time.0),
        };
        scheduled.times().map_err(wrong)?;
        Ok(scheduled)
    }

    /// A run is no worker: refuses what has a meaning for workers only.
    fn refuse_keys_of_workers(&self) -> Result<(), Place> {
        let is_one = matches!(*self.written.workers, Workers::Number(1));
        let has_meaning = |key: &Key| KEYS.contains(&key.name) || key.name == "workers" && is_one;
        let mut written = self.written.written();
        let Some((key, place)) = written.find(|(key, _)| !has_meaning(key)) else {
            return Ok(());
        };
        let (why, advice) = match key.name {
            "wsgi" => return Ok(()),
            "workers" => ("there is one run at a time", "remove it"),
            "listen" | "backlog" | "stdin" | "addresses" => {
                ("a run accepts no connections", "remove it")
            }
            "timeout" | "max_age" => (
                "a run may take as long as the table `schedule` says",
                "write schedule = { cron = \"…\", timeout = \"…\" }",
            ),
            "ready" | "start_timeout" | "watchdog" => ("a run need not become ready", "remove it"),
            _ => ("it is for workers, and a run is none", "remove it"),
        };
        let name = key.name;
        let message = format!("`{name}` has no meaning with `schedule`: {why} ({advice})");
        Err(Place::at(place, message))
    }
}
