//! The rows of the direct mode, through a front: a request that the direct mode refuses reaches no application, and what reaches one is what the
//! direct mode would have given it, whole and not a byte more.

mod common;
#[path = "../../http/tests/rows/mod.rs"]
mod rows;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{Front, GUARD, Options, front_with};
use preforkd_front::upstream::address::Address;
use preforkd_http::{Connection, Event, Limits};

/// The target that tells the rows apart.
const MARK: &str = "GET /mark  ;";

/// Reads one request as strictly as a worker does, and answers it. A request that does not come to its end is none.
fn answer(mut peer: TcpStream) -> Option<String> {
    let mut connection = Connection::new(Arc::new(Limits::default()));
    let mut bytes = [0; 4096];
    loop {
        match connection.advance() {
            Event::Wait => match peer.read(&mut bytes) {
                Ok(n @ 1..) => connection.receive(&bytes[..n]),
                _ => return None,
            },
            Event::Continue | Event::Head => {}
            Event::Reject(reject) => return Some(format!("refused with {};", reject.status)),
            Event::Request => break,
        }
    }
    let mut body = String::new();
    let taken = connection.take_body().unwrap().read_to_string(&mut body);
    taken.unwrap();
    let request = connection.request();
    let [method, path, query] = [request.method(), request.path(), request.query()]
        .map(|bytes| bytes.escape_ascii().to_string());
    let host = request.field(b"host").is_some();
    let seen = format!("{method} {path} {query} {body};");
    connection.next();
    if connection.has_input() || !host {
        return Some(format!("{seen} and more, or without a host"));
    }
    let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    Some(seen)
}

/// An application that takes one connection after the other, in the order in which the front has made them, and tells what it was asked.
fn application() -> (Address, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            if let Some(seen) = answer(peer)
                && sender.send(seen).is_err()
            {
                return;
            }
        }
    });
    (address, receiver)
}

/// What has reached the application since the last mark.
fn asked(front: &Front, receiver: &Receiver<String>) -> String {
    let mark = front
        .send("GET /mark HTTP/1.1\r\nHost: a\r\n\r\n")
        .message();
    assert!(mark.starts_with("HTTP/1.1 200 "), "{mark}");
    let mut all = String::new();
    loop {
        match receiver.recv_timeout(GUARD).unwrap() {
            seen if seen == MARK => return all,
            seen => all.push_str(&seen),
        }
    }
}

#[test]
fn what_the_direct_mode_refuses_reaches_no_application() {
    for streams in [false, true] {
        let (address, receiver) = application();
        let options = Options {
            limits: Limits {
                drain_timeout: Duration::from_secs(5),
                ..rows::limits_of_rows()
            },
            streams,
            http2: false,
            ..Options::default()
        };
        // Each request has a connection of its own, so that they come in their order.
        let front = front_with(vec![address], options, |settings| {
            settings.keep = Duration::ZERO;
        });
        let mut checked = 0;
        rows::all(&mut |why, input, expected| {
            let shown = input.escape_ascii();
            let (requests, end) = match expected.rsplit_once(';') {
                Some((requests, end)) => (format!("{requests};"), end),
                None => (String::new(), expected),
            };
            let mut client = front.connect();
            // It may have been refused before all of it was sent.
            let _ = client.stream.write_all(input);
            for _ in requests.matches(';') {
                let answer = client.message();
                assert!(
                    answer.starts_with("HTTP/1.1 200 "),
                    "{why}: {shown}: {answer}"
                );
            }
            if end != "wait" {
                let answer = client.rest();
                let status = format!("HTTP/1.1 {end} ");
                assert!(answer.starts_with(&status), "{why}: {shown}: {answer}");
                let heads = answer.lines().filter(|line| line.starts_with("HTTP/1.1 "));
                assert_eq!(heads.count(), 1, "{why}: {shown}: {answer}");
            }
            drop(client);
            assert_eq!(asked(&front, &receiver), requests, "{why}: {shown}");
            checked += 1;
        });
        assert!(checked > 200, "{checked}");
    }
}
