//! Connections that carry streams. The connection itself is a client without requests: what comes on it goes to its protocol, and what
//! that has to send goes out. Each of its streams is a client of its own, which the protocol wakes instead of epoll.

use std::mem;

use rustix::event::epoll::EventFlags;

use super::core::{Core, LATE_HEAD};
use super::drive::Turn;
use super::relayed::Preamble;
use super::{DRAIN_GRACE, Server};
use crate::message::request::Origin;
use crate::net::multiplex::{Multiplex, Opening, Step};
use crate::net::standing::Standing;
use crate::net::transport::Transport;
use crate::proto::h1::connection::{Connection, Phase};
use crate::serve::client::{Client, Link, Task};
use crate::serve::engine::Engine;
use crate::serve::handler::Observer;
use crate::serve::timers::{Instant, NEVER};

/// How often those that were woken are looked after before the others get their turn. To answer a request takes a connection two.
const ROUNDS: usize = 4;

/// What a connection with streams is doing.
pub(crate) struct Multiplexed<T: Transport> {
    protocol: T::Multiplex,
    /// When it last had a stream, or began.
    idle_since: Instant,
    /// It has had one.
    used: bool,
    /// Since when it begins no more; [`NEVER`] if it does.
    closing_since: Instant,
    /// How it stands was noted: whether it has streams.
    stands: Option<bool>,
}

impl<T: Transport> Multiplexed<T> {
    fn close(&mut self, now: Instant) {
        if self.closing_since == NEVER {
            self.closing_since = now;
            self.protocol.close();
        }
    }
}

impl<T: Transport> Client<T> {
    /// Takes bytes that were read in passing.
    pub(super) fn take_in(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.link.preamble {
            Some(Preamble::Opening(begun) | Preamble::Header(begun)) => {
                begun.extend_from_slice(bytes);
            }
            _ => self.receive(bytes, NEVER, now),
        }
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// What a connection has to begin with whose protocol is not known.
    pub(super) fn opening() -> Option<Preamble> {
        T::Multiplex::EXISTS.then(|| Preamble::Opening(Vec::new()))
    }

    /// Reads until it is clear what the connection speaks.
    pub(super) fn read_opening(
        &mut self,
        key: u64,
        client: &mut Client<T>,
        mut bytes: Vec<u8>,
    ) -> Option<Turn> {
        let link = &mut client.link;
        let since = mem::replace(&mut link.readable_since, NEVER);
        if link.readable {
            let Ok(n) = link.read(&mut self.buffer) else {
                link.preamble = Some(Preamble::Opening(bytes));
                return self.refused_by_transport(link);
            };
            bytes.extend_from_slice(&self.buffer[..n]);
        }
        match T::Multiplex::opening(&self.shared, &link.transport, &bytes) {
            Opening::More if link.eof => Some(Turn::Close),
            Opening::More => {
                link.preamble = Some(Preamble::Opening(bytes));
                match link.readable {
                    true => None,
                    false => Some(self.wait_to_read(key, link)),
                }
            }
            Opening::Requests => {
                link.preamble = None;
                if !bytes.is_empty() {
                    client.receive(&bytes, since, self.now);
                }
                None
            }
            Opening::Streams => {
                link.preamble = None;
                let limits = self.limits.clone();
                let transport = &link.transport;
                let protocol = T::Multiplex::begin(&mut self.shared, key, transport, &limits);
                let mut multiplexed = Multiplexed::<T> {
                    protocol,
                    idle_since: self.now,
                    used: false,
                    closing_since: NEVER,
                    stands: None,
                };
                multiplexed.protocol.receive(&bytes);
                if self.draining {
                    multiplexed.close(self.now);
                }
                link.task = Task::Multiplexed(Box::new(multiplexed));
                None
            }
        }
    }

    /// A read has failed: what follows, for a peer that was refused and for one that is gone.
    pub(super) fn refused_by_transport(&mut self, link: &mut Link<T>) -> Option<Turn> {
        let Some(why) = link.transport.refusal() else {
            return Some(Turn::Close);
        };
        let (now, origin) = (self.now, &link.origin);
        self.refusals.tell_of_connection(now, origin, why);
        link.preamble = None;
        link.task = Task::Rejected;
        None
    }

    /// The time to show what the connection speaks is over; whether it goes on.
    #[cold]
    pub(super) fn is_late_opening(&mut self, client: &mut Client<T>) -> bool {
        // Something may have come since the last look.
        if let Ok(n @ 1..) = client.link.read(&mut self.buffer) {
            client.take_in(&self.buffer[..n], self.now);
            client.link.deadline = self.after(self.limits.header_timeout);
            return true;
        }
        match client.link.preamble.take() {
            Some(Preamble::Opening(bytes)) if !bytes.is_empty() => {
                client.receive(&bytes, NEVER, self.now);
                let late = client.connection.refused(LATE_HEAD);
                self.reject(client, late);
                true
            }
            _ => false,
        }
    }

    /// Goes on with a connection that carries streams.
    pub(super) fn go_on_multiplexed(
        &mut self,
        key: u64,
        link: &mut Link<T>,
        mut multiplexed: Box<Multiplexed<T>>,
    ) -> Option<Turn> {
        let protocol = &mut multiplexed.protocol;
        if link.readable {
            link.readable_since = NEVER;
            let Ok(n) = link.read(&mut self.buffer) else {
                return self.refused_by_transport(link);
            };
            match n {
                0 if link.eof => protocol.end(),
                n => protocol.receive(&self.buffer[..n]),
            }
        }
        if link.out.is_empty() {
            protocol.reuse(&mut self.spare);
        }
        loop {
            match protocol.next(self.now) {
                Step::Stream(transport) => {
                    self.begin_stream(transport, link.origin);
                    multiplexed.used = true;
                }
                Step::Wait => break,
                Step::Over { why, at_once } => {
                    protocol.output(&mut link.out);
                    if let Some(why) = why {
                        let (now, origin) = (self.now, &link.origin);
                        self.refusals.tell_of_connection(now, origin, &why);
                    }
                    link.eof |= at_once;
                    link.task = Task::Rejected;
                    return None;
                }
            }
        }
        protocol.output(&mut link.out);
        if link.out.is_empty() && link.out.capacity() > 0 {
            self.spare = mem::take(&mut link.out);
        }
        let has_streams = protocol.streams() > 0;
        if multiplexed.stands.replace(has_streams) != Some(has_streams) {
            link.transport.stands(match has_streams {
                true => Standing::Served,
                false => Standing::Idle,
            });
            multiplexed.idle_since = self.now;
        }
        // Only streams prolong it: whatever else comes is no reason to keep a connection.
        let until = match (has_streams, multiplexed.closing_since, multiplexed.used) {
            (true, ..) => None,
            (false, NEVER, true) => Some((multiplexed.idle_since, self.limits.keepalive_timeout)),
            (false, NEVER, false) => Some((multiplexed.idle_since, self.limits.header_timeout)),
            (false, since, _) => Some((since.max(multiplexed.idle_since), DRAIN_GRACE)),
        };
        link.task = Task::Multiplexed(multiplexed);
        if link.has_output() || link.readable {
            return None;
        }
        link.waiting = Phase::Idle;
        link.deadline = until.map_or(NEVER, |(since, duration)| {
            since.saturating_add(self.after(duration) - self.now)
        });
        Some(self.wait_to_read(key, link))
    }

    fn begin_stream(&mut self, transport: T, origin: Origin) {
        let mut link = Link::new(transport, origin);
        link.deadline = self.after(self.limits.header_timeout);
        (link.first, link.received) = (self.now, self.now);
        link.queued = true;
        let mut connection = self.parsers.pop().unwrap_or_else(|| {
            let connection = Connection::with_budget(self.limits.clone(), self.budget.clone());
            Box::new(connection)
        });
        if self.tells_who_left {
            connection.ask();
        }
        let key = self.clients.insert(Client {
            connection,
            link: Box::new(link),
        });
        self.streams += 1;
        self.queue.push_back(key);
    }

    /// The deadline of a connection with streams has passed: it ends in an orderly way if it can. Gives it back if it goes on.
    #[cold]
    pub(super) fn end_multiplexed(&mut self, key: u64, mut client: Client<T>) -> Option<Client<T>> {
        let stuck = client.link.has_output();
        if let Task::Multiplexed(multiplexed) = &mut client.link.task
            && multiplexed.closing_since == NEVER
            && !stuck
        {
            multiplexed.close(self.now);
            return Some(client);
        }
        self.close(key, client);
        None
    }

    /// A drain has begun.
    pub(super) fn drain_multiplexed(&mut self, key: u64) {
        if let Some(client) = self.clients.get_mut(key)
            && let Task::Multiplexed(multiplexed) = &mut client.link.task
        {
            multiplexed.close(self.now);
            if !mem::replace(&mut client.link.queued, true) {
                self.queue.push_back(key);
            }
        }
    }

    /// Queues connections and streams that were woken.
    fn queue_woken(&mut self) {
        while let Some(key) = T::Multiplex::woken(&mut self.shared) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            if client.link.transport.is_stream() {
                let mut flags = EventFlags::IN | EventFlags::OUT;
                flags.set(EventFlags::ERR, client.link.transport.has_left());
                self.note_event(key, flags);
            }
            if let Some(client) = self.clients.get_mut(key)
                && !mem::replace(&mut client.link.queued, true)
            {
                self.queue.push_back(key);
            }
        }
    }
}

impl<E: Engine, O: Observer, T: Transport> Server<E, O, T> {
    /// Looks after connections and streams that were woken, and leaves the rest in the queue.
    pub(super) fn carry(&mut self) {
        self.core.queue_woken();
        for _ in 0..ROUNDS {
            for _ in 0..self.core.queue.len() {
                if let Some(key) = self.core.queue.pop_front() {
                    self.go_on(key);
                }
            }
            if E::SERVES {
                self.let_go();
            }
            self.core.queue_woken();
            if self.core.queue.is_empty() {
                break;
            }
        }
    }
}
