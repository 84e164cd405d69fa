//! What bytes go through on their way to a client.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::message::facts::Tls;
use crate::message::request::{Origin, Request};
use crate::message::slice::Slice;
use crate::net::descriptors::Own;
use crate::net::multiplex::Multiplex;
use crate::net::standing::Standing;
use crate::proto::reject::Reject;

/// The transport of one connection: a socket that does not block, or something in front of one that changes the bytes, as TLS does.
///
/// What the loop needs is the same for both. It learns from epoll, edge-triggered, that the socket has become readable or writable, and then
/// reads and writes until [`Errno::AGAIN`]. A transport may hold bytes in both directions: it says so with [`Transport::has_input`] and
/// [`Transport::has_output`], as no event tells of these. It may also need to write in order to read, and the reverse: what it has to write is
/// its output, whoever has caused it, and what it has to read comes with the next [`Transport::read`].
///
/// A handshake is part of the first reads, which give [`Errno::AGAIN`] until it is over; see [`Transport::is_starting`].
pub trait Transport: Sized + Send + 'static {
    /// What all connections of a server share; for TLS, certificates and keys.
    type Shared: Send + 'static;

    /// The protocol of connections that carry streams; [`Single`](super::multiplex::Single) if there are none.
    type Multiplex: Multiplex<Self>;

    /// The transport of a connection that was accepted. The socket does not block.
    fn new(shared: &mut Self::Shared, socket: OwnedFd, origin: &Origin) -> Self;

    /// Whether the connection is taken, now that it is known where it comes from: at once, or after its PROXY header. What is counted for
    /// that is given back when it is dropped.
    ///
    /// # Errors
    /// It is not: why.
    #[inline(always)]
    fn admit(&mut self, _: &mut Self::Shared, _: &Origin) -> Result<(), &'static str> {
        Ok(())
    }

    /// Whether it takes this request, whose head has come and was seen by all layers; else the answer.
    #[inline(always)]
    fn takes(&mut self, _: Request<'_>) -> Option<Reject> {
        None
    }

    /// Whether it may be kept for another request, as far as the transport is concerned.
    #[inline(always)]
    fn is_kept(&self) -> bool {
        true
    }

    /// It carries this request, of which is known what answers it.
    #[inline(always)]
    fn carries(&mut self, _: Request<'_>) {}

    /// Reads once; 0 is the orderly end of what the peer sends.
    ///
    /// # Errors
    /// [`Errno::AGAIN`]: there is nothing to read before the next event. [`Errno::INTR`]: try again. Anything else is the end of the
    /// connection, also an end that may be a truncation.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Takes bytes to write, as many as it has room for; with `more` they may be held until [`Transport::push`].
    ///
    /// # Errors
    /// [`Errno::AGAIN`]: there is no room before the next event. [`Errno::INTR`]: try again. Anything else is the end of the connection.
    fn write(&mut self, data: &[u8], more: bool) -> Result<usize, Errno>;

    /// Takes bytes to write as [`Transport::write`] does, and behind them a part of what several responses send, which it need not copy.
    ///
    /// # Errors
    /// As [`Transport::write`].
    fn write_both(&mut self, data: &[u8], slice: &Slice, more: bool) -> Result<usize, Errno> {
        match data.is_empty() {
            true => self.write(slice, more),
            false => self.write(data, more),
        }
    }

    /// Takes a part of a file to write, and moves `offset` on. 0 is the end of the file.
    ///
    /// # Errors
    /// As [`Transport::write`], and those of reading the file.
    fn send_file(&mut self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno>;

    /// Whether what is written with `more` is held.
    fn can_hold(&self) -> bool;

    /// Sends what was held.
    fn push(&self);

    /// Ends what is sent in an orderly way, after the bytes that were taken. The socket no longer writes.
    ///
    /// # Errors
    /// The connection has ended.
    fn finish(&mut self) -> Result<(), Errno>;

    /// Breaks the connection off: its end must not pass for the end of what is sent.
    fn abort(&mut self);

    /// Neither reads nor sends any more, though the socket stays open. A response that ends with the connection breaks off visibly.
    fn leave(&mut self);

    /// Whether the connection breaks off visibly should the worker die: its end would pass for the end of a response.
    fn reset_at_death(&mut self, reset: bool);

    /// Notes where the connection stands, should the process have to die.
    fn stands(&self, standing: Standing);

    /// Watches the socket, edge-triggered; for room to write only once that was needed.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn watch(&mut self, epoll: &Own, key: u64, write: bool) -> io::Result<()>;

    /// Whether there may be something to read of which no event will tell.
    #[inline(always)]
    fn has_input(&self) -> bool {
        false
    }

    /// Whether it holds bytes that it has taken, or made itself, and the socket has not.
    #[inline(always)]
    fn has_output(&self) -> bool {
        false
    }

    /// Writes what it holds; the number of bytes that the socket took.
    ///
    /// # Errors
    /// As [`Transport::write`]; with [`Errno::AGAIN`] nothing was written.
    fn flush(&mut self) -> Result<usize, Errno> {
        Ok(0)
    }

    /// Whether a handshake goes on. The deadline of the first byte holds for it, and writing does not prolong that.
    #[inline(always)]
    fn is_starting(&self) -> bool {
        false
    }

    /// Why a read has failed, if the peer was refused and there is an answer that it should get to know: what it still sends is read
    /// and dropped for a while, which are the next reads.
    #[inline(always)]
    fn refusal(&self) -> Option<&str> {
        None
    }

    /// What is known of the encryption, when the handshake is over.
    #[inline(always)]
    fn tls(&self) -> Option<&Arc<Tls>> {
        None
    }

    /// Whether it is that of a stream of another connection, and has no socket.
    #[inline(always)]
    fn is_stream(&self) -> bool {
        false
    }

    /// Whether the peer takes nothing any more, as far as that is known of a stream that was woken.
    fn has_left(&mut self) -> bool {
        false
    }

    /// Reads the first bytes of a connection of the front, which may offer to use it as a lane.
    ///
    /// # Errors
    /// As [`Transport::read`].
    fn read_offer(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.read(buffer)
    }

    /// Whether it is a lane: what is written with `more` waits until [`Transport::push`].
    fn has_lane(&self) -> bool {
        false
    }

    /// Whether a request of the front may begin that is there: the front has not taken it back. On a lane it has begun then; otherwise
    /// the front takes one back by ending what it sends, which the kernel knows at this moment.
    fn begins(&self) -> bool {
        true
    }

    /// Reads bytes that come before those of the transport, as a PROXY header does.
    ///
    /// # Errors
    /// As [`Transport::read`].
    fn read_preamble(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.read(buffer)
    }

    /// Takes what has come behind them; what of it is no business of the transport is given back, as if it had been read.
    fn begin_with<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }
}
