//! The loop over real sockets, with a handler that is not Python.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use common::{Running, config, start};
use preforkd_http::serve_inline;
use preforkd_http::{Body, Exchange, Handler, Limits, Observer, Origin, Request, Sent};
use rustix::event::{EventfdFlags, eventfd};

/// Echoes the body; under /stream in pieces without a length.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    fn idle<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        wait()
    }

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
    late: Arc<std::sync::Mutex<Option<TcpStream>>>,
}

impl Observer for Latecomer {
    fn connections(&mut self, _: usize) {}
    fn busy(&mut self, _: u64, _: usize, _: Request<'_>) {}
    fn goes_on(&mut self, _: u64) {}
    fn threads(&mut self, _: usize) {}
    fn idle(&mut self) {}
    fn answered(&mut self, _: u16, _: u64) {}
    fn sent(&mut self, _: usize) {}
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
