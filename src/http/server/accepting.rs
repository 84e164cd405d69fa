//! Taking connections from the listeners, and ceasing to.

use std::io;
use std::mem;
use std::time::Duration;

use super::{DRAIN_GRACE, LISTENERS, Server};
use crate::client::{Client, Task};
use crate::connection::{Connection, Phase};
use crate::engine::Engine;
use crate::handler::Observer;
use crate::listener::Accepted;
use crate::request::Origin;
use crate::timers::{NEVER, now};

/// How long a worker that stops takes from the accept queue as it gets to it; after that it takes at once all that is left.
const SHARED_QUEUE: Duration = Duration::from_secs(2);
/// How long no connection is accepted when no descriptor is left. Short against a client's patience, long enough to cost nothing.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(250);
/// How often a busy worker looks whether somebody waits whom nobody takes: a worker that has nothing to do takes microseconds.
const LOOK: Duration = Duration::from_millis(2);
/// Connections that it takes then.
const AT_ONCE: usize = 16;

impl<E: Engine, O: Observer> Server<E, O> {
    fn may_accept(&self) -> bool {
        self.pause == NEVER
            && self.clients.len() < self.limits.max_connections
            && self.engine.is_free()
    }

    /// Watches the listeners if a connection could be served now. The kernel wakes one worker only for a connection, so a
    /// worker that would leave it lying must not be among those that wait.
    pub(super) fn watch_listeners(&mut self) -> io::Result<()> {
        let open = !self.draining && self.may_accept();
        let last = self.listeners.len().wrapping_sub(1);
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            match open && (!self.private || index == last) {
                true => listener.watch(&self.epoll, LISTENERS + index as u64)?,
                false => listener.unwatch(&self.epoll),
            }
        }
        Ok(())
    }

    /// Takes as many connections as others had their turn, and one at least: what else waits goes to whichever worker is
    /// free first. Fewer would let those who come anew wait behind those who stay.
    pub(super) fn accept(&mut self, index: usize, turns: usize) {
        for taken in 0..turns.max(1) {
            // The first even when no thread is free any more since the wait: nobody else was woken for it.
            let open = !self.draining && self.pause == NEVER && (taken == 0 || self.may_accept());
            let Some(key) = open.then(|| self.accept_one(index)).flatten() else {
                break;
            };
            self.go_on(key);
            // The kernel wakes the worker that has watched longest; to begin anew gives the others their turn, and so
            // connections that stay open are spread over the workers.
            self.listeners[index].unwatch(&self.epoll);
        }
    }

    /// Where all threads are busy all the time, the listeners are never watched. Those who have been waiting there a while,
    /// as all other workers are busy too, are taken in all the same, and get their turn among the connections that stay.
    pub(super) fn look_for_callers(&mut self) {
        if self.next_look > self.now
            || self.draining
            || self.pause != NEVER
            || self.engine.is_free()
        {
            return;
        }
        self.next_look = self.after(LOOK);
        let first = if self.private {
            self.listeners.len().saturating_sub(1)
        } else {
            0
        };
        for index in first..self.listeners.len() {
            if !self.listeners[index].is_left_alone() {
                continue;
            }
            for _ in 0..AT_ONCE {
                if self.clients.len() >= self.limits.max_connections {
                    return;
                }
                let Some(key) = self.accept_one(index) else {
                    break;
                };
                self.go_on(key);
            }
        }
    }

    fn accept_one(&mut self, index: usize) -> Option<u64> {
        match self.listeners[index].accept() {
            Accepted::Connection(socket, peer) => {
                self.exhausted = false;
                let mut client = Client::new(
                    socket,
                    Connection::new(self.limits.clone()),
                    Origin {
                        listener: index,
                        peer,
                    },
                );
                client.deadline = self.after(self.limits.header_timeout);
                let key = self.clients.insert(Box::new(client));
                self.observer.connections(self.clients.len());
                Some(key)
            }
            Accepted::Nobody => None,
            Accepted::Over => {
                // The probes are over. The listener keeps its place, as connections name theirs by it.
                self.listeners[index].unwatch(&self.epoll);
                self.private &= index + 1 < self.listeners.len();
                None
            }
            Accepted::Exhausted(error) => {
                if !mem::replace(&mut self.exhausted, true) {
                    log::error!(
                        "could not accept a connection: {error}; trying again every {EXHAUSTED_PAUSE:?} until it works"
                    );
                }
                self.pause = self.after(EXHAUSTED_PAUSE);
                None
            }
        }
    }

    /// Accepts no more, but for what waits in the accept queues when nobody else is there to take it. That has an
    /// end also where more arrives than can be served: after a while all is taken before any more is served.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        if mem::replace(&mut self.draining, true) {
            return Ok(());
        }
        let mut accepted = Vec::new();
        let share_until = self.after(SHARED_QUEUE);
        if !self.private && !self.observer.is_succeeded() {
            for index in 0..self.listeners.len() {
                while self.clients.len() < self.limits.max_connections
                    && let Some(key) = self.accept_one(index)
                {
                    // The other workers empty the queue too: one after the other is served, to share them.
                    if self.engine.is_free() && now() < share_until {
                        self.go_on(key);
                    } else {
                        accepted.push(key);
                    }
                }
            }
        }
        // Closing a socket takes it out of epoll only when no other process holds it.
        for listener in &mut self.listeners {
            listener.unwatch(&self.epoll);
        }
        self.listeners.clear();
        self.observer.draining();
        for key in accepted {
            self.go_on(key);
        }
        self.now = now();
        let grace = self.after(DRAIN_GRACE);
        for key in self.clients.keys() {
            if let Some(client) = self.clients.get_mut(key)
                && matches!(client.task, Task::None)
                && client.connection.phase() == Phase::Idle
                && grace < client.deadline
            {
                client.deadline = grace;
                self.arm(key);
            }
        }
        Ok(())
    }
}
