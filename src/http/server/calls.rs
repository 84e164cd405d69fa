//! Requests on their way to the handler, and its replies on their way back.

use std::mem;

use super::Server;
use crate::client::{Client, Task};
use crate::connection::Phase;
use crate::engine::{Engine, Work};
use crate::files::Part;
use crate::handler::{Next, Observer, Reply};
use crate::request::Request;
use crate::response::Response;
use crate::timers::{NEVER, now};

impl<E: Engine, O: Observer> Server<E, O> {
    /// Takes replies from the pool's threads.
    pub(super) fn collect(&mut self) {
        while let Some((key, reply)) = self.engine.collect() {
            self.now = now();
            self.running.retain(|(running, _)| *running != key);
            self.note_running();
            let Some(mut client) = self.clients.lend(key) else {
                continue;
            };
            self.take_reply(&mut client, reply);
            self.drive(key, client);
        }
    }

    pub(super) fn dispatch(&mut self, key: u64, client: &mut Client<E::Stream>) {
        self.yielding = NEVER;
        client.began = now();
        client.waiting = Phase::Done;
        client.body_since = NEVER;
        client.deadline = NEVER;
        let keep = client.connection.keep_alive() && !self.draining;
        let body = client.connection.take_body();
        let request = client.connection.request();
        let head_only = request.method() == b"HEAD";
        let mut response = Response::new(
            mem::take(&mut self.spare),
            request.is_http11(),
            head_only,
            keep,
        );
        if !self.files.is_empty() {
            match self.files.answer(request, response) {
                Ok((mut response, part)) => {
                    client.out = response.take_out();
                    client.task = match part {
                        Some(Part {
                            file,
                            offset,
                            length,
                        }) => {
                            let left = response.pass(length);
                            Task::File {
                                file,
                                offset,
                                left,
                                stream: None,
                                response,
                            }
                        }
                        None => Task::Ended(response),
                    };
                    return;
                }
                Err(back) => response = back,
            }
        }
        match body {
            Ok(body) => {
                self.running.push_back((key, client.began));
                match self.running.len() {
                    1 => self.observer.busy(client.began, 1, request),
                    threads => self.observer.threads(threads),
                }
                let work = Work::Call {
                    request,
                    origin: client.origin,
                    body,
                    response,
                };
                let reply = self.engine.submit(key, work);
                self.submitted(client, reply);
            }
            Err(error) => {
                log::error!(
                    "could not read a request body back from its temporary file: {error}; answering 500"
                );
                response.fail(500, "the request body could not be read\n");
                self.take_reply(
                    client,
                    Reply {
                        response,
                        next: Next::Done,
                    },
                );
            }
        }
    }

    pub(super) fn submit(
        &mut self,
        key: u64,
        client: &mut Client<E::Stream>,
        work: Work<Request<'_>, E::Stream>,
    ) {
        let now = now();
        self.running.push_back((key, now));
        match self.running.len() {
            1 => self.observer.busy(now, 1, client.connection.request()),
            threads => self.observer.threads(threads),
        }
        let reply = self.engine.submit(key, work);
        self.submitted(client, reply);
    }

    fn submitted(&mut self, client: &mut Client<E::Stream>, reply: Option<Reply<E::Stream>>) {
        match reply {
            Some(reply) => {
                self.now = now();
                if let Some((_, began)) = self.running.pop_front() {
                    self.cork.called(self.now.saturating_sub(began));
                    if self.cork.is_due(self.now) {
                        // This client is not in its place.
                        client.push();
                        self.push();
                    }
                }
                self.observer.idle();
                self.take_reply(client, reply);
            }
            None => {
                client.task = Task::Running;
                client.deadline = NEVER;
            }
        }
    }

    /// Tells the observer of the oldest request that runs on the pool.
    pub(super) fn note_running(&mut self) {
        match self.running.front() {
            Some(&(key, since)) => {
                if let Some(client) = self.clients.get(key) {
                    self.observer
                        .busy(since, self.running.len(), client.connection.request());
                }
            }
            None => self.observer.idle(),
        }
    }

    fn take_reply(&mut self, client: &mut Client<E::Stream>, reply: Reply<E::Stream>) {
        let Reply { mut response, next } = reply;
        client.out = response.take_out();
        if response.ends_with_connection() && !matches!(next, Next::Done) {
            client.reset_at_death(true);
        }
        client.task = match next {
            Next::Done => Task::Ended(response),
            Next::More(stream) => Task::Parked(stream, response),
            Next::File {
                file,
                offset,
                length,
                stream,
            } => {
                let left = response.pass(length);
                Task::File {
                    file,
                    offset,
                    left,
                    stream: Some(stream),
                    response,
                }
            }
        };
    }
}
