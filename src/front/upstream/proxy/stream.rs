//! What a client sends while its request is answered already: the body of a request that is passed on as it arrives, or whatever follows a
//! change of the protocol.

use std::io::Write;

use preforkd_http::{Output, pass_trailers};

use super::super::Instant;
use super::super::dispatch::Ticket;
use super::super::protocol::Protocol;
use super::{Proxy, Sending};

/// Bytes that may wait for the upstream before the client is left waiting.
const MOST_WAITING: usize = 64 * 1024;
/// Memory that is kept while nothing waits.
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
    /// A byte was written.
    pub begun: bool,
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
        self.begun |= length > 0;
        self.written += length;
        if self.written == self.waiting.len() {
            self.waiting.clear();
            self.waiting.shrink_to(KEPT);
            self.written = 0;
        } else if self.written >= MOST_WAITING {
            self.waiting.drain(..self.written);
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

    /// Whether an upstream can be given a body while it arrives: HTTP has a framing for one whose length nobody knows, and what passes the
    /// others is framed as a whole.
    pub fn takes_streams(&self, upstream: usize) -> bool {
        let of = self.upstreams.get(upstream);
        of.is_some_and(|of| of.settings.protocol.is_http())
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
        let mut stream = Stream::body(false);
        assert!(stream.wants());
        stream.take(&[b'x'; MOST_WAITING], false);
        assert!(!stream.wants());
        stream.consume(MOST_WAITING);
        assert!(stream.wants() && stream.rest().is_empty());
    }

    #[test]
    fn only_http_takes_bodies_while_they_arrive() {
        let mut proxy = Proxy::default();
        for (protocol, takes) in [
            (Protocol::Http, true),
            (Protocol::FastCgi, false),
            (Protocol::Scgi, false),
        ] {
            let settings = Settings {
                protocol,
                ..Settings::new("x")
            };
            let number = proxy.add(settings);
            assert_eq!(proxy.takes_streams(number), takes, "{protocol:?}");
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
