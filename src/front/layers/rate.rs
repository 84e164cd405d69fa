//! `rate_limit`: how many requests a client may send, counted by all workers of the front together.
//!
//! A limit lets so many requests pass at a rate, and a burst of others at once: the generic cell rate algorithm, which needs one time for each
//! client. The times lie in memory that all workers share. It outlasts them, and its size is fixed: where it is full, the client that has asked
//! least makes room. So whoever has many addresses pushes out those, and not the client that asks most.
//!
//! No worker holds a lock, so one that is killed leaves nothing behind that others would wait for.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use preforkd_worker::layers::RateLimit;

use crate::clients::hash_network;

/// Words before the entries: the secret.
const HEADER: usize = 8;
/// A key may lie in so many places.
const WAYS: usize = 8;
/// Key and time.
const ENTRY: usize = 2;
/// So often another worker may come between when a key gets its place.
const ATTEMPTS: usize = 16;
/// Times are in microseconds.
const SECOND: u64 = 1_000_000;
/// The bits of a word for the number of requests.
const BITS: u32 = 10;
/// No more requests are counted there.
const MANY: u64 = (1 << BITS) - 1;

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
    /// The time for which one request counts.
    pause: u64,
    /// How far ahead of the rate a client may be.
    ahead: u64,
    /// The field that tells clients apart, in lower case, if it is not the address.
    field: Option<Vec<u8>>,
}

/// What one word says of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// When all that it has asked for is paid off.
    until: u64,
    /// Its requests since the last time that this was so, also those that were refused.
    requests: u64,
}

impl Seen {
    fn read(word: u64) -> Self {
        Self {
            until: word >> BITS,
            requests: word & MANY,
        }
    }

    fn word(self) -> u64 {
        (self.until << BITS) | self.requests.min(MANY)
    }

    /// What is least makes room. A client that owes nothing is as good as one that is not known.
    fn worth(self, now: u64) -> (bool, u64, u64) {
        match self.until > now {
            true => (true, self.requests, self.until),
            false => (false, 0, self.until),
        }
    }
}

impl Limit {
    /// Of these settings. `place` is the site and route, and the number of the limit among those that are the same. So the limit goes on
    /// counting where it was after a reload that leaves it as it is.
    pub fn new(written: &RateLimit, place: &str) -> Self {
        let RateLimit {
            requests,
            seconds,
            burst,
            key,
        } = written;
        let pause = seconds * SECOND / u64::from((*requests).max(1));
        let pause = pause.max(1);
        Self {
            name: format!("{place} {requests} {seconds} {burst} {key:?}"),
            pause,
            ahead: pause.saturating_mul(u64::from(*burst)),
            field: key
                .as_ref()
                .map(|name| name.to_ascii_lowercase().into_bytes()),
        }
    }

    /// The field that tells clients apart; none if it is the address.
    pub fn field(&self) -> Option<&[u8]> {
        self.field.as_deref()
    }

    /// What is known of a client after another request, and the time after which it may come again if that was one too many.
    fn after(&self, seen: Seen, now: u64) -> (Seen, Option<u64>) {
        // Later than the limit allows: it is the time of a key that had the place before.
        let most = now + self.ahead + self.pause;
        let (from, requests) = match seen.until <= now || seen.until > most {
            true => (now, 1),
            false => (seen.until, seen.requests + 1),
        };
        let next = from + self.pause;
        let (until, wait) = match next > most {
            true => (from, Some(next - most)),
            false => (next, None),
        };
        (Seen { until, requests }, wait)
    }
}

/// The secret of all workers, with which keys are made so that no client can choose its place. A random number becomes it if there is none.
pub fn secret(words: &[AtomicU64], random: (u64, u64)) -> (u64, u64) {
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
    (take(0, random.0), take(1, random.1))
}

impl Table {
    /// Over this memory, which workers that were there before may have used. A random number becomes its secret, if it has none.
    pub fn new(words: &'static [AtomicU64], random: (u64, u64)) -> Self {
        Self {
            words,
            secret: secret(words, random),
        }
    }

    /// Counts a request of a client, by its address and the value of the field, at this time in microseconds. The seconds after which it may
    /// come again, if it is one too many. Without an address and a value there is nobody to count.
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
            (None, Some(client)) => hash_network(client, &mut hasher),
            (None, None) => return Ok(()),
        }
        self.take(hasher.finish().max(1), limit, now)
    }

    fn take(&self, key: u64, limit: &Limit, now: u64) -> Result<(), u64> {
        let Some(place) = self.place(key, now) else {
            return Ok(());
        };
        let mut wait = None;
        let count = |word: u64| {
            let seen;
            (seen, wait) = limit.after(Seen::read(word), now);
            Some(seen.word()).filter(|new| *new != word)
        };
        let _ = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, count);
        match wait {
            Some(wait) => Err(wait.div_ceil(SECOND).max(1)),
            None => Ok(()),
        }
    }

    /// The word of a key: the one that it has, or that of the key whose client is worth least.
    fn place(&self, key: u64, now: u64) -> Option<&AtomicU64> {
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
            let ways = ways.map(|way| (way, way[1].load(Ordering::Acquire)));
            let (least, word) = ways.min_by_key(|(_, word)| Seen::read(*word).worth(now))?;
            let before = least[0].load(Ordering::Acquire);
            // First the time and then the key, so that whoever finds the key finds no time of another. Two workers may do this for the same
            // key, so it is looked for once more: both take the first place that has it.
            let new = Seen {
                until: now,
                requests: 0,
            };
            let exchange = |of: &AtomicU64, from: u64, to: u64| {
                of.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
            };
            if exchange(&least[1], word, new.word()) {
                exchange(&least[0], before, key);
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
    fn many_addresses_do_not_push_out_the_client_that_asks_most() {
        let (table, limit) = (table(HEADER + 4 * WAYS * ENTRY), limit(1, 1000, 0));
        let at = |client: u32, now: u64| {
            let client = Some(IpAddr::from(client.to_be_bytes()));
            table.count(&limit, client, None, START + now).is_ok()
        };
        let busy = u32::MAX;
        let mut passed = 0;
        for now in 0..10_000 {
            passed += usize::from(at(busy, u64::from(now)));
            at(now, u64::from(now));
        }
        assert_eq!(passed, 1);
        // Whoever has paid off makes room all the same, however much it has asked for.
        let later = 2000 * SECOND;
        for client in 0..100 {
            assert!(at(client, later));
        }
        assert!(at(busy, later));
    }

    #[test]
    fn a_limit_goes_on_counting_as_long_as_it_is_the_same() {
        let table = table(1024);
        let count = |limit: &Limit| table.count(limit, ip("192.0.2.1"), None, START).is_ok();
        assert!(count(&limit(1, 60, 0)));
        assert!(!count(&limit(1, 60, 0)), "the same after a reload");
        assert!(count(&limit(1, 61, 0)), "another one");
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
