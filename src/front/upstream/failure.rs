//! What can go wrong between a request and its response, and what follows from it. The only place that decides whether a request is
//! sent again.

use std::fmt;
use std::io;

use preforkd_http::Fault;

/// Why an attempt to have a request answered has failed.
#[derive(Debug)]
pub enum Failure {
    /// No connection came about.
    Connect(io::Error),
    /// None came about in time.
    ConnectTimeout,
    /// The address takes no more connections at the moment (a Unix socket whose queue is full).
    Busy,
    /// A connection ended before a byte of the response came.
    NoAnswer,
    /// The upstream says that it has not begun with the request, and will not (RFC 9113 section 8.7).
    NotBegun,
    /// It has broken the response off and said why, or has broken the protocol.
    Reset(String),
    /// The head of the response did not come in time.
    HeadTimeout,
    /// The response broke off, or is malformed.
    Broken(Fault),
    /// Reading or writing failed in the middle of the response.
    Lost(io::Error),
    /// The response stopped in the middle.
    Silent,
    /// The response names a file that it may not have sent.
    File(String),
    /// The answer to a question says nothing.
    Verdict(String),
    /// The request body cannot be read back.
    Body(io::Error),
    /// Too many requests wait already.
    QueueFull,
    /// The request has waited for too long.
    QueueTimeout,
    /// The last worker has ended, and nobody starts another one.
    NobodyLeft,
    /// No worker runs, and the master says that none is about to start.
    NotRunning,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// A byte of the request may have reached the upstream.
    pub begun: bool,
    /// A byte of the response has come.
    pub answered: bool,
    /// The method is one that may be repeated ([`is_idempotent`]).
    pub idempotent: bool,
    /// The body is still there from its beginning.
    pub whole: bool,
    /// The connection had served other requests before.
    pub reused: bool,
    /// The attempts there were, with this one, not counted those on a reused connection.
    pub tries: u32,
}

/// The most attempts on new connections.
pub const MOST_TRIES: u32 = 3;

/// Whether the method means the same when it is carried out twice (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

impl Failure {
    /// Whether the request is sent again: if the upstream cannot have begun with it, or had not answered a byte and may be asked
    /// twice. Never when it was too slow: it may still be at work.
    pub fn may_repeat(&self, attempt: Attempt) -> bool {
        let failed_fast = match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Busy | Self::NotBegun => true,
            Self::NoAnswer => !attempt.begun || attempt.idempotent,
            Self::HeadTimeout
            | Self::Reset(_)
            | Self::Broken(_)
            | Self::Lost(_)
            | Self::Silent
            | Self::File(_)
            | Self::Verdict(_)
            | Self::Body(_)
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::NobodyLeft
            | Self::NotRunning => false,
        };
        failed_fast && !attempt.answered && attempt.whole && attempt.tries < MOST_TRIES
    }

    /// Whether it speaks against the address. The end of a kept connection does not: it may end at any time.
    pub fn counts(&self, reused: bool) -> bool {
        match self {
            Self::NoAnswer => !reused,
            Self::File(_)
            | Self::Verdict(_)
            | Self::Body(_)
            | Self::Busy
            | Self::NotBegun
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::NobodyLeft
            | Self::NotRunning => false,
            _ => true,
        }
    }

    /// The status of the answer, if the client got no other one: whose fault it is (RFC 9110 section 15.6).
    pub fn status(&self) -> u16 {
        match self {
            Self::Connect(_)
            | Self::NoAnswer
            | Self::Reset(_)
            | Self::Broken(_)
            | Self::Lost(_)
            | Self::File(_)
            | Self::Verdict(_) => 502,
            Self::ConnectTimeout | Self::HeadTimeout | Self::Silent => 504,
            Self::Busy
            | Self::NotBegun
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::NobodyLeft
            | Self::NotRunning => 503,
            Self::Body(_) => 500,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "could not connect: {error}"),
            Self::ConnectTimeout => f.write_str("could not connect in time"),
            Self::Busy => f.write_str("could not connect: its queue of connections is full"),
            Self::NoAnswer => f.write_str("it closed the connection without a response"),
            Self::NotBegun => f.write_str("it refused to begin with the request"),
            Self::HeadTimeout => f.write_str("it sent no response in time"),
            Self::Broken(fault) => fault.fmt(f),
            Self::Lost(error) => write!(f, "the connection broke: {error}"),
            Self::Silent => f.write_str("it sent nothing more of the response in time"),
            Self::Reset(why) | Self::File(why) | Self::Verdict(why) => f.write_str(why),
            Self::Body(error) => write!(f, "could not read the request body back: {error}"),
            Self::QueueFull => f.write_str("too many requests wait for it"),
            Self::QueueTimeout => f.write_str("the request waited too long for it"),
            Self::NobodyLeft => f.write_str("its last worker has ended, and the master is gone"),
            Self::NotRunning => f.write_str("it is not running"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Failure {
        Failure::Connect(io::ErrorKind::ConnectionRefused.into())
    }

    const NEW: Attempt = Attempt {
        begun: false,
        answered: false,
        idempotent: false,
        whole: true,
        reused: false,
        tries: 1,
    };

    #[test]
    fn a_request_is_sent_again_only_if_nothing_can_happen_twice() {
        let begun = Attempt { begun: true, ..NEW };
        let safe = Attempt {
            idempotent: true,
            ..begun
        };
        // The failure and the attempt; whether the request is sent again.
        let table = [
            (refused(), NEW, true),
            (Failure::ConnectTimeout, NEW, true),
            (Failure::Busy, NEW, true),
            (
                refused(),
                Attempt {
                    tries: MOST_TRIES,
                    ..NEW
                },
                false,
            ),
            (
                refused(),
                Attempt {
                    whole: false,
                    ..NEW
                },
                false,
            ),
            // A POST whose first byte could not be written, and one that was written.
            (Failure::NoAnswer, NEW, true),
            (Failure::NoAnswer, begun, false),
            (
                Failure::NoAnswer,
                Attempt {
                    reused: true,
                    ..begun
                },
                false,
            ),
            (Failure::NoAnswer, safe, true),
            (
                Failure::NoAnswer,
                Attempt {
                    answered: true,
                    ..safe
                },
                false,
            ),
            (
                Failure::NoAnswer,
                Attempt {
                    whole: false,
                    ..safe
                },
                false,
            ),
            (
                Failure::NoAnswer,
                Attempt {
                    tries: MOST_TRIES,
                    ..safe
                },
                false,
            ),
            // The upstream itself says that nothing has happened.
            (
                Failure::NotBegun,
                Attempt {
                    reused: true,
                    ..begun
                },
                true,
            ),
            (
                Failure::NotBegun,
                Attempt {
                    whole: false,
                    ..begun
                },
                false,
            ),
            (
                Failure::NotBegun,
                Attempt {
                    answered: true,
                    ..begun
                },
                false,
            ),
            (Failure::Reset("it was".into()), safe, false),
            (Failure::HeadTimeout, safe, false),
            (Failure::Silent, safe, false),
            (
                Failure::Lost(io::ErrorKind::ConnectionReset.into()),
                safe,
                false,
            ),
            (Failure::QueueFull, NEW, false),
            (Failure::QueueTimeout, NEW, false),
            (Failure::NotRunning, NEW, false),
        ];
        for (failure, attempt, expected) in table {
            assert_eq!(
                failure.may_repeat(attempt),
                expected,
                "{failure}: {attempt:?}"
            );
        }
    }

    #[test]
    fn methods_that_may_be_repeated() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(method.as_bytes()));
        }
        for method in ["POST", "PATCH", "get", "MERGE", ""] {
            assert!(!is_idempotent(method.as_bytes()));
        }
    }

    #[test]
    fn the_status_says_who_failed() {
        for (failure, status, counts) in [
            (refused(), 502, true),
            (Failure::NoAnswer, 502, true),
            (Failure::ConnectTimeout, 504, true),
            (Failure::HeadTimeout, 504, true),
            (Failure::QueueFull, 503, false),
            (Failure::QueueTimeout, 503, false),
            (Failure::NotRunning, 503, false),
            (Failure::Busy, 503, false),
            (Failure::NotBegun, 503, false),
            (Failure::Reset(String::new()), 502, true),
        ] {
            assert_eq!(
                (failure.status(), failure.counts(false)),
                (status, counts),
                "{failure}"
            );
        }
        assert!(!Failure::NoAnswer.counts(true));
    }
}
