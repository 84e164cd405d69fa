//! When a worker that died may be replaced.
//!
//! A worker that had stayed up is replaced at once, however many die together: that is an accident. A worker
//! that dies young (before it was ready, or soon after) is a failure: the first is replaced at once, further
//! ones wait, twice as long each time, one instant for the whole app and one worker at a time, until one
//! stays up. So a crash loop costs next to nothing, whatever the number of workers.
//!
//! That the system makes no process is nobody's failure: it is tried again at least once a second, and when one
//! worker is ready, there is no reason to hold back the others.

use std::time::{Duration, Instant};

/// How crashes hold back replacements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A worker that was ready for so long has stayed up.
    pub stayed_up: Duration,
    /// The wait after the second failure in a row; doubled by each further one.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// The longest wait after the system has refused to make a process.
    pub most_refused: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stayed_up: Duration::from_secs(1),
            first: Duration::from_millis(50),
            most: Duration::from_secs(30),
            most_refused: Duration::from_secs(1),
        }
    }
}

/// The failures of one app so far.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    /// The last failure was the system's, which made no process.
    refused: bool,
    last_failure: Option<Instant>,
    not_before: Option<Instant>,
    random: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            refused: false,
            last_failure: None,
            not_before: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A worker ended that nobody had told to; says whether that was a failure.
    pub(super) fn note_end(
        &mut self,
        ready_at: Option<Instant>,
        now: Instant,
        policy: &Policy,
    ) -> bool {
        let stayed_up =
            ready_at.is_some_and(|at| now.saturating_duration_since(at) >= policy.stayed_up);
        // Workers that end in one instant (their template died) are one failure.
        if stayed_up || self.last_failure == Some(now) {
            return false;
        }
        self.refused = false;
        self.count(now, policy);
        true
    }

    /// The system has made no process for a worker.
    pub(super) fn note_refusal(&mut self, now: Instant, policy: &Policy) {
        self.refused = true;
        self.count(now, policy);
    }

    /// A worker is ready: if the system had refused to make processes, it does no more.
    pub(super) fn note_ready(&mut self) {
        if self.refused {
            self.clear();
        }
    }

    fn count(&mut self, now: Instant, policy: &Policy) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(now);
        if self.failures > 1 {
            let wait = now + self.wait(policy);
            self.not_before = Some(self.not_before.map_or(wait, |earlier| earlier.max(wait)));
        }
    }

    /// Whether a worker may be started now; if so, notes that it is.
    pub(super) fn permits(&mut self, now: Instant, starting: bool, policy: &Policy) -> bool {
        if self.failures == 0 {
            return true;
        }
        if starting || self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        if self.failures > 1 {
            self.not_before = Some(now + self.wait(policy));
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.failures = 0;
        self.refused = false;
        self.last_failure = None;
        self.not_before = None;
    }

    pub(super) fn last_failure(&self) -> Option<Instant> {
        self.last_failure
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Doubling, between half and the whole of it by chance, so that the apps of many machines that lost the
    /// same database do not come back in step.
    fn wait(&mut self, policy: &Policy) -> Duration {
        let doublings = self.failures.saturating_sub(2).min(20);
        let most = if self.refused {
            policy.most_refused
        } else {
            policy.most
        };
        let whole = policy.first.saturating_mul(1 << doublings).min(most);
        whole.mul_f64(0.5 + self.random.f64() / 2.0)
    }
}
