//! By which rules an app's workers are started, replaced and given up.

use std::time::Duration;

use super::{Draft, Hang};
use crate::config::{Key, Place, Then, Workers};
use crate::supervisor::{GiveUp, Policy, Range, Readiness};

impl Draft<'_> {
    pub(super) fn policy(&self, readiness: Readiness, check: bool) -> Result<Policy, Place> {
        let workers = match self.written.workers {
            None => 1,
            Some(Workers::Number(number)) => number,
            Some(Workers::Auto) => self.host.cpus(),
            Some(Workers::Range(range)) => range.min.max(1),
        };
        let time = |written: Option<crate::config::Time>, seconds| {
            written.map_or(Duration::from_secs(seconds), |t| t.0)
        };
        Ok(Policy {
            workers,
            range: self.range()?,
            readiness,
            announces_end: self.written.wsgi.is_some(),
            start_timeout: time(self.written.start_timeout, 60),
            graceful_timeout: time(self.written.graceful_timeout, 30),
            abort_grace: time(self.written.abort_grace, 2),
            give_up: self.give_up()?,
            check,
            max_draining: match &self.written.reload {
                Some(reload) => at_least_one(&reload.max_draining, "max_draining")?,
                None => None,
            }
            .unwrap_or(4),
            soak: self
                .written
                .reload
                .as_ref()
                .and_then(|r| r.soak)
                .map_or(Duration::ZERO, |soak| soak.0),
            surge: match &self.written.reload {
                Some(reload) => at_least_one(&reload.surge, "surge")?,
                None => None,
            },
            backoff: Default::default(),
        })
    }

    fn range(&self) -> Result<Option<Range>, Place> {
        let Some(Workers::Range(written)) = self.written.workers else {
            return Ok(None);
        };
        if self.written.listen.is_empty() {
            let message = "workers: what listens nowhere has no load that its number could follow";
            return Err(self.wrong(message));
        }
        let idle_timeout = written.idle_timeout.map(|time| time.0);
        Ok(Some(Range {
            min: written.min,
            max: written.max,
            spare: written.spare.unwrap_or(1),
            idle_timeout: idle_timeout.unwrap_or(Duration::from_secs(60)),
        }))
    }

    fn give_up(&self) -> Result<Option<GiveUp>, Place> {
        let Some(written) = &self.written.give_up else {
            return Ok(None);
        };
        if *written.crashes.get_ref() == 0 {
            return Err(Place::at(
                written.crashes.span(),
                "give_up: crashes must be 1 or more",
            ));
        }
        Ok(Some(GiveUp {
            crashes: *written.crashes.get_ref(),
            within: written.within.0,
            exit: written.then == Some(Then::Exit),
        }))
    }

    pub(super) fn hang(&self) -> Result<Hang, Place> {
        let is_wsgi = self.written.wsgi.is_some();
        match (&self.written.timeout, &self.written.watchdog) {
            (Some(key), _) if !is_wsgi => {
                let message = "`timeout` is for apps with `wsgi`, whose requests the master can see; a `command` that sends WATCHDOG=1 has `watchdog`";
                Err(Place::at(key.span(), message))
            }
            (_, Some(key)) if is_wsgi => {
                let message = "`watchdog` is for apps with `command`; a WSGI worker has `timeout`";
                Err(Place::at(key.span(), message))
            }
            (_, Some(time)) => Ok(Hang::Silence(time.get_ref().0)),
            (Some(time), _) => Ok(Hang::Request(time.get_ref().0)),
            (None, None) if is_wsgi => Ok(Hang::Request(Duration::from_secs(30))),
            (None, None) => Ok(Hang::Unseen),
        }
    }
}

/// A number that is written, if it is not 0.
pub(super) fn at_least_one(key: &Key<u32>, name: &str) -> Result<Option<u32>, Place> {
    let Some(key) = key else { return Ok(None) };
    match *key.get_ref() {
        0 => Err(Place::at(key.span(), format!("{name} must be 1 or more"))),
        number => Ok(Some(number)),
    }
}
