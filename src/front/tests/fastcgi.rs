//! Upstreams that speak FastCGI, over real sockets: when a request is sent again, and what a client gets of a response that is wrong.

mod common;

use common::*;
use preforkd_front::upstream::protocol::Protocol;

/// A record, as text.
fn record(kind: u8, content: &str) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content.as_bytes()].concat()
}

fn response(text: &str) -> Vec<u8> {
    [record(6, text), record(3, "\0\0\0\0\0\0\0\0")].concat()
}

/// The end of a request without a body, or of its body.
const LAST: &str = "\u{1}\u{5}\0\u{1}\0\0\0\0";

fn one() -> (Front, Upstream) {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| {
        settings.protocol = Protocol::FastCgi;
    });
    (front, upstream)
}

fn send(peer: &mut Peer, bytes: &[u8]) {
    use std::io::Write as _;
    peer.stream.write_all(bytes).unwrap();
}

#[test]
fn a_request_ends_with_an_empty_record_and_its_connection_serves_another_one() {
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = upstream.accept();
    assert!(peer.read_to(LAST).contains("REQUEST_METHODGET"));
    send(
        &mut peer,
        &response("Date: x\r\nContent-Length: 2\r\n\r\nok"),
    );
    assert_eq!(client.message(), OK_SEEN);
    client.write(POST);
    let request = peer.read_to(LAST);
    assert!(
        request.contains("\u{1}\u{5}\0\u{1}\0\u{3}\0\0abc\u{1}\u{5}"),
        "{request:?}"
    );
    send(
        &mut peer,
        &response("Date: x\r\nContent-Length: 2\r\n\r\nok"),
    );
    assert_eq!(client.message(), OK_SEEN);
    assert!(upstream.is_unused());
}

#[test]
fn a_request_that_got_no_byte_is_sent_again_only_if_it_may_be() {
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = upstream.accept();
    peer.read_to(LAST);
    drop(peer);
    let mut peer = upstream.accept();
    peer.read_to(LAST);
    send(
        &mut peer,
        &response("Date: x\r\nContent-Length: 2\r\n\r\nok"),
    );
    assert_eq!(client.message(), OK_SEEN);
    drop(peer);
    // One with an effect is not, and neither is one whose application has written something for the log.
    for (text, bytes) in [(POST, Vec::new()), (GET, record(7, "it has begun\n"))] {
        let (front, upstream) = one();
        let mut client = front.send(text);
        let mut peer = upstream.accept();
        peer.read_to(LAST);
        send(&mut peer, &bytes);
        drop(peer);
        assert!(client.message().starts_with("HTTP/1.1 502 "), "{text}");
        assert!(upstream.is_unused());
    }
}

#[test]
fn what_is_wrong_is_502_or_breaks_off() {
    for (bytes, expected) in [
        (response("no head\r\n\r\n"), "502"),
        (response("A: b\r\n"), "502"),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "502"),
        (record(3, "\0\0\0\0\u{2}\0\0\0"), "502"),
        (response("Content-Length: 9\r\n\r\nshort"), "200"),
        (record(6, "Content-Length: 9\r\n\r\nshort"), "200"),
    ] {
        let (front, upstream) = one();
        let mut client = front.get();
        let mut peer = upstream.accept();
        peer.read_to(LAST);
        send(&mut peer, &bytes);
        drop(peer);
        let seen = match expected {
            "502" => client.message(),
            _ => client.rest(),
        };
        assert!(seen.starts_with(&format!("HTTP/1.1 {expected} ")), "{seen}");
        assert!(!seen.contains("short") || seen.ends_with("short"), "{seen}");
    }
}

#[test]
fn text_on_standard_error_changes_no_response() {
    let (front, upstream) = one();
    let mut client = front.get();
    let mut peer = upstream.accept();
    peer.read_to(LAST);
    let much = record(7, &"warning\n".repeat(8000));
    send(&mut peer, &[much.clone(), much].concat());
    send(
        &mut peer,
        &response("Date: x\r\nContent-Length: 2\r\n\r\nok"),
    );
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn a_response_before_the_whole_body_was_read_is_passed_on() {
    let (front, upstream) = one();
    let body = "x".repeat(20_000_000);
    let mut client = front.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let mut peer = upstream.accept();
    peer.read_to("CONTENT_LENGTH");
    send(
        &mut peer,
        &response("Status: 413 Too large\r\nContent-Length: 2\r\n\r\nno"),
    );
    assert!(client.message().ends_with("no"));
    // It cannot serve another request: much of this one is on its way.
    peer.rest();
}
