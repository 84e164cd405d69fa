//! WebSocket over HTTP/2 (RFC 8441), which is an upgrade of HTTP/1.1 to the upstream.

mod common;
mod http2;

use std::net::Shutdown;

use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use common::{Front, Peer, Upstream, front, upstream};
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::{Reason, SendStream};
use http::Request;
use http2::Client;

/// A request for it.
fn ask(client: &mut Client, protocol: &'static str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::connect("http://a.example/chat?x")
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .body(());
    client.send(request.unwrap(), false)
}

/// The proof for the key of a request.
fn proof(request: &str) -> String {
    let (_, key) = request.split_once("\r\nsec-websocket-key: ").unwrap();
    let (key, _) = key.split_once("\r\n").unwrap();
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        text.as_bytes(),
    );
    Base64::encode_string(digest.as_ref())
}

fn switch(proof: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {proof}\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

fn one() -> (Front, Upstream, Client) {
    let (upstream, address) = upstream();
    let front = front(vec![address], |_| {});
    let client = Client::new(front.address());
    // Its settings are there when a request was answered.
    let mut client = client;
    let (response, _) = client.send(http2::get("/"), true);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    drop(peer);
    assert_eq!(client.whole(response).status, 204);
    assert!(client.requests.is_extended_connect_protocol_enabled());
    (front, upstream, client)
}

/// A stream that goes on with it.
fn opened(upstream: &Upstream, client: &mut Client) -> (Peer, SendStream<Bytes>, h2::RecvStream) {
    let (response, body) = ask(client, "websocket");
    let (mut peer, request) = upstream.request();
    peer.write(&switch(&proof(&request)));
    let response = client.head(response);
    assert_eq!(response.status(), 200);
    let fields = response.headers();
    assert_eq!(fields["sec-websocket-protocol"], "chat");
    for name in [
        "connection",
        "upgrade",
        "sec-websocket-accept",
        "content-length",
    ] {
        assert!(!fields.contains_key(name), "{name}");
    }
    (peer, body, response.into_body())
}

#[test]
fn bytes_pass_in_both_directions_and_ends_do() {
    let (_front, upstream, mut client) = one();
    let (response, mut body) = ask(&mut client, "websocket");
    // Nothing is passed on before the upgrade was answered.
    client.data(&mut body, "early".into(), false);
    let (mut peer, request) = upstream.request();
    assert!(
        request.starts_with("GET /chat?x HTTP/1.1\r\nHost: a.example\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(request.contains("\r\nsec-websocket-version: 13\r\n"));
    assert!(peer.unread().is_empty());
    peer.write(&format!("{}hello", switch(&proof(&request))));
    let response = client.head(response);
    assert_eq!(response.status(), 200);
    let mut seen = response.into_body();
    assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "hello");
    assert_eq!(peer.read_to("early"), "early");
    for text in ["1", "22", "333"] {
        client.data(&mut body, text.into(), false);
        assert_eq!(peer.read_to(text), text);
        peer.write(text);
        assert_eq!(client.piece(&mut seen).unwrap().unwrap(), text);
    }
    // One direction ends, and the other goes on.
    client.data(&mut body, Bytes::new(), true);
    peer.ends();
    peer.write("last");
    assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "last");
    drop(peer);
    assert_eq!(client.piece(&mut seen).unwrap(), None);
}

#[test]
fn an_upstream_may_end_first_and_a_client_that_leaves_ends_it() {
    let (_front, upstream, mut client) = one();
    let (mut peer, mut body, mut seen) = opened(&upstream, &mut client);
    peer.write("x");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.piece(&mut seen).unwrap().unwrap(), "x");
    assert_eq!(client.piece(&mut seen).unwrap(), None);
    client.data(&mut body, "more".into(), true);
    assert_eq!(peer.read_to("more"), "more");
    peer.ends();
    let (mut peer, mut body, _seen) = opened(&upstream, &mut client);
    body.send_reset(Reason::CANCEL);
    peer.ends();
}

#[test]
fn what_is_no_upgrade_is_none_to_the_client_either() {
    let (_front, upstream, mut client) = one();
    for (answer, status) in [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n".to_owned(),
            403,
        ),
        // A success would open the stream.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            502,
        ),
        (switch("of another key"), 502),
    ] {
        let (response, _body) = ask(&mut client, "websocket");
        let (mut peer, _) = upstream.request();
        peer.write(&answer);
        assert_eq!(client.whole(response).status, status, "{answer}");
        drop(peer);
    }
    // Another protocol is CONNECT to a host, as over HTTP/1.1.
    let (response, _body) = ask(&mut client, "connect-udp");
    assert_eq!(client.whole(response).status, 501);
    assert!(upstream.is_unused());
}
