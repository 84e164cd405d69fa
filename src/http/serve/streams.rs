//! What a client sends while its request is answered: the body of a request that is given out as it arrives, or whatever comes after a
//! change of the protocol. It is read only when the service takes more of it, so that a slow upstream slows its client down.

use rustix::event::epoll::EventFlags;

use super::Server;
use super::core::Core;
use super::drive::STEPS;
use crate::message::body::Body;
use crate::net::transport::Transport;
use crate::proto::h1::connection::{Event, Phase};
use crate::proto::reject::Reject;
use crate::serve::client::{Client, Link, Stream, Task};
use crate::serve::engine::{Engine, Taking};
use crate::serve::handler::Observer;

/// What giving out what has arrived has come to.
enum Fed {
    /// Nothing more can be done now.
    Waits,
    /// There may be more to read.
    More,
    /// The client is gone, or has ended its side too early.
    Gone,
    /// What it sends is malformed or too much.
    Bad(Reject),
}

impl<E: Engine, O: Observer, T: Transport> Server<E, O, T> {
    /// The head of a request is there: has it answered at once if its body is given out as it arrives.
    pub(super) fn ask(&mut self, key: u64, mut client: Client<T>) -> Client<T> {
        let taking = self.engine.taking(&client);
        if taking == Taking::Whole {
            return client;
        }
        let is_open = taking == Taking::Open;
        client.connection.stream(is_open);
        client.link.stream = Some(Stream {
            is_open,
            ..Stream::default()
        });
        let response = self.core.respond(&mut client);
        self.submit(key, client, Body::default(), response)
    }

    /// Gives out what has come from a client, and reads more of it.
    pub(super) fn feed(&mut self, key: u64) {
        let client = self.core.clients.get(key);
        if client.is_none_or(|client| client.link.stream.is_none()) {
            return;
        }
        let mut steps = STEPS;
        loop {
            match self.feed_once(key) {
                Fed::Waits => break,
                Fed::More if steps > 0 => steps -= 1,
                Fed::More => {
                    self.core.queue_again(key);
                    break;
                }
                Fed::Gone => {
                    if let Some(client) = self.core.clients.lend(key) {
                        self.core.close(key, client);
                    }
                    return;
                }
                Fed::Bad(reject) => return self.refuse_rest(key, reject),
            }
        }
        self.core.end_direction(key);
    }

    fn feed_once(&mut self, key: u64) -> Fed {
        let core = &mut *self.core;
        let Some(client) = core.clients.get_mut(key) else {
            return Fed::Waits;
        };
        let (Task::Running, Some(stream)) = (&client.link.task, client.link.stream) else {
            return Fed::Waits;
        };
        if !stream.wants {
            return Fed::Waits;
        }
        // Some of it may have come together with the head.
        if let Event::Reject(reject) = client.connection.advance() {
            return Fed::Bad(reject);
        }
        let (bytes, is_complete) = client.connection.take_piece();
        let ended = is_complete || stream.switched && client.link.eof;
        if !bytes.is_empty() || ended {
            let trailers = client.connection.take_trailers();
            if is_complete && !trailers.is_empty() {
                self.engine.trailers(key, &trailers);
            }
            let wants = self.engine.body(key, bytes, ended, core.now);
            if let Some(client) = core.clients.get_mut(key)
                && let Some(stream) = &mut client.link.stream
            {
                (stream.ended, stream.wants) = (ended, wants && !ended);
            }
            return Fed::More;
        }
        core.read_stream(key)
    }

    /// What a client sends cannot be passed on: answers so, or breaks the response off.
    pub(super) fn refuse_rest(&mut self, key: u64, reject: Reject) {
        let now = self.core.now;
        let Some(mut response) = self.engine.left(key, now) else {
            // It was answered meanwhile.
            return;
        };
        let Some(mut client) = self.core.clients.lend(key) else {
            return;
        };
        client.link.stream = None;
        match response.started() {
            true => {
                response.cut();
                client.link.task = Task::Ended(response);
            }
            false => {
                let reject = client.connection.refused(reject);
                self.core.reject(&mut client, reject);
            }
        }
        self.drive(key, client);
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// Reads once from a client whose bytes are wanted.
    fn read_stream(&mut self, key: u64) -> Fed {
        let Some(client) = self.clients.get_mut(key) else {
            return Fed::Waits;
        };
        let Client { connection, link } = client;
        if link.eof {
            return Fed::Gone;
        }
        if !link.readable {
            let most = self.limits.body_timeout;
            // Its end has a limit of the service's own.
            let is_open = link.stream.is_some_and(|stream| stream.is_open);
            if connection.phase() == Phase::Body && !link.has_output() && !is_open {
                link.waiting = Phase::Body;
                let patience = link.body_patience(self.now, most);
                let deadline = self.after(most.min(patience));
                if let Some(mut client) = self.clients.lend(key) {
                    client.link.deadline = deadline;
                    self.arm_link(key, &mut client.link);
                    self.clients.give_back(key, client);
                }
            }
            return Fed::Waits;
        }
        let Ok(n) = link.read(&mut self.buffer) else {
            return Fed::Gone;
        };
        link.silent_since = self.now;
        link.body_bytes += n as u64;
        connection.receive(&self.buffer[..n]);
        Fed::More
    }

    /// Whether a client is late with the body of a request that is being answered.
    pub(super) fn is_late_stream(&mut self, key: u64) -> bool {
        let client = self.clients.get_mut(key);
        client.is_some_and(|client| {
            let link = &client.link;
            let is_waited_for = link.stream.is_some_and(|stream| stream.wants);
            matches!(link.task, Task::Running) && is_waited_for && link.waiting == Phase::Body
        })
    }

    /// Has the connection go on in the next turn.
    fn queue_again(&mut self, key: u64) {
        if let Some(client) = self.clients.get_mut(key)
            && !std::mem::replace(&mut client.link.queued, true)
        {
            self.queue.push_back(key);
        }
    }

    /// Ends what is sent to a client that may go on sending, when all of it was taken.
    fn end_direction(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let link = &mut client.link;
        if let Some(Stream { ends: true, .. }) = link.stream
            && !link.has_output()
        {
            if let Some(stream) = &mut link.stream {
                stream.ends = false;
            }
            // Failure means that it is gone, which the next read finds out.
            let _ = link.transport.finish();
        }
    }
}

impl<T: Transport> Link<T> {
    /// The client may end its side while its request is answered.
    pub fn may_end(&self) -> bool {
        let stream = self.stream.as_ref();
        stream.is_some_and(|stream| stream.switched || !stream.ended)
    }

    /// What tells that nothing can reach the client any more. Both sides of a connection may have ended in an orderly way, with bytes
    /// that were not read.
    pub fn lost(&self) -> EventFlags {
        match self.may_end() {
            true => EventFlags::ERR,
            false => EventFlags::HUP | EventFlags::ERR,
        }
    }
}
