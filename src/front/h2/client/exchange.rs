//! One request on a stream to an upstream, and its response.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use rustix::io::Errno;

use super::super::body::Sending;
use super::super::{chunks, request};
use super::head::{self, Framing};

/// What comes next of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes of it.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The connection has ended.
    End,
    /// The upstream says that it has not begun with the request, and will not.
    NotBegun,
    /// The upstream has broken the response off, or a rule of the protocol.
    Broken(String),
}

/// A request and its response.
pub struct Exchange {
    head_only: bool,
    /// The body of the request; none when all of it was sent.
    sending: Option<Sending>,
    receiving: Receiving,
    framing: Framing,
    /// What is around the body and was not read: heads, and the end of chunks.
    text: Bytes,
    /// The body, as far as it has come and was not read, which the windows bound. Pieces of a few bytes would take more memory than that.
    data: BytesMut,
    end: Option<End>,
}

enum Receiving {
    Head(ResponseFuture),
    Body(RecvStream),
}

/// How the stream has ended.
enum End {
    /// In the order of the protocol, with these fields after the body.
    Whole(HeaderMap),
    /// The same, and its end was read.
    Read,
    Failed(h2::Error),
}

impl Exchange {
    /// One whose head was sent.
    pub fn new(head_only: bool, response: ResponseFuture, sending: Option<Sending>) -> Self {
        Self {
            head_only,
            sending,
            receiving: Receiving::Head(response),
            framing: Framing::None,
            text: Bytes::new(),
            data: BytesMut::new(),
            end: None,
        }
    }

    /// Takes bytes of the body of the request.
    ///
    /// # Errors
    /// [`Errno::AGAIN`], or the upstream takes nothing any more.
    pub fn write(&mut self, data: &[u8], context: &mut Context<'_>) -> Result<usize, Errno> {
        let sending = self.sending.as_mut().ok_or(Errno::PIPE)?;
        let written = sending.write(data, context)?;
        if written.ended {
            self.sending = None;
        }
        Ok(written.taken)
    }

    /// Takes in what has come.
    pub fn collect(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() {
            let next = match &mut self.receiving {
                Receiving::Head(response) => match response.poll_informational(context) {
                    Poll::Ready(Some(Ok(interim))) => {
                        self.take_head(interim.status(), interim.headers(), false);
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => Err(error),
                    Poll::Ready(None) | Poll::Pending => match Pin::new(response).poll(context) {
                        Poll::Ready(response) => response.map(Some),
                        Poll::Pending => return,
                    },
                },
                Receiving::Body(body) => match body.poll_data(context) {
                    Poll::Ready(Some(Ok(data))) => {
                        self.data.extend_from_slice(&data);
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => Err(error),
                    Poll::Ready(None) => match body.poll_trailers(context) {
                        Poll::Ready(Ok(trailers)) => {
                            self.end = Some(End::Whole(trailers.unwrap_or_default()));
                            return;
                        }
                        Poll::Ready(Err(error)) => Err(error),
                        Poll::Pending => return,
                    },
                    Poll::Pending => return,
                },
            };
            match next {
                Ok(Some(response)) => {
                    let (parts, body) = response.into_parts();
                    self.take_head(parts.status, &parts.headers, body.is_end_stream());
                    self.receiving = Receiving::Body(body);
                }
                Ok(None) => {}
                Err(error) => self.end = Some(End::Failed(error)),
            }
        }
    }

    fn take_head(&mut self, status: http::StatusCode, fields: &HeaderMap, ends: bool) {
        let mut text = self.text.to_vec();
        self.framing = head::response(status, fields, self.head_only, ends, &mut text);
        self.text = text.into();
    }

    /// Gives out what comes next of the response, in the form of HTTP/1.1.
    pub fn read(&mut self, buffer: &mut [u8]) -> Got {
        loop {
            if !self.text.is_empty() {
                let n = self.text.len().min(buffer.len());
                self.text.copy_to_slice(&mut buffer[..n]);
                return Got::Bytes(n);
            }
            if !self.data.is_empty() {
                let data = &mut self.data;
                let (taken, written) = match self.framing {
                    Framing::Chunked => chunks::write(data, buffer).unwrap_or_default(),
                    Framing::Length(left) => {
                        // The last byte waits for the end of the stream, so that the stream is over when the response is.
                        let most = left.saturating_sub(u64::from(self.end.is_none()));
                        let most = usize::try_from(most).unwrap_or(usize::MAX);
                        let n = data.len().min(buffer.len()).min(most);
                        buffer[..n].copy_from_slice(&data[..n]);
                        self.framing = Framing::Length(left - n as u64);
                        (n, n)
                    }
                    Framing::None => (data.len(), 0),
                };
                data.advance(taken);
                if data.is_empty() {
                    // What is kept is small.
                    *data = BytesMut::new();
                }
                if let Receiving::Body(body) = &mut self.receiving {
                    // That fails only for a stream that is gone.
                    let _ = body.flow_control().release_capacity(taken);
                }
                match (taken, written) {
                    (0, _) => return Got::Nothing,
                    (_, 0) => continue,
                    (_, n) => return Got::Bytes(n),
                }
            }
            match &mut self.end {
                Some(End::Whole(trailers)) => {
                    let text = request::end(trailers);
                    self.end = Some(End::Read);
                    match text {
                        Ok(text) if self.framing == Framing::Chunked => self.text = text.into(),
                        Ok(_) => {}
                        Err(why) => {
                            return Got::Broken(format!("its trailers are malformed: {}", why.0));
                        }
                    }
                }
                Some(End::Failed(error)) => return failed(error),
                Some(End::Read) | None => return Got::Nothing,
            }
        }
    }

    /// Whether there is something to read.
    pub fn has_input(&self) -> bool {
        let has_end = matches!(self.end, Some(End::Whole(_) | End::Failed(_)));
        let waits = self.framing == Framing::Length(1) && self.end.is_none();
        !self.text.is_empty() || !self.data.is_empty() && !waits || has_end
    }

    /// Whether both directions have ended in the order of the protocol.
    pub fn is_over(&self) -> bool {
        self.sending.is_none() && matches!(self.end, Some(End::Whole(_) | End::Read))
    }

    /// Nobody wants the response any more. The stream ends when this is dropped.
    pub fn reset(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.reset(Reason::CANCEL);
        }
    }
}

/// What a stream has ended with.
fn failed(error: &h2::Error) -> Got {
    if error.is_io() {
        return Got::End;
    }
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        return Got::NotBegun;
    }
    Got::Broken(match error.reason().filter(|_| error.is_remote()) {
        Some(reason) => format!("it has reset the stream: {}", reason.description()),
        None => format!("it does not speak HTTP/2, or breaks its rules: {error}"),
    })
}
