//! What proxies claim about a client, and how far back along their chain it is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::trusted::TrustedProxies;
use crate::proto::h1::target;

/// Somebody in the chain from the client to this server, as the next one names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Address(IpAddr, Option<u16>),
    /// The peer of a Unix socket, as nginx writes it.
    Unix,
    /// Not known, not to be known, or not understood.
    Hidden,
}

/// What one kind of fields says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub client: Option<(IpAddr, Option<u16>)>,
    pub https: Option<bool>,
    pub host: Option<Vec<u8>>,
    pub port: Option<u16>,
    pub prefix: Option<Vec<u8>>,
}

impl Claims {
    /// What both say together.
    ///
    /// # Errors
    /// They differ: a proxy sets the one, and passes on the other as the client has sent it. Nobody knows which is which.
    pub fn and(self, other: Self) -> Result<Self, &'static str> {
        Ok(Self {
            client: match (self.client, other.client) {
                (Some((a, _)), Some((b, _))) if a != b => {
                    return Err("Forwarded and X-Forwarded-For contradict each other");
                }
                // A port may be missing in one of them.
                (Some((a, port)), Some((_, other))) => Some((a, port.or(other))),
                (a, b) => a.or(b),
            },
            https: same(
                self.https,
                other.https,
                "Forwarded and X-Forwarded-Proto contradict each other",
            )?,
            host: match (self.host, other.host) {
                (Some(a), Some(b)) if !a.eq_ignore_ascii_case(&b) => {
                    return Err("Forwarded and X-Forwarded-Host contradict each other");
                }
                (a, b) => a.or(b),
            },
            port: self.port.or(other.port),
            prefix: self.prefix.or(other.prefix),
        })
    }
}

fn same<T: PartialEq>(
    a: Option<T>,
    b: Option<T>,
    why: &'static str,
) -> Result<Option<T>, &'static str> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(why),
        (a, b) => Ok(a.or(b)),
    }
}

/// Goes along the chain from the nearest node to the first that is not trusted. Gives its address and its number in the chain. A node
/// without an address ends the way: it is not known who wrote what lies behind it.
pub(super) fn walk(
    chain: impl Iterator<Item = Node>,
    trusted: &TrustedProxies,
) -> (Option<(IpAddr, Option<u16>)>, usize) {
    let mut client = None;
    let mut number = 0;
    for (index, node) in chain.enumerate() {
        number = index;
        match node {
            Node::Address(address, port) => {
                client = Some((address, port));
                if !trusted.has(address) {
                    break;
                }
            }
            Node::Unix if trusted.unix => {}
            Node::Unix | Node::Hidden => break,
        }
    }
    (client, number)
}

/// A node of RFC 7239 section 6, or an address with or without a port as it stands in X-Forwarded-For.
pub(super) fn node(text: &[u8]) -> Node {
    if text.eq_ignore_ascii_case(b"unix:") {
        return Node::Unix;
    }
    parse_node(text).unwrap_or(Node::Hidden)
}

fn parse_node(text: &[u8]) -> Option<Node> {
    let text = str::from_utf8(text).ok()?;
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (address.parse::<Ipv6Addr>().ok()?.into(), port)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        (address.into(), "")
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (address, port) = text.split_at(end);
        (IpAddr::from(address.parse::<Ipv4Addr>().ok()?), port)
    };
    let port = match port {
        "" => None,
        // RFC 7239 section 6.3: a port may be hidden, too.
        port if port.starts_with(":_") => None,
        port => Some(number(port.strip_prefix(':')?.as_bytes())?),
    };
    Some(Node::Address(address.to_canonical(), port))
}

/// A port: one to five digits.
pub(super) fn number(text: &[u8]) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let number: u16 = digits
        .then(|| str::from_utf8(text).ok()?.parse().ok())
        .flatten()?;
    (number > 0).then_some(number)
}

/// Whether a scheme is one over TLS. `ws` and `wss` are what some proxies write for WebSocket requests.
///
/// # Errors
/// It is another scheme.
pub(super) fn scheme(text: &[u8]) -> Result<bool, ()> {
    let is = |name: &[u8]| text.eq_ignore_ascii_case(name);
    match () {
        () if is(b"https") || is(b"wss") => Ok(true),
        () if is(b"http") || is(b"ws") => Ok(false),
        () => Err(()),
    }
}

/// A host that stands where the field Host could.
///
/// # Errors
/// It is none.
pub(super) fn host(text: &[u8]) -> Result<Vec<u8>, ()> {
    match target::host(text) {
        Ok(()) => Ok(text.to_vec()),
        Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, port: Option<u16>) -> Node {
        Node::Address(text.parse().unwrap(), port)
    }

    #[test]
    fn nodes_are_addresses_or_hidden() {
        for (text, node_) in [
            ("192.0.2.1", address("192.0.2.1", None)),
            ("192.0.2.1:80", address("192.0.2.1", Some(80))),
            ("192.0.2.1:_gazonk", address("192.0.2.1", None)),
            ("2001:db8::1", address("2001:db8::1", None)),
            ("[2001:db8::1]", address("2001:db8::1", None)),
            ("[2001:db8::1]:4711", address("2001:db8::1", Some(4711))),
            ("::ffff:192.0.2.1", address("192.0.2.1", None)),
            ("[::ffff:192.0.2.1]:80", address("192.0.2.1", Some(80))),
            ("unix:", Node::Unix),
            ("", Node::Hidden),
            ("unknown", Node::Hidden),
            ("unknown:80", Node::Hidden),
            ("_hidden", Node::Hidden),
            ("_SEVKISEK", Node::Hidden),
            ("localhost", Node::Hidden),
            ("192.0.2.1:", Node::Hidden),
            ("192.0.2.1:0", Node::Hidden),
            ("192.0.2.1:65536", Node::Hidden),
            ("192.0.2.1:123456", Node::Hidden),
            ("192.0.2.1:+80", Node::Hidden),
            ("192.0.2.1:80:80", Node::Hidden),
            ("192.0.2", Node::Hidden),
            ("192.0.2.010", Node::Hidden),
            ("0xc0000201", Node::Hidden),
            ("3221225985", Node::Hidden),
            ("192.0.2.1 ", Node::Hidden),
            ("192.0.2.1/32", Node::Hidden),
            ("fe80::1%eth0", Node::Hidden),
            ("[192.0.2.1]", Node::Hidden),
            ("[2001:db8::1", Node::Hidden),
            ("[2001:db8::1]80", Node::Hidden),
            ("[2001:db8::1]:x", Node::Hidden),
            ("\u{661}92.0.2.1", Node::Hidden),
        ] {
            assert_eq!(node(text.as_bytes()), node_, "{text}");
        }
        assert_eq!(node(b"\xff"), Node::Hidden);
    }

    #[test]
    fn the_way_ends_at_the_first_who_is_not_trusted() {
        let trusted = TrustedProxies {
            unix: true,
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for (chain, client, number) in [
            ("", None, 0),
            ("1.1.1.1", Some("1.1.1.1"), 0),
            ("1.1.1.1 2.2.2.2", Some("1.1.1.1"), 0),
            ("10.0.0.1 2.2.2.2 3.3.3.3", Some("2.2.2.2"), 1),
            ("::ffff:10.0.0.1 2.2.2.2", Some("2.2.2.2"), 1),
            // Nobody but proxies: the farthest.
            ("10.0.0.1 10.0.0.2", Some("10.0.0.2"), 1),
            // What is behind somebody hidden has been written by anybody.
            ("unknown 1.1.1.1", None, 0),
            ("10.0.0.1 unknown 1.1.1.1", Some("10.0.0.1"), 1),
            ("10.0.0.1 _x 10.0.0.2", Some("10.0.0.1"), 1),
            ("unix: 1.1.1.1 2.2.2.2", Some("1.1.1.1"), 1),
        ] {
            let nodes = chain.split_whitespace().map(|text| node(text.as_bytes()));
            let found = walk(nodes, &trusted);
            let client = client.map(|client| (client.parse().unwrap(), None));
            assert_eq!(found, (client, number), "{chain}");
        }
        let chain = [Node::Unix, address("1.1.1.1", None)];
        let nobody = TrustedProxies::default();
        assert_eq!(walk(chain.into_iter(), &nobody), (None, 0));
    }

    #[test]
    fn what_contradicts_is_refused_and_what_is_missing_is_filled_in() {
        let claims = |client: &str, port, https, host: Option<&str>| Claims {
            client: Some((client.parse().unwrap(), port)),
            https,
            host: host.map(Into::into),
            ..Claims::default()
        };
        let a = || claims("1.1.1.1", None, Some(true), Some("a.example"));
        let b = claims("1.1.1.1", Some(5), None, Some("A.example"));
        assert_eq!(
            a().and(b),
            Ok(claims("1.1.1.1", Some(5), Some(true), Some("a.example")))
        );
        assert_eq!(a().and(Claims::default()), Ok(a()));
        assert_eq!(Claims::default().and(a()), Ok(a()));
        for other in [
            claims("2.2.2.2", None, None, None),
            claims("1.1.1.1", None, Some(false), None),
            claims("1.1.1.1", None, None, Some("b.example")),
        ] {
            assert!(a().and(other).is_err());
        }
    }
}
