//! What each worker of the front says of its upstreams at the moment. It is behind the counters ([`crate::counters`]), and counts as long
//! as the worker lives: the master reads nothing of a worker that it has reaped, whatever ended it.
//!
//! The place of a worker has entries of 8 words. The first one has the process id, and each other one an upstream: its key, the requests that
//! wait for it, its addresses, and those of them that take requests.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::hash;
use crate::settings::MAX_CONNECTIONS;

/// Workers that have a place: those with the lowest records of the scoreboard.
pub const WORKERS: usize = 1024;
/// The size of a place in words.
pub const WORKER_WORDS: usize = 1024;
/// The size of an entry in words.
const ENTRY: usize = 8;
/// Upstreams in a place; further ones are not shown.
pub const UPSTREAMS: usize = WORKER_WORDS / ENTRY - 1;

/// Where the place of the worker with this record begins, in words behind the blocks.
pub(crate) fn start(record: u32) -> Option<usize> {
    let record = usize::try_from(record).ok()?;
    (record < WORKERS).then_some(record * WORKER_WORDS)
}

/// The key of an upstream.
fn key(upstream: &str) -> u64 {
    hash(upstream.bytes()).max(1)
}

/// A worker's own place, for writing. There must be only one writer.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    words: &'static [AtomicU64],
}

/// What is said of one upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Requests that wait.
    pub waiting: u64,
    /// Its addresses.
    pub addresses: u64,
    /// Those of them that take requests.
    pub available: u64,
}

impl Gauges {
    /// A place for process `pid`, with upstreams of these names, of which nothing is known yet.
    pub fn begin<'a>(
        words: &'static [AtomicU64],
        pid: u32,
        upstreams: impl Iterator<Item = &'a str>,
    ) -> Self {
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        for (entry, upstream) in words.chunks_exact(ENTRY).skip(1).zip(upstreams) {
            entry[0].store(key(upstream), Ordering::Relaxed);
        }
        if let Some(word) = words.first() {
            word.store(pid.into(), Ordering::Release);
        }
        Self { words }
    }

    /// Notes the state of an upstream, by its number in the order of the names.
    pub fn note(self, number: usize, upstream: Upstream) {
        let start = (number + 1) * ENTRY;
        if let Some(entry) = self.words.get(start..start + ENTRY) {
            let Upstream {
                waiting,
                addresses,
                available,
            } = upstream;
            for (word, value) in entry[1..].iter().zip([waiting, addresses, available]) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }
}

/// What the worker `pid` says of an upstream, by the words of its place. None if it says nothing of it, or the place is still that of
/// another worker. Any words are possible values.
pub fn read(words: &[u64], pid: u32, upstream: &str) -> Option<Upstream> {
    if words.first() != Some(&pid.into()) {
        return None;
    }
    let mut entries = words.chunks_exact(ENTRY).skip(1);
    let entry = entries.find(|entry| entry[0] == key(upstream))?;
    let number = |at: usize| entry[at].min(MAX_CONNECTIONS.into());
    Some(Upstream {
        waiting: number(1),
        addresses: number(2),
        available: number(3).min(number(2)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(words: &[AtomicU64]) -> Vec<u64> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        words.iter().map(load).collect()
    }

    #[test]
    fn what_a_worker_says_counts_for_its_own_process_only() {
        let words: Vec<_> = (0..WORKER_WORDS).map(|_| AtomicU64::new(9)).collect();
        let words: &[AtomicU64] = words.leak();
        let gauges = Gauges::begin(words, 7, ["web", "api"].into_iter());
        let busy = Upstream {
            waiting: 3,
            addresses: 2,
            available: 1,
        };
        gauges.note(1, busy);
        // There is no such place, and nothing is written elsewhere.
        gauges.note(UPSTREAMS, busy);
        let read = |pid, name| read(&load(words), pid, name);
        assert_eq!(read(7, "api"), Some(busy));
        assert_eq!(read(7, "web"), Some(Upstream::default()));
        assert_eq!(read(7, "other"), None);
        assert_eq!(read(8, "api"), None, "it was another worker's place");
        Gauges::begin(words, 8, ["api"].into_iter());
        assert_eq!(read(8, "api"), Some(Upstream::default()));
    }

    #[test]
    fn any_words_are_possible_values() {
        let most = u64::from(MAX_CONNECTIONS);
        let mut words = [u64::MAX; WORKER_WORDS];
        (words[0], words[ENTRY]) = (7, key("web"));
        let said = read(&words, 7, "web").expect("an entry");
        assert_eq!((said.waiting, said.available), (most, most));
        words[ENTRY + 2] = 1;
        assert_eq!(read(&words, 7, "web").map(|said| said.available), Some(1));
        assert_eq!(read(&[], 7, "web"), None);
    }
}
