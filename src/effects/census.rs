//! The census ([`preforkd_worker::census`]), for writing.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Words, and the place in bytes where they begin.
pub type Change = (u64, Vec<u64>);

/// The memory of a census. Only the master can write to it.
pub struct Census {
    memory: File,
    /// The number that is even while nothing changes.
    version: u64,
    size: u64,
}

impl Census {
    /// An empty one.
    ///
    /// # Errors
    /// The memory cannot be created.
    pub fn new() -> io::Result<Self> {
        let memory: File = memfd_create(c"preforkd census", MFdFlags::MFD_CLOEXEC)?.into();
        Ok(Self {
            memory,
            version: 0,
            size: 0,
        })
    }

    /// Makes these changes, which readers see all at once. The memory has room for `size` bytes afterwards.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn write(&mut self, size: u64, changes: &[Change]) -> io::Result<()> {
        if size > self.size {
            self.memory.set_len(size)?;
            self.size = size;
        }
        self.put(0, &[self.version + 1])?;
        let changed = changes
            .iter()
            .try_for_each(|(at, words)| self.put(*at, words));
        self.version += 2;
        self.put(0, &[self.version])?;
        changed
    }

    fn put(&self, at: u64, words: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.memory.write_all_at(&bytes, at)
    }

    /// A descriptor with which it can be read and not written.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn reader(&self) -> io::Result<File> {
        reader(&self.memory)
    }
}

/// A descriptor with which this memory file can be read and not written, also if its holder opens it anew as another user than that of the master.
///
/// # Errors
/// There is no descriptor left, or /proc is missing.
pub fn reader(memory: impl AsFd) -> io::Result<File> {
    let number = memory.as_fd().as_raw_fd();
    let reader = File::open(format!("/proc/self/fd/{number}"))?;
    reader.set_permissions(Permissions::from_mode(0o600))?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use preforkd_worker::census::{self, Worker};

    use super::*;

    #[test]
    fn readers_see_a_change_as_a_whole_and_cannot_write() {
        let mut census = Census::new().expect("memory");
        let worker = Worker {
            pid: 7,
            stage: census::Stage::Ready,
            slot: 0,
            generation: 1,
        };
        let change = (census::worker_at(0, 3), worker.words().to_vec());
        let size = census::size(1);
        census.write(size, &[change]).expect("room");
        let file = census.reader().expect("a descriptor");
        assert!(file.write_all_at(b"x", 0).is_err());
        let reader = census::Census::new(file);
        assert_eq!(reader.version().ok(), Some(2));
        assert_eq!(reader.workers(0, 4).ok(), Some(vec![(3, worker)]));
        census
            .write(size, &[(census::worker_at(0, 3), vec![0; 4])])
            .expect("room");
        assert_eq!(reader.version().ok(), Some(4));
        assert_eq!(reader.workers(0, 4).ok(), Some(vec![]));
    }
}
