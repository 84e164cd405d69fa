//! The descriptors that are the server's alone: its sockets, and whatever else it works with. What the application forks inherits
//! them, and must not keep them: a listener would stay open behind the server's back, and a client would wait for the end of
//! its connection.
//!
//! A set without a lock, as it is read in a process that was just forked from one with other threads.

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Higher numbers are not kept; no process has as many descriptors unless its limit was raised beyond all need.
pub(super) const MOST: usize = 1 << 20;
const BITS: usize = u64::BITS as usize;

static OWN: [AtomicU64; MOST / BITS] = [const { AtomicU64::new(0) }; MOST / BITS];

/// A descriptor that is noted as long as it is open.
#[derive(Debug)]
pub struct Own<T: AsFd = OwnedFd>(T);

impl<T: AsFd> From<T> for Own<T> {
    fn from(fd: T) -> Self {
        own(&fd);
        Self(fd)
    }
}

impl<T: AsFd> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsFd> AsFd for Own<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> Drop for Own<T> {
    fn drop(&mut self) {
        disown(&self.0);
    }
}

/// Notes a descriptor.
pub fn own(fd: impl AsFd) {
    if let Some((word, bit)) = place(fd) {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

/// Forgets a descriptor, before it is closed.
pub fn disown(fd: impl AsFd) {
    if let Some((word, bit)) = place(fd) {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

fn place(fd: impl AsFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd.as_fd().as_raw_fd()).ok()?;
    Some((OWN.get(fd / BITS)?, 1 << (fd % BITS)))
}

/// All that were noted. It neither allocates nor locks.
pub fn owned() -> impl Iterator<Item = RawFd> {
    let words = OWN.iter().zip((0..).step_by(BITS));
    words.flat_map(|(word, first)| {
        let word = word.load(Ordering::Relaxed);
        let bits = if word == 0 { 0 } else { BITS as RawFd };
        (0..bits).filter_map(move |bit| (word >> bit & 1 == 1).then_some(first + bit))
    })
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;

    #[test]
    fn what_was_noted_is_listed_until_it_is_forgotten() {
        let (reader, writer) = pipe().unwrap();
        let (reader, writer) = (Own::from(OwnedFd::from(reader)), OwnedFd::from(writer));
        own(&writer);
        let all: Vec<_> = owned().collect();
        assert!(all.contains(&writer.as_raw_fd()));
        assert!(all.contains(&reader.as_fd().as_raw_fd()));
        disown(&writer);
        // Another test may have got the number of a descriptor that was closed.
        assert!(!owned().any(|fd| fd == writer.as_raw_fd()));
        drop(reader);
    }
}
