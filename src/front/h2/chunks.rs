//! Reads the chunks that our own encoder writes (RFC 9112 section 7.1), wherever their bytes are cut, and writes some. HTTP/2 has frames
//! instead.

use std::io::{self, Write as _};

use h2::Reason;
use http::HeaderMap;
use rustix::io::Errno;

use super::response;

/// What a chunk takes besides its data: the size in hexadecimal digits, and two line ends.
const AROUND: usize = 20;
/// The most bytes between the data of two chunks, or after the last one: fields may follow it.
const MOST_AROUND: usize = 128 * 1024;

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The size of a chunk.
    Size,
    /// So many bytes of one.
    Data(u64),
    /// The line end after one.
    LineEnd,
}

/// Where in a body the bytes stand.
#[derive(Debug)]
pub struct Chunks {
    next: Next,
    /// What has come of what is around the data.
    held: Vec<u8>,
}

/// What was taken of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many were.
    pub length: usize,
    /// The data among them.
    pub data: Vec<u8>,
    /// The body has ended, with these fields after it.
    pub end: Option<HeaderMap>,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            next: Next::Size,
            held: Vec::new(),
        }
    }
}

impl Chunks {
    /// Takes bytes, but not more than `room` bytes of data.
    ///
    /// # Errors
    /// They are no chunks.
    pub fn take(&mut self, bytes: &[u8], room: usize) -> Result<Taken, Reason> {
        let mut taken = Taken::default();
        while taken.length < bytes.len() && taken.end.is_none() {
            let rest = &bytes[taken.length..];
            let Next::Data(left) = self.next else {
                taken.length += self.around(rest, &mut taken.end)?;
                continue;
            };
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let n = rest.len().min(most).min(room - taken.data.len());
            if n == 0 {
                break;
            }
            taken.data.extend_from_slice(&rest[..n]);
            taken.length += n;
            self.next = match left - n as u64 {
                0 => Next::LineEnd,
                left => Next::Data(left),
            };
        }
        Ok(taken)
    }

    /// Takes what is around data. How many of the bytes: all of them, if it is not whole.
    fn around(&mut self, bytes: &[u8], end: &mut Option<HeaderMap>) -> Result<usize, Reason> {
        let before = self.held.len();
        if before == 0 {
            if let Some(n) = self.step(bytes, end)? {
                return Ok(n);
            }
            self.held.extend_from_slice(bytes);
        } else {
            self.held.extend_from_slice(bytes);
            let held = std::mem::take(&mut self.held);
            if let Some(n) = self.step(&held, end)? {
                return Ok(n - before);
            }
            self.held = held;
        }
        match self.held.len() < MOST_AROUND {
            true => Ok(bytes.len()),
            false => Err(Reason::INTERNAL_ERROR),
        }
    }

    fn step(&mut self, bytes: &[u8], end: &mut Option<HeaderMap>) -> Result<Option<usize>, Reason> {
        if self.next == Next::LineEnd {
            return match bytes {
                [b'\r', b'\n', ..] => {
                    self.next = Next::Size;
                    Ok(Some(2))
                }
                [b'\r'] => Ok(None),
                _ => Err(Reason::INTERNAL_ERROR),
            };
        }
        match response::size(bytes) {
            Some((0, length)) => {
                *end = response::trailers(&bytes[length..]);
                Ok(end.as_ref().map(|_| bytes.len()))
            }
            Some((size, length)) => {
                self.next = Next::Data(size);
                Ok(Some(length))
            }
            None => Ok(None),
        }
    }
}

/// Writes a chunk with as much of the data as there is room for; how much that is, and the length of the chunk.
///
/// # Errors
/// None: there is room for what it writes.
pub fn write(data: &[u8], buffer: &mut [u8]) -> Result<(usize, usize), Errno> {
    let n = data.len().min(buffer.len().saturating_sub(AROUND));
    if n == 0 {
        return Ok((0, 0));
    }
    let room = buffer.len();
    let mut rest = buffer;
    let print = |rest: &mut &mut [u8]| -> io::Result<()> {
        write!(rest, "{n:x}\r\n")?;
        rest.write_all(&data[..n])?;
        rest.write_all(b"\r\n")
    };
    print(&mut rest).map_err(|_| Errno::NOBUFS)?;
    Ok((n, room - rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n1\r\n\r\r\n0\r\nX-A: b\r\n\r\n";

    #[test]
    fn data_is_found_wherever_it_is_cut() {
        for size in 1..BODY.len() {
            for room in [1, 5, 100] {
                let mut chunks = Chunks::default();
                let (mut data, mut end) = (Vec::new(), None);
                for piece in BODY.chunks(size) {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let taken = chunks.take(rest, room).unwrap();
                        assert!(taken.data.len() <= room && taken.length > 0);
                        rest = &rest[taken.length..];
                        data.extend(taken.data);
                        end = end.or(taken.end);
                    }
                }
                assert_eq!(data, b"abc0123456789abcdef\r", "{size} {room}");
                assert_eq!(end.unwrap()["x-a"], "b");
            }
        }
    }

    #[test]
    fn without_room_only_what_is_around_is_taken() {
        let mut chunks = Chunks::default();
        let taken = chunks.take(b"3\r\nabc\r\n0\r\n\r\n", 0).unwrap();
        assert_eq!((taken.length, taken.data.len()), (3, 0));
        assert_eq!(chunks.take(b"abc", 0).unwrap().length, 0);
        assert_eq!(chunks.take(b"abc", 3).unwrap().data, b"abc");
        let taken = chunks.take(b"\r\n0\r\n\r\n", 0).unwrap();
        assert!(taken.length == 7 && taken.end.unwrap().is_empty());
    }

    #[test]
    fn what_is_no_chunk_is_an_error() {
        assert!(Chunks::default().take(b"1\r\nab", 9).is_err());
        let long = vec![b'1'; MOST_AROUND];
        assert!(Chunks::default().take(&long, 9).is_err());
    }

    #[test]
    fn chunks_fit_their_buffer() {
        let mut buffer = [0; 64];
        assert_eq!(write(b"abc", &mut buffer), Ok((3, 8)));
        assert_eq!(&buffer[..8], b"3\r\nabc\r\n");
        let data = [b'x'; 100];
        let (taken, written) = write(&data, &mut buffer).unwrap();
        assert!(taken == 64 - AROUND && written <= 64);
        assert_eq!(&buffer[..4], b"2c\r\n");
        assert_eq!(write(b"", &mut buffer), Ok((0, 0)));
    }
}
