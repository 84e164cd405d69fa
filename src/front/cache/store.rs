//! The responses in memory: those that were asked for least recently go first.

use std::fmt;
use std::sync::{Arc, Weak};

use lru::LruCache;
use preforkd_worker::purges::Seen;

use super::Fields;
use super::asked::Asked;
use super::terms::Terms;
use crate::upstream::protocol::Protocol;

/// Memory that each response takes besides its bytes: tables, and the allocator's own.
const OVERHEAD: usize = 512;
/// Responses to one target that differ by the fields of the request.
pub const MOST_VARIANTS: usize = 16;

/// One second in the time of the loop.
pub const SECOND: u64 = 1_000_000_000;

/// A response that was stored.
#[derive(Debug)]
pub struct Stored {
    /// As it came from the upstream.
    pub message: Vec<u8>,
    /// What the upstream speaks.
    pub protocol: Protocol,
    /// What it allows.
    pub terms: Terms,
    /// Fields of its head that a client may ask about, or needs with 304.
    pub fields: Fields,
    /// When it came, in the time of the loop.
    pub came: u64,
    /// What was purged before it was asked for.
    pub seen: Seen,
    /// The values of the fields that it depends on.
    pub values: Vec<Option<Vec<u8>>>,
}

impl Stored {
    /// Its age in seconds.
    pub fn age(&self, now: u64) -> u64 {
        self.terms.age + now.saturating_sub(self.came) / SECOND
    }

    fn is_for(&self, asked: &Asked) -> bool {
        let has_cookie = asked.field(b"cookie").is_some();
        let mut dependent = self.terms.vary.iter().zip(&self.values);
        (self.terms.for_cookies || !has_cookie)
            && dependent.all(|(name, value)| asked.field(name) == value.as_deref())
    }

    fn size(&self) -> usize {
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let values = self.values.iter().flatten().map(Vec::len);
        OVERHEAD + self.message.len() + fields.sum::<usize>() + values.sum::<usize>()
    }
}

/// A response, and who asks for the next one.
struct Variant {
    stored: Arc<Stored>,
    refresh: Weak<()>,
}

/// What is there for a request.
#[derive(Debug)]
pub enum Found {
    /// It may be given out.
    Fresh(Arc<Stored>),
    /// It may be given out, as another request has asked for the next one.
    Stale(Arc<Stored>),
    /// Nothing that may be given out. As long as the proof that it is being asked for lives, others get what is stale.
    Nothing(Option<Arc<()>>),
}

/// The responses.
pub struct Store {
    entries: LruCache<Vec<u8>, Vec<Variant>>,
    size: usize,
    most: usize,
}

impl Store {
    /// Room for so many bytes.
    pub fn new(most: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            size: 0,
            most,
        }
    }

    /// The largest response that is stored, in bytes.
    pub fn most_each(&self) -> usize {
        (self.most / 16).min(1 << 20)
    }

    /// What is there for a request. `seen` is what was purged until now.
    pub fn find(&mut self, asked: &Asked, seen: Seen, now: u64) -> Found {
        let Some(variants) = self.entries.get_mut(&asked.key) else {
            return Found::Nothing(None);
        };
        let Some(at) = variants
            .iter()
            .position(|variant| variant.stored.is_for(asked))
        else {
            return Found::Nothing(None);
        };
        let variant = &mut variants[at];
        let (terms, age) = (&variant.stored.terms, variant.stored.age(now));
        if variant.stored.seen == seen && age < terms.lifetime {
            return Found::Fresh(variant.stored.clone());
        }
        if variant.stored.seen == seen && age < terms.lifetime.saturating_add(terms.grace) {
            if variant.refresh.upgrade().is_some() {
                return Found::Stale(variant.stored.clone());
            }
            let asks = Arc::new(());
            variant.refresh = Arc::downgrade(&asks);
            return Found::Nothing(Some(asks));
        }
        self.size -= cost(&asked.key, &variants.swap_remove(at).stored);
        if variants.is_empty() {
            self.entries.pop(&asked.key);
        }
        Found::Nothing(None)
    }

    /// Stores a response in place of the one for the same request.
    pub fn store(&mut self, asked: &Asked, stored: Stored) {
        if stored.message.len() > self.most_each() {
            return;
        }
        let (key, stored) = (&asked.key, Arc::new(stored));
        self.size += cost(key, &stored);
        let variants = self.entries.get_or_insert_mut(key.clone(), Vec::new);
        let mut gone: Vec<Variant> = Vec::new();
        while let Some(at) = variants
            .iter()
            .position(|variant| variant.stored.is_for(asked))
        {
            gone.push(variants.remove(at));
        }
        if variants.len() == MOST_VARIANTS {
            gone.push(variants.remove(0));
        }
        variants.push(Variant {
            stored,
            refresh: Weak::new(),
        });
        for variant in gone {
            self.size -= cost(key, &variant.stored);
        }
        while self.size > self.most {
            let Some((key, variants)) = self.entries.pop_lru() else {
                return;
            };
            let costs = variants.iter().map(|variant| cost(&key, &variant.stored));
            self.size -= costs.sum::<usize>();
        }
    }
}

fn cost(key: &[u8], stored: &Stored) -> usize {
    key.len() + stored.size()
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
