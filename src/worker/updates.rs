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
    /// The certificates of all sites with TLS: [`crate::front::Certificates`].
    Certificates,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Tickets, Self::Certificates];

    /// Its name, with which the packet begins.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tickets => "TICKETS",
            Self::Certificates => "CERTIFICATES",
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
}
