//! Bodies that are given out as they arrive, and what follows a change of the protocol. How a body is taken is asked when its head is there.

use super::{Connection, Event, State, most_body, refusal};
use crate::proto::reject::Reject;

/// Whether it was asked how the body is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    No,
    Yes,
    /// The body is taken as a whole, and there is room for it.
    Settled,
}

impl Connection {
    /// Has it ask at each head whether the body is to be given out as it arrives.
    pub(crate) fn ask(&mut self) {
        self.asks = true;
    }

    /// Settles how the body is taken, before a byte of it is.
    pub(super) fn begin_to_receive(&mut self) -> Result<Option<Event>, Reject> {
        match self.asked {
            Asked::No if self.asks => {
                self.asked = Asked::Yes;
                return Ok(Some(Event::Head));
            }
            _ if self.streams => return Ok(None),
            Asked::Yes => {
                self.asked = Asked::Settled;
                if let State::Length(length) = self.state {
                    let (most, too_large) = most_body(&self.limits, &self.budget);
                    if length > most {
                        return Err(too_large);
                    }
                    self.expect_body(length)?;
                }
            }
            Asked::No | Asked::Settled => {}
        }
        let expects = std::mem::take(&mut self.head.expect) && self.scanned == self.input.len();
        Ok(expects.then_some(Event::Continue))
    }

    /// Makes room for a body.
    pub(super) fn expect_body(&mut self, length: u64) -> Result<(), Reject> {
        let in_memory = self.limits.body_in_memory;
        let expected = self.arriving.expect(length, in_memory, &self.budget);
        expected.map_err(|failure| refusal(&mut self.failure, failure))
    }

    /// The body of the request whose head is there is given out as it arrives: see [`Connection::take_piece`]. `100 Continue` is left
    /// to the caller. With `is_open` it may have any length.
    pub(crate) fn stream(&mut self, is_open: bool) {
        (self.streams, self.is_open) = (true, is_open);
        self.length = 0;
    }

    /// The request whose head is there is looked at anew: no byte of its body was given out, and it asks again how the body is taken.
    pub(crate) fn ask_again(&mut self) {
        if self.streams {
            (self.streams, self.is_open) = (false, false);
            self.asked = Asked::No;
        }
    }

    /// Whether the client waits for `100 Continue` and has sent nothing of its body, once.
    pub(crate) fn take_expectation(&mut self) -> bool {
        std::mem::take(&mut self.head.expect)
            && self.length == 0
            && self.scanned == self.input.len()
            && matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// What has come of a body that is given out as it arrives, and whether it is complete.
    pub(crate) fn take_piece(&mut self) -> (Vec<u8>, bool) {
        let is_complete = matches!(self.state, State::Request);
        (std::mem::take(&mut self.pieces), is_complete)
    }

    /// The lines of the fields that have followed a body that was given out as it arrived, once. They are valid, and nothing more is known
    /// of them.
    pub(crate) fn take_trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    /// The request that is there was answered with a change of the protocol: what has come after it and what comes is given out as it is.
    pub(crate) fn switch(&mut self) {
        self.pieces = self.input.split_off(self.scanned);
        self.streams = true;
        self.state = State::Switched;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;

    /// What has come of these bytes, in pieces of this size, on a connection whose bodies are given out: each request, and its body.
    fn requests(bytes: &[u8], piece: usize, limits: &Limits) -> Vec<String> {
        let mut connection = Connection::new(Arc::new(limits.clone()));
        connection.ask();
        let mut seen = Vec::new();
        let mut body = Vec::new();
        let mut streams = false;
        for piece in bytes.chunks(piece) {
            connection.receive(piece);
            loop {
                let event = connection.advance();
                if streams {
                    let (piece, is_complete) = connection.take_piece();
                    body.extend_from_slice(&piece);
                    assert_eq!(is_complete, event == Event::Request);
                }
                match event {
                    Event::Wait => break,
                    Event::Continue => unreachable!("the caller says so"),
                    Event::Head => {
                        assert!(!streams, "once");
                        streams = true;
                        connection.stream(false);
                    }
                    Event::Request => {
                        let path = String::from_utf8_lossy(connection.request().path());
                        seen.push(format!("{path} {}", String::from_utf8_lossy(&body)));
                        connection.next();
                        (streams, body) = (false, Vec::new());
                    }
                    Event::Reject(reject) => {
                        seen.push(reject.status.to_string());
                        return seen;
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn a_body_that_is_given_out_is_the_same_however_it_comes() {
        let limits = Limits {
            max_body: 8,
            ..Limits::default()
        };
        let head =
            |path: &str, field: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        let (length, chunked) = ("Content-Length: 5", "Transfer-Encoding: chunked");
        let first = head("/a", length) + "hello";
        let second = head("/b", chunked) + "3;x=y\r\nabc\r\n5\r\ndefgh\r\n0\r\nX: y\r\n\r\n";
        let none = head("/c", "Content-Length: 0");
        let expected = ["/a hello", "/b abcdefgh", "/c "];
        for (end, last) in [
            ("GET /d HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "/d "),
            (head("/e", chunked) + "9\r\n", "413"),
            (head("/e", "Content-Length: 9"), "413"),
            (head("/e", chunked) + "3\r\nabcd", "400"),
        ] {
            let bytes = [&first[..], &second, &none, &end].concat();
            for piece in 1..=bytes.len() {
                let seen = requests(bytes.as_bytes(), piece, &limits);
                assert_eq!(seen[..3], expected, "{piece}");
                assert_eq!(seen[3..], [last], "{piece}");
            }
        }
    }

    #[test]
    fn how_a_body_is_taken_can_be_asked_again() {
        let mut connection = Connection::new(Arc::new(Limits::default()));
        connection.ask();
        connection.receive(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        );
        assert_eq!(connection.advance(), Event::Head);
        for _ in 0..2 {
            connection.stream(false);
            connection.ask_again();
            assert_eq!(connection.advance(), Event::Head);
        }
        assert_eq!(connection.advance(), Event::Continue);
        connection.receive(b"abcd");
        assert_eq!(connection.advance(), Event::Request);
        // Nothing is asked of what is there already.
        connection.ask_again();
        assert_eq!(connection.advance(), Event::Request);
        let mut body = Vec::new();
        let mut read = connection.take_body().expect("no file");
        std::io::Read::read_to_end(&mut read, &mut body).expect("no file");
        assert_eq!(body, b"abcd");
    }

    #[test]
    fn a_body_that_is_not_given_out_is_taken_as_a_whole() {
        let limits = Limits {
            max_buffered: 4,
            ..Limits::default()
        };
        for (length, last) in [(4, Event::Wait), (5, Event::Reject(Reject::with(413, "")))] {
            let mut connection = Connection::new(Arc::new(limits.clone()));
            connection.ask();
            let fields = format!("Expect: 100-continue\r\nContent-Length: {length}");
            connection
                .receive(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").as_bytes());
            assert_eq!(connection.advance(), Event::Head);
            match last {
                // What is given out needs no room; what is held does.
                Event::Reject(_) => {
                    assert!(
                        matches!(connection.advance(), Event::Reject(reject) if reject.status == 413)
                    );
                }
                _ => {
                    assert_eq!(connection.advance(), Event::Continue);
                    assert_eq!(connection.advance(), Event::Wait);
                    connection.receive(b"abcd");
                    assert_eq!(connection.advance(), Event::Request);
                    assert_eq!(connection.take_piece().0, b"");
                }
            }
        }
    }
}
