//! Memory in place of a socket: what the library reads and writes.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held at most on their way out. With so many the library stops, and reads nothing either.
pub const MOST_HELD: usize = 64 * 1024;
/// Memory for bytes that have come that is kept.
const KEPT: usize = 4 * 1024;

#[derive(Debug, Default)]
struct Bytes {
    input: Vec<u8>,
    /// Those before it were read.
    read: usize,
    /// Nothing comes after them.
    ended: bool,
    output: Vec<u8>,
}

/// Both directions of a connection. It never wakes anybody: whoever gives or takes bytes polls the library afterwards.
#[derive(Debug, Clone, Default)]
pub struct Pipe(Arc<Mutex<Bytes>>);

impl Pipe {
    // Nothing can panic while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes of the peer.
    pub fn give(&self, bytes: &[u8]) {
        self.lock().input.extend_from_slice(bytes);
    }

    /// The peer sends nothing any more.
    pub fn end(&self) {
        self.lock().ended = true;
    }

    /// The bytes that were given and not read.
    pub fn unread(&self) -> usize {
        let bytes = self.lock();
        bytes.input.len() - bytes.read
    }

    /// Takes an empty buffer for what goes to the peer, unless it has one. A peer that reads nothing must not hold a large one.
    pub fn reuse(&self, spare: &mut Vec<u8>) {
        let output = &mut self.lock().output;
        if output.capacity() == 0 && spare.capacity() <= 2 * MOST_HELD {
            *output = mem::take(spare);
        }
    }

    /// Moves what goes to the peer behind what is in `out`.
    pub fn take(&self, out: &mut Vec<u8>) {
        let mut bytes = self.lock();
        match out.is_empty() {
            true => {
                mem::swap(&mut bytes.output, out);
                bytes.output.clear();
            }
            false => out.append(&mut bytes.output),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = &mut *self.lock();
        let waiting = &bytes.input[bytes.read..];
        if waiting.is_empty() {
            return match bytes.ended {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            };
        }
        let n = waiting.len().min(buffer.remaining());
        buffer.put_slice(&waiting[..n]);
        bytes.read += n;
        if bytes.read == bytes.input.len() {
            bytes.input.clear();
            bytes.input.shrink_to(KEPT);
            bytes.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let output = &mut self.lock().output;
        match MOST_HELD.saturating_sub(output.len()).min(data.len()) {
            0 if !data.is_empty() => Poll::Pending,
            n => {
                output.extend_from_slice(&data[..n]);
                Poll::Ready(Ok(n))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_given_is_read_once_and_then_the_end() {
        let mut pipe = Pipe::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut room = [0; 3];
        let mut read = |pipe: &mut Pipe| {
            let mut buffer = ReadBuf::new(&mut room);
            let poll = Pin::new(pipe).poll_read(&mut context, &mut buffer);
            poll.map(|result| result.map(|()| buffer.filled().to_vec()).unwrap())
        };
        assert_eq!(read(&mut pipe), Poll::Pending);
        pipe.give(b"abcd");
        assert_eq!(read(&mut pipe), Poll::Ready(b"abc".to_vec()));
        assert_eq!(pipe.unread(), 1);
        pipe.give(b"e");
        pipe.end();
        assert_eq!(read(&mut pipe), Poll::Ready(b"de".to_vec()));
        assert_eq!(read(&mut pipe), Poll::Ready(Vec::new()));
    }

    #[test]
    fn no_more_is_held_than_may_be() {
        let mut pipe = Pipe::default();
        let mut context = Context::from_waker(Waker::noop());
        let data = [b'x'; MOST_HELD + 1];
        let mut write = |pipe: &mut Pipe| {
            let poll = Pin::new(pipe).poll_write(&mut context, &data);
            poll.map(Result::unwrap)
        };
        assert_eq!(write(&mut pipe), Poll::Ready(MOST_HELD));
        assert_eq!(write(&mut pipe), Poll::Pending);
        let mut out = b"y".to_vec();
        pipe.take(&mut out);
        assert_eq!(out.len(), MOST_HELD + 1);
        assert_eq!(write(&mut pipe), Poll::Ready(MOST_HELD));
    }

    #[test]
    fn a_buffer_is_used_again_and_never_kept() {
        let mut pipe = Pipe::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut spare = Vec::with_capacity(MOST_HELD);
        let buffer = spare.as_ptr();
        for data in [&b"abc"[..], b"de"] {
            pipe.reuse(&mut spare);
            assert_eq!(spare.capacity(), 0);
            let poll = Pin::new(&mut pipe).poll_write(&mut context, data);
            assert_eq!(poll.map(Result::unwrap), Poll::Ready(data.len()));
            let mut out = Vec::new();
            pipe.take(&mut out);
            assert_eq!((&out[..], out.as_ptr()), (data, buffer));
            assert_eq!(pipe.lock().output.capacity(), 0);
            out.clear();
            spare = out;
        }
        let mut large = Vec::with_capacity(2 * MOST_HELD + 1);
        pipe.reuse(&mut large);
        assert!(large.capacity() > 2 * MOST_HELD);
    }
}
