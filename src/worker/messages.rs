//! Messages between the master and a template, one in each packet of the template's socket (preforkd-worker(7),
//! "Templates").
//!
//! The template runs the application's code, so the master treats its messages as data: unknown numbers are ignored, and
//! reasons are cleaned and truncated when they are parsed.

use crate::text::{MAX_LENGTH, clean};

/// The maximum size of a message in bytes.
pub const MESSAGE_BYTES: usize = 4096;

/// The maximum number of workers that one intermediate process forks, and so of tickets in one [`Reply::Lost`]: enough to
/// share the cost of the intermediate process, few enough that its first worker, which serves only when it has ended, need not
/// wait long for the others.
pub const BATCH: usize = 8;

const READY: &str = "READY";
const FORK: &str = "FORK";
const FORKED: &str = "FORKED";
const FAILED: &str = "FAILED";
const LOST: &str = "LOST";

/// The master's request for a worker. With it come descriptors (unix(7), `SCM_RIGHTS`), in the order of [`Along`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Identifies the request in the reply.
    pub ticket: u64,
    /// The worker's slot.
    pub slot: u32,
    /// Its record in the scoreboard, if any.
    pub record: Option<u32>,
    /// What comes along.
    pub along: Along,
}

/// Descriptors that come with a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Along {
    /// The read end of a pipe that ends when the worker is to stop; not there if the master had no descriptor left.
    pub stop: bool,
    /// A listener that only this worker has.
    pub own: bool,
}

impl Along {
    /// The most descriptors.
    pub const MOST: usize = 2;

    const STOP: &'static str = "stop";
    const OWN: &'static str = "own";

    fn encode(self) -> String {
        let named = [(self.stop, Self::STOP), (self.own, Self::OWN)];
        let named = named.into_iter().filter(|(is_there, _)| *is_there);
        let names: Vec<_> = named.map(|(_, name)| name).collect();
        match names.is_empty() {
            true => "-".into(),
            false => names.join(","),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let all = [(false, false), (true, false), (false, true), (true, true)];
        let mut all = all.into_iter().map(|(stop, own)| Self { stop, own });
        all.find(|along| along.encode() == word)
    }
}

impl Fork {
    /// Encodes the message.
    pub fn encode(&self) -> String {
        let record = self.record.map_or("-".into(), |record| record.to_string());
        let along = self.along.encode();
        format!("{FORK} {} {} {record} {along}", self.ticket, self.slot)
    }

    /// Parses a message; `None` if it is not a request.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(message).ok()?.split(' ');
        let mut next = || words.next();
        let (fork, ticket, slot, record) = (next()?, next()?, next()?, next()?);
        let along = Along::parse(next()?)?;
        let record = match record {
            "-" => None,
            record => Some(number(record)?),
        };
        let order = Self {
            ticket: number(ticket)?,
            slot: number(slot)?,
            record,
            along,
        };
        (fork == FORK && next().is_none()).then_some(order)
    }
}

/// A reply from a template, from one of its intermediate processes, or from a worker that was just forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The template has loaded the application.
    Ready,
    /// The sender is the requested worker.
    Forked {
        /// The ticket of the request.
        ticket: u64,
    },
    /// The system refused to fork the worker.
    Failed {
        /// The ticket of the request.
        ticket: u64,
        /// The reason, for the log.
        reason: String,
    },
    /// The intermediate process that was to fork these workers has failed.
    Lost {
        /// The tickets of the requests, at most [`BATCH`].
        tickets: Vec<u64>,
        /// The reason, for the log.
        reason: String,
    },
}

impl Reply {
    /// Encodes the message.
    pub fn encode(&self) -> String {
        match self {
            Self::Ready => READY.into(),
            Self::Forked { ticket } => format!("{FORKED} {ticket}"),
            Self::Failed { ticket, reason } => {
                format!("{FAILED} {ticket} {}", clean(reason, MAX_LENGTH))
            }
            Self::Lost { tickets, reason } => {
                let tickets: Vec<String> = tickets.iter().map(u64::to_string).collect();
                format!("{LOST} {} {}", tickets.join(","), clean(reason, MAX_LENGTH))
            }
        }
    }

    /// Parses a message; `None` if it is not a reply. A reason is cleaned and truncated to [`MAX_LENGTH`] characters.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let message = String::from_utf8_lossy(message);
        let mut words = message.splitn(3, ' ');
        match (words.next()?, words.next(), words.next()) {
            (READY, None, None) => Some(Self::Ready),
            (FORKED, Some(ticket), None) => Some(Self::Forked {
                ticket: number(ticket)?,
            }),
            (FAILED, Some(ticket), reason) => Some(Self::Failed {
                ticket: number(ticket)?,
                reason: clean(reason.unwrap_or_default(), MAX_LENGTH),
            }),
            (LOST, Some(tickets), reason) => {
                let tickets: Vec<u64> = tickets
                    .split(',')
                    .take(BATCH + 1)
                    .map(number)
                    .collect::<Option<_>>()?;
                (tickets.len() <= BATCH).then(|| Self::Lost {
                    tickets,
                    reason: clean(reason.unwrap_or_default(), MAX_LENGTH),
                })
            }
            _ => None,
        }
    }
}

/// Decimal digits only: `parse` alone would accept a sign.
fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_encoding() {
        for (record, stop, own) in [
            (None, false, false),
            (Some(0), true, false),
            (Some(7), false, true),
            (Some(u32::MAX), true, true),
        ] {
            let order = Fork {
                ticket: u64::MAX,
                slot: 3,
                record,
                along: Along { stop, own },
            };
            assert_eq!(Fork::parse(order.encode().as_bytes()), Some(order));
        }
        assert_eq!(
            Fork::parse(b"FORK 1 2 - stop,own").map(|order| (order.record, order.along)),
            Some((
                None,
                Along {
                    stop: true,
                    own: true
                }
            ))
        );
    }

    #[test]
    fn no_other_message_is_a_request() {
        for nonsense in [
            &b""[..],
            b"FORK",
            b"FORK 1 2",
            b"FORK 1 2 3",
            b"FORK 1 2 3 4",
            b"FORK 1 2 3 own,stop",
            b"FORK 1 2 3 stop,",
            b"FORK 1 2 3 - -",
            b"FORK 1 2 x -",
            b"FORK -1 2 3 -",
            b"FORK +1 2 3 -",
            b"FORK 1  2 3 -",
            b"fork 1 2 3 -",
            b"FORK 1 4294967296 3 -",
            b"FORK 1 2 \xff -",
        ] {
            assert_eq!(Fork::parse(nonsense), None, "{}", nonsense.escape_ascii());
        }
    }

    #[test]
    fn replies_survive_encoding() {
        for reply in [
            Reply::Ready,
            Reply::Forked { ticket: 12 },
            Reply::Failed {
                ticket: 3,
                reason: "no memory left".into(),
            },
            Reply::Lost {
                tickets: (0..BATCH as u64).collect(),
                reason: "it was killed".into(),
            },
        ] {
            assert_eq!(Reply::parse(reply.encode().as_bytes()), Some(reply));
        }
    }

    #[test]
    fn no_other_message_is_a_reply() {
        for nonsense in [
            "",
            "READY now",
            "FORKED",
            "FORKED x",
            "FORKED +1",
            "FORKED ",
            "FORKED 1 2",
            "forked 1",
            "LOST",
            "LOST  x",
            "LOST 1,,2 x",
            "LOST 1,2,3,4,5,6,7,8,9 too many",
        ] {
            assert_eq!(Reply::parse(nonsense.as_bytes()), None, "{nonsense}");
        }
    }

    #[test]
    fn a_reason_is_cleaned_and_bounded() {
        let text = format!("FAILED 1 \x1b]0;x\x07{}", "y".repeat(4000));
        let Some(Reply::Failed { reason, .. }) = Reply::parse(text.as_bytes()) else {
            panic!("a failure");
        };
        assert!(reason.starts_with("]0;xy") && reason.chars().count() == MAX_LENGTH);
        assert_eq!(
            Reply::parse(b"LOST 1 \xff\nERROR all is lost"),
            Some(Reply::Lost {
                tickets: vec![1],
                reason: "\u{fffd}ERROR all is lost".into()
            })
        );
    }

    #[test]
    fn the_longest_messages_fit_in_a_packet() {
        let longest = Reply::Lost {
            tickets: vec![u64::MAX; BATCH],
            reason: "\u{10ffff}".repeat(1000),
        };
        assert!(longest.encode().len() <= MESSAGE_BYTES);
    }
}
