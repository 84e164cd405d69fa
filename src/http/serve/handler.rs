//! What the server needs of an application, and what it tells about itself.

use crate::exchange::Exchange;
use crate::message::body::Body;
use crate::message::request::{Origin, Request};

/// The application behind the server. Each thread that runs requests has one of its own.
pub trait Handler {
    /// Runs `wait`, which blocks; a handler gives back meanwhile what others may need (such as an interpreter's lock).
    fn idle<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        wait()
    }

    /// Answers a request, to its end: nothing else runs on this thread before it has returned. The whole body is there. The
    /// response that is given back has ended ([`crate::Response::end`], `cut` or `fail`), or a file follows
    /// ([`Exchange::send_file`]).
    fn call(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        body: Body,
        exchange: Exchange,
    ) -> Exchange;
}

/// Told by the server's loop what goes on, for a scoreboard. Called on the hot path: plain stores only. By default it sees nothing.
pub trait Observer: Send + 'static {
    /// The number of open connections changed.
    fn connections(&mut self, _number: usize) {}
    /// Requests run, on this many threads: the oldest since this time (CLOCK_MONOTONIC, nanoseconds), when a thread took it.
    fn busy(&mut self, _since: u64, _threads: usize, _request: Request<'_>) {}
    /// The oldest request has handed something over, and counts as if it had begun at this time: in the future while it waits for
    /// its client.
    fn goes_on(&mut self, _since: u64) {}
    /// The number of running requests changed; the oldest is the same as before.
    fn threads(&mut self, _number: usize) {}
    /// No request runs.
    fn idle(&mut self) {}
    /// A response ended, this many microseconds after its request was there.
    fn answered(&mut self, _status: u16, _microseconds: u64) {}
    /// Bytes were handed to the kernel.
    fn sent(&mut self, _bytes: usize) {}
    /// Whether other workers take what waits in the accept queues; asked when the server is to stop.
    fn is_succeeded(&self) -> bool {
        false
    }
    /// A signal has come, whose handlers run in here; whether the server is to stop for it.
    fn interrupted(&mut self) -> bool {
        false
    }
    /// The server accepts no more connections and finishes.
    fn draining(&mut self) {}
}

/// Sees nothing.
impl Observer for () {}
