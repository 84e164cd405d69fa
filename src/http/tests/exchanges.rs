//! One request has its thread from its call to its end, whatever its client and the other clients do.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use common::{Running, start};
use preforkd_http::{Body, Exchange, Handler, Limits, Origin, Request, Sent};

/// What happened on a thread: the path of a request, and what it did.
type Note = (ThreadId, String, &'static str);

/// Under `/rows` sends ten pieces, with pauses; under `/large` as many bytes as the query says; under `/ends` until the client is gone;
/// under `/idle` one piece and then nothing until the client is gone; under `/gate` waits in between. Else answers at once.
#[derive(Clone)]
struct Streams {
    notes: Arc<Mutex<Vec<Note>>>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Streams {
    fn note(&self, path: &str, what: &'static str) {
        let note = (thread::current().id(), path.to_owned(), what);
        self.notes.lock().unwrap().push(note);
    }
}

/// Sends what was written, and waits where there is no room.
fn send(exchange: &mut Exchange) -> Sent {
    match exchange.send() {
        Sent::Full => exchange.wait(),
        sent => sent,
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

impl Handler for Streams {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let target = String::from_utf8_lossy(request.target()).into_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, "0"));
        self.note(&target, "begins");
        exchange.begin(b"200 OK").unwrap();
        exchange.finish(None);
        let sent = match path {
            "/rows" => (0..10).all(|_| {
                exchange.write(query.as_bytes());
                thread::sleep(Duration::from_millis(2));
                self.note(&target, "goes on");
                send(&mut exchange) == Sent::Taken
            }),
            "/large" => pattern(query.parse().unwrap())
                .chunks(Exchange::SLICE)
                .all(|slice| {
                    exchange.write(slice);
                    send(&mut exchange) == Sent::Taken
                }),
            "/ends" => loop {
                exchange.write(&[b'x'; 10_000]);
                if send(&mut exchange) == Sent::Gone {
                    break false;
                }
            },
            "/idle" => {
                exchange.write(b"one");
                while send(&mut exchange) != Sent::Gone && exchange.alive() != Sent::Gone {
                    thread::sleep(Duration::from_millis(1));
                }
                false
            }
            "/gate" => {
                exchange.write(b"before");
                let sent = send(&mut exchange);
                self.gate.lock().unwrap().recv().unwrap();
                exchange.write(b"after");
                sent == Sent::Taken
            }
            _ => {
                exchange.write(b"quick");
                true
            }
        };
        match sent {
            true => exchange.end(),
            false => exchange.cut(),
        }
        self.note(&target, "ends");
        exchange
    }
}

struct Site {
    running: Running,
    notes: Arc<Mutex<Vec<Note>>>,
    open: Sender<()>,
}

fn site(threads: usize, limits: Limits) -> Site {
    let (open, gate) = channel();
    let notes = Arc::default();
    let streams = Streams {
        notes: Arc::clone(&notes),
        gate: Arc::new(Mutex::new(gate)),
    };
    Site {
        running: start(threads, limits, streams),
        notes,
        open,
    }
}

impl Site {
    fn ask(&self, target: &str) -> TcpStream {
        let mut client = self.running.connect();
        get(&mut client, target);
        client
    }

    /// Each request's notes stand together on its thread.
    fn stop(self) {
        self.running.stop();
        let notes = self.notes.lock().unwrap();
        let mut current = Vec::<(ThreadId, String)>::new();
        for (thread, path, what) in notes.iter() {
            let here = (*thread, path.clone());
            match *what {
                "begins" => {
                    assert!(
                        current.iter().all(|(other, _)| other != thread),
                        "{path} begins in {current:?}"
                    );
                    current.push(here);
                }
                "goes on" => assert!(current.contains(&here), "{path} in {current:?}"),
                _ => {
                    let at = current.iter().position(|one| *one == here);
                    current.remove(at.expect("it began on this thread"));
                }
            }
        }
        assert!(current.is_empty());
    }
}

fn get(client: &mut TcpStream, target: &str) {
    write!(client, "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
}

/// Reads an answer in chunks to its end; its body.
fn body(client: &mut TcpStream) -> Vec<u8> {
    let mut input = Vec::new();
    let until = |client: &mut TcpStream, input: &mut Vec<u8>, mark: &[u8]| loop {
        if let Some(at) = input.windows(mark.len()).position(|part| part == mark) {
            return input.drain(..at + mark.len()).collect::<Vec<u8>>();
        }
        let mut buffer = [0; 65536];
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection ended");
        input.extend_from_slice(&buffer[..read]);
    };
    until(client, &mut input, b"\r\n\r\n");
    let mut body = Vec::new();
    loop {
        let size = until(client, &mut input, b"\r\n");
        let size = String::from_utf8(size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap() + 2;
        while input.len() < size {
            let mut buffer = [0; 65536];
            let read = client.read(&mut buffer).unwrap();
            assert!(read > 0, "the connection ended");
            input.extend_from_slice(&buffer[..read]);
        }
        body.extend(input.drain(..size).take(size - 2));
        if size == 2 {
            assert!(input.is_empty());
            return body;
        }
    }
}

fn read_until(client: &mut TcpStream, mark: &[u8]) {
    let mut seen = Vec::new();
    while !seen.windows(mark.len()).any(|part| part == mark) {
        let mut buffer = [0; 512];
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "the connection ended");
        seen.extend_from_slice(&buffer[..read]);
    }
}

/// Nothing fits into memory, and little into the file.
fn narrow() -> Limits {
    Limits {
        response_in_memory: 10_000,
        response_in_file: 1_000_000,
        ..Limits::default()
    }
}

#[test]
fn streams_that_pause_do_not_mix() {
    for threads in [0, 4] {
        let site = site(threads, Limits::default());
        let mut clients: Vec<_> = (0..8)
            .map(|n| site.ask(&format!("/rows?client-{n}.")))
            .collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let expected = format!("client-{n}.").repeat(10);
            assert_eq!(String::from_utf8(body(client)).unwrap(), expected);
        }
        site.stop();
    }
}

#[test]
fn a_slow_client_holds_no_thread() {
    for threads in [0, 2] {
        let site = site(threads, Limits::default());
        let mut slow: Vec<_> = (0..4).map(|_| site.ask("/large?20000000")).collect();
        for _ in 0..10 {
            assert_eq!(body(&mut site.ask("/quick")), b"quick");
        }
        // All are made, and nobody has read.
        let ended = |notes: &[Note]| {
            notes
                .iter()
                .filter(|(_, path, what)| path.starts_with("/large") && *what == "ends")
                .count()
        };
        while ended(&site.notes.lock().unwrap()) < 4 {
            assert_eq!(body(&mut site.ask("/quick")), b"quick");
        }
        for client in &mut slow {
            assert!(body(client) == pattern(20_000_000));
        }
        site.stop();
    }
}

#[test]
fn beyond_the_limits_the_thread_waits_and_the_loop_goes_on() {
    for threads in [0, 1] {
        let site = site(threads, narrow());
        let mut other = site.ask("/quick");
        assert_eq!(body(&mut other), b"quick");
        let mut slow = site.ask("/large?60000000");
        read_until(&mut slow, b"\r\n\r\n");
        // The request is read meanwhile, and refused by the loop itself.
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        read_until(&mut other, b" 400 ");
        let mut waiting = site.ask("/quick");
        let mut rest = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while !rest.ends_with(b"\r\n0\r\n\r\n") {
            let read = slow.read(&mut buffer).unwrap();
            assert!(read > 0);
            rest.extend_from_slice(&buffer[..read]);
        }
        assert!(rest.len() > 59_000_000);
        assert_eq!(body(&mut waiting), b"quick");
        site.stop();
    }
}

#[test]
fn a_client_that_leaves_frees_the_thread_after_the_end_of_its_request() {
    for threads in [0, 1] {
        for path in ["/ends", "/idle"] {
            let site = site(threads, narrow());
            let mut leaving = site.ask(path);
            read_until(&mut leaving, b"\r\n\r\n");
            let mut waiting = site.ask("/quick");
            drop(leaving);
            assert_eq!(body(&mut waiting), b"quick");
            site.stop();
        }
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for threads in [0, 1] {
        let limits = Limits {
            write_timeout: Duration::from_millis(300),
            ..narrow()
        };
        let site = site(threads, limits);
        let mut silent = site.ask("/large?60000000");
        read_until(&mut silent, b"\r\n\r\n");
        assert_eq!(body(&mut site.ask("/quick")), b"quick");
        site.stop();
    }
}

#[test]
fn a_server_that_stops_finishes_what_it_sends() {
    for threads in [0, 1] {
        let site = site(threads, Limits::default());
        let mut client = site.ask("/gate");
        read_until(&mut client, b"before");
        site.running.ask_to_stop();
        site.open.send(()).unwrap();
        read_until(&mut client, b"after\r\n0\r\n\r\n");
        site.stop();
    }
}
