//! Refused clients that may still be sending. To close a connection with unread bytes resets it, and the reset takes the answer away
//! from a client that has not read it yet (RFC 9112 section 9.6). So what it sends is read and dropped for a while.
//!
//! That must not become a way to hold connections. It is bounded in time, also without data, in bytes, and in the share of
//! `max_connections` that may linger: beyond it, the connection that has lingered longest is closed.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::DRAIN_GRACE;
use super::core::Core;
use super::drive::Turn;
use crate::net::transport::Transport;
use crate::serve::client::{Link, Task};
use crate::serve::handler::Observer;
use crate::serve::timers::Instant;

/// How long a client may go on sending.
const TOTAL: Duration = Duration::from_secs(30);
/// How long it may pause.
const SILENCE: Duration = Duration::from_secs(5);
/// How many bytes it may send.
const BYTES: u64 = 1024 * 1024 * 1024;
/// One in so many of `max_connections` may linger.
const SHARE: usize = 4;

/// How far a connection may still linger.
pub(crate) struct Linger {
    until: Instant,
    left: u64,
}

/// The connections that linger, in the order in which they began to.
#[derive(Default)]
pub(super) struct Lingering {
    count: usize,
    /// Also keys of connections that have ended.
    queue: VecDeque<u64>,
}

impl Lingering {
    /// One more.
    fn begin(&mut self, key: u64) {
        self.count += 1;
        self.queue.push_back(key);
    }

    /// One fewer.
    pub fn end(&mut self) {
        self.count -= 1;
        if self.count == 0 {
            self.queue.clear();
        }
    }

    /// Forgets the keys of connections that have ended if there are more than `most` keys.
    fn forget(&mut self, most: usize, exists: impl Fn(u64) -> bool) {
        if self.queue.len() > most {
            self.queue.retain(|&key| exists(key));
        }
    }

    /// The oldest one if there are more than `most`. It may have ended before.
    fn surplus(&mut self, most: usize) -> Option<u64> {
        (self.count > most)
            .then(|| self.queue.pop_front())
            .flatten()
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// The answer to a refused request was sent: drops what else the client sends.
    pub(super) fn linger(&mut self, key: u64, link: &mut Link<T>) -> Option<Turn> {
        if link.transport.finish().is_err() || link.eof {
            return Some(Turn::Close);
        }
        let total = match self.draining {
            true => DRAIN_GRACE,
            false => TOTAL,
        };
        let linger = Linger {
            until: self.after(total),
            left: BYTES,
        };
        self.expect_more(link, &linger);
        link.task = Task::Lingering(linger);
        self.lingering.begin(key);
        let most = (self.limits.max_connections / SHARE).max(1);
        let clients = &self.clients;
        self.lingering.forget(2 * most, |other| {
            other == key || clients.get(other).is_some()
        });
        while let Some(oldest) = self.lingering.surplus(most) {
            if let Some(client) = self.clients.lend(oldest) {
                match client.link.task {
                    Task::Lingering(_) => self.close(oldest, client),
                    _ => self.clients.give_back(oldest, client),
                }
            }
        }
        None
    }

    /// Reads and drops. The turn has ended unless there may be more.
    pub(super) fn go_on_lingering(
        &mut self,
        key: u64,
        link: &mut Link<T>,
        mut linger: Linger,
    ) -> Option<Turn> {
        if !link.readable {
            link.task = Task::Lingering(linger);
            return Some(self.wait_to_read(key, link));
        }
        let read = link.read(&mut self.buffer);
        linger.left = linger.left.saturating_sub(read.unwrap_or(0) as u64);
        let is_over = read.is_err() || link.eof || linger.left == 0 || linger.until <= self.now;
        if read.is_ok_and(|n| n > 0) {
            self.expect_more(link, &linger);
        }
        link.task = Task::Lingering(linger);
        is_over.then_some(Turn::Close)
    }

    fn expect_more(&self, link: &mut Link<T>, linger: &Linger) {
        link.deadline = self.after(SILENCE).min(linger.until);
    }

    /// The deadline of a connection that lingers has passed: whether it goes on, as the loop may have been elsewhere meanwhile.
    pub(super) fn is_lingering_on(&mut self, link: &mut Link<T>) -> bool {
        let Task::Lingering(linger) = mem::take(&mut link.task) else {
            unreachable!("it lingers")
        };
        let goes_on = linger.until > self.now && link.read(&mut self.buffer).is_ok_and(|n| n > 0);
        if goes_on {
            self.expect_more(link, &linger);
        }
        link.task = Task::Lingering(linger);
        goes_on
    }

    /// A drain begins: nobody lingers beyond `grace`.
    pub(super) fn shorten_linger(link: &mut Link<T>, grace: Instant) {
        if let Task::Lingering(linger) = &mut link.task {
            linger.until = linger.until.min(grace);
            link.deadline = link.deadline.min(grace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use rustix::event::epoll::EventFlags;

    use super::*;
    use crate::limits::Limits;
    use crate::serve::accepting::tests::{Idle, waiting};

    const SECOND: Instant = 1_000_000_000;
    const TOO_LARGE: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\nxyz";

    /// A server that has refused so many requests; the keys of its connections.
    fn refused(clients: usize, max_connections: usize) -> (Idle, Vec<UnixStream>, Vec<u64>) {
        let (mut server, streams) = waiting(clients, TOO_LARGE);
        server.core.limits = Arc::new(Limits {
            max_connections,
            ..Limits::default()
        });
        for _ in 0..clients {
            server.accept(0, 0);
        }
        let keys = server.core.clients.keys();
        (server, streams, keys)
    }

    /// Time passes.
    fn pass(server: &mut Idle, time: Instant) {
        server.core.now += time;
        server.expire().unwrap();
    }

    #[test]
    fn a_client_that_goes_on_sending_may_do_so_for_half_a_minute() {
        let (mut server, mut clients, keys) = refused(1, 1000);
        let mut answer = [0; 12];
        clients[0].read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        for _ in 0..7 {
            clients[0].write_all(b"more").unwrap();
            server.event(keys[0], EventFlags::IN);
            pass(&mut server, 4 * SECOND);
            assert_eq!(server.core.clients.len(), 1);
        }
        // The loop was elsewhere for longer than a client may pause.
        clients[0].write_all(b"more").unwrap();
        pass(&mut server, 3 * SECOND);
        assert_eq!(server.core.clients.len(), 0);
    }

    #[test]
    fn a_client_that_sends_nothing_may_do_so_for_five_seconds() {
        let (mut server, mut clients, _) = refused(1, 1000);
        clients[0].write_all(b"more").unwrap();
        pass(&mut server, 6 * SECOND);
        assert_eq!(server.core.clients.len(), 1, "it had sent something");
        pass(&mut server, 4 * SECOND);
        assert_eq!(server.core.clients.len(), 1);
        pass(&mut server, 2 * SECOND);
        assert_eq!(server.core.clients.len(), 0);
    }

    #[test]
    fn a_client_that_has_closed_is_gone_at_once_and_one_that_has_sent_enough_too() {
        let (mut server, mut clients, keys) = refused(2, 1000);
        drop(clients.remove(0));
        server.event(keys[0], EventFlags::IN | EventFlags::RDHUP);
        assert_eq!(server.core.clients.len(), 1);
        let link = &mut server.core.clients.get_mut(keys[1]).unwrap().link;
        let Task::Lingering(linger) = &mut link.task else {
            panic!("it lingers")
        };
        linger.left = 10;
        clients[0].write_all(&[0; 10]).unwrap();
        server.event(keys[1], EventFlags::IN);
        assert_eq!(server.core.clients.len(), 0);
    }

    #[test]
    fn only_a_share_of_the_connections_may_linger() {
        let (server, mut clients, _) = refused(7, 20);
        assert_eq!(server.core.clients.len(), 5);
        for (at, client) in clients.iter_mut().enumerate() {
            client.set_nonblocking(true).unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 413");
            // Those that still linger have sent their last byte, too; a write tells them apart.
            let error = client.write(b"x").err().map(|error| error.kind());
            assert_eq!(error, (at < 2).then_some(ErrorKind::BrokenPipe), "{at}");
        }
    }

    #[test]
    fn at_a_drain_a_client_has_a_second() {
        let (mut server, mut clients, keys) = refused(1, 1000);
        server.core.now = crate::serve::timers::now();
        server.drain();
        clients[0].write_all(b"more").unwrap();
        server.event(keys[0], EventFlags::IN);
        assert_eq!(server.core.clients.len(), 1);
        clients[0].write_all(b"more").unwrap();
        pass(&mut server, 2 * SECOND);
        assert_eq!(server.core.clients.len(), 0);
    }

    #[test]
    fn keys_of_connections_that_have_ended_are_forgotten() {
        let mut lingering = Lingering::default();
        for key in 1..100 {
            lingering.begin(key);
            if key > 1 {
                lingering.end();
            }
            lingering.forget(4, |other| other == 1 || other == key);
            assert!(lingering.queue.len() <= 5);
        }
        lingering.end();
        assert!(lingering.queue.is_empty());
    }
}
