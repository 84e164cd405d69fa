//! Which responses wait a moment in the kernel, to go out together.
//!
//! Every response wakes its client, and a client on the same machine, mostly a proxy, mostly sleeps: to wake its processor costs as much as
//! a fifth of a quick Django view on a virtual machine. So while more requests are known to be ready, whole responses are written with
//! MSG_MORE (send(2)) and pushed together. They are the kernel's then: a worker that dies takes none of them along, and if
//! the next call takes long after all, they go out by TCP's own timer (tcp(7), `TCP_CORK`: 200 ms). That this hardly ever comes to
//! pass is the business of [`Cork`]: it holds nothing where calls have been long of late.

use crate::timers::Instant;

/// How long a response may be held, in nanoseconds; a call that takes longer is a long one. What waking a client costs is nothing to it.
const HOLD: Instant = 500_000;
/// After so many calls in a row that were short the next one is taken to be short, too.
const CALM: u32 = 64;

/// The connections whose responses are held.
#[derive(Debug, Default)]
pub(super) struct Cork {
    held: Vec<u64>,
    since: Instant,
    /// Calls since the last long one.
    short: u32,
    others: bool,
}

impl Cork {
    /// Tells whether more requests are ready.
    pub fn others_are_ready(&mut self, ready: bool) {
        self.others = ready;
    }

    /// Tells how long a call of the application has taken, in nanoseconds.
    pub fn called(&mut self, took: Instant) {
        self.short = match took {
            0..HOLD => self.short.saturating_add(1),
            _ => 0,
        };
    }

    /// Whether a whole response may be held now.
    pub fn may_hold(&self) -> bool {
        self.others && self.short >= CALM
    }

    /// Takes note of a connection whose response is held.
    pub fn hold(&mut self, key: u64, now: Instant) {
        if self.held.is_empty() {
            self.since = now;
        }
        self.held.push(key);
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
        cork.others_are_ready(true);
        (0..CALM).for_each(|_| cork.called(HOLD - 1));
        cork
    }

    #[test]
    fn holds_only_where_calls_are_short_and_others_wait() {
        let mut cork = calm();
        assert!(cork.may_hold());
        cork.others_are_ready(false);
        assert!(!cork.may_hold());
        cork.others_are_ready(true);
        cork.called(HOLD);
        assert!(!cork.may_hold());
        (1..CALM).for_each(|_| cork.called(0));
        assert!(!cork.may_hold());
        cork.called(0);
        assert!(cork.may_hold());
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
