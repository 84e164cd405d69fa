//! `app.toml` as written: its tables, keys, units and defaults. Whether it fits this host is [`crate::plan`]'s
//! to say. Every error names the line and shows the place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

mod diagnostic;
mod listen;
#[cfg(test)]
mod tests;
mod units;
mod value;

pub use diagnostic::{Diagnostic, Place};
pub use listen::{Address, Listen};
pub use units::{Size, Time};
pub use value::{Mode, Ready, Workers};

/// A key that may be absent, with its place in the file.
pub type Key<T> = Option<Spanned<T>>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What concerns the master itself.
    #[serde(default)]
    pub master: Master,
    /// The apps by name.
    #[serde(default)]
    pub app: BTreeMap<Spanned<String>, App>,
}

/// `[master]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Master {
    /// Where the master writes its process id.
    pub pid_file: Option<PathBuf>,
    /// Where the master can be asked and told things.
    pub control: Option<PathBuf>,
}

/// `[app.NAME]`: a pool of like workers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// `module:callable` of a WSGI application.
    pub wsgi: Key<String>,
    /// Any program with its arguments.
    pub command: Key<Vec<String>>,

    /// The sockets that all workers share.
    #[serde(default)]
    pub listen: Vec<Spanned<Listen>>,
    /// The length of each accept queue.
    pub backlog: Key<u32>,
    /// How many workers.
    pub workers: Option<Workers>,

    /// The working directory of the workers.
    pub chdir: Key<PathBuf>,
    /// The user that the workers run as.
    pub user: Key<String>,
    /// The group that the workers run as.
    pub group: Key<String>,
    /// The file mode creation mask of the workers.
    pub umask: Option<Mode>,
    /// Variables that are added to the workers' environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,

    /// The file that standard output goes to.
    pub stdout: Key<PathBuf>,
    /// The file that standard error goes to.
    pub stderr: Key<PathBuf>,
    /// The file with a line for each request (`wsgi`).
    pub access_log: Key<PathBuf>,

    /// When a worker of a `command` app counts as ready.
    pub ready: Key<Ready>,
    /// A worker that is not ready in this time has failed.
    pub start_timeout: Option<Time>,
    /// The time that a worker has to finish what it serves.
    pub graceful_timeout: Option<Time>,
    /// The time between ABRT and KILL.
    pub abort_grace: Option<Time>,
    /// A worker in one request for longer hangs (`wsgi`).
    pub timeout: Key<Time>,
    /// A worker that is silent for longer hangs (`command`).
    pub watchdog: Key<Time>,

    /// When the app is given up.
    pub give_up: Option<GiveUp>,
    /// How a reload goes.
    pub reload: Option<Reload>,

    /// A worker that is older makes room for a fresh one.
    pub max_age: Option<Time>,
    /// A worker that is larger makes room for a fresh one.
    pub max_memory: Option<Size>,

    // The rest is for `wsgi` only.
    /// The Python interpreter.
    pub python: Key<PathBuf>,
    /// Threads that call the application, per worker.
    pub threads: Key<u32>,
    /// Import the application once and fork the workers from there.
    pub preload: Key<bool>,
    /// URL prefixes that are served from folders.
    #[serde(rename = "static")]
    pub static_files: Key<BTreeMap<String, Spanned<PathBuf>>>,
    /// A worker that has answered so many requests makes room for a fresh one.
    pub max_requests: Key<u32>,
    /// At most so many requests more, by chance, so that not all workers come to it together.
    pub max_requests_jitter: Key<u32>,
    /// The longest request line and header section.
    pub max_head: Key<Size>,
    /// The most header lines of a request.
    pub max_headers: Key<u32>,
    /// The largest request body.
    pub max_body: Key<Size>,
    /// A larger request body goes to a temporary file.
    pub body_in_memory: Key<Size>,
    /// The time for a whole request head.
    pub header_timeout: Key<Time>,
    /// The time between two pieces of a request body.
    pub body_timeout: Key<Time>,
    /// The time without any progress of a response.
    pub write_timeout: Key<Time>,
    /// The time that an idle connection is kept.
    pub keepalive_timeout: Key<Time>,
    /// The most connections of one worker.
    pub max_connections: Key<u32>,
}

/// `workers`: how many at least and at most, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// So many are to be idle while others are busy.
    pub spare: Option<u32>,
    /// A worker that was not needed for so long goes.
    pub idle_timeout: Option<Time>,
}

/// `give_up`: when an app is given up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// After so many failures...
    pub crashes: Spanned<u32>,
    /// ...in such a time.
    pub within: Time,
    /// What happens then: "degrade" or "exit".
    pub then: Option<Then>,
}

/// What happens when an app is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// What runs is kept.
    Degrade,
    /// The master ends.
    Exit,
}

/// `[app.NAME.reload]`: how a reload goes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// A command that must succeed before anything is started.
    pub before: Key<Vec<String>>,
    /// The first new worker must live so long.
    pub soak: Option<Time>,
    /// The first new worker must answer this request.
    pub check: Option<Check>,
    /// So many older generations may still drain.
    pub max_draining: Key<u32>,
    /// As many new workers at a time.
    pub surge: Key<u32>,
}

/// `check`: a request and its answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Path and query.
    pub path: Spanned<String>,
    /// The Host field.
    pub host: Key<String>,
    /// The status of the answer.
    pub expect: Key<u16>,
    /// The time of an attempt.
    pub timeout: Option<Time>,
    /// How many attempts.
    pub attempts: Key<u32>,
}

impl Config {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place; an unknown key comes with the nearest known one.
    pub fn parse(text: &str) -> Result<Self, Place> {
        toml::from_str(text).map_err(|error| diagnostic::explain(&error))
    }
}
