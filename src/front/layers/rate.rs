//! `rate_limit`: how many requests a client may send, counted by all workers of the front together.
//!
//! A limit lets so many requests pass at a rate, and a burst of others at once: the generic cell rate algorithm, which needs one time for each
//! client. The times lie in memory that all workers share. Its size is fixed; what has not been used for longest makes room.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use preforkd_worker::layers::RateLimit;

/// Words before the entries: the secret.
const HEADER: usize = 8;
/// A key may lie in so many places.
const WAYS: usize = 8;
/// Key and time.
const ENTRY: usize = 2;
/// So often another worker may come between.
const ATTEMPTS: usize = 16;
const SECOND: u64 = 1_000_000_000;

/// The times of all keys.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    words: &'static [AtomicU64],
    secret: (u64, u64),
}

/// A limit, compiled.
#[derive(Debug)]
pub struct Limit {
    /// What its keys begin with, so that no two limits share a time.
    name: String,
    /// The time for which one request counts, in nanoseconds.
    pause: u64,
    /// How far ahead of the rate a client may be.
    ahead: u64,
    /// The field that tells clients apart, in lower case, if it is not the address.
    field: Option<Vec<u8>>,
}

impl Limit {
    /// Of these settings. `place` is the site and route, and the number of the limit there.
    pub fn new(written: &RateLimit, place: &str) -> Self {
        let pause = written.seconds * SECOND / u64::from(written.requests.max(1));
        let pause = pause.max(1);
        Self {
            name: place.to_owned(),
            pause,
            ahead: pause.saturating_mul(u64::from(written.burst)),
            field: written
                .key
                .as_ref()
                .map(|name| name.to_ascii_lowercase().into_bytes()),
        }
    }

    /// The field that tells clients apart; none if it is the address.
    pub fn field(&self) -> Option<&[u8]> {
        self.field.as_deref()
    }
}

impl Table {
    /// Over this memory, which workers that were there before may have used. A random number becomes its secret, if it has none.
    pub fn new(words: &'static [AtomicU64], random: (u64, u64)) -> Self {
        let take = |at: usize, random: u64| {
            let Some(word) = words.get(at) else {
                return random;
            };
            let new = random.max(1);
            match word.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => new,
                Err(known) => known,
            }
        };
        Self {
            words,
            secret: (take(0, random.0), take(1, random.1)),
        }
    }

    /// Counts a request of a client, by its address and the value of the field. The seconds after which it may come again, if it is one
    /// too many. Without an address and a value there is nobody to count.
    pub fn count(
        &self,
        limit: &Limit,
        client: Option<IpAddr>,
        value: Option<&[u8]>,
        now: u64,
    ) -> Result<(), u64> {
        let mut hasher = DefaultHasher::new();
        (self.secret, &limit.name).hash(&mut hasher);
        match (value, client) {
            (Some(value), _) => (1, value).hash(&mut hasher),
            (None, Some(IpAddr::V4(client))) => (2, client.octets()).hash(&mut hasher),
            // Whoever has one address of a network mostly has all of it.
            (None, Some(IpAddr::V6(client))) => (3, &client.octets()[..8]).hash(&mut hasher),
            (None, None) => return Ok(()),
        }
        self.take(hasher.finish().max(1), limit, now)
    }

    fn take(&self, key: u64, limit: &Limit, now: u64) -> Result<(), u64> {
        let Some(time) = self.time(key, now) else {
            return Ok(());
        };
        for _ in 0..ATTEMPTS {
            let known = time.load(Ordering::Acquire);
            // Later than any limit allows: it is the time of a key that had the place before.
            let most = now + limit.ahead + limit.pause;
            let from = if known > most { now } else { known.max(now) };
            let next = from + limit.pause;
            if next > most {
                return Err((next - most).div_ceil(SECOND).max(1));
            }
            if time
                .compare_exchange(known, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The place for the time of a key: its own, or that of the key that was used longest ago.
    fn time(&self, key: u64, now: u64) -> Option<&AtomicU64> {
        let entries = self.words.get(HEADER..)?;
        let sets = entries.len() / (WAYS * ENTRY);
        let set = usize::try_from(key % u64::try_from(sets).ok()?.max(1)).ok()?;
        let set = entries.get(set * WAYS * ENTRY..(set + 1) * WAYS * ENTRY)?;
        for _ in 0..ATTEMPTS {
            let mut ways = set.chunks_exact(ENTRY);
            if let Some(known) = ways.find(|way| way[0].load(Ordering::Acquire) == key) {
                return Some(&known[1]);
            }
            let ways = set.chunks_exact(ENTRY);
            let oldest = ways.min_by_key(|way| way[1].load(Ordering::Acquire))?;
            let before = oldest[0].load(Ordering::Acquire);
            let taken =
                oldest[0].compare_exchange(before, key, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_ok() {
                oldest[1].store(now, Ordering::Release);
                return Some(&oldest[1]);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: usize) -> Table {
        let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        Table::new(words.leak(), (7, 9))
    }

    fn limit(requests: u32, seconds: u64, burst: u32) -> Limit {
        let key = None;
        Limit::new(
            &RateLimit {
                requests,
                seconds,
                burst,
                key,
            },
            "s / 0",
        )
    }

    const START: u64 = 1000 * SECOND;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_burst_passes_and_then_what_the_rate_allows() {
        let (table, limit) = (table(1024), limit(2, 1, 3));
        let at = |now: u64| table.count(&limit, ip("192.0.2.1"), None, START + now);
        for _ in 0..4 {
            assert_eq!(at(0), Ok(()));
        }
        assert_eq!(at(0), Err(1));
        assert_eq!(at(SECOND / 2 - 1), Err(1));
        assert_eq!(at(SECOND / 2), Ok(()));
        assert_eq!(at(SECOND / 2), Err(1));
        // What was refused does not count.
        assert_eq!(at(SECOND), Ok(()));
        assert_eq!(at(10 * SECOND), Ok(()));
        for _ in 0..3 {
            assert_eq!(at(10 * SECOND), Ok(()));
        }
        assert_eq!(at(10 * SECOND), Err(1));
    }

    #[test]
    fn a_client_is_told_when_it_may_come_again() {
        let (table, limit) = (table(1024), limit(1, 60, 0));
        let at = |now: u64| table.count(&limit, ip("192.0.2.1"), None, START + now);
        assert_eq!((at(0), at(0), at(SECOND)), (Ok(()), Err(60), Err(59)));
        assert_eq!(at(60 * SECOND), Ok(()));
    }

    #[test]
    fn each_client_and_each_limit_has_its_own_count() {
        let (table, one) = (table(1024), limit(1, 60, 0));
        let other = Limit {
            name: "s / 1".into(),
            ..limit(1, 60, 0)
        };
        let count = |limit: &Limit, client: Option<IpAddr>, value: Option<&[u8]>| {
            table.count(limit, client, value, START).is_ok()
        };
        assert!(count(&one, ip("192.0.2.1"), None));
        assert!(count(&one, ip("192.0.2.2"), None));
        assert!(count(&other, ip("192.0.2.1"), None));
        assert!(count(&one, ip("192.0.2.1"), Some(b"key")));
        assert!(!count(&one, ip("192.0.2.9"), Some(b"key")));
        assert!(count(&one, ip("2001:db8:0:1::1"), None));
        assert!(!count(&one, ip("2001:db8:0:1:ffff::2"), None));
        assert!(count(&one, ip("2001:db8:0:2::1"), None));
        assert!(count(&one, None, None) && count(&one, None, None));
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        // One set.
        let (table, limit) = (table(HEADER + WAYS * ENTRY), limit(1, 1000, 0));
        let at = |client: u8, now: u64| {
            let client = Some(IpAddr::from([192, 0, 2, client]));
            table.count(&limit, client, None, START + now).is_ok()
        };
        for client in 0..WAYS as u8 {
            assert!(at(client, u64::from(client)));
        }
        assert!(at(100, 100));
        assert!(!at(1, 101), "it is still there");
        assert!(at(0, 102), "it made room");
    }

    #[test]
    fn threads_count_together_and_the_secret_is_that_of_the_first() {
        let (words, limit) = (table(1024).words, limit(1, 3600, 99));
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let (table, limit) = (Table::new(words, (number, number)), &limit);
                    assert_eq!(table.secret, (7, 9));
                    let ask = move || table.count(limit, ip("192.0.2.1"), None, START).is_ok();
                    scope.spawn(move || (0..100).filter(|_| ask()).count())
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 100);
    }
}
