//! One connection's turn: write, go on with the response, read, up to its next request; as far as it goes without waiting.

use std::mem;

use rustix::io::Errno;

use super::core::Core;
use super::{DRAIN_GRACE, KEPT_OUTPUT};
use crate::exchange::Source;
use crate::layer::Ended;
use crate::message::body::Failure;
use crate::message::response::Response;
use crate::message::slice::Slice;
use crate::net::multiplex::Multiplex;
use crate::net::standing::Standing;
use crate::net::transport::Transport;
use crate::proto::h1::connection::{Event, Phase};
use crate::proto::reject::Reject;
use crate::serve::client::{Client, FILE_PIECE, Flow, Link, Task};
use crate::serve::handler::Observer;
use crate::serve::timers::NEVER;

/// Steps that a connection may take before others get their turn: reads, pieces of a stream, pieces of a file.
pub(super) const STEPS: usize = 16;
/// The head of a response goes out together with a file of this size. A client that is woken by the head alone reads on in small
/// pieces and its acknowledgements then send the rest, which took it 80 % more processor time for 10 MB; for 100 kB it is the head
/// that costs more when it is held.
const LARGE: u64 = 1024 * 1024;

/// Parsers of streams that have ended, to be used again.
const PARSERS: usize = 256;

/// How a connection's turn ended.
pub(super) enum Turn {
    /// It waits for its socket, its deadline or a thread.
    Wait,
    /// It could go on.
    Queue,
    /// A request is there for the handler.
    Ready,
    /// The head of one is: how is its body taken?
    Ask,
    /// It is over.
    Close,
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// Puts the connection where it belongs after its turn.
    #[inline(always)]
    pub(super) fn settle(&mut self, key: u64, mut client: Client<T>, turn: Turn) {
        match turn {
            Turn::Close => return self.close(key, client),
            Turn::Wait => {}
            Turn::Queue | Turn::Ready | Turn::Ask => {
                if !mem::replace(&mut client.link.queued, true) {
                    self.queue.push_back(key);
                }
            }
        }
        self.arm_link(key, &mut client.link);
        self.clients.give_back(key, client);
    }

    /// Ends the connection; one whose request a thread is in, when that has come back.
    pub(super) fn close(&mut self, key: u64, mut client: Client<T>) {
        let task = mem::take(&mut client.link.task);
        if let Task::Running | Task::Left = task {
            client.link.leave();
            self.clients.give_back(key, client);
            if self.tells_who_left {
                self.left.push(key);
            }
            return;
        }
        if let Task::Lingering(_) = task {
            self.lingering.end();
        }
        if client.link.transport.is_stream() {
            self.streams -= 1;
        }
        if let Task::File { response, .. } | Task::Ended(response) = &task
            && client.link.unlogged
        {
            self.note_end(&mut client, response);
        }
        let link = &mut client.link;
        let breaks_off = match &task {
            Task::File { response, .. } => response.ends_with_connection(),
            Task::Ended(response) => {
                response.ends_with_connection() && (response.is_cut() || link.has_output())
            }
            _ => false,
        };
        // Either end must reach the client even if the application has forked: its child holds the socket, too.
        if breaks_off {
            link.transport.abort();
        }
        let _ = link.transport.finish();
        self.clients.vacate(key);
        self.observer.connections(self.clients.len() - self.streams);
        if let Task::Ended(response) = task {
            self.kept = Some(response);
        }
        if T::Multiplex::EXISTS && link.transport.is_stream() && self.parsers.len() < PARSERS {
            client.connection.renew();
            self.parsers.push(client.connection);
        }
    }

    pub(super) fn turn(&mut self, key: u64, client: &mut Client<T>, steps: &mut usize) -> Turn {
        client.link.queued = false;
        while *steps > 0 {
            *steps -= 1;
            let link = &mut client.link;
            if link.broken {
                return match link.task {
                    Task::Left => Turn::Wait,
                    _ => Turn::Close,
                };
            }
            if link.has_output() {
                if link.blocked {
                    return self.wait_to_write(key, link);
                }
                match self.flush(key, client) {
                    Flow::Done if client.link.has_output() => continue,
                    Flow::Done => {}
                    Flow::Blocked => return self.wait_to_write(key, &mut client.link),
                    Flow::Gone => return Turn::Close,
                }
            }
            let link = &mut client.link;
            match mem::take(&mut link.task) {
                Task::None => {
                    if let Some(turn) = self.read(key, client) {
                        return turn;
                    }
                }
                task @ (Task::Running | Task::Left) => {
                    link.task = task;
                    link.deadline = NEVER;
                    return Turn::Wait;
                }
                Task::File {
                    mut part,
                    mut response,
                } => {
                    if part.length == 0
                        && let Some(piece) = part.then.pop_front()
                    {
                        response.write(&piece.text);
                        link.finish(response.take_out());
                        part.offset = piece.offset;
                        part.length = response.pass(piece.length);
                        link.task = Task::File { part, response };
                        continue;
                    }
                    let sent = match (&part.source, part.length) {
                        (_, 0) => Ok(0),
                        (Source::Memory(bytes), left) => {
                            let slice = Slice::new(bytes.clone(), part.offset, left);
                            let sent = link.transport.write_both(&[], &slice, false);
                            part.offset += sent.unwrap_or(0) as u64;
                            sent
                        }
                        (Source::File(file), left) if response.is_coded() => {
                            let most = left.min(self.buffer.len() as u64) as usize;
                            let buffer = &mut self.buffer[..most];
                            let read = rustix::io::pread(&**file, buffer, part.offset);
                            if let Ok(n) = read {
                                response.write(&self.buffer[..n]);
                                link.finish(response.take_out());
                                part.offset += n as u64;
                            }
                            read
                        }
                        (Source::File(file), left) => {
                            let piece = left.min(FILE_PIECE) as usize;
                            let offset = &mut part.offset;
                            link.transport.send_file(file, offset, piece)
                        }
                    };
                    match sent {
                        Ok(0) => {
                            // A file that became shorter meanwhile is a response that breaks off.
                            if part.length > 0 {
                                let line = client.connection.line();
                                self.complaints.file(line, part.length, self.now);
                                response.cut();
                            } else {
                                response.end();
                                link.finish(response.take_out());
                            }
                            link.task = Task::Ended(response);
                        }
                        other => {
                            let sent = other.unwrap_or(0) as u64;
                            part.length -= sent;
                            let is_coded = response.is_coded();
                            if !is_coded {
                                response.sent(sent);
                            }
                            link.task = Task::File { part, response };
                            match other {
                                // It goes out as output does.
                                Ok(_) if is_coded => {}
                                Ok(n) => {
                                    self.observer.sent(n);
                                    link.deadline = NEVER;
                                }
                                Err(Errno::AGAIN) => return self.wait_to_write(key, link),
                                Err(Errno::INTR) => {}
                                Err(_) => return Turn::Close,
                            }
                        }
                    }
                }
                Task::Ended(response) => {
                    let turn = self.ended(client, &response);
                    if let Some(Turn::Close) = turn {
                        // How it ended decides how the connection does.
                        client.link.task = Task::Ended(response);
                        return Turn::Close;
                    }
                    self.kept = Some(response);
                    if let Some(turn) = turn {
                        return turn;
                    }
                }
                Task::Rejected => {
                    if let Some(turn) = self.linger(key, link) {
                        return turn;
                    }
                }
                Task::Lingering(linger) => {
                    if let Some(turn) = self.go_on_lingering(key, link, linger) {
                        return turn;
                    }
                }
                Task::Multiplexed(multiplexed) => {
                    if let Some(turn) = self.go_on_multiplexed(key, link, multiplexed) {
                        return turn;
                    }
                }
            }
        }
        Turn::Queue
    }

    /// Parses what was received, or else receives.
    fn read(&mut self, key: u64, client: &mut Client<T>) -> Option<Turn> {
        if client.link.preamble.is_some() {
            return self.read_preamble(key, client);
        }
        let Client { connection, link } = client;
        let event = connection.advance();
        if link.transport.is_stream() {
            connection.came_on_stream();
        }
        // Before the body, so that what layers say of the request is known whatever becomes of it.
        if let Some(reject) = self
            .layers
            .request(connection, &link.origin, &mut link.transport)
        {
            let reject = connection.refused(reject);
            self.reject(client, reject);
            return None;
        }
        match event {
            Event::Wait if link.readable => {
                let since = mem::replace(&mut link.readable_since, NEVER);
                let Ok(n) = link.read(&mut self.buffer) else {
                    if let Some(why) = link.transport.refusal() {
                        self.refusals
                            .tell_of_connection(self.now, &link.origin, why);
                        link.task = Task::Rejected;
                        return None;
                    }
                    return Some(Turn::Close);
                };
                if n > 0 {
                    client.receive(&self.buffer[..n], since, self.now);
                    let link = &mut client.link;
                    if link.waiting == Phase::Body {
                        link.waiting = Phase::Done;
                        link.body_bytes += n as u64;
                    }
                }
                None
            }
            // Also in the middle of a request: a body that was cut short never reaches the application.
            Event::Wait if link.eof => Some(Turn::Close),
            Event::Wait => {
                let phase = connection.phase();
                if phase != link.waiting {
                    link.waiting = phase;
                    if let Phase::Head | Phase::Body = phase {
                        link.transport.stands(Standing::Waiting);
                    }
                    let most = self.limits.body_timeout;
                    link.deadline = self.after(match phase {
                        Phase::Body => most.min(link.body_patience(self.now, most)),
                        Phase::Idle if self.draining => DRAIN_GRACE,
                        Phase::Idle => link.kept,
                        Phase::Head => self.limits.header_timeout,
                        Phase::Done => most,
                    });
                }
                Some(self.wait_to_read(key, link))
            }
            Event::Head => Some(Turn::Ask),
            Event::Continue => {
                link.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                None
            }
            Event::Reject(reject) => {
                if let Some(failure) = connection.take_failure() {
                    self.complaints.body(&failure, reject.status, self.now);
                    if let Failure::NoRoom = failure {
                        self.break_off_slow_bodies();
                    }
                }
                self.reject(client, reject);
                None
            }
            Event::Request => match self.answer_file(client) {
                true => None,
                false => Some(Turn::Ready),
            },
        }
    }

    /// Answers a request that is not served.
    pub(super) fn reject(&mut self, client: &mut Client<T>, reject: Reject) {
        self.refusals.tell(self.now, client, reject);
        let Client { connection, link } = client;
        link.transport.stands(Standing::Served);
        let mut response = reject.response();
        self.layers.show(&mut response, connection);
        response.give_out(mem::take(&mut link.out));
        reject.write(&mut response);
        link.out = response.take_out();
        link.task = Task::Rejected;
        self.note_refusal(client, &response);
        client.connection.abandon(reject);
    }

    /// The response was written whole; none when the connection goes on with the next request at once.
    fn ended(&mut self, client: &mut Client<T>, response: &Response) -> Option<Turn> {
        let microseconds = self.now.saturating_sub(client.link.arrived) / 1000;
        self.observer.answered(response.status(), microseconds);
        self.note_end(client, response);
        if let Some((declared, given)) = response.mismatch() {
            let line = client.connection.line();
            self.complaints.length(line, declared, given, self.now);
        }
        client.link.backlog = None;
        if !response.keeps_connection() {
            // What the client sent beyond the request would reset the connection and take the answer away.
            let unread = client.connection.has_input() || client.connection.phase() == Phase::Body;
            if unread && !response.is_cut() {
                client.link.task = Task::Rejected;
                return None;
            }
            return Some(Turn::Close);
        }
        client.connection.next();
        // What has come before counts from now on.
        let link = &mut client.link;
        (link.first, link.received) = (self.now, self.now);
        link.readable_since = link.readable_since.max(self.now);
        match client.connection.has_input() {
            // It stays as it stands: if the process dies, the front knows which requests have not begun.
            true if client.link.transport.has_lane() => None,
            true => {
                client.link.transport.stands(Standing::Waiting);
                Some(Turn::Queue)
            }
            false => {
                client.link.transport.stands(Standing::Idle);
                None
            }
        }
    }

    /// Tells layers of a response that is over, also of one that broke off.
    fn note_end(&mut self, client: &mut Client<T>, response: &Response) {
        if !self.layers.see_ends() {
            return;
        }
        let link = &mut client.link;
        link.unlogged = false;
        self.layers.ended(&Ended {
            origin: &link.origin,
            request: Some(client.connection.request()),
            line: None,
            status: response.status(),
            bytes: response.body_bytes(),
            microseconds: self
                .layers
                .time_of_end(self.now)
                .saturating_sub(link.arrived)
                / 1000,
            waited: link.began.saturating_sub(link.arrived) / 1000,
        });
    }

    /// Tells layers of a request that was refused.
    fn note_refusal(&mut self, client: &Client<T>, response: &Response) {
        let request = client.connection.understood();
        self.layers.ended(&Ended {
            origin: &client.link.origin,
            request,
            line: match request {
                Some(_) => None,
                None => Some(client.connection.line()),
            },
            status: response.status(),
            bytes: response.body_bytes(),
            microseconds: self
                .layers
                .time_of_end(self.now)
                .saturating_sub(client.link.first)
                / 1000,
            waited: 0,
        });
    }

    fn flush(&mut self, key: u64, client: &mut Client<T>) -> Flow {
        let hold = self.cork.may_hold() && client.can_be_held()
            || client.can_wait_in_lane() && self.cork.may_wait_in_lane();
        let link = &mut client.link;
        let more = matches!(&link.task, Task::File { part, .. } if part.length >= LARGE);
        let (flow, sent) = match link.has_body_in_memory() {
            true => link.flush_with_body(),
            false => link.flush(hold || more),
        };
        if hold && flow == Flow::Done {
            self.cork.hold(key, self.now);
        }
        if sent > 0 {
            // What goes out for a stream was counted when it took it.
            if !(T::Multiplex::EXISTS && matches!(link.task, Task::Multiplexed(_))) {
                self.observer.sent(sent);
            }
            link.deadline = NEVER;
            link.silent_since = self.now;
        }
        if flow == Flow::Done && !link.has_output() && link.out.capacity() <= KEPT_OUTPUT {
            self.spare = mem::take(&mut link.out);
        }
        flow
    }

    /// Has the responses that were held go out.
    pub(super) fn push(&mut self) {
        self.cork.expect_others(false);
        for key in self.cork.release() {
            if let Some(client) = self.clients.get(key) {
                client.link.transport.push();
            }
        }
    }

    pub(super) fn wait_to_read(&mut self, key: u64, link: &mut Link<T>) -> Turn {
        self.watch(key, link, false)
    }

    fn wait_to_write(&mut self, key: u64, link: &mut Link<T>) -> Turn {
        if let Task::Ended(response) = &link.task
            && response.ends_with_connection()
        {
            link.transport.reset_at_death(true);
        }
        let waits = link.deadline == NEVER || link.waiting != Phase::Done;
        if waits && !link.transport.is_starting() {
            link.waiting = Phase::Done;
            link.deadline = self.after(self.limits.write_timeout);
        }
        self.watch(key, link, true)
    }

    fn watch(&mut self, key: u64, link: &mut Link<T>, write: bool) -> Turn {
        match link.transport.watch(&self.epoll, key, write) {
            Ok(()) => Turn::Wait,
            Err(error) => {
                log::error!("could not watch a connection: {error}; closing it");
                Turn::Close
            }
        }
    }
}
