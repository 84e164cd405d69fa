//! Which responses wait a moment in the kernel, to go out together.
//!
//! Every response wakes its client, and a client on the same machine, mostly a proxy, mostly sleeps: to wake its processor costs as much as
//! a fifth of a quick Django view on a virtual machine. So while more requests are known to be ready, whole responses are written with
//! MSG_MORE (send(2)) and pushed together. They are the kernel's then: a worker that dies takes none of them along, and if
//! the next call takes long after all, they go out by TCP's own timer (tcp(7), `TCP_CORK`: 200 ms; on a path that takes longer than
//! that, the retransmission timeout). That this hardly ever comes to pass is the business of [`Cork`]: it holds nothing where calls
//! have been long of late.
//!
//! On a lane the bell of the front waits in their place (`crate::net::lane`): what was written is there for the front to read.

use std::ops::Range;

use crate::serve::timers::Instant;

/// How long a response may be held, in nanoseconds.
const HOLD: Instant = 500_000;
/// What calls may take in the mean, in nanoseconds: if they take longer, what waking a client costs is nothing to them; if less, a client
/// that hears so often does not get to sleep.
const QUICK: Range<Instant> = 20_000..HOLD / 2;
/// No call may have been this long, in nanoseconds: what a collection of garbage takes is no harm, a query is.
const LONG: Instant = 5_000_000;
/// Of so many calls. Many, as one long request in a hundred is usual.
const CALM: u32 = 1000;
/// The same on a lane: its front looks by itself after 2 ms, which is all that a long call behind a response can cost its client there.
const CALM_IN_LANE: u32 = 50;
/// Calls that the mean goes back to, more or less.
const MEMORY: Instant = 16;

/// The connections whose responses are held.
#[derive(Debug, Default)]
pub(super) struct Cork {
    held: Vec<u64>,
    since: Instant,
    /// Calls since the last long one.
    calm: u32,
    /// What calls have taken of late.
    mean: Instant,
    /// More requests are ready.
    others: bool,
}

impl Cork {
    /// Tells whether more requests are ready.
    pub fn expect_others(&mut self, ready: bool) {
        self.others = ready;
    }

    /// Whether any response is held.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Tells how long a call of the application has taken, in nanoseconds.
    pub fn called(&mut self, took: Instant) {
        let took = took.min(LONG);
        self.calm = match took {
            LONG => 0,
            _ => self.calm.saturating_add(1),
        };
        self.mean = (self.mean * (MEMORY - 1) + took) / MEMORY;
    }

    /// Whether a whole response may be held now.
    pub fn may_hold(&self) -> bool {
        self.others && self.calm >= CALM && QUICK.contains(&self.mean)
    }

    /// The same on a lane whose next request is here. To wake the front costs at any time, as it runs on the same machine.
    pub fn may_wait_in_lane(&self) -> bool {
        self.calm >= CALM_IN_LANE && self.mean < QUICK.end
    }

    /// Takes note of a connection whose response is held.
    pub fn hold(&mut self, key: u64, now: Instant) {
        if self.held.is_empty() {
            self.since = now;
        }
        if self.held.last() != Some(&key) {
            self.held.push(key);
        }
    }

    /// Whether the oldest response has been held for long enough.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.held.is_empty() && now.saturating_sub(self.since) >= HOLD
    }

    /// Those that are held, to be pushed.
    pub fn release(&mut self) -> impl Iterator<Item = u64> {
        self.held.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Cork {
        let mut cork = Cork::default();
        cork.expect_others(true);
        (0..CALM).for_each(|_| cork.called(QUICK.end / 2));
        cork
    }

    #[test]
    fn holds_only_where_calls_are_short_and_others_wait() {
        let mut cork = calm();
        assert!(cork.may_hold());
        cork.expect_others(false);
        assert!(!cork.may_hold());
        cork.expect_others(true);
        cork.called(2 * HOLD);
        assert!(cork.may_hold(), "one is no harm");
        cork.called(LONG);
        assert!(!cork.may_hold());
        (1..CALM).for_each(|_| cork.called(QUICK.end / 2));
        assert!(!cork.may_hold());
        cork.called(QUICK.end / 2);
        assert!(cork.may_hold());
        (0..MEMORY).for_each(|_| cork.called(HOLD));
        assert!(!cork.may_hold(), "these are not quick");
        (0..10 * MEMORY).for_each(|_| cork.called(QUICK.start / 2));
        assert!(
            !cork.may_hold(),
            "these are so quick that clients stay awake"
        );
    }

    #[test]
    fn on_a_lane_one_long_call_is_soon_forgotten() {
        let mut cork = calm();
        cork.called(LONG);
        assert!(!cork.may_wait_in_lane());
        (1..CALM_IN_LANE).for_each(|_| cork.called(QUICK.start));
        assert!(!cork.may_wait_in_lane());
        cork.called(QUICK.start);
        assert!(cork.may_wait_in_lane() && !cork.may_hold());
        (0..MEMORY).for_each(|_| cork.called(HOLD));
        assert!(!cork.may_wait_in_lane(), "these are not quick");
    }

    #[test]
    fn the_oldest_decides_when_all_go_out() {
        let mut cork = calm();
        assert!(!cork.is_due(Instant::MAX));
        cork.hold(1, 1000);
        cork.hold(2, 1000 + HOLD - 1);
        assert!(!cork.is_due(1000 + HOLD - 1));
        assert!(cork.is_due(1000 + HOLD));
        assert_eq!(cork.release().collect::<Vec<_>>(), [1, 2]);
        assert!(!cork.is_due(Instant::MAX));
        cork.hold(3, 5000 + HOLD);
        assert!(!cork.is_due(5000 + HOLD));
    }
}
