//! The requests at a worker that serves one at a time, and how many of them may be sent to it ahead.
//!
//! A worker that gets its next request only when the front has its last response sleeps in between, and so does the front: for a quick
//! request that costs more than the request. So a worker that has been quick of late is sent more than it can begin. What it has not begun can
//! be taken back, and is when the request before it takes long.

use std::collections::VecDeque;

use super::{Instant, NEVER, Waiting};

/// How long a request may be served before those behind it are taken back, in nanoseconds.
pub const PATIENCE: Instant = 2_000_000;
/// How long what was sent ahead may wait, by the mean of the worker's times, in nanoseconds.
const BUDGET: Instant = 1_000_000;
/// The most requests that are sent ahead to one worker.
const MOST: u64 = 24;
/// Requests that must have been served quickly before any is sent ahead, and how many of them one that was not takes back.
const CALM: u32 = 16;
/// At most so many count. So a single slow one among many does not stop it: on a busy machine any may be, whose worker did not get the processor.
const MOST_CALM: u32 = 2 * CALM;
/// Requests that the mean goes back to, more or less.
const MEMORY: Instant = 16;

/// The requests that were sent to a worker, in this order; the first is the one that it serves, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Line {
    sent: VecDeque<Waiting>,
    /// Since when the first one has been the first.
    since: Instant,
    /// When to look whether they are stuck.
    look: Instant,
    /// Requests that were served quickly, less [`CALM`] for each that was not.
    calm: u32,
    /// What they have taken of late.
    mean: Instant,
}

impl Line {
    /// A request is sent.
    pub fn push(&mut self, request: Waiting, now: Instant) {
        if self.sent.is_empty() {
            self.begin(now);
        }
        self.sent.push_back(request);
    }

    fn begin(&mut self, now: Instant) {
        self.since = now;
        self.look = now + PATIENCE;
    }

    /// A request is over. `served`: by the worker, which then begins the next one.
    pub fn ended(&mut self, request: super::Ticket, served: bool, now: Instant) {
        self.sent.retain(|sent| sent.ticket != request);
        if served {
            let took = now.saturating_sub(self.since).min(PATIENCE);
            self.calm = match took {
                PATIENCE => self.calm.saturating_sub(CALM),
                _ => (self.calm + 1).min(MOST_CALM),
            };
            self.mean = (self.mean * (MEMORY - 1) + took) / MEMORY;
            self.begin(now);
        }
    }

    /// Those that wait behind the first.
    pub fn ahead(&self) -> usize {
        self.sent.len().saturating_sub(1)
    }

    /// Whether one more may be sent ahead.
    pub fn has_room(&self, now: Instant) -> bool {
        let is_quick = self.calm >= CALM && now.saturating_sub(self.since) < PATIENCE;
        is_quick && (self.ahead() as u64) < (BUDGET / self.mean.max(1)).min(MOST)
    }

    /// When the first has been served for so long that what waits behind it should go elsewhere.
    pub fn deadline(&self) -> Instant {
        match self.sent.is_empty() {
            true => NEVER,
            false => self.look,
        }
    }

    /// The requests in it.
    pub fn tickets(&self) -> Vec<super::Ticket> {
        self.sent.iter().map(|sent| sent.ticket).collect()
    }

    /// When to look again.
    pub fn look_at(&mut self, at: Instant) {
        self.look = at;
    }

    /// Takes a request out that the worker has not begun.
    pub fn take(&mut self, ticket: super::Ticket) -> Option<Waiting> {
        let at = self.sent.iter().position(|sent| sent.ticket == ticket)?;
        self.sent.remove(at)
    }
}
