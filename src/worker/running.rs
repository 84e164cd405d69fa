//! Requests that run at each worker of an app, and open connections of sites with a limit, by all workers of the front: shared memory behind the
//! counts of open connections by clients.
//!
//! Each worker of the front counts what it has sent in a part of its own, and adds up those of the others when it chooses where a request goes. That
//! need not be exact: what two of them send to one place at the same moment is found out there. A part counts as long as its worker lives; the
//! master takes a worker from the list that it has reaped.
//!
//! A word counts in its lower half the requests that run, and in its upper half those of them that have changed to another protocol: these last as
//! long as their client likes, so a worker that is to end is not waited for because of them.
//!
//! | words | contents |
//! |---|---|
//! | 0..256 | for the records 0 to 255 of the scoreboard the process id of the worker, 0 if its part does not count |
//! | 256 | as many of these may be other than 0 |
//! | 512..768 | for each part how many updates its worker has taken in: it sends no request where these have not told of |
//! | 768..4864 | the key of each place, 0 if it is free |
//! | then 4096 for each part | the requests that run, or the connections that are open, at each place |

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering, fence};

pub use crate::connections::{PARTS, listed};
use crate::counters::hash;

/// Places: addresses of workers, and sites with a limit, that one master has had.
pub const PLACES: usize = 4096;
const LISTED: usize = PARTS;
const TAKEN: usize = 512;
const KEYS: usize = TAKEN + PARTS;
const COUNTS: usize = KEYS + PLACES;
/// The size of all in words.
pub const WORDS: usize = COUNTS + PARTS * PLACES;

/// No more than this is believed of one place.
const MANY: u64 = 1_000_000;
/// How often a worker tries to take what several want at the same moment.
const ATTEMPTS: u32 = 6;

/// One request that has changed to another protocol.
const SWITCHED: u64 = 1 << 32;

fn running(word: u64) -> u64 {
    (word % SWITCHED).min(MANY)
}

fn switched(word: u64) -> u64 {
    word / SWITCHED
}

/// What a worker has noted of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// How many updates it has taken in.
    pub taken: u64,
    /// The requests that it has there, without those that have changed to another protocol.
    pub requests: u64,
}

/// Whether the worker with this record has a part.
pub fn has_part(record: u32) -> bool {
    listed(record).is_some()
}

/// What the worker `pid` with this record has noted of an address of an upstream, which the log of the front calls so; none if it has not begun its part. `word` reads one word of the
/// memory.
pub fn noted(
    word: impl Fn(usize) -> Option<u64>,
    record: u32,
    pid: u32,
    upstream: &str,
    address: &str,
) -> Option<Noted> {
    let part = usize::try_from(record).ok().filter(|part| *part < PARTS)?;
    if word(part)? != u64::from(pid) {
        return None;
    }
    // First: what it sends after it has taken them in does not go there.
    let taken = word(TAKEN + part)?;
    let (key, mut places) = places(upstream, address);
    let place = places.find_map(|place| match word(KEYS + place) {
        Some(0) | None => Some(None),
        Some(known) => (known == key).then_some(Some(place)),
    });
    let count = place
        .flatten()
        .and_then(|place| word(COUNTS + part * PLACES + place));
    let count = count.unwrap_or(0);
    let requests = running(count).saturating_sub(switched(count));
    Some(Noted { taken, requests })
}

/// The key of an address of an upstream, and the places where it may be, in order.
fn places(upstream: &str, address: &str) -> (u64, impl Iterator<Item = usize> + use<>) {
    let names = upstream.bytes().chain([0]).chain(address.bytes());
    let key = hash(names).max(1);
    let first = usize::try_from(key % PLACES as u64).unwrap_or_default();
    (key, (first..PLACES).chain(0..first))
}

/// A worker's own part, for writing, and those of the others. There must be only one writer.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    words: &'static [AtomicU64],
    own: usize,
}

/// The requests that wait for one upstream, by all workers of the front.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    number: Place,
    since: Place,
}

/// What waits at the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// So many requests.
    pub number: u64,
    /// The first of them since then, in nanoseconds of the clock that only goes forward; [`u64::MAX`] if there is none.
    pub since: u64,
}

/// Whether there was room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It counts.
    Taken,
    /// There are as many as there may be.
    Full,
    /// Others have asked at the same moment, and it does not count. It may be that none of them has taken the room.
    Contended,
}

/// One place.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    of: Running,
    number: usize,
}

impl Running {
    /// Begins the part of the worker `pid` with this record, if there is one.
    ///
    /// # Panics
    /// If `words` is not [`WORDS`] long.
    pub fn begin(words: &'static [AtomicU64], record: u32, pid: u32) -> Option<Self> {
        assert_eq!(words.len(), WORDS, "it has a fixed size");
        let own = usize::try_from(record).ok().filter(|own| *own < PARTS)?;
        words[own].store(0, Ordering::Relaxed);
        words[TAKEN + own].store(0, Ordering::Relaxed);
        for word in &words[COUNTS + own * PLACES..][..PLACES] {
            // Memory that was never used takes none as long as it is only read.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        words[LISTED].fetch_max(own as u64 + 1, Ordering::Relaxed);
        words[own].store(pid.into(), Ordering::Release);
        Some(Self { words, own })
    }

    /// It has taken in so many updates since it was started, and sends no request where these do not tell of.
    pub fn has_taken(&self, updates: u64) {
        self.words[TAKEN + self.own].store(updates, Ordering::Release);
    }

    /// The place of an address of an upstream, which is taken if nobody has it yet; none if all are taken.
    pub fn place(self, upstream: &str, address: &str) -> Option<Place> {
        let (key, mut places) = places(upstream, address);
        let number = places.find(|place| {
            let word = &self.words[KEYS + place];
            match word.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => true,
                Err(known) => known == key,
            }
        })?;
        Some(Place { of: self, number })
    }

    /// The queue of an app; none if all places are taken.
    pub fn queue(self, app: &str) -> Option<Queue> {
        let number = self.place("waiting", app)?;
        let since = self.place("since", app)?;
        Some(Queue { number, since })
    }

    /// The parts of the others that live.
    fn others(self) -> impl Iterator<Item = usize> {
        let listed = self.words[LISTED].load(Ordering::Relaxed).min(PARTS as u64);
        let listed = usize::try_from(listed).unwrap_or_default();
        let others = (0..listed).filter(move |part| *part != self.own);
        others.filter(move |part| self.words[*part].load(Ordering::Acquire) != 0)
    }

    /// Whether no other worker lives. One that begins at the same moment may not be seen.
    fn is_alone(self) -> bool {
        self.others().next().is_none()
    }
}

impl Queue {
    /// So many requests wait at this worker, the first of them since then. Who does not find room after that is woken when there is.
    pub fn tell(&self, number: u64, since: u64) {
        let of = self.number.of;
        self.since.word(of.own).store(since, Ordering::Relaxed);
        self.number.word(of.own).store(number, Ordering::Relaxed);
        if number > 0 && !of.is_alone() {
            fence(Ordering::SeqCst);
        }
    }

    /// Whether there is no other worker.
    pub fn is_alone(&self) -> bool {
        self.number.of.is_alone()
    }

    /// Whether something waits at others, also if they have just said so: to be asked when there may be room.
    pub fn is_awaited(&self) -> bool {
        if self.is_alone() {
            return false;
        }
        fence(Ordering::SeqCst);
        self.others().number > 0
    }

    /// What waits at others.
    pub fn others(&self) -> Awaited {
        let mut all = Awaited {
            number: 0,
            since: u64::MAX,
        };
        for part in self.number.of.others() {
            let number = self.number.word(part).load(Ordering::Relaxed).min(MANY);
            if number > 0 {
                all.number += number;
                all.since = all.since.min(self.since.word(part).load(Ordering::Relaxed));
            }
        }
        all
    }
}

impl Place {
    /// A request is sent there.
    pub fn begin(&self) {
        self.word(self.of.own).fetch_add(1, Ordering::Relaxed);
    }

    /// It runs there no more.
    pub fn end(&self) {
        self.word(self.of.own).fetch_sub(1, Ordering::Relaxed);
    }

    /// A request that runs there has changed to another protocol, as long as what is returned exists.
    pub fn switches(&self) -> Switched {
        self.word(self.of.own)
            .fetch_add(SWITCHED, Ordering::Relaxed);
        Switched(*self)
    }

    /// The requests that the others have sent there.
    pub fn others(&self) -> usize {
        let sent = self.of.others();
        let sent = sent.map(|part| running(self.word(part).load(Ordering::Relaxed)));
        usize::try_from(sent.sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// One more of this worker, unless all workers together have so many already. It ends as others do.
    ///
    /// Two workers may do this at once. Each counts first and adds up then, so there are never more, and it may be that neither takes the
    /// last one.
    pub fn take(&self, most: u64) -> Claim {
        if self.all() >= most {
            return Claim::Full;
        }
        for attempt in 0..ATTEMPTS {
            self.begin();
            if self.of.is_alone() {
                return Claim::Taken;
            }
            // What another one has counted before its fence is seen behind this one, or the other way round.
            fence(Ordering::SeqCst);
            if self.all() <= most {
                return Claim::Taken;
            }
            self.end();
            // Not all at the same moment again.
            for _ in 0..(self.of.own + 1) << attempt {
                spin_loop();
            }
        }
        Claim::Contended
    }

    /// Those of all workers.
    pub fn all(&self) -> u64 {
        let own = running(self.word(self.of.own).load(Ordering::Relaxed));
        own.saturating_add(self.others() as u64)
    }

    fn word(&self, part: usize) -> &'static AtomicU64 {
        &self.of.words[COUNTS + part * PLACES + self.number]
    }
}

/// A request that has changed to another protocol.
#[derive(Debug)]
pub struct Switched(Place);

impl Drop for Switched {
    fn drop(&mut self) {
        let word = self.0.word(self.0.of.own);
        word.fetch_sub(SWITCHED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> &'static [AtomicU64] {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        words.leak()
    }

    #[test]
    fn each_knows_what_the_others_have_sent_as_long_as_they_live() {
        let words = memory();
        let parts = [2, 0, 255].map(|record| Running::begin(words, record, 7).expect("a part"));
        let places = parts.map(|part| part.place("app=web", "unix:1").expect("room"));
        let elsewhere = parts[0].place("app=web", "unix:2").expect("room");
        let other_app = parts[0].place("app=api", "unix:1").expect("room");
        places[0].begin();
        places[0].begin();
        places[1].begin();
        let others = || places.map(|place| place.others());
        assert_eq!(others(), [1, 2, 3]);
        assert_eq!((elsewhere.others(), other_app.others()), (0, 0));
        places[0].end();
        assert_eq!(others(), [1, 1, 2]);
        // The master has reaped it, and another one gets its record.
        let place = usize::try_from(listed(0).expect("listed")).expect("small") / 8;
        words[place].store(0, Ordering::Relaxed);
        assert_eq!(others(), [0, 1, 1]);
        Running::begin(words, 0, 8).expect("a part");
        assert_eq!(others(), [0, 1, 1]);
        assert!(Running::begin(words, 256, 9).is_none() && listed(256).is_none());
    }

    #[test]
    fn all_workers_together_take_no_more_than_there_may_be() {
        let words = memory();
        let begin = |record: u32| Running::begin(words, record, 1).expect("a part");
        let places: Vec<_> = (0..4)
            .map(|record| begin(record).place("site", "shop").expect("room"))
            .collect();
        let takes = |n: usize| places[n].take(2);
        assert_eq!(
            [0, 1, 2].map(takes),
            [Claim::Taken, Claim::Taken, Claim::Full]
        );
        assert_eq!(places[3].all(), 2);
        places[0].end();
        assert_eq!([2, 2].map(takes), [Claim::Taken, Claim::Full]);
        // One is reaped.
        words[1].store(0, Ordering::Relaxed);
        assert_eq!(places[0].all(), 1);
        places[2].end();
        begin(1);
        for _ in 0..50 {
            let taken = std::sync::atomic::AtomicU64::new(0);
            let begin = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for place in &places {
                    let (taken, begin) = (&taken, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        let take = || std::iter::repeat_with(|| place.take(10));
                        let end = |claim: &Claim| *claim != Claim::Contended;
                        let took = (0..10).filter(|_| take().find(end) == Some(Claim::Taken));
                        let took = took.count();
                        taken.fetch_add(took as u64, Ordering::SeqCst);
                        begin.wait();
                        // All of them are taken: who has asked at the same moment has tried again.
                        assert_eq!(taken.load(Ordering::SeqCst), 10);
                        begin.wait();
                        (0..took).for_each(|_| place.end());
                    });
                }
            });
            assert_eq!(places[0].all(), 0);
        }
    }

    #[test]
    fn the_master_reads_what_a_worker_has_sent_and_taken_in() {
        let words = memory();
        let word = |at: usize| Some(words[at].load(Ordering::Relaxed));
        let noted = |pid, address| noted(word, 3, pid, "app=web", address);
        assert_eq!(noted(7, "unix:1"), None, "it has not begun");
        let part = Running::begin(words, 3, 7).expect("a part");
        let seen = |taken, requests| Some(Noted { taken, requests });
        assert_eq!(noted(7, "unix:1"), seen(0, 0));
        assert_eq!(noted(8, "unix:1"), None, "another one");
        let place = part.place("app=web", "unix:1").expect("room");
        place.begin();
        place.begin();
        part.has_taken(5);
        assert_eq!(noted(7, "unix:1"), seen(5, 2));
        assert_eq!(noted(7, "unix:2"), seen(5, 0));
        let switched = place.switches();
        assert_eq!(noted(7, "unix:1"), seen(5, 1));
        let other = Running::begin(words, 4, 9).expect("a part");
        let at = other.place("app=web", "unix:1").expect("room");
        assert_eq!(at.others(), 2, "a switched one runs");
        drop(switched);
        place.end();
        place.end();
        assert_eq!((noted(7, "unix:1"), at.others()), (seen(5, 0), 0));
        Running::begin(words, 3, 7).expect("a part");
        assert_eq!(noted(7, "unix:1"), seen(0, 0));
    }

    #[test]
    fn each_knows_what_waits_at_the_others_as_long_as_they_live() {
        let words = memory();
        let queue = |record: u32, app: &str| {
            let part = Running::begin(words, record, 7).expect("a part");
            part.queue(app).expect("room")
        };
        let alone = queue(3, "app=web");
        alone.tell(1, 9);
        assert!(alone.is_alone() && !alone.is_awaited());
        let others = [1, 2].map(|record| queue(record, "app=web"));
        let of_another_app = queue(0, "app=api");
        assert!(others[0].is_awaited() && !alone.is_awaited());
        others[0].tell(2, 7);
        let awaited = |queue: Queue| (queue.others().number, queue.others().since);
        assert_eq!(awaited(alone), (2, 7));
        assert_eq!(awaited(others[0]), (1, 9));
        assert_eq!(awaited(others[1]), (3, 7));
        assert_eq!(awaited(of_another_app), (0, u64::MAX));
        words[1].store(0, Ordering::Relaxed);
        assert_eq!(awaited(others[1]), (1, 9));
        alone.tell(0, u64::MAX);
        assert!(!others[1].is_awaited());
    }

    #[test]
    fn there_is_an_end_to_places() {
        let part = Running::begin(memory(), 0, 1).expect("a part");
        let place = |n: usize| part.place("app=web", &n.to_string());
        assert!((0..PLACES).all(|n| place(n).is_some()));
        assert!(place(PLACES).is_none() && place(7).is_some());
    }
}
