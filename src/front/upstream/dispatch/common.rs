//! The queues of all workers of the front as one: how many requests wait elsewhere, whose turn it is, and who is to be woken.
//!
//! A worker of the front says in shared memory how many of its requests wait for an upstream, and since when the first of them has. Who gives an
//! address back looks there, and wakes the others if one of them waits and the address has room. Who is about to wait says so first and then looks
//! for room once more. So either the one sees that the other waits, or the other one sees the room.
//!
//! A request goes before those that have come later, also if they wait elsewhere. As another worker may be slow or have reasons of its own not
//! to use the room, it is left to it for a short time only.

use preforkd_worker::running::Queue;

use super::super::{Instant, NEVER};
use super::line::PATIENCE;

/// How long room is left to a worker whose request has waited longer, in nanoseconds.
const TURN: Instant = 5_000_000;
/// How long requests wait for room that others hold before it is looked for without being woken, in nanoseconds: a worker that was killed wakes
/// nobody.
const LOOK: Instant = 100_000_000;

/// The part of one worker.
#[derive(Debug)]
pub(super) struct Common {
    queue: Queue,
    /// What was said last.
    told: (u64, Instant),
    /// Room was found or given back while others wait.
    is_free: bool,
    /// Since when the request has waited to which room is left, and until when it is.
    turn: (Instant, Instant),
    /// Since when one has waited that has not used its turn.
    passed: Instant,
    /// When to look for room; [`NEVER`] if nothing waits.
    look: Instant,
}

impl Common {
    pub fn new(queue: Queue) -> Self {
        Self {
            queue,
            told: (0, NEVER),
            is_free: false,
            turn: (NEVER, 0),
            passed: NEVER,
            look: NEVER,
        }
    }

    /// So many requests wait here, the first of them since then.
    pub fn tell(&mut self, number: usize, since: Instant) {
        let now = (number as u64, since);
        if self.told != now {
            self.told = now;
            self.queue.tell(now.0, now.1);
        }
        if number == 0 {
            self.look = NEVER;
        }
    }

    /// The requests that wait elsewhere.
    pub fn others(&self) -> usize {
        usize::try_from(self.queue.others().number).unwrap_or(usize::MAX)
    }

    /// Whether a request that has come then has to leave room to one that waits elsewhere. `ahead`: it would be sent to an address that is
    /// busy, which is not worth an order to the microsecond.
    pub fn is_anothers_turn(&mut self, since: Instant, ahead: bool, now: Instant) -> bool {
        if self.queue.is_alone() {
            return false;
        }
        let first = self.queue.others().since;
        let is_later = match ahead {
            true => first.saturating_add(PATIENCE) < since,
            false => first < since,
        };
        if !is_later || first == self.passed {
            return false;
        }
        if self.turn.0 != first {
            self.turn = (first, now.saturating_add(TURN));
            // It may not know of the room.
            self.is_free = true;
        }
        if now >= self.turn.1 {
            self.passed = first;
            return false;
        }
        true
    }

    /// Requests wait here, and there is no room for the first of them.
    pub fn found_none(&mut self, now: Instant) {
        if self.queue.is_alone() {
            return;
        }
        let turn = match self.turn {
            (of, until) if of != self.passed && until > now => until,
            _ => NEVER,
        };
        self.look = now.saturating_add(LOOK).min(turn);
    }

    /// When to look for room.
    pub fn look(&self) -> Instant {
        self.look
    }

    /// Whether that time has come.
    pub fn looks(&mut self, now: Instant) -> bool {
        let looks = self.look <= now;
        if looks {
            self.look = NEVER;
        }
        looks
    }

    /// An address may have room now.
    pub fn gave_back(&mut self) {
        if self.queue.is_awaited() {
            self.is_free = true;
        }
    }

    /// Whether that was so. It is to be told then ([`Self::takes_notice`]).
    pub fn is_free(&self) -> bool {
        self.is_free
    }

    /// Whether others are to be woken, if an address has room.
    pub fn takes_notice(&mut self) -> bool {
        std::mem::take(&mut self.is_free)
    }
}
