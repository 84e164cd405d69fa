//! Writing a response (RFC 9112 sections 4, 6 and 7): its head, and the body in the framing that fits the request.

use crate::message::date;
use crate::message::head::Head;

/// How the body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Framing {
    /// The head was not written.
    #[default]
    Unsent,
    /// No body goes out, whatever is written.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// Up to the end of the connection.
    Close,
    /// As one of the last two, but only what a coder has made goes out.
    Coded,
}

/// Where a response stands, and how it goes on.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    framing: Framing,
    http11: bool,
    keep_alive: bool,
}

impl Encoder {
    /// For the response to a request with this version, and whether the connection may be kept after it.
    pub fn new(http11: bool, keep_alive: bool) -> Self {
        Self {
            framing: Framing::Unsent,
            http11,
            keep_alive,
        }
    }

    /// Writes the head. `known` is the body's length when the head has no `Content-Length` but its length is certain; `head_only`: the
    /// request was HEAD.
    pub fn head(&mut self, out: &mut Vec<u8>, head: &Head, known: Option<u64>, head_only: bool) {
        let code = head.status();
        let bodyless = matches!(code, 204 | 205 | 304);
        let length = match code {
            // RFC 9110 section 15.3.6: no content, which the client must be told.
            205 => Some(0),
            _ => head
                .content_length()
                .or(known.filter(|_| !head_only && !bodyless)),
        };
        self.framing = match length {
            _ if head_only || bodyless => Framing::Nothing,
            Some(length) => Framing::Length(length),
            None if self.http11 => Framing::Chunked,
            None => Framing::Close,
        };
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(head.status_text());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(head.lines());
        // RFC 9110 section 8.6: never in a 204; in a 304 and for HEAD it tells of the body that would have been sent.
        if let Some(length) = length
            && code != 204
        {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if !head.has_server {
            out.extend_from_slice(b"Server: preforkd\r\n");
        }
        if !head.has_date {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(&date::now());
            out.extend_from_slice(b"\r\n");
        }
        self.keep_alive &= !head.close && self.framing != Framing::Close;
        if !self.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if !self.http11 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes a piece of the body; what goes beyond `Content-Length` is cut. The number of bytes that were written.
    #[inline]
    pub fn piece(&mut self, out: &mut Vec<u8>, data: &[u8]) -> u64 {
        match self.framing {
            Framing::Chunked if data.is_empty() => 0,
            Framing::Chunked => {
                chunk_size(out, data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
                data.len() as u64
            }
            _ => self.slice(out, data),
        }
    }

    /// Begins a piece of `length` bytes that is written in slices.
    pub fn begin_piece(&self, out: &mut Vec<u8>, length: usize) {
        if self.framing == Framing::Chunked {
            chunk_size(out, length);
        }
    }

    /// Writes a slice of the piece that was begun. The number of bytes that were written.
    pub fn slice(&mut self, out: &mut Vec<u8>, data: &[u8]) -> u64 {
        let taken = match &mut self.framing {
            Framing::Unsent | Framing::Nothing | Framing::Coded => return 0,
            Framing::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= n as u64;
                n
            }
            Framing::Chunked | Framing::Close => data.len(),
        };
        out.extend_from_slice(&data[..taken]);
        taken as u64
    }

    /// Ends the piece that was begun.
    pub fn end_piece(&self, out: &mut Vec<u8>) {
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// `length` bytes of the body go out by another way; how many of them the client may get.
    pub fn pass(&mut self, length: u64) -> u64 {
        match &mut self.framing {
            Framing::Length(left) => {
                let n = length.min(*left);
                *left -= n;
                n
            }
            // The coder gets them all.
            Framing::Close | Framing::Coded => length,
            Framing::Unsent | Framing::Nothing | Framing::Chunked => 0,
        }
    }

    /// Writes the end of the body, and fields that follow it, as lines, where the framing has a place for them; whether it is complete.
    #[inline]
    pub fn end(&self, out: &mut Vec<u8>, trailers: &[u8]) -> bool {
        match self.framing {
            Framing::Chunked if trailers.is_empty() => out.extend_from_slice(b"0\r\n\r\n"),
            Framing::Chunked => {
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(trailers);
                out.extend_from_slice(b"\r\n");
            }
            Framing::Unsent | Framing::Coded => return false,
            Framing::Length(left) => return left == 0,
            Framing::Nothing | Framing::Close => {}
        }
        true
    }

    /// Leaves the body to a coder; whether there is one to change.
    pub fn hold(&mut self) -> bool {
        let is_open = matches!(self.framing, Framing::Chunked | Framing::Close);
        if is_open {
            self.framing = Framing::Coded;
        }
        is_open
    }

    /// Writes a piece that a coder has made. The number of bytes that were written.
    pub fn coded(&mut self, out: &mut Vec<u8>, data: &[u8]) -> u64 {
        self.framing = self.open();
        let written = self.piece(out, data);
        self.framing = Framing::Coded;
        written
    }

    /// Writes the end of a body that a coder has changed.
    pub fn end_coded(&mut self, out: &mut Vec<u8>, trailers: &[u8]) {
        self.framing = self.open();
        self.end(out, trailers);
    }

    /// The framing of a body whose length nobody knows.
    fn open(&self) -> Framing {
        match self.http11 {
            true => Framing::Chunked,
            false => Framing::Close,
        }
    }

    /// Writes an interim response with these fields, as lines; HTTP/1.0 knows none.
    pub fn interim(&self, out: &mut Vec<u8>, head: &Head) {
        if self.http11 && !self.started() {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(head.status_text());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(head.lines());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Writes the head of the change to another protocol. What is written then goes out as it is.
    pub fn switch(&mut self, out: &mut Vec<u8>, head: &Head, protocol: &[u8]) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(head.status_text());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(head.lines());
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
        out.extend_from_slice(protocol);
        out.extend_from_slice(b"\r\n\r\n");
        self.framing = Framing::Close;
        self.keep_alive = false;
    }

    /// The connection ends with this response.
    pub fn close(&mut self) {
        self.keep_alive = false;
    }

    /// Whether the head was written.
    pub fn started(&self) -> bool {
        self.framing != Framing::Unsent
    }

    /// Whether no body goes out, whatever is written.
    pub fn is_bodyless(&self) -> bool {
        self.framing == Framing::Nothing
    }

    /// Whether the body's bytes go out as they are.
    pub fn is_plain(&self) -> bool {
        matches!(self.framing, Framing::Length(_) | Framing::Close)
    }

    /// Whether nothing more goes out, whatever is written.
    pub fn is_whole(&self) -> bool {
        matches!(self.framing, Framing::Nothing | Framing::Length(0))
    }

    /// Whether only the end of the connection tells the client that the body is complete (RFC 9112 section 6.3).
    pub fn ends_with_connection(&self) -> bool {
        match self.framing {
            Framing::Close => true,
            Framing::Coded => !self.http11,
            _ => false,
        }
    }

    /// Whether the connection may serve another request.
    pub fn keeps_connection(&self) -> bool {
        self.keep_alive
    }
}

/// Appends a number in decimal digits. The formatting of the standard library costs ten times as much.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = ((usize::BITS - size.leading_zeros()).div_ceil(4)).max(1);
    out.extend((0..digits).rev().map(|i| DIGITS[size >> (4 * i) & 15]));
    out.extend_from_slice(b"\r\n");
}
