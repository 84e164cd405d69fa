//! What an upstream is.

use std::time::Duration;

use preforkd_worker::front::Upstream;

use super::dispatch::Limits;
use super::health::Policy;
use super::protocol::Protocol;

/// How one upstream is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What log lines call it, such as `app=web`.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The master starts what answers there, and tells when nothing does.
    pub is_ours: bool,
    /// The master tells which addresses there are.
    pub is_told: bool,
    /// How many requests run and wait, and when an address is left alone.
    pub limits: Limits,
    /// For a connection to come about.
    pub connect_timeout: Duration,
    /// From when the request was sent to the head of the response.
    pub head_timeout: Duration,
    /// Between two pieces of the request that the upstream takes, or of the response that it sends.
    pub silence_timeout: Duration,
    /// How long a connection may be silent, in both directions, that speaks another protocol after an upgrade.
    pub upgraded_timeout: Duration,
    /// How long a connection is kept that serves no request. The upstream should keep it for longer.
    pub keep: Duration,
    /// Connections to each address that are kept so.
    pub most_kept: usize,
}

impl Settings {
    /// The defaults for an upstream of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            protocol: Protocol::Http,
            is_ours: false,
            is_told: false,
            limits: Limits {
                most_running: usize::MAX,
                queue_length: 1000,
                queue_timeout: Duration::from_secs(10),
                health: Policy {
                    max_fails: 3,
                    within: Duration::from_secs(10),
                    pause: Duration::from_secs(10),
                },
                ahead: false,
            },
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(60),
            silence_timeout: Duration::from_secs(60),
            upgraded_timeout: Duration::from_secs(3600),
            keep: Duration::from_secs(4),
            most_kept: 32,
        }
    }

    /// As the master says.
    pub fn of(name: impl Into<String>, upstream: &Upstream) -> Self {
        let default = Self::new(name);
        Self {
            is_told: upstream.is_told,
            limits: Limits {
                queue_length: upstream.queue_length as usize,
                queue_timeout: upstream.queue_timeout,
                health: Policy {
                    max_fails: upstream.max_fails,
                    within: upstream.fail_timeout,
                    pause: upstream.fail_timeout,
                },
                // Where one request runs at a time, that is a worker of ours.
                ahead: upstream.is_told,
                ..default.limits
            },
            connect_timeout: upstream.connect_timeout,
            head_timeout: upstream.response_timeout,
            silence_timeout: upstream.idle_timeout,
            ..default
        }
    }
}
