//! How a request is refused that cannot be served.

use std::sync::Arc;

use preforkd_http::{Connection, Event, Limits};

/// What is answered to the first request that is refused.
fn refusal(input: &[u8]) -> String {
    let limits = Limits {
        max_head: 2048,
        max_body: 100,
        ..Limits::default()
    };
    let mut connection = Connection::new(Arc::new(limits));
    for piece in input.chunks(7) {
        connection.receive(piece);
        loop {
            match connection.advance() {
                Event::Wait => break,
                Event::Continue | Event::Head => {}
                Event::Request => connection.next(),
                Event::Reject(reject) => {
                    let mut out = Vec::new();
                    reject.answer(&mut out);
                    return String::from_utf8(out).unwrap();
                }
            }
        }
    }
    panic!("not refused: {}", input.escape_ascii());
}

#[test]
fn a_refusal_has_no_body_where_the_method_was_head() {
    // RFC 9110 section 9.3.2, whatever is wrong with the request.
    let long = "a".repeat(3000);
    for rest in [
        "/ HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
        "/ HTTP/1.1\r\n\r\n",
        "/ HTTP/2.0\r\nHost: a\r\n\r\n",
        "/ HTTP/1.1\nHost: a\r\n\r\n",
        &format!("/{long}"),
        &format!("/ HTTP/1.1\r\nX: {long}"),
        "/ HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n",
        "/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        for before in ["", "\r\n", "GET /before HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let head = refusal(format!("{before}HEAD {rest}").as_bytes());
            assert!(head.ends_with("Connection: close\r\n\r\n"), "{head}");
            for method in ["GET", "HEADS", "head"] {
                let other = refusal(format!("{before}{method} {rest}").as_bytes());
                assert!(!other.ends_with("\r\n\r\n"), "{other}");
            }
        }
    }
}
