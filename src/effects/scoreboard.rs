//! The shared memory in which the workers of an app note what they do. The master reads and writes it with pread and pwrite: it
//! never maps memory that a worker can write.
//!
//! Each app has a scoreboard of its own, so its workers cannot reach the records of other apps. Its size is set once and sealed:
//! no worker can truncate it, which would kill others with SIGBUS, or make it grow.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};
use preforkd_worker::connections;
use preforkd_worker::counters::{self, offset as inside};
use preforkd_worker::gauges::WORKER_WORDS;
use preforkd_worker::purges;
use preforkd_worker::running::{self, Noted};
use preforkd_worker::scoreboard::{
    CONNECTIONS_BY_CLIENT, COUNTERS, MARK, MEMORY_BYTES, PURGES, RECORD_BYTES, RECORDS, RUNNING,
    SUCCEEDED, Snapshot,
};

/// The scoreboard of one app.
pub struct Scoreboard {
    memory: File,
    /// By which workers wake each other, once one wants it.
    wake: OnceCell<EventFd>,
    /// Records from here on were never used.
    unused: u32,
    /// Released records, all below `unused`.
    free: BTreeSet<u32>,
}

impl Scoreboard {
    /// An empty scoreboard. Its memory has the app's name in proc(5).
    ///
    /// # Errors
    /// The memory cannot be created (memfd_create(2)) or sealed.
    pub fn new(app: &str) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // memfd_create(2) allows 249 bytes.
        let name: String = format!("preforkd scoreboard {app}")
            .chars()
            .take(60)
            .collect();
        let memory: File = memfd_create(name.as_str(), flags)?.into();
        memory.set_len(MEMORY_BYTES)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self {
            memory,
            wake: OnceCell::new(),
            unused: 0,
            free: BTreeSet::new(),
        })
    }

    /// The descriptor by which the app's workers wake each other.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub fn wake(&self) -> io::Result<BorrowedFd<'_>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        if self.wake.get().is_none() {
            let _ = self.wake.set(EventFd::from_flags(flags)?);
        }
        let wake = self.wake.get().map(AsFd::as_fd);
        wake.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The descriptor for the app's workers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// A cleared record for a new worker.
    ///
    /// # Errors
    /// All records are in use, or the memory cannot be written.
    pub fn allocate(&mut self) -> io::Result<u32> {
        let record = self.free.first().copied().unwrap_or(self.unused);
        if record >= RECORDS {
            let text = format!("all {RECORDS} records are in use");
            return Err(io::Error::other(text));
        }
        self.memory
            .write_all_at(&[0; RECORD_BYTES], offset(record))?;
        self.unused = self.unused.max(record + 1);
        self.free.remove(&record);
        Ok(record)
    }

    /// Releases the record of a worker that was reaped. Its connections and requests do not count any more.
    pub fn release(&mut self, record: u32) {
        if record < self.unused {
            self.free.insert(record);
        }
        let open = connections::listed(record).map(|place| CONNECTIONS_BY_CLIENT + place);
        let running = running::listed(record).map(|place| RUNNING + place);
        for place in open.into_iter().chain(running) {
            // Should that fail, what the worker has counted counts until another one has this record.
            let _ = self.memory.write_all_at(&[0; 8], place);
        }
    }

    /// Sets the mark that makes the worker report the beginning of its next request.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn mark(&self, record: u32) -> io::Result<()> {
        self.set(record, MARK)
    }

    /// Tells a worker, before its stop signal, that others take the connections in the accept queues.
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

    /// The record of a worker of this age. Any worker of the app may have written it: see [`Snapshot::decode`].
    pub fn read(&self, record: u32, age: Duration) -> Option<Snapshot> {
        let mut bytes = [0; RECORD_BYTES];
        self.memory.read_exact_at(&mut bytes, offset(record)).ok()?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
        Snapshot::decode(&bytes, now.into(), age)
    }

    /// The blocks of these keys in the counters of the front, of which some may be empty. Any worker of the app may have written them.
    pub fn counters(&self, keys: &[u64]) -> Vec<Vec<u64>> {
        let table = self.words(COUNTERS, counters::BLOCKS);
        let block = |key: &u64| {
            let number = counters::find(&table, *key)?;
            let start = COUNTERS + inside::block(number);
            Some(self.words(start, counters::BLOCK_WORDS))
        };
        keys.iter()
            .map(|key| block(key).unwrap_or_default())
            .collect()
    }

    /// What is stored at this place of [`purges`] counts no more. The time is a number that was not there before.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn purge(&self, place: u64) -> io::Result<()> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let now = Duration::from(now).as_nanos() as u64;
        let offset = PURGES + (purges::offset(place) * 8) as u64;
        self.memory.write_all_at(&now.to_ne_bytes(), offset)
    }

    /// What the worker with this record says of its upstreams, if it is one of the front.
    pub fn gauges(&self, record: u32) -> Vec<u64> {
        let start = inside::gauges(record);
        let words = start.map(|start| self.words(COUNTERS + start, WORKER_WORDS));
        words.unwrap_or_default()
    }

    /// What a worker of the front has noted of its requests at an address of a worker; none if it has not begun. Any worker of the front
    /// may have written it.
    pub fn noted(&self, record: u32, pid: u32, upstream: &str, address: &str) -> Option<Noted> {
        let word = |word: usize| {
            let mut bytes = [0; 8];
            let place = RUNNING + (word * 8) as u64;
            self.memory.read_exact_at(&mut bytes, place).ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        running::noted(word, record, pid, upstream, address)
    }

    /// So many words from a place on; none if they cannot be read.
    fn words(&self, start: u64, number: usize) -> Vec<u64> {
        let mut bytes = vec![0; number * 8];
        if self.memory.read_exact_at(&mut bytes, start).is_err() {
            return Vec::new();
        }
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    }
}

fn offset(record: u32) -> u64 {
    u64::from(record) * RECORD_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory as a worker has it.
    fn workers(scoreboard: &Scoreboard) -> File {
        scoreboard
            .fd()
            .try_clone_to_owned()
            .expect("a descriptor")
            .into()
    }

    fn pid(scoreboard: &Scoreboard, record: u32) -> Option<u32> {
        let seen = scoreboard.read(record, Duration::ZERO);
        seen.map(|snapshot| snapshot.pid)
    }

    #[test]
    fn a_record_is_given_to_one_worker_at_a_time_and_cleared() {
        let mut scoreboard = Scoreboard::new("web").expect("a memfd");
        assert_eq!(scoreboard.allocate().ok(), Some(0));
        assert_eq!(scoreboard.allocate().ok(), Some(1));
        let memory = workers(&scoreboard);
        memory.write_all_at(&7_u64.to_ne_bytes(), 0).expect("room");
        assert_eq!(pid(&scoreboard, 0), Some(7));
        scoreboard.release(0);
        scoreboard.release(99);
        assert_eq!(scoreboard.allocate().ok(), Some(0));
        assert_eq!(pid(&scoreboard, 0), Some(0));
        assert_eq!(scoreboard.allocate().ok(), Some(2));
    }

    #[test]
    fn when_all_records_are_in_use_one_must_be_released_first() {
        let mut scoreboard = Scoreboard::new("web").expect("a memfd");
        for record in 0..RECORDS {
            assert_eq!(scoreboard.allocate().ok(), Some(record));
        }
        let error = scoreboard.allocate().expect_err("none is left");
        assert_eq!(error.to_string(), "all 16384 records are in use");
        scoreboard.release(77);
        assert_eq!(scoreboard.allocate().ok(), Some(77));
        assert!(scoreboard.allocate().is_err());
    }

    #[test]
    fn a_worker_can_change_neither_the_size_nor_the_seals() {
        let mut scoreboard = Scoreboard::new("web").expect("a memfd");
        let memory = workers(&scoreboard);
        let size = memory.metadata().expect("its size").len();
        for length in [0, size - 1, size + 1] {
            let refused = memory.set_len(length).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::PermissionDenied), "{length}");
        }
        assert!(memory.write_all_at(&[1], size).is_err(), "beyond its end");
        // A worker that could add this seal would keep all others from writing.
        let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE);
        assert_eq!(fcntl(&memory, seal), Err(nix::Error::EPERM));
        assert_eq!(scoreboard.allocate().ok(), Some(0));
    }

    #[test]
    fn apps_do_not_share_memory() {
        use std::os::unix::fs::MetadataExt as _;
        let [web, api] = ["web", "api"].map(|app| Scoreboard::new(app).expect("a memfd"));
        let [one, other] = [&web, &api].map(|it| workers(it).metadata().expect("its number"));
        assert_ne!(one.ino(), other.ino());
    }

    #[test]
    fn counters_are_found_by_their_keys_and_outlast_the_records() {
        let mut scoreboard = Scoreboard::new("front").expect("a memfd");
        let memory = workers(&scoreboard);
        let key = counters::key("shop", "/");
        let write = |at: u64, word: u64| {
            let at = COUNTERS + at;
            memory.write_all_at(&word.to_ne_bytes(), at).expect("room");
        };
        let number = key % counters::BLOCKS as u64;
        write(number * 8, key);
        write(inside::block(number as usize), 7);
        write(inside::gauges(1).expect("a place"), 4711);
        assert_eq!(scoreboard.allocate().ok(), Some(0));
        scoreboard.release(0);
        let read = scoreboard.counters(&[counters::key("other", "/"), key]);
        assert!(read[0].is_empty());
        assert_eq!((read[1].len(), read[1][0]), (counters::BLOCK_WORDS, 7));
        assert_eq!(scoreboard.gauges(1)[0], 4711);
        assert!(scoreboard.gauges(RECORDS - 1).is_empty());
    }

    #[test]
    fn what_a_worker_had_open_does_not_count_when_it_was_reaped() {
        let mut scoreboard = Scoreboard::new("front").expect("a memfd");
        let memory = workers(&scoreboard);
        let open = |record: u32| CONNECTIONS_BY_CLIENT + connections::listed(record).unwrap();
        let running = |record: u32| RUNNING + running::listed(record).unwrap();
        for record in [0, 1] {
            assert_eq!(scoreboard.allocate().ok(), Some(record));
            for place in [open(record), running(record)] {
                let pid = 7_u64.to_ne_bytes();
                memory.write_all_at(&pid, place).expect("room");
            }
        }
        scoreboard.release(0);
        assert_eq!(scoreboard.words(open(0), 2), [0, 7]);
        assert_eq!(scoreboard.words(running(0), 2), [0, 7]);
        scoreboard.release(RECORDS - 1);
    }

    #[test]
    fn an_app_may_have_any_name() {
        assert!(Scoreboard::new(&"x".repeat(1000)).is_ok());
    }
}
