//! Open connections by clients: shared memory behind the gauges, in which each worker of the front counts those that it has itself.
//!
//! A count must end with its worker, whatever ends that. So nobody writes what others have written: each worker has a part of its own, and who
//! wants to know how many connections a client has adds up all parts. A list says which parts count. The master takes a worker from it that it
//! has reaped, and that is all it does here.
//!
//! | words | contents |
//! |---|---|
//! | 0..256 | for the records 0 to 255 of the scoreboard the process id of the worker, 0 if its part does not count |
//! | then 16384 for each | its part: for each client a part of its key, and in the lowest 20 bits the number of connections |

use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::MAX_CONNECTIONS;

/// Workers that have a part: those with the lowest records of the scoreboard.
pub const PARTS: usize = 256;
/// The size of a part in words, each of which is for one client.
pub const PART_WORDS: usize = 16_384;
/// The size of all in words.
pub const WORDS: usize = PARTS + PARTS * PART_WORDS;

/// A client may stand in so many places: two lines of the cache.
const WAYS: usize = 16;
const SETS: usize = PART_WORDS / WAYS;
/// The bits of the number.
const BITS: u32 = 20;
const NUMBER: u64 = (1 << BITS) - 1;
const _: () = assert!((MAX_CONNECTIONS as u64) < NUMBER);

/// Where the process id of the worker with this record is, in bytes from the beginning.
pub fn listed(record: u32) -> Option<u64> {
    let part = usize::try_from(record).ok()?;
    (part < PARTS).then_some((part * 8) as u64)
}

/// A worker's own part, for writing, and those of the others. There must be only one writer.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    words: &'static [AtomicU64],
    own: usize,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It counts, until [`Connections::close`].
    Counted,
    /// It does not count, as too many clients do.
    Uncounted,
    /// It does not count, as it is one too many.
    TooMany,
}

impl Connections {
    /// Begins the part of the worker `pid` with this record, if there is one.
    ///
    /// # Panics
    /// If `words` is not [`WORDS`] long.
    pub fn begin(words: &'static [AtomicU64], record: u32, pid: u32) -> Option<Self> {
        assert_eq!(words.len(), WORDS, "it has a fixed size");
        let own = usize::try_from(record).ok().filter(|own| *own < PARTS)?;
        let all = Self { words, own };
        words[own].store(0, Ordering::SeqCst);
        for word in &words[PARTS + own * PART_WORDS..][..PART_WORDS] {
            word.store(0, Ordering::SeqCst);
        }
        words[own].store(pid.into(), Ordering::SeqCst);
        Some(all)
    }

    /// A client, by its key, opens a connection; it may have so many.
    ///
    /// Two workers may do this at once. Each counts first and adds up then, so there are never more, and it may be that neither takes
    /// the last one.
    pub fn open(&self, key: u64, most: u64) -> Opened {
        let Some(word) = self.place(key) else {
            return Opened::Uncounted;
        };
        let before = word.load(Ordering::SeqCst);
        let number = match before >> BITS == key >> BITS {
            true => before & NUMBER,
            false => 0,
        };
        word.store(key & !NUMBER | (number + 1), Ordering::SeqCst);
        if self.number(key) > most {
            word.store(key & !NUMBER | number, Ordering::SeqCst);
            return Opened::TooMany;
        }
        Opened::Counted
    }

    /// A connection that counted is closed.
    pub fn close(&self, key: u64) {
        let mut ways = self.set(self.own, key).iter();
        let is_its = |word: &&AtomicU64| word.load(Ordering::SeqCst) >> BITS == key >> BITS;
        if let Some(word) = ways.find(is_its) {
            let before = word.load(Ordering::SeqCst);
            word.store(before - (before & NUMBER).min(1), Ordering::SeqCst);
        }
    }

    /// The connections that a client has in all workers.
    pub fn number(&self, key: u64) -> u64 {
        let parts = (0..PARTS).filter(|part| self.words[*part].load(Ordering::SeqCst) != 0);
        let words = parts.flat_map(|part| self.set(part, key));
        let words = words.map(|word| word.load(Ordering::SeqCst));
        let its = words.filter(|word| word >> BITS == key >> BITS);
        its.map(|word| word & NUMBER).sum()
    }

    /// The word of a client in the own part, or one for it.
    fn place(&self, key: u64) -> Option<&'static AtomicU64> {
        let set = self.set(self.own, key);
        let load = |word: &&AtomicU64| word.load(Ordering::SeqCst);
        let its = set.iter().find(|word| load(word) >> BITS == key >> BITS);
        its.or_else(|| set.iter().find(|word| load(word) & NUMBER == 0))
    }

    /// The places of a client in a part. The lowest bits of its key choose them, as they are not in the words.
    fn set(&self, part: usize, key: u64) -> &'static [AtomicU64] {
        let set = usize::try_from(key % SETS as u64).unwrap_or_default();
        &self.words[PARTS + part * PART_WORDS + set * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> &'static [AtomicU64] {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        words.leak()
    }

    const A: u64 = 0xaaaa_0000_0000_0001;
    const B: u64 = 0xbbbb_0000_0000_0001;

    #[test]
    fn all_workers_together_have_no_more_connections_of_a_client() {
        let words = memory();
        let [one, other] = [3, 7].map(|record| Connections::begin(words, record, 100 + record));
        let (one, other) = (one.expect("a part"), other.expect("a part"));
        assert_eq!(one.open(A, 3), Opened::Counted);
        assert_eq!(other.open(A, 3), Opened::Counted);
        assert_eq!(other.open(A, 3), Opened::Counted);
        assert_eq!(one.open(A, 3), Opened::TooMany);
        assert_eq!(other.open(A, 3), Opened::TooMany);
        assert_eq!(other.open(B, 3), Opened::Counted, "another client");
        assert_eq!((one.number(A), one.number(B)), (3, 1));
        one.close(A);
        assert_eq!(other.open(A, 3), Opened::Counted);
        // What was not open is not closed.
        one.close(A);
        one.close(B);
        assert_eq!((one.number(A), one.number(B)), (3, 1));
    }

    #[test]
    fn what_a_worker_has_counted_ends_with_it() {
        let words = memory();
        let one = Connections::begin(words, 0, 7).expect("a part");
        let other = Connections::begin(words, 255, 8).expect("a part");
        assert_eq!(one.open(A, 9), Opened::Counted);
        assert_eq!(other.open(A, 9), Opened::Counted);
        // The master has reaped it.
        let place = usize::try_from(listed(0).expect("listed")).expect("small") / 8;
        words[place].store(0, Ordering::SeqCst);
        assert_eq!(other.number(A), 1);
        let next = Connections::begin(words, 0, 9).expect("a part");
        assert_eq!((next.number(A), other.number(A)), (1, 1));
        assert!(Connections::begin(words, 256, 10).is_none());
        assert_eq!((listed(255), listed(256)), (Some(255 * 8), None));
    }

    #[test]
    fn where_too_many_clients_are_further_ones_do_not_count() {
        let open = Connections::begin(memory(), 0, 7).expect("a part");
        // All want the same places.
        let key = |n: usize| (n as u64 + 1) << 32;
        for n in 0..WAYS {
            assert_eq!(open.open(key(n), 1), Opened::Counted);
        }
        assert_eq!(open.open(key(WAYS), 1), Opened::Uncounted);
        assert_eq!(open.open(key(0), 1), Opened::TooMany);
        open.close(key(3));
        assert_eq!(open.open(key(WAYS), 1), Opened::Counted);
        assert_eq!(open.open(key(3), 1), Opened::Uncounted);
    }

    #[test]
    fn workers_that_count_at_once_take_no_more_than_there_may_be() {
        let words = memory();
        for _ in 0..50 {
            let taken = std::sync::atomic::AtomicUsize::new(0);
            let begin = std::sync::Barrier::new(4);
            let parts: Vec<_> = (0..4)
                .filter_map(|record| Connections::begin(words, record, 1))
                .collect();
            std::thread::scope(|scope| {
                for part in &parts {
                    let (taken, begin) = (&taken, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        let opened = (0..10).filter(|_| part.open(A, 10) == Opened::Counted);
                        taken.fetch_add(opened.count(), Ordering::SeqCst);
                    });
                }
            });
            let taken = taken.load(Ordering::SeqCst);
            assert!(taken <= 10 && parts[0].number(A) == taken as u64, "{taken}");
        }
    }
}
