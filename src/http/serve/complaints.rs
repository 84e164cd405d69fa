//! Log lines that clients can cause, at a bounded rate.

use crate::message::body::Failure;
use crate::rate::{Rate, SECOND};
use crate::serve::timers::Instant;

/// What is complained about.
#[derive(Debug)]
pub(crate) struct Complaints {
    room: Rate,
    file: Rate,
}

impl Default for Complaints {
    fn default() -> Self {
        let seldom = || Rate::new(1, 10 * SECOND);
        Self {
            room: seldom(),
            file: seldom(),
        }
    }
}

impl Complaints {
    /// A request body was not taken in, and its request was answered with `status`.
    #[cold]
    pub fn body(&mut self, failure: &Failure, status: u16, now: Instant) {
        match failure {
            Failure::NoRoom => {
                if let Some(more) = self.room.take(now) {
                    log::warn!(
                        "could not take in a request body: what this worker holds for its clients has reached max_buffered; \
                         answering {status}{more}"
                    );
                }
            }
            Failure::File(error) => {
                if let Some(more) = self.file.take(now) {
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
