use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limits::Limits;
use crate::proto::h1::connection::{Connection, Event};

/// What is sent to the upstream for what a client has sent.
fn sent(text: &[u8], facts: Option<Facts>, outgoing: Outgoing<'_>) -> Option<Vec<u8>> {
    let mut connection = Connection::new(Arc::new(Limits::default()));
    connection.receive(text);
    if connection.advance() != Event::Request {
        return None;
    }
    if let Some(facts) = facts {
        *connection.facts_mut() = facts;
    }
    let origin = Origin {
        listener: 0,
        peer: Some(([10, 1, 2, 3], 4567).into()),
        relayed: None,
    };
    connection.take_body().unwrap();
    let mut out = Vec::new();
    write_request(&mut out, connection.request(), &origin, outgoing);
    Some(out)
}

fn text(request: &str, outgoing: Outgoing<'_>) -> String {
    let out = sent(request.as_bytes(), None, outgoing).expect(request);
    String::from_utf8(out).unwrap()
}

const ABOUT: &str = "X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 80\r\n";

#[test]
fn path_and_query_go_as_they_came() {
    for (target, strip, expected) in [
        ("/", 0, "/"),
        (
            "/a%2Fb/../%61//c;d?x=%20&y?",
            0,
            "/a%2Fb/../%61//c;d?x=%20&y?",
        ),
        ("/a?", 0, "/a?"),
        ("http://a/b%2f?c", 0, "/b%2f?c"),
        ("http://a", 0, "/"),
        ("http://a?q", 0, "/?q"),
        ("/app/%2Fx?y", 4, "/%2Fx?y"),
        ("/app", 4, "/"),
        ("/app?y", 4, "/?y"),
        ("/app/x", 5, "/x"),
        ("/app/", 9, "/"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let outgoing = Outgoing {
            strip,
            ..Outgoing::default()
        };
        let sent = text(&request, outgoing);
        let line = format!("GET {expected} HTTP/1.1\r\nHost: a\r\n");
        assert!(sent.starts_with(&line), "{target}: {sent}");
        assert_eq!(
            sent.contains("X-Forwarded-Prefix: /app\r\n"),
            strip > 0,
            "{sent}"
        );
    }
    let sent = text("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Outgoing::default());
    assert!(sent.starts_with("OPTIONS * HTTP/1.1\r\n"), "{sent}");
}

#[test]
fn the_host_is_the_one_that_was_asked_for() {
    let send = |request: &str, host: Option<&'static [u8]>| {
        let outgoing = Outgoing {
            host,
            default_host: b"here",
            ..Outgoing::default()
        };
        let sent = text(request, outgoing);
        assert_eq!(sent.matches("\r\nHost: ").count(), 1, "{sent}");
        let mut lines = sent.lines();
        lines.nth(1).unwrap().to_owned()
    };
    assert_eq!(
        send("GET / HTTP/1.1\r\nhost: a:81\r\n\r\n", None),
        "Host: a:81"
    );
    assert_eq!(
        send("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", None),
        "Host: b"
    );
    assert_eq!(
        send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n",
            None
        ),
        "Host: a"
    );
    assert_eq!(send("GET / HTTP/1.0\r\n\r\n", None), "Host: here");
    assert_eq!(
        send("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(b"c")),
        "Host: c"
    );
}

#[test]
fn what_is_for_one_connection_is_not_passed_on() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, Cookie\r\nconnection: x-other\r\nX-Mine: 1\r\nx-OTHER: 2\r\n\
                   Cookie: c\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: x\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\n\
                   Proxy-Connection: x\r\nProxy-Authorization: x\r\nProxy: http://evil/\r\nAccept: */*\r\nAccept: x\r\n\r\n";
    let expected = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nAccept: */*\r\nAccept: x\r\n{ABOUT}\r\n"
    );
    assert_eq!(text(request, Outgoing::default()), expected);
}

#[test]
fn what_a_client_says_of_itself_is_replaced() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-proto: https\r\nX-Forwarded-Ssl: on\r\n\
                   Forwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Request-ID: 1\r\nX-Forwarded: 1\r\n\r\n";
    let expected = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded: 1\r\n{ABOUT}\r\n");
    assert_eq!(text(request, Outgoing::default()), expected);
}

#[test]
fn what_layers_have_found_is_said() {
    let facts = Facts {
        client: Some("2001:db8::1".parse().unwrap()),
        https: Some(true),
        host: Some(b"shop:8443"[..].into()),
        port: None,
        prefix: Some(b"/outer"[..].into()),
        request_id: Some("abc".into()),
        ..Facts::default()
    };
    let outgoing = Outgoing {
        strip: 4,
        ..Outgoing::default()
    };
    let sent = sent(
        b"GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n",
        Some(facts),
        outgoing,
    )
    .unwrap();
    assert_eq!(
        String::from_utf8(sent).unwrap(),
        "GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop:8443\r\n\
         X-Forwarded-Port: 8443\r\nX-Forwarded-Prefix: /outer/app\r\nX-Request-ID: abc\r\n\r\n"
    );
}

#[test]
fn the_body_has_a_length_however_it_came() {
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "Content-Length: 3\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "Content-Length: 3\r\n",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
            "Content-Length: 0\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "Content-Length: 0\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\nx",
            "Content-Length: 1\r\n",
        ),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
    ] {
        let method = request.split('/').next().unwrap();
        let expected = format!("{method}/ HTTP/1.1\r\nHost: a\r\n{expected}{ABOUT}\r\n");
        assert_eq!(text(request, Outgoing::default()), expected, "{request}");
    }
}

/// Lines of requests, right and wrong, in any order.
fn line_of_request() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        b"Connection: host, content-length, x\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X-Forwarded-For: 1\r\n",
        b"X: y\r\n",
        b"Host: a\r\n",
        b"TE: x\r\n",
    ];
    prop_oneof![
        6 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    /// An upstream as strict as we are takes exactly one request from whatever a client gets past us.
    #[test]
    fn what_is_sent_is_one_request(
        target in prop::sample::select(vec!["/", "/%2e?x", "http://b", "http://b?x=/", "/a/b"]),
        fields in prop::collection::vec(line_of_request(), 0..6),
        strip in 0usize..4,
    ) {
        let start = format!("POST {target} HTTP/1.1\r\n");
        let request = [start.as_bytes(), &fields.concat(), b"\r\n0\r\n\r\n"].concat();
        let outgoing = Outgoing { strip, default_host: b"here", ..Outgoing::default() };
        if let Some(mut sent) = sent(&request, None, outgoing) {
            let mut connection = Connection::new(Arc::new(Limits::default()));
            // The longest body that can have come.
            let head = sent.len();
            sent.extend_from_slice(&[b'x'; 5]);
            connection.receive(&sent[..head]);
            let event = connection.advance();
            prop_assert!(!matches!(event, Event::Reject(_)), "{:?}", String::from_utf8_lossy(&sent));
            connection.receive(&sent[head..]);
            prop_assert_eq!(connection.advance(), Event::Request);
        }
    }
}
