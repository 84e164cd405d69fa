//! The access log of a server: what stands in it, and for how long requests have waited.

// Only some of it is needed here.
#[allow(dead_code)]
mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Running, start_with};
use preforkd_http::layer::{Options, access_log, standard};
use preforkd_http::{Body, Exchange, Handler, Limits, Origin, Request, TrustedProxies};
use preforkd_worker::access_format::Format;
use rustix::pipe::{PipeFlags, pipe_with};

/// Answers `/held`, of which it tells, when it is told to, and others at once. `/stream` is held too, and goes on meanwhile.
#[derive(Clone)]
struct Gate {
    entered: Sender<()>,
    open: Arc<Mutex<Receiver<()>>>,
}

/// The size of `/file`, which no socket takes at once.
const FILE: u64 = 64 << 20;

impl Gate {
    fn new() -> (Self, Receiver<()>, Sender<()>) {
        let (entered, is_in) = channel();
        let (opener, open) = channel();
        let open = Arc::new(Mutex::new(open));
        (Self { entered, open }, is_in, opener)
    }
}

impl Handler for Gate {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        if request.path() == b"/held" {
            self.entered.send(()).unwrap();
            self.open.lock().unwrap().recv().unwrap();
        }
        if request.path() == b"/stream" {
            self.entered.send(()).unwrap();
            while self.open.lock().unwrap().try_recv().is_err() {
                exchange.alive();
            }
        }
        exchange.begin(b"200 OK").unwrap();
        if request.path() == b"/file" {
            let file = tempfile::tempfile().unwrap();
            file.set_len(FILE).unwrap();
            exchange.finish(Some(FILE));
            exchange.send_file(file, 0, FILE);
            return exchange;
        }
        exchange.finish(Some(2));
        exchange.write(b"ok");
        exchange.end();
        exchange
    }
}

/// A server with an access log of this form, which can be read.
fn logged(threads: usize, format: &str, handler: Gate) -> (Running, impl BufRead) {
    let (read, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::io::ioctl_fionbio(&pipe, true).unwrap();
    let options = Options {
        forwarded_fields: None,
        front: Vec::new(),
        access_log: Some(access_log::Options {
            pipe,
            format: Format::parse(format).unwrap(),
            worker: access_log::Worker {
                app: "app".into(),
                slot: 0,
                generation: 1,
            },
        }),
        request_id: true,
        trusted_proxies: TrustedProxies {
            unix: false,
            networks: vec!["127.0.0.1/32".parse().unwrap()],
        },
    };
    let limits = Limits {
        max_body: 10,
        body_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = start_with(threads, limits, handler, standard(options));
    (running, BufReader::new(File::from(read)))
}

fn line(log: &mut impl BufRead) -> String {
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Sends this, and reads up to the end of the connection.
fn ask(running: &Running, request: &str) -> String {
    let mut stream = running.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const CLOSE: &str = "Host: a\r\nConnection: close\r\n\r\n";

#[test]
fn responses_and_refusals_stand_in_the_log() {
    for threads in [0, 2] {
        let (gate, ..) = Gate::new();
        let format = "{status} {bytes} {method} {host} <{request}> {request_id}";
        let (running, mut log) = logged(threads, format, gate);
        let answer = ask(&running, &format!("GET /a?b HTTP/1.1\r\n{CLOSE}"));
        let id = answer
            .lines()
            .find_map(|field| field.strip_prefix("X-Request-ID: "));
        let expected = format!("200 2 GET a <GET /a?b HTTP/1.1> {}", id.expect("a name"));
        assert_eq!(line(&mut log), expected);
        for (request, expected) in [
            (
                "GET /\"x HTTP/1.1\r\n\r\n".to_owned(),
                "400 - - <GET /\\x22x HTTP/1.1> -",
            ),
            (
                // The head of the request before it is no head of this one.
                format!("GET /a HTTP/1.1\r\nHost: first\r\n\r\nGET / HTTP/3.0\r\n{CLOSE}"),
                "505 - - <GET / HTTP/3.0> -",
            ),
            ("\u{1b}[2J\r\n".to_owned(), "400 - - <\\x1B[2J> -"),
        ] {
            let answer = ask(&running, &request);
            let mut told = line(&mut log);
            if told.starts_with("200") {
                told = line(&mut log);
            }
            let (status, rest) = expected.split_once(' ').unwrap();
            let bytes = answer.rsplit("\r\n\r\n").next().unwrap().len();
            assert_eq!(told, format!("{status} {bytes} {rest}"), "{request}");
        }
        running.stop();
    }
}

#[test]
fn a_refusal_names_client_and_request_as_soon_as_the_head_is_valid() {
    for threads in [0, 2] {
        let (gate, ..) = Gate::new();
        let format = "{client} {status} {bytes} {request_id} <{request}>";
        let (running, mut log) = logged(threads, format, gate);
        let fields = format!("X-Forwarded-For: 203.0.113.9\r\nX-Request-ID: name\r\n{CLOSE}");
        for (status, field, body) in [
            (413, "Content-Length: 11", ""),
            (413, "Transfer-Encoding: chunked", "b\r\n"),
            (400, "Transfer-Encoding: chunked", "x"),
            (408, "Content-Length: 10", "late"),
            (408, "Transfer-Encoding: chunked", ""),
            (400, "X-Forwarded-Proto: ftp", ""),
        ] {
            let request = format!("POST /up HTTP/1.1\r\n{field}\r\n{fields}{body}");
            let answer = ask(&running, &request);
            let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("\r\nX-Request-ID: name\r\n"), "{head}");
            let expected = format!(
                "203.0.113.9 {status} {} name <POST /up HTTP/1.1>",
                text.len()
            );
            assert_eq!(line(&mut log), expected, "{request}");
        }
        running.stop();
    }
}

/// A connection on which a request was answered.
fn kept(running: &Running, log: &mut impl BufRead) -> TcpStream {
    let mut stream = running.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(line(log).starts_with("/ "));
    stream
}

/// Asks on a kept connection, in one piece: the rest of another would wait for the acknowledgement of the first.
fn ask_for(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\n{CLOSE}");
    stream.write_all(request.as_bytes()).unwrap();
}

/// What the log says of the request for this path: the seconds that it waited, and those that it took.
fn times(log: &mut impl BufRead, path: &str) -> (f64, f64) {
    let line = line(log);
    let (waited, taken) = line
        .strip_prefix(path)
        .and_then(|rest| rest.trim_start().split_once(' '))
        .unwrap_or_else(|| panic!("{line}"));
    let number = |text: &str| text.parse().unwrap();
    (number(waited), number(taken))
}

const TIMES: &str = "{path} {time_waited} {time_taken}";

#[test]
fn the_time_that_a_request_waited_for_a_thread_is_part_of_the_time_that_it_took() {
    for (threads, path) in [(1, "/held"), (0, "/stream")] {
        let (gate, is_in, open) = Gate::new();
        let (running, mut log) = logged(threads, TIMES, gate);
        // A server whose threads are busy accepts nobody, so all are there before.
        let mut kept = || kept(&running, &mut log);
        let (mut held, mut waiting, mut others) = (kept(), kept(), [(); 20].map(|()| kept()));
        ask_for(&mut held, path);
        is_in.recv().unwrap();
        ask_for(&mut waiting, "/waiting");
        // The loop takes in what comes in its order: when these are answered, the other two have come.
        for other in &mut others {
            other.write_all(b"\0").unwrap();
            let mut answer = String::new();
            other.read_to_string(&mut answer).unwrap();
            assert!(line(&mut log).starts_with("- 0.000000"));
        }
        open.send(()).unwrap();
        let (held_waited, held_taken) = times(&mut log, path);
        let (waited, taken) = times(&mut log, "/waiting");
        assert!(held_waited < held_taken && waited <= taken);
        assert!(waited > held_waited, "{waited} {held_waited}");
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        running.stop();
    }
}

#[test]
fn what_was_there_with_a_request_before_it_has_waited_for_it() {
    let (gate, is_in, open) = Gate::new();
    let (running, mut log) = logged(0, TIMES, gate);
    let mut kept = || kept(&running, &mut log);
    let (mut first, mut second, mut third) = (kept(), kept(), kept());
    ask_for(&mut first, "/held");
    is_in.recv().unwrap();
    // The loop finds both at the same time.
    ask_for(&mut second, "/held");
    ask_for(&mut third, "/third");
    open.send(()).unwrap();
    is_in.recv().unwrap();
    let since = Instant::now();
    first.read_to_end(&mut Vec::new()).unwrap();
    let held_for = since.elapsed().as_secs_f64();
    open.send(()).unwrap();
    times(&mut log, "/held");
    times(&mut log, "/held");
    let (waited, _) = times(&mut log, "/third");
    assert!(waited >= held_for, "{waited} {held_for}");
    for mut stream in [second, third] {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    running.stop();
}

#[test]
fn a_refusal_has_taken_as_long_as_its_request_was_on_its_way() {
    for threads in [0, 2] {
        let (gate, ..) = Gate::new();
        let (running, mut log) = logged(threads, "{status} {time_taken}", gate);
        ask(
            &running,
            "POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
        );
        let told = line(&mut log);
        let taken = told.strip_prefix("408 ").map(str::parse::<f64>);
        let taken = taken.unwrap_or_else(|| panic!("{told}")).unwrap();
        assert!((0.1..20.0).contains(&taken), "{taken}");
        running.stop();
    }
}

#[test]
fn of_a_file_the_bytes_that_were_sent_count() {
    for threads in [0, 2] {
        let (gate, ..) = Gate::new();
        let (running, mut log) = logged(threads, "{status} {bytes}", gate);
        let mut stream = running.connect();
        ask_for(&mut stream, "/file");
        stream.read_exact(&mut [0; 1000]).unwrap();
        drop(stream);
        let told = line(&mut log);
        let sent = told.strip_prefix("200 ").map(str::parse::<u64>);
        let sent = sent.unwrap_or_else(|| panic!("{told}")).unwrap();
        assert!((1..FILE).contains(&sent), "{sent}");

        let mut stream = running.connect();
        ask_for(&mut stream, "/file");
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(line(&mut log), format!("200 {FILE}"));
        running.stop();
    }
}
