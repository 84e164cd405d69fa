//! When an app with a schedule has to run next, by a clock that may be set, and that goes on while the machine sleeps.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{CORRECTION, Times};

/// The clocks of the machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The time of day, which may be set.
    pub wall: Timestamp,
    /// The time since the machine was started, also while it slept: CLOCK_BOOTTIME of clock_gettime(2).
    pub uptime: Duration,
}

impl Clock {
    /// By how much the wall clock was set since an earlier moment.
    pub fn was_set_since(&self, earlier: &Self) -> SignedDuration {
        let passed = SignedDuration::try_from(self.uptime.saturating_sub(earlier.uptime));
        let shown = self.wall.duration_since(earlier.wall);
        shown.saturating_sub(passed.unwrap_or(SignedDuration::MAX))
    }
}

/// A run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its time.
    pub at: Timestamp,
    /// How long ago that is. It is long if the machine slept, or the clock was set forward.
    pub late: Duration,
}

/// The next time of a schedule.
#[derive(Debug, Clone)]
pub struct Appointments {
    times: Times,
    next: Option<Timestamp>,
}

impl Appointments {
    /// From now on.
    pub fn new(times: Times, now: Timestamp) -> Self {
        let next = times.next(now);
        Self { times, next }
    }

    /// The times.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// The next run.
    pub fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Leaves out what has been due until now.
    pub fn skip(&mut self, now: Timestamp) {
        self.next = self.times.next(now);
    }

    /// The wall clock was set by this much. Afterwards it shows `now`.
    pub fn clock_was_set(&mut self, by: SignedDuration, now: Timestamp) {
        let is_correction = by.abs() >= CORRECTION;
        // A fixed time that is repeated has been run already.
        let repeats = by.is_negative() && !self.times.fixed;
        let is_due = self.next.is_some_and(|at| at <= now);
        if is_correction || repeats && !is_due {
            self.skip(now);
        }
    }

    /// The run that is due; however many times have passed, it is one.
    pub fn take_due(&mut self, now: Timestamp) -> Option<Due> {
        let at = self.next.filter(|at| *at <= now)?;
        self.skip(now);
        let late = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        Some(Due { at, late })
    }
}
