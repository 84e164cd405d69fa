//! Log lines that clients can cause, at a bounded rate.

use crate::layer::access_log::escape::shown;
use crate::message::body::Failure;
use crate::rate::{Rate, SECOND};
use crate::serve::timers::Instant;

/// What is complained about.
#[derive(Debug)]
pub(crate) struct Complaints {
    room: Rate,
    store: Rate,
    file: Rate,
    short: Rate,
    long: Rate,
}

/// The most bytes of a request line that are shown.
const LINE: usize = 200;

impl Default for Complaints {
    fn default() -> Self {
        let seldom = || Rate::new(1, 10 * SECOND);
        Self {
            room: seldom(),
            store: seldom(),
            file: seldom(),
            short: seldom(),
            long: seldom(),
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
                if let Some(more) = self.store.take(now) {
                    log::error!(
                        "could not store a request body in {}, nor in memory: {error} (make sure that the folder is writable and has \
                         room, or name another one in TMPDIR); answering {status}{more}",
                        std::env::temp_dir().display()
                    );
                }
            }
        }
    }

    /// So many bytes are missing from the end of a file that is sent in response to the request with this line.
    #[cold]
    pub fn file(&mut self, request: &[u8], missing: u64, now: Instant) {
        if let Some(more) = self.file.take(now) {
            log::warn!(
                "could not send a file whole in response to \"{}\": it has become shorter meanwhile, and {missing} bytes are missing \
                 (replace files by renaming new ones); closing the connection{more}",
                shown(request, LINE)
            );
        }
    }

    /// The body of a response to the request with this line has not the length that its head declares.
    #[cold]
    pub fn length(&mut self, request: &[u8], declared: u64, given: u64, now: Instant) {
        let (rate, consequence) = match given < declared {
            true => (&mut self.short, "closing the connection"),
            false => (&mut self.long, "sending no more than that"),
        };
        if let Some(more) = rate.take(now) {
            log::warn!(
                "the body of the response to \"{}\" has {given} bytes, and its Content-Length is {declared}: {consequence}{more}",
                shown(request, LINE)
            );
        }
    }
}
