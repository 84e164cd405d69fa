//! The settings of a WSGI worker, as the master sends them (preforkd-worker(7), "PREFORKD_WSGI").

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use preforkd_http::Limits;
use serde::Deserialize;

/// Times are in seconds, sizes in bytes.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Settings {
    /// `module:attribute`.
    pub application: String,
    pub threads: usize,
    /// URL prefixes and the folders they stand for.
    #[serde(default)]
    pub r#static: BTreeMap<String, PathBuf>,
    /// After so many requests the worker asks to be replaced.
    max_requests: Option<u64>,
    #[serde(default)]
    max_requests_jitter: u64,
    pub max_body: u64,
    pub max_head: usize,
    pub max_headers: usize,
    pub body_in_memory: usize,
    header_timeout: f64,
    body_timeout: f64,
    write_timeout: f64,
    keepalive_timeout: f64,
    graceful_timeout: f64,
    pub max_connections: usize,
}

impl Settings {
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    pub fn limits(&self) -> Limits {
        Limits {
            max_head: self.max_head,
            max_fields: self.max_headers,
            max_body: self.max_body,
            body_in_memory: self.body_in_memory,
            max_connections: self.max_connections.max(1),
            header_timeout: duration(self.header_timeout),
            body_timeout: duration(self.body_timeout),
            write_timeout: duration(self.write_timeout),
            keepalive_timeout: duration(self.keepalive_timeout),
        }
    }

    /// After how many requests this worker asks to be replaced, by chance between `max_requests` and
    /// `max_requests_jitter` more.
    pub fn lifetime(&self) -> Option<u64> {
        let most = self.max_requests?;
        // A fork inherits the state of every generator, so each worker seeds one of its own: the process id tells
        // workers of one instant apart, the time those of one process id.
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.map_or(0, |time| time.as_nanos() as u64);
        let mut random =
            fastrand::Rng::with_seed(time ^ u64::from(std::process::id()).rotate_left(32));
        Some(most.saturating_add(random.u64(0..=self.max_requests_jitter)))
    }

    /// Seconds after SIGTERM until the worker ends itself, should nobody be there to kill it: a little more than the master waits.
    pub fn last_resort(&self) -> u32 {
        (self.graceful_timeout.ceil() as u32).saturating_add(1)
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}
