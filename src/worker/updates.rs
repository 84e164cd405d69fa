//! Updates: what the master hands to the workers of the front, at their start and while they run (preforkd-worker(7), "Updates").
//!
//! Each is one packet with the name of its kind, and with a sealed memory file that holds a JSON value. The latest of a kind replaces those
//! before it. A kind of which there are several has the name of what it is about behind its own, after a space.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The keys of session tickets, newest first: a list of [`TicketKey`].
    Tickets,
    /// Which workers of an app take requests, and where: a [`Ready`]. It is about the app.
    Upstream,
    /// The certificates of all sites with TLS: [`crate::front::Certificates`].
    Certificates,
    /// The challenges of a certificate authority that are to be answered: [`crate::acme::Challenges`].
    Challenges,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Tickets,
        Self::Certificates,
        Self::Challenges,
        Self::Upstream,
    ];

    /// Its name, with which the packet begins.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tickets => "TICKETS",
            Self::Upstream => "UPSTREAM",
            Self::Certificates => "CERTIFICATES",
            Self::Challenges => "CHALLENGES",
        }
    }

    /// The kind of a packet, and what it is about.
    pub fn parse(packet: &[u8]) -> Option<(Self, &str)> {
        let packet = str::from_utf8(packet).ok()?;
        let (name, about) = packet.split_once(' ').unwrap_or((packet, ""));
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name)?;
        Some((kind, about))
    }
}

/// A key of session tickets. Times count from when the update was sent, as the clock may be set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketKey {
    /// 64 hexadecimal digits.
    pub secret: String,
    /// The seconds until it makes tickets.
    pub begins_in: u64,
    /// The seconds until no ticket of it counts.
    pub ends_in: u64,
}

/// Shows no secret.
impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("begins_in", &self.begins_in)
            .field("ends_in", &self.ends_in)
            .finish_non_exhaustive()
    }
}

/// The workers of an app that take requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The name of the app.
    pub app: String,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The app is not running, and no worker is about to start: its requests are refused instead of left waiting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuses: bool,
}

/// A worker that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its address, as in `listen`. Several workers may have the same one.
    pub address: String,
    /// The requests that it serves at a time; without a limit if it has none or it is not known.
    pub at_a_time: Option<u32>,
}

impl Ready {
    /// Encodes the message.
    ///
    /// # Errors
    /// None is known: it is made of texts and numbers.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses a message.
    ///
    /// # Errors
    /// It is another one.
    pub fn parse(message: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_of_their_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name().as_bytes()), Some((kind, "")));
        }
        let about = Some((Kind::Tickets, "a b"));
        assert_eq!(Kind::parse(b"TICKETS a b"), about);
        for other in [
            &b""[..],
            b"TICKET",
            b"TICKETSa",
            b" TICKETS",
            b"TICKETS \xff",
        ] {
            assert_eq!(Kind::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_told_survives_encoding() {
        for refuses in [false, true] {
            let ready = Ready {
                app: "web".into(),
                workers: vec![Worker {
                    address: "unix:/run/a \"b\"".into(),
                    at_a_time: Some(4),
                }],
                refuses,
            };
            let text = ready.encode().expect("texts and numbers");
            assert_eq!(Ready::parse(text.as_bytes()).ok(), Some(ready));
        }
        assert!(Ready::parse(b"{\"app\": 1}").is_err());
    }
}
