//! Requests that wait for the response to another one instead of being sent too: collapsed requests (RFC 9111 section 4).
//!
//! A fetch is a request on its way to the application whose response may be stored. Others that this response could answer wait for it: until its
//! head says that it is not for them, it is stored, or it fails. No request waits longer than [`PATIENCE`] in all. Targets whose responses turned
//! out to be for one client each are remembered, and nobody waits for them: otherwise such requests would be sent one after the other.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use preforkd_worker::purges::Seen;

use super::asked::Asked;
use super::store::{MOST_VARIANTS, SECOND};
use super::terms::Terms;
use crate::upstream::{Instant, NEVER};

/// How long a request waits for the responses to others, in nanoseconds and in all.
pub const PATIENCE: u64 = 5 * SECOND;
/// Requests that wait at a time. Further ones are sent.
const MOST_WAITING: usize = 4096;
/// Targets of which something is remembered.
const MOST_KNOWN: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
/// How long nobody waits for responses that were not shared, in nanoseconds.
const APART: u64 = 60 * SECOND;
/// Bytes of names in `Vary` that are remembered.
const MOST_NAMES: usize = 256;

/// How a fetch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The response was stored.
    Stored,
    /// It is not for others, and the next one will not be either.
    Apart,
    /// It is too large to be stored, whoever asks.
    TooLarge,
    /// There is no response, or only one that speaks of a failure.
    Failed,
    /// The client has left, so the response was not waited for.
    Left,
}

/// What is new about a fetch, by its number.
#[derive(Debug)]
enum News {
    /// The head of the response has come.
    Head(u64, Terms),
    Ended(u64, End),
}

/// Where the exchanges tell what is new.
type Inbox = Arc<Mutex<Vec<News>>>;

/// A fetch in the hands of whoever has the response. When it is dropped, the fetch has ended.
#[derive(Debug)]
pub struct Fetching {
    number: u64,
    inbox: Inbox,
    end: End,
}

/// What becomes of a request for which nothing is stored.
#[derive(Debug)]
pub enum Arrival {
    /// It is sent, and others wait for its response.
    Fetches(Fetching),
    /// It is sent, and nobody waits for its response.
    Alone,
    /// It waits, until this time at most.
    Waits(Instant),
}

/// A request that waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Its number.
    pub ticket: u64,
    /// It may wait for another response, within its time.
    pub may_wait: bool,
}

/// One fetch.
struct Fetch {
    asked: Asked,
    seen: Seen,
    began: Instant,
    /// What the head of the response says, as soon as it has come.
    terms: Option<Terms>,
    waiting: BTreeSet<u64>,
}

/// A request that waits.
struct Waiting {
    asked: Asked,
    fetch: u64,
    until: Instant,
}

/// What earlier responses to a target have said.
#[derive(Default)]
struct Known {
    /// Until when they are not waited for, by clients without and with a cookie.
    apart: [Instant; 2],
    /// The fields of requests that they depend on.
    vary: Vec<Vec<u8>>,
}

/// The fetches of one worker.
#[derive(Default)]
pub struct Fetches {
    last: u64,
    fetches: BTreeMap<u64, Fetch>,
    targets: HashMap<Vec<u8>, Vec<u64>>,
    waiting: BTreeMap<u64, Waiting>,
    deadlines: BTreeSet<(Instant, u64)>,
    known: Memory,
    inbox: Inbox,
    released: Vec<Released>,
}

impl Fetches {
    /// A request has come for which nothing is stored; `seen` is what was purged until now. It may wait until this time.
    pub fn arrive(
        &mut self,
        ticket: u64,
        asked: &Asked,
        seen: Seen,
        until: Instant,
        now: Instant,
    ) -> Arrival {
        self.take_news(now);
        let known = self.known.get(&asked.key);
        if known.is_some_and(|known| known.apart[asked.class()] > now) {
            return Arrival::Alone;
        }
        let vary = known.map_or(&[][..], |known| &known.vary);
        let fetches = self.targets.get(&asked.key);
        let numbers = fetches.map_or(&[][..], |numbers| numbers);
        let found = numbers.iter().copied().find(|number| {
            let fetch = self.fetches.get(number);
            fetch.is_some_and(|fetch| {
                // Who comes later would wait longer than others have.
                let is_young = now < fetch.began.saturating_add(PATIENCE);
                is_young && fetch.seen == seen && fetch.may_answer(asked, vary)
            })
        });
        let is_crowded = self.waiting.len() >= MOST_WAITING;
        match found {
            Some(_) if until <= now || is_crowded => Arrival::Alone,
            Some(number) => {
                self.wait(ticket, asked, number, until);
                Arrival::Waits(until)
            }
            // Its response may be a 304, which is for nobody else.
            None if asked.is_conditional() || numbers.len() >= MOST_VARIANTS => Arrival::Alone,
            None => Arrival::Fetches(self.begin(asked, seen, now)),
        }
    }

    fn wait(&mut self, ticket: u64, asked: &Asked, number: u64, until: Instant) {
        let waiting = Waiting {
            asked: asked.clone(),
            fetch: number,
            until,
        };
        self.waiting.insert(ticket, waiting);
        self.deadlines.insert((until, ticket));
        if let Some(fetch) = self.fetches.get_mut(&number) {
            fetch.waiting.insert(ticket);
        }
    }

    fn begin(&mut self, asked: &Asked, seen: Seen, now: Instant) -> Fetching {
        self.last += 1;
        let number = self.last;
        let of_target = self.targets.entry(asked.key.clone()).or_default();
        of_target.push(number);
        let fetch = Fetch {
            asked: asked.clone(),
            seen,
            began: now,
            terms: None,
            waiting: BTreeSet::new(),
        };
        self.fetches.insert(number, fetch);
        Fetching {
            number,
            inbox: self.inbox.clone(),
            end: End::Failed,
        }
    }

    /// A response to this request was stored, so others may wait for the next one.
    pub fn stored(&mut self, asked: &Asked, terms: &Terms, now: Instant) {
        let known = self.known.of(&asked.key);
        known.vary = terms.vary.clone();
        known.apart[asked.class()] = 0;
        let names: usize = terms.vary.iter().map(Vec::len).sum();
        if names > MOST_NAMES {
            *known = Known {
                apart: [now.saturating_add(APART); 2],
                vary: Vec::new(),
            };
        } else if !terms.for_cookies {
            known.apart[1] = now.saturating_add(APART);
        }
    }

    /// The client of a request has left.
    pub fn left(&mut self, ticket: u64) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            self.deadlines.remove(&(waiting.until, ticket));
            if let Some(fetch) = self.fetches.get_mut(&waiting.fetch) {
                fetch.waiting.remove(&ticket);
            }
        }
    }

    /// When to ask for those that are [`released`](Self::released).
    pub fn deadline(&self) -> Instant {
        if !self.released.is_empty() || !lock(&self.inbox).is_empty() {
            return 0;
        }
        self.deadlines.first().map_or(NEVER, |(until, _)| *until)
    }

    /// Requests that wait no more, with those whose time is over.
    pub fn released(&mut self, now: Instant) -> Vec<Released> {
        self.take_news(now);
        while let Some(&(until, ticket)) = self.deadlines.first()
            && until <= now
        {
            self.release(ticket, false);
        }
        std::mem::take(&mut self.released)
    }

    fn take_news(&mut self, now: Instant) {
        let news = std::mem::take(&mut *lock(&self.inbox));
        for news in news {
            match news {
                News::Head(number, terms) => self.has_head(number, terms, now),
                News::Ended(number, end) => self.ended(number, end, now),
            }
        }
    }

    /// Those who can be answered by the response wait for its end.
    fn has_head(&mut self, number: u64, terms: Terms, now: Instant) {
        let Some(fetch) = self.fetches.get_mut(&number) else {
            return;
        };
        fetch.terms = Some(terms.clone());
        let (asked, waiting) = (fetch.asked.clone(), &self.waiting);
        let others = fetch.waiting.iter().copied().filter(|ticket| {
            let waiting = waiting.get(ticket);
            waiting.is_none_or(|waiting| !fetch.may_answer(&waiting.asked, &[]))
        });
        let others: Vec<_> = others.collect();
        self.stored(&asked, &terms, now);
        for ticket in others {
            // From now on it is known by what responses differ.
            self.release(ticket, true);
        }
    }

    fn ended(&mut self, number: u64, end: End, now: Instant) {
        let Some(fetch) = self.fetches.remove(&number) else {
            return;
        };
        let (key, class) = (&fetch.asked.key, fetch.asked.class());
        if let Some(numbers) = self.targets.get_mut(key) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.targets.remove(key);
            }
        }
        let until = now.saturating_add(APART);
        match end {
            End::Apart => self.known.of(key).apart[class] = until,
            End::TooLarge => self.known.of(key).apart = [until; 2],
            End::Stored | End::Failed | End::Left => {}
        }
        for ticket in fetch.waiting {
            let waiting = self.waiting.get(&ticket);
            let is_alike = waiting.is_some_and(|waiting| waiting.asked.class() == class);
            let may_wait = match end {
                End::Stored | End::Left => true,
                // It says nothing about those who are marked otherwise.
                End::Apart => !is_alike,
                // All at once, as without a cache: one after the other could take for ever.
                End::TooLarge | End::Failed => false,
            };
            self.release(ticket, may_wait);
        }
    }

    fn release(&mut self, ticket: u64, may_wait: bool) {
        self.left(ticket);
        self.released.push(Released { ticket, may_wait });
    }
}

impl Fetch {
    /// Whether the response may be for this request, too. As long as nothing is known of it, those fields count that earlier ones depended on.
    fn may_answer(&self, asked: &Asked, vary: &[Vec<u8>]) -> bool {
        let vary = self.terms.as_ref().map_or(vary, |terms| &terms.vary);
        let is_for_class = |terms: &Terms| terms.for_cookies || asked.class() == 0;
        self.terms.as_ref().is_none_or(is_for_class)
            && vary
                .iter()
                .all(|name| self.asked.field(name) == asked.field(name))
    }
}

impl Fetching {
    /// The head of the response has come, and others may have it.
    pub fn has_head(&self, terms: &Terms) {
        lock(&self.inbox).push(News::Head(self.number, terms.clone()));
    }

    /// It ends in this way.
    pub fn ends(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        lock(&self.inbox).push(News::Ended(self.number, self.end));
    }
}

fn lock(inbox: &Inbox) -> MutexGuard<'_, Vec<News>> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of targets, by hashes of them.
struct Memory {
    hasher: RandomState,
    known: LruCache<u64, Known>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            known: LruCache::new(MOST_KNOWN),
        }
    }
}

impl Memory {
    fn get(&mut self, key: &[u8]) -> Option<&Known> {
        self.known.get(&self.hasher.hash_one(key))
    }

    fn of(&mut self, key: &[u8]) -> &mut Known {
        let hash = self.hasher.hash_one(key);
        self.known.get_or_insert_mut(hash, Known::default)
    }
}

impl fmt::Debug for Fetches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetches")
            .field("fetches", &self.fetches.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
