//! What the server needs of an application, and what it tells about itself.

use std::fs::File;

use crate::body::Body;
use crate::request::{Origin, Request};
use crate::response::Response;

/// The application behind the server. Each thread that runs requests has one of its own.
pub trait Handler {
    /// A response body that is not finished. It waits in the connection while the client is slow.
    type Stream: Send + 'static;

    /// Runs `wait`, which blocks; a handler gives back meanwhile what others may need (such as an interpreter's lock).
    fn idle<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R;

    /// Answers a request. The whole body is there.
    fn call(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        body: Body,
        response: Response,
    ) -> Reply<Self::Stream>;

    /// Goes on with a body: everything before was handed to the kernel. After [`Next::File`] the file was sent.
    fn pull(&mut self, stream: Self::Stream, response: Response) -> Reply<Self::Stream>;

    /// The client is gone.
    fn close(&mut self, stream: Self::Stream);
}

/// What a handler gives back to the server.
#[derive(Debug)]
pub struct Reply<S> {
    /// The response as far as it was written.
    pub response: Response,
    /// How it goes on.
    pub next: Next<S>,
}

/// How a response goes on.
#[derive(Debug)]
pub enum Next<S> {
    /// It is complete: [`Response::end`], [`Response::cut`] or [`Response::fail`] was called.
    Done,
    /// Send what was written, then pull.
    More(S),
    /// Send what was written, then this part of a file, then pull. Only if [`Response::is_plain`].
    File {
        /// An open regular file.
        file: File,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// What is pulled afterwards.
        stream: S,
    },
}

/// Told by the server's loop what goes on, for a scoreboard. Called on the hot path: plain stores only.
pub trait Observer {
    /// The number of open connections changed.
    fn connections(&mut self, number: usize);
    /// Requests run: the oldest since `since` (CLOCK_MONOTONIC, nanoseconds), on `threads` threads.
    fn busy(&mut self, since: u64, threads: usize, request: Request<'_>);
    /// The number of running requests changed; the oldest is the same as before.
    fn threads(&mut self, number: usize);
    /// No request runs.
    fn idle(&mut self);
    /// A response ended `microseconds` after its request was there.
    fn answered(&mut self, status: u16, microseconds: u64);
    /// Bytes were handed to the kernel.
    fn sent(&mut self, bytes: usize);
    /// Whether other workers take what waits in the accept queues; asked when the server is to stop.
    fn is_succeeded(&self) -> bool;
    /// A signal has come, whose handlers run in here; whether the server is to stop for it.
    fn interrupted(&mut self) -> bool {
        false
    }
    /// The server accepts no more connections and finishes.
    fn draining(&mut self);
}
