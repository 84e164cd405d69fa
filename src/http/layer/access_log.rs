//! The access log: a line for each response, in the form that most tools call "combined", and the time it took.
//!
//! ```text
//! 203.0.113.7 - - [23/Nov/2026:04:39:23 +0000] "GET /a?b HTTP/1.1" 200 512 "https://a.example/" "curl/8.5.0" 0.003
//! ```
//!
//! It leads to a pipe that is never waited for: lines that find no room are counted and told.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Ended, Layer, Stages};
use crate::message::date;
use crate::net::descriptors::Own;

/// A pipe takes so many bytes at once or none: pipe(7), PIPE_BUF.
const PIECE: usize = 4096;
/// The longest request target, in bytes before it is escaped; a longer one is cut.
const TARGET: usize = 600;
/// The same for `Referer` and `User-Agent`.
const FIELD: usize = 150;

/// The access log as a layer. Only the loop's thread uses it, so nothing ever waits for the lock.
pub(super) struct AccessLog(Mutex<Lines>);

impl AccessLog {
    /// To a pipe with O_NONBLOCK.
    pub fn layer(pipe: OwnedFd) -> Arc<dyn Layer> {
        Arc::new(Self(Mutex::new(Lines::new(pipe))))
    }

    fn with(&self, act: impl FnOnce(&mut Lines)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Layer for AccessLog {
    fn stages(&self) -> Stages {
        Stages {
            ended: true,
            ..Stages::default()
        }
    }

    fn ended(&self, ended: &Ended<'_>) {
        self.with(|lines| lines.note(ended));
    }

    fn flush(&self) {
        self.with(Lines::flush);
    }
}

/// Collects lines, and writes them when the loop has time.
struct Lines {
    pipe: Own,
    buffer: Vec<u8>,
    lines: u64,
    lost: u64,
}

impl Lines {
    fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe: pipe.into(),
            buffer: Vec::with_capacity(PIECE),
            lines: 0,
            lost: 0,
        }
    }

    fn note(&mut self, entry: &Ended<'_>) {
        let line = line(entry);
        if self.buffer.len() + line.len() > PIECE {
            self.flush();
        }
        self.buffer.extend_from_slice(&line);
        self.lines += 1;
    }

    /// Hands the lines over, or counts them as lost.
    fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        if self.lost > 0 {
            let told = format!(
                "preforkd: {} access log lines were lost: the file was not written fast enough\n",
                self.lost
            );
            if rustix::io::write(&self.pipe, told.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        if rustix::io::write(&self.pipe, &self.buffer).is_err() {
            self.lost += self.lines;
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

fn line(entry: &Ended<'_>) -> Vec<u8> {
    let mut line = String::with_capacity(200);
    let date = date::now();
    let date = str::from_utf8(&date).unwrap_or_default();
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("-");
    // Writing to a string cannot fail, here and below.
    let client = entry.request.and_then(|request| request.facts()?.client);
    let _ = match client.or(entry.origin.peer.map(|peer| peer.ip())) {
        // A listener for both families sees IPv4 clients as IPv6; a log that is searched wants one form.
        Some(client) => write!(line, "{}", client.to_canonical()),
        None => write!(line, "-"),
    };
    let (day, month, year, time) = (part(5..7), part(8..11), part(12..16), part(17..25));
    let _ = write!(line, " - - [{day}/{month}/{year}:{time} +0000] ");
    match entry.request {
        Some(request) => {
            line.push('"');
            escape(&mut line, request.method(), FIELD);
            line.push(' ');
            escape(&mut line, request.target(), TARGET);
            line.push_str(if request.is_http11() {
                " HTTP/1.1\""
            } else {
                " HTTP/1.0\""
            });
        }
        None => line.push_str("\"-\""),
    }
    let _ = write!(line, " {} {}", entry.status, entry.bytes);
    for name in [&b"referer"[..], b"user-agent"] {
        line.push_str(" \"");
        match entry.request.and_then(|request| request.field(name)) {
            Some(value) => escape(&mut line, value, FIELD),
            None => line.push('-'),
        }
        line.push('"');
    }
    let (seconds, rest) = (
        entry.microseconds / 1_000_000,
        entry.microseconds % 1_000_000,
    );
    let _ = writeln!(line, " {seconds}.{:03}", rest / 1000);
    line.into_bytes()
}

/// What a client has sent must not look like another line or another field.
fn escape(line: &mut String, bytes: &[u8], most: usize) {
    for &byte in bytes.iter().take(most) {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(char::from(byte)),
        }
    }
    if bytes.len() > most {
        line.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::SocketAddr;

    use super::*;
    use crate::limits::Limits;
    use crate::message::request::Origin;
    use crate::proto::h1::connection::{Connection, Event};

    fn noted(head: &[u8]) -> String {
        noted_of(([203, 0, 113, 7], 5).into(), head)
    }

    fn noted_of(peer: SocketAddr, head: &[u8]) -> String {
        let mut connection = Connection::new(Limits::default().into());
        connection.receive(head);
        assert!(matches!(connection.advance(), Event::Request));
        let line = line(&Ended {
            origin: &Origin {
                listener: 0,
                peer: Some(peer),
                relayed: None,
            },
            request: Some(connection.request()),
            status: 404,
            bytes: 12,
            microseconds: 1_234_567,
        });
        String::from_utf8(line).expect("ASCII")
    }

    #[test]
    fn a_line_has_the_combined_form_and_the_time_taken() {
        let line = noted(b"GET /a?b HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8\r\n\r\n");
        let (before, after) = line.split_once("] ").expect("a date");
        assert_eq!(
            after,
            "\"GET /a?b HTTP/1.1\" 404 12 \"-\" \"curl/8\" 1.234\n"
        );
        let (peer, date) = before.split_once('[').expect("a date");
        assert_eq!(peer, "203.0.113.7 - - ");
        let form = |text: &str| Vec::from_iter(text.chars().map(|c| c.is_ascii_digit()));
        assert_eq!(form(&date[..2]), form("23"));
        assert_eq!(form(&date[7..]), form("2026:04:39:23 +0000"), "{date}");
    }

    #[test]
    fn a_client_of_ipv4_is_named_alike_whatever_listens() {
        for (peer, name) in [
            ("203.0.113.7:5", "203.0.113.7 - - "),
            ("[::ffff:203.0.113.7]:5", "203.0.113.7 - - "),
            ("[2001:db8::7]:5", "2001:db8::7 - - "),
        ] {
            let line = noted_of(peer.parse().unwrap(), b"GET / HTTP/1.0\r\n\r\n");
            assert!(line.starts_with(name), "{line}");
        }
    }

    #[test]
    fn a_client_cannot_forge_lines_or_fields() {
        let line = noted(b"GET /\"x HTTP/1.0\r\nUser-Agent: a\\\" \xe9\t\r\n\r\n");
        let forged = "\"GET /\\x22x HTTP/1.0\" 404 12 \"-\" \"a\\x5C\\x22 \\xE9\" 1.234\n";
        assert!(line.ends_with(forged), "{line}");
        let long = format!("GET /{} HTTP/1.0\r\n\r\n", "\"".repeat(5000));
        assert!(noted(long.as_bytes()).len() < PIECE);
    }

    #[test]
    fn lines_without_room_are_counted_and_told() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let mut log = Lines::new(write);
        let entry = Ended {
            origin: &Origin {
                listener: 0,
                peer: None,
                relayed: None,
            },
            request: None,
            status: 400,
            bytes: 0,
            microseconds: 0,
        };
        let mut noted = 0;
        while log.lost == 0 {
            log.note(&entry);
            noted += 1;
        }
        let mut read = std::fs::File::from(read);
        let mut buffer = [0; PIECE];
        let mut text = Vec::new();
        while let Ok(n @ 1..) = read.read(&mut buffer) {
            text.extend_from_slice(&buffer[..n]);
        }
        let lost = log.lost;
        log.note(&entry);
        log.flush();
        let n = read.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8(text).unwrap();
        let told = format!(
            "preforkd: {lost} access log lines were lost: the file was not written fast enough\n"
        );
        assert!(text.contains(&told), "{text}");
        assert_eq!(
            text.matches("\"-\" 400 0 \"-\" \"-\" 0.000\n").count() as u64 + lost,
            noted + 1
        );
    }
}
