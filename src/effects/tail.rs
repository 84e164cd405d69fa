//! The last output of a process on standard error while it starts, so that a failure message can quote it.
//!
//! Standard error is a pipe until the process is ready, and the master forwards what it reads from it. A process that writes
//! faster than the master forwards costs a bounded part of each turn: only a few thousand bytes are kept, and they are parsed
//! only when they are quoted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use preforkd_worker::text::clean;

use crate::plan::LogFile;

/// The maximum number of quoted lines: the place in Python code, and the exception.
const LINES: usize = 3;
/// The maximum number of quoted characters.
const MAX_QUOTE: usize = 600;
/// The capacity of the pipe, in bytes: the default limit of pipe(7).
const PIPE_SIZE: i32 = 1 << 20;
/// The maximum number of bytes to read per turn: a process that writes a lot must not hold up the master.
const TURN: usize = 64 * 1024;
/// A line without an end is forwarded in pieces of this many bytes, which a pipe takes at once: pipe(7), PIPE_BUF.
const PIECE: usize = 4096;
/// The number of bytes to keep: the quoted characters of up to four bytes each, and lines in between that are not quoted.
const KEPT: usize = 8 * 1024;

/// Where the output of a process is forwarded to.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A log file.
    File(LogFile),
    /// The master's own standard error.
    Stderr,
    /// Nowhere.
    Nowhere,
}

/// How far reading got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// Everything that was available.
    All,
    /// The same, and it ends within a line, which waits for its end.
    Unfinished,
    /// Up to the limit; there is more.
    Enough,
    /// To the end: no process can write more.
    End,
}

/// The read end of a process's standard error.
pub struct Tail {
    pipe: OwnedFd,
    /// Where it is forwarded to.
    pub to: Destination,
    /// An incomplete line.
    unfinished: Vec<u8>,
    /// The end of what was forwarded.
    last: VecDeque<u8>,
}

impl Tail {
    /// A pipe that is forwarded to `file` or else to standard error. The second value is for the process.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn new(file: Option<LogFile>) -> io::Result<(Self, OwnedFd)> {
        Self::to(file.map_or(Destination::Stderr, Destination::File))
    }

    /// A pipe whose content is quoted but not forwarded.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn quoted_only() -> io::Result<(Self, OwnedFd)> {
        Self::to(Destination::Nowhere)
    }

    fn to(to: Destination) -> io::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Open in both directions, so that the pipe has a reader even when the master has died, and SIGPIPE does not kill the
        // process while it finishes its requests: fifo(7). Nothing reads it then, hence the capacity; a smaller one will do if
        // the user has reached its limit.
        let _ = fcntl(&theirs, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        let both = format!("/proc/self/fd/{}", theirs.as_raw_fd());
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let theirs = open(both.as_str(), flags, Mode::empty()).unwrap_or(theirs);
        let tail = Self {
            pipe,
            to,
            unfinished: Vec::new(),
            last: VecDeque::new(),
        };
        Ok((tail, theirs))
    }

    /// The same, as it is lent.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Reads up to `TURN` bytes and forwards them in whole lines, a few thousand bytes at a time.
    pub fn read(&mut self, forward: &mut dyn FnMut(&[u8])) -> ReadState {
        self.read_some(TURN, forward)
    }

    /// Reads everything that a process can have left when it ended, even if other processes go on writing.
    pub fn read_rest(&mut self, forward: &mut dyn FnMut(&[u8])) -> ReadState {
        self.read_some(PIPE_SIZE as usize, forward)
    }

    fn read_some(&mut self, most: usize, forward: &mut dyn FnMut(&[u8])) -> ReadState {
        let mut buffer = [0; 16 * 1024];
        let mut left = most;
        while left > 0 {
            match nix::unistd::read(&self.pipe, &mut buffer) {
                Ok(n @ 1..) => {
                    self.take(&buffer[..n], forward);
                    left = left.saturating_sub(n);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.unfinished.is_empty() => return ReadState::All,
                Err(Errno::EAGAIN) => return ReadState::Unfinished,
                Ok(0) | Err(_) => {
                    self.finish(forward);
                    return ReadState::End;
                }
            }
        }
        ReadState::Enough
    }

    /// The process has ended: forwards an incomplete line.
    pub fn finish(&mut self, forward: &mut dyn FnMut(&[u8])) {
        if !self.unfinished.is_empty() {
            self.take(b"\n", forward);
        }
    }

    /// The end of a line has not come soon: forwards its beginning, which may be a prompt.
    pub fn flush(&mut self, forward: &mut dyn FnMut(&[u8])) {
        forward(&self.unfinished);
        self.keep(self.unfinished.len());
    }

    fn take(&mut self, bytes: &[u8], forward: &mut dyn FnMut(&[u8])) {
        self.unfinished.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            let rest = &self.unfinished[done..];
            let most = &rest[..rest.len().min(PIECE)];
            let length = match most.iter().rposition(|&b| b == b'\n') {
                Some(newline) => newline + 1,
                None if most.len() == PIECE => PIECE,
                None => break,
            };
            forward(&most[..length]);
            done += length;
        }
        self.keep(done);
    }

    /// Keeps as much of what was forwarded as may be quoted.
    fn keep(&mut self, done: usize) {
        let kept = done.saturating_sub(KEPT);
        let surplus = (self.last.len() + done - kept).saturating_sub(KEPT);
        self.last.drain(..surplus);
        self.last.extend(&self.unfinished[kept..done]);
        self.unfinished.drain(..done);
    }

    /// The last lines, joined; truncated at the start if they are long.
    pub fn last_output(&self) -> Option<String> {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text
            .lines()
            .filter_map(|line| quotable(clean(line.trim(), usize::MAX)))
            .collect();
        let from = innermost_frames(&lines).unwrap_or(lines.len().saturating_sub(LINES));
        let to = lines.len().min(from + LINES);
        let output = lines[from..to].join(" | ");
        let surplus = output.chars().count().saturating_sub(MAX_QUOTE);
        let output: String = output.chars().skip(surplus).collect();
        let cut = if surplus > 0 { "…" } else { "" };
        (!output.is_empty()).then(|| format!("{cut}{output}"))
    }
}

/// Where the stack of the thread begins in which Python died: faulthandler(3py) shows the innermost frames first.
fn innermost_frames(lines: &[String]) -> Option<usize> {
    let fatal = |line: &String| line.starts_with("Fatal Python error: ");
    let error = lines.iter().rposition(fatal)?;
    let thread = |line: &String| line.starts_with("Current thread ");
    let stack = lines[error..].iter().position(thread)?;
    Some(error + stack + 1)
}

/// What of a line is worth to be quoted: not what a worker says at each start, nor who says it, as the line around the quote does.
fn quotable(line: String) -> Option<String> {
    // Python underlines the place of an error.
    if line.chars().all(|c| "^~ ".contains(c)) {
        return None;
    }
    // A priority for the journal: sd-daemon(3).
    let plain = match line.as_bytes() {
        [b'<', b'0'..=b'7', b'>', ..] => line[3..].trim_start().to_owned(),
        _ => line.clone(),
    };
    let Some((head, message)) = line.split_once(": ") else {
        return Some(plain);
    };
    let (start, who) = head.split_at(head.find("app=").unwrap_or(0));
    let mut words = who.split(' ');
    let is_ours = ["app=", "worker=", "gen=", "pid="]
        .iter()
        .all(|key| words.next().is_some_and(|word| word.starts_with(key)))
        && words.next().is_none();
    match is_ours {
        true if start.contains(" INFO ") || start == "<6>" => None,
        true => Some(message.to_owned()),
        false => Some(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pieces: &[&[u8]]) -> (Vec<u8>, Option<String>) {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        let mut passed = Vec::new();
        for piece in pieces {
            nix::unistd::write(&theirs, piece).expect("room");
            let expected = match piece.ends_with(b"\n") {
                true => ReadState::All,
                false => ReadState::Unfinished,
            };
            assert_eq!(
                tail.read(&mut |bytes| passed.extend_from_slice(bytes)),
                expected
            );
        }
        drop(theirs);
        let state = tail.read(&mut |bytes| passed.extend_from_slice(bytes));
        assert_eq!(state, ReadState::End, "the other end is closed");
        (passed, tail.last_output())
    }

    #[test]
    fn everything_is_forwarded_and_the_end_is_quoted() {
        let (passed, output) = read_all(&[b"one\ntw", b"o\n\nthree\n  ^^^\nfour"]);
        assert_eq!(passed, b"one\ntwo\n\nthree\n  ^^^\nfour\n");
        assert_eq!(output.as_deref(), Some("two | three | four"));
    }

    #[test]
    fn lines_without_end_are_forwarded_in_pieces_and_quoted_by_their_end() {
        let long = [b'x'; 10_000];
        let (passed, output) = read_all(&[&long, b"the end"]);
        assert_eq!(passed.len(), 10_008);
        let output = output.expect("some");
        assert!(
            output.starts_with('…') && output.ends_with("the end"),
            "{output}"
        );
        assert_eq!(output.chars().count(), MAX_QUOTE + 1);
    }

    #[test]
    fn the_beginning_of_a_line_is_forwarded_once() {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        let mut passed = Vec::new();
        for piece in [&b"one\nPass"[..], b"word: ", b"x\n"] {
            nix::unistd::write(&theirs, piece).expect("room");
            tail.read(&mut |bytes| passed.extend_from_slice(bytes));
            tail.flush(&mut |bytes| passed.extend_from_slice(bytes));
        }
        tail.finish(&mut |bytes| passed.extend_from_slice(bytes));
        assert_eq!(passed, b"one\nPassword: x\n");
        assert_eq!(tail.last_output().as_deref(), Some("one | Password: x"));
    }

    #[test]
    fn lines_of_a_worker_of_ours_are_quoted_without_what_is_known() {
        for (info, error) in [
            (
                "2026-01-02T03:04:05.678Z INFO  app=web worker=0 gen=1 pid=7: Python 3.11.7, /usr/bin/python3",
                "2026-01-02T03:04:05.679Z ERROR app=web worker=template gen=1 pid=7: web:app is: a class",
            ),
            (
                "<6>app=web worker=0 gen=1 pid=7: Python 3.11.7, /usr/bin/python3",
                "<3>app=web worker=0 gen=1 pid=7: web:app is: a class",
            ),
        ] {
            let (_, output) = read_all(&[format!("{info}\n{error}\n").as_bytes()]);
            assert_eq!(output.as_deref(), Some("web:app is: a class"));
            assert_eq!(read_all(&[info.as_bytes()]).1, None);
        }
        let other = "<3>the app=a said: x\n<7>key: value";
        let (_, output) = read_all(&[other.as_bytes()]);
        assert_eq!(output.as_deref(), Some("the app=a said: x | key: value"));
    }

    #[test]
    fn of_a_fatal_error_the_innermost_frames_are_quoted() {
        let dump = "before\nFatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File \"other.py\", line 1 in wait\n\n\
                    Current thread 0x2 (most recent call first):\n  File \"a.py\", line 1 in f\n  File \"b.py\", line 2 in g\n  \
                    File \"c.py\", line 3 in h\n  File \"d.py\", line 4 in i\n";
        let (_, output) = read_all(&[dump.as_bytes()]);
        assert_eq!(
            output.as_deref(),
            Some(
                "File \"a.py\", line 1 in f | File \"b.py\", line 2 in g | File \"c.py\", line 3 in h"
            )
        );
    }

    #[test]
    fn without_output_there_is_nothing_to_quote() {
        assert_eq!(read_all(&[]), (Vec::new(), None));
    }

    #[test]
    fn the_quoted_output_is_plain_text_of_one_direction() {
        let said = "\x1b[31mred\x07 \u{202e}txt.exe\u{202c}\u{2066}\u{200f}\u{2028}\n\r\n";
        let (passed, output) = read_all(&[said.as_bytes()]);
        assert_eq!(passed, said.as_bytes());
        assert_eq!(output.as_deref(), Some("[31mred txt.exe"));
    }

    #[test]
    fn only_the_end_of_a_flood_is_kept() {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        for number in 0..10_000 {
            let line = format!("line {number}\n");
            nix::unistd::write(&theirs, line.as_bytes()).expect("room");
        }
        while tail.read(&mut |_| {}) == ReadState::Enough {}
        assert!(tail.last.len() <= KEPT && tail.unfinished.is_empty());
        let output = tail.last_output();
        assert_eq!(output.as_deref(), Some("line 9997 | line 9998 | line 9999"));
    }

    #[test]
    fn a_lot_of_output_is_read_in_parts() {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        let line = [b'x'; 4096];
        let said = PIPE_SIZE as usize / line.len();
        for _ in 0..said {
            nix::unistd::write(&theirs, &line).expect("room");
        }
        let mut passed = 0;
        let mut parts = 1;
        while tail.read(&mut |bytes| passed += bytes.len()) == ReadState::Enough {
            assert_eq!(passed, parts * TURN);
            parts += 1;
        }
        assert_eq!(passed, said * line.len());
    }
}
