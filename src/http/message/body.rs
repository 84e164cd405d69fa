//! A request body: in memory, or in a file when it is large.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, Write};
use std::mem;
use std::sync::Arc;

use crate::message::budget::{Budget, Share};
use crate::message::temporary;

/// A whole request body, for reading.
///
/// The whole body has arrived before the application is called. So a body that the client cut short is never seen by an
/// application at all, let alone taken for whole: the connection ends and the application is not called.
#[derive(Debug, Default)]
pub struct Body {
    content: Content,
    /// Given back when the body is dropped, wherever that is.
    _share: Share,
}

#[derive(Debug)]
enum Content {
    Memory(Cursor<Vec<u8>>),
    File(BufReader<File>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Memory(Cursor::default())
    }
}

impl Body {
    /// A body in memory, and the place up to which it was read; none if it is in a file.
    pub fn memory(&mut self) -> Option<&mut Cursor<Vec<u8>>> {
        match &mut self.content {
            Content::Memory(memory) => Some(memory),
            Content::File(_) => None,
        }
    }
}

impl Body {
    /// Goes back to the beginning, to be read once more.
    ///
    /// # Errors
    /// The file that holds it cannot be read.
    pub fn rewind(&mut self) -> io::Result<()> {
        match &mut self.content {
            Content::Memory(body) => body.rewind(),
            Content::File(body) => body.rewind(),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Memory(body) => body.read(buf),
            Content::File(body) => body.read(buf),
        }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.content {
            Content::Memory(body) => body.fill_buf(),
            Content::File(body) => body.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match &mut self.content {
            Content::Memory(body) => body.consume(amount),
            Content::File(body) => body.consume(amount),
        }
    }
}

/// Why a body is not taken in.
#[derive(Debug)]
pub(crate) enum Failure {
    /// All that a worker may hold for its clients is taken.
    NoRoom,
    /// Neither a temporary file nor one in memory can be made and written.
    File(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// A body that is arriving. What has arrived counts against the budget, not what was announced: to announce costs a client nothing.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
    share: Share,
}

impl Arriving {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// `length` bytes will come, so that the place to put them can be made at once.
    pub fn expect(
        &mut self,
        length: u64,
        in_memory: usize,
        budget: &Budget,
    ) -> Result<(), Failure> {
        if !budget.allows(length) {
            return Err(Failure::NoRoom);
        }
        match usize::try_from(length) {
            // Memory that nobody has written to is none of the machine's yet.
            Ok(length) if length <= in_memory => self.memory.reserve_exact(length),
            _ => self.file = Some(temporary::create(budget)?),
        }
        Ok(())
    }

    /// Appends `data`; above `in_memory` bytes everything moves to a file.
    pub fn append(
        &mut self,
        data: &[u8],
        in_memory: usize,
        budget: &Arc<Budget>,
    ) -> Result<(), Failure> {
        if !self.share.grow(budget, data.len() as u64) {
            return Err(Failure::NoRoom);
        }
        if self.file.is_none() && self.memory.len() + data.len() > in_memory {
            let memory = mem::take(&mut self.memory);
            let file = self.file.insert(temporary::create(budget)?);
            write(file, 0, &memory, budget)?;
        }
        match &mut self.file {
            Some(file) => write(file, self.length, data, budget)?,
            None => self.memory.extend_from_slice(data),
        }
        self.length += data.len() as u64;
        Ok(())
    }

    /// The body has arrived; it is read from its beginning.
    pub fn finish(self) -> io::Result<Body> {
        let content = match self.file {
            Some(mut file) => {
                file.rewind()?;
                Content::File(BufReader::with_capacity(64 * 1024, file))
            }
            None => Content::Memory(Cursor::new(self.memory)),
        };
        Ok(Body {
            content,
            _share: self.share,
        })
    }
}

/// Appends `data` to a file of `length` bytes. If there is no room for it, for example because the disk is full, everything moves to
/// memory.
fn write(file: &mut File, length: u64, data: &[u8], budget: &Budget) -> io::Result<()> {
    file.write_all(data).or_else(|error| {
        temporary::move_to_memory(file, length, budget, &error)?;
        file.write_all(data)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_the_same_from_memory_and_file() {
        for in_memory in [0, 3, 100] {
            let budget = Arc::new(Budget::new(8));
            let mut arriving = Arriving::default();
            for part in ["ab\n", "c", "d\nef"] {
                arriving
                    .append(part.as_bytes(), in_memory, &budget)
                    .unwrap();
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
            let mut again = Vec::new();
            body.rewind().unwrap();
            body.read_to_end(&mut again).unwrap();
            assert_eq!(again, b"ab\ncd\nef");
            assert_eq!(
                (line.as_slice(), rest.as_slice()),
                (&b"ab\n"[..], &b"cd\nef"[..])
            );
            assert_eq!(budget.used(), 8, "what was read is still there");
            drop(body);
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn a_body_whose_file_cannot_be_written_any_more_goes_on_in_memory() {
        let budget = Arc::new(Budget::new(8));
        let mut arriving = Arriving::default();
        arriving.append(b"abcd", 0, &budget).unwrap();
        // A file that can be read and not written, and into which a part was written nevertheless.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abcdef").unwrap();
        arriving.file = Some(File::open(file.path()).unwrap());
        for part in [b"ef", b"gh"] {
            arriving.append(part, 0, &budget).unwrap();
        }
        let mut text = String::new();
        let mut body = arriving.finish().unwrap();
        body.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), budget.used()), ("abcdefgh", 8));
        assert!(budget.has_warned());
        drop(body);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_body_that_finds_no_room_is_not_taken_in_and_one_that_ends_makes_room() {
        for in_memory in [0, 100] {
            let budget = Arc::new(Budget::new(10));
            let (mut one, mut other) = (Arriving::default(), Arriving::default());
            one.append(b"12345", in_memory, &budget).unwrap();
            assert!(matches!(
                other.expect(6, in_memory, &budget),
                Err(Failure::NoRoom)
            ));
            other.append(b"123", in_memory, &budget).unwrap();
            assert!(matches!(
                other.append(b"456", in_memory, &budget),
                Err(Failure::NoRoom)
            ));
            drop(one);
            other.append(b"456", in_memory, &budget).unwrap();
            assert_eq!(budget.used(), 6);
        }
    }
}
