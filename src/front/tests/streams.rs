//! Bodies of requests that are passed on while they arrive.

mod common;

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::*;

fn one() -> (Front, Upstream) {
    let (upstream, address) = upstream();
    (front(vec![address], |_| {}), upstream)
}

fn ask(fields: &str) -> String {
    format!("POST /stream HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

#[test]
fn a_body_is_passed_on_while_it_arrives() {
    let (front, upstream) = one();
    let mut client = front.send(&ask("Content-Length: 6"));
    let mut peer = upstream.accept();
    assert!(peer.head().contains("\r\nContent-Length: 6\r\n"));
    for piece in ["abc", "def"] {
        client.write(piece);
        assert_eq!(peer.read_to(piece), piece);
    }
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
    // The connections on both sides go on.
    client.write(&ask("Transfer-Encoding: chunked"));
    client.write("3\r\nabc\r\n");
    let head = peer.head();
    assert!(
        head.contains("\r\nTransfer-Encoding: chunked\r\n") && !head.contains("Content-Length")
    );
    assert_eq!(peer.read_to("3\r\nabc\r\n"), "3\r\nabc\r\n");
    // Extensions are for the connection to us.
    client.write("2;a=b\r\nde\r\n");
    assert_eq!(peer.read_to("2\r\nde\r\n"), "2\r\nde\r\n");
    client.write(&format!("0;c\r\n\r\n{GET}"));
    assert_eq!(peer.read_to("0\r\n\r\n"), "0\r\n\r\n");
    for _ in 0..2 {
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
    }
    assert!(peer.message().starts_with("GET / "));
    assert!(upstream.is_unused());
}

#[test]
fn a_client_that_waits_for_leave_gets_it_when_the_upstream_takes_the_body() {
    for path in ["/stream", "/"] {
        let (upstream, address) = upstream();
        let front = front(vec![address], |settings| settings.limits.most_running = 1);
        let mut first = front.get();
        let (mut peer, _) = upstream.request();
        let request = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        let mut client = front.send(&format!("POST {path} HTTP/1.1\r\n{request}"));
        if path == "/" {
            // The body is taken in before an upstream is.
            assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        }
        peer.write(OK);
        assert_eq!(first.message(), OK_SEEN);
        if path == "/stream" {
            let head = peer.head();
            assert!(!head.contains("Expect"), "{head}");
            assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        }
        client.write("abc");
        assert!(peer.read_to("abc").ends_with("abc"));
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
    }
}

#[test]
fn an_answer_before_the_whole_body_is_passed_on() {
    for closes in [false, true] {
        let (front, upstream) = one();
        let mut client = front.send(&ask("Content-Length: 50000000"));
        client.write("abc");
        let mut peer = upstream.accept();
        peer.head();
        peer.read_to("abc");
        peer.write("HTTP/1.1 413 Too Much\r\nDate: x\r\nContent-Length: 3\r\n\r\nno\n");
        if closes {
            drop(peer);
        }
        // It reads only when it has sent everything, as many do.
        client.stream.write_all(&vec![b'x'; 49_999_997]).unwrap();
        let answer = client.message();
        assert!(answer.starts_with("HTTP/1.1 413 Too Much\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("no\n"));
        client.ends();
    }
}

#[test]
fn both_directions_flow_at_the_same_time() {
    let (front, upstream) = one();
    let mut client = front.send(&ask("Transfer-Encoding: chunked"));
    let mut peer = upstream.accept();
    peer.head();
    peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.head().contains("Connection: close"));
    for piece in ["1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"] {
        client.write(piece);
        assert_eq!(peer.read_to(piece), piece);
        peer.write(piece);
        assert_eq!(client.read_to(piece), piece);
    }
    client.ends();
}

#[test]
fn an_upstream_that_reads_slowly_slows_its_client_down() {
    let (front, upstream) = one();
    let length = 64_000_000usize;
    let mut client = front.send(&ask(&format!("Content-Length: {length}")));
    let mut peer = upstream.accept();
    peer.head();
    let body = "0123456789".repeat(length / 10);
    // The only sign that it stands still.
    let patience = Some(Duration::from_millis(300));
    client.stream.set_write_timeout(patience).unwrap();
    let mut written = 0;
    loop {
        match client.stream.write(&body.as_bytes()[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written < length / 2, "{written} bytes are held");
    client.stream.set_write_timeout(Some(GUARD)).unwrap();
    let rest = body.as_bytes()[written..].to_vec();
    let writer = std::thread::spawn(move || {
        client.stream.write_all(&rest).unwrap();
        client
    });
    let mut got = String::new();
    while got.len() < length {
        got += &peer.read_to("9");
    }
    assert!(got == body);
    peer.write(OK);
    assert_eq!(writer.join().unwrap().message(), OK_SEEN);
}

#[test]
fn a_body_that_breaks_off_never_passes_for_whole() {
    // What the client sends, and the status that it gets.
    for (text, answer) in [
        ("3\r\nabc\r\n", None),
        ("3\r\nabc\r\nno chunk", Some("400")),
        ("3\r\nabc\r\nfffffffff\r\n", Some("413")),
    ] {
        let (front, upstream) = one();
        let mut client = front.send(&ask("Transfer-Encoding: chunked"));
        client.write(text);
        let mut peer = upstream.accept();
        peer.head();
        match answer {
            Some(status) => {
                let message = client.message();
                assert!(
                    message.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{message}"
                );
            }
            None => client.stream.shutdown(Shutdown::Write).unwrap(),
        }
        assert!(!peer.rest().contains("0\r\n\r\n"));
        client.rest();
        assert!(upstream.is_unused());
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let (upstream, address) = upstream();
    let mut options = Options::default();
    options.limits.body_timeout = Duration::from_millis(100);
    let front = front_with(vec![address], options, |_| {});
    let mut client = front.send(&ask("Content-Length: 6"));
    client.write("abc");
    let mut peer = upstream.accept();
    peer.head();
    assert_eq!(peer.read_to("abc"), "abc");
    assert!(client.message().starts_with("HTTP/1.1 408 "));
    peer.ends();
}

#[test]
fn a_body_that_was_begun_is_never_sent_again() {
    for begun in [false, true] {
        let (one, first) = upstream();
        let (other, second) = upstream();
        let front = front(vec![first, second], |_| {});
        let mut client = front.send(&ask("Content-Length: 6").replace("POST", "PUT"));
        let mut peer = one.accept();
        peer.head();
        if begun {
            client.write("abc");
            peer.read_to("abc");
        }
        drop(peer);
        if begun {
            assert!(client.message().starts_with("HTTP/1.1 502 "));
            assert!(other.is_unused());
        } else {
            let mut peer = other.accept();
            peer.head();
            client.write("abcdef");
            assert_eq!(peer.read_to("abcdef"), "abcdef");
            peer.write(OK);
            assert_eq!(client.message(), OK_SEEN);
        }
    }
}

#[test]
fn fields_after_the_body_reach_clients_that_take_them() {
    let (front, upstream) = one();
    let mut client = front.connect();
    let mut peer = None;
    for takes in [true, false] {
        let te = match takes {
            true => "TE: deflate, trailers\r\nConnection: TE\r\n",
            false => "",
        };
        client.write(&format!("GET / HTTP/1.1\r\nHost: a\r\n{te}\r\n"));
        let peer = peer.get_or_insert_with(|| upstream.accept());
        let request = peer.message();
        assert_eq!(request.contains("\r\nTE: trailers\r\n"), takes, "{request}");
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        peer.write("0\r\nX-Sum: 1\r\nContent-Length: 9\r\ntransfer-encoding: x\r\n\r\n");
        client.head();
        let fields = match takes {
            true => "X-Sum: 1\r\n",
            false => "",
        };
        let end = format!("1\r\na\r\n0\r\n{fields}\r\n");
        assert_eq!(client.read_to(&end), end);
    }
    // Nothing is left for the next response.
    client.write(GET);
    let peer = peer.as_mut().unwrap();
    peer.message();
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn fields_after_a_body_that_is_streamed_reach_the_upstream() {
    let (front, upstream) = one();
    let mut client = front.send(
        "POST /stream HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    );
    let mut peer = upstream.accept();
    let head = peer.head();
    assert!(!head.contains("Trailer"), "{head}");
    assert_eq!(peer.read_to("a\r\n"), "1\r\na\r\n");
    // What may only stand in the head, or says what we know better, is dropped.
    client.write(
        "0\r\nX-Sum: 1\r\nContent-Length: 9\r\ntransfer-encoding: x\r\nAuthorization: x\r\nCookie: a=b\r\nif-match: x\r\n\
         Host: b\r\nX-Forwarded-For: 192.0.2.1\r\nx_sum: 2\r\nx-last:\r\n\r\n",
    );
    let end = "0\r\nX-Sum: 1\r\nx-last: \r\n\r\n";
    assert_eq!(peer.read_to("\r\n\r\n"), end);
    peer.write(OK);
    assert_eq!(client.message(), OK_SEEN);

    // A body that is read first has a length, which leaves no place for them; nothing of them comes with the next request.
    for path in ["/", "/stream"] {
        client.write(&format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        ));
        let fields = if path == "/" { "X-Sum: 1\r\n" } else { "" };
        client.write(&format!("{fields}\r\n"));
        let request = match path {
            "/" => peer.message(),
            _ => peer.head() + &peer.read_to("\r\n\r\n"),
        };
        assert!(!request.contains("X-Sum"), "{request}");
        peer.write(OK);
        assert_eq!(client.message(), OK_SEEN);
    }
}
