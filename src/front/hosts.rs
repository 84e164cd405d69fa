//! Which site a request is for: by the listener that it came in at, and by the host that it names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use preforkd_worker::front::Site;

/// The sites of one listener.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<Vec<u8>, usize>,
    /// What follows the `*` of a wildcard, with its dot.
    below: HashMap<Vec<u8>, usize>,
    /// The site without hosts.
    default: Option<usize>,
}

/// The sites of all listeners.
#[derive(Debug, Default)]
pub struct Hosts {
    listeners: BTreeMap<String, Names>,
}

impl Hosts {
    /// Compiles the names of sites. Where two of them claim the same, the first one counts: the check of the configuration refuses that.
    pub fn new(sites: &[Site]) -> Self {
        let mut hosts = Self::default();
        for (number, site) in sites.iter().enumerate() {
            for listener in &site.listeners {
                let names = hosts.listeners.entry(listener.clone()).or_default();
                if site.hosts.is_empty() {
                    names.default.get_or_insert(number);
                }
                for host in &site.hosts {
                    match host.strip_prefix('*') {
                        Some(rest) => names.below.entry(rest.into()).or_insert(number),
                        None => names.exact.entry(host.as_str().into()).or_insert(number),
                    };
                }
            }
        }
        hosts
    }

    /// The site for a host as a request names it, with or without a port; none if no site of this listener is for it. The exact name comes
    /// first, then the longest wildcard, then the site without hosts.
    pub fn site(&self, listener: &str, host: Option<&[u8]>) -> Option<usize> {
        let names = self.listeners.get(listener)?;
        if names.exact.is_empty() && names.below.is_empty() {
            return names.default;
        }
        host.and_then(|host| names.named(&canonical(host)))
            .or(names.default)
    }
}

impl Names {
    fn named(&self, host: &[u8]) -> Option<usize> {
        if let Some(site) = self.exact.get(host) {
            return Some(*site);
        }
        if self.below.is_empty() {
            return None;
        }
        // An empty label before the dot is no name.
        let dots = host.iter().enumerate().skip(1);
        let mut dots = dots.filter(|(_, byte)| **byte == b'.');
        dots.find_map(|(at, _)| self.below.get(&host[at..]).copied())
    }
}

/// A host without its port, in lower case and without a trailing dot; an address in its usual form.
fn canonical(host: &[u8]) -> Cow<'_, [u8]> {
    let name = without_port(host);
    let name = name.strip_suffix(b".").unwrap_or(name);
    // As nearly all requests have it. No address ends with a letter: IPv4 ends with a digit, and IPv6 with a bracket.
    if name.last().is_some_and(u8::is_ascii_lowercase) && !name.iter().any(u8::is_ascii_uppercase) {
        return Cow::Borrowed(name);
    }
    let text = str::from_utf8(name).unwrap_or_default();
    let literal = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Some(Ok(address)) = literal.map(str::parse::<Ipv6Addr>) {
        return Cow::Owned(address.to_string().into_bytes());
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Cow::Owned(address.to_string().into_bytes());
    }
    Cow::Owned(name.to_ascii_lowercase())
}

/// The host of a host with a port. The parser has let only valid ones pass.
pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    let end = match host.first() {
        Some(b'[') => host.iter().position(|&b| b == b']').map(|end| end + 1),
        _ => host.iter().position(|&b| b == b':'),
    };
    &host[..end.unwrap_or(host.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, listeners: &[&str], hosts: &[&str]) -> Site {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Site {
            name: name.into(),
            listeners: owned(listeners),
            hosts: owned(hosts),
            routes: Vec::new(),
            layers: Default::default(),
        }
    }

    #[test]
    fn a_host_is_found_whatever_its_spelling() {
        let sites = [
            site("shop", &["a"], &["shop.example.com", "10.0.0.1", "::1"]),
            site("wild", &["a"], &["*.example.com", "*.b.example.com"]),
            site("deep", &["a"], &["*.c.example.com"]),
            site("rest", &["a"], &[]),
            site("other", &["b"], &["shop.example.com"]),
        ];
        let hosts = Hosts::new(&sites);
        for (host, name) in [
            ("shop.example.com", "shop"),
            ("SHOP.Example.com", "shop"),
            ("shop.example.com:8443", "shop"),
            ("shop.example.com.", "shop"),
            ("shop.example.com.:80", "shop"),
            ("shop.example.com..", "rest"),
            ("10.0.0.1:80", "shop"),
            ("[::1]", "shop"),
            ("[::1]:80", "shop"),
            ("[0:0::0001]:80", "shop"),
            ("[::2]", "rest"),
            ("a.example.com", "wild"),
            ("a.b.example.com", "wild"),
            ("x.c.example.com", "deep"),
            ("c.example.com", "wild"),
            ("example.com", "rest"),
            (".example.com", "rest"),
            ("xexample.com", "rest"),
            ("shop.example.com.evil", "rest"),
            ("", "rest"),
        ] {
            let found = hosts.site("a", Some(host.as_bytes()));
            let found = found.map(|number| sites[number].name.as_str());
            assert_eq!(found, Some(name), "{host}");
        }
        assert_eq!(hosts.site("a", None), Some(3));
        assert_eq!(hosts.site("b", Some(b"shop.example.com")), Some(4));
        assert_eq!(hosts.site("b", Some(b"other")), None);
        assert_eq!(hosts.site("b", None), None);
        assert_eq!(hosts.site("c", Some(b"shop.example.com")), None);
    }

    proptest::proptest! {
        #[test]
        fn any_host_gets_a_site_that_claims_it(host in "[a-cA-C.]{0,12}(:[0-9]{0,3})?") {
            let sites = [site("w", &["l"], &["*.a.b"]), site("e", &["l"], &["a.b"])];
            let found = Hosts::new(&sites).site("l", Some(host.as_bytes()));
            let name = host.split(':').next().unwrap_or_default().to_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name);
            let expected = match name {
                "a.b" => Some(1),
                name if name.ends_with(".a.b") && name.len() > 4 => Some(0),
                _ => None,
            };
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
