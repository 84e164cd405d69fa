//! Requests that are sent to a busy worker before it can begin them.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use preforkd_front::upstream::address::Address;
use preforkd_http::NOT_BEGUN;
use preforkd_worker::running::{self, Running};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{RecvFlags, recv};

/// How long a worker waits for a request that may have gone elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// A connection of the front to a worker. On a machine that is busy a request may not be read within the time after which it is taken back:
/// then the connection ends, or the request is not for this worker.
struct Serving(UnixStream);

impl Serving {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(ELSEWHERE)).unwrap();
        Self(stream)
    }

    /// Begins the next request, whose head comes at once; its path. It does not begin what was taken back when it was read, as a worker.
    fn begin(&mut self) -> Option<String> {
        let mut head = [0; 4096];
        let n = self.0.read(&mut head).ok().filter(|n| *n > 0)?;
        let head = str::from_utf8(&head[..n]).unwrap();
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        if let Ok((_, 0)) = recv(&self.0, &mut [0], flags) {
            return None;
        }
        head.split(' ').nth(1).map(str::to_owned)
    }

    /// Answers what it has begun, which the client then gets.
    fn answer(&mut self, client: &mut Peer) {
        self.0.write_all(OK.as_bytes()).unwrap();
        assert_eq!(client.message(), OK_SEEN);
    }
}

/// A request on its way to a worker, read to the end of its head.
fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn get(path: &str) -> String {
    GET.replace("GET /", &format!("GET /{path}"))
}

/// Two workers that take one request at a time, and connections of the front to them.
fn workers() -> (Front, [UnixListener; 2], tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one", "other"].map(|name| folder.path().join(name));
    let listeners = paths.clone().map(|path| UnixListener::bind(path).unwrap());
    let front = front(paths.map(Address::Unix).to_vec(), |settings| {
        (settings.limits.most_running, settings.limits.ahead) = (1, true);
    });
    (front, listeners, folder)
}

#[test]
fn a_request_that_is_stuck_behind_a_long_one_goes_to_the_worker_that_is_free_first() {
    // The workers must have been quick, which is not certain on a machine that is busy.
    let taken_back = (0..50).find_map(|_| is_taken_back());
    assert!(taken_back.is_some(), "nothing was sent ahead");
}

/// None if nothing was sent ahead to the worker that is in the long request, or the machine was too busy.
fn is_taken_back() -> Option<()> {
    let (front, listeners, _folder) = workers();
    let mut clients = [0; 3].map(|_| front.connect());
    clients[0].write(GET);
    let mut one = Serving::accept(&listeners[0]);
    one.begin()?;
    clients[1].write(GET);
    let mut other = Serving::accept(&listeners[1]);
    other.begin()?;
    one.answer(&mut clients[0]);
    other.answer(&mut clients[1]);
    // Both are idle, and take turns.
    for _ in 0..20 {
        for (client, worker) in clients.iter_mut().zip([&mut one, &mut other]) {
            client.write(GET);
            worker.begin()?;
            worker.answer(client);
        }
    }
    clients[0].write(&get("long"));
    one.begin().filter(|path| path == "/long")?;
    clients[1].write(&get("short"));
    other.begin().filter(|path| path == "/short")?;
    clients[2].write(&get("ahead"));
    // It is taken back, or has waited all the time.
    other.answer(&mut clients[1]);
    assert_eq!(other.begin()?, "/ahead");
    other.answer(&mut clients[2]);
    one.answer(&mut clients[0]);
    listeners[0].set_nonblocking(true).unwrap();
    let (mut taken_back, _) = listeners[0].accept().ok()?;
    taken_back.set_nonblocking(false).unwrap();
    let mut all = String::new();
    taken_back.read_to_string(&mut all).unwrap();
    let rest = all.strip_prefix("GET /ahead HTTP/1.1\r\n").unwrap();
    assert_eq!(rest.find("\r\n\r\n"), Some(rest.len() - 4), "{all}");
    Some(())
}

#[test]
fn a_request_goes_to_the_worker_that_has_fewest_of_all_workers_of_the_front() {
    let words: Vec<_> = (0..running::WORDS).map(|_| AtomicU64::new(0)).collect();
    let words: &'static [AtomicU64] = words.leak();
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one", "other"].map(|name| folder.path().join(name));
    let listeners = paths.clone().map(|path| UnixListener::bind(path).unwrap());
    let [first, second] = [0, 1].map(|record| {
        let options = Options {
            running: Running::begin(words, record, 1),
            ..Options::default()
        };
        let addresses = paths.clone().map(Address::Unix).to_vec();
        front_with(addresses, options, |settings| {
            (settings.is_told, settings.limits.most_running) = (true, 2);
        })
    });
    // Three that take long: both threads of one worker are in use.
    let mut clients = Vec::new();
    let mut served = Vec::new();
    for at in [0, 1, 0] {
        clients.push(first.get());
        let (mut worker, _) = listeners[at].accept().unwrap();
        head(&mut worker);
        served.push(worker);
    }
    let mut client = second.get();
    let (mut worker, _) = listeners[1].accept().unwrap();
    head(&mut worker);
    worker.write_all(OK.as_bytes()).unwrap();
    assert_eq!(client.message(), OK_SEEN);
    // Those of a worker of the front that was killed do not count.
    words[0].store(0, Ordering::Relaxed);
    let _clients = [second.get(), second.get()];
    let (mut one, _) = listeners[0].accept().unwrap();
    head(&mut one);
    head(&mut worker);
}

#[test]
fn a_request_waits_for_a_worker_that_another_worker_of_the_front_keeps_busy() {
    let words: Vec<_> = (0..running::WORDS).map(|_| AtomicU64::new(0)).collect();
    let words: &'static [AtomicU64] = words.leak();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker");
    let listener = UnixListener::bind(&path).unwrap();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let [first, second] = [0, 1].map(|record| {
        let options = Options {
            running: Running::begin(words, record, 1),
            wake: Some(wake.try_clone().unwrap()),
            ..Options::default()
        };
        front_with(vec![Address::Unix(path.clone())], options, |settings| {
            (settings.is_told, settings.limits.most_running) = (true, 1);
            settings.limits.queue_length = 1;
        })
    });
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let mut one = first.send(post);
    let (mut busy, _) = listener.accept().unwrap();
    head(&mut busy);
    let mut other = second.send(post);
    // It waits, and the queue is full, wherever the next one comes.
    for front in [&second, &first] {
        let refused = front.send(post).message();
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nothing was sent");
    let mut count = [0; 8];
    assert!(
        rustix::io::read(&wake, &mut count).is_err(),
        "nobody waited"
    );
    busy.write_all(OK.as_bytes()).unwrap();
    assert_eq!(one.message(), OK_SEEN);
    listener.set_nonblocking(false).unwrap();
    let (mut next, _) = listener.accept().unwrap();
    next.set_nonblocking(false).unwrap();
    head(&mut next);
    assert_eq!(rustix::io::read(&wake, &mut count), Ok(8), "it was woken");
    next.write_all(OK.as_bytes()).unwrap();
    assert_eq!(other.message(), OK_SEEN);
}

/// A request with a body that is not sent together with its head.
fn upload() -> String {
    let body = "x".repeat(100_000);
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a worker does that is idle, until it has answered that request: one that has ended when it was read is not begun.
fn answer_upload(listener: &UnixListener) {
    loop {
        let (mut front, _) = listener.accept().unwrap();
        assert!(head(&mut front).contains("Content-Length: 100000"));
        let mut body = vec![0; 100_000];
        front.read_exact(&mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'));
        front.set_nonblocking(true).unwrap();
        match front.read(&mut [0]) {
            Ok(0) => drop(front.write_all(&[NOT_BEGUN])),
            Ok(more) => panic!("{more} bytes after the body"),
            Err(_) => return front.write_all(OK.as_bytes()).unwrap(),
        }
    }
}

#[test]
fn a_request_that_a_worker_does_not_read_goes_to_an_idle_one_whole() {
    let (front, [_occupied, idle], _folder) = workers();
    // The first worker serves somebody else's request.
    let mut client = front.send(&upload());
    answer_upload(&idle);
    assert_eq!(client.message(), OK_SEEN);
}

#[test]
fn a_request_that_a_worker_has_read_and_not_begun_is_sent_again_whatever_its_method() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let listener = UnixListener::bind(&path).unwrap();
    let front = front(vec![Address::Unix(path)], |settings| {
        (settings.limits.most_running, settings.limits.ahead) = (1, true);
    });
    let mut client = front.send(POST);
    let mut asked = Vec::new();
    for answer in [&[NOT_BEGUN][..], OK.as_bytes()] {
        let (mut worker, _) = listener.accept().unwrap();
        let mut body = [0; 3];
        asked.push(head(&mut worker));
        worker.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"abc");
        worker.write_all(answer).unwrap();
    }
    assert_eq!(asked[0], asked[1]);
    assert_eq!(client.message(), OK_SEEN);
}
