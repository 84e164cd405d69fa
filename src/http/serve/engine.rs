//! Where requests run: on the loop's own thread, or on a pool of threads.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use crate::exchange::Part;
use crate::message::backlog::Backlog;
use crate::message::body::Body;
use crate::message::response::Response;
use crate::net::transport::Transport;
use crate::serve::client::Client;
use crate::serve::core::{Core, Lent};
use crate::serve::handler::Observer;
use crate::serve::timers::{Instant, NEVER};

mod inline;
mod pool;
mod service;

pub(crate) use inline::Inline;
pub use pool::{Pool, Seat, pool};
pub(crate) use service::Serving;
pub use service::{Call, Output, Ready, Service, Taking, Watch};

/// What a handler has come back with.
pub(crate) struct Answer {
    pub response: Response,
    pub part: Option<Box<Part>>,
}

/// What a thread of the pool tells about its request.
pub(crate) enum Report {
    /// There is something to send.
    Piece(Arc<Backlog>),
    /// It goes on.
    Alive,
    /// It waits for its client.
    Waiting,
    /// It is over.
    Done(Box<Answer>),
}

/// Runs requests for the loop.
pub(crate) trait Engine {
    /// It is a service: it has descriptors in the loop, and what follows the others is called. They cost the others nothing.
    const SERVES: bool = false;

    /// Runs `wait`, which blocks.
    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R;

    /// Has the client's request answered at once, or elsewhere; [`Engine::collect`] tells of it then.
    fn submit<O: Observer, T: Transport>(
        &mut self,
        core: &mut Lent<Core<O, T>>,
        key: u64,
        client: Client<T>,
        body: Body,
        response: Response,
    ) -> (Client<T>, Option<Answer>);

    /// What became of a request that was submitted before.
    fn collect(&mut self) -> Option<(u64, Report)> {
        None
    }

    /// Whether a thread is free to run another request.
    fn is_free(&self) -> bool {
        true
    }

    /// Becomes readable when there is something to collect.
    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// See [`Service::begin`].
    fn begin(&mut self, _epoll: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Service::event`].
    fn event(&mut self, _token: u32, _flags: EventFlags, _now: Instant) {}

    /// See [`Service::turn`].
    fn turn(&mut self, _now: Instant) {}

    /// See [`Service::deadline`].
    #[inline(always)]
    fn deadline(&self) -> Instant {
        NEVER
    }

    /// See [`Service::output`].
    fn output(&mut self) -> Option<(u64, Output)> {
        None
    }

    /// See [`Service::waiting`].
    fn waiting(&mut self, _key: u64, _bytes: usize, _now: Instant) {}

    /// See [`Service::taking`].
    fn taking<T: Transport>(&mut self, _client: &Client<T>) -> Taking {
        Taking::Whole
    }

    /// See [`Service::body`].
    fn body(&mut self, _key: u64, _bytes: Vec<u8>, _ended: bool, _now: Instant) -> bool {
        false
    }

    /// See [`Service::trailers`].
    fn trailers(&mut self, _key: u64, _lines: &[u8]) {}

    /// See [`Service::left`].
    fn left(&mut self, _key: u64, _now: Instant) -> Option<Response> {
        None
    }
}
