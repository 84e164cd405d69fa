//! The loop over real sockets, with a handler that is not Python.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Running, config, start};
use preforkd_http::{Body, Exchange, Handler, Limits, Observer, Origin, Request, Sent};
use preforkd_http::{pool, serve_inline, serve_pool};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};

/// Echoes the body; under /stream in pieces without a length.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        mut body: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let mut data = Vec::new();
        body.read_to_end(&mut data).unwrap();
        exchange.begin(b"200 OK").unwrap();
        if request.path() == b"/stream" {
            exchange.finish(None);
            for piece in data.chunks(10_000) {
                exchange.write(piece);
                if exchange.send() == Sent::Full {
                    exchange.wait();
                }
            }
        } else {
            exchange.finish(Some(data.len() as u64));
            exchange.write(&data);
        }
        exchange.end();
        exchange
    }
}

/// Sends a request whose answer ends the connection; the whole answer.
fn ask(running: &Running, path: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = running.connect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut writer = stream.try_clone().unwrap();
    let data = [head.as_bytes(), body].concat();
    let sender = thread::spawn(move || writer.write_all(&data).unwrap());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    sender.join().unwrap();
    answer
}

#[test]
fn requests_are_answered_and_the_server_stops() {
    for threads in [0, 1, 3] {
        let running = start(threads, Limits::default(), Echo);
        for size in [0, 1, 10, 100_000, 3_000_000] {
            let body: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
            let answer = ask(&running, "/", &body);
            assert!(
                answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(&body),
                "{threads} threads, {size} bytes"
            );
        }
        let streamed = ask(&running, "/stream", &[b'x'; 25_000]);
        assert!(streamed.ends_with(b"\r\n0\r\n\r\n"));
        assert_eq!(streamed.iter().filter(|&&b| b == b'x').count(), 25_000);
        running.stop();
    }
}

#[test]
fn many_connections_at_once() {
    for threads in [0, 2] {
        let running = start(threads, Limits::default(), Echo);
        let mut clients: Vec<TcpStream> = (0..200).map(|_| running.connect()).collect();
        for round in 0..3 {
            for (n, client) in clients.iter_mut().enumerate() {
                let body = format!("{round}-{n:05}");
                write!(
                    client,
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
            for (n, client) in clients.iter_mut().enumerate() {
                let mut answer = Vec::new();
                let mut buffer = [0; 512];
                while !answer.ends_with(format!("\r\n\r\n{round}-{n:05}").as_bytes()) {
                    let read = client.read(&mut buffer).unwrap();
                    assert!(read > 0);
                    answer.extend_from_slice(&buffer[..read]);
                }
            }
        }
        drop(clients);
        running.stop();
    }
}

#[test]
fn a_rejected_client_reads_its_answer_though_it_goes_on_sending() {
    let running = start(0, Limits::default(), Echo);
    let mut stream = running.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n")
        .unwrap();
    // Bytes that nobody reads would reset the connection if it were closed at once.
    stream.write_all(&[b'x'; 100_000]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413 "));
    running.stop();
}

/// Connects once more when the server says that it accepts no more.
struct Latecomer {
    succeeded: bool,
    listener: TcpListener,
    late: Arc<Mutex<Option<TcpStream>>>,
}

impl Observer for Latecomer {
    fn is_succeeded(&self) -> bool {
        self.succeeded
    }
    fn draining(&mut self) {
        let address = self.listener.local_addr().unwrap();
        *self.late.lock().unwrap() = Some(TcpStream::connect(address).unwrap());
    }
}

#[test]
fn a_server_that_says_that_it_drains_accepts_no_more_and_leaves_the_queue_to_successors() {
    for succeeded in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut early = TcpStream::connect(address).unwrap();
        early
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        // Both are there at the first look: the request that waits to be accepted and the wish to stop.
        let stop = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        let late = Arc::default();
        let observer = Latecomer {
            succeeded,
            listener: listener.try_clone().unwrap(),
            late: Arc::clone(&late),
        };
        let config = config(Limits::default(), listener.try_clone().unwrap(), stop);
        serve_inline(config, &mut Echo, observer).unwrap();

        listener.set_nonblocking(true).unwrap();
        let left = std::iter::from_fn(|| listener.accept().ok()).map(|(_, peer)| peer);
        let left: Vec<_> = left.collect();
        let late = late.lock().unwrap().take().unwrap().local_addr().unwrap();
        let mut answer = String::new();
        if succeeded {
            assert_eq!(left, [early.local_addr().unwrap(), late]);
        } else {
            assert_eq!(left, [late]);
            early.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
}

/// Answers when it is told to, and `/quick` at once.
#[derive(Clone)]
struct Gate(Arc<BTreeMap<&'static str, Mutex<Receiver<()>>>>);

impl Handler for Gate {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let path = std::str::from_utf8(request.path()).unwrap();
        if let Some(gate) = self.0.get(path) {
            gate.lock().unwrap().recv().unwrap();
        }
        exchange.begin(b"204 No Content").unwrap();
        exchange.finish(Some(0));
        exchange.end();
        exchange
    }
}

/// Notes the oldest request with its start, and how many there were.
#[derive(Clone, Default)]
struct Notes {
    oldest: Arc<Mutex<Vec<(u64, String)>>>,
    most: Arc<Mutex<usize>>,
}

impl Observer for Notes {
    fn busy(&mut self, since: u64, threads: usize, request: Request<'_>) {
        let path = String::from_utf8_lossy(request.path()).into_owned();
        self.oldest.lock().unwrap().push((since, path));
        self.threads(threads);
    }
    fn threads(&mut self, number: usize) {
        let mut most = self.most.lock().unwrap();
        *most = number.max(*most);
    }
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn read_head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_request_that_waits_for_a_thread_does_not_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let config = config(
        Limits::default(),
        listener,
        stop.as_fd().try_clone_to_owned().unwrap(),
    );
    let paths = ["/a", "/b", "/c", "/d"];
    let (open, gates): (Vec<_>, Vec<_>) = paths.iter().map(|_| channel()).unzip();
    let gates = paths.into_iter().zip(gates.into_iter().map(Mutex::new));
    let (handler, notes) = (Gate(Arc::new(gates.collect())), Notes::default());
    let (pool, seats) = pool(2).unwrap();
    let threads: Vec<_> = seats
        .into_iter()
        .map(|seat| {
            let mut handler = handler.clone();
            thread::spawn(move || seat.run(&mut handler))
        })
        .collect();
    let observer = notes.clone();
    let server = thread::spawn(move || serve_pool(config, pool, observer).unwrap());

    let kept = || {
        let mut client = TcpStream::connect(address).unwrap();
        client
            .write_all(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 204 "));
        client
    };
    let mut clients = paths.map(|path| (path, kept(), kept()));
    for (path, client, bad) in &mut clients {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        // The loop refuses this itself, after it has seen what was there before.
        bad.write_all(b"\0").unwrap();
        assert!(read_head(bad).starts_with("HTTP/1.1 400 "));
    }
    let waited_until = now();
    for ((_, client, _), open) in clients.iter_mut().zip(open) {
        open.send(()).unwrap();
        read_head(client);
    }
    rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
    server.join().unwrap();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());

    let oldest = notes.oldest.lock().unwrap();
    let oldest: Vec<_> = oldest.iter().filter(|(_, path)| path != "/quick").collect();
    for (since, path) in &oldest {
        let waited = path == "/c" || path == "/d";
        assert_eq!(*since >= waited_until, waited, "{path}: {oldest:?}");
    }
    assert!(oldest.iter().any(|(_, path)| path == "/c"), "{oldest:?}");
    assert_eq!(*notes.most.lock().unwrap(), 2);
}
