//! What must hold of a connection whatever its client sends, for random tests and for the fuzzer.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use preforkd_http::{
    Connection, Event, Limits, Multiplex as _, MultiplexStep as Step, Origin, Transport as _,
};

use super::connection::Session;
use super::{Shared, Wire};
use crate::tls::Listeners;

/// What a client begins with: its preface, and no settings.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A stream, and the parser that reads the request from it.
struct Read {
    wire: Wire,
    parser: Connection,
}

impl Read {
    fn new(wire: Wire, limits: &Arc<Limits>) -> Self {
        let parser = Connection::new(limits.clone());
        Self { wire, parser }
    }

    /// Reads on, and answers a request that is there; whether the stream goes on. It gives one request at most, and nothing after it.
    fn go_on(&mut self) -> bool {
        let mut buffer = [0; 1000];
        loop {
            match self.parser.advance() {
                Event::Wait => {}
                Event::Continue | Event::Head => continue,
                Event::Reject(_) => return false,
                Event::Request => {
                    let request = self.parser.request();
                    let one = |name: &[u8]| {
                        let mut fields = request.fields();
                        fields.all(|(other, value)| {
                            let value = value.iter();
                            other != name && value.clone().all(|byte| !b"\r\n\0".contains(byte))
                        })
                    };
                    assert!(one(b"connection") && one(b"upgrade"));
                    self.parser.next();
                    assert!(!self.parser.has_input(), "there is more than one request");
                    if let Ok(n @ 1..) = self.wire.read(&mut buffer) {
                        panic!("after the request: {}", buffer[..n].escape_ascii());
                    }
                    let mut rest = ANSWER;
                    while let Ok(n @ 1..) = self.wire.write(rest, false) {
                        rest = &rest[n..];
                    }
                    return false;
                }
            }
            match self.wire.read(&mut buffer) {
                Ok(n @ 1..) => self.parser.receive(&buffer[..n]),
                Err(error) => return error == rustix::io::Errno::AGAIN,
                Ok(_) => return false,
            }
        }
    }
}

/// Serves a client that sends its preface and these pieces.
///
/// # Panics
/// A stream gives something else than one request.
pub fn check(pieces: &[&[u8]]) {
    let limits = Arc::new(Limits {
        max_head: 2000,
        max_body: 10_000,
        ..Limits::default()
    });
    let mut shared = Shared::new(Listeners::default(), true);
    let Ok((socket, _peer)) = UnixStream::pair() else {
        return;
    };
    let origin = Origin {
        listener: 0,
        peer: None,
        relayed: None,
    };
    let transport = Wire::new(&mut shared, socket.into(), &origin);
    let mut session = Session::begin(&mut shared, 0, &transport, &limits);
    let mut streams: Vec<Read> = Vec::new();
    let mut output = Vec::new();
    for piece in [BEGIN].iter().chain(pieces) {
        session.receive(piece);
        // What is answered in one round may let the connection go on in the next one.
        for _ in 0..3 {
            loop {
                match session.next(0) {
                    Step::Stream(wire) => streams.push(Read::new(wire, &limits)),
                    Step::Wait => break,
                    Step::Over { .. } => return,
                }
            }
            streams.retain_mut(Read::go_on);
            output.clear();
            session.output(&mut output);
            while Session::woken(&mut shared).is_some() {}
        }
        assert!(session.streams() <= super::limits::STREAMS as usize + streams.len());
    }
    session.end();
    while let Step::Stream(wire) = session.next(0) {
        Read::new(wire, &limits).go_on();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u8;
        let header = [0, 0, length, kind, flags, 0, 0, 0, stream];
        [&header[..], payload].concat()
    }

    /// A field as it is (RFC 7541 section 6.2.2).
    fn field(name: &str, value: &str) -> Vec<u8> {
        let [name, value] = [name, value].map(str::as_bytes);
        let lengths = [name.len() as u8, value.len() as u8];
        [&[0, lengths[0]], name, &lengths[1..], value].concat()
    }

    fn fields() -> impl Strategy<Value = Vec<u8>> {
        let known = vec![
            field(":method", "GET"),
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":path", "/"),
            field(":path", "/ HTTP/1.1\r\nx: y"),
            field(":authority", "a"),
            field("host", "a"),
            field("content-length", "3"),
            field("te", "trailers"),
            field("cookie", "a=b"),
            field("x", "a\r\nb: c"),
            field("transfer-encoding", "chunked"),
            // In the static table.
            vec![0x82, 0x86, 0x84],
            vec![0x83, 0x86, 0x84],
            vec![0xff, 0xff],
        ];
        prop::collection::vec(prop::sample::select(known), 0..6).prop_map(|fields| fields.concat())
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let stream = || prop::sample::select(vec![0u8, 1, 1, 1, 3, 3, 5, 2]);
        let request = prop::collection::vec(0u8..2, 0..2);
        prop_oneof![
            4 => (stream(), 0u8..2, fields(), request).prop_map(|(stream, ends, fields, begins)| {
                let head = match begins.is_empty() {
                    true => [&[0x83, 0x86, 0x84], &fields[..]].concat(),
                    false => fields,
                };
                frame(1, 4 | ends, stream, &head)
            }),
            3 => (stream(), 0u8..2, prop::sample::select(vec!["", "a", "abc", "0\r\n\r\nGET / HTTP/1.1\r\n\r\n"]))
                .prop_map(|(stream, ends, data)| frame(0, ends, stream, data.as_bytes())),
            1 => (stream(), 0u8..10).prop_map(|(stream, error)| frame(3, 0, stream, &[0, 0, 0, error])),
            1 => (stream(), 0u8..2).prop_map(|(stream, more)| frame(8, 0, stream, &[0, more, 0, 1])),
            1 => any::<u8>().prop_map(|window| frame(4, 0, 0, &[0, 4, 0, 0, 0, window])),
            1 => (0u8..12, any::<u8>(), stream(), prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_stream_gives_one_request_at_most(frames in prop::collection::vec(any_frame(), 0..14), size in 1usize..200) {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            check(&frames);
            let bytes = frames.concat();
            check(&bytes.chunks(size).collect::<Vec<_>>());
        }
    }
}
