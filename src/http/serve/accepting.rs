//! Taking connections from the listeners, and ceasing to.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::core::Core;
use super::{DRAIN_GRACE, LISTENERS, Server};
use crate::message::request::Origin;
use crate::net::descriptors::Own;
use crate::net::listener::{Accepted, Listener};
use crate::net::multiplex::Multiplex;
use crate::net::transport::Transport;
use crate::proto::h1::connection::{Connection, Phase};
use crate::serve::client::{Client, Link, Task};
use crate::serve::engine::Engine;
use crate::serve::handler::Observer;
use crate::serve::relayed::Preamble;
use crate::serve::timers::{NEVER, now};

/// How long a worker that stops takes from the accept queue as it gets to it; after that it takes at once all that is left.
const SHARED_QUEUE: Duration = Duration::from_secs(2);
/// How long no connection is accepted when no descriptor is left. Short against a client's patience, long enough to cost nothing.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(250);
/// How often a busy worker looks whether somebody waits whom nobody takes: a worker that has nothing to do takes microseconds.
const LOOK: Duration = Duration::from_millis(2);
/// How long a worker whose newest connection has not spoken yet leaves those who still wait to the others, whom the
/// kernel has woken for them: each gets a worker of its own, and none waits behind another's request.
const YIELD: Duration = Duration::from_millis(1);
/// How long the front may take to hear that a worker ends, and to send requests elsewhere. It was told before the worker, so this is
/// one turn of its loop.
const LATE: Duration = Duration::from_millis(250);
/// How long an idle connection of the front is kept at least: longer than the front keeps it, so that a request never meets its end.
const KEPT_FOR_FRONT: Duration = Duration::from_secs(60);
/// Connections that are closed at once, one after the other, before anything else is done.
const REFUSED: usize = 64;
/// Connections that it takes when nobody else did.
const AT_ONCE: usize = 16;

impl<E: Engine, O: Observer, T: Transport> Server<E, O, T> {
    fn may_accept(&self) -> bool {
        self.core.may_accept() && self.engine.is_free()
    }

    /// Watches the listeners if a connection could be served now. The kernel wakes one worker only for a connection, so a
    /// worker that would leave it lying must not be among those that wait.
    pub(super) fn watch_listeners(&mut self) -> io::Result<()> {
        let open = !self.core.draining && self.core.yielding == NEVER && self.may_accept();
        let core = &mut *self.core;
        let taken_from = core.open_listeners();
        for (index, listener) in core.listeners.iter_mut().enumerate() {
            match open && taken_from.contains(&index) {
                true => listener.watch(&core.epoll, LISTENERS + index as u64)?,
                false => listener.unwatch(&core.epoll),
            }
        }
        Ok(())
    }

    /// Takes as many connections as others had their turn, and one at least: what else waits goes to whichever worker is
    /// free first. Fewer would let those who come anew wait behind those who stay.
    pub(super) fn accept(&mut self, index: usize, turns: usize) {
        if self.core.late.is_some() {
            return self.accept_late(AT_ONCE);
        }
        for taken in 0..turns.max(1) {
            // The first even when no thread is free any more since the wait: nobody else was woken for it.
            let core = &self.core;
            let open = !core.draining && core.pause == NEVER && (taken == 0 || self.may_accept());
            let Some(key) = open.then(|| self.core.accept_one(index)).flatten() else {
                break;
            };
            self.core.yielding = self.core.after(YIELD);
            self.go_on(key);
            // The kernel wakes the worker that has watched longest; to begin anew gives the others their turn, and so
            // connections that stay open are spread over the workers.
            let core = &mut *self.core;
            match core.listeners.get_mut(index) {
                Some(listener) => listener.unwatch(&core.epoll),
                // It was asked for the end in that request.
                None => return,
            }
        }
        let core = &mut *self.core;
        if core.yielding != NEVER && !core.listeners.get(index).is_some_and(Listener::has_callers) {
            core.yielding = NEVER;
        }
    }

    /// Takes those whom no other worker took while this one left them to it.
    pub(super) fn cease_to_yield(&mut self) {
        if self.core.yielding > self.core.now {
            return;
        }
        self.core.yielding = NEVER;
        for index in self.core.open_listeners() {
            for _ in 0..AT_ONCE {
                if self.core.draining || !self.may_accept() {
                    return;
                }
                let Some(key) = self.core.accept_one(index) else {
                    self.core.yielding = NEVER;
                    break;
                };
                self.core.yielding = self.core.after(YIELD);
                self.go_on(key);
                if self.core.yielding == NEVER {
                    return;
                }
            }
        }
    }

    /// Where all threads are busy all the time, the listeners are never watched. Those who have been waiting there a while,
    /// as all other workers are busy too, are taken in all the same, and get their turn among the connections that stay.
    pub(super) fn look_for_callers(&mut self) {
        let core = &mut *self.core;
        if core.next_look > core.now
            || core.draining
            || core.pause != NEVER
            || self.engine.is_free()
        {
            return;
        }
        core.next_look = core.after(LOOK);
        for index in self.core.open_listeners() {
            if !self.core.listeners[index].is_left_alone() {
                continue;
            }
            for _ in 0..AT_ONCE {
                if !self.core.may_accept() {
                    return;
                }
                let Some(key) = self.core.accept_one(index) else {
                    break;
                };
                self.go_on(key);
            }
        }
    }

    /// Accepts no more, but for what waits in the accept queues when nobody else is there to take it. That has an
    /// end also where more arrives than can be served: after a while all is taken before any more is served.
    pub(super) fn drain(&mut self) {
        self.core.note_stop();
        if mem::replace(&mut self.core.draining, true) {
            return;
        }
        let mut accepted = Vec::new();
        let share_until = self.core.after(SHARED_QUEUE);
        if !self.core.private && !self.core.observer.is_succeeded() {
            for index in 0..self.core.listeners.len() {
                while !self.core.is_full()
                    && let Some(key) = self.core.accept_one(index)
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
        self.core.cease_to_accept();
        for key in accepted {
            self.go_on(key);
        }
    }

    /// Takes whom the front has sent before it has heard that this worker ends.
    fn accept_late(&mut self, most: usize) {
        for _ in 0..most {
            let Some(key) = self.core.accept_one_late() else {
                return;
            };
            self.go_on(key);
        }
    }

    /// The front has heard by now: takes who waits, and lets go of the last listener.
    #[cold]
    pub(super) fn end_late(&mut self) {
        let mut accepted = Vec::new();
        while let Some(key) = self.core.accept_one_late() {
            accepted.push(key);
        }
        if let Some(mut late) = self.core.late.take() {
            late.unwatch(&self.core.epoll);
        }
        for key in accepted {
            self.go_on(key);
        }
    }
}

/// The listener that no other worker has, while the front may not have heard yet that this worker ends.
#[derive(Debug)]
pub(super) struct Late {
    listener: Listener,
    index: usize,
}

impl Late {
    /// Who waits there waits until [`LATE`] is over.
    pub fn unwatch(&mut self, epoll: &Own) {
        self.listener.unwatch(epoll);
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    fn may_accept(&self) -> bool {
        self.pause == NEVER && (!self.is_full() || self.room.full_until == NEVER)
    }

    /// The listeners from which connections are taken.
    fn open_listeners(&self) -> Range<usize> {
        let all = self.listeners.len();
        match self.private {
            true => all.saturating_sub(1)..all,
            false => 0..all,
        }
    }

    fn accept_one(&mut self, index: usize) -> Option<u64> {
        if self.is_full() && !(self.listeners.get(index)?.has_callers() && self.make_room()) {
            return None;
        }
        for _ in 0..REFUSED {
            match self.listeners.get_mut(index)?.accept() {
                Accepted::Connection(socket, peer) => {
                    let admitted = self.admit(index, socket, peer);
                    if admitted.is_some() {
                        return admitted;
                    }
                }
                Accepted::Nobody => break,
                Accepted::Over => {
                    // The probes are over. The listener keeps its place, as connections name theirs by it.
                    self.listeners[index].unwatch(&self.epoll);
                    self.private &= index + 1 < self.listeners.len();
                    break;
                }
                Accepted::Exhausted(error) => {
                    if !mem::replace(&mut self.exhausted, true) {
                        log::error!(
                            "could not accept a connection: {error}; trying again every {EXHAUSTED_PAUSE:?} until it works"
                        );
                    }
                    self.pause = self.after(EXHAUSTED_PAUSE);
                    break;
                }
            }
        }
        None
    }

    /// The same at the listener of which the front may not have heard yet that it ends.
    fn accept_one_late(&mut self) -> Option<u64> {
        let late = self.late.as_mut()?;
        let index = late.index;
        match late.listener.accept() {
            Accepted::Connection(socket, peer) => self.admit(index, socket, peer),
            Accepted::Nobody | Accepted::Over | Accepted::Exhausted(_) => None,
        }
    }

    /// A connection has come in; none if it is closed again.
    fn admit(&mut self, index: usize, socket: OwnedFd, peer: Option<SocketAddr>) -> Option<u64> {
        self.exhausted = false;
        let origin = Origin {
            listener: index,
            peer,
            relayed: None,
        };
        let mut transport = T::new(&mut self.shared, socket, &origin);
        let preamble = self.preamble(&origin);
        let is_told = matches!(preamble, Some(Preamble::Header(_) | Preamble::Untrusted));
        if !is_told && let Err(why) = transport.admit(&mut self.shared, &origin) {
            self.turn_away(&origin, why);
            return None;
        }
        let mut link = Link::new(transport, origin);
        link.preamble = preamble;
        link.deadline = self.after(self.limits.header_timeout);
        let kept = self.limits.keepalive_timeout;
        link.is_front = self.front.all.contains(&index);
        let limits = match link.is_front {
            true => &self.limits_for_front,
            false => &self.limits,
        };
        link.kept = match link.is_front {
            true => kept.max(KEPT_FOR_FRONT),
            false => kept,
        };
        if link.is_front && link.preamble.is_none() {
            link.preamble = Some(Preamble::Offer);
        }
        let mut connection = Box::new(Connection::with_budget(limits.clone(), self.budget.clone()));
        if self.tells_who_left {
            connection.ask();
        }
        let key = self.clients.insert(Client {
            connection,
            link: Box::new(link),
        });
        self.observer.connections(self.clients.len() - self.streams);
        Some(key)
    }

    /// The last listener that is left in a drain: where others follow, the front may still connect to this worker.
    fn late(&mut self) -> Option<Late> {
        let index = self.front.own?;
        let is_late = !self.private && self.observer.is_succeeded();
        (is_late && index < self.listeners.len()).then(|| Late {
            listener: self.listeners.swap_remove(index),
            index,
        })
    }

    /// Lets go of the listeners, says so, and has idle connections end soon.
    pub(super) fn cease_to_accept(&mut self) {
        // Closing a socket takes it out of epoll only when no other process holds it.
        for listener in &mut self.listeners {
            listener.unwatch(&self.epoll);
        }
        self.late = self.late();
        self.listeners.clear();
        self.observer.draining();
        self.now = now();
        if let Some(mut late) = self.late.take()
            && late
                .listener
                .watch(&self.epoll, LISTENERS + late.index as u64)
                .is_ok()
        {
            self.late = Some(late);
            self.pause = self.after(LATE);
        }
        let grace = self.after(DRAIN_GRACE);
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            let is_idle = matches!(client.link.task, Task::None)
                && !client.link.ready
                && client.connection.phase() == Phase::Idle;
            if is_idle {
                client.link.deadline = client.link.deadline.min(grace);
            }
            Self::shorten_linger(&mut client.link, grace);
            self.arm(key);
            if T::Multiplex::EXISTS {
                self.drain_multiplexed(key);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;

    use super::*;
    use crate::exchange::Exchange;
    use crate::files::Files;
    use crate::limits::Limits;
    use crate::message::body::Body;
    use crate::message::request::Request;
    use crate::net::plain::Plain;
    use crate::serve::engine::Inline;
    use crate::serve::handler::Handler;
    use crate::serve::{Config, FrontListeners, NOT_BEGUN};

    pub(in crate::serve) struct Empty;

    impl Handler for Empty {
        fn call(
            &mut self,
            _: Request<'_>,
            _: &Origin,
            _: Body,
            mut exchange: Exchange,
        ) -> Exchange {
            exchange.begin(b"204 No Content").unwrap();
            exchange.finish(Some(0));
            exchange.end();
            exchange
        }
    }

    /// A server whose loop does not run.
    pub(in crate::serve) type Idle = Server<Inline<'static, Empty>, (), Plain>;

    /// A server at whose listener `clients` wait; each has sent the bytes. On a Unix socket, as who has connected there is in
    /// the accept queue.
    pub(in crate::serve) fn waiting(clients: usize, sent: &[u8]) -> (Idle, Vec<UnixStream>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        at(&path, clients, sent, ())
    }

    fn at<O: Observer>(
        path: &std::path::Path,
        clients: usize,
        sent: &[u8],
        observer: O,
    ) -> (Server<Inline<'static, Empty>, O, Plain>, Vec<UnixStream>) {
        let listener = UnixListener::bind(path).unwrap();
        let clients = (0..clients)
            .map(|_| {
                let mut client = UnixStream::connect(path).unwrap();
                client.write_all(sent).unwrap();
                client
            })
            .collect();
        let (_, stop) = UnixStream::pair().unwrap();
        let config = Config {
            limits: Arc::new(Limits::default()),
            listeners: vec![listener.into()],
            private: false,
            front: FrontListeners::default(),
            proxy_protocol: None,
            files: Files::default(),
            layers: Vec::new(),
            stop: vec![stop.into()],
            signals: None,
        };
        let engine = Inline(Box::leak(Box::new(Empty)));
        let server = Server::new(config, (), engine, observer).unwrap();
        (server, clients)
    }

    /// Others take the place of this worker.
    struct Succeeded;

    impl Observer for Succeeded {
        fn is_succeeded(&self) -> bool {
            true
        }
    }

    #[test]
    fn the_front_is_served_until_it_has_heard_that_the_worker_ends() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (mut server, clients) = at(&path, 1, get, Succeeded);
        server.core.front = FrontListeners {
            all: vec![0],
            own: Some(0),
        };
        server.drain();
        assert!(server.core.listeners.is_empty());
        assert!(server.core.pause <= server.core.after(LATE));
        let read = |mut client: UnixStream| {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        };
        server.accept(0, 1);
        let [waiting] = <[UnixStream; 1]>::try_from(clients).unwrap();
        assert!(read(waiting).contains("Connection: close"));
        let mut late = UnixStream::connect(&path).unwrap();
        late.write_all(get).unwrap();
        server.core.now = server.core.pause;
        server.expire().unwrap();
        assert!(read(late).starts_with("HTTP/1.1 204"));
        assert!(server.core.late.is_none());
        UnixStream::connect(&path).expect_err("nobody listens");
    }

    #[test]
    fn a_request_that_the_front_has_taken_back_is_not_begun() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (all, is_answered) in [(vec![0], false), (vec![], true)] {
            let (mut server, mut clients) = waiting(1, get);
            server.core.front.all = all;
            clients[0].shutdown(std::net::Shutdown::Write).unwrap();
            server.accept(0, 1);
            drop(server);
            let mut answer = String::new();
            clients[0].read_to_string(&mut answer).unwrap();
            match is_answered {
                true => assert!(answer.starts_with("HTTP/1.1 204"), "{answer}"),
                // The front may have looked after it was read, and would wait for the response.
                false => assert_eq!(answer.as_bytes(), [NOT_BEGUN]),
            }
        }
    }

    #[test]
    fn a_request_of_the_front_is_not_read_before_it_can_begin() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (all, is_left) in [(vec![0], true), (vec![], false)] {
            let (mut server, _clients) = waiting(1, get);
            server.core.front.all = all;
            let key = server.core.accept_one(0).unwrap();
            // The thread is in another request.
            server.core.go_on_between(key);
            let client = server.core.clients.get_mut(key).unwrap();
            let is_unread = client.connection.phase() == Phase::Idle;
            assert_eq!((is_unread, client.link.ready), (is_left, true));
            assert_eq!(server.core.next_ready(), Some(key));
            server.go_on(key);
            assert_eq!(
                server.core.clients.get_mut(key).unwrap().connection.phase(),
                Phase::Idle
            );
        }
    }

    #[test]
    fn a_connection_of_the_front_is_kept_longer_than_the_front_keeps_it() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (all, kept) in [(vec![], Duration::from_secs(1)), (vec![0], KEPT_FOR_FRONT)] {
            let (mut server, _clients) = waiting(1, get);
            Arc::make_mut(&mut server.core.limits).keepalive_timeout = Duration::from_secs(1);
            server.core.front.all = all;
            server.accept(0, 1);
            let key = server.core.clients.keys()[0];
            let after = server.core.after(kept);
            let deadline = server.core.clients.get_mut(key).unwrap().link.deadline;
            assert!(
                deadline <= after && after - deadline < 1_000_000_000,
                "{kept:?}"
            );
        }
    }

    #[test]
    fn what_the_front_adds_to_a_request_does_not_count_for_the_limits_of_its_head() {
        use crate::limits::{FIELDS_OF_FRONT, MOST_FIELDS};
        let most = [MOST_FIELDS - 1, MOST_FIELDS, MOST_FIELDS + FIELDS_OF_FRONT];
        let rows = [
            // Host counts.
            (false, most[0], "204"),
            (false, most[1], "431"),
            (true, most[1], "204"),
            (true, most[2] - 1, "204"),
            (true, most[2], "431"),
        ];
        for (is_front, number, expected) in rows {
            let get = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(number)
            );
            let (mut server, mut clients) = waiting(1, get.as_bytes());
            let limits = Limits {
                max_head: get.len() - if is_front { 1000 } else { 0 },
                max_fields: MOST_FIELDS,
                ..Limits::default()
            };
            server.core.limits_for_front = Arc::new(limits.with_room_for_front());
            server.core.limits = Arc::new(limits);
            server.core.front.all = is_front.then_some(0).into_iter().collect();
            server.drain();
            drop(server);
            let mut answer = String::new();
            clients[0].read_to_string(&mut answer).unwrap();
            let status = answer.split(' ').nth(1);
            assert_eq!(status, Some(expected), "{is_front} {number}");
        }
    }

    #[test]
    fn who_waits_behind_a_silent_connection_is_left_to_other_workers_for_a_while() {
        let (mut server, _clients) = waiting(3, b"");
        server.accept(0, 0);
        server.cease_to_yield();
        server.watch_listeners().unwrap();
        assert_eq!(server.core.clients.len(), 1);
        assert!(!server.core.listeners[0].is_watched());
        assert!(server.core.yielding <= server.core.after(YIELD));

        server.core.now += 1_000_000;
        server.cease_to_yield();
        server.watch_listeners().unwrap();
        assert_eq!(server.core.clients.len(), 3, "nobody else took them");
        assert!(server.core.listeners[0].is_watched());
    }

    #[test]
    fn a_crowd_of_silent_connections_is_taken_in_by_and_by() {
        let (mut server, _clients) = waiting(2 * AT_ONCE, b"");
        server.accept(0, 0);
        server.core.now += 1_000_000;
        server.cease_to_yield();
        server.watch_listeners().unwrap();
        assert_eq!(server.core.clients.len(), 1 + AT_ONCE);
        assert!(!server.core.listeners[0].is_watched());
    }

    #[test]
    fn the_next_is_taken_at_once_when_nobody_waits_or_the_request_was_answered() {
        for (clients, sent) in [(1, &b""[..]), (2, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")] {
            let (mut server, _clients) = waiting(clients, sent);
            server.accept(0, 0);
            server.watch_listeners().unwrap();
            assert!(server.core.listeners[0].is_watched(), "{clients} clients");
        }
    }

    #[test]
    fn a_request_ends_the_wait() {
        let (mut server, mut clients) = waiting(2, b"");
        server.accept(0, 0);
        clients[0]
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let key = server.core.clients.keys()[0];
        server.event(key, rustix::event::epoll::EventFlags::IN);
        server.watch_listeners().unwrap();
        assert!(server.core.listeners[0].is_watched());
    }

    #[test]
    fn a_connection_whose_request_is_in_the_socket_is_not_closed_to_make_room() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (mut server, mut clients) = waiting(3, get);
        Arc::make_mut(&mut server.core.limits).max_connections = 2;
        server.accept(0, 2);
        assert_eq!(server.core.clients.len(), 2);
        clients[0].write_all(get).unwrap();
        let keys = server.core.clients.keys();
        for (n, &key) in keys.iter().enumerate() {
            // The first has been idle for longest.
            let link = &mut server.core.clients.get_mut(key).unwrap().link;
            link.deadline -= 1_000_000_000 * (3 - n as u64);
        }
        server.accept(0, 1);
        let left = server.core.clients.keys();
        assert!(left.contains(&keys[0]) && !left.contains(&keys[1]));
        assert_eq!((left.len(), server.core.queue.len()), (2, 1));
    }

    #[test]
    fn at_the_limit_nobody_is_looked_for_all_the_time() {
        let (mut server, _clients) = waiting(3, b"");
        Arc::make_mut(&mut server.core.limits).max_connections = 2;
        server.accept(0, 2);
        server.accept(0, 1);
        server.watch_listeners().unwrap();
        assert_eq!(server.core.clients.len(), 2);
        assert!(!server.core.listeners[0].is_watched());
        assert!(server.core.room.full_until < server.core.now + 2_000_000_000);
    }
}
