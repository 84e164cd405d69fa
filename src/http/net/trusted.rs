//! Whose word about the client counts.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use preforkd_worker::proxy::Proxy;

/// Proxies that may say for whom they ask. The default is nobody.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    /// Whoever connects to a Unix socket.
    pub unix: bool,
    /// Addresses. IPv4 clients of an IPv6 socket are IPv4 here.
    pub networks: Vec<IpNet>,
}

impl From<&[Proxy]> for TrustedProxies {
    fn from(proxies: &[Proxy]) -> Self {
        let mut trusted = Self::default();
        for proxy in proxies {
            match proxy {
                Proxy::Unix => trusted.unix = true,
                Proxy::Network(network) => trusted.networks.push(*network),
            }
        }
        trusted
    }
}

impl TrustedProxies {
    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        !self.unix && self.networks.is_empty()
    }

    /// Whether that is the address of one.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Whether the peer of a socket is one; a Unix socket has no address.
    pub fn has_peer(&self, peer: Option<SocketAddr>) -> bool {
        match peer {
            Some(peer) => self.has(peer.ip()),
            None => self.unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(unix: bool, networks: &[&str]) -> TrustedProxies {
        TrustedProxies {
            unix,
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn an_address_is_in_a_network_whichever_socket_it_came_from() {
        let proxies = trusted(false, &["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        for (address, is) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:11.1.2.3", false),
            ("::10.1.2.3", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(proxies.has(address.parse().unwrap()), is, "{address}");
        }
        // Everybody of one family is nobody of the other.
        let everybody = trusted(false, &["::/0"]);
        assert!(everybody.has("2001:db9::1".parse().unwrap()));
        assert!(!everybody.has("::ffff:10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn a_unix_socket_is_named_by_its_own_word() {
        let tcp = Some(([10, 0, 0, 1], 5).into());
        assert!(!TrustedProxies::default().has_peer(None));
        assert!(!TrustedProxies::default().has_peer(tcp));
        assert!(trusted(true, &[]).has_peer(None));
        assert!(!trusted(true, &[]).has_peer(tcp));
        assert!(!trusted(false, &["0.0.0.0/0"]).has_peer(None));
        assert!(trusted(false, &["0.0.0.0/0"]).has_peer(tcp));
    }
}
