//! Counters of sites: shared memory behind the scoreboard, in which all workers of the front count requests together.
//!
//! What is counted for one route has a [`Block`] of words. A table of fixed size leads from a key, which is made of the names of the site and
//! the route, to the number of the block. So a worker that takes the place of another, and one that a reload has started, find the same block, and
//! no total ever goes down. The master reads blocks with pread(2), by the names of its plan, and takes nothing but numbers from them.
//!
//! | words | contents |
//! |---|---|
//! | 0..4096 | the table: the key of each block, 0 if it is free |
//! | then 64 for each block | what was counted, see [`Counts`] |
//! | then 1024 for each of the records 0 to 1023 of the scoreboard | what one worker says of its upstreams, see [`crate::gauges`] |

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::gauges;
use crate::scoreboard::MAX_COUNT;

/// The number of blocks: sites with their routes that one master has ever had.
pub const BLOCKS: usize = 4096;
/// The size of a block in words.
pub const BLOCK_WORDS: usize = 64;
/// The size of the table and the blocks in words.
const TABLE_WORDS: usize = BLOCKS + BLOCKS * BLOCK_WORDS;
/// The size of all counters and gauges in words.
pub const WORDS: usize = TABLE_WORDS + gauges::WORKERS * gauges::WORKER_WORDS;
/// The same in bytes.
pub const BYTES: usize = WORDS * 8;

/// The upper bounds of the buckets of histograms, in microseconds. A last bucket has everything above.
pub const BOUNDS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];
/// The number of buckets.
pub const BUCKETS: usize = BOUNDS.len() + 1;
/// The classes of responses: broken off before their heads, and those with a status of 1xx to 5xx.
pub const CLASSES: usize = 6;

/// Offsets in a block.
const BODY_BYTES: usize = CLASSES;
const TAKEN_SUM: usize = BODY_BYTES + 1;
const WAITED_SUM: usize = TAKEN_SUM + 1;
const TAKEN: usize = WAITED_SUM + 1;
const WAITED: usize = TAKEN + BUCKETS;
const _: () = assert!(WAITED + BUCKETS <= BLOCK_WORDS);

/// RFC 9110 section 15.2.2: what follows is no response, and takes as long as both sides like.
const SWITCHING_PROTOCOLS: u16 = 101;

/// The key of what belongs to no site: requests that were refused before they were understood, or have no site.
pub const NO_SITE: u64 = 1;
/// The key of [`Handshakes`].
pub const HANDSHAKES: u64 = 2;
/// No name has a key below this.
const FIRST: u64 = 16;

/// The key of a route of a site; without a route, that of requests for none of its routes.
pub fn key(site: &str, route: &str) -> u64 {
    let names = site.bytes().chain([0]).chain(route.bytes());
    hash(names).max(FIRST)
}

/// FNV-1a, which is the same in all versions of all programs.
pub(crate) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The memory of all counters, for writing.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    words: &'static [AtomicU64],
}

/// The counters of one route.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    words: &'static [AtomicU64],
}

/// The counters of handshakes of TLS.
#[derive(Debug, Clone, Copy)]
pub struct Handshakes(Block);

impl Counters {
    /// Over this memory.
    ///
    /// # Panics
    /// If `words` is not [`WORDS`] long.
    pub fn new(words: &'static [AtomicU64]) -> Self {
        assert_eq!(words.len(), WORDS, "the counters have a fixed size");
        Self { words }
    }

    /// The block of this key, which is taken if nobody has it yet; none if all are taken.
    pub fn block(self, key: u64) -> Option<Block> {
        let number = places(key).find(|place| {
            let word = &self.words[*place];
            match word.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => true,
                Err(known) => known == key,
            }
        })?;
        let start = BLOCKS + number * BLOCK_WORDS;
        Some(Block {
            words: &self.words[start..start + BLOCK_WORDS],
        })
    }

    /// The counters of handshakes.
    pub fn handshakes(self) -> Option<Handshakes> {
        self.block(HANDSHAKES).map(Handshakes)
    }

    /// What the worker with this record of the scoreboard says of its upstreams; none if it has no place.
    pub fn gauges(self, record: u32) -> Option<&'static [AtomicU64]> {
        let start = gauges::start(record)?;
        self.words[TABLE_WORDS..].get(start..start + gauges::WORKER_WORDS)
    }
}

/// The places at which a key may be.
fn places(key: u64) -> impl Iterator<Item = usize> {
    let first = usize::try_from(key % BLOCKS as u64).unwrap_or_default();
    (first..BLOCKS).chain(0..first)
}

impl Block {
    /// Counts an exchange that is over, with its times in microseconds. The times of connections that went on with another protocol do not
    /// count, as they say nothing of how fast a site is.
    pub fn count(self, status: u16, bytes: u64, taken: u64, waited: u64) {
        self.add(class(status), 1);
        self.add(BODY_BYTES, bytes);
        if status == SWITCHING_PROTOCOLS {
            return;
        }
        self.add(TAKEN + bucket(taken), 1);
        self.add(TAKEN_SUM, taken);
        self.add(WAITED + bucket(waited), 1);
        self.add(WAITED_SUM, waited);
    }

    fn add(self, offset: usize, number: u64) {
        if number > 0 {
            self.words[offset].fetch_add(number, Ordering::Relaxed);
        }
    }
}

/// The class of a response with this status.
pub fn class(status: u16) -> usize {
    let class = usize::from(status / 100);
    if class < CLASSES { class } else { 0 }
}

/// The bucket of a time: the first one whose bound is not below it.
fn bucket(microseconds: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < microseconds)
}

impl Handshakes {
    /// One was completed; whether it goes on with an earlier session.
    pub fn completed(self, resumed: bool) {
        self.0.add(usize::from(resumed), 1);
    }

    /// A client was refused.
    pub fn failed(self) {
        self.0.add(2, 1);
    }
}

/// What a block says, for reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Responses by their class, see [`CLASSES`].
    pub responses: [u64; CLASSES],
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The times that they took.
    pub taken: Histogram,
    /// The times for which the requests waited.
    pub waited: Histogram,
}

/// Times, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many were at most as long as each of [`BOUNDS`], and longer than the bound before it; the last number has the rest.
    pub buckets: [u64; BUCKETS],
    /// All together.
    pub sum: u64,
}

impl Counts {
    /// Decodes the words of a block; those that are missing are 0. Any words are possible values: numbers are at most [`MAX_COUNT`].
    pub fn decode(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or_default().min(MAX_COUNT);
        let histogram = |buckets: usize, sum: usize| Histogram {
            buckets: std::array::from_fn(|at| word(buckets + at)),
            sum: word(sum),
        };
        Self {
            responses: std::array::from_fn(word),
            bytes: word(BODY_BYTES),
            taken: histogram(TAKEN, TAKEN_SUM),
            waited: histogram(WAITED, WAITED_SUM),
        }
    }

    /// All responses.
    pub fn requests(&self) -> u64 {
        self.responses.iter().sum()
    }

    /// Those whose fault is not that of the client: with a status of 5xx, or broken off before their heads.
    pub fn errors(&self) -> u64 {
        self.responses[0] + self.responses[5]
    }
}

/// The handshakes that a block counts: completed with a new session, completed with an earlier one, failed.
pub fn decode_handshakes(words: &[u64]) -> [u64; 3] {
    std::array::from_fn(|at| words.get(at).copied().unwrap_or_default().min(MAX_COUNT))
}

/// The number of the block of a key in a table as it was read.
pub fn find(table: &[u64], key: u64) -> Option<usize> {
    let at = |place: usize| table.get(place).copied().unwrap_or_default();
    let mut known = places(key).take_while(|place| at(*place) != 0);
    known.find(|place| at(*place) == key)
}

/// Where the table, a block and the gauges of a worker are, in bytes from the beginning of the counters.
pub mod offset {
    use super::{BLOCK_WORDS, BLOCKS, TABLE_WORDS};
    use crate::gauges;

    /// The block of this number.
    pub fn block(number: usize) -> u64 {
        ((BLOCKS + number * BLOCK_WORDS) * 8) as u64
    }

    /// The gauges of the worker with this record.
    pub fn gauges(record: u32) -> Option<u64> {
        gauges::start(record).map(|start| ((TABLE_WORDS + start) * 8) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Counters::new(words.leak())
    }

    fn load(words: &[AtomicU64]) -> Vec<u64> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        words.iter().map(load).collect()
    }

    #[test]
    fn a_key_has_one_block_and_no_other_has_it() {
        let counters = counters();
        let (one, other) = (key("a", "/"), key("b", "/"));
        for key in [one, other, one] {
            let block = counters.block(key).expect("room");
            block.count(200, 10, 0, 0);
        }
        let table = load(&counters.words[..BLOCKS]);
        let counts = |key: u64| {
            let number = find(&table, key)?;
            let start = usize::try_from(offset::block(number)).unwrap() / 8;
            Some(Counts::decode(&load(
                &counters.words[start..start + BLOCK_WORDS],
            )))
        };
        let bytes = |key: u64| counts(key).map(|counts| (counts.responses[2], counts.bytes));
        assert_eq!(bytes(one), Some((2, 20)));
        assert_eq!(bytes(other), Some((1, 10)));
        assert_eq!(bytes(key("c", "/")), None);
        assert_ne!(key("a", "b"), key("ab", ""), "names do not run together");
    }

    #[test]
    fn a_full_table_gives_no_block_and_keeps_those_that_were_given() {
        let counters = counters();
        for n in 0..BLOCKS as u64 {
            // All want the same place.
            assert!(counters.block(FIRST + n * BLOCKS as u64).is_some());
        }
        assert!(counters.block(FIRST + 1).is_none());
        let last = FIRST + (BLOCKS as u64 - 1) * BLOCKS as u64;
        assert!(counters.block(last).is_some());
        let table = load(&counters.words[..BLOCKS]);
        assert!(find(&table, last).is_some());
        assert_eq!(find(&table, FIRST + 1), None);
    }

    #[test]
    fn a_time_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed() {
        for (time, expected) in [
            (0, 0),
            (1_000, 0),
            (1_001, 1),
            (30_000_000, 13),
            (30_000_001, 14),
            (u64::MAX, 14),
        ] {
            assert_eq!(bucket(time), expected, "{time}");
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn exchanges_are_counted_by_class_and_time_but_not_the_time_of_a_changed_protocol() {
        let block = counters().block(NO_SITE).expect("room");
        for (status, taken, waited) in [
            (200, 500, 0),
            (204, 2_000, 1_500),
            (503, 1, 0),
            (0, 0, 0),
            (999, 0, 0),
            (101, 3_600_000_000, 0),
        ] {
            block.count(status, 3, taken, waited);
        }
        let counts = Counts::decode(&load(block.words));
        assert_eq!(counts.responses, [2, 1, 2, 0, 0, 1]);
        assert_eq!((counts.requests(), counts.errors()), (6, 3));
        assert_eq!((counts.bytes, counts.taken.sum), (18, 2_501));
        assert_eq!(counts.taken.buckets[..2], [4, 1]);
        assert_eq!((counts.waited.sum, counts.waited.buckets[1]), (1_500, 1));
    }

    #[test]
    fn any_words_decode_to_possible_values() {
        let counts = Counts::decode(&[u64::MAX; BLOCK_WORDS]);
        assert_eq!(counts.requests(), MAX_COUNT * CLASSES as u64);
        assert_eq!(counts.taken.buckets, [MAX_COUNT; BUCKETS]);
        assert_eq!(Counts::decode(&[]), Counts::default());
        assert_eq!(decode_handshakes(&[u64::MAX]), [MAX_COUNT, 0, 0]);
        assert_eq!(find(&[u64::MAX; 7], FIRST), None);
    }
}
