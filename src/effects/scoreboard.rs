//! The shared memory in which workers note what they do. The master only reads it (and clears a record before
//! it is given away), by pread and pwrite: it maps nothing that a worker can write.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use preforkd_worker::scoreboard::{MARK, RECORD_BYTES, SUCCEEDED, Snapshot};

/// All records.
pub struct Scoreboard {
    memory: File,
    size: u32,
    free: BTreeSet<u32>,
}

impl Scoreboard {
    /// An empty one.
    ///
    /// # Errors
    /// No memory file could be made: memfd_create(2).
    pub fn new() -> io::Result<Self> {
        let memory = memfd_create(c"preforkd scoreboard", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self {
            memory: memory.into(),
            size: 0,
            free: BTreeSet::new(),
        })
    }

    /// For the workers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// A cleared record for a new worker.
    ///
    /// # Errors
    /// There is no memory left.
    pub fn allocate(&mut self) -> io::Result<u32> {
        let record = self.free.first().copied().unwrap_or(self.size);
        self.memory
            .write_all_at(&[0; RECORD_BYTES], offset(record))?;
        self.size = self.size.max(record + 1);
        self.free.remove(&record);
        Ok(record)
    }

    /// The worker was reaped: its record may be given to another.
    pub fn release(&mut self, record: u32) {
        self.free.insert(record);
    }

    /// Leaves the mark that makes the worker say when it begins a request.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn mark(&self, record: u32) -> io::Result<()> {
        self.set(record, MARK)
    }

    /// Tells a worker, before it is told to end, that others take what waits in the accept queues.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn succeed(&self, record: u32) -> io::Result<()> {
        self.set(record, SUCCEEDED)
    }

    fn set(&self, record: u32, word: usize) -> io::Result<()> {
        let place = offset(record) + (word * 8) as u64;
        self.memory.write_all_at(&1_u64.to_ne_bytes(), place)
    }

    /// What a worker has noted.
    pub fn read(&self, record: u32) -> Option<Snapshot> {
        let mut bytes = [0; RECORD_BYTES];
        self.memory.read_exact_at(&mut bytes, offset(record)).ok()?;
        Snapshot::decode(&bytes)
    }
}

fn offset(record: u32) -> u64 {
    u64::from(record) * RECORD_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_given_to_one_worker_at_a_time_and_cleared() {
        let mut scoreboard = Scoreboard::new().expect("a memfd");
        assert_eq!(scoreboard.allocate().ok(), Some(0));
        assert_eq!(scoreboard.allocate().ok(), Some(1));
        scoreboard.memory.write_all_at(&[1; 8], 0).expect("room");
        scoreboard.release(0);
        assert_eq!(scoreboard.allocate().ok(), Some(0));
        assert_eq!(scoreboard.read(0).map(|snapshot| snapshot.pid), Some(0));
        assert_eq!(scoreboard.allocate().ok(), Some(2));
    }
}
