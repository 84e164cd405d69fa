//! A connection that speaks HTTP/2, as the loop drives it.

use std::fmt;
use std::future::Future as _;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use preforkd_http::{Limits, Multiplex, MultiplexStep as Step, Opening, Transport as _};

use super::io::Pipe;
use super::limits::{self, Budget, Meter};
use super::request;
use super::stream::{Stream, Ties};
use super::wake::Sleeper;
use super::wire::{Shared, Wire};

/// What a client begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that speaks HTTP/2.
pub struct Session {
    pipe: Pipe,
    state: State,
    ties: Ties,
    budget: Budget,
    /// It was asked to begin no more streams.
    closes: bool,
    /// Why we have ended it.
    why: Option<String>,
}

// One of them exists for each connection, in a box.
#[allow(clippy::large_enum_variant)]
enum State {
    Handshake(Handshake<Pipe, Bytes>),
    Open(Connection<Pipe, Bytes>),
    Over,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    fn poll(&mut self, now: u64) -> Step<Wire> {
        let waker = self.ties.connection.clone();
        let mut context = Context::from_waker(&waker);
        loop {
            match &mut self.state {
                State::Handshake(handshake) => match Pin::new(handshake).poll(&mut context) {
                    Poll::Ready(Ok(mut connection)) => {
                        if self.closes {
                            connection.graceful_shutdown();
                        }
                        self.state = State::Open(connection);
                    }
                    Poll::Ready(Err(error)) => return self.over(Some(&error)),
                    Poll::Pending => return Step::Wait,
                },
                State::Open(connection) => match connection.poll_accept(&mut context) {
                    Poll::Ready(Some(Ok((request, reply)))) => {
                        if let Some(stream) = self.begin(request, reply) {
                            return Step::Stream(Wire::Stream(stream));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => return self.over(Some(&error)),
                    Poll::Ready(None) => return self.over(None),
                    Poll::Pending => match self.budget.exceeded(now) {
                        Some(why) if self.why.is_none() => {
                            self.why = Some(why.to_owned());
                            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        }
                        _ => return Step::Wait,
                    },
                },
                State::Over => return self.over(None),
            }
        }
    }

    /// A request has come.
    fn begin(
        &mut self,
        request: Request<RecvStream>,
        mut reply: SendResponse<Bytes>,
    ) -> Option<Box<Stream>> {
        let (parts, body) = request.into_parts();
        match request::head(&parts, body.is_end_stream()) {
            Ok(head) => Some(Box::new(Stream::new(head, body, reply, &self.ties))),
            Err(_) => {
                self.ties.meter.cancel();
                reply.send_reset(Reason::PROTOCOL_ERROR);
                None
            }
        }
    }

    /// The connection has ended.
    fn over(&mut self, error: Option<&h2::Error>) -> Step<Wire> {
        self.state = State::Over;
        let reason = error.and_then(h2::Error::reason);
        let at_once = self.why.is_some() || reason == Some(Reason::ENHANCE_YOUR_CALM);
        // A client that is gone, or says itself why it goes, is no news.
        let news = error.filter(|error| !error.is_io() && !error.is_remote());
        let why = self.why.take();
        let why = why.or_else(|| news.map(|error| format!("it breaks HTTP/2: {error}")));
        Step::Over { why, at_once }
    }
}

impl Multiplex<Wire> for Session {
    fn opening(shared: &Shared, transport: &Wire, bytes: &[u8]) -> Opening {
        if transport.is_starting() {
            return Opening::More;
        }
        match transport.tls() {
            Some(tls) if tls.protocol.as_deref() == Some(b"h2") => Opening::Streams,
            // RFC 9113 section 3.3: over TLS it is agreed on in the handshake, or not spoken.
            Some(_) => Opening::Requests,
            None if !shared.http2 => Opening::Requests,
            None if bytes.len() >= PREFACE.len() && bytes.starts_with(PREFACE) => Opening::Streams,
            None if PREFACE.starts_with(bytes) => Opening::More,
            None => Opening::Requests,
        }
    }

    fn begin(shared: &mut Shared, key: u64, transport: &Wire, limits: &Limits) -> Self {
        let pipe = Pipe::default();
        let handshake = limits::builder(limits).handshake(pipe.clone());
        let meter = Arc::new(Meter::default());
        Self {
            pipe,
            state: State::Handshake(handshake),
            budget: Budget::new(meter.clone()),
            ties: Ties {
                queue: shared.queue.clone(),
                connection: Sleeper::new(&shared.queue, key).waker(),
                meter,
                tls: transport.tls().cloned(),
                visit: match transport {
                    Wire::Bytes(_, counts) => counts.visit.clone(),
                    Wire::Stream(_) => None,
                },
                member: match transport {
                    Wire::Bytes(_, counts) => counts.member.clone(),
                    Wire::Stream(_) => None,
                },
            },
            closes: false,
            why: None,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.budget.receive(bytes.len());
        self.pipe.give(bytes);
    }

    fn end(&mut self) {
        self.pipe.end();
    }

    fn next(&mut self, now: u64) -> Step<Wire> {
        self.poll(now)
    }

    fn output(&mut self, out: &mut Vec<u8>) {
        self.pipe.take(out);
    }

    fn reuse(&mut self, spare: &mut Vec<u8>) {
        self.pipe.reuse(spare);
    }

    fn close(&mut self) {
        if !mem::replace(&mut self.closes, true)
            && let State::Open(connection) = &mut self.state
        {
            connection.graceful_shutdown();
        }
    }

    fn streams(&self) -> usize {
        self.ties.meter.open()
    }

    fn woken(shared: &mut Shared) -> Option<u64> {
        shared.queue.next()
    }
}
