//! One response of an upstream as a state machine: bytes in, a head and a body out. It has no socket and no clock.
//!
//! It is as strict as [`crate::Connection`]: a response whose end could be seen in two ways is an error, and is never passed on.

use std::fmt;
use std::mem::MaybeUninit;

use crate::files::sends_file;
use crate::limits::MOST_FIELDS;
use crate::message::response::Response;
use crate::proto::bytes::number;
use crate::proto::h1::chunked::Decoder;
use crate::proto::h1::head::Span;
use crate::proto::h1::hop;

/// The most bytes of the head of a response.
const MAX_HEAD: usize = 64 * 1024;
/// The most interim responses before the final one.
const MAX_INTERIM: u32 = 32;
/// Bytes of memory that are kept from one head to the next.
const KEPT: usize = 16 * 1024;

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(&'static str);

impl Fault {
    /// A response of which this is true.
    pub const fn new(what: &'static str) -> Self {
        Self(what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

/// What has come of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All were taken, and more are needed.
    More,
    /// The head of an interim response is there, which is passed on; another head follows.
    Interim,
    /// The head of the final response is there; its body follows.
    Head,
    /// The head of the change to another protocol is there, which was asked for; what follows is no HTTP any more.
    Switch,
    /// The response is complete. Bytes that are left belong to no response that was asked for.
    Done,
}

/// How the end of the body is found (RFC 9112 section 6.3).
#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Decoder),
    /// Up to the end of the connection.
    Close,
    /// The same, and it is no HTTP any more.
    Switched,
    Done,
    Failed(Fault),
}

/// What a response is expected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// The request was HEAD.
    pub head_only: bool,
    /// The request has asked for another protocol.
    pub upgrade: bool,
    /// Fields that follow the body are kept.
    pub trailers: bool,
    /// Somebody looks at the head before it goes out.
    pub judged: bool,
}

/// The reading half of a connection to an upstream, for one response after the other.
#[derive(Debug)]
pub struct Incoming {
    state: State,
    expected: Expected,
    /// A byte of a response has come.
    begun: bool,
    /// The head that arrives or is there.
    input: Vec<u8>,
    /// Start of the line that is arriving.
    line: usize,
    status: Span,
    fields: Vec<(Span, Span)>,
    /// The fields `Connection` name others.
    names: bool,
    /// A field names a file that is to be sent in place of the body.
    sends_file: bool,
    interim: u32,
    /// The head that is there is that of an interim response.
    is_interim: bool,
    /// Fields that follow the body, as lines.
    trailers: Vec<u8>,
    /// The upstream keeps the connection, as far as the head tells.
    keep: bool,
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            state: State::Done,
            expected: Expected::default(),
            begun: false,
            input: Vec::new(),
            line: 0,
            status: Span::default(),
            fields: Vec::new(),
            names: false,
            sends_file: false,
            interim: 0,
            is_interim: false,
            trailers: Vec::new(),
            keep: false,
        }
    }
}

impl Incoming {
    /// A request is sent, whose response is expected now.
    pub fn expect(&mut self, expected: Expected) {
        self.state = State::Head;
        self.expected = expected;
        self.is_interim = false;
        self.trailers.clear();
        self.begun = false;
        self.interim = 0;
        self.keep = false;
        self.forget();
    }

    /// Whether a byte of the response has come, be it of an interim one.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the response is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the connection can serve another request when this response is complete.
    pub fn keeps_connection(&self) -> bool {
        self.keep
    }

    /// Takes bytes from the front of `bytes`, and hands those of the body to `sink`; how many, and what has come of them. After
    /// [`Step::Head`] it is called again for the rest, also if there is none.
    ///
    /// # Errors
    /// The response is malformed or ambiguous. Nothing more is parsed.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(usize, Step), Fault> {
        self.begun |= !bytes.is_empty();
        let result = match &mut self.state {
            State::Head => self.head(bytes),
            State::Length(left) => {
                let n = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                sink(&bytes[..n]);
                *left -= n as u64;
                match *left {
                    0 => Ok((n, Step::Done)),
                    _ => Ok((n, Step::More)),
                }
            }
            State::Chunked(decoder) => {
                let (keeps, trailers) = (self.expected.trailers, &mut self.trailers);
                let taken = decoder.decode_all(
                    bytes,
                    |data| {
                        sink(data);
                        Ok(())
                    },
                    |byte| {
                        if keeps {
                            trailers.push(byte);
                        }
                    },
                );
                match taken {
                    Ok(n) if decoder.done() => Ok((n, Step::Done)),
                    Ok(n) => Ok((n, Step::More)),
                    Err(reject) => Err(Fault(reject.why)),
                }
            }
            State::Close | State::Switched => {
                sink(bytes);
                Ok((bytes.len(), Step::More))
            }
            State::Done => Ok((0, Step::Done)),
            State::Failed(fault) => Err(*fault),
        };
        match result {
            Ok((_, Step::Done)) => self.state = State::Done,
            Err(fault) => self.state = State::Failed(fault),
            Ok(_) => {}
        }
        result
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self.state {
            State::Done => return Ok(()),
            State::Close | State::Switched => {
                self.state = State::Done;
                return Ok(());
            }
            _ => {}
        }
        let fault = match self.state {
            State::Head if !self.begun => Fault("it closed the connection without a response"),
            State::Head => Fault("it closed the connection within the head of the response"),
            State::Failed(fault) => fault,
            _ => Fault("it closed the connection before the response was complete"),
        };
        self.state = State::Failed(fault);
        Err(fault)
    }

    /// The status and its phrase. Only after a head.
    pub fn status(&self) -> &[u8] {
        self.status.get(&self.input)
    }

    /// The fields that are passed on, in their order, as they came; without those that are for this connection only.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all = self.fields.iter();
        let all = all.map(|(name, value)| (name.get(&self.input), value.get(&self.input)));
        all.filter(|(name, _)| !(hop::is_hop_by_hop(name) || self.names && self.is_named(name)))
    }

    /// Writes the head of an interim response into a response of ours. Only after [`Step::Interim`].
    ///
    /// # Errors
    /// There is something in it that is not passed on, or the response was begun already.
    pub fn copy_interim(&self, response: &mut Response) -> Result<(), Fault> {
        self.copy(response, true)?;
        response.finish_interim();
        Ok(())
    }

    /// Writes the head of the change to another protocol into a response of ours. Only after [`Step::Switch`].
    ///
    /// # Errors
    /// There is something in it that is not passed on, or the response was begun already.
    pub fn copy_switch(&self, response: &mut Response) -> Result<(), Fault> {
        self.copy(response, true)?;
        let mut fields = self.fields.iter();
        let is = |name: &Span| name.get(&self.input).eq_ignore_ascii_case(b"upgrade");
        let protocol = fields.find(|(name, _)| is(name));
        response.switch(protocol.map_or(&b""[..], |(_, value)| value.get(&self.input)));
        Ok(())
    }

    /// Fields that have followed the body. Only after [`Step::Done`].
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.trailers.split(|&byte| byte == b'\n');
        lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    fn copy(&self, response: &mut Response, interim: bool) -> Result<(), Fault> {
        const FAULT: Fault = Fault("the head of the response cannot be passed on");
        match interim {
            true => response.begin_interim(self.status()),
            false => response.begin(self.status()),
        }
        .map_err(|_| FAULT)?;
        for (name, value) in self.fields() {
            // No file takes the place of what has no body.
            if !(interim && self.sends_file && sends_file(name)) {
                response.field(name, value).map_err(|_| FAULT)?;
            }
        }
        Ok(())
    }

    /// Whether a field of the head names a file that is to be sent in place of the body ([`sends_file`]). Only after a head.
    pub fn sends_file(&self) -> bool {
        self.sends_file
    }

    /// Whether somebody looks at the head before it goes out.
    pub fn is_judged(&self) -> bool {
        self.expected.judged
    }

    /// Writes the head into a response of ours. Nothing of the body may have been written. One that names a file is not finished, nor is one at
    /// which somebody looks.
    ///
    /// # Errors
    /// There is something in it that is not passed on, or the response was begun already.
    pub fn copy_head(&self, response: &mut Response) -> Result<(), Fault> {
        self.copy(response, false)?;
        if !(self.sends_file || self.expected.judged) {
            response.finish(None);
        }
        Ok(())
    }

    #[cold]
    fn is_named(&self, name: &[u8]) -> bool {
        let fields = self.fields.iter();
        let mut connection =
            fields.filter(|(other, _)| other.get(&self.input).eq_ignore_ascii_case(b"connection"));
        connection.any(|(_, value)| hop::names(value.get(&self.input), name))
    }

    fn forget(&mut self) {
        self.input.clear();
        self.input.shrink_to(KEPT);
        self.line = 0;
        self.fields.clear();
        (self.names, self.sends_file) = (false, false);
    }

    /// Looks for the end of a head, and parses it.
    fn head(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        let mut at = 0;
        if std::mem::take(&mut self.is_interim) {
            self.forget();
        }
        loop {
            let most = bytes.len().min(at + MAX_HEAD - self.input.len());
            let Some(n) = memchr::memchr(b'\n', &bytes[at..most]) else {
                self.input.extend_from_slice(&bytes[at..most]);
                if self.input.len() >= MAX_HEAD {
                    return Err(Fault("the head of the response is too large"));
                }
                return Ok((most, Step::More));
            };
            self.input.extend_from_slice(&bytes[at..=at + n]);
            at += n + 1;
            let line = &self.input[self.line..];
            if !line.ends_with(b"\r\n") {
                return Err(Fault("a line of the head does not end in CR LF"));
            }
            let (first, empty) = (self.line == 0, line.len() == 2);
            self.line = self.input.len();
            if first && !self.input.starts_with(b"HTTP/1.") {
                return Err(Fault("it does not speak HTTP/1.1"));
            }
            if empty {
                match self.parse()? {
                    // An interim response: the final one is still to come.
                    None if self.is_interim => return Ok((at, Step::Interim)),
                    None => self.forget(),
                    Some(State::Switched) => {
                        self.state = State::Switched;
                        return Ok((at, Step::Switch));
                    }
                    Some(State::Done) => {
                        // Also this has a head first.
                        self.state = State::Length(0);
                        return Ok((at, Step::Head));
                    }
                    Some(state) => {
                        self.state = state;
                        return Ok((at, Step::Head));
                    }
                }
            }
        }
    }

    /// Parses the head that is there; none if the response is an interim one.
    fn parse(&mut self) -> Result<Option<State>, Fault> {
        let bytes = &self.input;
        let mut storage = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut head,
            bytes,
            &mut storage,
        );
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Fault("the head of the response is malformed")),
            Err(error) => return Err(reason(error)),
        }
        let (Some(code), Some(minor)) = (head.code, head.version) else {
            return Err(Fault("the status line is malformed"));
        };
        let line = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
        let (version, status) = bytes[..line].split_at_checked(9).unwrap_or_default();
        // What httparse takes besides: more than one space, or none before what is no digit.
        let is_version = matches!(version, b"HTTP/1.0 " | b"HTTP/1.1 ");
        let is_status = match status {
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => true,
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', after, ..] => *after == b' ',
            _ => false,
        };
        if !(is_version && is_status) {
            return Err(Fault("the status line is malformed"));
        }
        self.status = Span::of(status, bytes);
        let (mut length, mut coding) = (None, None);
        let (mut close, mut keep, mut upgrade) = (false, false, false);
        for field in head.headers {
            let (name, value) = (field.name.as_bytes(), field.value);
            match name.len() {
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    for option in hop::options(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                    self.names |= hop::names_fields(value);
                }
                7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
                10 | 16 => self.sends_file |= sends_file(name),
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let number = number(value).ok_or(Fault("Content-Length is not a number"))?;
                    if length.replace(number).is_some() {
                        return Err(Fault("there is more than one Content-Length"));
                    }
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    let other = coding.replace(value);
                    if other.is_some() {
                        return Err(Fault("there is more than one Transfer-Encoding"));
                    }
                }
                _ => {}
            }
            self.fields
                .push((Span::of(name, bytes), Span::of(value, bytes)));
        }
        match (coding, length) {
            (Some(_), Some(_)) => {
                return Err(Fault("there are both Transfer-Encoding and Content-Length"));
            }
            (Some(_), None) if minor == 0 => return Err(Fault("Transfer-Encoding in HTTP/1.0")),
            (Some(coding), None) if !coding.eq_ignore_ascii_case(b"chunked") => {
                return Err(Fault("the Transfer-Encoding is not chunked"));
            }
            _ => {}
        }
        if code < 200 {
            let has_body = coding.is_some() || length.is_some_and(|length| length > 0);
            return self.interim(code, upgrade, has_body);
        }
        self.keep = !close && (minor == 1 || keep);
        Ok(Some(match (code, coding, length) {
            (304, _, _) => State::Done,
            _ if self.expected.head_only => State::Done,
            // A body that must not be there could follow nevertheless.
            (204, coding, length) => {
                self.keep &= coding.is_none() && length.unwrap_or(0) == 0;
                State::Done
            }
            (_, Some(_), _) => State::Chunked(Decoder::new()),
            (_, None, Some(length)) => State::Length(length),
            (_, None, None) => {
                self.keep = false;
                State::Close
            }
        }))
    }

    /// What follows a response with a status below 200. `100 Continue` is dropped, as it was not asked for; others are passed on (RFC 9110
    /// section 15.2).
    fn interim(
        &mut self,
        code: u16,
        upgrade: bool,
        has_body: bool,
    ) -> Result<Option<State>, Fault> {
        self.interim += 1;
        match code {
            _ if has_body => Err(Fault("an interim response has a body")),
            101 if !self.expected.upgrade => {
                Err(Fault("it switched to a protocol that nobody asked for"))
            }
            101 if !upgrade => Err(Fault("it switched to a protocol without saying which")),
            101 => {
                self.keep = false;
                Ok(Some(State::Switched))
            }
            _ if self.interim > MAX_INTERIM => Err(Fault("there are too many interim responses")),
            _ => {
                self.is_interim = code != 100;
                Ok(None)
            }
        }
    }
}

fn reason(error: httparse::Error) -> Fault {
    Fault(match error {
        httparse::Error::TooManyHeaders => "the response has too many header fields",
        httparse::Error::HeaderName => "the response has an invalid header name",
        httparse::Error::HeaderValue => "the response has an invalid header value",
        httparse::Error::Version => "it does not speak HTTP/1.1",
        _ => "the status line is malformed",
    })
}

#[cfg(test)]
mod tests;
