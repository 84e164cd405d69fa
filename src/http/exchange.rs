//! One request's response on its way to the client, as the handler sees it: it writes, hands over, and is told when to wait or stop.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::message::response::Response;
use crate::message::slice::Slice;
use crate::net::descriptors::Own;

/// What became of what was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, and there is room for more.
    Taken,
    /// There is no room, and what was written is still there: [`Exchange::wait`].
    Full,
    /// The client has left, or has taken nothing for too long. There is nothing more to do than to clean up.
    Gone,
}

/// Where a response goes: the connection on the same thread, or the loop on another.
pub(crate) trait Outlet: Any + Send {
    /// Takes what was written, unless there is no room. Does not block.
    fn send(&mut self, response: &mut Response) -> Sent;

    /// Takes what was written as soon as there is room.
    fn wait(&mut self, response: &mut Response) -> Sent;

    /// The request goes on, and there is nothing to send.
    fn alive(&mut self) -> Sent;
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(Arc<Own<File>>),
    /// It is in memory, whole.
    Memory(Arc<[u8]>),
}

/// A part of a file that the server sends itself.
#[derive(Debug)]
pub(crate) struct Part {
    pub source: Source,
    pub offset: u64,
    pub length: u64,
    /// What follows, from the same file.
    pub then: VecDeque<Piece>,
}

impl Part {
    /// What is left of it up to the next text, if it is in memory.
    pub fn slice(&self) -> Option<Slice> {
        match &self.source {
            Source::File(_) => None,
            Source::Memory(bytes) => Some(Slice::new(bytes.clone(), self.offset, self.length)),
        }
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, length: u64) {
        self.offset += length;
        self.length -= length;
    }
}

/// A text and another part of the file after it.
#[derive(Debug)]
pub(crate) struct Piece {
    pub text: Vec<u8>,
    pub offset: u64,
    pub length: u64,
}

/// The response to the request that a [`crate::Handler`] answers; it is a [`Response`] that can be sent while it is made.
///
/// What was written goes out with [`Exchange::send`], or when the handler returns.
pub struct Exchange {
    response: Response,
    outlet: Box<dyn Outlet>,
    /// In a box, as hardly any response has one and all are moved around.
    part: Option<Box<Part>>,
    gone: bool,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("response", &self.response)
            .field("part", &self.part)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// The most bytes of a body that should be written before each [`Exchange::send`], as these are held as a whole.
    pub const SLICE: usize = 128 * 1024;

    pub(crate) fn new(response: Response, outlet: Box<dyn Outlet>) -> Self {
        Self {
            response,
            outlet,
            part: None,
            gone: false,
        }
    }

    pub(crate) fn into_parts(self) -> (Response, Box<dyn Outlet>, Option<Box<Part>>) {
        (self.response, self.outlet, self.part)
    }

    /// Has what was written go out, as far as the client takes it; what it does not take is held. Never blocks.
    pub fn send(&mut self) -> Sent {
        let sent = self.outlet.send(&mut self.response);
        self.note(sent)
    }

    /// Blocks until there is room for what was written, and hands it over: for when [`Exchange::send`] said [`Sent::Full`].
    pub fn wait(&mut self) -> Sent {
        let sent = self.outlet.wait(&mut self.response);
        self.note(sent)
    }

    /// Tells that the request goes on though there is nothing to send: its time begins anew. Never blocks.
    pub fn alive(&mut self) -> Sent {
        let sent = self.outlet.alive();
        self.note(sent)
    }

    /// Whether the client was found to have left.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Has the server send this part of an open regular file as the rest of the body, after what was written, when the handler has
    /// returned; it ends the response then. Only if [`Response::is_plain`].
    pub fn send_file(&mut self, file: File, offset: u64, length: u64) {
        let length = self.response.pass(length);
        self.part = Some(Box::new(Part {
            source: Source::File(Arc::new(file.into())),
            offset,
            length,
            then: VecDeque::new(),
        }));
    }

    fn note(&mut self, sent: Sent) -> Sent {
        self.gone |= sent == Sent::Gone;
        sent
    }
}

impl Deref for Exchange {
    type Target = Response;

    fn deref(&self) -> &Response {
        &self.response
    }
}

impl DerefMut for Exchange {
    fn deref_mut(&mut self) -> &mut Response {
        &mut self.response
    }
}
