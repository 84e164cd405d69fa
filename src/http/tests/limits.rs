//! What one worker holds for all its clients together has a limit.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Running, start};
use preforkd_http::{Body, Exchange, Handler, Limits, Origin, Request};
use rustix::event::{PollFd, PollFlags, poll};

/// Tells how long the body was.
#[derive(Clone)]
struct Count;

impl Handler for Count {
    fn call(
        &mut self,
        _: Request<'_>,
        _: &Origin,
        mut body: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let length = std::io::copy(&mut body, &mut std::io::sink()).unwrap();
        let answer = length.to_string();
        exchange.begin(b"200 OK").unwrap();
        exchange.finish(Some(answer.len() as u64));
        exchange.write(answer.as_bytes());
        exchange.end();
        exchange
    }
}

const KIB: usize = 1024;

fn post(running: &Running, announced: usize, sent: usize) -> TcpStream {
    let mut client = running.connect();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {announced}\r\n\r\n"
    );
    // One that is refused while it sends may have gone away.
    let _ = client.write_all(&[head.as_bytes(), &vec![b'x'; sent]].concat());
    client
}

/// The answer, up to the end of the connection.
fn answer(client: &mut TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn bodies_together_have_a_limit_and_one_that_finds_no_room_is_told_to_come_back() {
    for (threads, body_in_memory) in [(0, 64 * KIB), (2, 64 * KIB), (0, KIB * KIB)] {
        let limits = Limits {
            body_in_memory,
            max_buffered: (KIB * KIB) as u64,
            ..Limits::default()
        };
        let running = start(threads, limits, Count);
        let mut clients = [0, 1].map(|_| post(&running, 700 * KIB, 600 * KIB));
        let mut fds = [0, 1].map(|n| PollFd::new(&clients[n], PollFlags::IN));
        assert_eq!(poll(&mut fds, None).unwrap(), 1, "one of them is refused");
        let refused = usize::from(fds[0].revents().is_empty());
        let refusal = answer(&mut clients[refused]);
        assert!(
            refusal.starts_with("HTTP/1.1 503 Service Unavailable\r\n")
                && refusal.contains("\r\nRetry-After: 1\r\n"),
            "{refusal}"
        );
        let other = &mut clients[1 - refused];
        other.write_all(&vec![b'x'; 100 * KIB]).unwrap();
        assert!(answer(other).ends_with(&format!("\r\n\r\n{}", 700 * KIB)));

        // Both have given their shares back.
        let mut whole = post(&running, KIB * KIB, KIB * KIB);
        assert!(answer(&mut whole).ends_with(&format!("\r\n\r\n{}", KIB * KIB)));
        let mut never = post(&running, KIB * KIB + 1, 0);
        assert!(answer(&mut never).starts_with("HTTP/1.1 413 "));
        running.stop();
    }
}

#[test]
fn bodies_that_hardly_come_do_not_keep_the_room_of_others() {
    let limits = Limits {
        max_buffered: (KIB * KIB) as u64,
        ..Limits::default()
    };
    let running = start(0, limits, Count);
    let mut slow = post(&running, 800 * KIB, 700 * KIB);
    let mut refused = 0;
    loop {
        let answer = answer(&mut post(&running, 500 * KIB, 500 * KIB));
        if answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        refused += 1;
        // Enough to live on, but for the others.
        if refused % 1000 == 0 {
            let _ = slow.write_all(b"x");
        }
    }
    assert!(refused > 0);
    let answer = answer(&mut slow);
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("others need the room"),
        "{answer}"
    );
    running.stop();
}

#[test]
fn a_body_that_breaks_off_gives_its_share_back() {
    let limits = Limits {
        max_buffered: (KIB * KIB) as u64,
        ..Limits::default()
    };
    let running = start(0, limits, Count);
    for _ in 0..20 {
        let client = post(&running, 800 * KIB, 700 * KIB);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // The server closes when it has seen the end.
        assert_eq!(answer(&mut { client }), "");
    }
    // Chunks announce nothing, and end in the middle of one.
    for _ in 0..20 {
        let mut client = running.connect();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na0000\r\n";
        client
            .write_all(&[head.as_bytes(), &[b'x'; 600 * KIB]].concat())
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(answer(&mut client), "");
    }
    let mut whole = post(&running, KIB * KIB, KIB * KIB);
    assert!(answer(&mut whole).ends_with(&format!("\r\n\r\n{}", KIB * KIB)));
    running.stop();
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Asks on a connection that is kept.
fn ask(client: &mut TcpStream) {
    client.write_all(GET).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n0") {
        let mut buffer = [0; 512];
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "closed");
        answer.extend_from_slice(&buffer[..read]);
    }
}

#[test]
fn the_connection_that_is_idle_for_longest_makes_room_for_another() {
    for threads in [0, 2] {
        let limits = Limits {
            max_connections: 3,
            ..Limits::default()
        };
        let running = start(threads, limits, Count);
        let mut kept: Vec<_> = (0..3).map(|_| running.connect()).collect();
        kept.iter_mut().for_each(ask);
        // In a request, though nothing else comes of it.
        kept[1].write_all(b"GET / HT").unwrap();
        ask(&mut kept[0]);
        for closed in [2, 0] {
            let mut new = running.connect();
            ask(&mut new);
            assert_eq!(kept[closed].read(&mut [0]).unwrap(), 0);
            kept.push(new);
        }
        kept[1].write_all(&GET[8..]).unwrap();
        let mut answer = [0; 15];
        kept[1].read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        running.stop();
    }
}

#[test]
fn a_connection_that_never_spoke_makes_room_too_and_one_in_a_request_never() {
    let limits = Limits {
        max_connections: 2,
        ..Limits::default()
    };
    let running = start(0, limits, Count);
    let (mut silent, mut slow) = (running.connect(), running.connect());
    slow.write_all(&GET[..10]).unwrap();
    ask(&mut running.connect());
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);

    let mut other = running.connect();
    other.write_all(&GET[..10]).unwrap();
    let mut waiting = running.connect();
    waiting.write_all(GET).unwrap();
    for client in [&mut slow, &mut other] {
        client.write_all(&GET[10..]).unwrap();
        client.read_exact(&mut [0; 15]).unwrap();
    }
    waiting.read_exact(&mut [0; 15]).unwrap();
    running.stop();
}
