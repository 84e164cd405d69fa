//! The probe of `check`: requests a page from a worker, or connects to it.
//!
//! It is this program, started by the master as `preforkd probe …` with an address, or with the worker's private
//! listener as descriptor 3, whose address it connects to. It reports a failure on standard error, which the master quotes.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use clap::Args;

use crate::sys;

/// The descriptor of the private listener.
const LISTENER: i32 = 3;

/// The time between two attempts.
pub const PAUSE: Duration = Duration::from_millis(500);

/// How long a connection must stay open at least. A program in front of the worker, or one that does not serve yet, closes it at once.
const OPEN: Duration = Duration::from_millis(200);

/// The maximum length of a status line.
const MAX_LINE: u64 = 1000;

/// The request to send and the answer to expect.
#[derive(Debug, Args)]
pub struct Question {
    /// The path and query; without it, a connection is enough.
    #[arg(long)]
    path: Option<String>,
    /// The Host field.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The expected status.
    #[arg(long, default_value_t = 200)]
    expect: u16,
    /// The time limit of an attempt, in milliseconds.
    #[arg(long)]
    timeout: u64,
    /// The number of attempts.
    #[arg(long)]
    attempts: u32,
    /// The address to ask at, instead of that of the private listener: "IP:PORT" or "unix:PATH".
    #[arg(long)]
    address: Option<OsString>,
}

/// Sends requests until one has the expected status, or the attempts are used up.
///
/// # Errors
/// Why the last attempt failed.
pub fn run(question: &Question) -> Result<(), String> {
    let address = match &question.address {
        Some(address) => Place::Address(address),
        None => {
            let listener = sys::adopt(LISTENER).map(UnixListener::from);
            let found = listener.and_then(|listener| listener.local_addr());
            let found =
                found.map_err(|error| format!("cannot find the listener to probe: {error}"))?;
            Place::Private(found)
        }
    };
    let mut left = question.attempts;
    loop {
        let answer = address.ask(question);
        let failure = match answer {
            Ok(_) if question.path.is_none() => return Ok(()),
            Ok(line) if status(&line) == Some(question.expect) => return Ok(()),
            Ok(line) => format!(
                "answered \"{}\", not {}",
                line.escape_debug(),
                question.expect
            ),
            Err(error) if is_late(&error) => {
                format!("did not answer within {} ms", question.timeout)
            }
            Err(error) => format!("failed: {error}"),
        };
        left = left.saturating_sub(1);
        if left == 0 {
            return Err(match (&question.path, address) {
                (Some(path), _) => format!("GET {path} {failure}"),
                (None, Place::Address(at)) => {
                    format!("the connection to {} {failure}", at.display())
                }
                (None, Place::Private(_)) => format!("the connection {failure}"),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Where to ask.
enum Place<'a> {
    Private(SocketAddr),
    Address(&'a OsString),
}

impl Place<'_> {
    fn ask(&self, question: &Question) -> io::Result<String> {
        let path = match self {
            Self::Private(address) => return ask(UnixStream::connect_addr(address)?, question),
            Self::Address(address) => address.as_bytes().strip_prefix(b"unix:"),
        };
        match (self, path) {
            (_, Some(path)) => ask(UnixStream::connect(OsStr::from_bytes(path))?, question),
            (Self::Address(address), None) => {
                let address = address.to_string_lossy().parse();
                let address = address.map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
                let time = Duration::from_millis(question.timeout.max(1));
                ask(TcpStream::connect_timeout(&address, time)?, question)
            }
            (Self::Private(_), None) => Err(ErrorKind::InvalidInput.into()),
        }
    }
}

/// A connection whose waits end.
trait Stream: Read + Write {
    fn limit(&self, read: Duration, write: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn limit(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read))?;
        self.set_write_timeout(Some(write))
    }
}

impl Stream for TcpStream {
    fn limit(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read))?;
        self.set_write_timeout(Some(write))
    }
}

/// Sends the request and returns the status line.
fn ask(mut stream: impl Stream, question: &Question) -> io::Result<String> {
    let time = Duration::from_millis(question.timeout.max(1));
    let began = Instant::now();
    stream.limit(time, time)?;
    let Question { path, host, .. } = question;
    let Some(path) = path else {
        return stays_open(stream, time);
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: preforkd-check\r\nConnection: close\r\n\r\n"
    );
    // A worker may answer and close before it has read the whole request; its answer counts.
    let _ = stream.write_all(request.as_bytes());
    let left = time.saturating_sub(began.elapsed());
    stream.limit(left.max(Duration::from_millis(1)), time)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
    match line.trim_end() {
        "" => Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it closed the connection",
        )),
        line => Ok(line.to_owned()),
    }
}

/// A connection is good if it is not closed at once. What the worker says, if it speaks first, does not matter.
fn stays_open(mut stream: impl Stream, time: Duration) -> io::Result<String> {
    stream.limit(OPEN.min(time), time)?;
    match stream.read(&mut [0]) {
        Ok(0) => Err(io::Error::other("it was closed at once")),
        Err(error) if !is_late(&error) => Err(error),
        Ok(_) | Err(_) => Ok(String::new()),
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The number in a status line: RFC 9112 section 4.
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            path: Some("/health".into()),
            host: "a.example".into(),
            expect: 200,
            timeout: 100,
            attempts: 1,
            address: None,
        }
    }

    #[test]
    fn the_answer_is_its_status_line() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs
            .write_all(b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n")
            .expect("room");
        let line = ask(ours, &question()).expect("an answer");
        assert_eq!(
            (line.as_str(), status(&line)),
            ("HTTP/1.1 204 No Content", Some(204))
        );
        theirs
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a time");
        let mut asked = String::new();
        theirs.read_to_string(&mut asked).expect("a request");
        assert!(
            asked.starts_with("GET /health HTTP/1.1\r\nHost: a.example\r\n"),
            "{asked}"
        );
    }

    #[test]
    fn no_answer_and_a_closed_connection_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(is_late(&ask(ours, &question()).expect_err("no answer")));
        drop(theirs);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let error = ask(ours, &question()).expect_err("an end");
        assert_eq!(error.to_string(), "it closed the connection");
    }

    #[test]
    fn a_connection_is_good_if_it_is_not_closed_at_once() {
        let connect = || {
            let question = Question {
                path: None,
                ..question()
            };
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            (move || ask(ours, &question), theirs)
        };
        let (silent, _theirs) = connect();
        assert!(silent().is_ok());
        let (spoken_to, mut theirs) = connect();
        theirs.write_all(b"220 hello\r\n").expect("room");
        drop(theirs);
        assert!(spoken_to().is_ok());
        let (closed, theirs) = connect();
        drop(theirs);
        let error = closed().expect_err("an end");
        assert_eq!(error.to_string(), "it was closed at once");
    }

    #[test]
    fn another_line_than_a_status_line_has_no_status() {
        for line in ["", "HTTP/1.1", "HTTP/1.1 abc", "SSH-2.0 200 x"] {
            assert_eq!(status(line), None, "{line}");
        }
    }
}
