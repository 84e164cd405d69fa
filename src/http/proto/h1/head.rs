//! A request head: request line and header fields (RFC 9112 sections 2 to 6), parsed strictly.

use std::mem::MaybeUninit;

use crate::limits::{FIELDS_OF_FRONT, Limits, MOST_FIELDS};
use crate::proto::bytes::number;
use crate::proto::h1::target;
use crate::proto::reject::Reject;

/// A part of the head, as offsets, so that the head owns nothing and can be kept while its bytes move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self::new(start, start + part.len())
    }

    // A head is limited to `max_head`, far below 4 GiB.
    fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// What follows this part in a larger one.
    pub fn rest_of(self, larger: Self) -> Self {
        Self {
            start: self.end,
            end: larger.end,
        }
    }

    pub fn get(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }
}

/// How the body's end is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// In place of a minor version: the request has come over HTTP/2.
pub(crate) const STREAM: u8 = 2;

/// The parsed head of one request. The allocation of `fields` is kept from request to request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub method: Span,
    pub target: Span,
    pub path: Span,
    pub query: Span,
    pub authority: Option<Span>,
    pub fields: Vec<(Span, Span)>,
    /// Minor version of HTTP/1, or [`STREAM`].
    pub minor: u8,
    pub framing: Framing,
    /// The client wants to keep the connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` (RFC 9110 section 10.1.1).
    pub expect: bool,
}

impl Head {
    /// Parses `bytes`, which are a head up to and with its empty line; every line ends in CR LF.
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Reject> {
        let mut storage = [const { MaybeUninit::uninit() }; MOST_FIELDS + FIELDS_OF_FRONT];
        let mut request = httparse::Request::new(&mut []);
        let room = limits.max_fields.min(storage.len());
        let room = &mut storage[..room];
        match request.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Reject::bad("malformed request head")),
            Err(error) => return Err(reason(error, bytes)),
        }
        let (Some(method), Some(raw_target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(Reject::bad("malformed request line"));
        };
        let (method, raw_target) = (method.as_bytes(), raw_target.as_bytes());
        self.method = Span::of(method, bytes);
        self.target = Span::of(raw_target, bytes);
        self.minor = minor;
        let parts = target::parse(method, raw_target)?;
        let at = self.target.start as usize;
        self.path = Span::new(at + parts.path.0, at + parts.path.1);
        self.query = Span::new(at + parts.query.0, at + parts.query.1);
        self.authority = parts
            .authority
            .map(|(start, end)| Span::new(at + start, at + end));
        self.fields(request.headers, bytes)
    }

    fn fields(&mut self, fields: &[httparse::Header<'_>], bytes: &[u8]) -> Result<(), Reject> {
        self.fields.clear();
        let mut length = None;
        let mut coding = None;
        let mut host = None;
        let (mut close, mut keep) = (false, false);
        self.expect = false;
        for field in fields {
            let (name, value) = (field.name.as_bytes(), field.value);
            // CGI writes "-" as "_", so a name that has one already could pose as another (CVE-2015-0219).
            if name.contains(&b'_') {
                continue;
            }
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    if host.replace(value).is_some() {
                        return Err(Reject::bad("more than one Host"));
                    }
                    target::host(value)?;
                }
                6 if name.eq_ignore_ascii_case(b"expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Reject::with(417, "unknown expectation"));
                    }
                    self.expect = self.minor == 1;
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    for option in value.split(|&b| b == b',') {
                        let option = option.trim_ascii();
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let other = length.replace(number(value).ok_or(BAD_LENGTH)?);
                    if other.is_some() {
                        return Err(Reject::bad("more than one Content-Length"));
                    }
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    let other = coding.replace(value);
                    if other.is_some() {
                        return Err(Reject::bad("more than one Transfer-Encoding"));
                    }
                }
                _ => {}
            }
            self.fields
                .push((Span::of(name, bytes), Span::of(value, bytes)));
        }
        if self.minor == 1 && host.is_none() {
            return Err(Reject::bad("no Host"));
        }
        self.keep_alive = !close && (self.minor == 1 || keep);
        self.framing = match (coding, length) {
            (None, None) => Framing::None,
            (None, Some(length)) => Framing::Length(length),
            // RFC 9112 section 6.1: ought to be handled as an error, as it may be an attempt at request smuggling.
            (Some(_), Some(_)) => {
                return Err(Reject::bad("both Transfer-Encoding and Content-Length"));
            }
            (Some(_), None) if self.minor == 0 => {
                return Err(Reject::bad("Transfer-Encoding in HTTP/1.0"));
            }
            (Some(coding), None) => transfer_coding(coding)?,
        };
        Ok(())
    }
}

const BAD_LENGTH: Reject = Reject::bad("invalid Content-Length");

/// RFC 9112 section 6.1: 501 for a coding that is registered but not ours, if the message has an end at all
/// (section 6.3: `chunked` is last); 400 for everything else but exactly `chunked`.
fn transfer_coding(value: &[u8]) -> Result<Framing, Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let mut codings = value.split(|&b| b == b',').map(<[u8]>::trim_ascii).rev();
    let ends = codings
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known = |coding: &[u8]| {
        [
            &b"gzip"[..],
            b"x-gzip",
            b"deflate",
            b"compress",
            b"x-compress",
        ]
        .iter()
        .any(|c| coding.eq_ignore_ascii_case(c))
    };
    if ends && codings.all(known) {
        Err(Reject::with(501, "unsupported Transfer-Encoding"))
    } else {
        Err(Reject::bad("invalid Transfer-Encoding"))
    }
}

fn reason(error: httparse::Error, bytes: &[u8]) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => {
            Reject::with(431, "too many header fields").because_of("max_headers")
        }
        httparse::Error::Version if other_version(bytes) => {
            Reject::with(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        }
        httparse::Error::HeaderName => Reject::bad("invalid header name"),
        httparse::Error::HeaderValue => Reject::bad("invalid header value"),
        _ => Reject::bad("malformed request line"),
    }
}

/// Whether the request line is well formed but for the numbers of its version (RFC 9112 section 2.3).
fn other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ').rev();
    let version = words.next().unwrap_or_default();
    words.count() == 2
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}
