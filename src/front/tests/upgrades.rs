//! Connections that speak another protocol after an upgrade, as WebSocket does.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::*;
use preforkd_http::layer::{Ended, Layer, Stages};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n";
const SWITCH_SEEN: &str = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn one() -> (Front, Upstream) {
    let (upstream, address) = upstream();
    (front(vec![address], |_| {}), upstream)
}

/// Both ends of a connection that was upgraded.
fn upgraded(front: &Front, upstream: &Upstream) -> (Peer, Peer) {
    let mut client = front.send(ASK);
    let (mut peer, _) = upstream.request();
    peer.write(SWITCH);
    assert_eq!(client.head(), SWITCH_SEEN);
    (client, peer)
}

#[test]
fn after_the_101_bytes_pass_in_both_directions_and_not_before() {
    let (front, upstream) = one();
    let mut client = front.send(&format!("{ASK}early"));
    let (mut peer, request) = upstream.request();
    assert!(request.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(request.contains("\r\nSec-WebSocket-Key: k\r\n"));
    assert!(peer.unread().is_empty());
    peer.write(&format!("{SWITCH}hello"));
    assert_eq!(client.head(), SWITCH_SEEN);
    assert_eq!(client.read_to("hello"), "hello");
    assert_eq!(peer.read_to("early"), "early");
    for round in ["1", "22", "333"] {
        client.write(round);
        assert_eq!(peer.read_to(round), round);
        peer.write(round);
        assert_eq!(client.read_to(round), round);
    }
    // It runs while others are served.
    let mut other = front.get();
    let (mut second, _) = upstream.request();
    second.write(OK);
    assert_eq!(other.message(), OK_SEEN);
    drop(client);
    peer.ends();
}

#[test]
fn another_answer_is_an_answer_and_what_follows_is_a_request() {
    let (front, upstream) = one();
    let mut client = front.send(&format!("{ASK}{GET}"));
    let mut peer = upstream.accept();
    for _ in 0..50 {
        assert!(peer.message().starts_with("GET /chat "));
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
        // It was never passed on as it is.
        assert!(
            peer.message()
                .starts_with("GET / HTTP/1.1\r\nHost: a\r\nX-")
        );
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
        client.write(ASK);
        client.write(GET);
    }
    assert!(upstream.is_unused());
}

#[test]
fn what_is_no_upgrade_is_not_passed_on_as_one() {
    let (front, upstream) = one();
    let mut peer: Option<Peer> = None;
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c",
        "Connection: Upgrade\r\nUpgrade: TLS/1.3",
        "Connection: keep-alive\r\nUpgrade: websocket",
        "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b",
    ] {
        let mut client = front.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        let peer = peer.get_or_insert_with(|| upstream.accept());
        let request = peer.message().to_lowercase();
        assert!(
            !request.contains("upgrade") && !request.contains("http2"),
            "{request}"
        );
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
    }
    let mut client =
        front.send("GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let peer = peer.as_mut().unwrap();
    assert!(!peer.message().contains("Upgrade"));
    peer.write(OK);
    client.message();
}

#[test]
fn a_switch_without_its_name_is_none() {
    let (front, upstream) = one();
    let mut client = front.send(ASK);
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert!(client.message().starts_with("HTTP/1.1 502 "));
    peer.ends();
}

#[test]
fn each_direction_ends_by_itself() {
    let (front, upstream) = one();
    let (mut client, mut peer) = upgraded(&front, &upstream);
    client.write("last");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.rest(), "last");
    peer.write("answer");
    assert_eq!(client.read_to("answer"), "answer");
    drop(peer);
    client.ends();
    let (mut client, mut peer) = upgraded(&front, &upstream);
    peer.write("last");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "last");
    client.write("answer");
    assert_eq!(peer.read_to("answer"), "answer");
    drop(client);
    peer.ends();
}

#[test]
fn who_does_not_read_holds_the_other_side_and_loses_nothing() {
    let (front, upstream) = one();
    let (client, peer) = upgraded(&front, &upstream);
    let body: Vec<u8> = (0..32_000_000usize).map(|i| (i % 251) as u8).collect();
    for (mut from, mut to) in [
        (
            client.stream.try_clone().unwrap(),
            peer.stream.try_clone().unwrap(),
        ),
        (peer.stream, client.stream),
    ] {
        // The only sign that it stands still.
        from.set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut written = 0;
        loop {
            match from.write(&body[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(written < body.len() / 2, "{written} bytes are held");
        from.set_write_timeout(Some(GUARD)).unwrap();
        let length = body.len();
        let reader = thread::spawn(move || {
            let mut got = vec![0; length];
            to.read_exact(&mut got).unwrap();
            got
        });
        from.write_all(&body[written..]).unwrap();
        assert!(reader.join().unwrap() == body);
    }
}

#[test]
fn an_upgraded_connection_that_is_silent_for_too_long_ends() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| {
        settings.silence_timeout = Duration::from_millis(1);
        settings.head_timeout = Duration::from_secs(20);
        settings.upgraded_timeout = Duration::from_millis(100);
    });
    let (mut client, mut peer) = upgraded(&front, &upstream);
    client.ends();
    peer.ends();
}

#[test]
fn an_upstream_that_dies_ends_it_for_the_client() {
    let (front, upstream) = one();
    let (mut client, peer) = upgraded(&front, &upstream);
    drop(peer);
    client.ends();
}

/// Tells of each exchange: its status and the bytes of its body.
struct Ends(Mutex<Sender<(u16, u64)>>);

impl Layer for Ends {
    fn stages(&self) -> Stages {
        Stages {
            ended: true,
            ..Stages::default()
        }
    }

    fn ended(&self, ended: &Ended<'_>) {
        let seen = (ended.status, ended.bytes);
        self.0.lock().unwrap().send(seen).unwrap();
    }
}

#[test]
fn it_survives_a_drain_for_as_long_as_that_may_take_and_is_logged_at_its_end() {
    let (upstream, address) = upstream();
    let (sender, ends) = channel();
    let mut options = Options {
        layers: vec![Arc::new(Ends(Mutex::new(sender)))],
        ..Options::default()
    };
    options.limits.drain_timeout = Duration::from_secs(2);
    let front = front_with(vec![address], options, |_| {});
    let (mut first, mut peer) = upgraded(&front, &upstream);
    let (mut second, mut other) = upgraded(&front, &upstream);
    front.stop();
    // The listener is closed when it drains.
    while std::net::TcpStream::connect(front.address()).is_ok() {
        thread::yield_now();
    }
    for (client, peer) in [(&mut first, &mut peer), (&mut second, &mut other)] {
        client.write("still");
        assert_eq!(peer.read_to("still"), "still");
        peer.write("there");
        assert_eq!(client.read_to("there"), "there");
    }
    drop(first);
    peer.ends();
    assert_eq!(ends.recv().unwrap(), (101, 5));
    other.ends();
    assert_eq!(ends.recv().unwrap(), (101, 5));
    second.ends();
}
