//! One connection's requests as a state machine: bytes in, requests or a rejection out. It has no socket and no clock.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::limits::Limits;
use crate::message::body::{Arriving, Body, Failure};
use crate::message::budget::Budget;
use crate::message::facts::Facts;
use crate::message::request::Request;
use crate::proto::bytes::token;
use crate::proto::h1::chunked::Decoder;
use crate::proto::h1::head::{Framing, Head, STREAM};
use crate::proto::reject::Reject;

use self::streams::Asked;

mod streams;

/// What the connection wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// More bytes.
    Wait,
    /// The interim answer `100 Continue` should be sent; then ask again.
    Continue,
    /// The head of a request with a body is there, on a connection that asks. Ask again, unless the body is to be given out as it
    /// arrives.
    Head,
    /// A whole request is there: see [`Connection::request`] and [`Connection::take_body`], then [`Connection::next`].
    Request,
    /// The answer should be sent and the connection closed. Asking again gives the same; nothing more is parsed.
    Reject(Reject),
}

/// Where in a request the connection stands; timeouts depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between requests; no byte of the next one is there.
    Idle,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// A request is there, or was rejected.
    Done,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Decoder),
    Request,
    /// What comes is no HTTP any more.
    Switched,
    Rejected(Reject),
}

/// The reading half of one HTTP/1 connection.
#[derive(Debug)]
pub struct Connection {
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    state: State,
    /// Bytes received and not done with; those of the running request's head stay, as its parts point into them.
    input: Vec<u8>,
    /// Start of the head in `input`.
    start: usize,
    /// End of the head, or of what was scanned for its end.
    scanned: usize,
    /// Start of the line that the scan is in.
    line: usize,
    /// An empty line before the request line was skipped.
    skipped: bool,
    head: Head,
    /// `head` is that of the request that is there or arriving.
    understood: bool,
    arriving: Arriving,
    /// Length of the body that was taken.
    length: u64,
    /// Why the body was not taken in.
    failure: Option<Failure>,
    /// What layers have said of the request.
    facts: Option<Box<Facts>>,
    /// See [`Request::mark`].
    mark: AtomicU32,
    /// The layers have seen the request.
    passed: bool,
    /// Whoever answers decides at the head how a body is taken.
    asks: bool,
    asked: Asked,
    /// The body is given out as it arrives, or what comes after a change of the protocol is.
    streams: bool,
    /// The same, and it may have any length.
    is_open: bool,
    /// What of it was not given out.
    pieces: Vec<u8>,
    /// The lines of the fields that have followed it.
    trailers: Vec<u8>,
}

impl Connection {
    /// A connection on which nothing was received.
    pub fn new(limits: Arc<Limits>) -> Self {
        let budget = Arc::new(Budget::new(limits.max_buffered));
        Self::with_budget(limits, budget)
    }

    /// One whose bodies count against a budget that it shares with others.
    pub(crate) fn with_budget(limits: Arc<Limits>, budget: Arc<Budget>) -> Self {
        Self {
            limits,
            budget,
            state: State::Head,
            input: Vec::new(),
            start: 0,
            scanned: 0,
            line: 0,
            skipped: false,
            head: Head::default(),
            understood: false,
            arriving: Arriving::default(),
            length: 0,
            failure: None,
            facts: None,
            mark: AtomicU32::new(0),
            passed: false,
            asks: false,
            asked: Asked::No,
            streams: false,
            is_open: false,
            pieces: Vec::new(),
            trailers: Vec::new(),
        }
    }

    /// Begins anew as another connection, with the memory that is there.
    pub(crate) fn renew(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        input.shrink_to(KEPT_INPUT);
        let mut fields = std::mem::take(&mut self.head.fields);
        fields.clear();
        *self = Self::with_budget(self.limits.clone(), self.budget.clone());
        (self.input, self.head.fields) = (input, fields);
    }

    /// Takes bytes from the client. After a rejection they are dropped.
    pub fn receive(&mut self, bytes: &[u8]) {
        match self.state {
            State::Rejected(_) => {}
            State::Switched => self.pieces.extend_from_slice(bytes),
            // A body's bytes need not pass through `input` when none are waiting there.
            State::Length(_) | State::Chunked(_) if self.scanned == self.input.len() => {
                match self.body(bytes) {
                    Ok(taken) => self.input.extend_from_slice(&bytes[taken..]),
                    Err(reject) => self.reject(reject),
                }
            }
            _ => {
                if matches!(self.state, State::Head) && self.start > 0 {
                    self.input.drain(..self.start);
                    self.scanned -= self.start;
                    self.line -= self.start;
                    self.start = 0;
                }
                self.input.extend_from_slice(bytes);
            }
        }
    }

    /// Parses on.
    pub fn advance(&mut self) -> Event {
        if let State::Head = self.state {
            // The most frequent case: nothing has come since it was found that there is no head.
            if self.scanned == self.input.len() {
                return Event::Wait;
            }
            match self.find_head() {
                Ok(true) => {}
                Ok(false) => return Event::Wait,
                Err(reject) => self.reject(reject),
            }
        }
        if matches!(self.state, State::Length(_) | State::Chunked(_)) {
            match self.begin_to_receive() {
                Ok(None) => {}
                Ok(Some(event)) => return event,
                Err(reject) => self.reject(reject),
            }
        }
        if matches!(self.state, State::Length(_) | State::Chunked(_))
            && self.scanned < self.input.len()
        {
            let input = std::mem::take(&mut self.input);
            let taken = self.body(&input[self.scanned..]);
            self.input = input;
            match taken {
                // What follows the body moves up to the head's end.
                Ok(taken) => drop(self.input.drain(self.scanned..self.scanned + taken)),
                Err(reject) => self.reject(reject),
            }
        }
        match self.state {
            State::Request => Event::Request,
            State::Rejected(reject) => Event::Reject(self.refused(reject)),
            _ => Event::Wait,
        }
    }

    /// The request that is there. Only after [`Event::Request`], until [`Connection::next`].
    pub fn request(&self) -> Request<'_> {
        Request::new(
            &self.head,
            &self.input[self.start..self.scanned],
            self.arriving.length().max(self.length),
            self.facts.as_deref(),
            &self.mark,
        )
    }

    /// What is known of the request besides it, to add to it.
    pub(crate) fn facts_mut(&mut self) -> &mut Facts {
        self.facts.get_or_insert_default()
    }

    /// The same, if anything is known.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.facts.as_deref()
    }

    /// Whether the request that is there has a field with such a name.
    #[inline]
    pub(crate) fn has_field(&self, is: impl Fn(&[u8]) -> bool) -> bool {
        let bytes = &self.input[self.start..];
        self.head.fields.iter().any(|(name, _)| is(name.get(bytes)))
    }

    /// Removes fields of the request that is there by their names.
    pub(crate) fn remove_fields(&mut self, mut is: impl FnMut(&[u8]) -> bool) {
        let bytes = &self.input[self.start..self.scanned];
        self.head.fields.retain(|(name, _)| !is(name.get(bytes)));
    }

    /// The body may have so many bytes; the answer to one that has more.
    pub(crate) fn limit_body(&mut self, most: u64) -> Option<Reject> {
        self.facts_mut().max_body = Some(most);
        let declared = match self.head.framing {
            Framing::Length(length) => length,
            Framing::None | Framing::Chunked => 0,
        };
        let announced = match &self.state {
            State::Chunked(decoder) => decoder.announced(),
            _ => 0,
        };
        let arrived = self.arriving.length().saturating_add(announced);
        let known = declared.max(arrived);
        (known > most).then(|| TOO_LARGE.because_of("max_body"))
    }

    /// Whether the layers are to see the request that is there or arriving now: once, as soon as its head is valid.
    #[inline(always)]
    pub(crate) fn passes(&mut self) -> bool {
        self.understood && !std::mem::replace(&mut self.passed, true)
    }

    /// Whether the layers have seen the request that is there or arriving.
    pub(crate) fn has_passed(&self) -> bool {
        self.passed
    }

    /// The request's body, once.
    ///
    /// # Errors
    /// The file that holds it cannot be read.
    pub fn take_body(&mut self) -> std::io::Result<Body> {
        self.length = self.arriving.length();
        std::mem::take(&mut self.arriving).finish()
    }

    /// The request that is there or arriving, if its head has come whole and is valid.
    pub(crate) fn understood(&self) -> Option<Request<'_>> {
        self.understood.then(|| self.request())
    }

    /// What has come of the line of the request that is there or arriving, as it came; a long one is cut.
    pub(crate) fn line(&self) -> &[u8] {
        let input = &self.input[self.start..];
        let input = &input[..input.len().min(LINE)];
        let end = memchr::memchr2(b'\r', b'\n', input);
        &input[..end.unwrap_or(input.len())]
    }

    /// Lets go of what was received: the request is refused, and everybody who wants to know of it does.
    pub(crate) fn abandon(&mut self, reject: Reject) {
        self.state = State::Rejected(reject);
        self.understood = false;
        self.arriving = Arriving::default();
        self.input = Vec::new();
        (self.start, self.scanned, self.line) = (0, 0, 0);
    }

    /// The request has come on a stream of a connection with many: its end is that of the stream.
    pub(crate) fn came_on_stream(&mut self) {
        if self.understood {
            self.head.minor = STREAM;
            self.head.keep_alive = false;
        }
    }

    /// Bytes of the body that have arrived.
    pub(crate) fn held(&self) -> u64 {
        self.arriving.length()
    }

    /// A refusal of the request that is there or arriving.
    pub(crate) fn refused(&self, reject: Reject) -> Reject {
        reject.to(&self.input[self.start..])
    }

    /// Why the body was not taken in, once, if the request was rejected for that.
    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    fn reject(&mut self, reject: Reject) {
        self.state = State::Rejected(reject);
        // What has arrived is of no use, and the connection may live on for a while.
        self.arriving = Arriving::default();
        self.pieces = Vec::new();
    }

    /// Whether the client wants to keep the connection after this request.
    pub fn keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// The request is answered; goes on to the next one.
    pub fn next(&mut self) {
        self.arriving = Arriving::default();
        self.length = 0;
        self.facts = None;
        *self.mark.get_mut() = 0;
        self.passed = false;
        self.asked = Asked::No;
        if std::mem::take(&mut self.streams) {
            self.is_open = false;
            self.pieces = Vec::new();
            self.trailers = Vec::new();
        }
        self.understood = false;
        self.state = State::Head;
        self.skipped = false;
        if self.scanned == self.input.len() {
            self.input.clear();
            // One large head must not cost its memory for as long as the connection lives.
            self.input.shrink_to(KEPT_INPUT);
            self.scanned = 0;
        }
        (self.start, self.line) = (self.scanned, self.scanned);
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Head if self.start == self.input.len() => Phase::Idle,
            State::Head => Phase::Head,
            State::Length(_) | State::Chunked(_) => Phase::Body,
            State::Request | State::Switched | State::Rejected(_) => Phase::Done,
        }
    }

    /// Whether bytes that belong to no request yet are waiting.
    pub fn has_input(&self) -> bool {
        match self.state {
            State::Head => self.start < self.input.len(),
            _ => self.scanned < self.input.len(),
        }
    }

    /// Looks for the head's end and parses the head; true when it was there.
    ///
    /// What is found must not depend on how the bytes were split, so nothing beyond the limit is judged.
    fn find_head(&mut self) -> Result<bool, Reject> {
        loop {
            if let Some(&first) = self.input.get(self.start)
                && !(token(first) || (first == b'\r' && !self.skipped))
            {
                return Err(Reject::bad("malformed request line"));
            }
            let most = self.input.len().min(self.start + self.limits.max_head);
            let Some(n) = memchr::memchr(b'\n', &self.input[self.scanned..most]) else {
                self.scanned = most;
                return match most - self.start < self.limits.max_head {
                    true => Ok(false),
                    false if self.line == self.start => {
                        Err(Reject::with(414, "request line too long").because_of("max_head"))
                    }
                    false => {
                        Err(Reject::with(431, "request head too large").because_of("max_head"))
                    }
                };
            };
            let end = self.scanned + n;
            // RFC 9112 section 2.2 lets a recipient take a bare LF for a line's end; not all do, hence the ambiguity.
            if end == self.line || self.input[end - 1] != b'\r' {
                return Err(Reject::bad("a line does not end in CR LF"));
            }
            let (line, empty) = (self.line, end - 1 == self.line);
            self.scanned = end + 1;
            self.line = end + 1;
            if empty && line > self.start {
                self.head
                    .parse(&self.input[self.start..self.scanned], &self.limits)?;
                self.understood = true;
                self.state = self.begin_body()?;
                return Ok(true);
            }
            if empty {
                // RFC 9112 section 2.2: an empty line before the request line, as some old clients send; one is enough.
                self.skipped = true;
                self.start = self.scanned;
            }
        }
    }

    fn begin_body(&mut self) -> Result<State, Reject> {
        match self.head.framing {
            Framing::None | Framing::Length(0) => Ok(State::Request),
            // One that is given out as it arrives needs no room.
            Framing::Length(length) if self.asks && length <= self.limits.max_body => {
                Ok(State::Length(length))
            }
            Framing::Length(length) if length > most_body(&self.limits, &self.budget).0 => {
                Err(most_body(&self.limits, &self.budget).1)
            }
            Framing::Length(length) => {
                self.expect_body(length)?;
                Ok(State::Length(length))
            }
            Framing::Chunked => Ok(State::Chunked(Decoder::new())),
        }
    }

    /// Takes the body's bytes from the front of `bytes`; how many.
    fn body(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        let (mut most, mut too_large) = match self.streams {
            true if self.is_open => (u64::MAX, TOO_LARGE),
            true => (self.limits.max_body, TOO_LARGE.because_of("max_body")),
            false => most_body(&self.limits, &self.budget),
        };
        if let Some(less) = self.facts.as_ref().and_then(|facts| facts.max_body)
            && less < most
            && !self.is_open
        {
            (most, too_large) = (less, TOO_LARGE.because_of("max_body"));
        }
        let (arriving, failure) = (&mut self.arriving, &mut self.failure);
        let (streams, pieces, given) = (self.streams, &mut self.pieces, &mut self.length);
        let mut store = |data: &[u8]| {
            if streams {
                *given += data.len() as u64;
                pieces.extend_from_slice(data);
                return match *given > most {
                    true => Err(too_large),
                    false => Ok(()),
                };
            }
            if arriving.length() + data.len() as u64 > most {
                return Err(too_large);
            }
            arriving
                .append(data, self.limits.body_in_memory, &self.budget)
                .map_err(|why| refusal(failure, why))
        };
        let (taken, done) = match &mut self.state {
            State::Length(left) => {
                let n = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                store(&bytes[..n])?;
                *left -= n as u64;
                (n, *left == 0)
            }
            State::Chunked(decoder) => {
                let trailers = &mut self.trailers;
                let taken = match streams {
                    true => decoder.decode_all(bytes, store, |byte| trailers.push(byte))?,
                    false => decoder.decode(bytes, store)?,
                };
                let there = self.arriving.length().max(self.length);
                if there.saturating_add(decoder.announced()) > most {
                    return Err(too_large);
                }
                (taken, decoder.done())
            }
            State::Head | State::Request | State::Switched | State::Rejected(_) => (0, false),
        };
        if done {
            self.state = State::Request;
        }
        Ok(taken)
    }
}

const TOO_LARGE: Reject = Reject::with(413, "request body too large");
/// The most bytes of a request line that are shown to anybody.
const LINE: usize = 4 * 1024;
/// Bytes of an input buffer that an idle connection may keep.
const KEPT_INPUT: usize = 4 * 1024;

/// The most bytes of a body, and the answer to a larger one. One that is larger than all that may be held would never find room.
fn most_body(limits: &Limits, budget: &Budget) -> (u64, Reject) {
    match limits.max_body <= budget.most() {
        true => (limits.max_body, TOO_LARGE.because_of("max_body")),
        false => (budget.most(), TOO_LARGE.because_of("max_buffered")),
    }
}

/// The answer to a body that is not taken in, which is kept in `place`.
fn refusal(place: &mut Option<Failure>, failure: Failure) -> Reject {
    let reject = match &failure {
        Failure::NoRoom => Reject::with(503, "too much is being received; try again later"),
        // What others have taken, memory or descriptors, they may give back.
        Failure::File(_) => Reject::with(503, "the request body cannot be stored; try again later"),
    };
    *place = Some(failure);
    reject
}
