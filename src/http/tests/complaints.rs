//! What the log says of responses that are not what they claim to be.

// Only some of it is needed here.
#[allow(dead_code)]
mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

use common::start;
use preforkd_http::{Body, Exchange, Handler, Limits, Origin, Request};

/// Hands warnings on.
struct Lines(OnceLock<Mutex<Sender<String>>>);

static LINES: Lines = Lines(OnceLock::new());

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            let lines = self.0.get().expect("set before").lock().unwrap();
            lines.send(line).unwrap();
        }
    }

    fn flush(&self) {}
}

/// The lines from now on.
fn lines() -> Receiver<String> {
    let (sender, lines) = channel();
    assert!(LINES.0.set(Mutex::new(sender)).is_ok());
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    lines
}

/// The size of the file, which no socket takes at once.
const SIZE: u64 = 64 << 20;

/// Gives `abc`, and declares another length; or a file.
#[derive(Clone)]
struct Wrong(Arc<File>);

impl Handler for Wrong {
    fn call(
        &mut self,
        request: Request<'_>,
        _: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        exchange.begin(b"200 OK").unwrap();
        if request.path() == b"/file" {
            exchange.finish(Some(SIZE));
            exchange.send_file(self.0.try_clone().unwrap(), 0, SIZE);
            return exchange;
        }
        exchange
            .field(b"Content-Length", &request.path()[1..])
            .unwrap();
        exchange.finish(None);
        exchange.write(b"ab");
        exchange.write(b"c");
        exchange.end();
        exchange
    }
}

#[test]
fn the_log_says_which_responses_are_not_what_they_claim_to_be() {
    let lines = lines();
    for threads in [0, 2] {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        let file = Arc::new(file);
        let running = start(threads, Limits::default(), Wrong(file.clone()));
        let ask = |method: &str, path: &str| {
            let mut stream = running.connect();
            let fields = "Host: a\r\nConnection: close\r\n";
            write!(stream, "{method} {path} HTTP/1.1\r\n{fields}\r\n").unwrap();
            let mut answer = String::new();
            // One that breaks off may be reset.
            let _ = stream.read_to_string(&mut answer);
        };
        for (method, path) in [("GET", "/3"), ("HEAD", "/2"), ("GET", "/2")] {
            ask(method, path);
        }
        let expected = "the body of the response to \"GET /2 HTTP/1.1\" has 3 bytes, and its Content-Length is 2: \
                        sending no more than that";
        assert_eq!(lines.recv().unwrap(), expected);
        // Many such responses must not fill the log.
        for _ in 0..20 {
            ask("GET", "/2");
        }
        for _ in 0..20 {
            ask("GET", "/9");
        }
        let expected = "the body of the response to \"GET /9 HTTP/1.1\" has 3 bytes, and its Content-Length is 9: \
                        closing the connection";
        assert_eq!(lines.recv().unwrap(), expected);

        let mut stream = running.connect();
        write!(stream, "GET /file HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
        file.set_len(10).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let line = lines.recv().unwrap();
        let start = "could not send a file whole in response to \"GET /file HTTP/1.1\": it has become shorter meanwhile";
        assert!(line.starts_with(start), "{line}");
        running.stop();
        assert!(lines.try_recv().is_err());
    }
}
