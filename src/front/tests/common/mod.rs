//! A server that passes everything on, and upstreams that do exactly what a test says.
// Each test uses a part of it.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use preforkd_front::counting::States;
use preforkd_front::h2::{Shared, Wire};
use preforkd_front::tls::Listeners;
use preforkd_front::upstream::address::Address;
use preforkd_front::upstream::proxy::{At, Proxy};
use preforkd_front::upstream::settings::Settings;
use preforkd_http::layer::Layer;
use preforkd_http::{
    Call, Config, Files, FrontListeners, Limits, Origin, Outgoing, Output, Ready, Request,
    Response, Service, Taking, Watch, serve_service_over,
};
use preforkd_worker::gauges::Gauges;
use preforkd_worker::running::Running;
use rustix::event::{EventfdFlags, eventfd};

/// Only so that a test that hangs fails.
pub const GUARD: Duration = Duration::from_secs(20);

/// Passes every request on to one upstream.
struct All {
    proxy: Proxy,
    /// Bodies are passed on while they arrive, whatever the path.
    streams: bool,
    states: Option<States>,
}

/// What else a test may change.
pub struct Options {
    pub layers: Vec<Arc<dyn Layer>>,
    pub files: Files,
    pub limits: Limits,
    /// See [`Proxy::hold_at_most`].
    pub held: usize,
    /// All bodies are passed on while they arrive, and not only those for `/stream`.
    pub streams: bool,
    /// Clients may begin with HTTP/2.
    pub http2: bool,
    /// Where it tells how its upstream, which is called `web`, is, as process 1.
    pub gauges: Option<&'static [AtomicU64]>,
    /// Where it counts what runs, together with other fronts.
    pub running: Option<Running>,
    /// By which these wake each other.
    pub wake: Option<OwnedFd>,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits {
            drain_timeout: Duration::from_secs(5),
            ..Limits::default()
        };
        Self {
            layers: Vec::new(),
            files: Files::default(),
            limits,
            held: usize::MAX,
            streams: false,
            http2: true,
            gauges: None,
            running: None,
            wake: None,
        }
    }
}

impl Service for All {
    fn begin(&mut self, watch: Watch) {
        self.proxy.begin(watch);
    }

    fn call(&mut self, call: Call<'_>, response: Response) -> Option<Response> {
        let outgoing = Outgoing {
            default_host: b"default",
            ..Outgoing::default()
        };
        self.proxy.call(0, call, outgoing, response)
    }

    fn taking(&mut self, request: Request<'_>, _origin: &Origin) -> Taking {
        let streams = self.streams || request.path().starts_with(b"/stream");
        self.proxy.taking(0, request, streams)
    }

    fn body(&mut self, key: u64, bytes: Vec<u8>, ended: bool, now: u64) -> bool {
        self.proxy.body(key, &bytes, ended, now)
    }

    fn trailers(&mut self, key: u64, lines: &[u8]) {
        self.proxy.trailers(key, lines);
    }

    fn left(&mut self, key: u64, now: u64) -> Option<Response> {
        self.proxy.left(key, now)
    }

    fn waiting(&mut self, key: u64, bytes: usize, now: u64) {
        self.proxy.waiting(key, bytes, now);
    }

    fn event(&mut self, token: u32, ready: Ready, now: u64) {
        self.proxy.event(token, ready, now);
    }

    fn turn(&mut self, now: u64) {
        self.proxy.turn(now);
    }

    fn deadline(&self) -> u64 {
        if let Some(states) = &self.states {
            states.note(&self.proxy);
        }
        self.proxy.deadline()
    }

    fn output(&mut self) -> Option<(u64, Output)> {
        self.proxy.output()
    }
}

/// A front on a thread of its own, until it is dropped.
pub struct Front {
    address: std::net::SocketAddr,
    stop: OwnedFd,
    thread: Option<thread::JoinHandle<()>>,
}

/// Serves with these upstream addresses.
pub fn front(addresses: Vec<Address>, change: impl FnOnce(&mut Settings)) -> Front {
    front_with(addresses, Options::default(), change)
}

/// The same, with options.
pub fn front_with(
    addresses: Vec<Address>,
    options: Options,
    change: impl FnOnce(&mut Settings),
) -> Front {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let config = Config {
        limits: Arc::new(options.limits),
        listeners: vec![listener.into()],
        files: options.files,
        private: false,
        front: FrontListeners::default(),
        proxy_protocol: None,
        layers: options.layers,
        stop: vec![stop.as_fd().try_clone_to_owned().unwrap()],
        signals: None,
    };
    let mut settings = Settings::new("app=test");
    // Nothing ends by itself unless a test says so.
    (settings.keep, settings.head_timeout) = (GUARD, GUARD);
    change(&mut settings);
    let thread = thread::spawn(move || {
        let mut proxy = Proxy::default();
        proxy.hold_at_most(options.held);
        if let Some(running) = options.running {
            proxy.share(running, options.wake);
        }
        let number = proxy.add(settings);
        let places: Vec<_> = addresses.into_iter().map(At::from).collect();
        proxy.set_addresses(number, &places, 0);
        let shared = Shared::new(Listeners::default(), options.http2);
        let all = All {
            proxy,
            streams: options.streams,
            states: options.gauges.map(|place| {
                let gauges = Gauges::begin(place, 1, ["web"].into_iter(), [].into_iter());
                States::new(gauges, vec![number])
            }),
        };
        serve_service_over::<Wire, _>(config, shared, all, ()).unwrap();
    });
    Front {
        address,
        stop,
        thread: Some(thread),
    }
}

impl Front {
    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// Has it drain.
    pub fn stop(&self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
    }

    /// A client that has sent this.
    pub fn send(&self, text: &str) -> Peer {
        let mut client = self.connect();
        client.write(text);
        client
    }

    /// A client that has asked for `/` and keeps its connection.
    pub fn get(&self) -> Peer {
        self.send(GET)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server has panicked");
        }
    }
}

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
pub const OK: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok";
/// What a client gets of that.
pub const OK_SEEN: &str =
    "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\nServer: preforkd\r\n\r\nok";

/// An upstream that a test plays.
pub struct Upstream {
    pub listener: TcpListener,
}

pub fn upstream() -> (Upstream, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    (Upstream { listener }, address)
}

impl Upstream {
    /// The next connection of the front.
    pub fn accept(&self) -> Peer {
        Peer::new(self.listener.accept().unwrap().0)
    }

    /// The next connection, with the request on it.
    pub fn request(&self) -> (Peer, String) {
        let mut peer = self.accept();
        let request = peer.message();
        (peer, request)
    }

    /// The front has made no other connection.
    pub fn is_unused(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        let result = self.listener.accept();
        self.listener.set_nonblocking(false).unwrap();
        matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// One end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    /// What was read and not looked at.
    buffer: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(GUARD)).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Over this connection.
    pub fn of(stream: TcpStream) -> Self {
        Self::new(stream)
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more().unwrap() > 0, "it breaks off");
        }
        self.buffer.drain(..length).collect()
    }

    pub fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn more(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let n = self.stream.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    /// What comes next.
    pub fn more_text(&mut self) -> String {
        if self.buffer.is_empty() {
            assert!(self.more().unwrap() > 0, "the end");
        }
        self.take(self.buffer.len())
    }

    fn take(&mut self, length: usize) -> String {
        let bytes: Vec<u8> = self.buffer.drain(..length).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What comes up to the end of this text, and not more.
    pub fn read_to(&mut self, end: &str) -> String {
        loop {
            let found = self
                .buffer
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                return self.take(at + end.len());
            }
            let n = self.more().unwrap();
            assert!(n > 0, "the end: {}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub fn head(&mut self) -> String {
        self.read_to("\r\n\r\n")
    }

    /// A head, unless the connection ends before it is whole.
    pub fn try_head(&mut self) -> Option<String> {
        while !self.buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            self.more().ok().filter(|n| *n > 0)?;
        }
        Some(self.head())
    }

    /// A head and the body of its Content-Length.
    pub fn message(&mut self) -> String {
        let head = self.head();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse::<usize>().unwrap())
        });
        let length = length.unwrap_or(0);
        while self.buffer.len() < length {
            assert!(self.more().unwrap() > 0, "a body that breaks off");
        }
        head + &self.take(length)
    }

    /// What comes up to the end of the connection, orderly or not.
    pub fn rest(&mut self) -> String {
        while let Ok(1..) = self.more() {}
        self.take(self.buffer.len())
    }

    /// Waits for the end of the connection; nothing comes before.
    pub fn ends(&mut self) {
        match self.more() {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("no end: {other:?}"),
        }
    }

    /// Whether the connection ends with a reset; nothing comes before.
    pub fn is_reset(&mut self) -> bool {
        match self.more() {
            Ok(0) => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            other => panic!("no end: {other:?}"),
        }
    }

    /// What was read and not looked at.
    pub fn unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Whether there is something to read now.
    pub fn has_answer(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let result = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(result, Ok(1))
    }
}
