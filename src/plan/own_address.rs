//! `{port}` and `{address}`: an address of its own for each worker.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Draft, Launch};
use crate::config::Place;
use crate::supervisor::{Policy, Replace};

/// The placeholders.
const PORT: &str = "{port}";
const ADDRESS: &str = "{address}";

/// The addresses of which each worker gets one; port 0 stands for any that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddress {
    /// On this interface.
    pub ip: IpAddr,
    /// From this port...
    pub first: u16,
    /// ...to this one.
    pub last: u16,
}

impl OwnAddress {
    /// Reads "127.0.0.1", "127.0.0.1:9000" or "127.0.0.1:9000-9007".
    ///
    /// # Errors
    /// What is wrong, and what to write.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "addresses: \"{text}\" is no range of addresses (write \"127.0.0.1\" for any free port, or \"127.0.0.1:9000-9007\")"
            )
        };
        // As in an address with a port.
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse() {
            return Ok(Self {
                ip,
                first: 0,
                last: 0,
            });
        }
        let (start, last) = match text.rsplit_once('-') {
            Some((start, last)) => (start, Some(last)),
            None => (text, None),
        };
        let start: SocketAddr = start.parse().map_err(|_| wrong())?;
        let last = last.map_or(Ok(start.port()), |last| last.parse().map_err(|_| wrong()))?;
        if last < start.port() || start.port() == 0 && last > 0 {
            return Err(wrong());
        }
        Ok(Self {
            ip: start.ip(),
            first: start.port(),
            last,
        })
    }
}

impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = SocketAddr::new(self.ip, self.first);
        match self.last {
            0 => write!(f, "{}", self.ip),
            last if last == self.first => write!(f, "{first}"),
            last => write!(f, "{first}-{last}"),
        }
    }
}

impl Draft<'_> {
    /// The addresses for the workers, if the command or the environment names one.
    pub(super) fn own_address(
        &self,
        env: &BTreeMap<String, String>,
    ) -> Result<Option<OwnAddress>, Place> {
        let Some(command) = &self.written.command else {
            return Ok(None);
        };
        let addresses = &self.written.addresses;
        let range = OwnAddress::parse(addresses).map_err(|message| addresses.wrong(message))?;
        let mut texts = command.iter().chain(env.values());
        if texts.any(|text| is_template(text)) {
            return Ok(Some(range));
        }
        match addresses.place() {
            Some(_) => Err(addresses.wrong(
                "addresses: neither `command` nor `env` has {port} or {address}, so no worker would get one (write one of them there, or remove this key)",
            )),
            None => Ok(None),
        }
    }

    /// Warns of words in braces that are probably meant to be placeholders.
    pub(super) fn doubt_placeholders(&self) {
        let Some(command) = &self.written.command else {
            return;
        };
        let doubt = |key: &str, text: &str| {
            let (word, meant) = misspelt(text)?;
            Some(format!(
                "{key}: {{{word}}} stays as it is (did you mean {{{meant}}}? The placeholders are {{port}}, {{address}}, {{fd}} and {{fd:NAME}})"
            ))
        };
        for message in command.iter().filter_map(|word| doubt("command", word)) {
            self.doubt(command.wrong(message));
        }
        for (name, value) in &*self.written.env {
            if let Some(message) = doubt("env", value) {
                self.doubt(Place::at(name.span(), message));
            }
        }
    }

    /// Refuses fewer addresses than workers, and warns of too few for a reload.
    pub(super) fn enough_addresses(
        &self,
        range: &OwnAddress,
        policy: &Policy,
        warnings: &mut Vec<String>,
    ) -> Result<(), Place> {
        if range.first == 0 {
            return Ok(());
        }
        let have = u32::from(range.last - range.first) + 1;
        let workers = policy.range.map_or(policy.workers, |range| range.max);
        let more = match policy.replace {
            Replace::StartFirst => policy.surge.unwrap_or(workers.div_ceil(4)),
            Replace::StopFirst => 0,
        };
        let needed = workers.saturating_add(more);
        let message = format!(
            "addresses: {range} has {have} ports, and {workers} workers need {needed}, with {more} more during a reload (write a larger range)"
        );
        if have < workers {
            return Err(self.written.addresses.wrong(message));
        }
        if have < needed {
            warnings.push(message);
        }
        Ok(())
    }
}

/// The names in the placeholders of a command.
const NAMES: [&str; 3] = ["port", "address", "fd"];

/// A word in braces that is probably a misspelt placeholder, such as `{PORT}` or `{prot}`, with the name that is meant. Braces have other
/// meanings in many programs, so only words that hardly mean anything else count.
fn misspelt(text: &str) -> Option<(&str, &'static str)> {
    // A shell reads ${PORT} itself, and curl(1) %{port}.
    let starts = text.match_indices('{').map(|(at, _)| text.split_at(at));
    let words = starts
        .filter(|(before, _)| !before.ends_with(['$', '%', '#']))
        .map(|(_, from)| &from[1..]);
    let mut words = words.filter_map(|word| word.split_once('}').map(|(word, _)| word));
    words.find_map(|word| {
        let mut names = NAMES.into_iter();
        let meant = names.find(|name| word != *name && is_near(&word.to_ascii_lowercase(), name));
        Some((word, meant?))
    })
}

/// Whether a word has other letters by one: one too few, one too many, or two that have changed places.
fn is_near(word: &str, name: &str) -> bool {
    let without = |text: &str, at: usize| format!("{}{}", &text[..at], &text[at + 1..]);
    if word == name || name == "address" && word == "addr" {
        return true;
    }
    // Two letters are near too much.
    if name.len() < 3 || !word.bytes().all(|letter| letter.is_ascii_lowercase()) {
        return false;
    }
    let swapped = |at: usize| {
        let mut letters = name.as_bytes().to_vec();
        letters.swap(at, at + 1);
        letters == word.as_bytes()
    };
    (0..name.len()).any(|at| without(name, at) == word)
        || (0..word.len()).any(|at| without(word, at) == name)
        || (0..name.len() - 1).any(swapped)
}

fn is_template(text: &str) -> bool {
    text.contains(PORT) || text.contains(ADDRESS)
}

impl Launch {
    /// The same with the address of a worker in the place of the placeholders.
    pub fn at(&self, address: SocketAddr) -> Self {
        let fill = |text: &mut String| {
            if is_template(text) {
                let port = address.port().to_string();
                *text = text
                    .replace(PORT, &port)
                    .replace(ADDRESS, &address.to_string());
            }
        };
        let mut launch = self.clone();
        launch.args.iter_mut().for_each(fill);
        launch.env.values_mut().for_each(fill);
        launch
    }

    /// Removes variables that only a worker with an address can have.
    pub(super) fn without_address(&mut self) {
        self.env.retain(|_, value| !is_template(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_placeholder_is_recognised() {
        for (text, word, meant) in [
            ("a {x} {PORT}", "PORT", "port"),
            ("--port={prot}", "prot", "port"),
            ("{por}", "por", "port"),
            ("{ports}", "ports", "port"),
            ("{adress}:1", "adress", "address"),
            ("{Addr}", "Addr", "address"),
            ("{FD}", "FD", "fd"),
        ] {
            assert_eq!(misspelt(text), Some((word, meant)), "{text}");
        }
        for text in [
            "{port}{address}",
            "{",
            "PORT",
            "${PORT}",
            "%{prot}",
            "{fd}",
            "{ print $1 }",
            "{print}",
            "{part}",
            "{post}",
            "{id}",
            "{\"port\": 1}",
            "{a,b}",
            "{}",
        ] {
            assert_eq!(misspelt(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_is_an_ip_address_with_or_without_ports() {
        for (text, first, last) in [
            ("127.0.0.1", 0, 0),
            ("::1", 0, 0),
            ("[::1]", 0, 0),
            ("127.0.0.1:9000", 9000, 9000),
            ("0.0.0.0:9000-9007", 9000, 9007),
            ("[::1]:9000-9000", 9000, 9000),
        ] {
            let range = OwnAddress::parse(text).expect(text);
            assert_eq!((range.first, range.last), (first, last), "{text}");
            assert_eq!(OwnAddress::parse(&range.to_string()), Ok(range), "{text}");
        }
        for text in [
            "",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:9-8",
            "127.0.0.1:0-9",
            "127.0.0.1:1-70000",
        ] {
            assert!(OwnAddress::parse(text).is_err(), "{text}");
        }
    }
}
