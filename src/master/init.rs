//! The messages to the init system, and the interval of keep-alive messages.

use std::time::Instant;

use super::turn::Turn;
use super::world::{Notice, World};

/// What the init system knows.
pub(super) struct Init {
    /// The status of all apps, in one line.
    pub(super) status: String,
    sign_of_life: Option<Instant>,
}

impl Init {
    pub(super) fn new<W: World>(turn: &Turn<W>) -> Self {
        Self {
            status: String::new(),
            sign_of_life: turn.world.watchdog().map(|_| turn.now),
        }
    }

    /// When the next keep-alive message is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sign_of_life
    }

    /// Sends the keep-alive message when it is due.
    pub(super) fn send_alive<W: World>(&mut self, turn: &mut Turn<W>) {
        if self.sign_of_life.is_some_and(|at| at <= turn.now) {
            turn.world.notify_init(&Notice::Alive);
            self.sign_of_life = turn.world.watchdog().map(|every| turn.now + every);
        }
    }

    /// Sets a new status line. Returns whether it differs from the last one.
    pub(super) fn update(&mut self, status: String) -> bool {
        let changed = status != self.status;
        self.status = status;
        changed
    }
}
