//! The settings of a WSGI worker, as the master sends them (preforkd-worker(7), "PREFORKD_WSGI").

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
        use std::hash::{BuildHasher, RandomState};
        // A fork inherits the thread's keys if the template has used them, so it is the process id that tells workers apart.
        let chance = RandomState::new().hash_one(std::process::id());
        let most = self.max_requests?;
        Some(most.saturating_add(chance % self.max_requests_jitter.saturating_add(1)))
    }

    /// Seconds after SIGTERM until the worker ends itself, should nobody be there to kill it: a little more than the master waits.
    pub fn last_resort(&self) -> u32 {
        (self.graceful_timeout.ceil() as u32).saturating_add(1)
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}
