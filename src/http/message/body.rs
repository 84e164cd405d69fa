//! A request body: in memory, or in an unlinked temporary file when it is large.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, Write};

/// A whole request body, for reading.
///
/// The whole body has arrived before the application is called. So a body that the client cut short is never seen by an
/// application at all, let alone taken for whole: the connection ends and the application is not called.
#[derive(Debug)]
pub enum Body {
    /// A body in memory, and the place up to which it was read.
    Memory(Cursor<Vec<u8>>),
    /// A body in a temporary file.
    File(BufReader<File>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Memory(Cursor::default())
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(body) => body.read(buf),
            Self::File(body) => body.read(buf),
        }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Memory(body) => body.fill_buf(),
            Self::File(body) => body.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Memory(body) => body.consume(amount),
            Self::File(body) => body.consume(amount),
        }
    }
}

/// A body that is arriving.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
}

impl Arriving {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// `length` bytes will come, so that the place to put them can be made at once.
    pub fn expect(&mut self, length: u64, in_memory: usize) -> io::Result<()> {
        match usize::try_from(length) {
            Ok(length) if length <= in_memory => self.memory.reserve_exact(length),
            _ => self.file = Some(tempfile::tempfile()?),
        }
        Ok(())
    }

    /// Appends `data`; above `in_memory` bytes everything moves to a file.
    pub fn append(&mut self, data: &[u8], in_memory: usize) -> io::Result<()> {
        self.length += data.len() as u64;
        if self.file.is_none() && self.memory.len() + data.len() > in_memory {
            let mut file = tempfile::tempfile()?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(data),
            None => {
                self.memory.extend_from_slice(data);
                Ok(())
            }
        }
    }

    /// The body has arrived; it is read from its beginning.
    pub fn finish(self) -> io::Result<Body> {
        Ok(match self.file {
            Some(mut file) => {
                file.rewind()?;
                Body::File(BufReader::with_capacity(64 * 1024, file))
            }
            None => Body::Memory(Cursor::new(self.memory)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_the_same_from_memory_and_file() {
        for in_memory in [0, 3, 100] {
            let mut arriving = Arriving::default();
            for part in ["ab\n", "c", "d\nef"] {
                arriving.append(part.as_bytes(), in_memory).unwrap();
            }
            assert_eq!(
                (arriving.length(), arriving.file.is_some()),
                (8, in_memory < 8)
            );
            let mut body = arriving.finish().unwrap();
            let mut line = Vec::new();
            body.read_until(b'\n', &mut line).unwrap();
            let mut rest = Vec::new();
            body.read_to_end(&mut rest).unwrap();
            assert_eq!(
                (line.as_slice(), rest.as_slice()),
                (&b"ab\n"[..], &b"cd\nef"[..])
            );
        }
    }
}
