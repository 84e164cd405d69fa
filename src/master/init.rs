//! The messages to the init system that depend on time: keep-alive, and more time for a start, reload or stop that goes on.

use std::time::{Duration, Instant};

use super::turn::Turn;
use super::world::{Notice, World};

/// How long something goes on before more time is asked for. Most starts and stops take less, and need no message.
const FIRST: Duration = Duration::from_secs(1);
/// The interval of further messages.
const EVERY: Duration = Duration::from_secs(5);
/// The time that each message asks for: if the master hangs, the init system notices soon.
const EXTENSION: Duration = Duration::from_secs(15);

/// What the init system knows.
pub(super) struct Init {
    /// The status of all apps, in one line.
    pub(super) status: String,
    sign_of_life: Option<Instant>,
    going_on: Option<GoingOn>,
}

/// A start, reload or stop that has not ended.
struct GoingOn {
    phase: &'static str,
    /// When the next message is due.
    next: Instant,
    /// No message is sent from then on, unless there is a step.
    until: Instant,
}

impl Init {
    pub(super) fn new<W: World>(turn: &Turn<W>) -> Self {
        Self {
            status: String::new(),
            sign_of_life: turn.world.watchdog().map(|_| turn.now),
            going_on: None,
        }
    }

    /// When the next message is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let going_on = self.going_on.as_ref();
        let extension = going_on.filter(|on| on.next < on.until).map(|on| on.next);
        self.sign_of_life.into_iter().chain(extension).min()
    }

    /// Sends the messages that are due.
    pub(super) fn send_due<W: World>(&mut self, turn: &mut Turn<W>) {
        if self.sign_of_life.is_some_and(|at| at <= turn.now) {
            turn.world.notify_init(&Notice::Alive);
            self.sign_of_life = turn.world.watchdog().map(|every| turn.now + every);
        }
        if self.is_due(turn.now) {
            turn.world.notify_init(&Notice::MoreTime(EXTENSION));
        }
    }

    /// Whether to ask for more time now; that counts as done then.
    fn is_due(&mut self, now: Instant) -> bool {
        match &mut self.going_on {
            Some(on) if on.next <= now => {
                on.next = now + EVERY;
                now < on.until
            }
            _ => false,
        }
    }

    /// Notes that this phase goes on, which may take so long from each step to the next; `stepped`: there was one.
    pub(super) fn goes_on(
        &mut self,
        now: Instant,
        phase: &'static str,
        stepped: bool,
        patience: impl FnOnce() -> Duration,
    ) {
        match &mut self.going_on {
            Some(on) if on.phase == phase => {
                if stepped {
                    on.until = now + patience();
                }
            }
            other => {
                *other = Some(GoingOn {
                    phase,
                    next: now + FIRST,
                    until: now + patience(),
                });
            }
        }
    }

    /// Notes that everything has settled.
    pub(super) fn settled(&mut self) {
        self.going_on = None;
    }

    /// Sets a new status line. Returns whether it differs from the last one.
    pub(super) fn update(&mut self, status: String) -> bool {
        let changed = status != self.status;
        self.status = status;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which more time is asked for, if nothing but this happens.
    fn asked(init: &mut Init, start: Instant) -> Vec<u64> {
        let mut asked = Vec::new();
        while let Some(at) = init.deadline() {
            assert!(init.is_due(at));
            asked.push((at - start).as_secs());
        }
        asked
    }

    fn init() -> Init {
        Init {
            status: String::new(),
            sign_of_life: None,
            going_on: None,
        }
    }

    #[test]
    fn more_time_is_asked_for_until_the_limit_of_a_step() {
        let (mut init, start) = (init(), Instant::now());
        let limit = || Duration::from_secs(12);
        assert_eq!(init.deadline(), None);
        init.goes_on(start, "starting", false, limit);
        assert_eq!(asked(&mut init, start), [1, 6, 11]);
        let later = start + Duration::from_secs(10);
        init.goes_on(later, "starting", false, limit);
        assert_eq!(asked(&mut init, start), [0; 0], "no step was taken");
        init.goes_on(later, "starting", true, limit);
        assert_eq!(asked(&mut init, start), [16, 21]);
        init.goes_on(start, "stopping", false, limit);
        assert_eq!(asked(&mut init, start), [1, 6, 11], "another phase");
        init.goes_on(start, "reloading", false, limit);
        let late = start + Duration::from_secs(60);
        assert!(!init.is_due(late), "the loop was held up beyond the limit");
        assert_eq!(init.deadline(), None);
        init.settled();
        assert_eq!(asked(&mut init, start), [0; 0]);
    }
}
