//! A transport that changes the bytes, holds some of them in both directions, and begins with a handshake: what the loop has to know of
//! TLS, without TLS.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use preforkd_http::descriptors::Own;
use preforkd_http::standing::Standing;
use preforkd_http::{
    Body, Config, Exchange, Files, FrontListeners, Handler, Limits, Origin, Plain, Request, Sent,
    Single, Tls, Transport, pool, serve_inline_over, serve_pool_over,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

const HELLO: &[u8] = b"hello\n";
const WELCOME: &[u8] = b"welcome\n";
const REFUSED: &[u8] = b"refused\n";
const MASK: u8 = 0x5a;
/// So little is read at a time.
const READ: usize = 100;
/// So much output is held.
const HELD: usize = 5000;

/// Masks each byte, after a greeting in clear.
struct Masked {
    plain: Plain,
    tls: Arc<Tls>,
    greeting: Vec<u8>,
    started: bool,
    refused: bool,
    input: Vec<u8>,
    /// The socket has said that there is nothing more.
    drained: bool,
    output: Vec<u8>,
}

impl Masked {
    fn greet(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.greeting.extend_from_slice(bytes);
        let Some(end) = self.greeting.iter().position(|&b| b == b'\n') else {
            return Ok(());
        };
        let rest = self.greeting.split_off(end + 1);
        if self.greeting != HELLO {
            self.refused = true;
            self.output.extend_from_slice(REFUSED);
            return Err(Errno::PROTO);
        }
        self.started = true;
        self.output.extend_from_slice(WELCOME);
        self.input = rest;
        Ok(())
    }
}

impl Transport for Masked {
    type Shared = Arc<Tls>;
    type Multiplex = Single;

    fn new(shared: &mut Arc<Tls>, socket: OwnedFd, origin: &Origin) -> Self {
        Self {
            plain: Plain::new(&mut (), socket, origin),
            tls: shared.clone(),
            greeting: Vec::new(),
            started: false,
            refused: false,
            input: Vec::new(),
            drained: false,
            output: Vec::new(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if self.refused {
            return self.plain.read(buffer);
        }
        while self.input.is_empty() || !self.started {
            let mut bytes = [0; READ];
            let read = self.plain.read(&mut bytes);
            self.drained = read == Err(Errno::AGAIN);
            match read? {
                0 => return Ok(0),
                n if self.started => self.input.extend_from_slice(&bytes[..n]),
                n => self.greet(&bytes[..n])?,
            }
        }
        let n = buffer.len().min(self.input.len());
        for (to, from) in buffer.iter_mut().zip(self.input.drain(..n)) {
            *to = from ^ MASK;
        }
        Ok(n)
    }

    fn write(&mut self, data: &[u8], more: bool) -> Result<usize, Errno> {
        if !self.output.is_empty() {
            self.flush()?;
        }
        let n = data.len().min(HELD - self.output.len());
        if n == 0 {
            return Err(Errno::AGAIN);
        }
        self.output.extend(data[..n].iter().map(|b| b ^ MASK));
        match more {
            true => Ok(n),
            false => match self.flush() {
                Ok(_) | Err(Errno::AGAIN) => Ok(n),
                Err(error) => Err(error),
            },
        }
    }

    fn send_file(&mut self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno> {
        let mut piece = vec![0; length.min(HELD)];
        let n = file.read_at(&mut piece, *offset).map_err(|_| Errno::IO)?;
        match n {
            0 => Ok(0),
            _ => {
                let taken = self.write(&piece[..n], false)?;
                *offset += taken as u64;
                Ok(taken)
            }
        }
    }

    fn can_hold(&self) -> bool {
        false
    }

    fn push(&self) {}

    fn finish(&mut self) -> Result<(), Errno> {
        self.plain.finish()
    }

    fn abort(&mut self) {
        self.plain.abort();
    }

    fn leave(&mut self) {
        self.output.clear();
        self.plain.leave();
    }

    fn reset_at_death(&mut self, reset: bool) {
        self.plain.reset_at_death(reset);
    }

    fn stands(&self, standing: Standing) {
        self.plain.stands(standing);
    }

    fn watch(&mut self, epoll: &Own, key: u64, write: bool) -> io::Result<()> {
        self.plain.watch(epoll, key, write)
    }

    fn has_input(&self) -> bool {
        !self.input.is_empty() || !self.drained
    }

    fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn flush(&mut self) -> Result<usize, Errno> {
        let n = self.plain.write(&self.output, false)?;
        self.output.drain(..n);
        Ok(n)
    }

    fn is_starting(&self) -> bool {
        !self.started
    }

    fn refusal(&self) -> Option<&str> {
        self.refused.then_some("it does not say hello")
    }

    fn tls(&self) -> Option<&Arc<Tls>> {
        self.started.then_some(&self.tls)
    }
}

/// Answers with the body of the request, or with as many bytes as the query says; under `/file` they come from a file.
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
        let facts = request.facts().expect("the facts of the transport");
        let tls = facts.tls.as_ref().unwrap();
        assert_eq!(facts.https, Some(true));
        exchange.begin(b"200 OK").unwrap();
        exchange.field(b"X-TLS", tls.version.as_bytes()).unwrap();
        let mut answer = pattern(
            std::str::from_utf8(request.query())
                .unwrap()
                .parse()
                .unwrap_or(0),
        );
        body.read_to_end(&mut answer).unwrap();
        exchange.finish(Some(answer.len() as u64));
        if request.path() == b"/file" {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&answer).unwrap();
            exchange.send_file(file, 0, answer.len() as u64);
            return exchange;
        }
        let all = answer.chunks(Exchange::SLICE).all(|slice| {
            exchange.write(slice);
            let sent = exchange.send();
            sent != Sent::Gone && (sent == Sent::Taken || exchange.wait() == Sent::Taken)
        });
        match all {
            true => exchange.end(),
            false => exchange.cut(),
        }
        exchange
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn mask(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| b ^ MASK).collect()
}

struct Running {
    address: std::net::SocketAddr,
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

fn start(threads: usize, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let config = Config {
        limits: Arc::new(limits),
        listeners: vec![listener.into()],
        files: Files::default(),
        private: false,
        front: FrontListeners::default(),
        proxy_protocol: None,
        layers: Vec::new(),
        stop: vec![stop.as_fd().try_clone_to_owned().unwrap()],
        signals: None,
    };
    let tls = Arc::new(Tls {
        version: "masked",
        cipher: "",
        server_name: None,
        protocol: None,
        resumed: false,
        client: None,
        names: Arc::default(),
        client_policy: None,
    });
    let thread = thread::spawn(move || {
        if threads == 0 {
            return serve_inline_over::<Masked, _>(config, tls, &mut Echo, ()).unwrap();
        }
        let (pool, seats) = pool(threads).unwrap();
        let threads: Vec<_> = seats
            .into_iter()
            .map(|seat| thread::spawn(move || seat.run(&mut Echo)))
            .collect();
        serve_pool_over::<Masked>(config, tls, pool, ()).unwrap();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    Running {
        address,
        stop,
        thread,
    }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        let patience = Some(Duration::from_secs(20));
        client.set_read_timeout(patience).unwrap();
        client
    }

    fn stop(self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
        self.thread.join().unwrap();
    }
}

/// Reads the body of one response.
fn body(client: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0] ^ MASK);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("X-TLS: masked\r\n"), "{head}");
    let (_, length) = head.split_once("Content-Length: ").unwrap();
    let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    mask(&body)
}

fn welcome(client: &mut TcpStream) {
    let mut welcome = vec![0; WELCOME.len()];
    client.read_exact(&mut welcome).unwrap();
    assert_eq!(welcome, WELCOME);
}

#[test]
fn what_it_holds_of_the_input_is_served_without_another_event() {
    for threads in [0, 2] {
        let server = start(threads, Limits::default());
        let mut client = server.connect();
        // Everything at once: reads of the socket end in the middle of requests.
        let mut all = HELLO.to_vec();
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 250\r\n\r\n";
        for _ in 0..20 {
            all.extend(mask(request));
            all.extend(mask(&pattern(250)));
        }
        client.write_all(&all).unwrap();
        welcome(&mut client);
        for _ in 0..20 {
            assert!(body(&mut client) == pattern(250));
        }
        drop(client);
        server.stop();
    }
}

#[test]
fn what_it_holds_of_the_output_is_sent_before_the_response_is_over() {
    for threads in [0, 2] {
        let server = start(threads, Limits::default());
        let mut client = server.connect();
        client.write_all(HELLO).unwrap();
        welcome(&mut client);
        // More than the kernel holds for both sides together.
        for target in ["/?20000000", "/file?20000000", "/?1"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.write_all(&mask(request.as_bytes())).unwrap();
        }
        assert!(body(&mut client) == pattern(20_000_000));
        assert!(body(&mut client) == pattern(20_000_000));
        assert!(body(&mut client) == pattern(1));
        let last = b"GET /?3000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.write_all(&mask(last)).unwrap();
        assert!(body(&mut client) == pattern(3_000_000));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        server.stop();
    }
}

#[test]
fn a_handshake_ends_by_its_deadline_however_it_goes_on() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        keepalive_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let server = start(0, limits);
    let begin = Instant::now();
    let mut client = server.connect();
    client
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    // A byte at a time, for ever.
    let mut byte = [0];
    loop {
        match client.read(&mut byte) {
            Ok(n) => {
                assert_eq!(n, 0);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                break;
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
        if client.write_all(b"h").is_err() {
            break;
        }
    }
    assert!(begin.elapsed() >= Duration::from_millis(300));
    server.stop();
}

#[test]
fn a_client_that_is_refused_reads_why_though_it_still_sends() {
    let server = start(0, Limits::default());
    let mut client = server.connect();
    client.write_all(b"GET / HTTP/1.1\n").unwrap();
    client.write_all(&[b'x'; 1_000_000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, REFUSED);
    server.stop();
}
