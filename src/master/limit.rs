//! How much of something is allowed in each window of time, by key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Counts by key. A window begins with the first count after the last one has ended.
#[derive(Debug)]
pub(super) struct Limit<K> {
    window: Duration,
    most: u32,
    counts: BTreeMap<K, (Instant, u32)>,
}

impl<K: Ord + Clone> Limit<K> {
    /// At most so much in each window.
    pub(super) fn new(most: u32, window: Duration) -> Self {
        Self {
            window,
            most,
            counts: BTreeMap::new(),
        }
    }

    /// Adds to a count; returns whether it is still within the limit, or else when the next window begins.
    pub(super) fn add(&mut self, key: &K, number: usize, now: Instant) -> Result<(), Instant> {
        let (since, count) = self.counts.entry(key.clone()).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= self.window {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(u32::try_from(number).unwrap_or(u32::MAX));
        match *count <= self.most {
            true => Ok(()),
            false => Err(*since + self.window),
        }
    }

    /// The key is not used any more.
    pub(super) fn forget(&mut self, key: &K) {
        self.counts.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_count_which_begins_again_with_each_window() {
        let (start, window) = (Instant::now(), Duration::from_secs(60));
        let mut limit = Limit::new(3, window);
        let within = (0..1000).filter(|_| limit.add(&"web", 1, start).is_ok());
        assert_eq!(within.count(), 3);
        assert_eq!(limit.add(&"api", 2, start), Ok(()));
        assert_eq!(limit.add(&"api", 2, start), Err(start + window));
        assert_eq!(limit.add(&"web", 3, start + window), Ok(()));
    }
}
