//! `check`: what the first worker of a new generation must pass, and again while workers serve.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Draft, Launch};
use crate::config::{Address, Check as Written, Place, Value};

/// The name of the private listener for checking a worker of a `command`; it comes after the others.
pub const CHECK_LISTENER: &str = "check";

/// A check, and when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked.
    pub ask: Ask,
    /// Whether the first worker of a generation is asked over a listener of its own.
    pub private: bool,
    /// The time limit of an attempt.
    pub timeout: Duration,
    /// The number of attempts.
    pub attempts: u32,
    /// The time between checks of workers that serve.
    pub every: Option<Duration>,
    /// The number of those that must fail in a row.
    pub failures: u32,
}

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The answer to a request.
    Page {
        /// Path and query.
        path: String,
        /// The Host field.
        host: String,
        /// The expected status.
        expect: u16,
    },
    /// A connection to the address that the worker has of its own.
    Connection,
    /// The exit status of a program that runs like the workers.
    Command(Launch),
}

impl Draft<'_> {
    /// Whether the workers of a program get a listener for the check.
    pub(super) fn has_check_listener(&self, has_address: bool) -> bool {
        let check = self.written.reload.check.as_ref();
        !has_address && check.is_some_and(|check| check.path.is_some())
    }

    /// Why no request can reach the workers while they serve.
    fn never_answers(&self, has_address: bool) -> Option<&'static str> {
        let at = |address: &Address| !matches!(address, Address::Inherited(_));
        let mut listeners = self.written.listen.iter();
        let addressed = listeners.any(|entry| at(&entry.get_ref().0.address));
        match (addressed || has_address, *self.written.proxy_protocol) {
            (_, true) => {
                Some("with `proxy_protocol` the workers would refuse the request (remove it)")
            }
            (false, false) => Some(match self.written.listen.is_empty() {
                true => "the app has no address to ask at (write `command` instead of `path`)",
                false => "no listener has an address to ask at (write one instead of \"fd:NAME\")",
            }),
            (true, false) => None,
        }
    }

    /// `launch` is how the workers are started.
    pub(super) fn check(&self, launch: &Launch, has_address: bool) -> Result<Option<Check>, Place> {
        let Some(check) = &self.written.reload.check else {
            return Ok(None);
        };
        if check.path.is_none() {
            let mut written = check.written();
            let of_requests = written.find(|(key, _)| ["host", "expect"].contains(&key.name));
            if let Some((key, place)) = of_requests {
                let message = format!(
                    "reload.check.{}: it belongs to a request (add `path`, or remove it)",
                    key.name
                );
                return Err(Place::at(place, message));
            }
        }
        if let Some(place) = check.failures.place()
            && check.every.is_none()
        {
            return Err(Place::at(
                place,
                "reload.check.failures: it counts repeated checks (add `every`, or remove it)",
            ));
        }
        let ask = match (&check.path, &check.command) {
            (Some(_), Some(command)) => {
                return Err(command.wrong(
                    "reload.check.command: a check is either a request or a program (remove `path` or `command`)",
                ));
            }
            (Some(path), None) => page(check, path)?,
            (None, Some(command)) => {
                let mut launch = self.step(launch);
                launch.args = command.to_vec();
                launch.program = self.find(command, "reload.check.command", &launch)?;
                launch.reach_program();
                if !has_address {
                    launch.without_address();
                }
                Ask::Command(launch)
            }
            (None, None) if has_address => Ask::Connection,
            (None, None) => {
                return Err(check.wrong(
                    "reload.check: a connection to a listener of the master always succeeds (add `path` for a request, or `command`)",
                ));
            }
        };
        let every = &check.every;
        if let Some(every) = every
            && matches!(ask, Ask::Page { .. })
            && let Some(why) = self.never_answers(has_address)
        {
            return Err(every.wrong(format!("reload.check.every: {why}")));
        }
        Ok(Some(Check {
            private: !has_address && matches!(ask, Ask::Page { .. }),
            ask,
            every: every.as_ref().map(|every| every.0),
            failures: check.failures.0,
            timeout: check.timeout.0,
            attempts: check.attempts.0,
        }))
    }
}

fn page(check: &Written, path: &Value<String>) -> Result<Ask, Place> {
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let host = &check.host;
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
    Ok(Ask::Page {
        path: path.to_string(),
        host: host.to_string(),
        expect: check.expect.0 as u16,
    })
}
