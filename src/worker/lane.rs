//! Lanes: connections on which a worker of the front sends another worker several requests, one behind the other.
//!
//! The worker reads them together, so what it has read says nothing of what it has begun. That is in one word of memory that both share: how
//! many of all requests it has begun, in their order, and how many it may begin. Each side changes the word as a whole. So the front, when it
//! takes requests back, knows exactly which of them are never begun there; also when the worker has died.
//!
//! | bits | contents |
//! |---|---|
//! | 0..32 | the requests that the worker has begun |
//! | 32..64 | as many it may begin |
//!
//! A second word is other than 0 when the worker has taken the memory. It is one of a version that knows lanes then.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::sys;

/// The size in words.
const WORDS: usize = 2;
/// How often the front tries to change the word against a worker that changes it meanwhile. It can do so once for each request that was
/// sent.
const TRIES: usize = 1000;

/// The requests of one lane.
#[derive(Debug)]
pub struct Claims(sys::Words);

impl Claims {
    /// For a new lane, with the memory that its worker has to get.
    ///
    /// # Errors
    /// Those of memfd_create(2) and mmap(2).
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("preforkd lane", flags)?;
        ftruncate(&memory, (WORDS * size_of::<AtomicU64>()) as u64)?;
        fcntl_add_seals(
            &memory,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        )?;
        let claims = Self(sys::Words::map(&memory, WORDS)?);
        claims.word().store(word(0, u32::MAX), Ordering::SeqCst);
        Ok((claims, memory))
    }

    /// The worker takes what the front has sent it.
    ///
    /// # Errors
    /// It is no such memory, or it cannot be mapped.
    pub fn take(memory: &OwnedFd) -> io::Result<Self> {
        let claims = Self(sys::Words::map(memory, WORDS)?);
        claims.0[1].store(1, Ordering::SeqCst);
        Ok(claims)
    }

    /// Whether the worker has taken it.
    pub fn is_taken(&self) -> bool {
        self.0[1].load(Ordering::SeqCst) != 0
    }

    /// The worker begins the next request, unless it was taken back: then it is never to begin it.
    pub fn begin(&self) -> bool {
        let word = self.word();
        let mut seen = word.load(Ordering::SeqCst);
        loop {
            let (begun, most) = parts(seen);
            if begun >= most {
                return false;
            }
            // Only the front changes it beside this worker, and makes it smaller each time.
            match word.compare_exchange(seen, seen + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
    }

    /// How many requests the worker has begun.
    pub fn begun(&self) -> u32 {
        parts(self.word().load(Ordering::SeqCst)).0
    }

    /// The front takes all requests back from this one on, counted from 0, which the worker has not begun. The first of these; those before
    /// it are begun, or may be.
    pub fn take_back(&self, from: u32) -> u32 {
        let own = self.word();
        let mut seen = own.load(Ordering::SeqCst);
        for _ in 0..TRIES {
            let (begun, most) = parts(seen);
            let first = most.min(from.max(begun));
            let wanted = word(begun, first);
            match own.compare_exchange(seen, wanted, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return first,
                Err(other) => seen = other,
            }
        }
        // It is not a worker of ours that does this.
        u32::MAX
    }

    fn word(&self) -> &AtomicU64 {
        &self.0[0]
    }
}

fn word(begun: u32, most: u32) -> u64 {
    u64::from(most) << 32 | u64::from(begun)
}

fn parts(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn both() -> (Claims, Claims) {
        let (front, memory) = Claims::create().expect("memory");
        assert!(!front.is_taken());
        let worker = Claims::take(&memory).expect("it is mapped");
        assert!(front.is_taken());
        (front, worker)
    }

    #[test]
    fn what_was_taken_back_is_not_begun_and_what_was_begun_is_not_taken_back() {
        let (front, worker) = both();
        assert!(worker.begin() && worker.begin());
        assert_eq!(front.begun(), 2);
        assert_eq!(front.take_back(3), 3);
        assert!(worker.begin() && !worker.begin());
        assert_eq!(front.begun(), 3);
        assert_eq!(front.take_back(0), 3, "these are begun");
        assert_eq!(front.take_back(7), 3, "no request comes back");
        assert!(!worker.begin());
    }

    #[test]
    fn both_sides_agree_whoever_comes_first() {
        for from in 0..200 {
            let (front, worker) = both();
            let start = Barrier::new(2);
            let (first, begun) = thread::scope(|scope| {
                let count = || {
                    start.wait();
                    (0..100).take_while(|_| worker.begin()).count()
                };
                let counting = scope.spawn(count);
                start.wait();
                let first = front.take_back(from % 100);
                (first, counting.join().expect("it counts"))
            });
            assert_eq!(first as usize, begun);
        }
    }

    #[test]
    fn memory_that_could_become_shorter_is_not_taken() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("unsealed", flags).expect("memory");
        ftruncate(&memory, 4096).expect("room");
        Claims::take(&memory).expect_err("its size is not sealed");
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).expect("it is ours");
        Claims::take(&memory).expect("it is sealed");
    }

    #[test]
    fn nothing_that_the_word_may_say_hinders_the_front() {
        let (front, worker) = both();
        for seen in [u64::MAX, 0, word(9, 3)] {
            worker.word().store(seen, Ordering::SeqCst);
            front.take_back(0);
            assert!(!worker.begin(), "{seen:x}");
        }
    }
}
