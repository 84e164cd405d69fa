//! `check`: the request that the first worker of a new generation must answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Draft;
use crate::config::{Address, Place};

/// The name of the private listener for checking a worker of a `command`; it comes after the others.
pub const CHECK_LISTENER: &str = "check";

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Path and query.
    pub path: String,
    /// The Host field.
    pub host: String,
    /// The expected status.
    pub expect: u16,
    /// The time limit of an attempt.
    pub timeout: Duration,
    /// The number of attempts.
    pub attempts: u32,
    /// The time between checks of workers that serve.
    pub every: Option<Duration>,
    /// The number of those that must fail in a row.
    pub failures: u32,
}

impl Draft<'_> {
    /// Why no check can reach the workers while they serve.
    fn never_answers(&self) -> Option<&'static str> {
        let at = |address: &Address| !matches!(address, Address::Inherited(_));
        let mut listeners = self.written.listen.iter();
        let addressed = listeners.any(|entry| at(&entry.get_ref().0.address));
        let own = self.written.command.is_some() && self.written.listen.is_empty();
        match (addressed || own, *self.written.proxy_protocol) {
            (_, true) => {
                Some("with `proxy_protocol` the workers would refuse the request (remove it)")
            }
            (false, false) => {
                Some("no listener has an address to ask at (write one instead of \"fd:NAME\")")
            }
            (true, false) => None,
        }
    }

    pub(super) fn check(&self) -> Result<Option<Check>, Place> {
        let Some(written) = &self.written.reload.check else {
            return Ok(None);
        };
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let (path, host) = (&written.path, &written.host);
        if !(path.starts_with('/') && visible(path)) {
            return Err(path.wrong(format!(
                "reload.check.path: must begin with \"/\" and consist of visible ASCII characters, not {:?} (encode others as %XX)",
                **path
            )));
        }
        if host.is_empty() || !visible(host) {
            return Err(host.wrong(format!(
                "reload.check.host: {:?} is not a host name (write for example \"www.example.com\")",
                **host
            )));
        }
        let every = &written.every;
        if let Some(every) = every
            && let Some(why) = self.never_answers()
        {
            return Err(every.wrong(format!("reload.check.every: {why}")));
        }
        Ok(Some(Check {
            every: every.as_ref().map(|every| every.0),
            failures: written.failures.0,
            path: path.to_string(),
            host: host.to_string(),
            expect: written.expect.0 as u16,
            timeout: written.timeout.0,
            attempts: written.attempts.0,
        }))
    }
}
