//! `max_connections_per_client`: how many connections a client may have open, counted by all workers of the front together.
//!
//! A connection counts from when it is known whose it is until it is closed, whatever it carries. It is refused before anything is read of it,
//! so that a client costs nothing that opens one after the other.

use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::net::IpAddr;

use preforkd_http::{Origin, TrustedProxies};
use preforkd_worker::connections::{Connections, Opened};

const TOO_MANY: &str = "its client has as many open as max_connections_per_client allows";

/// Who has how many.
#[derive(Debug)]
pub struct Clients {
    open: Connections,
    most: u64,
    secret: (u64, u64),
    /// What comes from these is for many clients.
    proxies: TrustedProxies,
}

/// A connection that counts.
#[derive(Debug)]
pub struct Counted {
    open: Connections,
    key: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.close(self.key);
    }
}

impl Clients {
    /// Each may have so many, but for the proxies. All workers have the same secret.
    pub fn new(
        open: Connections,
        most: u32,
        secret: (u64, u64),
        proxies: impl Into<TrustedProxies>,
    ) -> Self {
        Self {
            open,
            most: most.into(),
            secret,
            proxies: proxies.into(),
        }
    }

    /// A connection from there, which counts from now on if it is known whose it is.
    ///
    /// # Errors
    /// It is one too many.
    pub fn admit(&self, origin: &Origin) -> Result<Option<Counted>, &'static str> {
        let is_proxy = match origin.relayed {
            Some(relayed) => relayed.hidden,
            None => self.proxies.has_peer(origin.peer),
        };
        let Some(client) = origin.peer.filter(|_| !is_proxy) else {
            return Ok(None);
        };
        let mut hasher = DefaultHasher::new();
        self.secret.hash(&mut hasher);
        hash_network(client.ip().to_canonical(), &mut hasher);
        let (open, key) = (self.open, hasher.finish());
        match open.open(key, self.most) {
            Opened::Counted => Ok(Some(Counted { open, key })),
            Opened::Uncounted => Ok(None),
            Opened::TooMany => Err(TOO_MANY),
        }
    }
}

/// What clients are told apart by: their addresses, and those with IPv6 by the first 64 bits, as whoever has one address of such a network
/// mostly has all of it.
pub fn hash_network(client: IpAddr, hasher: &mut impl Hasher) {
    match client {
        IpAddr::V4(client) => (2, client.octets()).hash(hasher),
        IpAddr::V6(client) => (3, &client.octets()[..8]).hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicU64;

    use preforkd_http::Relayed;
    use preforkd_worker::connections::WORDS;
    use preforkd_worker::proxy::Proxy;

    use super::*;

    fn from(peer: Option<&str>) -> Origin {
        let peer = peer.map(|ip| SocketAddr::new(ip.parse().expect("an address"), 1));
        Origin {
            listener: 0,
            peer,
            relayed: None,
        }
    }

    fn clients(record: u32, words: &'static [AtomicU64]) -> Clients {
        let open = Connections::begin(words, record, 1).expect("a part");
        let proxies: Vec<Proxy> = vec!["10.0.0.0/8".parse().expect("a network")];
        Clients::new(open, 2, (1, 2), &proxies[..])
    }

    #[test]
    fn a_client_has_no_more_in_all_workers_and_what_is_closed_does_not_count() {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let words: &'static [AtomicU64] = words.leak();
        let (one, other) = (clients(0, words), clients(1, words));
        let taken = |clients: &Clients, peer: &str| clients.admit(&from(Some(peer)));
        let first = taken(&one, "192.0.2.1").expect("room");
        // The same client at a socket for both families.
        let second = taken(&other, "::ffff:192.0.2.1").expect("room");
        assert!(first.is_some() && second.is_some());
        assert_eq!(taken(&one, "192.0.2.1").err(), Some(TOO_MANY));
        assert_eq!(taken(&other, "192.0.2.1").err(), Some(TOO_MANY));
        drop(first);
        assert!(taken(&other, "192.0.2.1").is_ok());
        // A network of IPv6 is one client.
        let [a, b] = ["2001:db8::1", "2001:db8::ffff:2"].map(|peer| taken(&one, peer));
        assert!(a.is_ok() && b.is_ok());
        assert!(taken(&other, "2001:db8::3").is_err());
        assert!(taken(&other, "2001:db8:0:1::3").is_ok());
    }

    #[test]
    fn only_a_client_that_is_known_counts() {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let clients = clients(0, words.leak());
        let counts = |origin: &Origin| clients.admit(origin).expect("room").is_some();
        assert!(!counts(&from(None)), "a Unix socket");
        let proxy = from(Some("10.0.0.1"));
        assert!(!counts(&proxy), "a proxy asks for many");
        let relayed = |hidden: bool| {
            Some(Relayed {
                server: None,
                tls: false,
                hidden,
            })
        };
        let hidden = Origin {
            relayed: relayed(true),
            ..proxy
        };
        assert!(!counts(&hidden));
        let told = Origin {
            relayed: relayed(false),
            ..from(Some("192.0.2.1"))
        };
        let held = [(); 2].map(|()| clients.admit(&told).expect("room"));
        assert!(held.iter().all(Option::is_some));
        assert!(clients.admit(&told).is_err());
    }
}
