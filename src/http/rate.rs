//! The rate of log lines that clients can cause.

use std::fmt;

use crate::serve::timers::Instant;

/// One second.
pub(crate) const SECOND: Instant = 1_000_000_000;

/// Lets so many lines come at once, and then one in each pause; counts those that it does not let come.
#[derive(Debug)]
pub struct Rate {
    pause: Instant,
    burst: u64,
    /// When all lines that came would have been due at one in each pause.
    due: Instant,
    left_out: u64,
}

/// How many lines were left out before this one; what to append to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut(pub u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, "; {n} more since the last such line"),
        }
    }
}

impl Rate {
    /// `burst` lines at once, one at least, and then one in each `pause`.
    pub const fn new(burst: u64, pause: Instant) -> Self {
        Self {
            pause,
            burst,
            due: 0,
            left_out: 0,
        }
    }

    /// Whether a line may come now, which counts as done then. If not, it is counted.
    pub fn take(&mut self, now: Instant) -> Option<LeftOut> {
        if !self.is_free(now) {
            self.left_out += 1;
            return None;
        }
        self.due = self.due.max(now) + self.pause;
        Some(LeftOut(std::mem::take(&mut self.left_out)))
    }

    /// How many lines were left out since the last one.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether a line may come now.
    pub fn is_free(&self, now: Instant) -> bool {
        self.due <= now + (self.burst - 1) * self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_come_at_once_and_then_one_in_each_pause_which_counts_the_others() {
        const PAUSE: Instant = 10 * SECOND;
        let mut rate = Rate::new(3, PAUSE);
        for _ in 0..3 {
            assert_eq!(rate.take(PAUSE), Some(LeftOut(0)));
        }
        assert_eq!((rate.take(PAUSE), rate.take(2 * PAUSE - 1)), (None, None));
        assert_eq!((rate.left_out(), rate.is_free(2 * PAUSE)), (2, true));
        let line = rate.take(2 * PAUSE).expect("a pause is over");
        assert_eq!(line.to_string(), "; 2 more since the last such line");
        assert_eq!(rate.take(2 * PAUSE), None);
        let later = rate.take(9 * PAUSE).expect("many pauses are over");
        assert_eq!(later, LeftOut(1));
        assert_eq!(
            rate.take(9 * PAUSE).map(|line| line.to_string()),
            Some(String::new())
        );
    }
}
