//! Proxies that are trusted: an entry of `trusted_proxies`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// Whom to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// Whoever connects to a Unix socket.
    Unix,
    /// Whoever has an address in this network; one address is a network, too.
    Network(IpNet),
}

impl FromStr for Proxy {
    /// What is wrong, and what to write.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        let Ok(network) = text.parse::<IpNet>() else {
            return Err(format!(
                "\"{text}\" is neither a network nor an address ({})",
                hint(text)
            ));
        };
        if network.trunc() != network {
            return Err(format!(
                "\"{text}\" is not a network (write \"{}\", or \"{}\" for this address only)",
                network.trunc(),
                network.addr()
            ));
        }
        Ok(Self::Network(canonical(network)))
    }
}

/// Peers of an IPv6 socket that speak IPv4 are IPv4 to the worker, so the network must be, too.
fn canonical(network: IpNet) -> IpNet {
    let length = network.prefix_len().checked_sub(96);
    match (network.network().to_canonical(), length) {
        (IpAddr::V4(address), Some(length)) if network.network().is_ipv6() => {
            Ipv4Net::new(address, length).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

fn hint(text: &str) -> String {
    let bare = text.trim_start_matches('[');
    let bare = bare.split_once(']').map_or(bare, |(address, _)| address);
    let host = text.split_once(':').map_or(text, |(host, _)| host);
    if text == "*" {
        "to trust everybody, write \"0.0.0.0/0\", \"::/0\" and \"unix\", and see that nobody but your proxy can connect".into()
    } else if text == "localhost" {
        "write \"127.0.0.1\" and \"::1\"".into()
    } else if text.starts_with("unix:") {
        "write \"unix\" for all Unix sockets of the app".into()
    } else if bare != text && bare.parse::<IpAddr>().is_ok() {
        format!("write \"{bare}\"")
    } else if host.parse::<Ipv4Addr>().is_ok() && text.contains(':') {
        format!("write \"{host}\", without a port")
    } else {
        "write for example \"10.0.0.0/8\", \"192.0.2.1\", \"2001:db8::/32\" or \"unix\"; names are not looked up".into()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

struct Entry;

impl Visitor<'_> for Entry {
    type Value = Proxy;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a network, an address or \"unix\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Proxy, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Within the visitor, where a configuration file still knows the place of the entry.
        deserializer.deserialize_str(Entry)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_network_an_address_or_unix() {
        for (text, shown) in [
            ("unix", "unix"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.1/32", "192.0.2.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
        ] {
            let proxy: Proxy = text.parse().expect(text);
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(shown.parse(), Ok(proxy));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_to_write() {
        for (text, advice) in [
            ("10.1.2.3/8", "write \"10.0.0.0/8\", or \"10.1.2.3\" for"),
            ("10.0.0.0/33", "write for example"),
            ("10.0.0", "write for example"),
            ("10.*", "write for example"),
            ("", "write for example"),
            ("proxy.example", "names are not looked up"),
            ("*", "\"0.0.0.0/0\", \"::/0\" and \"unix\""),
            ("localhost", "\"127.0.0.1\" and \"::1\""),
            ("unix:/run/web.sock", "write \"unix\""),
            ("[::1]", "write \"::1\""),
            ("[::1]:80", "write \"::1\""),
            ("10.0.0.1:80", "write \"10.0.0.1\", without a port"),
        ] {
            let why = text.parse::<Proxy>().expect_err(text);
            assert!(why.contains(advice), "{why}\nnot {advice}");
        }
    }
}
