//! The transport of one stream: it is read as a request of HTTP/1.1, and a response of HTTP/1.1 is written to it.

use std::fmt;
use std::fs::File;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use preforkd_http::{Slice, Tls};
use rustix::io::Errno;

use super::body::{Rest, Sending, Written};
use super::chunks::{self, Chunks};
use super::limits::Meter;
use super::request::{self, Framing};
use super::response;
use super::wake::{Queue, Sleeper};
use super::websocket::{self, Answer, Handshake};
use crate::crowds::Member;
use crate::visits::Visit;

/// Bytes of a file that are read at a time.
const PIECE: usize = 16 * 1024;

/// A stream.
pub struct Stream {
    request: Incoming,
    reply: Reply,
    /// The request was HEAD.
    head_only: bool,
    /// It asks for an upgrade, which is proven so.
    handshake: Option<Handshake>,
    /// The client has reset it, or the connection has ended.
    left: bool,
    sleeper: Arc<Sleeper>,
    waker: Waker,
    ties: Ties,
}

/// What a stream has of its connection.
#[derive(Clone)]
pub struct Ties {
    /// Where those that were woken are queued.
    pub queue: Queue,
    /// Wakes the connection.
    pub connection: Waker,
    /// What its streams have done.
    pub meter: Arc<Meter>,
    /// What is known of the encryption.
    pub tls: Option<Arc<Tls>>,
    /// What it is to its site.
    pub visit: Option<Arc<Visit>>,
    /// What it counts for.
    pub member: Option<Arc<Member>>,
}

/// No client has this key.
const NOBODY: u64 = u64::MAX;

struct Incoming {
    /// The head, or the end of the body with the fields that follow it; those before `read` were read.
    head: Vec<u8>,
    read: usize,
    body: RecvStream,
    framing: Framing,
    /// What has come and was not read.
    data: Bytes,
    /// There is nothing to read before it is woken.
    drained: bool,
    /// The client has ended the stream.
    ended: bool,
}

impl Incoming {
    /// Gives out what has come. The last byte of a body whose length is known waits for the end of the stream: before that nobody knows
    /// that the request is not malformed, and it must not be passed on (RFC 9113 section 8.1.1). How much of the data was taken, and
    /// how much was written.
    fn take(&mut self, buffer: &mut [u8]) -> Result<(usize, usize), Errno> {
        let (taken, written) = match &mut self.framing {
            Framing::Length(left) => {
                let kept = u64::from(!self.ended);
                let most = usize::try_from(left.saturating_sub(kept)).unwrap_or(usize::MAX);
                let n = self.data.len().min(buffer.len()).min(most);
                buffer[..n].copy_from_slice(&self.data[..n]);
                *left -= n as u64;
                (n, n)
            }
            Framing::Chunked => chunks::write(&self.data, buffer)?,
            Framing::Tunnel(_) => {
                let n = self.data.len().min(buffer.len());
                buffer[..n].copy_from_slice(&self.data[..n]);
                (n, n)
            }
            Framing::None => (0, 0),
        };
        if taken > 0 {
            self.data.advance(taken);
            // That fails only for a stream that is gone.
            let _ = self.body.flow_control().release_capacity(taken);
        }
        Ok((taken, written))
    }

    /// The body has ended: has its end read, with the fields that follow it. Where its length is known there is no place for them.
    fn end(&mut self, context: &mut Context<'_>) -> Result<(), Errno> {
        if self.framing == Framing::Chunked {
            let trailers = match self.body.poll_trailers(context) {
                Poll::Ready(Ok(trailers)) => trailers.unwrap_or_default(),
                Poll::Ready(Err(_)) => return Err(Errno::CONNRESET),
                Poll::Pending => return Err(Errno::AGAIN),
            };
            let end = request::end(&trailers).map_err(|_| Errno::CONNRESET)?;
            (self.head, self.read) = (end, 0);
        }
        self.framing = Framing::None;
        Ok(())
    }
}

enum Reply {
    /// The head was not written.
    Head(SendResponse<Bytes>),
    /// The body is being written.
    Body(Sending),
    /// All was written, or was broken off.
    Over,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream on which a request has come, whose head has this form in HTTP/1.1.
    pub fn new(
        (head, framing): (Vec<u8>, Framing),
        body: RecvStream,
        reply: SendResponse<Bytes>,
        ties: &Ties,
    ) -> Self {
        ties.meter.begin(head.len());
        let sleeper = Sleeper::new(&ties.queue, NOBODY);
        Self {
            head_only: head.starts_with(b"HEAD "),
            handshake: match framing {
                Framing::Tunnel(handshake) => Some(handshake),
                _ => None,
            },
            request: Incoming {
                head,
                read: 0,
                ended: body.is_end_stream(),
                body,
                framing,
                data: Bytes::new(),
                drained: false,
            },
            reply: Reply::Head(reply),
            left: false,
            waker: sleeper.waker(),
            sleeper,
            ties: ties.clone(),
        }
    }

    /// Its key from now on.
    pub fn set_key(&self, key: u64) {
        self.sleeper.set_key(key);
    }

    /// It waits, and is to be woken when the client resets it.
    pub fn watch(&mut self) {
        if self.has_left() {
            self.waker.wake_by_ref();
        }
    }

    /// What is known of the encryption.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.ties.tls.as_ref()
    }

    /// What its connection is to its site.
    pub fn visit(&self) -> &Option<Arc<Visit>> {
        &self.ties.visit
    }

    /// What its connection counts for.
    pub fn member(&self) -> Option<&Arc<Member>> {
        self.ties.member.as_ref()
    }

    /// Whether there may be something to read.
    pub fn has_input(&self) -> bool {
        let request = &self.request;
        let is_open = request.framing != Framing::None && !request.drained;
        request.read < request.head.len() || is_open
    }

    /// Reads the request.
    ///
    /// # Errors
    /// [`Errno::AGAIN`], or the stream has ended before its request has.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let request = &mut self.request;
        loop {
            let head = &request.head[request.read..];
            if !head.is_empty() {
                let n = head.len().min(buffer.len());
                buffer[..n].copy_from_slice(&head[..n]);
                request.read += n;
                return Ok(n);
            }
            let (taken, written) = request.take(buffer)?;
            if taken > 0 {
                self.ties.meter.carry(taken);
                return Ok(written);
            }
            let mut context = Context::from_waker(&self.waker);
            if request.ended {
                if request.framing == Framing::None {
                    return Ok(0);
                }
                if let Err(error) = request.end(&mut context) {
                    request.drained = error == Errno::AGAIN;
                    return Err(error);
                }
                continue;
            }
            match request.body.poll_data(&mut context) {
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) if request.data.is_empty() => request.data = data,
                Poll::Ready(Some(Err(error))) => {
                    self.left |= error.is_remote();
                    return Err(Errno::CONNRESET);
                }
                // More than its length, which the library does not let through.
                Poll::Ready(Some(Ok(_))) => return Err(Errno::CONNRESET),
                Poll::Ready(None) => request.ended = true,
                Poll::Pending => {
                    request.drained = true;
                    return Err(Errno::AGAIN);
                }
            }
            request.drained = false;
        }
    }

    /// Takes bytes of the response.
    ///
    /// # Errors
    /// [`Errno::AGAIN`], or the client takes nothing any more.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        match &mut self.reply {
            Reply::Head(_) => self.write_head(data),
            Reply::Body(_) => self.write_body(data),
            Reply::Over => Err(Errno::PIPE),
        }
    }

    fn write_head(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let Reply::Head(reply) = &mut self.reply else {
            return Err(Errno::PIPE);
        };
        // It is written whole, and in one piece.
        let head = response::head(data).ok_or(Errno::PROTO)?;
        let (mut response, length) = (head.response, head.length);
        self.ties.meter.carry(length);
        if let Some(handshake) = self.handshake {
            match websocket::answer(&mut response, &handshake) {
                Answer::Switched => {
                    let sent = reply.send_response(response, false);
                    let stream = sent.map_err(|_| Errno::PIPE)?;
                    self.reply = Reply::Body(Sending::new(stream, Rest::Open));
                    return Ok(length);
                }
                Answer::Wrong => {
                    let sent = reply.send_response(response, true);
                    self.reply = Reply::Over;
                    return sent.map(|_| length).map_err(|_| Errno::PIPE);
                }
                Answer::Other => {}
            }
        }
        let status = response.status();
        if status.is_informational() {
            let sent = reply.send_informational(response);
            return sent.map(|()| head.length).map_err(|_| Errno::PIPE);
        }
        let is_empty = self.head_only || matches!(status.as_u16(), 204 | 205 | 304);
        let rest = match (head.chunked, head.body) {
            _ if is_empty => None,
            (true, _) => Some(Rest::Chunks(Chunks::default())),
            (false, Some(0)) => None,
            (false, Some(length)) => Some(Rest::Length(length)),
            // The end of no connection ends the body.
            (false, None) => return Err(Errno::PROTO),
        };
        let sent = reply.send_response(response, rest.is_none());
        let stream = sent.map_err(|_| Errno::PIPE)?;
        self.reply = match rest {
            None => Reply::Over,
            Some(rest) => Reply::Body(Sending::new(stream, rest)),
        };
        Ok(head.length)
    }

    fn write_body(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let Reply::Body(body) = &mut self.reply else {
            return Err(Errno::PIPE);
        };
        let written = body.write(data, &mut Context::from_waker(&self.waker))?;
        Ok(self.note(written))
    }

    /// Takes bytes of the response, or, if there are none, those that follow them.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub fn write_both(&mut self, data: &[u8], slice: &Slice) -> Result<usize, Errno> {
        match &mut self.reply {
            Reply::Body(body) if data.is_empty() => {
                let written = body.write_slice(slice, &mut Context::from_waker(&self.waker))?;
                Ok(self.note(written))
            }
            _ if data.is_empty() => self.write(slice),
            _ => self.write(data),
        }
    }

    /// So many bytes it takes to have written this.
    fn note(&mut self, written: Written) -> usize {
        self.ties.meter.carry(written.data);
        if written.ended {
            self.reply = Reply::Over;
        }
        written.taken
    }

    /// Takes a part of a file.
    ///
    /// # Errors
    /// As [`Stream::write`], and those of reading the file.
    pub fn send_file(
        &mut self,
        file: &File,
        offset: &mut u64,
        length: usize,
    ) -> Result<usize, Errno> {
        if let Reply::Body(body) = &mut self.reply
            && body.has_length()
        {
            // What nobody takes is not read.
            body.room(length, &mut Context::from_waker(&self.waker))?;
        }
        let mut piece = vec![0; length.min(PIECE)];
        let n = rustix::io::pread(file, &mut piece[..], *offset)?;
        if n == 0 {
            return Ok(0);
        }
        let taken = self.write(&piece[..n])?;
        *offset += taken as u64;
        Ok(taken)
    }

    /// Ends the response. Nothing more comes of the stream: if its request has not ended, the client is told to stop (RFC 9113
    /// section 8.1), when this is dropped.
    ///
    /// # Errors
    /// Always, as there is nothing to wait for.
    pub fn finish(&mut self) -> Result<(), Errno> {
        match mem::replace(&mut self.reply, Reply::Over) {
            Reply::Body(mut body) => body.finish(),
            Reply::Head(mut reply) => reply.send_reset(Reason::INTERNAL_ERROR),
            Reply::Over => {}
        }
        Err(Errno::NOTCONN)
    }

    /// Breaks the response off.
    pub fn abort(&mut self, reason: Reason) {
        match mem::replace(&mut self.reply, Reply::Over) {
            Reply::Body(mut body) => body.reset(reason),
            Reply::Head(mut reply) => reply.send_reset(reason),
            Reply::Over => {}
        }
    }

    /// Whether the client takes nothing any more. If it does, the stream is woken when that changes.
    pub fn has_left(&mut self) -> bool {
        let mut context = Context::from_waker(&self.waker);
        let reset = match &mut self.reply {
            Reply::Head(reply) => reply.poll_reset(&mut context),
            Reply::Body(body) => body.poll_reset(&mut context),
            Reply::Over => return self.left,
        };
        self.left |= reset.is_ready();
        self.left
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ties.meter.end(self.left);
        // The connection may have nothing else to wait for.
        self.ties.connection.wake_by_ref();
    }
}
