//! Requests that are sent to a worker together, on one connection.

mod common;

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use common::*;
use preforkd_front::upstream::address::Address;
use preforkd_worker::lane::Claims;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Requests that were served quickly before any is sent ahead.
const CALM: usize = 20;

/// A worker that serves on one lane, as a test says.
struct Worker {
    stream: UnixStream,
    lane: Option<(Claims, OwnedFd)>,
    /// Paths of requests that were read.
    read: VecDeque<String>,
    text: String,
}

impl Worker {
    /// Accepts a connection, and takes the lane that it is offered as.
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let mut worker = Self {
            stream,
            lane: None,
            read: VecDeque::new(),
            text: String::new(),
        };
        worker.read_once().unwrap();
        worker
    }

    /// Reads what is there; the number of bytes.
    fn read_once(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut bytes)];
        let n = recvmsg(&self.stream, buffers, &mut control, RecvFlags::empty())?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut passed) = message {
                let (memory, bell) = (passed.next().unwrap(), passed.next().unwrap());
                self.lane = Some((Claims::take(&memory).unwrap(), bell));
            }
        }
        self.text.push_str(str::from_utf8(&bytes[..n]).unwrap());
        while let Some((head, rest)) = self.text.split_once("\r\n\r\n") {
            let path = head.split(' ').nth(1).unwrap();
            self.read.push_back(path.to_owned());
            self.text = rest.to_owned();
        }
        Ok(n)
    }

    /// Reads the next request, without beginning it.
    fn read(&mut self) {
        while self.read.is_empty() {
            assert!(self.read_once().unwrap() > 0, "the front has ended it");
        }
    }

    /// Whether the next request may begin, which was read.
    fn begins(&self) -> bool {
        self.lane.as_ref().is_none_or(|(claims, _)| claims.begin())
    }

    /// Begins the next request; its path.
    fn begin(&mut self) -> String {
        self.read();
        assert!(self.begins());
        self.read.pop_front().unwrap()
    }

    /// Answers and does not tell.
    fn answer(&mut self) {
        self.stream.write_all(OK.as_bytes()).unwrap();
    }

    fn ring(&self) {
        if let Some((_, bell)) = &self.lane {
            rustix::io::write(bell, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// Waits until the front has taken requests back.
    fn waits_for_cut(&self) {
        let (claims, _) = self.lane.as_ref().expect("a lane was offered");
        let until = Instant::now() + GUARD;
        // To ask for nothing changes nothing.
        while claims.take_back(u32::MAX) == u32::MAX {
            assert!(Instant::now() < until, "nothing was taken back");
            std::thread::yield_now();
        }
    }

    /// Serves requests of this client until it counts as quick.
    fn serve_some(&mut self, client: &mut Peer) {
        for _ in 0..CALM {
            self.begin();
            self.answer();
            self.ring();
            assert_eq!(client.message(), OK_SEEN);
            client.write(GET);
        }
        self.begin();
        self.answer();
        self.ring();
        assert_eq!(client.message(), OK_SEEN);
    }

    /// Answers the first of these requests, which it has begun, and those behind it that it may begin; the others.
    fn serve_begun<'a>(
        &mut self,
        mut waiting: VecDeque<(&'a str, Peer)>,
    ) -> VecDeque<(&'a str, Peer)> {
        loop {
            let (path, mut client) = waiting.pop_front().unwrap();
            self.answer();
            self.ring();
            assert_eq!(client.message(), OK_SEEN, "{path}");
            if self.read.is_empty() || !self.begins() {
                self.ends();
                return waiting;
            }
            let next = self.read.pop_front();
            assert_eq!(next.as_deref(), waiting.front().map(|(path, _)| *path));
        }
    }

    /// The front ends the connection without another request.
    fn ends(&mut self) {
        self.read.clear();
        assert_eq!(self.read_once().unwrap(), 0);
        assert!(self.read.is_empty() && self.text.is_empty());
    }
}

/// A worker that takes one request at a time, for each name.
fn workers<const N: usize>(names: [&str; N]) -> (Front, [UnixListener; N], tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let paths = names.map(|name| folder.path().join(name));
    let listeners = paths.clone().map(|path| UnixListener::bind(path).unwrap());
    let front = front(paths.map(Address::Unix).to_vec(), |settings| {
        (settings.limits.most_running, settings.limits.ahead) = (1, true);
    });
    (front, listeners, folder)
}

fn get(path: &str) -> String {
    GET.replace("GET /", &format!("GET /{path}"))
}

/// A worker whose lane has these requests, as paths, of the clients that are given back. The first client has none. On a machine that is busy the worker
/// may count as slow; then it is tried anew.
fn filled<const N: usize>(paths: [&str; N]) -> (Front, UnixListener, Worker, Vec<Peer>, Keeps) {
    for _ in 0..50 {
        let (front, [listener], folder) = workers(["one"]);
        let mut first = front.send(GET);
        let mut worker = Worker::accept(&listener);
        worker.serve_some(&mut first);
        let clients = paths.map(|path| front.send(&get(path)));
        let mut clients: Vec<_> = clients.into_iter().collect();
        clients.insert(0, first);
        worker.stream.set_read_timeout(Some(GUARD / 10)).unwrap();
        while worker.read.len() < N && worker.read_once().is_ok() {}
        worker.stream.set_read_timeout(Some(GUARD)).unwrap();
        if worker.read == paths.map(|path| format!("/{path}")) {
            return (front, listener, worker, clients, folder);
        }
    }
    panic!("nothing was sent ahead");
}

/// What must not end before a test does.
type Keeps = tempfile::TempDir;

#[test]
fn requests_share_a_connection_and_each_client_gets_its_own_response() {
    let (_front, _listener, mut worker, mut clients, _folder) = filled(["a", "b", "c"]);
    let text = |path: &str| OK.replace("ok", path);
    for path in ["aa", "bb", "cc"] {
        assert_eq!(worker.begin(), format!("/{}", &path[..1]));
        worker.stream.write_all(text(path).as_bytes()).unwrap();
    }
    worker.ring();
    for (client, path) in clients[1..].iter_mut().zip(["aa", "bb", "cc"]) {
        assert!(client.message().ends_with(path));
    }
}

#[test]
fn a_response_is_seen_without_the_bell_when_the_next_request_takes_long() {
    let (_front, _listener, mut worker, mut clients, _folder) = filled(["quick", "long"]);
    worker.begin();
    worker.answer();
    worker.begin();
    // It is in the long one, and has not rung.
    assert_eq!(clients[1].message(), OK_SEEN);
    worker.answer();
    worker.ring();
    assert_eq!(clients[2].message(), OK_SEEN);
}

/// Begins what comes next, on one of these connections or on a new one; which it is, and the path.
fn begin_next(listener: &UnixListener, workers: &mut Vec<Worker>) -> (usize, String) {
    loop {
        for (at, worker) in workers.iter_mut().enumerate() {
            if !worker.read.is_empty() && worker.begins() {
                return (at, worker.read.pop_front().unwrap());
            }
        }
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let sockets = workers.iter().map(|worker| worker.stream.as_fd());
        let mut polled: Vec<_> = sockets.chain([listener.as_fd()]).map(watched).collect();
        let guard = Timespec::try_from(GUARD).unwrap();
        assert!(
            poll(&mut polled, Some(&guard)).unwrap() > 0,
            "nothing comes"
        );
        let ready = polled.iter().position(|fd| !fd.revents().is_empty());
        match ready.unwrap() {
            at if at < workers.len() => {
                if workers[at].read_once().unwrap_or(0) == 0 {
                    workers.remove(at);
                }
            }
            _ => workers.push(Worker::accept(listener)),
        }
    }
}

/// Serves these requests of clients, in this order unless it says otherwise, wherever they come.
fn serve_rest(listener: &UnixListener, in_order: bool, rest: Vec<(&str, Peer)>) {
    let mut workers = Vec::new();
    let mut asked = Vec::new();
    for _ in &rest {
        let (at, path) = begin_next(listener, &mut workers);
        workers[at].answer();
        workers[at].ring();
        asked.push(path);
    }
    if !in_order {
        asked.sort();
    }
    assert_eq!(
        asked,
        rest.iter().map(|(path, _)| *path).collect::<Vec<_>>()
    );
    for (_, mut client) in rest {
        assert_eq!(client.message(), OK_SEEN);
    }
}

#[test]
fn what_was_not_begun_when_the_worker_dies_is_sent_anew_and_what_was_is_repeated() {
    let (_front, listener, mut worker, mut clients, _folder) = filled(["a", "b", "c"]);
    worker.begin();
    worker.answer();
    worker.begin();
    // It dies in the second.
    drop(worker);
    assert_eq!(clients[1].message(), OK_SEEN);
    let rest = ["/b", "/c"].into_iter().zip(clients.drain(2..));
    serve_rest(&listener, false, rest.collect());
}

#[test]
fn what_is_stuck_is_taken_back_and_its_worker_never_begins_it() {
    let (_front, listener, mut worker, mut clients, _folder) = filled(["long", "b", "c"]);
    worker.begin();
    worker.waits_for_cut();
    let waiting = ["/long", "/b", "/c"].into_iter().zip(clients.drain(1..));
    // The last is taken back first, so the one before it may still be begun here.
    let rest = worker.serve_begun(waiting.collect());
    assert!(!rest.is_empty());
    serve_rest(&listener, true, rest.into());
}

#[test]
fn a_client_that_leaves_takes_only_its_own_request_along() {
    for leaving in 1..=3 {
        let (_front, listener, mut worker, mut clients, _folder) = filled(["1", "2", "3"]);
        worker.begin();
        drop(clients.remove(leaving));
        worker.waits_for_cut();
        let mut rest: Vec<_> = ["/1", "/2", "/3"].into();
        rest.remove(leaving - 1);
        let mut rest: VecDeque<_> = rest.into_iter().zip(clients.drain(1..)).collect();
        if leaving > 1 {
            rest = worker.serve_begun(rest);
        } else {
            // Nobody wants anything more of it.
            worker.ends();
        }
        serve_rest(&listener, true, rest.into());
    }
}

#[test]
fn a_response_that_nobody_wants_any_more_is_not_taken_for_the_next_one() {
    let (_front, _listener, mut worker, mut clients, _folder) = filled(["a", "b", "c"]);
    worker.begin();
    worker.begin();
    worker.begin();
    drop(clients.remove(2));
    worker.waits_for_cut();
    for body in ["aa", "bb", "cc"] {
        let response = OK.replace("ok", body);
        worker.stream.write_all(response.as_bytes()).unwrap();
    }
    worker.ring();
    assert!(clients[1].message().ends_with("aa"));
    assert!(clients[2].message().ends_with("cc"));
    worker.ends();
}

#[test]
fn a_request_that_must_not_be_repeated_has_a_connection_to_itself() {
    let (front, [listener], _folder) = workers(["one"]);
    let mut client = front.send(GET);
    let mut worker = Worker::accept(&listener);
    worker.serve_some(&mut client);
    let mut client = front.send(POST);
    let mut other = Worker::accept(&listener);
    assert!(other.lane.is_none());
    other.stream.write_all(OK.as_bytes()).unwrap();
    assert_eq!(client.message(), OK_SEEN);
    worker.stream.set_nonblocking(true).unwrap();
    let error = worker.read_once().expect_err("nothing was sent there");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_worker_that_knows_no_lanes_is_asked_as_before() {
    let (front, [listener], _folder) = workers(["one"]);
    let mut client = front.send(GET);
    let (mut worker, _) = listener.accept().unwrap();
    worker.set_read_timeout(Some(GUARD)).unwrap();
    for _ in 0..2 * CALM {
        let mut head = [0; 4096];
        let n = worker.read(&mut head).unwrap();
        assert!(head[..n].ends_with(b"\r\n\r\n"));
        worker.write_all(OK.as_bytes()).unwrap();
        assert_eq!(client.message(), OK_SEEN);
        client.write(GET);
    }
    assert!(worker.read(&mut [0]).unwrap() > 0);
}
