//! What must come of raw bytes ([`rows`]), and that it does not depend on how they were split.

mod rows;

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use preforkd_http::{Connection, Event, Limits};
use rows::post;

/// One line for each request: method, raw path, query, body; then what the connection comes to: `wait` or a status.
fn outcome(pieces: &[&[u8]]) -> String {
    let mut connection = Connection::new(Arc::new(rows::limits_of_rows()));
    let mut text = String::new();
    let mut end = String::from("wait");
    for piece in pieces {
        connection.receive(piece);
        loop {
            match connection.advance() {
                Event::Wait => break,
                Event::Continue | Event::Head => {}
                Event::Request => {
                    let mut body = String::new();
                    connection
                        .take_body()
                        .unwrap()
                        .read_to_string(&mut body)
                        .unwrap();
                    let request = connection.request();
                    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
                    let _ = write!(
                        text,
                        "{} {} {} {body};",
                        show(request.method()),
                        show(request.path()),
                        show(request.query())
                    );
                    connection.next();
                }
                Event::Reject(reject) => {
                    end = reject.status.to_string();
                    break;
                }
            }
        }
    }
    text + &end
}

/// The RFCs that rows cite: URIs, HTTP's own two, and the one of status 431.
const RFCS: [&str; 4] = ["3986", "6585", "9110", "9112"];

/// Whether `why` begins with a section of an RFC or the number of a weakness.
fn cites(why: &str) -> bool {
    let citation = why.split([',', '(']).next().unwrap_or_default().trim_end();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match citation.strip_prefix("CVE-") {
        Some(number) => number
            .split_once('-')
            .is_some_and(|(year, n)| year.len() == 4 && digits(year) && digits(n)),
        None => citation
            .split_once(' ')
            .is_some_and(|(rfc, section)| RFCS.contains(&rfc) && section.split('.').all(digits)),
    }
}

#[test]
fn a_row_without_a_citation_is_refused() {
    for why in [
        "9112 3",
        "9112 3.2.1, origin form",
        "9110 8.6 (CVE-2023-38697)",
        "CVE-2015-0219, x",
    ] {
        assert!(cites(why), "{why}");
    }
    for why in [
        "",
        "obfuscated",
        "9112",
        "9112 ",
        "9112 x",
        "9112 3.",
        "7230 3",
        "CVE-2015",
        "CVE-15-1",
        "of 9112 3",
    ] {
        assert!(!cites(why), "{why}");
    }
}

fn check(why: &str, input: &[u8], expected: &str) {
    assert!(
        cites(why),
        "neither section nor weakness: {why:?}: {}",
        input.escape_ascii()
    );
    assert_eq!(
        outcome(&[input]),
        expected,
        "{why}: {}",
        input.escape_ascii()
    );
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(
        outcome(&bytes),
        expected,
        "{why}, byte by byte: {}",
        input.escape_ascii()
    );
    for at in 1..input.len() {
        let (a, b) = input.split_at(at);
        assert_eq!(
            outcome(&[a, b]),
            expected,
            "{why}, split at {at}: {}",
            input.escape_ascii()
        );
    }
}

#[test]
fn request_lines() {
    rows::request_lines(&mut check);
}

#[test]
fn targets() {
    rows::targets(&mut check);
}

#[test]
fn hosts() {
    rows::hosts(&mut check);
}

#[test]
fn field_lines() {
    rows::field_lines(&mut check);
}

#[test]
fn content_lengths() {
    rows::content_lengths(&mut check);
}

#[test]
fn transfer_codings() {
    rows::transfer_codings(&mut check);
}

#[test]
fn chunks() {
    rows::chunks(&mut check);
}

#[test]
fn limits() {
    rows::limits(&mut check);
}

#[test]
fn pipelines() {
    rows::pipelines(&mut check);
}

#[test]
fn continue_is_sent_when_the_body_is_wanted_and_not_there() {
    let events = |input: &[u8]| {
        let limits = Limits {
            max_body: 100,
            ..Limits::default()
        };
        let mut connection = Connection::new(Arc::new(limits));
        connection.receive(input);
        let first = connection.advance();
        (first, connection.advance())
    };
    let expect = "Expect: 100-continue\r\n";
    let (first, then) = events(&post(&format!("{expect}Content-Length: 3"), ""));
    assert_eq!((first, then), (Event::Continue, Event::Wait), "once");
    assert_eq!(
        events(&post(&format!("{expect}Transfer-Encoding: chunked"), "")).0,
        Event::Continue
    );
    assert_eq!(
        events(&post(&format!("{expect}Content-Length: 3"), "a")).0,
        Event::Wait,
        "the body is coming"
    );
    assert_eq!(
        events(&post(&format!("{expect}Content-Length: 0"), "")).0,
        Event::Request
    );
    assert!(
        matches!(events(&post(&format!("{expect}Content-Length: 101"), "")).0, Event::Reject(r) if r.status == 413)
    );
    let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(
        events(old).0,
        Event::Wait,
        "RFC 9110 section 10.1.1: not for HTTP/1.0"
    );
}
