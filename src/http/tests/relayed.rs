//! Raw bytes from proxies, through a whole server: what it answers, and as whose request.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::io::{ErrorKind, Read, Write};

use common::{Running, start_as};
use preforkd_http::layer::{self, Options};
use preforkd_http::{Body, Exchange, Handler, Limits, Origin, Request, TrustedProxies};

/// Answers with what the request is taken for, one response a line.
#[derive(Clone)]
struct Seen;

impl Handler for Seen {
    fn call(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let facts = request.facts().cloned().unwrap_or_default();
        let peer = origin.peer.map(|peer| match peer.ip().to_string() {
            ip if ip == "127.0.0.1" => ip,
            _ => peer.to_string(),
        });
        let server = origin.relayed.and_then(|relayed| relayed.server);
        let word = |word: Option<String>| word.unwrap_or("-".into());
        let text = format!(
            "{} {} {} {} {} {}",
            String::from_utf8_lossy(request.target()),
            word(peer),
            word(server.map(|server| server.to_string())),
            word(facts.client.map(|client| client.to_string())),
            word(facts.https.map(|https| https.to_string())),
            request
                .fields()
                .any(|(name, _)| name.eq_ignore_ascii_case(b"x-forwarded-for")),
        );
        exchange.begin(b"200 OK").unwrap();
        exchange.field(b"X-Seen", text.as_bytes()).unwrap();
        exchange.finish(Some(0));
        exchange.end();
        exchange
    }
}

fn start(threads: usize, trusted: &[&str]) -> Running {
    let trusted = TrustedProxies {
        unix: false,
        networks: trusted.iter().map(|text| text.parse().unwrap()).collect(),
    };
    start_as(threads, Limits::default(), Seen, |config| {
        config.proxy_protocol = Some(trusted.clone());
        config.layers = layer::standard(Options {
            trusted_proxies: trusted,
            ..Options::default()
        });
    })
}

/// Sends the bytes in these pieces. What the requests were taken for, or the statuses of refusals, until the connection ends.
fn ask(server: &Running, pieces: &[&[u8]]) -> Vec<String> {
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        // It may have been closed by now.
        if client.write_all(piece).is_err() {
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    let text = String::from_utf8(answer).unwrap();
    let mut seen = Vec::new();
    for response in text
        .split_inclusive("\r\n\r\n")
        .filter(|part| part.starts_with("HTTP/"))
    {
        let field = response
            .lines()
            .find_map(|line| line.strip_prefix("X-Seen: "));
        seen.push(match field {
            Some(field) => field.to_owned(),
            None => response[9..12].to_owned(),
        });
    }
    seen
}

const IPV4: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x02\x13\x88\x01\xbb";
const IPV4_TLS: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xcb\0\x71\x07\xc0\0\x02\x02\x13\x88\x01\xbb\x20\0\x05\x01\0\0\0\0";
const LOCAL: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x02\x13\x88\x01\xbb";
const UNSPEC: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\x00";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.2 5000 443\r\n";
const PROXY_BEHIND: &[u8] = b"PROXY TCP4 10.0.0.9 192.0.2.2 5000 443\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const TWO: &[u8] =
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy";
const FORWARDED: &[u8] =
    b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n";

/// Bytes of a trusted proxy, and what comes of them.
const TABLE: [(&[&[u8]], &[&str]); 19] = [
    (
        &[LINE, GET],
        &["/a 203.0.113.7:5000 192.0.2.2:443 - - false"],
    ),
    (
        &[IPV4, GET],
        &["/a 203.0.113.7:5000 192.0.2.2:443 - - false"],
    ),
    (
        &[IPV4_TLS, GET],
        &["/a 203.0.113.7:5000 192.0.2.2:443 - true false"],
    ),
    (
        &[LINE, TWO],
        &[
            "/a 203.0.113.7:5000 192.0.2.2:443 - - false",
            "/b 203.0.113.7:5000 192.0.2.2:443 - - false",
        ],
    ),
    // Fields are the client's own: the proxy does not look at requests.
    (
        &[LINE, FORWARDED],
        &["/a 203.0.113.7:5000 192.0.2.2:443 - - false"],
    ),
    (
        &[IPV4, FORWARDED],
        &["/a 203.0.113.7:5000 192.0.2.2:443 - - false"],
    ),
    (&[UNKNOWN, FORWARDED], &["/a 127.0.0.1 - - - false"]),
    (&[UNSPEC, FORWARDED], &["/a 127.0.0.1 - - - false"]),
    // Another proxy of ours may write them, and the proxy itself.
    (
        &[PROXY_BEHIND, FORWARDED],
        &["/a 10.0.0.9:5000 192.0.2.2:443 6.6.6.6 true true"],
    ),
    (&[LOCAL, FORWARDED], &["/a 127.0.0.1 - 6.6.6.6 true true"]),
    (&[LOCAL, GET], &["/a 127.0.0.1 - - - false"]),
    // Without a header, behind one, and with two.
    (&[GET], &[]),
    (&[b"\r\n", GET], &[]),
    (&[GET, LINE, GET], &[]),
    (&[LINE, LINE, GET], &["400"]),
    (&[LINE, IPV4, GET], &["400"]),
    (&[b"PROXY TCP4 203.0.113.7 192.0.2.2 5000 x\r\n", GET], &[]),
    // What follows the header is a request from its first byte on.
    (&[LINE, b"garbage\r\n\r\n", GET], &["400"]),
    (&[LINE], &[]),
];

#[test]
fn a_header_names_the_client_of_a_whole_connection() {
    for threads in [0, 2] {
        let server = start(threads, &["127.0.0.1/32", "10.0.0.0/8"]);
        for (pieces, seen) in TABLE {
            assert_eq!(ask(&server, pieces), seen, "{pieces:x?}");
        }
        server.stop();
    }
}

#[test]
fn split_at_any_byte_the_result_is_the_same() {
    let server = start(0, &["127.0.0.1/32", "10.0.0.0/8"]);
    for (pieces, seen) in TABLE {
        let whole = pieces.concat();
        for at in 1..whole.len() {
            let (first, second) = whole.split_at(at);
            assert_eq!(ask(&server, &[first, second]), seen, "{at} of {whole:x?}");
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(ask(&server, &bytes), seen, "{whole:x?}");
    }
    server.stop();
}

#[test]
fn who_is_not_trusted_cannot_connect() {
    let server = start(0, &["10.0.0.0/8"]);
    for pieces in [&[LINE, GET][..], &[GET], &[IPV4, GET], &[LOCAL, GET]] {
        assert_eq!(ask(&server, pieces), [] as [&str; 0]);
    }
    server.stop();
}

#[test]
fn a_header_must_come_in_time() {
    let limits = Limits {
        header_timeout: std::time::Duration::from_millis(50),
        ..Limits::default()
    };
    let server = start_as(0, limits, Seen, |config| {
        config.proxy_protocol = Some(TrustedProxies {
            unix: false,
            networks: vec!["127.0.0.1/32".parse().unwrap()],
        });
    });
    for sent in [&b""[..], b"PROXY TCP4 203.0.113.7 ", &IPV4[..20], LINE] {
        let mut client = server.connect();
        client.write_all(sent).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"", "{sent:x?}");
    }
    server.stop();
}
