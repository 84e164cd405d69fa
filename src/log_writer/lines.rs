//! What was read from the pipe and not written yet.

use std::io::{self, Read};

/// How much is read before it is written. If the writer is killed in between, this much is lost. A larger one is hardly faster.
const BUFFER: usize = 16 * 1024;

/// What was read and not written yet. Where more is waiting to be read, only whole lines are written, as another writer may write
/// to the same file. With a prefix, which says whose line it is, lines are written only when they are whole.
pub struct Lines {
    buffer: [u8; BUFFER],
    length: usize,
    /// So much of it was given out.
    given: usize,
    prefix: Option<Vec<u8>>,
    /// The lines that were given out last, with their prefix.
    prefixed: Vec<u8>,
}

impl Lines {
    /// None yet. Each line gets this prefix.
    pub fn new(prefix: Option<&str>) -> Self {
        Self {
            buffer: [0; BUFFER],
            length: 0,
            given: 0,
            prefix: prefix.map(|prefix| prefix.as_bytes().to_vec()),
            prefixed: Vec::new(),
        }
    }

    /// Reads more.
    ///
    /// # Errors
    /// As [`Read::read`].
    pub fn read(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.given..self.length, 0);
        self.length -= self.given;
        self.given = 0;
        let n = from.read(&mut self.buffer[self.length..])?;
        self.length += n;
        Ok(n)
    }

    /// More has arrived: the whole lines if the buffer is full or there is a prefix, else everything.
    pub fn arrived(&mut self) -> &[u8] {
        let last = self.buffer[..self.length]
            .iter()
            .rposition(|&byte| byte == b'\n');
        let end = match last {
            Some(last) if self.length == BUFFER || self.prefix.is_some() => last + 1,
            None if self.length < BUFFER && self.prefix.is_some() => 0,
            _ => self.length,
        };
        self.give(end)
    }

    /// Nothing more waits to be read: everything that is left, if it need not be whole.
    pub fn waiting(&mut self) -> &[u8] {
        match self.prefix {
            Some(_) => &[],
            None => self.give(self.length),
        }
    }

    /// Whether the beginning of a line waits for its end.
    pub fn has_unfinished(&self) -> bool {
        self.given < self.length
    }

    /// No more will come, or not soon: everything that is left. With a prefix, the line ends there.
    pub fn last(&mut self) -> &[u8] {
        self.give(self.length)
    }

    fn give(&mut self, end: usize) -> &[u8] {
        let from = std::mem::replace(&mut self.given, end);
        let given = &self.buffer[from..end];
        let Some(prefix) = &self.prefix else {
            return given;
        };
        self.prefixed.clear();
        for line in given.split_inclusive(|&byte| byte == b'\n') {
            let (priority, text) = line.split_at(priority(line));
            let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
            self.prefixed
                .extend([priority, prefix, text, end].into_iter().flatten());
        }
        &self.prefixed
    }
}

/// The length of the priority that a line for the journal begins with: sd-daemon(3).
fn priority(line: &[u8]) -> usize {
    match line {
        [b'<', b'0'..=b'7', b'>', ..] => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_is_written_up_to_its_last_line() {
        let mut lines = Lines::new(None);
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let text = line.repeat(BUFFER / 100 + 1);
        let mut from = &text[..];
        assert_eq!(lines.read(&mut from).expect("memory"), BUFFER);
        assert_eq!(lines.arrived().len(), BUFFER / 100 * 100);
        assert!(lines.read(&mut from).expect("memory") > 0);
        assert_eq!(lines.arrived(), line);
        assert!(lines.waiting().is_empty());
        // A line that is longer than the buffer cannot be written whole.
        lines.read(&mut &[b'y'; 2 * BUFFER][..]).expect("memory");
        assert_eq!(lines.arrived().len(), BUFFER);
        let mut lines = Lines::new(None);
        lines.read(&mut &text[..BUFFER]).expect("memory");
        let whole = lines.arrived().len();
        assert_eq!(lines.waiting().len(), BUFFER - whole);
    }

    #[test]
    fn lines_with_a_prefix_are_whole() {
        let mut lines = Lines::new(Some("web/3: "));
        let mut said = Vec::new();
        for piece in ["one\ntw", "o\n\n<3>bad\n<9>\nhal", "f"] {
            lines.read(&mut piece.as_bytes()).expect("memory");
            said.extend_from_slice(lines.arrived());
            said.extend_from_slice(lines.waiting());
        }
        let expected = "web/3: one\nweb/3: two\nweb/3: \n<3>web/3: bad\nweb/3: <9>\n";
        assert_eq!(String::from_utf8_lossy(&said), expected);
        assert!(lines.has_unfinished());
        assert_eq!(lines.last(), b"web/3: half\n");
        assert!(!lines.has_unfinished());
        assert!(lines.last().is_empty());
        // A line that is longer than the buffer is cut.
        lines.read(&mut &[b'y'; 2 * BUFFER][..]).expect("memory");
        let long = lines.arrived();
        assert_eq!(long.len(), BUFFER + "web/3: \n".len());
        assert!(long.ends_with(b"y\n"));
    }
}
