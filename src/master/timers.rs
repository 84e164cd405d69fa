//! Timers: a set of keys, each with an instant. Setting, clearing and reading take logarithmic time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Timers by key. Each key has at most one.
#[derive(Debug)]
pub(super) struct Timers<K> {
    due: BTreeSet<(Instant, K)>,
    at: BTreeMap<K, Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            at: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the timer of a key, replacing its previous one; `None` clears it.
    pub(super) fn set(&mut self, key: K, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.at.insert(key.clone(), at),
            None => self.at.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, key));
        }
    }

    /// Brings the timer of a key forward, unless it has none or is due by then anyway.
    pub(super) fn bring_forward(&mut self, key: &K, latest: Instant) {
        if self.get(key).is_some_and(|at| at > latest) {
            self.set(key.clone(), Some(latest));
        }
    }

    /// When the next timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The keys that have a timer.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.at.keys()
    }

    /// The timer of a key.
    pub(super) fn get(&self, key: &K) -> Option<Instant> {
        self.at.get(key).copied()
    }

    /// Removes and returns the first timer if it is due.
    pub(super) fn take_one_due(&mut self, now: Instant) -> Option<K> {
        self.due.first().filter(|(at, _)| *at <= now)?;
        let (_, key) = self.due.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// Removes and returns all timers that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<K> {
        std::iter::from_fn(|| self.take_one_due(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_has_one_timer_which_is_due_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set("a", Some(at(5)));
        timers.set("b", Some(at(3)));
        timers.set("a", Some(at(2)));
        assert_eq!(
            (timers.next(), timers.get(&"a")),
            (Some(at(2)), Some(at(2)))
        );
        assert_eq!(timers.take_due(at(2)), ["a"]);
        assert_eq!(timers.take_due(at(2)), [""; 0]);
        timers.set("b", None);
        assert_eq!((timers.next(), timers.get(&"b")), (None, None));
    }
}
