//! What each worker of the front says of its upstreams and sites at the moment. It is behind the counters ([`crate::counters`]), and counts as long
//! as the worker lives: the master reads nothing of a worker that it has reaped, whatever ended it.
//!
//! The place of a worker has entries of 8 words. The first one has the process id, and each other one an upstream: its key, the requests that
//! wait for it, its addresses, and those of them that take requests. Behind them each site has two: its key, and its open connections.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::hash;
use crate::settings::MAX_CONNECTIONS;

/// Workers that have a place: those with the lowest records of the scoreboard.
pub const WORKERS: usize = 1024;
/// The size of a place in words.
pub const WORKER_WORDS: usize = UPSTREAM_WORDS + SITES * SITE;
/// The part of it for upstreams.
const UPSTREAM_WORDS: usize = 1024;
/// The size of an entry for an upstream in words.
const ENTRY: usize = 8;
/// Upstreams in a place; further ones are not shown.
pub const UPSTREAMS: usize = UPSTREAM_WORDS / ENTRY - 1;
/// The size of an entry for a site in words.
const SITE: usize = 2;
/// Sites in a place; further ones are not shown.
pub const SITES: usize = 1024;

/// Where the place of the worker with this record begins, in words behind the blocks.
pub(crate) fn start(record: u32) -> Option<usize> {
    let record = usize::try_from(record).ok()?;
    (record < WORKERS).then_some(record * WORKER_WORDS)
}

/// The key of an upstream or a site.
fn key(name: &str) -> u64 {
    hash(name.bytes()).max(1)
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
    /// A place for process `pid`, with upstreams and sites of these names, of which nothing is known yet.
    pub fn begin<'a>(
        words: &'static [AtomicU64],
        pid: u32,
        upstreams: impl Iterator<Item = &'a str>,
        sites: impl Iterator<Item = &'a str>,
    ) -> Self {
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        let (of_upstreams, of_sites) = words.split_at(UPSTREAM_WORDS.min(words.len()));
        for (entry, upstream) in of_upstreams.chunks_exact(ENTRY).skip(1).zip(upstreams) {
            entry[0].store(key(upstream), Ordering::Relaxed);
        }
        for (entry, site) in of_sites.chunks_exact(SITE).zip(sites) {
            entry[0].store(key(site), Ordering::Relaxed);
        }
        if let Some(word) = words.first() {
            word.store(pid.into(), Ordering::Release);
        }
        Self { words }
    }

    /// Notes the state of an upstream, by its number in the order of the names.
    pub fn note(self, number: usize, upstream: Upstream) {
        let start = (number + 1) * ENTRY;
        let entry = self.words.get(start..start + ENTRY);
        if let Some(entry) = entry.filter(|_| number < UPSTREAMS) {
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

impl Gauges {
    /// A connection of a site is open now, by its number in the order of the names.
    pub fn opened(self, site: u32) {
        if let Some(word) = self.connections(site) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It is open no more.
    pub fn closed(self, site: u32) {
        if let Some(word) = self.connections(site) {
            word.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn connections(self, site: u32) -> Option<&'static AtomicU64> {
        let site = usize::try_from(site).ok()?;
        self.words.get(UPSTREAM_WORDS + site * SITE + 1)
    }
}

/// The open connections of a site at the worker `pid`, by the words of its place; 0 if it says nothing of it.
pub fn connections(words: &[u64], pid: u32, site: &str) -> u64 {
    let of_sites = words.get(UPSTREAM_WORDS..).unwrap_or_default();
    let mut entries = of_sites.chunks_exact(SITE);
    let entry = entries.find(|entry| entry[0] == key(site));
    let entry = entry.filter(|_| words.first() == Some(&pid.into()));
    entry.map_or(0, |entry| entry[1].min(MAX_CONNECTIONS.into()))
}

/// What the worker `pid` says of an upstream, by the words of its place. None if it says nothing of it, or the place is still that of
/// another worker. Any words are possible values.
pub fn read(words: &[u64], pid: u32, upstream: &str) -> Option<Upstream> {
    if words.first() != Some(&pid.into()) {
        return None;
    }
    let mut entries = words.chunks_exact(ENTRY).take(UPSTREAMS + 1).skip(1);
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
        let gauges = Gauges::begin(words, 7, ["web", "api"].into_iter(), ["shop"].into_iter());
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
        Gauges::begin(words, 8, ["api"].into_iter(), [].into_iter());
        assert_eq!(read(8, "api"), Some(Upstream::default()));
    }

    #[test]
    fn the_connections_of_each_site_are_counted() {
        let words: Vec<_> = (0..WORKER_WORDS).map(|_| AtomicU64::new(9)).collect();
        let words: &[AtomicU64] = words.leak();
        let sites = (0..SITES + 1).map(|site| if site == 1 { "shop" } else { "other" });
        let gauges = Gauges::begin(words, 7, ["shop"].into_iter(), sites);
        for site in [1, 1, 0, 1, SITES as u32] {
            gauges.opened(site);
        }
        gauges.closed(1);
        let open = |pid, site| connections(&load(words), pid, site);
        assert_eq!((open(7, "shop"), open(7, "other")), (2, 1));
        assert_eq!((open(8, "shop"), open(7, "none")), (0, 0));
        assert_eq!(read(&load(words), 7, "other"), None, "it is no upstream");
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
        assert_eq!(connections(&[7], 7, "web"), 0);
    }
}
