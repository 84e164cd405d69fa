//! The end of what a process says on standard error while it starts, so that the reason of a failure can quote it.
//!
//! Standard error is a pipe meanwhile, and the master passes on what it reads there. A process that says more than can be
//! passed on costs a bounded part of each turn: what is kept of it is a few thousand bytes, which are looked at when they are
//! asked for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use preforkd_worker::text::clean;

use crate::plan::LogFile;

/// So many lines are quoted at most: where Python was, and the exception.
const LINES: usize = 3;
/// As many characters are quoted at most.
const LONGEST: usize = 300;
/// What the pipe holds, in bytes: as much as anybody may ask for (pipe(7)).
const ROOM: i32 = 1 << 20;
/// As many bytes are read at a time: whoever says more than can be passed on must not hold the master up.
const TURN: usize = 64 * 1024;
/// A line without an end is passed on in pieces of so many bytes; a pipe takes them at once: pipe(7), PIPE_BUF.
const PIECE: usize = 4096;
/// As many bytes are kept of the end: what is quoted, in characters of four bytes, among lines that are not quoted.
const KEPT: usize = 8 * 1024;

/// Who else hears what a process says.
#[derive(Debug, Clone)]
pub enum Listener {
    /// Who reads the log file.
    File(LogFile),
    /// Who reads the master's own standard error.
    Errors,
    /// Nobody.
    Nobody,
}

/// How far reading went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Everything that was there.
    All,
    /// Enough for now; there is more.
    Enough,
    /// Everything, and nobody can say more.
    End,
}

/// The reading end of a process's standard error.
pub struct Tail {
    pipe: OwnedFd,
    /// Where it is passed on to.
    pub to: Listener,
    /// A line that has not ended.
    unfinished: Vec<u8>,
    /// The end of what was passed on.
    last: VecDeque<u8>,
}

impl Tail {
    /// A pipe for a process, to be passed on to `file` or else to standard error. The second value is for the process.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn new(file: Option<LogFile>) -> io::Result<(Self, OwnedFd)> {
        Self::to(file.map_or(Listener::Errors, Listener::File))
    }

    /// A pipe for a process whose words are only quoted.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn unheard() -> io::Result<(Self, OwnedFd)> {
        Self::to(Listener::Nobody)
    }

    fn to(to: Listener) -> io::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Open for both directions, so that the process has a reader even when the master has died, and is not
        // killed by SIGPIPE while it finishes what it serves: fifo(7).
        // Nobody reads then, so there is room for what is said meanwhile; less will do, where so much may not be had.
        let _ = fcntl(&theirs, FcntlArg::F_SETPIPE_SZ(ROOM));
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

    /// For the poll.
    pub fn fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Reads what there is, or a part of much, and passes it on in whole lines, a few thousand bytes at a time.
    pub fn read(&mut self, pass_on: &mut dyn FnMut(&[u8])) -> Heard {
        self.read_some(TURN, pass_on)
    }

    /// Reads all that a process can have left behind when it ended, even if others go on to write.
    pub fn read_rest(&mut self, pass_on: &mut dyn FnMut(&[u8])) -> Heard {
        self.read_some(ROOM as usize, pass_on)
    }

    fn read_some(&mut self, most: usize, pass_on: &mut dyn FnMut(&[u8])) -> Heard {
        let mut buffer = [0; 16 * 1024];
        let mut left = most;
        while left > 0 {
            match nix::unistd::read(&self.pipe, &mut buffer) {
                Ok(n @ 1..) => {
                    self.take(&buffer[..n], pass_on);
                    left = left.saturating_sub(n);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Heard::All,
                Ok(0) | Err(_) => {
                    self.finish(pass_on);
                    return Heard::End;
                }
            }
        }
        Heard::Enough
    }

    /// The process has ended: what was left of a line.
    pub fn finish(&mut self, pass_on: &mut dyn FnMut(&[u8])) {
        if !self.unfinished.is_empty() {
            self.take(b"\n", pass_on);
        }
    }

    fn take(&mut self, bytes: &[u8], pass_on: &mut dyn FnMut(&[u8])) {
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
            pass_on(&most[..length]);
            done += length;
        }
        let kept = done.saturating_sub(KEPT);
        let surplus = (self.last.len() + done - kept).saturating_sub(KEPT);
        self.last.drain(..surplus);
        self.last.extend(&self.unfinished[kept..done]);
        self.unfinished.drain(..done);
    }

    /// The last lines in one; the end of them if they are long.
    pub fn last_words(&self) -> Option<String> {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text
            .lines()
            .rev()
            .map(|line| clean(line.trim(), usize::MAX))
            // Python underlines the place of an error.
            .filter(|line| !line.chars().all(|c| "^~ ".contains(c)))
            .take(LINES)
            .collect();
        lines.reverse();
        let words = lines.join(" | ");
        let surplus = words.chars().count().saturating_sub(LONGEST);
        let words: String = words.chars().skip(surplus).collect();
        let cut = if surplus > 0 { "…" } else { "" };
        (!words.is_empty()).then(|| format!("{cut}{words}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(pieces: &[&[u8]]) -> (Vec<u8>, Option<String>) {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        let mut passed = Vec::new();
        for piece in pieces {
            nix::unistd::write(&theirs, piece).expect("room");
            assert_eq!(
                tail.read(&mut |bytes| passed.extend_from_slice(bytes)),
                Heard::All
            );
        }
        drop(theirs);
        let heard = tail.read(&mut |bytes| passed.extend_from_slice(bytes));
        assert_eq!(heard, Heard::End, "the other end is closed");
        (passed, tail.last_words())
    }

    #[test]
    fn everything_is_passed_on_and_the_end_is_quoted() {
        let (passed, words) = hear(&[b"one\ntw", b"o\n\nthree\n  ^^^\nfour"]);
        assert_eq!(passed, b"one\ntwo\n\nthree\n  ^^^\nfour\n");
        assert_eq!(words.as_deref(), Some("two | three | four"));
    }

    #[test]
    fn lines_without_end_are_passed_on_in_pieces_and_quoted_by_their_end() {
        let long = [b'x'; 10_000];
        let (passed, words) = hear(&[&long, b"the end"]);
        assert_eq!(passed.len(), 10_008);
        let words = words.expect("some");
        assert!(
            words.starts_with('…') && words.ends_with("the end"),
            "{words}"
        );
        assert_eq!(words.chars().count(), LONGEST + 1);
    }

    #[test]
    fn silence_has_no_last_words() {
        assert_eq!(hear(&[]), (Vec::new(), None));
    }

    #[test]
    fn the_last_words_are_plain_text_of_one_direction() {
        let said = "\x1b[31mred\x07 \u{202e}txt.exe\u{202c}\u{2066}\u{200f}\u{2028}\n\r\n";
        let (passed, words) = hear(&[said.as_bytes()]);
        assert_eq!(passed, said.as_bytes());
        assert_eq!(words.as_deref(), Some("[31mred txt.exe"));
    }

    #[test]
    fn what_is_kept_of_a_flood_is_its_end_and_no_more() {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        for number in 0..10_000 {
            let line = format!("line {number}\n");
            nix::unistd::write(&theirs, line.as_bytes()).expect("room");
        }
        while tail.read(&mut |_| {}) == Heard::Enough {}
        assert!(tail.last.len() <= KEPT && tail.unfinished.is_empty());
        let words = tail.last_words();
        assert_eq!(words.as_deref(), Some("line 9997 | line 9998 | line 9999"));
    }

    #[test]
    fn who_says_much_is_heard_in_parts() {
        let (mut tail, theirs) = Tail::new(None).expect("a pipe");
        let line = [b'x'; 4096];
        let said = ROOM as usize / line.len();
        for _ in 0..said {
            nix::unistd::write(&theirs, &line).expect("room");
        }
        let mut passed = 0;
        let mut parts = 1;
        while tail.read(&mut |bytes| passed += bytes.len()) == Heard::Enough {
            assert_eq!(passed, parts * TURN);
            parts += 1;
        }
        assert_eq!(passed, said * line.len());
    }
}
