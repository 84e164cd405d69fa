//! A body that is sent on a stream, and comes as the bytes of a message of HTTP/1.1.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use preforkd_http::Slice;
use rustix::io::Errno;

use super::chunks::Chunks;
use super::limits::SEND_BUFFER;

/// How the bytes of a message tell where its body ends.
pub enum Rest {
    /// So many are still to come.
    Length(u64),
    /// It comes in chunks.
    Chunks(Chunks),
    /// They do not: it ends when that is said.
    Open,
}

/// A body on its way.
pub struct Sending {
    stream: SendStream<Bytes>,
    rest: Rest,
}

/// What was taken of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// So many were.
    pub taken: usize,
    /// The bytes of the body among them.
    pub data: usize,
    /// The body has ended.
    pub ended: bool,
}

impl Sending {
    /// On a stream whose head was sent.
    pub fn new(stream: SendStream<Bytes>, rest: Rest) -> Self {
        Self { stream, rest }
    }

    /// Whether the length of the body is known.
    pub fn has_length(&self) -> bool {
        matches!(self.rest, Rest::Length(_))
    }

    /// How many of so many bytes the peer takes now; one at least.
    ///
    /// # Errors
    /// [`Errno::AGAIN`], or it takes nothing any more.
    pub fn room(&mut self, wanted: usize, context: &mut Context<'_>) -> Result<usize, Errno> {
        if wanted == 0 {
            return Ok(0);
        }
        self.stream.reserve_capacity(wanted.min(SEND_BUFFER));
        loop {
            match self.stream.capacity() {
                0 => {}
                n => return Ok(n.min(wanted)),
            }
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Err(Errno::PIPE),
                Poll::Pending => return Err(Errno::AGAIN),
            }
        }
    }

    /// Takes bytes of the body, with what is around chunks: as many small chunks as there are go into one frame.
    ///
    /// # Errors
    /// As [`Sending::room`], or they are not what was announced.
    pub fn write(&mut self, data: &[u8], context: &mut Context<'_>) -> Result<Written, Errno> {
        self.send(data, |n| Bytes::copy_from_slice(&data[..n]), context)
    }

    /// The same with bytes that need not be copied.
    ///
    /// # Errors
    /// As [`Sending::write`].
    pub fn write_slice(
        &mut self,
        slice: &Slice,
        context: &mut Context<'_>,
    ) -> Result<Written, Errno> {
        self.send(slice, |n| Bytes::from_owner(slice.first(n)), context)
    }

    /// Sends data, of which `first` gives the first bytes.
    fn send(
        &mut self,
        data: &[u8],
        first: impl FnOnce(usize) -> Bytes,
        context: &mut Context<'_>,
    ) -> Result<Written, Errno> {
        let room = match self.room(data.len(), context) {
            // An end needs none.
            Err(Errno::AGAIN) => 0,
            other => other?,
        };
        let (taken, piece, end) = match &mut self.rest {
            Rest::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let n = room.min(data.len()).min(most);
                *left -= n as u64;
                let end = (*left == 0).then(HeaderMap::new);
                (n, first(n), end)
            }
            Rest::Open => {
                let n = room.min(data.len());
                (n, first(n), None)
            }
            Rest::Chunks(chunks) => {
                let taken = chunks.take(data, room).map_err(|_| Errno::PROTO)?;
                (taken.length, taken.data.into(), taken.end)
            }
        };
        if taken == 0 {
            return Err(Errno::AGAIN);
        }
        let written = Written {
            taken,
            data: piece.len(),
            ended: end.is_some(),
        };
        let trailers = end.filter(|fields| !fields.is_empty());
        let is_last = written.ended && trailers.is_none();
        if !piece.is_empty() || is_last {
            let sent = self.stream.send_data(piece, is_last);
            sent.map_err(|_| Errno::PIPE)?;
        }
        if !is_last {
            // What was asked for and is not used is for other streams.
            self.stream.reserve_capacity(0);
        }
        if let Some(fields) = trailers {
            let sent = self.stream.send_trailers(fields);
            sent.map_err(|_| Errno::PIPE)?;
        }
        Ok(written)
    }

    /// Nothing more comes. A body of which a part is missing is broken off.
    pub fn finish(&mut self) {
        match self.rest {
            // That fails only for a stream that is gone.
            Rest::Open => drop(self.stream.send_data(Bytes::new(), true)),
            Rest::Length(_) | Rest::Chunks(_) => self.reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Breaks the stream off.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// See [`SendStream::poll_reset`].
    pub fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(context)
    }
}
