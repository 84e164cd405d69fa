//! When a worker that died may be replaced.
//!
//! A worker that had stayed up is replaced at once, however many die together: that is an accident. A worker that dies young
//! (before it was ready, or soon after) is a failure. After the first failure the replacement starts at once. After further
//! failures the whole app waits, twice as long each time, and then starts one worker at a time, until a worker stays up. So a
//! crash loop costs little, whatever the number of workers.
//!
//! If the system refuses to create a process, the app is not to blame: the master retries at least once a second, and as soon
//! as one worker is ready, the others start without delay.

use std::time::{Duration, Instant};

/// The delays of replacements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// A worker that was ready for this long has stayed up.
    pub stayed_up: Duration,
    /// The delay after the second failure in a row; each further failure doubles it.
    pub first: Duration,
    /// The maximum delay.
    pub most: Duration,
    /// The maximum delay after the system has refused to create a process.
    pub most_refused: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stayed_up: super::STAYED_UP,
            first: Duration::from_millis(50),
            most: Duration::from_secs(30),
            most_refused: Duration::from_secs(1),
        }
    }
}

/// The failures of one app since a worker last stayed up.
#[derive(Debug)]
pub(super) struct Backoff {
    streak: Option<Streak>,
    random: fastrand::Rng,
}

/// Failures in a row.
#[derive(Debug)]
struct Streak {
    /// At least one.
    failures: u32,
    last: Instant,
    /// The last failure was the system's: it refused to create a process.
    refused: bool,
    not_before: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            streak: None,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Records that a worker ended on its own. Returns whether that was a failure.
    pub(super) fn note_end(
        &mut self,
        ready_since: Option<Instant>,
        now: Instant,
        policy: &Policy,
    ) -> bool {
        let stayed_up =
            ready_since.is_some_and(|at| now.saturating_duration_since(at) >= policy.stayed_up);
        // Workers that end at the same instant (their template died) count as one failure.
        if stayed_up || self.last_failure() == Some(now) {
            return false;
        }
        self.count(now, false, policy);
        true
    }

    /// Records that the system has refused to create a process for a worker.
    pub(super) fn note_refusal(&mut self, now: Instant, policy: &Policy) {
        self.count(now, true, policy);
    }

    /// Records that something is missing for the start of a worker. To look again at once is no use.
    pub(super) fn note_missing(&mut self, now: Instant, policy: &Policy) {
        // Workers that miss it at the same instant count as one.
        if self.last_failure() == Some(now) {
            return;
        }
        self.count(now, false, policy);
        if let Some(streak) = &mut self.streak {
            let until = now + streak.wait(&mut self.random, policy);
            streak.not_before = streak.not_before.max(Some(until));
        }
    }

    /// Records that a worker is ready: if the system refused to create processes, it no longer does.
    pub(super) fn note_ready(&mut self) {
        self.streak.take_if(|streak| streak.refused);
    }

    fn count(&mut self, now: Instant, refused: bool, policy: &Policy) {
        let streak = self.streak.get_or_insert(Streak {
            failures: 0,
            last: now,
            refused,
            not_before: None,
        });
        streak.failures = streak.failures.saturating_add(1);
        (streak.last, streak.refused) = (now, refused);
        if streak.failures > 1 {
            let until = now + streak.wait(&mut self.random, policy);
            streak.not_before = streak.not_before.max(Some(until));
        }
    }

    /// Whether a worker may be started now; if so, records that it is.
    pub(super) fn permits(&mut self, now: Instant, starting: bool, policy: &Policy) -> bool {
        let Some(streak) = &mut self.streak else {
            return true;
        };
        if starting || streak.not_before.is_some_and(|at| now < at) {
            return false;
        }
        if streak.failures > 1 {
            streak.not_before = Some(now + streak.wait(&mut self.random, policy));
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.streak = None;
    }

    pub(super) fn last_failure(&self) -> Option<Instant> {
        self.streak.as_ref().map(|streak| streak.last)
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.streak.as_ref()?.not_before
    }
}

impl Streak {
    /// The delay doubles with each failure. A random part of it, at least half, is used, so that apps on many machines that lost
    /// the same database do not restart in step.
    fn wait(&self, random: &mut fastrand::Rng, policy: &Policy) -> Duration {
        let doublings = self.failures.saturating_sub(2).min(20);
        let most = if self.refused {
            policy.most_refused
        } else {
            policy.most
        };
        let whole = policy.first.saturating_mul(1 << doublings).min(most);
        whole.mul_f64(0.5 + random.f64() / 2.0)
    }
}
