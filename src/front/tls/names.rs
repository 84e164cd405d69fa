//! Names of hosts, as certificates have them and as clients ask for them.

use std::collections::HashMap;
use std::net::IpAddr;

/// The names of a certificate (RFC 9525): names of hosts in lower case, some of which stand for all names with one more label, and
/// addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    hosts: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// These, in any case.
    pub fn new(hosts: impl IntoIterator<Item = String>, addresses: Vec<IpAddr>) -> Self {
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase());
        Self {
            hosts: hosts.collect(),
            addresses,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.addresses.is_empty()
    }

    /// The names of hosts.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// All, as text.
    pub fn all(&self) -> impl Iterator<Item = String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.hosts.iter().cloned().chain(addresses)
    }

    /// Whether a name, which may begin with `*.`, is one of them, as it is written.
    pub fn has(&self, name: &str) -> bool {
        self.all().any(|own| own == name)
    }

    /// Whether a host is one of them: its name or address without a port.
    pub fn cover(&self, host: &str) -> bool {
        let names: Vec<_> = self.all().collect();
        covers(names.iter().map(String::as_str), host)
    }
}

/// Whether a host, without a port, is one of the names of a certificate.
pub fn covers<'a>(mut names: impl Iterator<Item = &'a str>, host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        return names.any(|name| name.parse() == Ok(address));
    }
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let parent = parent(host);
    names.any(|name| match name.strip_prefix("*.") {
        Some(above) => parent == Some(above),
        None => name == host,
    })
}

/// What stands behind the first label; only one label may take the place of an asterisk (RFC 9525 section 6.3).
fn parent(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, parent)| parent)
}

/// Something for each of many names: for the name itself, or else for the longest one with `*.` in place of its first labels, as sites
/// are found by their hosts.
#[derive(Debug, Clone)]
pub struct ByName<T> {
    exact: HashMap<String, T>,
    above: HashMap<String, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            above: HashMap::new(),
        }
    }
}

impl<T> ByName<T> {
    /// Adds a name, which may begin with `*.`; of two that are the same, the first stays.
    pub fn insert(&mut self, name: &str, value: T) {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(above) => self.above.entry(above.to_owned()).or_insert(value),
            None => self.exact.entry(name).or_insert(value),
        };
    }

    /// What a name is for.
    pub fn get(&self, name: &str) -> Option<&T> {
        let name = name.to_ascii_lowercase();
        let mut above = parent(&name);
        let mut parents = std::iter::from_fn(|| {
            let found = above?;
            above = parent(found);
            Some(found)
        });
        self.exact
            .get(&name)
            .or_else(|| parents.find_map(|parent| self.above.get(parent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_stands_for_one_label() {
        let hosts = ["Example.com", "*.example.com"].map(str::to_owned);
        let names = Names::new(hosts, vec!["2001:db8::1".parse().unwrap()]);
        for (host, covered) in [
            ("example.com", true),
            ("EXAMPLE.com", true),
            ("example.com.", true),
            ("a.example.com", true),
            ("a.b.example.com", false),
            ("example.org", false),
            ("com", false),
            ("[2001:db8::1]", true),
            ("2001:db8:0::1", true),
            ("[2001:db8::2]", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(names.cover(host), covered, "{host}");
        }
    }

    #[test]
    fn the_name_itself_goes_before_an_asterisk() {
        let mut names = ByName::default();
        names.insert("*.example.com", 1);
        names.insert("A.example.com", 2);
        names.insert("a.example.com", 3);
        assert_eq!(names.get("a.Example.com"), Some(&2));
        assert_eq!(names.get("b.example.com"), Some(&1));
        assert_eq!(names.get("example.com"), None);
        assert_eq!(names.get("c.b.example.com"), Some(&1));
        names.insert("*.b.example.com", 4);
        assert_eq!(names.get("c.b.example.com"), Some(&4));
        assert_eq!(names.get("com"), None);
    }
}
