//! When as many connections are open as there may be, the one that has been idle for longest makes room for another.
//!
//! Which one that is is looked for only then, and for many at a time: a request must not pay for an order that hardly ever counts.

use std::collections::VecDeque;

use super::core::Core;
use super::timers::{Instant, NEVER, now};
use crate::net::transport::Transport;
use crate::proto::h1::connection::Phase;
use crate::proto::reject::Reject;
use crate::serve::client::{Client, Task};
use crate::serve::handler::Observer;
use crate::serve::relayed::Preamble;

/// How long a connection is idle before it makes room: its client may have sent the next request already, which takes a round trip.
const KEPT: Instant = 100_000_000;
/// The same for a connection that has not spoken yet. Its client cannot know that its request was not served (RFC 9112 section 9.3.1).
const SILENT: Instant = 1_000_000_000;
/// Between two looks that find nothing.
const PAUSE: Instant = 10_000_000;
/// A look is followed by a pause that is longer by this factor, so that looks take a fiftieth of the time at most.
const REST: Instant = 50;

const TOO_SLOW: Reject = Reject::with(
    408,
    "the request body came too slowly, and others need the room",
);

/// What the latest look has found.
pub(crate) struct Room {
    /// Connections with the deadlines that they had, longest idle first.
    idle: VecDeque<(u64, Instant)>,
    /// No look before.
    next_look: Instant,
    /// No look for slow bodies before.
    next_slow: Instant,
    /// Nothing is accepted at the limit before; [`NEVER`] when somebody may make room.
    pub full_until: Instant,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            idle: VecDeque::new(),
            next_look: 0,
            next_slow: 0,
            full_until: NEVER,
        }
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    pub(super) fn is_full(&self) -> bool {
        self.clients.len() - self.streams >= self.limits.max_connections
    }

    /// Closes the connection that has been idle for longest; whether there was one.
    #[cold]
    pub(super) fn make_room(&mut self) -> bool {
        loop {
            while let Some((key, deadline)) = self.room.idle.pop_front() {
                if self.close_if_idle(key, deadline) {
                    return true;
                }
            }
            if !self.look_for_idle() {
                return false;
            }
        }
    }

    /// Closes a connection unless it has moved since its deadline was this one.
    fn close_if_idle(&mut self, key: u64, deadline: Instant) -> bool {
        let Some(mut client) = self.clients.lend(key) else {
            return false;
        };
        if client.link.deadline != deadline || !is_idle(&client) {
            self.clients.give_back(key, client);
            return false;
        }
        // A request may have come in since the last look, and a connection must not be closed under it.
        let has_come = match client.link.preamble {
            Some(Preamble::Offer) => self.take_offer(&mut client),
            _ => match client.link.read(&mut self.buffer) {
                Ok(n @ 1..) => {
                    client.take_in(&self.buffer[..n], self.now);
                    true
                }
                _ => false,
            },
        };
        if has_come {
            client.link.queued = true;
            self.queue.push_back(key);
            self.clients.give_back(key, client);
            return false;
        }
        self.close(key, client);
        true
    }

    /// A body has found no room. Bodies that hardly come any more must not keep it: those that hold most are broken off, until half
    /// of the budget is free for whoever comes next.
    #[cold]
    pub(super) fn break_off_slow_bodies(&mut self) {
        let now = now();
        if now < self.room.next_slow {
            return;
        }
        let mut slow: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| {
                matches!(client.link.task, Task::None)
                    && client.connection.phase() == Phase::Body
                    && client.link.is_slow(now)
            })
            .map(|(key, client)| (client.connection.held(), key))
            .collect();
        slow.sort_unstable();
        while let Some((_, key)) = slow.pop()
            && self.budget.used() > self.budget.most() / 2
        {
            if let Some(mut client) = self.clients.lend(key) {
                let reject = client.connection.refused(TOO_SLOW);
                self.reject(&mut client, reject);
                client.link.queued = true;
                self.queue.push_back(key);
                self.clients.give_back(key, client);
            }
        }
        self.room.next_slow = now + PAUSE + REST * super::timers::now().saturating_sub(now);
    }

    /// Lists the connections that may make room; whether there is one.
    fn look_for_idle(&mut self) -> bool {
        let begin = now();
        if begin < self.room.next_look {
            self.room.full_until = self.room.next_look;
            return false;
        }
        let mut idle = Vec::new();
        let mut next = NEVER;
        for (key, client) in self.clients.iter() {
            if !is_idle(client) {
                continue;
            }
            let deadline = client.link.deadline;
            let (timeout, least) = match client.link.arrived {
                0 => (self.limits.header_timeout, SILENT),
                _ => (client.link.kept, KEPT),
            };
            let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            let since = deadline.saturating_sub(timeout);
            match since.saturating_add(least) {
                ripe if ripe <= begin => idle.push((since, key, deadline)),
                ripe => next = next.min(ripe),
            }
        }
        idle.sort_unstable();
        let end = now();
        self.room.next_look = end + REST * end.saturating_sub(begin);
        if idle.is_empty() {
            let soon = self.room.next_look.max(end + PAUSE);
            self.room.full_until = match next {
                NEVER => soon,
                next => next.max(self.room.next_look),
            };
            return false;
        }
        let idle = idle.into_iter().map(|(_, key, deadline)| (key, deadline));
        self.room.idle = idle.collect();
        true
    }
}

/// Whether the connection is between two requests, and nothing of the next one is known to be there.
fn is_idle<T: Transport>(client: &Client<T>) -> bool {
    let link = &client.link;
    matches!(link.task, Task::None)
        && !link.transport.is_stream()
        && client.connection.phase() == Phase::Idle
        && !(link.ready || link.queued || link.has_output())
}
