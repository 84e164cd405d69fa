//! The probe of `check`: requests a page from the first worker of a new generation.
//!
//! It is this program, started by the master as `preforkd probe …` with the worker's private listener as descriptor 3,
//! whose address it connects to. It reports a failure on standard error, which the master quotes.

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

/// The maximum length of a status line.
const MAX_LINE: u64 = 1000;

/// The request to send and the answer to expect.
#[derive(Debug, Args)]
pub struct Question {
    /// The path and query.
    #[arg(long)]
    path: String,
    /// The Host field.
    #[arg(long)]
    host: String,
    /// The expected status.
    #[arg(long)]
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
            return Err(format!("GET {} {failure}", question.path));
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
            path: "/health".into(),
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
    fn another_line_than_a_status_line_has_no_status() {
        for line in ["", "HTTP/1.1", "HTTP/1.1 abc", "SSH-2.0 200 x"] {
            assert_eq!(status(line), None, "{line}");
        }
    }
}
