//! Messages between the master and a template, one in each packet of the template's socket (preforkd-worker(7),
//! "Templates").
//!
//! The template runs the application's code, so the master takes what it says for data: numbers that it did not give
//! out mean nothing to it, and reasons are cleaned and cut where they are parsed.

use crate::text::{LONGEST, clean};

/// Most bytes of a message.
pub const MESSAGE_BYTES: usize = 4096;

/// Most workers that one intermediate process forks, and so most tickets of one [`Reply::Lost`]: enough for its own
/// cost to be shared, few enough that the first of them, which serves when that process has ended, does not wait
/// long for the others.
pub const BATCH: usize = 8;

const READY: &str = "READY";
const FORK: &str = "FORK";
const FORKED: &str = "FORKED";
const FAILED: &str = "FAILED";
const LOST: &str = "LOST";

/// What the master orders: a worker. The read end of a pipe comes along (unix(7), `SCM_RIGHTS`), at whose end the worker drains;
/// none if the master had no descriptor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Comes back with the reply.
    pub ticket: u64,
    /// The worker's slot.
    pub slot: u32,
    /// Its record in the scoreboard, if there is one.
    pub record: Option<u32>,
}

impl Fork {
    /// The message.
    pub fn encode(&self) -> String {
        let record = self.record.map_or("-".into(), |record| record.to_string());
        format!("{FORK} {} {} {record}", self.ticket, self.slot)
    }

    /// Reads a message; `None` if it is no order.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(message).ok()?.split(' ');
        let mut next = || words.next();
        let (fork, ticket, slot, record) = (next()?, next()?, next()?, next()?);
        let record = match record {
            "-" => None,
            record => Some(number(record)?),
        };
        let order = Self {
            ticket: number(ticket)?,
            slot: number(slot)?,
            record,
        };
        (fork == FORK && next().is_none()).then_some(order)
    }
}

/// What a template, one of its intermediate processes, or a worker just forked replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The template has loaded the application.
    Ready,
    /// The sender is the worker that was ordered.
    Forked {
        /// The order's.
        ticket: u64,
    },
    /// The system did not fork the worker.
    Failed {
        /// The order's.
        ticket: u64,
        /// For the log.
        reason: String,
    },
    /// The intermediate process that was to fork these workers ended badly.
    Lost {
        /// The orders', at most [`BATCH`].
        tickets: Vec<u64>,
        /// For the log.
        reason: String,
    },
}

impl Reply {
    /// The message.
    pub fn encode(&self) -> String {
        match self {
            Self::Ready => READY.into(),
            Self::Forked { ticket } => format!("{FORKED} {ticket}"),
            Self::Failed { ticket, reason } => {
                format!("{FAILED} {ticket} {}", clean(reason, LONGEST))
            }
            Self::Lost { tickets, reason } => {
                let tickets: Vec<String> = tickets.iter().map(u64::to_string).collect();
                format!("{LOST} {} {}", tickets.join(","), clean(reason, LONGEST))
            }
        }
    }

    /// Reads a message; `None` if it is no reply. A reason is cleaned and at most [`LONGEST`] characters long.
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
                reason: clean(reason.unwrap_or_default(), LONGEST),
            }),
            (LOST, Some(tickets), reason) => {
                let tickets: Vec<u64> = tickets
                    .split(',')
                    .take(BATCH + 1)
                    .map(number)
                    .collect::<Option<_>>()?;
                (tickets.len() <= BATCH).then(|| Self::Lost {
                    tickets,
                    reason: clean(reason.unwrap_or_default(), LONGEST),
                })
            }
            _ => None,
        }
    }
}

/// Decimal digits and nothing else: `parse` alone would take a sign.
fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_given() {
        for record in [None, Some(0), Some(u32::MAX)] {
            let order = Fork {
                ticket: u64::MAX,
                slot: 3,
                record,
            };
            assert_eq!(Fork::parse(order.encode().as_bytes()), Some(order));
        }
        assert_eq!(
            Fork::parse(b"FORK 1 2 -").map(|order| order.record),
            Some(None)
        );
    }

    #[test]
    fn no_other_message_is_an_order() {
        for nonsense in [
            &b""[..],
            b"FORK",
            b"FORK 1 2",
            b"FORK 1 2 3 4",
            b"FORK 1 2 x",
            b"FORK -1 2 3",
            b"FORK +1 2 3",
            b"FORK 1  2 3",
            b"fork 1 2 3",
            b"FORK 1 4294967296 3",
            b"FORK 1 2 \xff",
        ] {
            assert_eq!(Fork::parse(nonsense), None, "{}", nonsense.escape_ascii());
        }
    }

    #[test]
    fn replies_arrive_as_they_were_given() {
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
    fn a_reason_is_cleaned_and_bounded_whoever_sends_it() {
        let text = format!("FAILED 1 \x1b]0;x\x07{}", "y".repeat(4000));
        let Some(Reply::Failed { reason, .. }) = Reply::parse(text.as_bytes()) else {
            panic!("a failure");
        };
        assert!(reason.starts_with("]0;xy") && reason.chars().count() == LONGEST);
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
