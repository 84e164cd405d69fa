//! Protocols that carry many requests at once over one connection, each on a stream of its own, as HTTP/2 does.
//!
//! To the loop a stream is a connection like any other, with a transport of its own. The transport speaks HTTP/1.1 with the loop: it is
//! read as a request, in the form that the strict parser knows, and takes the bytes of a response. So limits, deadlines, layers and
//! what answers requests are the same for all protocols.

use crate::limits::Limits;
use crate::net::transport::Transport;

/// What a connection speaks whose first bytes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is not clear yet.
    More,
    /// One request after the other: HTTP/1.
    Requests,
    /// Streams.
    Streams,
}

/// What comes next of a connection with streams.
#[derive(Debug)]
pub enum Step<T> {
    /// A stream begins, and this is its transport.
    Stream(T),
    /// Nothing before the next bytes, or before it is woken.
    Wait,
    /// The connection is over once its output was sent.
    Over {
        /// Why, if the operator should know.
        why: Option<String>,
        /// The client sends so much that what else it sends is not read, even if what it was sent is lost with that.
        at_once: bool,
    },
}

/// The protocol of a connection with streams. It has neither socket nor clock.
///
/// It and the transports of its streams tell by [`Multiplex::woken`] that they can go on.
pub trait Multiplex<T: Transport>: Sized + Send + 'static {
    /// Whether there are such connections. What is done for them costs transports without them nothing.
    const EXISTS: bool = true;

    /// What a connection speaks that has begun with these bytes.
    fn opening(shared: &T::Shared, transport: &T, bytes: &[u8]) -> Opening;

    /// A connection that speaks it, with the key by which it is woken. Nothing was received.
    fn begin(shared: &mut T::Shared, key: u64, transport: &T, limits: &Limits) -> Self;

    /// Takes bytes from the client.
    fn receive(&mut self, bytes: &[u8]);

    /// The client sends nothing any more.
    fn end(&mut self);

    /// Goes on.
    fn next(&mut self, now: u64) -> Step<T>;

    /// Appends what is to be sent. To be followed by [`Multiplex::next`] when it was sent, as there is a limit to what is held.
    fn output(&mut self, out: &mut Vec<u8>);

    /// Has what goes out next be written to this buffer, which is empty, rather than to new memory.
    fn reuse(&mut self, spare: &mut Vec<u8>);

    /// No further streams may begin as soon as the client has learnt of it. Those that are open go on to their end, which is that of the
    /// connection.
    fn close(&mut self);

    /// The number of streams whose transports exist.
    fn streams(&self) -> usize;

    /// A connection or stream that can go on, by its key. The key of a stream is that of [`Transport::watch`].
    fn woken(shared: &mut T::Shared) -> Option<u64>;
}

/// The protocol of transports without streams.
#[derive(Debug)]
pub enum Single {}

impl<T: Transport> Multiplex<T> for Single {
    const EXISTS: bool = false;

    fn opening(_: &T::Shared, _: &T, _: &[u8]) -> Opening {
        Opening::Requests
    }

    fn begin(_: &mut T::Shared, _: u64, _: &T, _: &Limits) -> Self {
        unreachable!("no opening leads here")
    }

    fn receive(&mut self, _: &[u8]) {
        match *self {}
    }

    fn end(&mut self) {
        match *self {}
    }

    fn next(&mut self, _: u64) -> Step<T> {
        match *self {}
    }

    fn output(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    fn reuse(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    fn close(&mut self) {
        match *self {}
    }

    fn streams(&self) -> usize {
        match *self {}
    }

    fn woken(_: &mut T::Shared) -> Option<u64> {
        None
    }
}
