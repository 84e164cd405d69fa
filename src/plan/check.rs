//! `check`: the request that the first worker of a new generation has to answer.

use std::time::Duration;

use super::Draft;
use crate::config::Place;

/// The name of the listener over which a worker of a `command` is checked; it comes after the others.
pub const CHECK_LISTENER: &str = "check";

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Path and query.
    pub path: String,
    /// The Host field.
    pub host: String,
    /// The status that is as it should be.
    pub expect: u16,
    /// The time of an attempt.
    pub timeout: Duration,
    /// How many attempts.
    pub attempts: u32,
}

impl Draft<'_> {
    pub(super) fn check(&self) -> Result<Option<Check>, Place> {
        let reload = self.written.reload.as_ref();
        let Some(written) = reload.and_then(|reload| reload.check.as_ref()) else {
            return Ok(None);
        };
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let path = written.path.get_ref();
        if !(path.starts_with('/') && visible(path)) {
            let message =
                format!("check: path must begin with \"/\" and have no spaces, not {path:?}");
            return Err(Place::at(written.path.span(), message));
        }
        let host = match &written.host {
            None => "localhost",
            Some(host) if visible(host.get_ref()) && !host.get_ref().is_empty() => host.get_ref(),
            Some(host) => {
                let message = format!("check: {:?} is no host name", host.get_ref());
                return Err(Place::at(host.span(), message));
            }
        };
        let expect = written.expect.as_ref();
        if let Some(expect) = expect.filter(|expect| !(200..600).contains(expect.get_ref())) {
            let message = "check: expect must be a status between 200 and 599";
            return Err(Place::at(expect.span(), message));
        }
        let attempts = written.attempts.as_ref();
        if let Some(attempts) = attempts.filter(|attempts| *attempts.get_ref() == 0) {
            return Err(Place::at(
                attempts.span(),
                "check: attempts must be 1 or more",
            ));
        }
        Ok(Some(Check {
            path: path.clone(),
            host: host.to_owned(),
            expect: expect.map_or(200, |expect| *expect.get_ref()),
            timeout: written
                .timeout
                .map_or(Duration::from_secs(5), |time| time.0),
            attempts: attempts.map_or(3, |attempts| *attempts.get_ref()),
        }))
    }
}
