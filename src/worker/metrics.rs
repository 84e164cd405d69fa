//! What is counted of apps and sites, and its text for Prometheus ([`text()`]).
//!
//! The command `preforkd metrics` has it from the master, and the process that answers `/metrics` from the [`crate::census`] and the scoreboards.

use serde::{Deserialize, Serialize};

use crate::census::{Head, Stage};
use crate::counters::CLASSES;
use crate::scoreboard::{LATENCY_BUCKETS, Snapshot};

pub mod orders;
pub mod processes;
pub mod sites;
mod text;

pub use text::text;

/// Everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// The version of the master.
    pub version: String,
    /// Its phase.
    pub phase: String,
    /// The generation that runs; 0 before the first one.
    pub generation: u64,
    /// Whether requests should be sent here.
    pub is_ready: bool,
    /// The apps.
    pub apps: Vec<App>,
    /// What the front has counted, if there are sites.
    pub front: Option<sites::Front>,
}

impl Metrics {
    /// Those of a master, without its apps.
    pub fn new(version: &str, head: Head) -> Self {
        Self {
            version: version.to_owned(),
            phase: head.phase.name().to_owned(),
            generation: head.generation,
            ..Self::default()
        }
    }
}

/// An app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Its name.
    pub name: String,
    /// The generation that it runs.
    pub generation: u64,
    /// The number of workers that are wanted.
    pub wanted: u64,
    /// Workers by their state, in the order of [`STATES`].
    pub workers: [u64; STATES.len()],
    /// What all its workers have counted, also those that have ended.
    pub sums: Sums,
    /// Threads that run a request.
    pub running: u64,
    /// Open connections.
    pub connections: u64,
    /// Connections that no worker has accepted yet; none if the app has no listener.
    pub queue: Option<u64>,
    /// The memory of its workers in bytes.
    pub memory: Option<u64>,
    /// The processes of its workers.
    pub pids: Vec<u32>,
}

/// The states of workers.
pub const STATES: [&str; 4] = ["starting", "idle", "busy", "leaving"];

impl App {
    /// Adds a worker, with its record as far as it has written one.
    pub fn add(&mut self, pid: u32, stage: Stage, seen: Option<&Snapshot>) {
        let is_busy = seen.is_some_and(|seen| seen.threads_busy > 0);
        let state = match stage {
            Stage::Starting => 0,
            Stage::Ready if !is_busy => 1,
            Stage::Ready => 2,
            Stage::Leaving => 3,
        };
        self.workers[state] += 1;
        self.pids.push(pid);
        if let Some(seen) = seen {
            self.running += seen.threads_busy;
            self.connections += seen.connections;
            self.sums.add(seen);
        }
    }

    /// Adds what the kernel tells about the processes of its workers. Returns false if one of them is not there.
    pub fn add_processes(&mut self) -> bool {
        let mut memory = 0;
        for &pid in &self.pids {
            let Some(used) = processes::of(pid) else {
                return false;
            };
            self.sums.cpu += used.cpu;
            memory += used.memory;
        }
        self.memory = Some(memory);
        true
    }
}

/// Why workers have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The app, or the master, was stopped.
    Stopped,
    /// Another generation has taken over, or its own was given up.
    Replaced,
    /// A fresh one has taken its place.
    Recycled,
    /// Fewer were wanted.
    ScaledDown,
    /// It was in one request, or silent, for too long.
    Hung,
    /// It was not ready in time.
    StartTimeout,
    /// It had not ended in time.
    GracefulTimeout,
    /// It had done its work.
    Finished,
    /// It has exited of itself, with another status than 0.
    Failed,
    /// A signal of somebody else.
    Killed,
    /// The kernel, because memory ran out.
    OutOfMemory,
}

impl Cause {
    /// All of them, by their numbers.
    pub const ALL: [Self; 11] = [
        Self::Stopped,
        Self::Replaced,
        Self::Recycled,
        Self::ScaledDown,
        Self::Hung,
        Self::StartTimeout,
        Self::GracefulTimeout,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::OutOfMemory,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Replaced => "replaced",
            Self::Recycled => "recycled",
            Self::ScaledDown => "scaled_down",
            Self::Hung => "hung",
            Self::StartTimeout => "start_timeout",
            Self::GracefulTimeout => "graceful_timeout",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::OutOfMemory => "out_of_memory",
        }
    }
}

/// What workers have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Answered requests by the class of their status, see [`CLASSES`].
    pub responses: [u64; CLASSES],
    /// Bytes that were written to clients.
    pub bytes: u64,
    /// The time that all requests took together, in microseconds.
    pub time: u64,
    /// Processor time, in microseconds.
    pub cpu: u64,
    /// Requests by the time that they took, see [`crate::scoreboard::bucket`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// Workers that have ended, by their cause.
    pub ends: [u64; Cause::ALL.len()],
}

/// The size of [`Sums`] in words.
pub const SUMS_WORDS: usize = CLASSES + 3 + LATENCY_BUCKETS + Cause::ALL.len();
const _: () = assert!(4 + SUMS_WORDS <= crate::census::APP_WORDS);

impl Sums {
    /// Adds what a worker has counted. A sum that workers have forged does not overflow.
    pub fn add(&mut self, seen: &Snapshot) {
        let to = |sum: &mut u64, number: u64| *sum = sum.saturating_add(number);
        for (sum, number) in self.responses.iter_mut().zip(seen.responses) {
            to(sum, number);
        }
        for (sum, number) in self.latency.iter_mut().zip(seen.latency) {
            to(sum, number);
        }
        to(&mut self.bytes, seen.bytes_out);
        to(&mut self.time, seen.time);
    }

    /// A worker has ended.
    pub fn ended(&mut self, cause: Cause) {
        self.ends[cause as usize] += 1;
    }

    /// As words.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let few = [self.bytes, self.time, self.cpu];
        let words = self.responses.into_iter().chain(few);
        words.chain(self.latency).chain(self.ends)
    }

    /// Decodes them; those that are missing are 0.
    pub fn decode(words: &[u64]) -> Self {
        let mut words = words.iter().copied();
        let mut next = || words.next().unwrap_or_default();
        Self {
            responses: std::array::from_fn(|_| next()),
            bytes: next(),
            time: next(),
            cpu: next(),
            latency: std::array::from_fn(|_| next()),
            ends: std::array::from_fn(|_| next()),
        }
    }

    /// No sum is less than one that was shown before.
    pub fn keep_up_with(&mut self, shown: &Self) {
        let both: Vec<u64> = self
            .words()
            .zip(shown.words())
            .map(|(now, then)| now.max(then))
            .collect();
        *self = Self::decode(&both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_never_go_down_and_survive_their_form_as_words() {
        let mut shown = Sums::default();
        shown.ended(Cause::OutOfMemory);
        (shown.time, shown.responses[2]) = (7, 9);
        let words: Vec<u64> = shown.words().collect();
        assert_eq!(words.len(), SUMS_WORDS);
        assert_eq!(Sums::decode(&words), shown);
        let mut now = Sums {
            time: 8,
            ..Sums::default()
        };
        now.keep_up_with(&shown);
        assert_eq!((now.time, now.responses[2]), (8, 9));
        assert_eq!(now.ends, shown.ends);
    }

    #[test]
    fn causes_have_their_numbers_and_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = Cause::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        for (number, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
        }
    }

    #[test]
    fn this_process_has_used_something_and_one_that_is_gone_is_missing() {
        let mut app = App::default();
        app.add(std::process::id(), Stage::Ready, None);
        assert!(app.add_processes());
        assert!(app.memory.is_some_and(|bytes| bytes > 100_000));
        assert_eq!(app.workers, [0, 1, 0, 0]);
        app.add(u32::MAX, Stage::Starting, None);
        assert!(!app.add_processes());
    }
}
