//! Requests and responses over real sockets: what others' proxies got wrong.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use preforkd_front::upstream::address::Address;
use preforkd_http::layer::{Ended, Layer, Stages};

/// A front with one upstream.
fn one() -> (Front, Upstream) {
    let (upstream, address) = upstream();
    (front(vec![address], |_| {}), upstream)
}

/// An address where nobody listens.
fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Address::Tcp(listener.local_addr().unwrap())
}

fn status(message: &str) -> &str {
    message.split(' ').nth(1).unwrap_or(message)
}

#[test]
fn requests_of_all_clients_use_kept_connections() {
    let (front, upstream) = one();
    let mut client = front.get();
    let (mut peer, request) = upstream.request();
    assert_eq!(
        request,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
         X-Forwarded-Port: 80\r\n\r\n"
    );
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
    for text in [GET, POST] {
        let mut other = front.send(text);
        assert!(peer.message().starts_with(&text[..4]));
        peer.write(OK);
        assert_eq!(other.message(), OK_SEEN);
    }
    client.write(GET);
    peer.message();
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
    assert!(upstream.is_unused());
}

#[test]
fn a_kept_connection_that_has_ended_or_speaks_is_not_used() {
    let (front, upstream) = one();
    for (first, last) in [
        ("", true),
        ("HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let mut client = front.get();
        let (mut peer, _) = upstream.request();
        peer.write(OK);
        client.message();
        peer.write(first);
        if last {
            drop(peer);
        } else {
            // It is closed because of what it has said.
            peer.ends();
        }
        let mut client = front.send(POST);
        let (mut peer, request) = upstream.request();
        assert!(request.ends_with("\r\n\r\nabc"));
        peer.write(&OK.replace("Date: x", "Date: x\r\nConnection: close"));
        assert_eq!(
            client.message(),
            OK_SEEN,
            "what is said of the connection stays there"
        );
    }
}

#[test]
fn a_kept_connection_that_ends_under_a_request_has_it_sent_again_only_if_it_may_be() {
    for text in [GET, POST] {
        let (front, upstream) = one();
        let mut client = front.get();
        let (mut peer, _) = upstream.request();
        peer.write(OK);
        client.message();
        client.write(text);
        peer.message();
        // It has the request, and closes.
        drop(peer);
        if text == GET {
            let (mut peer, _) = upstream.request();
            peer.write(OK);
            assert_eq!(client.message(), OK_SEEN);
        } else {
            assert_eq!(status(&client.message()), "502");
        }
        assert!(upstream.is_unused(), "never twice");
    }
}

#[test]
fn an_upstream_that_dies_before_it_answers_is_replaced_only_if_the_request_may_be_repeated() {
    for (text, answered) in [
        (GET, true),
        (POST, false),
        (&POST.replace("POST", "PUT"), true),
    ] {
        let (one, first) = upstream();
        let (other, second) = upstream();
        let front = front(vec![first, second], |_| {});
        let mut client = front.send(text);
        let (peer, _) = one.request();
        drop(peer);
        if answered {
            let (mut peer, request) = other.request();
            assert!(text == GET || request.ends_with("abc"));
            peer.write(OK);
            assert_eq!(client.message(), OK_SEEN);
        } else {
            assert_eq!(status(&client.message()), "502");
        }
        assert!(one.is_unused() && other.is_unused());
    }
}

#[test]
fn a_request_that_could_not_be_sent_goes_elsewhere_whatever_it_is() {
    let (upstream, address) = upstream();
    let front_ = front(vec![nobody(), address], |_| {});
    let mut client = front_.send(POST);
    let (mut peer, _) = upstream.request();
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
    let front_ = front(
        vec![nobody(), Address::Unix("/nonexistent/socket".into())],
        |_| {},
    );
    let answer = front_.send(POST).message();
    assert_eq!(status(&answer), "502");
    assert!(answer.ends_with("502 Bad Gateway: the application gave no valid response\n"));
}

#[test]
fn a_response_before_the_whole_request_is_passed_on() {
    let (front, upstream) = one();
    let length = 20_000_000;
    let mut client = front.connect();
    client.write(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.stream.write_all(&vec![b'x'; length]).unwrap();
    let mut peer = upstream.accept();
    peer.head();
    let refusal = "HTTP/1.1 413 Too Much\r\nDate: x\r\nContent-Length: 3\r\n\r\nno\n";
    peer.write(refusal);
    // Much of the request was not read, so this resets the connection.
    drop(peer);
    let answer = client.message();
    assert!(answer.starts_with("HTTP/1.1 413 Too Much\r\n") && answer.ends_with("no\n"));
    // The client's connection is still good.
    client.write(GET);
    let (mut peer, _) = upstream.request();
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn what_is_ambiguous_is_never_passed_on() {
    for fields in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 3",
        "Transfer-Encoding: gzip, chunked",
        "X: a\r\n folded",
        "X: a\rY: b",
    ] {
        let (front, upstream) = one();
        let mut client = front.get();
        let (mut peer, _) = upstream.request();
        peer.write(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"));
        let answer = client.message();
        assert_eq!(status(&answer), "502", "{fields}");
        assert!(
            !answer.contains("folded") && !answer.contains("X:"),
            "{answer}"
        );
        peer.ends();
        assert!(
            upstream.is_unused(),
            "it has answered, so nothing is sent again"
        );
    }
}

#[test]
fn interim_responses_are_not_the_response() {
    let (front, upstream) = one();
    let mut client = front.get();
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    peer.write(OK);
    let hint = client.head();
    assert_eq!(hint, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    assert_eq!(client.message(), OK_SEEN);
    // HTTP/1.0 knows none.
    let mut old = front.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    peer.message();
    peer.write("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    peer.write(OK);
    assert_eq!(status(&old.message()), "200");
    client.write(GET);
    peer.message();
    peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(status(&client.message()), "502");
}

#[test]
fn responses_end_where_they_end_and_the_connection_serves_on() {
    let (front, upstream) = one();
    let mut client = front.connect();
    let mut peer = None;
    // Each request, what the upstream responds, and what the client gets after the head.
    for (method, text, body) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", ""),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
            "",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x"),
    ] {
        client.write(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let peer = peer.get_or_insert_with(|| upstream.accept());
        assert!(peer.message().starts_with(method));
        peer.write(text);
        let head = client.head();
        assert!(head.starts_with(&text[..15]), "{head}");
        if text.contains("99") {
            assert!(head.contains("Content-Length: 99\r\n"), "{head}");
        }
        if !body.is_empty() {
            assert_eq!(client.read_to(body), body);
        }
    }
    assert!(upstream.is_unused());
}

#[test]
fn what_follows_a_response_is_no_response() {
    let (front, upstream) = one();
    let mut client = front.get();
    let (mut peer, _) = upstream.request();
    peer.write(&format!(
        "{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    ));
    assert_eq!(client.message(), OK_SEEN);
    peer.ends();
    client.write(GET);
    let (mut peer, _) = upstream.request();
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn a_response_without_a_length_ends_with_its_connection() {
    let (front, upstream) = one();
    let mut client = front.get();
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.0 200 OK\r\n\r\nabc");
    drop(peer);
    assert!(client.head().contains("Transfer-Encoding: chunked"));
    assert_eq!(client.read_to("0\r\n\r\n"), "3\r\nabc\r\n0\r\n\r\n");
}

#[test]
fn a_response_that_breaks_off_does_so_for_the_client() {
    for (text, seen) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "abc"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "3\r\nabc\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk",
            "3\r\nabc\r\n",
        ),
    ] {
        let (front, upstream) = one();
        let mut client = front.get();
        let (mut peer, _) = upstream.request();
        peer.write(text);
        drop(peer);
        client.head();
        assert_eq!(client.rest(), seen);
        assert!(upstream.is_unused());
    }
}

#[test]
fn clients_of_http10_get_bodies_up_to_the_end_of_the_connection_and_a_reset_where_they_break_off() {
    for (end, whole) in [("0\r\n\r\n", true), ("", false)] {
        let (front, upstream) = one();
        let mut client = front.send("GET /old HTTP/1.0\r\n\r\n");
        let (mut peer, request) = upstream.request();
        assert!(
            request.starts_with("GET /old HTTP/1.1\r\nHost: default\r\n"),
            "{request}"
        );
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        let head = client.head();
        assert!(
            !head.contains("chunked") && head.contains("Connection: close"),
            "{head}"
        );
        assert_eq!(client.read_to("abc"), "abc");
        peer.write(end);
        drop(peer);
        assert_eq!(client.is_reset(), !whole);
    }
}

#[test]
fn requests_that_come_together_are_answered_one_after_the_other() {
    let (front, upstream) = one();
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut client = front.send(&[ask("/1"), ask("/2"), ask("/3")].concat());
    let mut peer = upstream.accept();
    for path in ["/1", "/2", "/3"] {
        assert!(peer.message().starts_with(&format!("GET {path} ")));
        peer.write(&OK.replace("\r\n\r\nok", &format!("\r\n\r\n{path}")));
        assert!(client.message().ends_with(path));
    }
    assert!(upstream.is_unused());
}

#[test]
fn a_stream_comes_piece_by_piece() {
    let (front, upstream) = one();
    let mut client = front.get();
    let (mut peer, _) = upstream.request();
    peer.write(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert!(
        client
            .head()
            .contains("Content-Type: text/event-stream\r\n")
    );
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        peer.write(&chunk);
        assert_eq!(client.read_to("\n\n\r\n"), chunk);
    }
    drop(client);
    peer.ends();
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| settings.limits.most_running = 1);
    let client = front.get();
    let (mut peer, _) = upstream.request();
    // It waits for the first one.
    let mut second = front.get();
    drop(client);
    peer.ends();
    let (mut peer, _) = upstream.request();
    peer.write(OK);
    assert_eq!(second.message(), OK_SEEN);
}

/// A front, a client that reads nothing, and its upstream that has written until nothing more was taken; with the body, and how
/// much of it was.
fn stalled(held: usize, in_file: u64) -> (Front, Peer, Peer, Vec<u8>, usize) {
    let (upstream, address) = upstream();
    let mut options = Options {
        held,
        ..Options::default()
    };
    options.limits.response_in_file = in_file;
    let front = front_with(vec![address], options, |_| {});
    let client = front.get();
    let (mut peer, _) = upstream.request();
    let length = 64_000_000usize;
    peer.write(&format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
    ));
    let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    // The only sign that it stands still.
    let patience = Some(Duration::from_millis(300));
    peer.stream.set_write_timeout(patience).unwrap();
    let mut written = 0;
    loop {
        match peer.stream.write(&body[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written < length / 2, "{written} bytes are held somewhere");
    peer.stream.set_write_timeout(Some(GUARD)).unwrap();
    (front, client, peer, body, written)
}

#[test]
fn a_client_that_reads_nothing_holds_its_upstream_and_loses_nothing() {
    for (held, in_file) in [(usize::MAX, 0), (0, 0), (usize::MAX, 1_000_000)] {
        let (_front, mut client, mut peer, body, written) = stalled(held, in_file);
        let length = body.len();
        let reader = std::thread::spawn(move || {
            client.head();
            let mut got = vec![0; length];
            let before = client.unread();
            got[..before.len()].copy_from_slice(&before);
            client.stream.read_exact(&mut got[before.len()..]).unwrap();
            got
        });
        peer.stream.write_all(&body[written..]).unwrap();
        assert!(reader.join().unwrap() == body);
    }
}

#[test]
fn a_client_that_reads_slowly_does_not_hold_its_upstream() {
    let (upstream, address) = upstream();
    let mut options = Options::default();
    options.limits.response_in_memory = 100_000;
    let front = front_with(vec![address], options, |settings| {
        settings.limits.most_running = 1;
    });
    // One that ends with its length, one with its last chunk, and one that breaks off.
    let body = "0123456789".repeat(2_500_000);
    for (framing, start, end) in [
        ("Content-Length: 25000000", "", ""),
        ("Transfer-Encoding: chunked", "17d7840\r\n", "\r\n0\r\n\r\n"),
        ("Content-Length: 25000001", "", ""),
    ] {
        let mut slow = front.get();
        let (mut peer, _) = upstream.request();
        peer.write(&format!(
            "HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{start}{body}{end}"
        ));
        drop(peer);
        // Another one is served before the first has read anything.
        let mut quick = front.get();
        let (mut peer, _) = upstream.request();
        peer.write(&OK.replace("Date: x", "Connection: close"));
        assert!(quick.message().ends_with("ok"));
        drop(peer);
        slow.head();
        let mut rest = slow.unread();
        match end {
            "" => {
                rest.resize(25_000_000, 0);
                let before = rest
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(rest.len());
                slow.stream.read_exact(&mut rest[before..]).unwrap();
                assert!(rest == body.as_bytes());
            }
            _ => {
                let mut text = String::from_utf8(rest).unwrap();
                while !text.ends_with("\r\n0\r\n\r\n") {
                    text += &slow.more_text();
                }
                let pieces = text.split("\r\n").filter(|piece| piece.len() > 8);
                assert!(pieces.collect::<String>() == body);
            }
        }
        if framing.ends_with('1') {
            slow.ends();
        }
    }
}

#[test]
fn a_client_that_takes_nothing_for_too_long_ends_its_request() {
    let (upstream, address) = upstream();
    let mut options = Options::default();
    options.limits.write_timeout = Duration::from_millis(100);
    options.limits.response_in_file = 1_000_000;
    let front = front_with(vec![address], options, |_| {});
    let mut client = front.get();
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n");
    peer.stream.set_write_timeout(Some(GUARD)).unwrap();
    let error = peer.stream.write_all(&[b'x'; 64_000_000]).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::WouldBlock, "nothing has ended");
    assert!(client.rest().len() < 64_000_000, "it breaks off");
}

#[test]
fn bodies_arrive_whole_however_they_come() {
    let (front, upstream) = one();
    let mut client = front.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let (mut peer, request) = upstream.request();
    assert!(request.contains("Content-Length: 3\r\n") && request.ends_with("\r\n\r\nabc"));
    assert!(!request.contains("Transfer-Encoding"));
    peer.write(OK);
    client.message();
    // In memory, and in a file.
    for length in [100_000, 3_000_000] {
        let body = "0123456789".repeat(length / 10);
        client.write(&format!(
            "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let request = peer.message();
        assert!(request.ends_with(&format!("\r\n\r\n{body}")));
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
    }
    // Sent again from its beginning.
    let body = "0123456789".repeat(10_000);
    client.write(&format!(
        "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}"
    ));
    peer.read_to("0123456789012");
    drop(peer);
    let (mut peer, request) = upstream.request();
    assert!(request.ends_with(&format!("\r\n\r\n{body}")));
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn what_cannot_run_waits_in_its_order_and_not_for_ever() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| {
        settings.limits.most_running = 1;
        settings.limits.queue_length = 2;
    });
    let ask = |path: &str| front.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut first = ask("/1");
    let (mut peer, _) = upstream.request();
    let mut others = [ask("/2"), ask("/3"), ask("/4")];
    // One of them is too many; which one is the server's business, as they have come at the same time.
    let refused = loop {
        let refused = others.iter_mut().position(|client| client.has_answer());
        if let Some(refused) = refused {
            break refused;
        }
    };
    let answer = others[refused].message();
    assert_eq!(status(&answer), "503");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    peer.write(OK);
    assert_eq!(first.message(), OK_SEEN);
    for _ in 0..2 {
        peer.message();
        peer.write(OK);
    }
    for (number, client) in others.iter_mut().enumerate() {
        if number != refused {
            assert_eq!(client.message(), OK_SEEN);
        }
    }
    assert!(upstream.is_unused());
}

/// Tells of each exchange: its status, how long it has taken and waited.
struct Times(Mutex<Sender<(u16, u64, u64)>>);

impl Layer for Times {
    fn stages(&self) -> Stages {
        Stages {
            ended: true,
            ..Stages::default()
        }
    }

    fn ended(&self, ended: &Ended<'_>) {
        let times = (ended.status, ended.microseconds, ended.waited);
        self.0.lock().unwrap().send(times).unwrap();
    }
}

#[test]
fn the_log_says_how_long_a_request_has_waited() {
    let (upstream, address) = upstream();
    let (sender, times) = channel();
    let layer: Arc<dyn Layer> = Arc::new(Times(Mutex::new(sender)));
    let options = Options {
        layers: vec![layer],
        ..Options::default()
    };
    let front = front_with(vec![address], options, |settings| {
        settings.limits.most_running = 1;
        settings.limits.queue_length = 1;
    });
    let _first = front.get();
    let (mut peer, _) = upstream.request();
    let _others = [front.get(), front.get()];
    // When one of them is refused, the other waits.
    assert_eq!(times.recv().unwrap().0, 503);
    let since = Instant::now();
    assert_eq!(status(&front.get().message()), "503");
    assert_eq!(times.recv().unwrap().0, 503);
    let least = since.elapsed().as_micros() as u64;
    peer.write(OK);
    assert_eq!(times.recv().unwrap().0, 200);
    peer.message();
    peer.write(OK);
    let (status, taken, waited) = times.recv().unwrap();
    assert_eq!(status, 200);
    assert!(
        least <= waited && waited <= taken,
        "{least} <= {waited} <= {taken}"
    );
}

#[test]
fn who_waits_too_long_is_told() {
    let (upstream, address) = upstream();
    let (first, second) = (Duration::from_millis(50), Duration::from_millis(100));
    let front = front(vec![address], |settings| {
        settings.limits.most_running = 1;
        settings.limits.queue_timeout = first;
        settings.head_timeout = 4 * second;
    });
    let mut slow = front.get();
    let (mut peer, _) = upstream.request();
    assert_eq!(
        status(&front.get().message()),
        "503",
        "it waits for the other"
    );
    assert_eq!(status(&slow.message()), "504", "it waits for the upstream");
    peer.ends();
}

/// The listener of an app is closed while it restarts.
#[test]
fn who_has_waited_for_an_app_that_does_not_listen_may_come_again() {
    for (is_ours, expected) in [(true, "503"), (false, "502")] {
        let folder = tempfile::tempdir().unwrap();
        let nobody = Address::Unix(folder.path().join("socket"));
        let front = front(vec![nobody], |settings| {
            settings.is_ours = is_ours;
            settings.limits.queue_timeout = Duration::from_millis(150);
        });
        let began = Instant::now();
        assert_eq!(status(&front.get().message()), expected);
        let waited = began.elapsed() >= Duration::from_millis(150);
        assert!(waited || !is_ours);
    }
}

#[test]
fn a_response_that_stops_in_the_middle_breaks_off() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| {
        settings.silence_timeout = Duration::from_millis(50);
    });
    let mut client = front.get();
    let (mut peer, _) = upstream.request();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    client.head();
    assert_eq!(client.rest(), "abc");
    peer.ends();
}

#[test]
fn unix_sockets_are_upstreams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let front = front(vec![Address::Unix(path)], |_| {});
    let mut client = front.get();
    let (mut peer, _) = listener.accept().unwrap();
    for _ in 0..2 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"GET / HTTP/1.1\r\n"));
        peer.write_all(OK.as_bytes()).unwrap();
        assert_eq!(client.message(), OK_SEEN);
        client.write(GET);
    }
}
