//! A response in the making: its head, and the bytes that the protocol has made of it and of the body.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::layer::{Layer, Page};
use crate::message::coder::Coded;
use crate::message::facts::Facts;
use crate::message::head::{Head, HeadError};
use crate::proto::bytes::{TEXT, TOKEN, all};
use crate::proto::h1::encode::Encoder;
use crate::proto::h1::hop;

/// A response in the making. It moves between threads with the request, and is one pointer for that reason.
#[derive(Debug)]
pub struct Response {
    state: Box<State>,
}

#[derive(Debug, Default)]
struct State {
    head: Head,
    /// What the protocol has written.
    out: Vec<u8>,
    protocol: Encoder,
    /// Who sees the head before it is written.
    seen: Option<SeenBy>,
    /// What changes the body.
    coded: Option<Box<Coded>>,
    head_only: bool,
    ended: bool,
    cut: bool,
    status: u16,
    /// Bytes of the body that were written, or sent of a file.
    body: u64,
    /// Bytes that were written and do not go out.
    surplus: u64,
    /// The body ended before its `Content-Length`.
    short: bool,
    /// Fields that follow the body, as lines.
    trailers: Vec<u8>,
}

/// A part of a response as it goes to the client.
#[derive(Debug)]
pub struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// Only the end of the connection ends the response.
    pub(crate) closes: bool,
}

impl Piece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Layers, and what those before them have said of the exchange.
struct SeenBy {
    layers: Arc<[Arc<dyn Layer>]>,
    facts: Facts,
}

impl SeenBy {
    /// What changes the body of a response with this head. Its length is known no more.
    fn coder(&self, head: &mut Head, known: &mut Option<u64>) -> Option<Box<Coded>> {
        let length = head.content_length().or(*known);
        let mut layers = self.layers.iter();
        let coder = layers.find_map(|layer| layer.coder(&self.facts, head, length))?;
        head.remove(b"content-length");
        *known = None;
        Some(Box::new(Coded::new(coder)))
    }

    /// The page that takes the place of a text of the server's own.
    #[cold]
    fn page(&self, status: u16) -> Option<Arc<Page>> {
        let mut layers = self.layers.iter();
        layers.find_map(|layer| layer.page(&self.facts, status))
    }
}

impl State {
    /// Of these bytes of the body so many were written as they are. A coder has the others, or they are too many.
    #[cold]
    fn rest(&mut self, data: &[u8], written: u64) {
        match &mut self.coded {
            None => self.surplus += data.len() as u64 - written,
            Some(coded) if self.cut => drop(coded.out.drain(..)),
            Some(coded) => {
                coded.holds = true;
                let made = coded.coder.write(data, &mut coded.out);
                self.send_coded(made);
            }
        }
    }

    #[cold]
    fn flush(&mut self) {
        if let Some(coded) = &mut self.coded
            && !self.ended
            && std::mem::take(&mut coded.holds)
        {
            let made = coded.coder.flush(&mut coded.out);
            self.send_coded(made);
        }
    }

    /// Ends a body that the protocol does not know to be complete.
    #[cold]
    fn end_otherwise(&mut self) {
        let Some(coded) = &mut self.coded else {
            (self.short, self.cut) = (true, true);
            return;
        };
        let made = coded.coder.end(&mut coded.out);
        self.send_coded(made);
        if !self.cut {
            self.protocol.end_coded(&mut self.out, &self.trailers);
        }
    }

    /// Writes what the coder has made, unless it has failed.
    fn send_coded(&mut self, made: io::Result<()>) {
        if let Some(coded) = &mut self.coded
            && !coded.out.is_empty()
        {
            self.body += self.protocol.coded(&mut self.out, &coded.out);
            coded.out.clear();
        }
        if let Err(error) = made {
            log::error!("could not encode a response: {error}; breaking it off");
            self.cut = true;
        }
    }
}

impl fmt::Debug for SeenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenBy")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// A response to a request with this version and method.
    pub fn new(http11: bool, head_only: bool, keep_alive: bool) -> Self {
        let mut response = Self {
            state: Box::default(),
        };
        response.renew(http11, head_only, keep_alive);
        response
    }

    /// Begins anew for another request, with the memory that is there.
    #[inline]
    pub(crate) fn renew(&mut self, http11: bool, head_only: bool, keep_alive: bool) {
        let state = &mut *self.state;
        state.head.renew();
        state.protocol = Encoder::new(http11, keep_alive);
        state.seen = None;
        // Dropping nothing would be a call.
        if state.coded.is_some() {
            state.coded = None;
        }
        state.head_only = head_only;
        (state.ended, state.cut) = (false, false);
        (state.status, state.body) = (0, 0);
        (state.surplus, state.short) = (0, false);
        state.trailers.clear();
    }

    /// Has these layers see the head before it is written.
    pub(crate) fn show(&mut self, layers: Arc<[Arc<dyn Layer>]>, facts: Facts) {
        self.state.seen = Some(SeenBy { layers, facts });
    }

    /// Whether the head was finished, so that it cannot be replaced any more.
    pub fn started(&self) -> bool {
        self.state.protocol.started()
    }

    /// Status code of the head, 0 before it was finished.
    pub fn status(&self) -> u16 {
        self.state.status
    }

    /// Bytes written and not handed to the server yet.
    pub fn buffered(&self) -> usize {
        self.state.out.len()
    }

    /// Takes out what was written, to hand it to the server.
    pub fn piece(&mut self) -> Piece {
        Piece {
            bytes: self.take_out(),
            closes: self.ends_with_connection(),
        }
    }

    /// Whether no body goes out, whatever is written: the answer to HEAD, 204, 205 or 304.
    pub fn is_bodyless(&self) -> bool {
        self.state.protocol.is_bodyless()
    }

    /// Begins the head with `status`, such as `200 OK`; one that was begun before is replaced.
    ///
    /// # Errors
    /// [`HeadError::Status`] or [`HeadError::Sent`].
    pub fn begin(&mut self, status: &[u8]) -> Result<(), HeadError> {
        if self.started() {
            return Err(HeadError::Sent);
        }
        self.state.head.begin(status)
    }

    /// Begins the head with this status and the phrase that belongs to it, as [`Response::begin`] does.
    ///
    /// # Errors
    /// As [`Response::begin`].
    pub fn begin_with(&mut self, status: u16) -> Result<(), HeadError> {
        if self.started() {
            return Err(HeadError::Sent);
        }
        self.state.head.begin_known(status, phrase(status))
    }

    /// Adds a field to a head that was begun; see [`Head::add`].
    ///
    /// # Errors
    /// See [`HeadError`]; the head should then be discarded.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        let state = &mut *self.state;
        if state.protocol.started() || !state.head.is_begun() {
            return Err(HeadError::Sent);
        }
        state.head.add(name, value)
    }

    /// Ends the head: layers see it, and the protocol writes it. `known` is the body's length when the application gave no
    /// `Content-Length` but its length is certain.
    pub fn finish(&mut self, known: Option<u64>) {
        if self.started() || !self.has_head() {
            return;
        }
        self.look();
        let state = &mut *self.state;
        let mut known = known;
        if let Some(seen) = &state.seen {
            state.coded = seen.coder(&mut state.head, &mut known);
        }
        state.status = state.head.status();
        let (head, out) = (&state.head, &mut state.out);
        state.protocol.head(out, head, known, state.head_only);
        if state.coded.is_some() && !state.protocol.hold() {
            state.coded = None;
        }
    }

    /// Ends the head of an interim response that was begun with [`Response::begin_interim`]; the final one is still to come.
    pub fn finish_interim(&mut self) {
        let state = &mut *self.state;
        state.protocol.interim(&mut state.out, &state.head);
        state.head.clear();
    }

    /// Begins the head of an interim response, such as `103 Early Hints`, or of a change of the protocol.
    ///
    /// # Errors
    /// [`HeadError::Status`] or [`HeadError::Sent`].
    pub fn begin_interim(&mut self, status: &[u8]) -> Result<(), HeadError> {
        if self.started() {
            return Err(HeadError::Sent);
        }
        self.state.head.begin_interim(status)
    }

    /// Ends the head of a change to this protocol, which was begun with [`Response::begin_interim`]. Layers see it. What is written then
    /// goes out as it is (RFC 9110 section 15.2.2).
    pub fn switch(&mut self, protocol: &[u8]) {
        self.look();
        let state = &mut *self.state;
        state.status = state.head.status();
        state.protocol.switch(&mut state.out, &state.head, protocol);
    }

    /// Layers see the head.
    #[inline(always)]
    fn look(&mut self) {
        let state = &mut *self.state;
        if let Some(seen) = &state.seen {
            for layer in seen.layers.iter() {
                layer.response(&seen.facts, &mut state.head);
            }
        }
    }

    /// The connection ends with this response. The client is told, unless the head was written already.
    pub fn close(&mut self) {
        self.state.protocol.close();
    }

    /// Adds a field that follows the body, if it may (RFC 9110 section 6.5.1) and the framing has a place for it: not if it says how
    /// the message is framed, where it goes or who may see it.
    pub fn trailer(&mut self, name: &[u8], value: &[u8]) {
        let may =
            !name.is_empty() && all(TOKEN, name) && all(TEXT, value) && !hop::is_of_the_head(name);
        if may {
            let trailers = &mut self.state.trailers;
            for part in [name, b": ", value, b"\r\n"] {
                trailers.extend_from_slice(part);
            }
        }
    }

    /// The head, as far as it was begun.
    pub fn head(&self) -> &Head {
        &self.state.head
    }

    /// The head that was begun and not finished.
    pub(crate) fn head_mut(&mut self) -> &mut Head {
        debug_assert!(!self.started(), "it was written");
        &mut self.state.head
    }

    /// Takes back a head that was begun and not finished.
    pub fn discard(&mut self) {
        if !self.started() {
            self.state.head.clear();
        }
    }

    /// Whether a head was begun or finished.
    pub fn has_head(&self) -> bool {
        self.state.head.is_begun()
    }

    /// Writes a piece of the body; what goes beyond `Content-Length` is cut.
    pub fn write(&mut self, data: &[u8]) {
        let state = &mut *self.state;
        let written = state.protocol.piece(&mut state.out, data);
        state.body += written;
        if written != data.len() as u64 {
            state.rest(data, written);
        }
    }

    /// Has a coder give out what it holds back, so that the client gets all that was written.
    pub fn flush(&mut self) {
        if self.state.coded.is_some() {
            self.state.flush();
        }
    }

    /// Whether the body goes out in another form than it is written.
    pub fn is_coded(&self) -> bool {
        self.state.coded.is_some()
    }

    /// Begins a piece of the body of `length` bytes that is written in slices, so that it can be sent in between and is one chunk all
    /// the same; [`Response::end_piece`] must follow.
    pub fn begin_piece(&mut self, length: usize) {
        let state = &mut *self.state;
        state.protocol.begin_piece(&mut state.out, length);
    }

    /// Writes a slice of the piece that was begun.
    pub fn slice(&mut self, data: &[u8]) {
        let state = &mut *self.state;
        let written = state.protocol.slice(&mut state.out, data);
        state.body += written;
        if written != data.len() as u64 {
            state.rest(data, written);
        }
    }

    /// Ends the piece that was begun.
    pub fn end_piece(&mut self) {
        let state = &mut *self.state;
        state.protocol.end_piece(&mut state.out);
    }

    /// The server sends `length` bytes of a file itself; how many of them the client may get.
    pub(crate) fn pass(&mut self, length: u64) -> u64 {
        self.state.protocol.pass(length)
    }

    /// So many bytes of a file were sent.
    pub(crate) fn sent(&mut self, length: u64) {
        self.state.body += length;
    }

    /// The `Content-Length`, and the length of the body that was given, if they differ.
    #[inline]
    pub(crate) fn mismatch(&self) -> Option<(u64, u64)> {
        let state = &*self.state;
        (state.short || state.surplus > 0 && !self.is_bodyless())
            .then(|| Some((state.head.content_length()?, state.body + state.surplus)))
            .flatten()
    }

    /// How many bytes of the body were written, or sent of a file.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.state.body
    }

    /// Whether `pass` can be used: the body's bytes go out as they are.
    pub fn is_plain(&self) -> bool {
        self.state.protocol.is_plain()
    }

    /// The body is complete. One that is shorter than its `Content-Length` is cut visibly: the connection closes.
    pub fn end(&mut self) {
        let state = &mut *self.state;
        if !state.ended {
            state.ended = true;
            if !state.protocol.end(&mut state.out, &state.trailers) {
                state.end_otherwise();
            }
        }
    }

    /// The body breaks off: neither the final chunk nor a later response follows, so that the client sees it.
    pub fn cut(&mut self) {
        let state = &mut *self.state;
        if !state.ended {
            (state.cut, state.ended) = (true, true);
        }
    }

    /// Answers with a short text of the server's own, or the page that a layer has for the status, if nothing was written; else the
    /// response is cut.
    pub fn fail(&mut self, status: u16, text: &str) {
        if self.started() {
            return self.cut();
        }
        let page = self.state.seen.as_ref().and_then(|seen| seen.page(status));
        let (content_type, text) = match &page {
            Some(page) => (&page.content_type[..], &page.text[..]),
            None => ("text/plain; charset=utf-8", text),
        };
        if self.begin_with(status).is_ok() {
            let _ = self.field(b"Content-Type", content_type.as_bytes());
            if status == 503 {
                let _ = self.field(b"Retry-After", b"1");
            }
            self.finish(Some(text.len() as u64));
        }
        self.write(text.as_bytes());
        self.end();
    }

    /// Whether the connection can serve another request after this response.
    pub(crate) fn keeps_connection(&self) -> bool {
        self.state.protocol.keeps_connection() && !self.state.cut
    }

    /// Whether the response must break off visibly.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.cut
    }

    /// Whether nothing more of it goes out, whatever the application goes on to say.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.protocol.is_whole()
    }

    /// Whether only the end of the connection tells the client that the body is complete (RFC 9112 section 6.3).
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.state.protocol.ends_with_connection()
    }

    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.out)
    }

    pub(crate) fn give_out(&mut self, out: Vec<u8>) {
        self.state.out = out;
    }

    /// Takes an empty buffer unless it has one.
    pub(crate) fn reuse(&mut self, spare: &mut Vec<u8>) {
        if self.state.out.capacity() == 0 {
            self.state.out = std::mem::take(spare);
        }
    }
}

/// The phrase of the statuses that a server itself answers with (RFC 9110 section 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &mut Response) -> String {
        String::from_utf8(response.take_out()).unwrap()
    }

    fn get(http11: bool, keep_alive: bool) -> Response {
        Response::new(http11, false, keep_alive)
    }

    #[test]
    fn a_known_length_is_added() {
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.field(b"X-A", b"1").unwrap();
        r.finish(Some(5));
        r.write(b"hello");
        r.end();
        assert!(r.keeps_connection());
        let text = text(&mut r);
        assert!(
            text.starts_with(
                "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\nServer: preforkd\r\nDate: "
            ),
            "{text}"
        );
        assert!(text.ends_with("GMT\r\n\r\nhello"), "{text}");
    }

    #[test]
    fn a_status_brings_its_phrase() {
        for (status, line) in [
            (200, Some("HTTP/1.1 200 OK\r\n")),
            (308, Some("HTTP/1.1 308 Permanent Redirect\r\n")),
            (599, Some("HTTP/1.1 599 Error\r\n")),
            (999, Some("HTTP/1.1 999 Error\r\n")),
            (99, None),
            (101, None),
            (1000, None),
        ] {
            let mut r = get(true, true);
            let begun = r.begin_with(status);
            assert_eq!(begun.is_ok(), line.is_some(), "{status}");
            r.finish(Some(0));
            r.end();
            let text = text(&mut r);
            assert!(text.starts_with(line.unwrap_or_default()), "{text}");
        }
        let mut r = get(true, true);
        r.begin_with(204).unwrap();
        r.finish(None);
        assert!(matches!(r.begin_with(200), Err(HeadError::Sent)));
    }

    #[test]
    fn a_piece_in_slices_is_one_chunk() {
        for http11 in [true, false] {
            let mut r = get(http11, true);
            r.begin(b"200 OK").unwrap();
            r.finish(None);
            let head = r.buffered();
            r.begin_piece(17);
            r.slice(&[b'x'; 10]);
            let first = r.buffered() - head;
            r.slice(&[b'x'; 7]);
            r.end_piece();
            assert_eq!((first, r.body_bytes()), (10 + 4 * usize::from(http11), 17));
            let mut whole = get(http11, true);
            whole.begin(b"200 OK").unwrap();
            whole.finish(None);
            whole.write(&[b'x'; 17]);
            assert_eq!(text(&mut r), text(&mut whole));
        }
    }

    #[test]
    fn an_unknown_length_is_chunked_or_ends_the_connection() {
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.finish(None);
        r.write(b"");
        r.write(&[b'x'; 17]);
        r.end();
        assert!(r.keeps_connection());
        assert!(text(&mut r).ends_with("\r\n\r\n11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"));
        let mut r = get(false, true);
        r.begin(b"200 OK").unwrap();
        r.finish(None);
        r.write(b"x");
        r.end();
        assert!(!r.keeps_connection());
        let text = text(&mut r);
        assert!(text.contains("Connection: close") && text.ends_with("\r\n\r\nx"));
    }

    #[test]
    fn too_long_is_cut_and_too_short_closes() {
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.field(b"content-length", b"3").unwrap();
        r.finish(Some(9));
        r.write(b"ab");
        r.write(b"cdef");
        r.end();
        assert!(r.keeps_connection());
        assert!(text(&mut r).ends_with("\r\n\r\nabc"));
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.field(b"Content-Length", b"3").unwrap();
        r.finish(None);
        r.write(b"ab");
        r.end();
        assert!(!r.keeps_connection() && r.is_cut());
    }

    #[test]
    fn a_cut_chunked_body_has_no_last_chunk() {
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.finish(None);
        r.write(b"a");
        r.cut();
        r.end();
        assert!(r.is_cut() && text(&mut r).ends_with("\r\n\r\n1\r\na\r\n"));
    }

    #[test]
    fn no_body_where_there_is_none() {
        for (status, head_only, length) in [
            ("204 No Content", false, None),
            ("205 Reset Content", false, Some("0")),
            ("205 Reset Content", true, Some("0")),
            ("304 Not Modified", false, Some("7")),
            ("200 OK", true, Some("7")),
        ] {
            let mut r = Response::new(true, head_only, true);
            r.begin(status.as_bytes()).unwrap();
            r.field(b"Content-Length", b"7").unwrap();
            r.finish(None);
            r.write(b"1234567");
            r.end();
            assert!(r.keeps_connection());
            let text = text(&mut r);
            assert!(
                text.ends_with("\r\n\r\n") && !text.contains("chunked"),
                "{text}"
            );
            let lengths = text
                .lines()
                .filter_map(|l| l.strip_prefix("Content-Length: "));
            assert_eq!(Vec::from_iter(lengths), Vec::from_iter(length), "{text}");
        }
    }

    #[test]
    fn bad_heads_leave_no_trace() {
        let fields: [(&str, &str, HeadError); 11] = [
            ("", "a", HeadError::Name),
            ("A b", "a", HeadError::Name),
            ("A:", "a", HeadError::Name),
            ("A\r\nB", "a", HeadError::Name),
            ("A", "a\r\nB: c", HeadError::Value),
            ("A", "a\0", HeadError::Value),
            ("A", "a\n", HeadError::Value),
            ("Transfer-Encoding", "chunked", HeadError::HopByHop),
            ("Upgrade", "h2c", HeadError::HopByHop),
            ("Content-Length", "+1", HeadError::ContentLength),
            ("Content-Length", "", HeadError::ContentLength),
        ];
        for (name, value, error) in fields {
            let mut r = get(true, true);
            r.begin(b"200 OK").unwrap();
            assert_eq!(
                r.field(name.as_bytes(), value.as_bytes()),
                Err(error),
                "{name}: {value}"
            );
            r.discard();
            assert!(!r.started() && r.buffered() == 0);
        }
        for status in [
            "",
            "20",
            "2000 OK",
            "100 Continue",
            "101 Switching",
            "abc",
            "200OK",
            "200 O\rK",
            "+20 OK",
        ] {
            assert_eq!(
                get(true, true).begin(status.as_bytes()).err(),
                Some(HeadError::Status),
                "{status}"
            );
        }
    }

    #[test]
    fn connection_fields() {
        let mut r = get(false, true);
        r.begin(b"200").unwrap();
        r.finish(Some(0));
        let kept = text(&mut r);
        assert!(
            kept.starts_with("HTTP/1.1 200 \r\n") && kept.contains("Connection: keep-alive\r\n"),
            "{kept}"
        );
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.field(b"Connection", b"x, Close").unwrap();
        r.field(b"Date", b"now").unwrap();
        r.field(b"Server", b"mine").unwrap();
        r.finish(Some(0));
        assert!(!r.keeps_connection());
        assert_eq!(
            text(&mut r),
            "HTTP/1.1 200 OK\r\nDate: now\r\nServer: mine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_failure_answers_once_and_cuts_later() {
        let mut r = get(true, true);
        r.fail(500, "oops");
        assert!(text(&mut r).starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
        let mut r = get(true, true);
        r.begin(b"200 OK").unwrap();
        r.finish(None);
        r.fail(500, "oops");
        assert!(r.is_cut() && text(&mut r).starts_with("HTTP/1.1 200 OK"));
    }
}
