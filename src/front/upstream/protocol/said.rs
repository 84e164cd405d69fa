//! Text that an application writes for the log, beside its response.

use std::mem;

/// The most bytes of a line.
const MOST_OF_LINE: usize = 4096;
/// The most bytes of one request.
const MOST: usize = 64 * 1024;

/// Lines that arrive.
#[derive(Debug, Default)]
pub struct Said {
    line: Vec<u8>,
    lines: Vec<String>,
    bytes: usize,
    is_full: bool,
}

impl Said {
    /// Takes a part of the text.
    pub fn take(&mut self, text: &[u8]) {
        if self.is_full {
            return;
        }
        let (fits, rest) = text.split_at(text.len().min(MOST - self.bytes));
        self.bytes += fits.len();
        for &byte in fits {
            match byte {
                b'\n' => self.end(),
                _ => self.line.push(byte),
            }
            if self.line.len() >= MOST_OF_LINE {
                self.end();
            }
        }
        if !rest.is_empty() {
            self.end();
            self.lines
                .push("(the rest of what it has written for this request is left out)".into());
            self.is_full = true;
        }
    }

    /// The line is complete.
    pub fn end(&mut self) {
        let line = mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = preforkd_worker::text::clean(&line, MOST_OF_LINE);
        if !line.trim().is_empty() {
            self.lines.push(line);
        }
    }

    /// The lines that are complete.
    pub fn lines(&mut self) -> Vec<String> {
        mem::take(&mut self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_cleaned_and_bounded() {
        let mut said = Said::default();
        for part in ["PHP No", "tice\x1b[31m\r\n\nse", "cond"] {
            said.take(part.as_bytes());
        }
        assert_eq!(said.lines(), ["PHP Notice[31m"]);
        said.end();
        assert_eq!(said.lines(), ["second"]);
        for _ in 0..3 {
            said.take(&[b'x'; MOST / 2]);
        }
        let lines = said.lines();
        assert_eq!(
            lines.iter().filter(|line| line.starts_with('x')).count(),
            MOST / MOST_OF_LINE
        );
        assert!(lines.last().is_some_and(|line| line.contains("left out")));
        said.take(b"more\n");
        assert_eq!(said.lines(), [""; 0]);
    }
}
