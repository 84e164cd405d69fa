//! Requests on their way to the handler, and its responses on their way back.

use std::mem;

use super::Server;
use super::between::NOT_COUNTED;
use super::core::Core;
use crate::message::body::Body;
use crate::message::response::Response;
use crate::net::standing::Standing;
use crate::net::transport::Transport;
use crate::proto::h1::connection::Phase;
use crate::serve::client::{Client, Task};
use crate::serve::engine::{Answer, Engine, Report};
use crate::serve::handler::Observer;
use crate::serve::timers::{Instant, NEVER, now};

impl<E: Engine, O: Observer, T: Transport> Server<E, O, T> {
    /// Takes reports from the pool's threads.
    pub(super) fn collect(&mut self) {
        while let Some((key, report)) = self.engine.collect() {
            self.core.now = now();
            let Some(client) = self.core.hear(key, report) else {
                continue;
            };
            self.drive(key, client);
        }
    }

    /// Has the handler answer the request that is there.
    pub(super) fn dispatch(&mut self, key: u64, mut client: Client<T>) -> Client<T> {
        let core = &mut *self.core;
        core.yielding = NEVER;
        let mut response = core.respond(&mut client);
        match client.connection.take_body() {
            Ok(body) => self.submit(key, client, body, response),
            Err(error) => {
                log::error!(
                    "could not read a request body back from its file: {error}; answering 500"
                );
                response.fail(500, "the request body could not be read\n");
                let part = None;
                core.take_answer(&mut client, Answer { response, part });
                client
            }
        }
    }

    pub(super) fn submit(
        &mut self,
        key: u64,
        mut client: Client<T>,
        body: Body,
        response: Response,
    ) -> Client<T> {
        let core = &mut *self.core;
        match self.engine.is_free() {
            // How long a request may run is the business of the service.
            true if E::SERVES => {}
            true => core.begins(key, &client),
            false => {
                client.link.transport.stands(Standing::Waiting);
                core.waiting.push_back(key);
            }
        }
        client.link.task = Task::Running;
        let (mut client, answer) = self
            .engine
            .submit(&mut self.core, key, client, body, response);
        if let Some(mut answer) = answer {
            self.core.running.pop_front();
            if E::SERVES {
                note_early(&mut client, &mut answer);
            }
            self.core.take_answer(&mut client, answer);
        } else if E::SERVES {
            self.core.watch_client(key, &mut client);
        }
        client
    }
}

/// A request was answered at once, perhaps before its body was there: what is to come of that is no request.
fn note_early<T: Transport>(client: &mut Client<T>, answer: &mut Answer) {
    client.link.stream = None;
    if client.connection.phase() == Phase::Body {
        answer.response.close();
    }
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// A response to the request that is there, whose time begins.
    pub(super) fn respond(&mut self, client: &mut Client<T>) -> Response {
        let link = &mut client.link;
        link.arrived = link.received;
        link.began = now();
        link.unlogged = true;
        link.transport.stands(Standing::Served);
        link.silent_since = link.began;
        link.waiting = Phase::Done;
        link.body_since = NEVER;
        link.deadline = NEVER;
        // What the front has sent on a lane before it heard of the drain is served.
        let drains = self.draining && !(link.transport.has_lane() && client.connection.has_input());
        let keep = client.connection.keep_alive() && !drains && link.transport.is_kept();
        let request = client.connection.request();
        let (http11, head_only) = (request.is_http11(), request.method() == b"HEAD");
        let mut response = match self.kept.take() {
            Some(mut response) => {
                response.renew(http11, head_only, keep);
                response
            }
            None => Response::new(http11, head_only, keep),
        };
        response.give_out(mem::take(&mut self.spare));
        self.layers.show(&mut response, &client.connection);
        response
    }

    /// Answers a request for a static file; whether it was one.
    #[inline(always)]
    pub(super) fn answer_file(&mut self, client: &mut Client<T>) -> bool {
        !self.files.is_empty() && self.find_file(client)
    }

    #[inline(never)]
    fn find_file(&mut self, client: &mut Client<T>) -> bool {
        let Some(found) =
            self.files
                .find(client.connection.request(), &client.link.origin, self.now)
        else {
            return false;
        };
        if client.link.transport.has_lane() && !client.link.transport.begins() {
            // It was taken back.
            client.link.broken = true;
            return true;
        }
        self.yielding = NEVER;
        client.link.transport.carries(client.connection.request());
        let response = self.respond(client);
        // A request for a file has no use for its body.
        drop(client.connection.take_body());
        let (response, part) = found.answer(client.connection.request(), response);
        let part = part.map(Box::new);
        self.take_answer(client, Answer { response, part });
        true
    }

    pub(super) fn take_answer(&mut self, client: &mut Client<T>, answer: Answer) {
        let Answer { mut response, part } = answer;
        let link = &mut client.link;
        let last = response.take_out();
        match last.is_empty() && last.capacity() > 0 && last.capacity() <= super::KEPT_OUTPUT {
            true => self.spare = last,
            false => link.finish(last),
        }
        if part.is_some() && response.ends_with_connection() {
            link.transport.reset_at_death(true);
        }
        link.task = match part {
            Some(part) => Task::File { part, response },
            None => Task::Ended(response),
        };
    }

    /// A thread of the pool tells about its request. Gives the connection back if it goes on.
    fn hear(&mut self, key: u64, report: Report) -> Option<Client<T>> {
        let since = match report {
            Report::Piece(_) | Report::Alive => Some(self.now),
            Report::Waiting => Some(NOT_COUNTED),
            Report::Done(_) => None,
        };
        let quiet = matches!(report, Report::Alive);
        self.restart(key, since);
        let mut client = self.clients.lend(key)?;
        let link = &mut client.link;
        let left = matches!(link.task, Task::Left);
        match report {
            Report::Piece(backlog) => {
                backlog.end_to_tell();
                if left {
                    backlog.leave();
                } else {
                    if backlog.is_closing() {
                        link.transport.reset_at_death(true);
                    }
                    link.backlog = Some(backlog);
                }
            }
            Report::Alive | Report::Waiting => {}
            Report::Done(mut answer) => {
                if left {
                    answer.response.cut();
                    link.task = Task::Ended(answer.response);
                    self.close(key, client);
                    return None;
                }
                self.take_answer(&mut client, *answer);
                return Some(client);
            }
        }
        if !left {
            // So that it is seen when the client leaves.
            link.broken |= link.transport.watch(&self.epoll, key, false).is_err();
            link.broken |= quiet && link.is_silent(self.now);
        }
        Some(client)
    }

    /// A thread takes a request.
    fn begins(&mut self, key: u64, client: &Client<T>) {
        let began = client.link.began;
        self.running.push_back((key, began));
        match self.running.len() {
            1 => self.observer.busy(began, 1, client.connection.request()),
            threads => self.observer.threads(threads),
        }
    }

    /// A running request counts from `since` on; none when it is over. The thread goes on with the one that has waited longest.
    fn restart(&mut self, key: u64, since: Option<Instant>) {
        match since {
            Some(since) => {
                if let Some(entry) = self.running.iter_mut().find(|entry| entry.0 == key) {
                    entry.1 = since;
                }
            }
            None => {
                self.running.retain(|(running, _)| *running != key);
                if let Some(next) = self.waiting.pop_front()
                    && let Some(client) = self.clients.get_mut(next)
                {
                    client.link.began = self.now;
                    client.link.transport.stands(Standing::Served);
                    self.running.push_back((next, self.now));
                }
            }
        }
        self.note_running();
    }

    /// Tells the observer of the oldest request that runs on the pool.
    fn note_running(&mut self) {
        let oldest = self.running.iter().min_by_key(|(_, since)| *since);
        match oldest {
            Some(&(key, since)) => {
                if let Some(client) = self.clients.get(key) {
                    self.observer
                        .busy(since, self.running.len(), client.connection.request());
                }
            }
            None => self.observer.idle(),
        }
    }
}
