//! The clocks of the machine, and a timer that follows the one that people read: it also ends when somebody sets that clock, and
//! after the machine has slept (timerfd_create(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{self, clock_gettime};

use crate::schedule::appointments::Clock;

/// What the clocks show.
pub fn clock() -> Clock {
    // The kernel has both.
    let uptime = clock_gettime(time::ClockId::CLOCK_BOOTTIME);
    Clock {
        wall: Timestamp::now(),
        uptime: uptime.map_or(Duration::ZERO, Duration::from),
    }
}

/// A timer for a time of day.
pub struct Alarm(TimerFd);

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_REALTIME, flags)?))
    }

    /// The descriptor to be polled for reading.
    pub fn fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }

    /// Sets the timer; it ends at once if that time has passed. `None` clears it.
    ///
    /// # Errors
    /// The kernel refuses the time.
    pub fn set(&self, at: Option<Timestamp>) -> io::Result<()> {
        let Some(at) = at else {
            return Ok(self.0.unset()?);
        };
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        let set = |at| self.0.set(Expiration::OneShot(at), flags);
        let wanted = TimeSpec::new(at.as_second().max(0), at.subsec_nanosecond().into());
        match set(wanted) {
            // The clock was set since the timer was: so it has to end now.
            Err(Errno::ECANCELED) => Ok(set(TimeSpec::new(0, 1))?),
            other => Ok(other?),
        }
    }

    /// Notes that the timer has ended.
    pub fn clear(&self) {
        // Nothing, the number of ends, or that the clock was set: it has to be looked at anyway.
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn ends(alarm: &Alarm, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(alarm.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).expect("it can be polled") == 1
    }

    #[test]
    fn a_time_that_has_passed_ends_the_timer_at_once() {
        let alarm = Alarm::new().expect("a descriptor");
        let now = clock().wall;
        assert!(!ends(&alarm, PollTimeout::ZERO), "it is not set");
        alarm.set(Some(now)).expect("a time");
        assert!(ends(&alarm, PollTimeout::NONE));
        alarm.clear();
        assert!(!ends(&alarm, PollTimeout::ZERO));
        let later = now + jiff::SignedDuration::from_hours(1);
        alarm.set(Some(later)).expect("a time");
        assert!(!ends(&alarm, PollTimeout::ZERO));
        alarm.set(Some(now)).expect("a time");
        alarm.set(None).expect("it can be cleared");
        assert!(!ends(&alarm, PollTimeout::ZERO));
    }

    #[test]
    fn the_clocks_go_forward() {
        let before = clock();
        let after = clock();
        assert!(after.uptime >= before.uptime && before.uptime > Duration::ZERO);
    }
}
