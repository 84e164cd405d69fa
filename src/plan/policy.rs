//! How an app's workers are started, replaced and given up.

use std::time::Duration;

use super::{Draft, Hang};
use crate::config::{self, Place, Then, Workers};
use crate::supervisor::{GiveUp, Policy, Range, Readiness, Replace, Restart};

impl Draft<'_> {
    pub(super) fn policy(
        &self,
        readiness: Readiness,
        check: bool,
        has_listener: bool,
        notices: &mut Vec<String>,
    ) -> Result<Policy, Place> {
        let (app, reload) = (self.written, &self.written.reload);
        let from_platform = self.concurrency(notices)?.map(Workers::Number);
        let workers = match from_platform.as_ref().unwrap_or(&app.workers) {
            Workers::Number(number) => *number,
            Workers::Auto => self.cpus(),
            Workers::Range(range) => range.min.0.max(1),
        };
        let range = self.range(has_listener)?;
        let readiness = self.proof(readiness, workers)?;
        Ok(Policy {
            workers,
            range,
            readiness,
            restart: self.restart()?,
            replace: match *app.replace {
                config::Replace::StartFirst => Replace::StartFirst,
                config::Replace::StopFirst => Replace::StopFirst,
            },
            announces_end: app.wsgi.is_some(),
            ends_quiet: false,
            start_timeout: app.start_timeout.0,
            graceful_timeout: app.graceful_timeout.0,
            abort_grace: app.abort_grace.0,
            give_up: app.give_up.as_ref().map(|give_up| GiveUp {
                crashes: give_up.crashes.0,
                within: give_up.within.0,
                exit: *give_up.then == Then::Exit,
            }),
            check,
            max_draining: reload.max_draining.0,
            soak: reload.soak.as_ref().map_or(Duration::ZERO, |soak| soak.0),
            surge: reload.surge.as_ref().map(|surge| surge.0),
            backoff: Default::default(),
        })
    }

    /// When the first worker has proven its generation: that of a task by finishing.
    fn proof(&self, readiness: Readiness, workers: u32) -> Result<Readiness, Place> {
        let app = self.written;
        let Some(place) = app.run_before.iter().map(|name| name.span()).next() else {
            return Ok(readiness);
        };
        let wrong = |message: &str| Err(Place::at(place, format!("run_before: {message}")));
        if !*app.required {
            return Err(app.required.wrong(
                "required = false does not go with run_before: the others wait for the task (remove one)",
            ));
        }
        if !*app.enabled {
            return Err(app.enabled.wrong(
                "enabled = false does not go with run_before: the others wait for the task (remove one)",
            ));
        }
        if *app.restart == config::Restart::Always {
            return wrong(
                "only a program that ends can come before others (add restart = \"never\" or \"on-failure\")",
            );
        }
        if let Some(ready) = &app.ready {
            return Err(ready.wrong(
                "`ready` does not go with run_before: the others wait until it has finished (remove it)",
            ));
        }
        if workers != 1 {
            return wrong("an app that others wait for has one worker (remove `workers`)");
        }
        Ok(Readiness::Finished)
    }

    /// When a worker that has ended of itself is replaced.
    fn restart(&self) -> Result<Restart, Place> {
        let app = self.written;
        let restart = match *app.restart {
            config::Restart::Always => return Ok(Restart::Always),
            config::Restart::OnFailure => return Ok(Restart::OnFailure),
            config::Restart::Never => Restart::Never,
        };
        let replaced =
            "does not go with restart = \"never\", as it starts another worker (remove one)";
        if let Some(age) = &app.max_age {
            return Err(age.wrong(format!("max_age {replaced}")));
        }
        if let Some(size) = &app.max_memory {
            return Err(size.wrong(format!("max_memory {replaced}")));
        }
        match *app.workers {
            Workers::Range(_) => Err(app.workers.wrong(
                "workers: a number that follows the load does not go with restart = \"never\" (write a number)",
            )),
            _ => Ok(restart),
        }
    }

    fn range(&self, has_listener: bool) -> Result<Option<Range>, Place> {
        let Workers::Range(written) = &*self.written.workers else {
            return Ok(None);
        };
        if !has_listener {
            let message = "workers: the number can follow the load only of an app with a listener (add `listen`, or write a number)";
            return Err(self.written.workers.wrong(message));
        }
        Ok(Some(Range {
            min: written.min.0,
            max: written.max.0,
            spare: written.spare.0,
            idle_timeout: written.idle_timeout.0,
        }))
    }

    pub(super) fn hang(&self) -> Hang {
        match (&self.written.wsgi, &self.written.watchdog) {
            (Some(_), _) => Hang::Request(self.written.timeout.0),
            (None, Some(time)) => Hang::Silence(time.0),
            (None, None) => Hang::Unseen,
        }
    }
}
