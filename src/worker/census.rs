//! The census: what the master notes of its apps and their workers for the process that answers `/metrics` and `/readyz`. That process reads it
//! with pread(2), as it reads the scoreboards.
//!
//! | words | contents |
//! |---|---|
//! | 0 | a number that is odd while the master changes something, and another one afterwards |
//! | 1 | the phase, see [`Phase`] |
//! | 2 | the generation that runs, 0 before the first one |
//! | 3..16 | reserved, 0 |
//! | then 128 for each app, and 4 for each record of its scoreboard | [`App`], and [`Worker`] |
//!
//! The number makes the sums exact. A reader takes it before it reads the census and the scoreboards, and once more afterwards. If it is the same,
//! each worker was counted once: the master adds what a worker has counted to the sums of its app, and removes the worker, in one change, and
//! its record is given to another one only after that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::metrics::Sums;
use crate::scoreboard::RECORDS;

/// The size of the part in front of all apps, in words.
pub const HEAD_WORDS: usize = 16;
/// The size of an app without its workers.
pub const APP_WORDS: usize = 128;
/// The size of a worker.
pub const WORKER_WORDS: usize = 4;

/// The bytes of an app with its workers.
const APP_BYTES: u64 = (APP_WORDS as u64 + RECORDS as u64 * WORKER_WORDS as u64) * 8;

/// Where an app begins, in bytes.
pub fn app_at(number: u32) -> u64 {
    HEAD_WORDS as u64 * 8 + u64::from(number) * APP_BYTES
}

/// Where the worker with this record begins.
pub fn worker_at(app: u32, record: u32) -> u64 {
    app_at(app) + (APP_WORDS as u64 + u64::from(record) * WORKER_WORDS as u64) * 8
}

/// The size of the census of so many apps in bytes.
pub fn size(apps: u32) -> u64 {
    app_at(apps)
}

/// What the master is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// The first generation is not ready yet.
    #[default]
    Starting,
    /// A generation runs.
    Ready,
    /// Another one is coming in.
    Reloading,
    /// The master stops, or is about to.
    Stopping,
}

impl Phase {
    /// All of them, by their numbers.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Reloading, Self::Stopping];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// The words in front of all apps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// The phase of the master.
    pub phase: Phase,
    /// The generation that runs.
    pub generation: u64,
}

impl Head {
    /// As words, behind the number.
    pub fn words(self) -> [u64; 2] {
        [self.phase as u64, self.generation]
    }

    fn decode(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let phase = usize::try_from(word(0)).ok();
        let phase = phase.and_then(|number| Phase::ALL.get(number));
        Self {
            phase: phase.copied().unwrap_or_default(),
            generation: word(1),
        }
    }
}

/// What the master knows of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct App {
    /// The generation that it runs.
    pub generation: u64,
    /// The number of workers that are wanted.
    pub wanted: u64,
    /// Records from here on were never used.
    pub unused: u64,
    /// It is required, and no worker of it serves or is meant to go on.
    pub is_lacking: bool,
    /// What the workers that have ended had counted.
    pub past: Sums,
}

impl App {
    /// As words.
    pub fn words(&self) -> [u64; APP_WORDS] {
        let mut words = [0; APP_WORDS];
        words[..4].copy_from_slice(&[
            self.generation,
            self.wanted,
            self.unused,
            self.is_lacking.into(),
        ]);
        for (word, number) in words[4..].iter_mut().zip(self.past.words()) {
            *word = number;
        }
        words
    }

    /// Decodes them; those that are missing are 0.
    pub fn decode(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        Self {
            generation: word(0),
            wanted: word(1),
            unused: word(2).min(RECORDS.into()),
            is_lacking: word(3) != 0,
            past: Sums::decode(words.get(4..).unwrap_or_default()),
        }
    }
}

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is not ready yet.
    Starting = 1,
    /// It serves.
    Ready = 2,
    /// It was told to end.
    Leaving = 3,
}

/// A worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Its process.
    pub pid: u32,
    /// How far it has come.
    pub stage: Stage,
    /// Its slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u64,
}

impl Worker {
    /// As words.
    pub fn words(self) -> [u64; WORKER_WORDS] {
        let Self {
            pid,
            stage,
            slot,
            generation,
        } = self;
        [pid.into(), stage as u64, slot.into(), generation]
    }

    /// Decodes them; none if there is no worker.
    pub fn decode(words: &[u64]) -> Option<Self> {
        let &[pid, stage, slot, generation] = words else {
            return None;
        };
        Some(Self {
            pid: u32::try_from(pid).ok()?,
            stage: match stage {
                1 => Stage::Starting,
                2 => Stage::Ready,
                3 => Stage::Leaving,
                _ => return None,
            },
            slot: u32::try_from(slot).ok()?,
            generation,
        })
    }
}

/// The census, for reading.
#[derive(Debug)]
pub struct Census(File);

impl Census {
    /// In this memory file.
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// The number that tells whether something has changed.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn version(&self) -> io::Result<u64> {
        Ok(read(&self.0, 0, 1)?[0])
    }

    /// The words in front of all apps.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn head(&self) -> io::Result<Head> {
        Ok(Head::decode(&read(&self.0, 8, 2)?))
    }

    /// An app.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn app(&self, number: u32) -> io::Result<App> {
        Ok(App::decode(&read(&self.0, app_at(number), APP_WORDS)?))
    }

    /// The workers of an app with their records, of which the first `unused` may be in use.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn workers(&self, app: u32, unused: u64) -> io::Result<Vec<(u32, Worker)>> {
        let number = usize::try_from(unused).unwrap_or_default();
        let words = read(&self.0, worker_at(app, 0), number * WORKER_WORDS)?;
        let all = words.chunks_exact(WORKER_WORDS).zip(0..);
        let all = all.filter_map(|(words, record)| Some((record, Worker::decode(words)?)));
        Ok(all.collect())
    }
}

/// So many words of a memory file from a place on.
///
/// # Errors
/// They are not there.
pub fn read(file: &File, start: u64, words: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; words * 8];
    file.read_exact_at(&mut bytes, start)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Cause;

    #[test]
    fn what_is_written_is_read() {
        let mut past = Sums::default();
        past.ended(Cause::Hung);
        (past.bytes, past.cpu, past.latency[23]) = (u64::MAX, 7, 8);
        let app = App {
            generation: 3,
            wanted: 4,
            unused: 2,
            is_lacking: true,
            past,
        };
        assert_eq!(App::decode(&app.words()), app);
        let worker = Worker {
            pid: 4711,
            stage: Stage::Leaving,
            slot: 1,
            generation: 2,
        };
        let file = tempfile();
        let write = |at: u64, words: &[u64]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            file.write_all_at(&bytes, at).expect("room");
        };
        file.set_len(size(2)).expect("room");
        let head = Head {
            phase: Phase::Stopping,
            generation: 9,
        };
        write(8, &head.words());
        write(app_at(1), &app.words());
        write(worker_at(1, 1), &worker.words());
        let census = Census::new(file.try_clone().expect("a descriptor"));
        assert_eq!(census.version().ok(), Some(0));
        assert_eq!(census.head().ok(), Some(head));
        assert_eq!(census.app(0).ok(), Some(App::default()));
        assert_eq!(census.app(1).ok(), Some(app));
        assert_eq!(census.workers(1, 2).ok(), Some(vec![(1, worker)]));
        assert_eq!(census.workers(0, 2).ok(), Some(vec![]));
        assert!(census.app(2).is_err());
    }

    #[test]
    fn any_words_decode_to_possible_values() {
        let app = App::decode(&[u64::MAX; APP_WORDS]);
        assert_eq!(app.unused, u64::from(RECORDS));
        assert_eq!(Worker::decode(&[u64::MAX; 4]), None);
        assert_eq!(Worker::decode(&[7, 9, 0, 0]), None);
        assert_eq!(Head::decode(&[u64::MAX; 2]).phase, Phase::Starting);
    }

    fn tempfile() -> File {
        use rustix::fs::{MemfdFlags, memfd_create};
        memfd_create("census", MemfdFlags::CLOEXEC)
            .expect("memory")
            .into()
    }
}
