//! Deadlines of connections. A connection's deadline moves with every request; the heap does not: an entry that comes
//! up too early is put back with the deadline that holds by then. So a request costs a store and no heap operation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A point in time, CLOCK_MONOTONIC in nanoseconds.
pub(crate) type Instant = u64;
/// No deadline.
pub(crate) const NEVER: Instant = u64::MAX;

/// The clock; answered by the vDSO without a system call.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Deadlines with the key of whom they concern.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Timers {
    pub fn push(&mut self, at: Instant, key: u64) {
        self.heap.push(Reverse((at, key)));
    }

    pub fn next(&self) -> Instant {
        self.heap.peek().map_or(NEVER, |Reverse((at, _))| *at)
    }

    /// The key of a deadline that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<u64> {
        (self.next() <= now)
            .then(|| self.heap.pop().map(|Reverse((_, key))| key))
            .flatten()
    }
}

/// How long to wait until `deadline`, in whole milliseconds rounded up so that the wait does not end just before it.
pub(crate) fn until(deadline: Instant, now: Instant) -> Option<Timespec> {
    (deadline != NEVER).then(|| {
        let milliseconds = deadline.saturating_sub(now).div_ceil(1_000_000) as i64;
        Timespec {
            tv_sec: milliseconds / 1000,
            tv_nsec: milliseconds % 1000 * 1_000_000,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_not_before() {
        let mut timers = Timers::default();
        timers.push(30, 3);
        timers.push(10, 1);
        assert_eq!((timers.next(), timers.pop(9)), (10, None));
        assert_eq!(
            (timers.pop(30), timers.pop(30), timers.pop(30)),
            (Some(1), Some(3), None)
        );
        assert_eq!(timers.next(), NEVER);
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(until(NEVER, 5), None);
        assert_eq!(
            until(1, 5),
            Some(Timespec {
                tv_sec: 0,
                tv_nsec: 0
            })
        );
        assert_eq!(
            until(1_500_000_001, 0),
            Some(Timespec {
                tv_sec: 1,
                tv_nsec: 501_000_000
            })
        );
    }
}
