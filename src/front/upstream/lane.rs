//! A lane: a connection to a worker of ours on which several requests are sent, one behind the other.
//!
//! It is offered with the first request of a connection. If the worker has taken it by the time of the response, it is open. Then requests that
//! are sent in one turn of the loop go out in one write, and responses wait in the socket until the worker rings, or until the front looks.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use preforkd_http::{Expected, Response};
use preforkd_worker::lane::Claims;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::dispatch::Ticket;
use super::{Instant, NEVER};

/// Memory that is kept between two writes.
const KEPT: usize = 64 * 1024;

/// What it is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was offered; its first request runs.
    Offered,
    /// It takes requests.
    Open,
    /// It takes no more.
    Closed,
}

/// A request that was sent on it and is not answered yet.
#[derive(Debug)]
pub(super) struct Sent {
    pub ticket: Ticket,
    pub expected: Expected,
    /// Its client has left.
    pub left: bool,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub stage: Stage,
    claims: Claims,
    bell: OwnedFd,
    /// Until the worker has it.
    memory: Option<OwnedFd>,
    /// The first is answered next.
    pub sent: VecDeque<Sent>,
    /// The number of the first of these, in the order of all that were sent.
    first: u32,
    /// Bytes of requests; those before `written` are gone.
    out: Vec<u8>,
    written: usize,
    /// It is in the list of those that have something to write.
    pub queued: bool,
    /// When it was last read.
    pub heard: Instant,
    /// It is in the list of those that may have something to read without a bell.
    pub is_looked_at: bool,
    /// Takes what nobody wants any more.
    pub dropped: Response,
}

impl Lane {
    /// One to be offered with this request.
    ///
    /// # Errors
    /// There are no descriptors, or there is no memory.
    pub fn offer(ticket: Ticket, expected: Expected) -> io::Result<Self> {
        let (claims, memory) = Claims::create()?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let left = false;
        let first = Sent {
            ticket,
            expected,
            left,
        };
        Ok(Self {
            stage: Stage::Offered,
            claims,
            bell,
            memory: Some(memory),
            sent: VecDeque::from([first]),
            first: 0,
            out: Vec::new(),
            written: 0,
            queued: false,
            heard: NEVER,
            is_looked_at: false,
            dropped: Response::new(true, false, true),
        })
    }

    /// Writes the first bytes of the connection, and with them what the worker needs to take the lane.
    pub fn write_offer(&mut self, socket: &OwnedFd, data: &[u8]) -> Option<Result<usize, Errno>> {
        let memory = self.memory.as_ref()?;
        let passed: [BorrowedFd<'_>; 2] = [memory.as_fd(), self.bell.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&passed));
        let sent = sendmsg(
            socket,
            &[IoSlice::new(data)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        if sent.is_ok() {
            self.memory = None;
        }
        Some(sent)
    }

    /// Whether the worker has taken it.
    pub fn is_taken(&self) -> bool {
        self.claims.is_taken()
    }

    pub fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Whether one more request may be sent.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Adds a request, to be written with others.
    pub fn push(&mut self, ticket: Ticket, expected: Expected, message: &[u8]) {
        self.out.extend_from_slice(message);
        let left = false;
        self.sent.push_back(Sent {
            ticket,
            expected,
            left,
        });
        if self.number(self.sent.len()) >= u32::MAX / 2 {
            self.stage = Stage::Closed;
        }
    }

    /// The first is answered.
    pub fn pop(&mut self) {
        if self.sent.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// What is to be written.
    pub fn rest(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So many bytes were written.
    pub fn consume(&mut self, length: usize) {
        self.written += length;
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT);
            self.written = 0;
        }
    }

    /// The place of a request among those that were sent.
    pub fn position(&self, ticket: Ticket) -> Option<usize> {
        let mut sent = self.sent.iter();
        sent.position(|sent| sent.ticket == ticket && !sent.left)
    }

    /// Whether the worker has not begun the request at this place, as far as the front can tell.
    pub fn is_waiting(&self, at: usize) -> bool {
        self.is_taken() && self.number(at) >= self.claims.begun()
    }

    /// Takes requests back from this place on, as far as the worker has not begun them. It never begins them. In their order.
    pub fn take_back(&mut self, from: usize) -> Vec<Sent> {
        self.stage = Stage::Closed;
        let first = self.claims.take_back(self.number(from));
        if !self.is_taken() {
            return Vec::new();
        }
        let at = first.saturating_sub(self.first) as usize;
        let at = at.max(from).min(self.sent.len());
        self.sent.drain(at..).collect()
    }

    fn number(&self, at: usize) -> u32 {
        self.first
            .saturating_add(u32::try_from(at).unwrap_or(u32::MAX))
    }
}
