//! One connection's turn: write, go on with the response, read, call the handler; as far as it goes without waiting.

use std::mem;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::connect_unspec;

use super::{DRAIN_GRACE, KEPT_OUTPUT, Server};
use crate::access::Entry;
use crate::client::{Client, Flow, Task};
use crate::connection::{Event, Phase};
use crate::engine::{Engine, Work};
use crate::handler::Observer;
use crate::response::Response;
use crate::timers::{NEVER, now};

/// Steps that a connection may take before others get their turn: reads, pieces of a stream, pieces of a file.
const STEPS: usize = 16;
/// How long a rejected client may go on sending before the connection is closed under it: to close with unread bytes
/// resets the connection and takes the answer away (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a file given to the kernel at a time.
const FILE_PIECE: u64 = 256 * 1024;

/// How a connection's turn ended.
enum Turn {
    /// It waits for its socket, its deadline or a thread.
    Wait,
    /// It could go on.
    Queue,
    /// It is over.
    Close,
}

type Tenant<E> = Box<Client<<E as Engine>::Stream>>;

impl<E: Engine, O: Observer> Server<E, O> {
    pub(super) fn go_on(&mut self, key: u64) {
        if let Some(client) = self.clients.lend(key) {
            self.drive(key, client);
        }
    }

    pub(super) fn drive(&mut self, key: u64, mut client: Tenant<E>) {
        match self.turn(key, &mut client) {
            Turn::Close => self.close(key, &mut client),
            Turn::Wait => {
                self.clients.give_back(key, client);
                self.arm(key);
            }
            Turn::Queue => {
                if !mem::replace(&mut client.queued, true) {
                    self.queue.push_back(key);
                }
                self.clients.give_back(key, client);
                self.arm(key);
            }
        }
    }

    pub(super) fn close(&mut self, key: u64, client: &mut Client<E::Stream>) {
        let task = mem::replace(&mut client.task, Task::None);
        if let Task::Parked(_, response) | Task::File { response, .. } | Task::Ended(response) =
            &task
            && client.logged < client.began
        {
            self.log_access(client, response);
        }
        let breaks_off = match &task {
            Task::Parked(_, response) | Task::File { response, .. } => {
                response.ends_with_connection()
            }
            Task::Ended(response) => {
                response.ends_with_connection() && (response.is_cut() || client.has_output())
            }
            _ => false,
        };
        let stream = match task {
            Task::Parked(stream, _) => Some(stream),
            Task::File { stream, .. } => stream,
            _ => None,
        };
        if let Some(stream) = stream {
            // It is the application's code, too, and may hang.
            self.observer
                .busy(now(), self.running.len() + 1, client.connection.request());
            self.engine.submit(key, Work::Close(stream));
            self.note_running();
        }
        // Either end must reach the client even if the application has forked: its child holds the socket, too.
        if breaks_off {
            // An orderly end would pass for the end of the body. On TCP this resets the connection (RFC 9293 section 3.10.5,
            // ABORT); a Unix socket knows no such end.
            let _ = connect_unspec(&client.socket);
        }
        let _ = client.end();
        self.clients.vacate(key);
        self.observer.connections(self.clients.len());
    }

    fn turn(&mut self, key: u64, client: &mut Client<E::Stream>) -> Turn {
        client.queued = false;
        for _ in 0..STEPS {
            if client.has_output() {
                match self.flush(key, client) {
                    Flow::Done => {}
                    Flow::Blocked => return self.wait_to_write(key, client),
                    Flow::Gone => return Turn::Close,
                }
            }
            match mem::replace(&mut client.task, Task::None) {
                Task::None => {
                    if let Some(turn) = self.read(key, client) {
                        return turn;
                    }
                }
                Task::Running => {
                    client.task = Task::Running;
                    client.deadline = NEVER;
                    return Turn::Wait;
                }
                Task::Parked(stream, mut response) => {
                    response.give_out(mem::take(&mut self.spare));
                    self.submit(key, client, Work::Pull { stream, response });
                }
                Task::File {
                    file,
                    mut offset,
                    mut left,
                    stream,
                    mut response,
                } => {
                    let sent = match left {
                        0 => Ok(0),
                        _ => sendfile(
                            client.socket.as_fd(),
                            &file,
                            Some(&mut offset),
                            left.min(FILE_PIECE) as usize,
                        ),
                    };
                    match sent {
                        Ok(0) => {
                            // A file that became shorter meanwhile is a response that breaks off.
                            if left > 0 {
                                response.cut();
                            }
                            client.task = match stream {
                                Some(stream) => Task::Parked(stream, response),
                                None => {
                                    response.end();
                                    Task::Ended(response)
                                }
                            };
                        }
                        other => {
                            left -= other.unwrap_or(0) as u64;
                            client.task = Task::File {
                                file,
                                offset,
                                left,
                                stream,
                                response,
                            };
                            match other {
                                Ok(n) => {
                                    self.observer.sent(n);
                                    client.deadline = NEVER;
                                }
                                Err(Errno::AGAIN) => return self.wait_to_write(key, client),
                                Err(Errno::INTR) => {}
                                Err(_) => return Turn::Close,
                            }
                        }
                    }
                }
                Task::Ended(response) => match self.ended(client, &response) {
                    Some(Turn::Close) => {
                        // How it ended decides how the connection does.
                        client.task = Task::Ended(response);
                        return Turn::Close;
                    }
                    Some(turn) => return turn,
                    None => {}
                },
                Task::Rejected => match client.end() {
                    Ok(()) if !client.eof => {
                        client.task = Task::Lingering;
                        client.deadline = self.after(LINGER.min(if self.draining {
                            DRAIN_GRACE
                        } else {
                            LINGER
                        }));
                    }
                    _ => return Turn::Close,
                },
                Task::Lingering => {
                    client.task = Task::Lingering;
                    if !client.readable {
                        return self.wait_to_read(key, client);
                    }
                    // Reading on without end would serve the client; the deadline stands.
                    if client.read(&mut self.buffer).is_err() || client.eof {
                        return Turn::Close;
                    }
                }
            }
        }
        Turn::Queue
    }

    /// Parses what was received, or else receives.
    fn read(&mut self, key: u64, client: &mut Client<E::Stream>) -> Option<Turn> {
        match client.connection.advance() {
            Event::Wait if client.readable => {
                let Ok(n) = client.read(&mut self.buffer) else {
                    return Some(Turn::Close);
                };
                client.connection.receive(&self.buffer[..n]);
                if n > 0 && client.waiting == Phase::Body {
                    client.waiting = Phase::Done;
                    client.body_bytes += n as u64;
                }
                None
            }
            // Also in the middle of a request: a body that was cut short never reaches the application.
            Event::Wait if client.eof => Some(Turn::Close),
            Event::Wait => {
                let phase = client.connection.phase();
                if phase != client.waiting {
                    client.waiting = phase;
                    let most = self.limits.body_timeout;
                    client.deadline = self.after(match phase {
                        Phase::Body => most.min(client.body_patience(self.now, most)),
                        Phase::Idle if self.draining => DRAIN_GRACE,
                        Phase::Idle => self.limits.keepalive_timeout,
                        Phase::Head => self.limits.header_timeout,
                        Phase::Done => most,
                    });
                }
                Some(self.wait_to_read(key, client))
            }
            Event::Continue => {
                client
                    .out
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                None
            }
            Event::Reject(reject) => {
                log::debug!(
                    "refused a request of {:?}: {} {}",
                    client.origin.peer,
                    reject.status,
                    reject.why
                );
                reject.answer(&mut client.out);
                client.task = Task::Rejected;
                self.log_refusal(client, reject.status);
                None
            }
            Event::Request => {
                self.dispatch(key, client);
                None
            }
        }
    }

    /// The response was written whole; none when the connection goes on with the next request at once.
    fn ended(&mut self, client: &mut Client<E::Stream>, response: &Response) -> Option<Turn> {
        let microseconds = self.now.saturating_sub(client.began) / 1000;
        self.observer.answered(response.status(), microseconds);
        self.log_access(client, response);
        if !response.keeps_connection() {
            // What the client sent beyond the request would reset the connection and take the answer away.
            if client.connection.has_input() && !response.is_cut() {
                client.task = Task::Rejected;
                return None;
            }
            return Some(Turn::Close);
        }
        client.connection.next();
        match client.connection.has_input() {
            true => Some(Turn::Queue),
            false => None,
        }
    }

    /// Notes a response in the access log, also one that broke off.
    fn log_access(&mut self, client: &mut Client<E::Stream>, response: &Response) {
        let Some(access) = &mut self.access else {
            return;
        };
        client.logged = client.began;
        access.note(&Entry {
            peer: client.origin.peer,
            request: Some(client.connection.request()),
            status: response.status(),
            bytes: response.body_bytes(),
            microseconds: now().saturating_sub(client.began) / 1000,
        });
    }

    /// Notes a request that was not understood, or did not come whole.
    pub(super) fn log_refusal(&mut self, client: &Client<E::Stream>, status: u16) {
        if let Some(access) = &mut self.access {
            access.note(&Entry {
                peer: client.origin.peer,
                request: None,
                status,
                bytes: 0,
                microseconds: 0,
            });
        }
    }

    fn flush(&mut self, key: u64, client: &mut Client<E::Stream>) -> Flow {
        let hold = self.cork.may_hold() && client.can_be_held();
        let (flow, sent) = client.flush(hold);
        if hold && matches!(flow, Flow::Done) {
            self.cork.hold(key, self.now);
        }
        if sent > 0 {
            self.observer.sent(sent);
            client.deadline = NEVER;
        }
        if !client.has_output() && client.out.capacity() <= KEPT_OUTPUT {
            self.spare = mem::take(&mut client.out);
        }
        flow
    }

    /// Has the responses that were held go out.
    pub(super) fn push(&mut self) {
        self.cork.expect_others(false);
        for key in self.cork.release() {
            if let Some(client) = self.clients.get(key) {
                client.push();
            }
        }
    }

    fn wait_to_read(&mut self, key: u64, client: &mut Client<E::Stream>) -> Turn {
        self.watch(key, client, false)
    }

    fn wait_to_write(&mut self, key: u64, client: &mut Client<E::Stream>) -> Turn {
        if let Task::Ended(response) = &client.task
            && response.ends_with_connection()
        {
            client.reset_at_death(true);
        }
        if client.deadline == NEVER || client.waiting != Phase::Done {
            client.waiting = Phase::Done;
            client.deadline = self.after(self.limits.write_timeout);
        }
        self.watch(key, client, true)
    }

    fn watch(&mut self, key: u64, client: &mut Client<E::Stream>, write: bool) -> Turn {
        match client.watch(&self.epoll, key, write) {
            Ok(()) => Turn::Wait,
            Err(error) => {
                log::error!("could not watch a connection: {error}; closing it");
                Turn::Close
            }
        }
    }
}
