//! Log lines that clients can cause, at a bounded rate.

use crate::message::body::Failure;
use crate::serve::timers::Instant;

/// Between two lines of a kind, in nanoseconds.
const PAUSE: Instant = 10_000_000_000;

/// What is complained about.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    room: Seldom,
    file: Seldom,
}

impl Complaints {
    /// A request body was not taken in, and its request was answered with `status`.
    #[cold]
    pub fn body(&mut self, failure: &Failure, status: u16, now: Instant) {
        match failure {
            Failure::NoRoom => {
                if let Some(more) = self.room.again(now) {
                    log::warn!(
                        "could not take in a request body: what this worker holds for its clients has reached max_buffered; \
                         answering {status}{more}"
                    );
                }
            }
            Failure::File(error) => {
                if let Some(more) = self.file.again(now) {
                    log::error!(
                        "could not store a request body in a temporary file in {}: {error} (make sure that the folder is writable \
                         and has room, or name another one in TMPDIR); answering {status}{more}",
                        std::env::temp_dir().display()
                    );
                }
            }
        }
    }
}

/// A line that is written once in a while, and counts how often it was not.
#[derive(Debug, Default)]
struct Seldom {
    next: Instant,
    left_out: u64,
}

impl Seldom {
    /// What to add to the line; none if it is not to be written.
    fn again(&mut self, now: Instant) -> Option<String> {
        if now < self.next {
            self.left_out += 1;
            return None;
        }
        self.next = now.saturating_add(PAUSE);
        Some(match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            n => format!(" (and {n} times since the last such line)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_seldom_and_tell_of_those_that_were_left_out() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.again(5).as_deref(), Some(""));
        assert_eq!((seldom.again(6), seldom.again(PAUSE)), (None, None));
        let line = seldom.again(5 + PAUSE);
        assert_eq!(
            line.as_deref(),
            Some(" (and 2 times since the last such line)")
        );
        assert_eq!(seldom.again(5 + 2 * PAUSE).as_deref(), Some(""));
    }
}
