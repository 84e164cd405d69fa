//! What a client sends while its request is answered already: the body of a request that is passed on as it arrives, or whatever follows a
//! change of the protocol.

use std::io::Write;

use preforkd_http::{Output, Request, Taking, pass_trailers};

use super::super::Instant;
use super::super::dispatch::Ticket;
use super::super::protocol::{Protocol, is_call};
use super::{Proxy, Sending};

/// Bytes that may wait for the upstream before the client is left waiting.
const MOST_WAITING: usize = 64 * 1024;
/// Memory that is kept while nothing waits; and the most bytes that are kept in case they have to be sent again.
const KEPT: usize = 16 * 1024;

/// Bytes on their way to an upstream.
#[derive(Debug)]
pub(super) struct Stream {
    waiting: Vec<u8>,
    /// Those before are written.
    written: usize,
    /// They are sent as chunks.
    chunked: bool,
    /// The lines of the fields that follow the last one.
    trailers: Vec<u8>,
    /// Fields of the head were set or removed, and an upstream may take those after the body for such.
    pub drops_trailers: bool,
    /// Bytes were written that are not there any more.
    pub begun: bool,
    /// What was written is kept for a while, in case it has to be sent again.
    pub keeps: bool,
    /// All of them have come.
    pub complete: bool,
    /// The server was told that more is taken.
    pub wanted: bool,
}

impl Stream {
    /// The body of a request.
    pub fn body(chunked: bool) -> Self {
        Self {
            waiting: Vec::new(),
            written: 0,
            chunked,
            trailers: Vec::new(),
            drops_trailers: false,
            begun: false,
            keeps: false,
            complete: false,
            wanted: false,
        }
    }

    /// What follows a change of the protocol.
    pub fn switched() -> Self {
        Self {
            wanted: true,
            ..Self::body(false)
        }
    }

    /// Takes bytes that have come, and whether they are the last.
    fn take(&mut self, bytes: &[u8], ended: bool) {
        if !bytes.is_empty() {
            if self.chunked {
                // Writing to memory cannot fail.
                let _ = write!(self.waiting, "{:x}\r\n", bytes.len());
            }
            self.waiting.extend_from_slice(bytes);
            if self.chunked {
                self.waiting.extend_from_slice(b"\r\n");
            }
        }
        if ended && self.chunked {
            self.waiting.extend_from_slice(b"0\r\n");
            self.waiting.append(&mut self.trailers);
            self.waiting.extend_from_slice(b"\r\n");
        }
        self.complete |= ended;
    }

    /// What is to be written.
    pub fn rest(&self) -> &[u8] {
        &self.waiting[self.written..]
    }

    /// So many bytes of it were.
    pub fn consume(&mut self, length: usize) {
        self.written += length;
        if self.keeps && !self.begun && self.written <= KEPT {
            return;
        }
        self.begun |= self.written > 0;
        if self.written == self.waiting.len() {
            self.waiting.clear();
            self.waiting.shrink_to(KEPT);
            self.written = 0;
        } else if self.written >= MOST_WAITING {
            self.waiting.drain(..self.written);
            self.written = 0;
        }
    }

    /// Goes back to the beginning, if it is still there.
    pub fn rewind(&mut self) {
        if !self.begun {
            self.written = 0;
        }
    }

    /// Whether there is room for more.
    pub fn wants(&self) -> bool {
        !self.complete && self.rest().len() < MOST_WAITING
    }
}

impl Proxy {
    /// What an upstream speaks.
    pub fn protocol(&self, upstream: usize) -> Protocol {
        let of = self.upstreams.get(upstream);
        of.map_or(Protocol::Http, |of| of.settings.protocol)
    }

    /// How an upstream takes the body of a request whose route streams, or does not. HTTP has a framing for one whose length nobody knows; what
    /// passes the others is framed as a whole. A call of gRPC is always given on as it arrives: the upstream may speak before the client has
    /// ended.
    pub fn taking(&self, upstream: usize, request: Request<'_>, streams: bool) -> Taking {
        let protocol = self.protocol(upstream);
        match is_call(protocol, request) {
            true => Taking::Open,
            false if streams && protocol.is_http() => Taking::Streamed,
            false => Taking::Whole,
        }
    }

    /// See [`preforkd_http::Service::body`].
    pub fn body(&mut self, ticket: Ticket, bytes: &[u8], ended: bool, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return false;
        };
        let Sending::Stream(stream) = &mut exchange.sending else {
            return false;
        };
        stream.take(bytes, ended);
        // The server is told by what this gives back.
        stream.wanted = true;
        if let Some(token) = exchange.connection {
            self.write(token, now);
            self.settle(now);
        }
        let Some(exchange) = self.exchanges.get(ticket) else {
            return false;
        };
        match &mut exchange.sending {
            Sending::Stream(stream) => {
                stream.wanted = stream.wants();
                stream.wanted
            }
            _ => false,
        }
    }

    /// See [`preforkd_http::Service::trailers`]. They have a place only where the body comes in chunks.
    pub fn trailers(&mut self, ticket: Ticket, lines: &[u8]) {
        if let Some(exchange) = self.exchanges.get(ticket)
            && let Sending::Stream(stream) = &mut exchange.sending
            && stream.chunked
            && !stream.drops_trailers
        {
            pass_trailers(lines, &mut stream.trailers);
        }
    }

    /// Tells the server if more is taken of what the client sends.
    pub(super) fn tell_wants(&mut self, ticket: Ticket) {
        if let Some(exchange) = self.exchanges.get(ticket)
            && let Sending::Stream(stream) = &mut exchange.sending
            && stream.wants()
            && !std::mem::replace(&mut stream.wanted, true)
        {
            self.outputs.push_back((ticket, Output::Wants));
        }
    }
}

/// Whether a client may be given this protocol. HTTP/2 over a connection that begins with HTTP/1.1 is not: what is asked for there no
/// front has seen. Nor is TLS within the connection.
pub(super) fn may_switch(protocol: &[u8]) -> bool {
    let mut names = protocol.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    names.all(|name| {
        let name = name.to_ascii_lowercase();
        !name.is_empty()
            && name != b"h2c"
            && name != b"h2"
            && !name.starts_with(b"http/")
            && !name.starts_with(b"tls/")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use preforkd_http::{Connection, Event, Limits};

    use super::super::super::settings::Settings;
    use super::*;

    #[test]
    fn what_arrives_is_written_once_and_in_its_framing() {
        let mut stream = Stream::body(true);
        stream.take(b"abc", false);
        assert_eq!(stream.rest(), b"3\r\nabc\r\n");
        stream.consume(4);
        stream.take(b"", false);
        stream.take(b"defghijklmnopqrstuvwxyz", true);
        assert_eq!(
            stream.rest(),
            b"bc\r\n17\r\ndefghijklmnopqrstuvwxyz\r\n0\r\n\r\n"
        );
        assert!(!stream.wants());
        let mut stream = Stream::body(true);
        stream.keeps = true;
        stream.take(b"abc", false);
        stream.consume(8);
        stream.take(b"d", true);
        stream.rewind();
        assert_eq!(stream.rest(), b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n");
        let mut stream = Stream::body(false);
        stream.keeps = true;
        assert!(stream.wants());
        stream.take(&[b'x'; MOST_WAITING], false);
        assert!(!stream.wants());
        stream.consume(MOST_WAITING);
        assert!(stream.wants() && stream.rest().is_empty());
        stream.rewind();
        assert!(stream.begun && stream.rest().is_empty());
    }

    #[test]
    fn only_http_takes_bodies_while_they_arrive_and_calls_always() {
        let request = |kind: &str| {
            let mut connection = Connection::new(Arc::new(Limits::default()));
            let fields = format!("Host: a\r\nContent-Length: 1\r\nContent-Type: {kind}");
            connection.receive(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\nx").as_bytes());
            assert_eq!(connection.advance(), Event::Request);
            connection
        };
        let (plain, call) = (request("text/plain"), request("application/grpc+proto"));
        let mut proxy = Proxy::default();
        for (protocol, streamed, called) in [
            (Protocol::Http, Taking::Streamed, Taking::Whole),
            (Protocol::H2c, Taking::Streamed, Taking::Open),
            (Protocol::FastCgi, Taking::Whole, Taking::Whole),
            (Protocol::Scgi, Taking::Whole, Taking::Whole),
        ] {
            let settings = Settings {
                protocol,
                ..Settings::new("x")
            };
            let number = proxy.add(settings);
            let taking = |of: &Connection, streams| proxy.taking(number, of.request(), streams);
            assert_eq!(taking(&plain, true), streamed, "{protocol:?}");
            assert_eq!(taking(&plain, false), Taking::Whole, "{protocol:?}");
            assert_eq!(taking(&call, false), called, "{protocol:?}");
        }
    }

    #[test]
    fn another_version_of_http_is_no_other_protocol() {
        for protocol in ["websocket", "WebSocket", "x/1, y"] {
            assert!(may_switch(protocol.as_bytes()), "{protocol}");
        }
        for protocol in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2", ""] {
            assert!(!may_switch(protocol.as_bytes()), "{protocol}");
        }
    }
}
