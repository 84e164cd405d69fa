//! Whether an address is worth trying, as far as the requests that went there tell.

use std::time::Duration;

use super::{Instant, after};

/// When an address is left alone.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// After so many failures one after the other; 0 never.
    pub max_fails: u32,
    /// If they have come within this time.
    pub within: Duration,
    /// For so long; then one request tries it.
    pub pause: Duration,
}

/// What is known of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up {
        fails: u32,
        /// When the first of them came.
        since: Instant,
    },
    Away {
        until: Instant,
        /// A request tries it.
        trial: bool,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: State::Up { fails: 0, since: 0 },
        }
    }
}

impl Health {
    /// Whether a request should go there.
    pub fn is_available(&self, now: Instant) -> bool {
        match self.state {
            State::Up { .. } => true,
            State::Away { until, trial } => until <= now && !trial,
        }
    }

    /// Whether it takes requests, as far as is known: its last request was answered, or has not failed often enough.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// A request goes there.
    pub fn begin(&mut self, now: Instant) {
        if let State::Away { until, trial } = &mut self.state {
            *trial |= *until <= now;
        }
    }

    /// A request was answered there; whether the address had been left alone.
    pub fn good(&mut self) -> bool {
        let was_away = matches!(self.state, State::Away { .. });
        *self = Self::default();
        was_away
    }

    /// A request has failed there; whether the address is left alone from now on.
    pub fn bad(&mut self, policy: &Policy, now: Instant) -> bool {
        let (fails, since) = match self.state {
            State::Up { fails, since } if fails > 0 && now <= after(since, policy.within) => {
                (fails + 1, since)
            }
            State::Up { .. } => (1, now),
            State::Away { .. } => {
                self.leave_alone(policy, now);
                return false;
            }
        };
        self.state = State::Up { fails, since };
        let enough = policy.max_fails > 0 && fails >= policy.max_fails;
        if enough {
            self.leave_alone(policy, now);
        }
        enough
    }

    /// A request that went there is over, and it is not known whether it would have been answered.
    pub fn unknown(&mut self) {
        if let State::Away { trial, .. } = &mut self.state {
            *trial = false;
        }
    }

    fn leave_alone(&mut self, policy: &Policy, now: Instant) {
        self.state = State::Away {
            until: after(now, policy.pause),
            trial: false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Instant = 1_000_000_000;
    const POLICY: Policy = Policy {
        max_fails: 2,
        within: Duration::from_secs(10),
        pause: Duration::from_secs(5),
    };

    #[test]
    fn after_failures_one_request_tries() {
        let mut health = Health::default();
        assert!(!health.bad(&POLICY, 0) && health.is_available(0));
        assert!(
            health.bad(&POLICY, 10 * SECOND),
            "the second within the time"
        );
        assert!(!health.is_available(15 * SECOND - 1));
        assert!(health.is_available(15 * SECOND));
        health.begin(15 * SECOND);
        assert!(
            !health.is_available(16 * SECOND),
            "one tries it, and no other"
        );
        assert!(
            !health.bad(&POLICY, 17 * SECOND),
            "it was left alone already"
        );
        assert!(!health.is_available(22 * SECOND - 1) && health.is_available(22 * SECOND));
        health.begin(22 * SECOND);
        assert!(health.good() && health.is_available(22 * SECOND));
        assert!(!health.bad(&POLICY, 23 * SECOND), "it begins anew");
    }

    #[test]
    fn a_trial_whose_client_leaves_makes_room_for_another() {
        let mut health = Health::default();
        for _ in 0..2 {
            health.bad(&POLICY, 0);
        }
        health.begin(5 * SECOND);
        health.unknown();
        assert!(health.is_available(5 * SECOND));
    }

    #[test]
    fn answers_and_time_make_up_for_failures() {
        let mut health = Health::default();
        for _ in 0..5 {
            assert!(!health.bad(&POLICY, 0));
            assert!(!health.good());
        }
        assert!(!health.bad(&POLICY, 0));
        assert!(!health.bad(&POLICY, 10 * SECOND + 1), "too long ago");
        let never = Policy {
            max_fails: 0,
            ..POLICY
        };
        assert!(!(0..9).any(|_| Health::default().bad(&never, 0)));
    }
}
