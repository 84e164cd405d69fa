//! A connection with its socket and what is going on on it.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::exchange::{Part, Source};
use crate::message::backlog::Backlog;
use crate::message::request::Origin;
use crate::message::response::Response;
use crate::message::spool::Next;
use crate::net::transport::Transport;
use crate::proto::h1::connection::{Connection, Phase};
use crate::serve::lingering::Linger;
use crate::serve::multiplexed::Multiplexed;
use crate::serve::relayed::Preamble;
use crate::serve::timers::{Instant, NEVER};

/// What a connection is doing beyond reading.
#[derive(Default)]
pub(crate) enum Task<T: Transport> {
    #[default]
    None,
    /// The handler has its request; what it hands over is sent meanwhile.
    Running,
    /// The same, and the client has left: the connection waits for the handler only.
    Left,
    /// A file is being sent: what is left of it.
    File { part: Box<Part>, response: Response },
    /// Everything was written.
    Ended(Response),
    /// The answer to a rejected request was written; the connection closes.
    Rejected,
    /// Nothing is written any more; waits for the client to close, so that it reads the answer.
    Lingering(Linger),
    /// It carries streams.
    Multiplexed(Box<Multiplexed<T>>),
}

/// Where what a client sends stands while its request is answered, if that is given out as it arrives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stream {
    /// More is taken.
    pub wants: bool,
    /// All was given out.
    pub ended: bool,
    /// The protocol has changed.
    pub switched: bool,
    /// It may take any time.
    pub is_open: bool,
    /// Nothing is sent after what is to be written.
    pub ends: bool,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Done,
    /// The client has to read first.
    Blocked,
    /// The client is gone.
    Gone,
}

/// One client: the requests that it makes, and the way to it. A handler on the loop's own thread borrows the one and writes to the
/// other.
pub(crate) struct Client<T: Transport> {
    pub connection: Box<Connection>,
    pub link: Box<Link<T>>,
}

impl<T: Transport> Client<T> {
    /// Takes bytes that were read now: they had come when the kernel said so, if it did.
    #[inline(always)]
    pub fn receive(&mut self, bytes: &[u8], readable_since: Instant, now: Instant) {
        let Self { connection, link } = self;
        link.received = readable_since.min(now);
        if connection.phase() == Phase::Idle {
            link.first = link.received;
        }
        connection.receive(bytes);
    }

    /// Whether it is one of the front's that asks for nothing at the moment, but may have sent something. As long as that was not read, the
    /// front can take it back.
    pub fn may_be_left_unread(&self) -> bool {
        let link = &self.link;
        link.is_front
            && matches!(link.task, Task::None)
            && self.connection.phase() == Phase::Idle
            && !link.has_output()
    }

    /// Whether what is to be written is all there is to say, so that it may wait until [`Transport::push`].
    pub fn can_be_held(&self) -> bool {
        matches!(self.link.task, Task::Ended(_))
            && self.link.transport.can_hold()
            && self.link.backlog.is_none()
            && !self.connection.has_input()
    }
}

/// The way to a client.
pub(crate) struct Link<T: Transport> {
    pub transport: T,
    pub origin: Origin,
    /// What has to come before the first request.
    pub preamble: Option<Preamble>,
    pub task: Task<T>,
    /// Bytes to write; those before `written` are gone.
    pub out: Vec<u8>,
    pub written: usize,
    /// What is written after that.
    pub backlog: Option<Arc<Backlog>>,
    /// What the client sends is given out as it arrives.
    pub stream: Option<Stream>,
    /// The socket took no more at the last attempt, and has not said since that it does.
    pub blocked: bool,
    /// There may be something to read.
    pub readable: bool,
    /// A hang-up was announced: read on to the end even when a read came short.
    pub hangup: bool,
    /// When that was, or when something was sent since, which a client that has left would have refused.
    pub silent_since: Instant,
    /// Nothing can be sent any more.
    pub broken: bool,
    /// The client has sent its last byte.
    pub eof: bool,
    pub deadline: Instant,
    /// When the earliest entry in the timers comes up.
    pub armed: Instant,
    /// How long it may be idle.
    pub kept: Duration,
    /// It is one of the front's, which takes a request back by ending it.
    pub is_front: bool,
    /// The phase that the deadline was set for.
    pub waiting: Phase,
    /// Since when a body is waited for; [`NEVER`] when none is.
    pub body_since: Instant,
    /// Bytes that have come since.
    pub body_bytes: u64,
    /// The start of the time over which the body's present pace is measured, and the bytes that had come by then.
    pace: (Instant, u64),
    /// When the kernel first said that there is something to read; [`NEVER`] if all of it was read since.
    pub readable_since: Instant,
    /// When the first byte of the request that is there or arriving came, as far as that is known.
    pub first: Instant,
    /// The same for the last bytes that came.
    pub received: Instant,
    /// When the latest request was there.
    pub arrived: Instant,
    /// When a thread took it.
    pub began: Instant,
    /// The layers have not been told of the end of the latest response.
    pub unlogged: bool,
    /// The connection is counted as queued to go on in this turn of the loop.
    pub queued: bool,
    /// Its request is in the queue of those that wait for the thread.
    pub ready: bool,
}

/// A body that comes more slowly than this, in bytes a second, is no body but a way to hold a connection.
const LEAST_RATE: u64 = 500;
/// The same while there is no room for others.
const LEAST_PACE: u64 = 8 * 1024;
/// The shortest and the longest time over which that is measured, in nanoseconds.
const PACE_LEAST: Instant = 2_000_000_000;
const PACE_MOST: Instant = 5_000_000_000;

impl<T: Transport> Link<T> {
    /// How long the rest of a body may take from now on: `grace` in all, and a second more for each [`LEAST_RATE`]
    /// bytes that have come.
    pub fn body_patience(&mut self, now: Instant, grace: Duration) -> Duration {
        if self.body_since == NEVER {
            self.body_since = now;
            self.body_bytes = 0;
            self.pace = (now, 0);
        } else if self.pace.0.saturating_add(PACE_MOST) < now {
            self.pace = (now, self.body_bytes);
        }
        let spent = Duration::from_nanos(now.saturating_sub(self.body_since));
        patience(self.body_bytes, spent, grace)
    }

    /// Whether a body that is waited for comes so slowly that it must not keep the room that others need.
    pub fn is_slow(&self, now: Instant) -> bool {
        let (since, before) = self.pace;
        let spent = now.saturating_sub(since);
        let due = u128::from(spent) * u128::from(LEAST_PACE) / 1_000_000_000;
        self.body_since != NEVER
            && spent >= PACE_LEAST
            && u128::from(self.body_bytes - before) < due
    }

    pub fn new(transport: T, origin: Origin) -> Self {
        Self {
            transport,
            origin,
            preamble: None,
            body_since: NEVER,
            body_bytes: 0,
            pace: (0, 0),
            task: Task::None,
            out: Vec::new(),
            written: 0,
            backlog: None,
            stream: None,
            blocked: false,
            // A client mostly speaks at once, and when it does a connection for one request needs no epoll at all.
            readable: true,
            hangup: false,
            silent_since: NEVER,
            broken: false,
            eof: false,
            deadline: NEVER,
            armed: NEVER,
            kept: Duration::ZERO,
            is_front: false,
            waiting: Phase::Idle,
            readable_since: NEVER,
            first: 0,
            received: 0,
            arrived: 0,
            began: 0,
            unlogged: false,
            queued: false,
            ready: false,
        }
    }

    /// Reads once. Number of bytes, 0 at the end or when there is nothing; an error means that the client is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let length = buffer.len();
        let read = self.transport.read(buffer);
        self.note_read(read, length)
    }

    /// The same for what comes before the bytes of the transport.
    pub fn read_preamble(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let length = buffer.len();
        let read = self.transport.read_preamble(buffer);
        self.note_read(read, length)
    }

    /// The same for the first bytes of a connection of the front.
    pub fn read_offer(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let length = buffer.len();
        let read = self.transport.read_offer(buffer);
        self.note_read(read, length)
    }

    #[inline(always)]
    fn note_read(&mut self, read: Result<usize, Errno>, length: usize) -> Result<usize, Errno> {
        match read {
            Ok(0) => {
                self.readable = false;
                self.eof = true;
                Ok(0)
            }
            Ok(n) => {
                // A short read has emptied the socket, and what comes later is a new edge; but an end that was announced
                // together with the bytes is not.
                self.readable = n == length || self.hangup || self.transport.has_input();
                Ok(n)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends nothing any more and drops what is held; the connection waits for its handler.
    pub fn leave(&mut self) {
        if let Some(backlog) = self.backlog.take() {
            backlog.leave();
        }
        self.out = Vec::new();
        self.written = 0;
        self.transport.leave();
        self.broken = true;
        self.task = Task::Left;
        self.deadline = NEVER;
    }

    /// Writes what comes next, or leaves it to the kernel to hold; also the number of bytes that went.
    #[inline(always)]
    pub fn flush(&mut self, hold: bool) -> (Flow, usize) {
        if self.written < self.out.len() {
            return self.flush_out(hold);
        }
        if self.transport.has_output() {
            return (self.flush_transport(), 0);
        }
        match self.backlog.clone() {
            Some(backlog) => self.flush_backlog(&backlog),
            None => (Flow::Done, 0),
        }
    }

    fn flush_out(&mut self, hold: bool) -> (Flow, usize) {
        let mut sent = 0;
        let mut flow = Flow::Done;
        while self.written < self.out.len() {
            match self.transport.write(&self.out[self.written..], hold) {
                Ok(n) => {
                    self.written += n;
                    sent += n;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    flow = Flow::Blocked;
                    break;
                }
                Err(_) => return (Flow::Gone, sent),
            }
        }
        if let Some(backlog) = &self.backlog {
            backlog.outside(self.out.len() - self.written);
        }
        if flow == Flow::Done {
            self.out.clear();
            self.written = 0;
        }
        (flow, sent)
    }

    /// Whether what is to be written is followed by a body that is in memory.
    pub fn has_body_in_memory(&self) -> bool {
        let in_memory = match &self.task {
            Task::File { part, .. } => matches!(part.source, Source::Memory(_)),
            _ => false,
        };
        in_memory && self.written < self.out.len() && self.backlog.is_none()
    }

    /// Writes that and the body, at once if there is room for both; also the number of bytes that went.
    pub fn flush_with_body(&mut self) -> (Flow, usize) {
        let Task::File { part, response } = &mut self.task else {
            return (Flow::Done, 0);
        };
        let mut sent = 0;
        let flow = loop {
            let data = &self.out[self.written..];
            let Some(slice) = part
                .slice()
                .filter(|slice| !data.is_empty() || !slice.is_empty())
            else {
                break Flow::Done;
            };
            match self.transport.write_both(data, &slice, false) {
                Ok(n) => {
                    let of_head = n.min(data.len());
                    let of_body = (n - of_head) as u64;
                    self.written += of_head;
                    part.sent(of_body);
                    response.sent(of_body);
                    sent += n;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    break Flow::Blocked;
                }
                Err(_) => return (Flow::Gone, sent),
            }
        };
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        (flow, sent)
    }

    /// Writes what the transport holds. Its bytes were counted when it took them, but they are progress only now.
    fn flush_transport(&mut self) -> Flow {
        match self.transport.flush() {
            Ok(n) => {
                if n > 0 && !self.transport.is_starting() {
                    self.deadline = NEVER;
                }
                Flow::Done
            }
            Err(Errno::INTR) => Flow::Done,
            Err(Errno::AGAIN) => {
                self.blocked = true;
                Flow::Blocked
            }
            Err(_) => Flow::Gone,
        }
    }

    #[cold]
    fn flush_backlog(&mut self, backlog: &Backlog) -> (Flow, usize) {
        match backlog.next(&mut self.out) {
            Next::Memory => {
                self.written = 0;
                self.flush_out(false)
            }
            Next::File(file, mut at, length) => {
                let piece = length.min(FILE_PIECE) as usize;
                match self.transport.send_file(&file, &mut at, piece) {
                    // Whoever cut the file off has access to the memory of this process, too.
                    Ok(0) => (Flow::Gone, 0),
                    Ok(n) => {
                        backlog.taken(n as u64);
                        (Flow::Done, n)
                    }
                    Err(Errno::INTR) => (Flow::Done, 0),
                    Err(Errno::AGAIN) => {
                        self.blocked = true;
                        (Flow::Blocked, 0)
                    }
                    Err(_) => (Flow::Gone, 0),
                }
            }
            Next::Nothing => (Flow::Done, 0),
        }
    }

    /// Takes the end of a response, which follows what is held.
    pub fn finish(&mut self, last: Vec<u8>) {
        match &self.backlog {
            Some(backlog) if self.has_output() => backlog.finish(last),
            _ if self.written < self.out.len() => self.out.extend_from_slice(&last),
            _ => {
                self.backlog = None;
                self.out = last;
                self.written = 0;
            }
        }
    }

    #[inline(always)]
    pub fn has_output(&self) -> bool {
        self.written < self.out.len()
            || (self.backlog.is_some() && self.has_backlog())
            || self.transport.has_output()
    }

    #[cold]
    fn has_backlog(&self) -> bool {
        self.backlog
            .as_ref()
            .is_some_and(|backlog| backlog.has_data())
    }
}

/// Bytes of a file given to the kernel at a time.
pub(crate) const FILE_PIECE: u64 = 256 * 1024;

/// The time left for a body of which so many bytes have come in the time that was spent.
fn patience(bytes: u64, spent: Duration, grace: Duration) -> Duration {
    let earned = Duration::from_millis(bytes.saturating_mul(1000) / LEAST_RATE);
    grace.saturating_add(earned).saturating_sub(spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_body_has_an_end_and_a_steady_one_has_not() {
        let (second, grace) = (Duration::from_secs(1), Duration::from_secs(30));
        // A byte a second earns next to nothing.
        assert_eq!(patience(0, Duration::ZERO, grace), grace);
        assert!(patience(29, 29 * second, grace) < 2 * second);
        assert_eq!(patience(31, 31 * second, grace), Duration::ZERO);
        // A modem's kilobytes a second last for hours.
        assert!(patience(3600 * 5000, 3600 * second, grace) > grace);
        assert!(patience(u64::MAX, second, Duration::MAX) > grace);
    }
}
