//! Session tickets (RFC 8446 section 4.6.1, RFC 5077), whose keys come from outside: all workers have the same, so that a session that
//! began on one goes on with any other, and after a reload.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, rand};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// Bytes of the name of a key in each ticket.
const NAME: usize = 16;
/// RFC 8446 section 4.6.1: no ticket is for longer than seven days.
const LONGEST: u64 = 7 * 24 * 60 * 60;

/// A key, as it is handed over.
#[derive(Clone)]
pub struct Key {
    secret: Zeroizing<[u8; 32]>,
    from: u64,
    until: u64,
}

impl Key {
    /// A secret that makes tickets from one time on, and reads them until another, in seconds of [`now`].
    pub fn new(secret: [u8; 32], from: u64, until: u64) -> Self {
        Self {
            secret: Zeroizing::new(secret),
            from,
            until,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("from", &self.from)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// A key that is ready for use. The library erases its own copy.
struct Ready {
    name: [u8; NAME],
    key: LessSafeKey,
    from: u64,
    until: u64,
}

impl Ready {
    fn new(key: &Key) -> Option<Self> {
        // All workers give it the same name, which says nothing of the secret.
        let mut input = Zeroizing::new(b"preforkd ticket key name".to_vec());
        input.extend_from_slice(&key.secret[..]);
        let mut name = [0; NAME];
        name.copy_from_slice(&digest::digest(&digest::SHA256, &input).as_ref()[..NAME]);
        let unbound = UnboundKey::new(&AES_256_GCM, &key.secret[..]).ok()?;
        Some(Self {
            name,
            key: LessSafeKey::new(unbound),
            from: key.from,
            until: key.until,
        })
    }
}

/// The keys of all tickets, newest first. They can be exchanged while they are in use.
pub struct Keys {
    ready: RwLock<Arc<[Ready]>>,
    clock: fn() -> u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// These, newest first. With none there are no tickets.
    pub fn new(keys: &[Key]) -> Arc<Self> {
        Self::by(now, keys)
    }

    fn by(clock: fn() -> u64, keys: &[Key]) -> Arc<Self> {
        let all = Self {
            ready: RwLock::new(Arc::new([])),
            clock,
        };
        all.replace(keys);
        Arc::new(all)
    }

    /// Takes others instead; those that are not among them are forgotten.
    pub fn replace(&self, keys: &[Key]) {
        let ready = keys.iter().filter_map(Ready::new).collect();
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    fn all(&self) -> Arc<[Ready]> {
        let ready = self.ready.read();
        ready.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The time of the keys: that of a clock that nobody sets (CLOCK_MONOTONIC), in seconds.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default()
}

/// Makes and reads the tickets of one set of terms: those of others, which may ask for other certificates of clients, are not accepted.
#[derive(Debug)]
pub struct Tickets {
    keys: Arc<Keys>,
    /// What tells the terms apart; it is authenticated together with each ticket.
    context: Box<[u8]>,
}

impl Tickets {
    /// Tickets for these terms.
    pub fn new(keys: Arc<Keys>, context: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            keys,
            context: context.into(),
        })
    }

    fn aad(&self, name: &[u8; NAME]) -> Aad<Vec<u8>> {
        Aad::from([&name[..], &self.context].concat())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let now = (self.keys.clock)();
        let all = self.keys.all();
        let left = newest(&all, now).map_or(0, |key| key.until - now);
        left.min(LONGEST) as u32
    }

    /// The name of the key, the nonce, what is encrypted.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let all = self.keys.all();
        let ready = newest(&all, (self.keys.clock)())?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        ready
            .key
            .seal_in_place_append_tag(unique, self.aad(&ready.name), &mut sealed)
            .ok()?;
        Some([&ready.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now = (self.keys.clock)();
        let all = self.keys.all();
        let ready = all
            .iter()
            .find(|key| key.name == *name && now < key.until)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = ready
            .key
            .open_in_place(nonce, self.aad(name), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}

/// The key that makes tickets now. One that was handed over ahead of its time does not yet: not all workers may have it.
fn newest(keys: &[Ready], now: u64) -> Option<&Ready> {
    keys.iter().find(|key| key.from <= now && now < key.until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_100() -> u64 {
        100
    }

    fn at_200() -> u64 {
        200
    }

    fn keys(clock: fn() -> u64, keys: &[Key]) -> Arc<Tickets> {
        Tickets::new(Keys::by(clock, keys), b"terms")
    }

    #[test]
    fn whoever_has_the_key_reads_the_ticket_until_its_time_is_over() {
        let (old, new) = (Key::new([1; 32], 0, 150), Key::new([2; 32], 90, 300));
        let ticket = keys(at_100, std::slice::from_ref(&old))
            .encrypt(b"session")
            .unwrap();
        let both = keys(at_100, &[new.clone(), old.clone()]);
        assert_eq!(both.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        // The new key makes tickets, and the old one is still known.
        let ticket_of_new = both.encrypt(b"session").unwrap();
        assert_ne!(ticket_of_new[..NAME], ticket[..NAME]);
        assert_eq!(
            keys(at_100, std::slice::from_ref(&old)).decrypt(&ticket_of_new),
            None
        );
        // Too old, though it is still in the list.
        let later = keys(at_200, &[new, old]);
        assert_eq!(later.decrypt(&ticket), None);
        assert!(later.decrypt(&ticket_of_new).is_some());
        assert_eq!(later.lifetime(), 100);
    }

    #[test]
    fn a_key_ahead_of_its_time_reads_and_does_not_make() {
        let (now, next) = (Key::new([1; 32], 0, 300), Key::new([2; 32], 150, 400));
        let early = keys(at_100, &[next.clone(), now.clone()]);
        let late = keys(at_200, &[next, now.clone()]);
        let ticket = early.encrypt(b"session").unwrap();
        assert!(keys(at_100, &[now]).decrypt(&ticket).is_some());
        // A worker whose clock is behind.
        let ticket = late.encrypt(b"session").unwrap();
        assert!(early.decrypt(&ticket).is_some());
    }

    #[test]
    fn tickets_are_not_shared_between_terms_and_any_change_is_found() {
        let all = Keys::by(at_100, &[Key::new([1; 32], 0, 200)]);
        let (one, other) = (Tickets::new(all.clone(), b"a"), Tickets::new(all, b"b"));
        let ticket = one.encrypt(b"session").unwrap();
        assert_ne!(one.encrypt(b"session").unwrap(), ticket);
        assert!(one.decrypt(&ticket).is_some());
        assert_eq!(other.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(one.decrypt(&changed), None, "{at}");
            assert_eq!(one.decrypt(&ticket[..at]), None, "{at}");
        }
    }

    #[test]
    fn without_a_key_there_is_no_ticket_and_keys_can_be_exchanged() {
        let all = Keys::by(at_100, &[]);
        let tickets = Tickets::new(all.clone(), b"");
        assert_eq!(tickets.encrypt(b"session"), None);
        assert_eq!(tickets.lifetime(), 0);
        all.replace(&[Key::new([1; 32], 0, 200)]);
        let ticket = tickets.encrypt(b"session").unwrap();
        assert!(tickets.decrypt(&ticket).is_some());
        all.replace(&[Key::new([2; 32], 0, 200)]);
        assert_eq!(tickets.decrypt(&ticket), None);
    }
}
