//! The process behind `check`: asks the first worker of a new generation for a page, as the configuration says.
//!
//! It is this program, started by the master as `preforkd probe …` with the worker's private listener as descriptor 3,
//! whose address it takes. What is wrong goes to standard error, which the master quotes.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use clap::Args;

use crate::sys;

/// The private listener, as the master passes it.
const LISTENER: i32 = 3;

/// The time from a failed attempt to the next one.
pub const PAUSE: Duration = Duration::from_millis(500);

/// A status line is not longer.
const LONGEST: u64 = 1000;

/// What is asked for.
#[derive(Debug, Args)]
pub struct Question {
    /// The path and query.
    #[arg(long)]
    path: String,
    /// The Host field.
    #[arg(long)]
    host: String,
    /// The status that is as it should be.
    #[arg(long)]
    expect: u16,
    /// The time of an attempt, in milliseconds.
    #[arg(long)]
    timeout: u64,
    /// How many attempts.
    #[arg(long)]
    attempts: u32,
}

/// Asks until the answer is as it should be, or the attempts are used up.
///
/// # Errors
/// What was wrong at the last attempt, in words.
pub fn run(question: &Question) -> Result<(), String> {
    let listener = sys::adopt(LISTENER).map(UnixListener::from);
    let address = listener.and_then(|listener| listener.local_addr());
    let address = address.map_err(|error| format!("there is no listener to probe: {error}"))?;
    let mut left = question.attempts;
    loop {
        let stream = UnixStream::connect_addr(&address);
        let answer = stream.and_then(|stream| ask(stream, question));
        let said = match answer {
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
            return Err(format!("GET {} {said}", question.path));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The status line of the answer.
fn ask(mut stream: UnixStream, question: &Question) -> io::Result<String> {
    let time = Duration::from_millis(question.timeout.max(1));
    let began = Instant::now();
    stream.set_write_timeout(Some(time))?;
    let Question { path, host, .. } = question;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: preforkd-check\r\nConnection: close\r\n\r\n"
    );
    // Who answers before it has read all may close early; the answer counts.
    let _ = stream.write_all(request.as_bytes());
    let left = time.saturating_sub(began.elapsed());
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
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
    fn silence_and_an_end_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        assert!(is_late(&ask(ours, &question()).expect_err("silence")));
        drop(theirs);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let error = ask(ours, &question()).expect_err("an end");
        assert_eq!(error.to_string(), "it closed the connection");
    }

    #[test]
    fn what_is_no_status_line_has_no_status() {
        for line in ["", "HTTP/1.1", "HTTP/1.1 abc", "SSH-2.0 200 x"] {
            assert_eq!(status(line), None, "{line}");
        }
    }
}
