//! Writing a response (RFC 9112 sections 6 and 7, RFC 9110 section 6): the head straight into the output, and the body in
//! the framing that fits the request.

use std::fmt;

use crate::message::date;
use crate::proto::bytes::{TEXT, TOKEN, all, number};

/// Why a response head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Not three digits from 200 to 999, a space and a phrase.
    Status,
    /// Not a token (RFC 9110 section 5.1).
    Name,
    /// CR, LF, NUL or another control character (RFC 9110 section 5.5): response splitting.
    Value,
    /// `Transfer-Encoding` and its like are the server's own (PEP 3333, "Other HTTP Features").
    HopByHop,
    /// Not a number, or given twice with different numbers.
    ContentLength,
    /// The head was sent already.
    Sent,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => {
                "the status must be three digits, a space and a reason, without control characters"
            }
            Self::Name => "the name must be a token",
            Self::Value => "the value must not contain control characters",
            Self::HopByHop => "a hop-by-hop header is the server's own",
            Self::ContentLength => "Content-Length must be one number",
            Self::Sent => "the response head was sent already",
        })
    }
}

impl std::error::Error for HeadError {}

/// How the body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// The head was not finished.
    Unsent,
    /// No body goes out, whatever is written.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// Up to the end of the connection.
    Close,
}

/// A response in the making: its output and where it stands. It moves between threads with the request.
#[derive(Debug)]
pub struct Response {
    out: Vec<u8>,
    framing: Framing,
    draft: Option<Draft>,
    http11: bool,
    head_only: bool,
    keep_alive: bool,
    ended: bool,
    cut: bool,
    status: u16,
    /// Bytes of the body that were written.
    body: u64,
}

impl Response {
    /// A response to a request with this version and method; `out` receives the bytes.
    pub(crate) fn new(out: Vec<u8>, http11: bool, head_only: bool, keep_alive: bool) -> Self {
        Self {
            out,
            framing: Framing::Unsent,
            draft: None,
            http11,
            head_only,
            keep_alive,
            ended: false,
            cut: false,
            status: 0,
            body: 0,
        }
    }

    /// Whether the head was finished, so that it cannot be replaced any more.
    pub fn started(&self) -> bool {
        self.framing != Framing::Unsent
    }

    /// Whether the request was HEAD.
    pub fn is_head(&self) -> bool {
        self.head_only
    }

    /// Status code of the head, 0 before.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Bytes written and not handed to the server yet.
    pub fn buffered(&self) -> usize {
        self.out.len()
    }

    /// Whether no body goes out, whatever is written: the answer to HEAD, 204, 205 or 304.
    pub fn is_bodyless(&self) -> bool {
        self.framing == Framing::Nothing
    }

    /// Begins the head with `status`, such as `200 OK`; one that was begun before is replaced.
    ///
    /// # Errors
    /// [`HeadError::Status`] or [`HeadError::Sent`]; nothing is written then.
    pub fn begin(&mut self, status: &[u8]) -> Result<(), HeadError> {
        if self.started() {
            return Err(HeadError::Sent);
        }
        self.discard();
        let code = status_code(status).ok_or(HeadError::Status)?;
        self.draft = Some(Draft {
            mark: self.out.len(),
            code,
            length: None,
            date: false,
            server: false,
            close: false,
        });
        self.out.extend_from_slice(b"HTTP/1.1 ");
        self.out.extend_from_slice(status);
        // RFC 9112 section 4: the space stays even when there is no phrase.
        if status.len() == 3 {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes a field of a head that was begun. `Connection` is dropped but for its wish to close, `Keep-Alive` is dropped.
    ///
    /// # Errors
    /// See [`HeadError`]; the head should then be discarded.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        let Some(draft) = &mut self.draft else {
            return Err(HeadError::Sent);
        };
        if name.is_empty() || !all(TOKEN, name) {
            return Err(HeadError::Name);
        }
        if !all(TEXT, value) {
            return Err(HeadError::Value);
        }
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"date") => draft.date = true,
            6 if is(b"server") => draft.server = true,
            10 if is(b"connection") => {
                draft.close |= value
                    .split(|&b| b == b',')
                    .any(|o| o.trim_ascii().eq_ignore_ascii_case(b"close"));
                return Ok(());
            }
            10 if is(b"keep-alive") => return Ok(()),
            14 if is(b"content-length") => {
                let length = number(value).ok_or(HeadError::ContentLength)?;
                return match draft.length.replace(length) {
                    Some(other) if other != length => Err(HeadError::ContentLength),
                    _ => Ok(()),
                };
            }
            17 if is(b"transfer-encoding") => return Err(HeadError::HopByHop),
            2 | 7 if is(b"te") || is(b"trailer") || is(b"upgrade") => {
                return Err(HeadError::HopByHop);
            }
            18 | 19 if is(b"proxy-authenticate") || is(b"proxy-authorization") => {
                return Err(HeadError::HopByHop);
            }
            _ => {}
        }
        let out = &mut self.out;
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Ends the head. `known` is the body's length when the application gave no `Content-Length` but its length is certain.
    pub fn finish(&mut self, known: Option<u64>) {
        let Some(draft) = self.draft.take() else {
            return;
        };
        let bodyless = matches!(draft.code, 204 | 205 | 304);
        let length = match draft.code {
            // RFC 9110 section 15.3.6: no content, which the client must be told.
            205 => Some(0),
            _ => draft
                .length
                .or(known.filter(|_| !self.head_only && !bodyless)),
        };
        self.framing = match length {
            _ if self.head_only || bodyless => Framing::Nothing,
            Some(length) => Framing::Length(length),
            None if self.http11 => Framing::Chunked,
            None => Framing::Close,
        };
        let out = &mut self.out;
        // RFC 9110 section 8.6: never in a 204; in a 304 and for HEAD it tells of the body that would have been sent.
        if let Some(length) = length
            && draft.code != 204
        {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if !draft.server {
            out.extend_from_slice(b"Server: preforkd\r\n");
        }
        if !draft.date {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(&date::now());
            out.extend_from_slice(b"\r\n");
        }
        self.keep_alive &= !draft.close && self.framing != Framing::Close;
        if !self.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if !self.http11 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        self.status = draft.code;
    }

    /// Takes back a head that was begun and not finished.
    pub fn discard(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.out.truncate(draft.mark);
        }
    }

    /// Whether a head was begun or finished.
    pub fn has_head(&self) -> bool {
        self.draft.is_some() || self.started()
    }

    /// Writes a piece of the body; what goes beyond `Content-Length` is cut.
    pub fn write(&mut self, data: &[u8]) {
        match &mut self.framing {
            Framing::Unsent | Framing::Nothing => {}
            Framing::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= n as u64;
                self.body += n as u64;
                self.out.extend_from_slice(&data[..n]);
            }
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                self.body += data.len() as u64;
                chunk_size(&mut self.out, data.len());
                self.out.extend_from_slice(data);
                self.out.extend_from_slice(b"\r\n");
            }
            Framing::Close => {
                self.body += data.len() as u64;
                self.out.extend_from_slice(data);
            }
        }
    }

    /// Begins a piece of the body of `length` bytes that is written in slices, so that it can be sent in between and is one chunk all
    /// the same; [`Response::end_piece`] must follow.
    pub fn begin_piece(&mut self, length: usize) {
        if self.framing == Framing::Chunked {
            chunk_size(&mut self.out, length);
        }
    }

    /// Writes a slice of the piece that was begun.
    pub fn slice(&mut self, data: &[u8]) {
        match self.framing {
            Framing::Chunked => {
                self.body += data.len() as u64;
                self.out.extend_from_slice(data);
            }
            Framing::Unsent | Framing::Nothing | Framing::Length(_) | Framing::Close => {
                self.write(data);
            }
        }
    }

    /// Ends the piece that was begun.
    pub fn end_piece(&mut self) {
        if self.framing == Framing::Chunked {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// The server sends `length` bytes of a file itself; how many of them the client may get.
    pub(crate) fn pass(&mut self, length: u64) -> u64 {
        let passed = match &mut self.framing {
            Framing::Length(left) => {
                let n = length.min(*left);
                *left -= n;
                n
            }
            Framing::Close => length,
            Framing::Unsent | Framing::Nothing | Framing::Chunked => 0,
        };
        self.body += passed;
        passed
    }

    /// How many bytes of the body were written.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body
    }

    /// Whether `pass` can be used: the body's bytes go out as they are.
    pub fn is_plain(&self) -> bool {
        matches!(self.framing, Framing::Length(_) | Framing::Close)
    }

    /// The body is complete. One that is shorter than its `Content-Length` is cut visibly: the connection closes.
    pub fn end(&mut self) {
        match self.framing {
            Framing::Chunked if !self.ended => self.out.extend_from_slice(b"0\r\n\r\n"),
            Framing::Unsent => self.cut = true,
            Framing::Length(left) if left > 0 => self.cut = true,
            Framing::Chunked | Framing::Nothing | Framing::Length(_) | Framing::Close => {}
        }
        self.ended = true;
    }

    /// The body breaks off: neither the final chunk nor a later response follows, so that the client sees it.
    pub fn cut(&mut self) {
        if !self.ended {
            self.cut = true;
            self.ended = true;
        }
    }

    /// Answers with a short text of the server's own, if nothing was written; else the response is cut.
    pub fn fail(&mut self, status: u16, text: &str) {
        if self.started() {
            return self.cut();
        }
        let code = status;
        let status = format!("{status} {}", phrase(status));
        if self.begin(status.as_bytes()).is_ok() {
            let _ = self.field(b"Content-Type", b"text/plain; charset=utf-8");
            if code == 503 {
                let _ = self.field(b"Retry-After", b"1");
            }
            self.finish(Some(text.len() as u64));
        }
        self.write(text.as_bytes());
        self.end();
    }

    /// Whether the connection can serve another request after this response.
    pub(crate) fn keeps_connection(&self) -> bool {
        self.keep_alive && !self.cut
    }

    /// Whether the response must break off visibly.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether nothing more of it goes out, whatever the application goes on to say.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.framing, Framing::Nothing | Framing::Length(0))
    }

    /// Whether only the end of the connection tells the client that the body is complete (RFC 9112 section 6.3).
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.framing == Framing::Close
    }

    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn give_out(&mut self, out: Vec<u8>) {
        self.out = out;
    }

    /// Takes an empty buffer unless it has one.
    pub(crate) fn reuse(&mut self, spare: &mut Vec<u8>) {
        if self.out.capacity() == 0 {
            self.out = std::mem::take(spare);
        }
    }
}

/// A head that is not finished.
#[derive(Debug)]
struct Draft {
    /// Where it begins in the output.
    mark: usize,
    code: u16,
    length: Option<u64>,
    date: bool,
    server: bool,
    close: bool,
}

fn status_code(status: &[u8]) -> Option<u16> {
    let (digits, phrase) = status.split_at_checked(3)?;
    let phrase_ok = match phrase {
        [] => true,
        [b' ', phrase @ ..] => all(TEXT, phrase),
        _ => false,
    };
    let code = number(digits)? as u16;
    // An interim status is no answer, and after 101 the connection would speak another protocol.
    (phrase_ok && code >= 200).then_some(code)
}

fn decimal(out: &mut Vec<u8>, mut number: u64) {
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

/// Appends a whole answer of the server's own, after which the connection closes.
pub(crate) fn short_answer(out: &mut Vec<u8>, status: u16, text: &str, head_only: bool) {
    let mut response = Response::new(std::mem::take(out), true, head_only, false);
    response.fail(status, &format!("{status} {}: {text}\n", phrase(status)));
    *out = response.take_out();
}

/// The phrase of the statuses that the server itself answers with (RFC 9110 section 15).
pub(crate) fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
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
        Response::new(Vec::new(), http11, false, keep_alive)
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
            let mut r = Response::new(Vec::new(), true, head_only, true);
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
