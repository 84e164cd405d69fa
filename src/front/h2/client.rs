//! A connection to an upstream that speaks HTTP/2 with prior knowledge (RFC 9113 section 3.3). It has neither socket nor clock.
//!
//! It takes a request in the form of HTTP/1.1 and gives its response in that form, one at a time: so what writes requests and what reads
//! responses is the same for both versions. Frames are made and read by the library, which is polled over memory; nobody has to wake anybody,
//! as it is polled whenever something was given to it.

use std::fmt;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use rustix::io::Errno;

use self::exchange::Exchange;
use self::frames::Frames;
use super::body::Sending;
use super::io::{MOST_HELD, Pipe};
use super::limits::SEND_BUFFER;

mod exchange;
mod frames;
mod head;

pub use exchange::Got;
pub use head::is_grpc;

/// Bytes of a response that an upstream may send before they were read.
const WINDOW: u32 = 256 * 1024;
/// The library's budget for frames with little data that were not looked at: all that can be given to it at once, in frames of one byte with
/// 256 each. What has come is taken out at once, so servers of gRPC may send many small messages.
const SMALL_FRAMES: usize = 4 * 1024 * 1024;
/// Bytes of the head of a response, as HTTP/2 counts them; the same limit as in HTTP/1.1.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection.
pub struct Client {
    pipe: Pipe,
    /// None when it is over.
    live: Option<Live>,
    frames: Frames,
    exchange: Option<Exchange>,
}

struct Live {
    requests: SendRequest<Bytes>,
    connection: Connection<Pipe, Bytes>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Default for Client {
    fn default() -> Self {
        let pipe = Pipe::default();
        let mut builder = Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_FRAMES)
            .enable_push(false);
        let handshake = pin!(builder.handshake(pipe.clone()));
        // It only writes, and memory takes that at once.
        let live = match handshake.poll(&mut context()) {
            Poll::Ready(Ok((requests, connection))) => Some(Live {
                requests,
                connection,
            }),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        };
        Self {
            pipe,
            live,
            frames: Frames::default(),
            exchange: None,
        }
    }
}

/// Whether the head of a request can be said in HTTP/2.
pub fn can_say(head: &[u8]) -> bool {
    head::request(head).is_some()
}

impl Client {
    /// Another request begins.
    pub fn begin(&mut self) {
        self.exchange = None;
    }

    /// Takes bytes of the request. The first have its whole head.
    ///
    /// # Errors
    /// [`Errno::AGAIN`], or the upstream takes nothing any more.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let taken = match &mut self.exchange {
            Some(exchange) => exchange.write(data, &mut context())?,
            None => self.send_head(data)?,
        };
        self.poll();
        Ok(taken)
    }

    fn send_head(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let live = self.live.as_mut().ok_or(Errno::PIPE)?;
        match live.requests.poll_ready(&mut context()) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Errno::PIPE),
            Poll::Pending => return Err(Errno::AGAIN),
        }
        let asked = head::request(data).ok_or(Errno::PROTO)?;
        let head_only = asked.request.method() == http::Method::HEAD;
        let ends = asked.rest.is_none();
        let sent = live.requests.send_request(asked.request, ends);
        let (response, stream) = sent.map_err(|_| Errno::PIPE)?;
        let sending = asked.rest.map(|rest| Sending::new(stream, rest));
        self.exchange = Some(Exchange::new(head_only, response, sending));
        Ok(asked.length)
    }

    /// Gives out what comes next of the response.
    pub fn read(&mut self, buffer: &mut [u8]) -> Got {
        let exchange = self.exchange.as_mut();
        match exchange.map_or(Got::Nothing, |exchange| exchange.read(buffer)) {
            Got::Nothing if self.live.is_none() => Got::End,
            Got::Bytes(n) => {
                // The upstream may send more.
                self.poll();
                Got::Bytes(n)
            }
            other => other,
        }
    }

    /// Whether there is something to read.
    pub fn has_input(&self) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(Exchange::has_input)
    }

    /// Takes bytes of the upstream.
    pub fn give(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.frames.before_reset(bytes));
            self.pipe.give(now);
            self.poll();
            bytes = later;
        }
    }

    /// The upstream sends nothing any more.
    pub fn end(&mut self) {
        self.pipe.end();
        self.poll();
    }

    /// Whether so much waits to be sent that what was given is not read.
    pub fn is_full(&self) -> bool {
        self.pipe.unread() >= MOST_HELD
    }

    /// Moves what is to be sent behind what is in `out`. To be called again when it was sent, as there is a limit to what is held.
    pub fn output(&mut self, out: &mut Vec<u8>) {
        self.poll();
        self.pipe.take(out);
    }

    /// Whether another request may follow: the latest one is over, and the upstream has said nothing else.
    pub fn is_free(&mut self) -> bool {
        let is_over = self.exchange.as_ref().is_none_or(Exchange::is_over);
        let Some(live) = &mut self.live else {
            return false;
        };
        is_over
            && matches!(
                live.requests.poll_ready(&mut context()),
                Poll::Ready(Ok(()))
            )
    }

    /// Breaks the request off that is not over.
    pub fn reset(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.reset();
        }
        self.poll();
    }

    fn poll(&mut self) {
        let mut context = context();
        let is_over = self.live.as_mut().is_some_and(|live| {
            let end = Pin::new(&mut live.connection).poll(&mut context);
            end.is_ready()
        });
        if let Some(exchange) = &mut self.exchange {
            exchange.collect(&mut context);
        }
        if is_over {
            self.live = None;
        }
    }
}

/// Nobody is woken.
fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
