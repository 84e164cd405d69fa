//! The passwords that were found to be right, for a while, so that a page with many parts costs one comparison. Only what was right is known: so
//! what can be asked cannot fill the memory, and a wrong password always takes its time.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::upstream::Instant;

/// How long one is known after it was used, and at most.
const LASTS: Instant = 60_000_000_000;
const MOST: Instant = 15 * LASTS;
/// So many are known at a time.
const ROOM: usize = 4096;

/// A user, a password and a hash, as a number that tells nothing about them.
pub type Key = [u8; 32];

/// What makes keys. No other process has the same.
pub struct Secret([u8; 32]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom(&mut secret, GetRandomFlags::empty())?;
        Ok(Self(secret))
    }

    /// The key of these texts.
    pub fn key(&self, parts: &[&[u8]]) -> Key {
        let mut mac = Blake2sMac256::new(&self.0.into());
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize_fixed().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// Those that are known, with when they were found right and last used.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<Key, (Instant, Instant)>>);

impl Known {
    /// Whether this one is.
    pub fn has(&self, key: &Key, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(key) {
            Some(times) if is_fresh(*times, now) => {
                times.1 = now;
                true
            }
            _ => false,
        }
    }

    /// This one was found right.
    pub fn add(&self, key: Key, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ROOM {
            all.retain(|_, times| is_fresh(*times, now));
        }
        if all.len() >= ROOM {
            let oldest = all.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                all.remove(&oldest);
            }
        }
        all.insert(key, (now, now));
    }
}

fn is_fresh((found, used): (Instant, Instant), now: Instant) -> bool {
    now.saturating_sub(used) < LASTS && now.saturating_sub(found) < MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut key = Key::default();
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        key
    }

    #[test]
    fn what_is_used_stays_known_but_not_for_ever() {
        let known = Known::default();
        assert!(!known.has(&key(1), 0));
        known.add(key(1), 0);
        assert!(known.has(&key(1), LASTS - 1));
        assert!(known.has(&key(1), 2 * LASTS - 2));
        assert!(!known.has(&key(1), 3 * LASTS - 2));
        known.add(key(1), 0);
        let mut now = 0;
        while known.has(&key(1), now) {
            now += LASTS / 2;
        }
        assert_eq!(now, MOST);
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let known = Known::default();
        for number in 0..ROOM {
            known.add(key(number), number as Instant);
        }
        assert!(known.has(&key(0), ROOM as Instant));
        known.add(key(ROOM), ROOM as Instant);
        assert!(known.has(&key(0), ROOM as Instant));
        assert!(!known.has(&key(1), ROOM as Instant));
        assert!(known.has(&key(2), ROOM as Instant));
    }

    #[test]
    fn keys_tell_where_a_text_ends_and_differ_between_processes() {
        let secret = Secret::new().unwrap();
        assert_eq!(secret.key(&[b"a", b"bc"]), secret.key(&[b"a", b"bc"]));
        assert_ne!(secret.key(&[b"a", b"bc"]), secret.key(&[b"ab", b"c"]));
        assert_ne!(Secret::new().unwrap().key(&[b"a"]), secret.key(&[b"a"]));
    }
}
