//! What of the cache counts no more: shared memory behind the counters of sites, which all workers of the front look at before they give
//! out a response that they have stored.
//!
//! Each response remembers the numbers at three places: that of all responses, that of its site, and that of what was asked for. When one of
//! them has changed, the response is forgotten. The places are found by hashes; two that share one are forgotten together. Workers count a place
//! up; the master writes a number that was not there before, as it has no such memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::hash;

/// The number of places.
pub const WORDS: usize = 4096;
/// The same in bytes.
pub const BYTES: usize = WORDS * 8;

/// The place of all responses.
const ALL: u64 = 0;

/// The numbers, for the workers.
#[derive(Debug, Clone, Copy)]
pub struct Purges {
    words: &'static [AtomicU64],
}

/// The numbers when a response was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen([u64; 3]);

impl Purges {
    /// Over this memory.
    ///
    /// # Panics
    /// If `words` is not [`WORDS`] long.
    pub fn new(words: &'static [AtomicU64]) -> Self {
        assert_eq!(words.len(), WORDS, "the places have a fixed number");
        Self { words }
    }

    /// The numbers at these places and that of all.
    pub fn look(self, places: [u64; 2]) -> Seen {
        let [target, site] = places;
        Seen([ALL, target, site].map(|place| self.word(place).load(Ordering::Relaxed)))
    }

    /// What is stored of this place counts no more.
    pub fn purge(self, place: u64) {
        self.word(place).fetch_add(1, Ordering::Relaxed);
    }

    fn word(self, place: u64) -> &'static AtomicU64 {
        &self.words[offset(place)]
    }
}

/// The number of the word of a place.
pub fn offset(place: u64) -> usize {
    usize::try_from(place % WORDS as u64).unwrap_or_default()
}

/// The place of all responses.
pub fn of_all() -> u64 {
    ALL
}

/// The place of a site.
pub fn of_site(name: &str) -> u64 {
    place(b"site\0".iter().chain(name.as_bytes()))
}

/// The place of what is asked for with this host, as a client names it, and this path with its query.
pub fn of_target(host: &[u8], target: &[u8]) -> u64 {
    let host = host.to_ascii_lowercase();
    let bare = [&b":80"[..], b":443"]
        .iter()
        .find_map(|port| host.strip_suffix(*port));
    let host = bare.unwrap_or(&host);
    place(b"target\0".iter().chain(host).chain(&[0]).chain(target))
}

/// Never that of all.
fn place<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    1 + hash(bytes.copied()) % (WORDS as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purges() -> Purges {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Purges::new(words.leak())
    }

    #[test]
    fn a_response_is_forgotten_with_all_with_its_site_and_with_its_target() {
        let purges = purges();
        let places = [of_target(b"a.example", b"/x?y"), of_site("shop")];
        for place in [of_all(), places[0], places[1]] {
            let before = purges.look(places);
            assert_eq!(before, purges.look(places));
            purges.purge(place);
            assert_ne!(before, purges.look(places));
        }
        let before = purges.look(places);
        purges.purge(of_target(b"a.example", b"/x"));
        purges.purge(of_site("other"));
        assert_eq!(before, purges.look(places));
    }

    #[test]
    fn a_host_is_the_same_with_the_port_of_its_scheme_and_in_capitals() {
        let place = of_target(b"a.example", b"/");
        assert_eq!(place, of_target(b"A.Example:443", b"/"));
        assert_eq!(place, of_target(b"a.example:80", b"/"));
        assert_ne!(place, of_target(b"a.example:8080", b"/"));
    }
}
