//! The keys of session tickets. They are made here, so that a session that began with one worker of the front goes on with any other. They
//! are in the memory of the master and of the workers of the front, and nowhere else.

use std::time::{Duration, Instant};

use preforkd_worker::updates::TicketKey;
use zeroize::Zeroizing;

/// For this time a key makes tickets. It is handed out as long before, so that all workers have it by then, and its tickets count as long
/// after.
const TERM: Duration = Duration::from_secs(12 * 60 * 60);

/// How long to wait when no key could be made.
const RETRY: Duration = Duration::from_secs(60);

struct Key {
    secret: Zeroizing<String>,
    from: Instant,
}

impl Key {
    fn until(&self) -> Instant {
        self.from + 2 * TERM
    }
}

/// The keys, newest first: the next one, the current one, and the one before.
#[derive(Default)]
pub(super) struct TicketKeys {
    keys: Vec<Key>,
    /// Not before this, as no key could be made.
    retry: Option<Instant>,
}

impl TicketKeys {
    /// Makes new keys if it is time, and drops old ones. Returns whether anything has changed.
    ///
    /// # Errors
    /// That of `make`, which makes a secret; the keys stay as they are then.
    pub(super) fn renew<E>(
        &mut self,
        now: Instant,
        mut make: impl FnMut() -> Result<String, E>,
    ) -> Result<bool, E> {
        if self.deadline().is_some_and(|deadline| now < deadline) {
            return Ok(false);
        }
        let mut key = |from| {
            let made = make();
            self.retry = made.is_err().then(|| now + RETRY);
            made.map(|secret| Key {
                secret: secret.into(),
                from,
            })
        };
        let next = key(now + TERM)?;
        // None makes tickets at the first time, or after a long time without workers.
        let current = match self.keys.first().filter(|key| now < key.from + TERM) {
            Some(_) => None,
            None => Some(key(now)?),
        };
        self.keys.retain(|key| now < key.until());
        self.keys.splice(..0, [next].into_iter().chain(current));
        Ok(true)
    }

    /// When another key has to be made: when the latest one begins.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry
            .or_else(|| self.keys.first().map(|next| next.from))
    }

    /// As workers are told.
    pub(super) fn update(&self, now: Instant) -> Vec<TicketKey> {
        let tell = |key: &Key| TicketKey {
            secret: key.secret.to_string(),
            begins_in: key.from.saturating_duration_since(now).as_secs(),
            ends_in: key.until().saturating_duration_since(now).as_secs(),
        };
        self.keys.iter().map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secrets that count up.
    fn secrets() -> impl FnMut() -> Result<String, ()> {
        let mut number = 0;
        move || {
            number += 1;
            Ok(number.to_string())
        }
    }

    fn told(keys: &TicketKeys, now: Instant) -> Vec<(String, u64, u64)> {
        let hours = |seconds: u64| seconds / 3600;
        let told = keys.update(now).into_iter();
        told.map(|key| (key.secret, hours(key.begins_in), hours(key.ends_in)))
            .collect()
    }

    #[test]
    fn a_key_is_handed_out_before_it_is_used_and_kept_after() {
        let (mut keys, mut make, mut now) = (TicketKeys::default(), secrets(), Instant::now());
        assert_eq!(keys.deadline(), None);
        assert_eq!(keys.renew(now, &mut make), Ok(true));
        let expected = [("1".into(), 12, 36), ("2".into(), 0, 24)];
        assert_eq!(told(&keys, now), expected);
        assert_eq!(keys.deadline(), Some(now + TERM));
        assert_eq!(keys.renew(now + TERM / 2, &mut make), Ok(false));
        now += TERM;
        assert_eq!(keys.renew(now, &mut make), Ok(true));
        let expected = [
            ("3".into(), 12, 36),
            ("1".into(), 0, 24),
            ("2".into(), 0, 12),
        ];
        assert_eq!(told(&keys, now), expected);
        now += TERM;
        assert_eq!(keys.renew(now, &mut make), Ok(true));
        let expected = [
            ("4".into(), 12, 36),
            ("3".into(), 0, 24),
            ("1".into(), 0, 12),
        ];
        assert_eq!(told(&keys, now), expected);
    }

    #[test]
    fn after_a_long_time_all_are_new() {
        let (mut keys, mut make, now) = (TicketKeys::default(), secrets(), Instant::now());
        assert_eq!(keys.renew(now, &mut make), Ok(true));
        let now = now + 9 * TERM;
        assert_eq!(keys.renew(now, &mut make), Ok(true));
        let expected = [("3".into(), 12, 36), ("4".into(), 0, 24)];
        assert_eq!(told(&keys, now), expected);
    }

    #[test]
    fn without_randomness_the_keys_stay() {
        let (mut keys, mut make, now) = (TicketKeys::default(), secrets(), Instant::now());
        assert_eq!(keys.renew(now, &mut make), Ok(true));
        let before = told(&keys, now);
        let now = now + TERM;
        assert_eq!(keys.renew(now, || Err("none")), Err("none"));
        assert_eq!(keys.deadline(), Some(now + RETRY));
        assert_eq!(keys.renew(now, || Err("none")), Ok(false), "not yet");
        assert_eq!(told(&keys, now - TERM), before);
        assert_eq!(
            keys.renew(now + RETRY, || Ok::<_, ()>("3".into())),
            Ok(true)
        );
        assert_eq!(keys.deadline(), Some(now + RETRY + TERM));
    }
}
