//! What the loop does for a `Service`: it sends what was made, tells who has left and how much waits.

use std::mem;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use super::core::Core;
use super::{READ_BUFFER, Server};
use crate::limits::Limits;
use crate::message::backlog::Backlog;
use crate::message::budget::Budget;
use crate::net::transport::Transport;
use crate::proto::h1::connection::Phase;
use crate::serve::client::{Client, Link, Stream, Task};
use crate::serve::engine::{Answer, Engine, Output};
use crate::serve::handler::Observer;
use crate::serve::timers::{NEVER, now};

/// So much of a response waits without a backlog.
const LITTLE: usize = 64 * 1024;

impl<E: Engine, O: Observer, T: Transport> Server<E, O, T> {
    /// Has the service do what is due, and sends what it has made.
    pub(super) fn serve(&mut self) {
        self.let_go();
        self.core.now = now();
        self.engine.turn(self.core.now);
        while let Some((key, output)) = self.engine.output() {
            if let Some(client) = self.core.take_output(key, output) {
                self.drive(key, client);
            }
        }
        self.let_go();
    }

    /// Tells the service whose client has left, and ends what they have asked for.
    pub(super) fn let_go(&mut self) {
        while let Some(key) = self.core.left.pop() {
            let now = self.core.now;
            // Unless it has been answered meanwhile.
            if let Some(response) = self.engine.left(key, now) {
                let client = self.core.take_output(key, Output::Done(response));
                debug_assert!(client.is_none(), "it has left");
            }
        }
    }

    /// Tells the service how much of what it has made waits for the client.
    pub(super) fn tell_waiting(&mut self, key: u64) {
        if let Some(client) = self.core.clients.get(key)
            && let Task::Running = client.link.task
        {
            let waiting = client.link.waiting();
            self.engine.waiting(key, waiting, self.core.now);
        }
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// Watches a connection whose request runs, so that it is seen when its client leaves.
    pub(super) fn watch_client(&mut self, key: u64, client: &mut Client<T>) {
        let link = &mut client.link;
        link.broken |= link.transport.watch(&self.epoll, key, false).is_err();
    }

    /// Takes a client that has closed its side while its request runs for gone: nobody can tell whether it only has nothing more to
    /// say, and nearly always it wants no answer any more. One that had closed before gets its answer.
    pub(super) fn note_left(&mut self, key: u64, flags: EventFlags) {
        if flags.contains(EventFlags::RDHUP)
            && let Some(client) = self.clients.get_mut(key)
        {
            client.link.broken |=
                matches!(client.link.task, Task::Running) && !client.link.may_end();
        }
    }

    /// Takes what a service has made. Gives the connection back if it goes on.
    fn take_output(&mut self, key: u64, output: Output) -> Option<Client<T>> {
        let mut client = self.clients.lend(key)?;
        let link = &mut client.link;
        match (output, &link.task) {
            (Output::Done(mut response), Task::Running) => {
                link.stream = None;
                // What is to come of its body is no request.
                if client.connection.phase() == Phase::Body {
                    response.close();
                }
                let part = None;
                self.take_answer(&mut client, Answer { response, part });
                return Some(client);
            }
            (Output::File(mut response, named), Task::Running) => {
                link.stream = None;
                if client.connection.phase() == Phase::Body {
                    response.close();
                }
                let request = client.connection.request();
                let (response, part) = self.files.send(&named, request, response, self.now);
                let part = part.map(Box::new);
                self.take_answer(&mut client, Answer { response, part });
                return Some(client);
            }
            (Output::Again(response), Task::Running) => {
                link.stream = None;
                link.task = Task::None;
                client.connection.ask_again();
                self.kept = Some(response);
                return Some(client);
            }
            (Output::Begins, Task::Running) => link.began = self.now,
            (Output::Wants, Task::Running) => {
                if let Some(stream) = &mut link.stream {
                    stream.wants = !stream.ended;
                }
                if client.connection.take_expectation() {
                    link.append(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
                }
                // The time that it has waited is not the client's.
                link.body_since = NEVER;
                return Some(client);
            }
            (Output::Switched(piece), Task::Running) => {
                link.append(piece.bytes);
                client.connection.switch();
                link.stream = Some(Stream {
                    wants: true,
                    switched: true,
                    ..Stream::default()
                });
                return Some(client);
            }
            (Output::Ends, Task::Running) => {
                if let Some(stream) = &mut link.stream {
                    stream.ends = true;
                }
                return Some(client);
            }
            (Output::Piece(piece), Task::Running) => {
                if piece.closes {
                    link.transport.reset_at_death(true);
                }
                link.hold(piece.bytes, &self.limits, &self.budget);
                return Some(client);
            }
            (
                Output::Done(mut response)
                | Output::Again(mut response)
                | Output::File(mut response, _),
                Task::Left,
            ) => {
                response.cut();
                link.task = Task::Ended(response);
                self.close(key, client);
                return None;
            }
            _ => {}
        }
        self.clients.give_back(key, client);
        None
    }
}

impl<T: Transport> Link<T> {
    /// Takes a piece of a response to write after what is there. What a slow client has not taken goes to the backlog, in memory and
    /// then in a file, so that whoever makes it need not wait. After a change of the protocol it is to wait, as its peer expects.
    fn hold(&mut self, bytes: Vec<u8>, limits: &Limits, budget: &Arc<Budget>) {
        let waiting = self.out.len() - self.written;
        let is_little = waiting == 0 || waiting + bytes.len() <= LITTLE;
        let switched = self.stream.is_some_and(|stream| stream.switched);
        match &self.backlog {
            Some(backlog) => backlog.hold(bytes),
            None if is_little || switched => self.append(bytes),
            None => {
                let backlog = Arc::new(Backlog::new(limits, budget));
                backlog.outside(waiting);
                backlog.hold(bytes);
                self.backlog = Some(backlog);
            }
        }
    }

    /// The bytes that wait for the client, if there is no place where more of them may.
    fn waiting(&self) -> usize {
        match &self.backlog {
            Some(backlog) => backlog.excess(READ_BUFFER).unwrap_or(0),
            None => self.out.len() - self.written,
        }
    }

    /// Takes bytes to write after those that are there.
    fn append(&mut self, bytes: Vec<u8>) {
        if self.written == self.out.len() {
            self.out = bytes;
            self.written = 0;
            return;
        }
        // What is gone must not pile up when the client never takes everything.
        if self.written >= self.out.len() / 2 {
            self.out.drain(..mem::take(&mut self.written));
        }
        self.out.extend_from_slice(&bytes);
    }
}
