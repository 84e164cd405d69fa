//! Where requests run: on the loop's own thread, or on a pool of threads.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use rustix::event::{EventfdFlags, eventfd};

use crate::body::Body;
use crate::handler::{Handler, Reply};
use crate::request::{Origin, OwnedRequest, Request};
use crate::response::Response;

/// Something that a handler has to do for a connection.
pub(crate) enum Work<'a, S> {
    Call {
        request: Request<'a>,
        origin: Origin,
        body: Body,
        response: Response,
    },
    Pull {
        stream: S,
        response: Response,
    },
    Close(S),
}

/// Runs work for the loop.
pub(crate) trait Engine {
    type Stream: Send + 'static;

    /// Runs `wait`, which blocks.
    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R;

    /// Does the work at once and returns the reply, or has it done; [`Engine::collect`] returns the reply then.
    fn submit(&mut self, key: u64, work: Work<'_, Self::Stream>) -> Option<Reply<Self::Stream>>;

    /// A reply to work that was submitted before.
    fn collect(&mut self) -> Option<(u64, Reply<Self::Stream>)>;

    /// Whether a thread is free to run another request.
    fn is_free(&self) -> bool;

    /// Becomes readable when there is something to collect.
    fn wakeup(&self) -> Option<BorrowedFd<'_>>;
}

/// Requests run on the loop's thread.
pub(crate) struct Inline<'a, H>(pub &'a mut H);

impl<H: Handler> Engine for Inline<'_, H> {
    type Stream = H::Stream;

    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        self.0.idle(wait)
    }

    fn submit(&mut self, _key: u64, work: Work<'_, H::Stream>) -> Option<Reply<H::Stream>> {
        match work {
            Work::Call {
                request,
                origin,
                body,
                response,
            } => Some(self.0.call(request, &origin, body, response)),
            Work::Pull { stream, response } => Some(self.0.pull(stream, response)),
            Work::Close(stream) => {
                self.0.close(stream);
                None
            }
        }
    }

    fn collect(&mut self) -> Option<(u64, Reply<H::Stream>)> {
        None
    }

    fn is_free(&self) -> bool {
        true
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

enum Job<S> {
    Call {
        request: Box<OwnedRequest>,
        origin: Origin,
        body: Body,
        response: Response,
    },
    Pull {
        stream: S,
        response: Response,
    },
    Close(S),
}

struct Wakeup {
    eventfd: OwnedFd,
    /// The loop was woken and has not looked yet; it need not be woken again.
    pending: AtomicBool,
}

/// The loop's end of a pool of threads.
pub struct Pool<S> {
    threads: usize,
    running: usize,
    jobs: Sender<(u64, Job<S>)>,
    /// Jobs for which the channel had no room: the loop must not block. At most one for each connection.
    backlog: VecDeque<(u64, Job<S>)>,
    replies: Receiver<(u64, Option<Reply<S>>)>,
    wakeup: Arc<Wakeup>,
}

/// A thread's end of the pool; the thread calls [`Seat::run`].
pub struct Seat<S> {
    jobs: Receiver<(u64, Job<S>)>,
    replies: Sender<(u64, Option<Reply<S>>)>,
    wakeup: Arc<Wakeup>,
}

/// A pool and its `threads` seats.
///
/// # Errors
/// No descriptor is left.
pub fn pool<S: Send + 'static>(threads: usize) -> io::Result<(Pool<S>, Vec<Seat<S>>)> {
    let wakeup = Arc::new(Wakeup {
        eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        pending: AtomicBool::new(false),
    });
    let (jobs, job_receiver) = bounded(threads);
    // A reply for every job that can be in the channel or with a thread.
    let (reply_sender, replies) = bounded(2 * threads);
    let seat = || Seat {
        jobs: job_receiver.clone(),
        replies: reply_sender.clone(),
        wakeup: wakeup.clone(),
    };
    let seats = (0..threads).map(|_| seat()).collect();
    Ok((
        Pool {
            threads,
            running: 0,
            jobs,
            backlog: VecDeque::new(),
            replies,
            wakeup,
        },
        seats,
    ))
}

impl<S> Seat<S> {
    /// Runs jobs until the pool is dropped.
    pub fn run<H: Handler<Stream = S>>(self, handler: &mut H)
    where
        S: Send,
    {
        while let Ok((key, job)) = self.next(handler) {
            let reply = match job {
                Job::Call {
                    request,
                    origin,
                    body,
                    response,
                } => Some(handler.call(request.borrow(), &origin, body, response)),
                Job::Pull { stream, response } => Some(handler.pull(stream, response)),
                Job::Close(stream) => {
                    handler.close(stream);
                    None
                }
            };
            if self.replies.send((key, reply)).is_err() {
                return;
            }
            if !self.wakeup.pending.swap(true, Ordering::AcqRel) {
                // It can only fail when the counter is full, and then the loop is woken anyway.
                let _ = rustix::io::write(&self.wakeup.eventfd, &1u64.to_ne_bytes());
            }
        }
    }

    fn next<H: Handler<Stream = S>>(
        &self,
        handler: &mut H,
    ) -> Result<(u64, Job<S>), crossbeam_channel::RecvError>
    where
        S: Send,
    {
        match self.jobs.try_recv() {
            Ok(job) => Ok(job),
            Err(TryRecvError::Disconnected) => Err(crossbeam_channel::RecvError),
            Err(TryRecvError::Empty) => handler.idle(|| self.jobs.recv()),
        }
    }
}

impl<S> Pool<S> {
    fn send(&mut self, key: u64, job: Job<S>) {
        if self.backlog.is_empty() {
            if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
                self.jobs.try_send((key, job))
            {
                self.backlog.push_back(job);
            }
        } else {
            self.backlog.push_back((key, job));
        }
    }

    fn next_reply(&mut self) -> Option<(u64, Option<Reply<S>>)> {
        if let Ok(reply) = self.replies.try_recv() {
            return Some(reply);
        }
        // Both sides exchange the flag, so either the thread sees it cleared and wakes the loop again, or its reply is
        // seen here. The counter is never read: edge-triggered, every write to it is an event.
        if self.wakeup.pending.swap(false, Ordering::AcqRel) {
            return self.replies.try_recv().ok();
        }
        None
    }
}

impl<S: Send + 'static> Engine for Pool<S> {
    type Stream = S;

    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        wait()
    }

    fn submit(&mut self, key: u64, work: Work<'_, S>) -> Option<Reply<S>> {
        self.running += 1;
        let job = match work {
            Work::Call {
                request,
                origin,
                body,
                response,
            } => Job::Call {
                request: Box::new(request.to_owned()),
                origin,
                body,
                response,
            },
            Work::Pull { stream, response } => Job::Pull { stream, response },
            Work::Close(stream) => Job::Close(stream),
        };
        self.send(key, job);
        None
    }

    fn collect(&mut self) -> Option<(u64, Reply<S>)> {
        loop {
            let (key, reply) = self.next_reply()?;
            self.running -= 1;
            if let Some(job) = self.backlog.pop_front()
                && let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
                    self.jobs.try_send(job)
            {
                self.backlog.push_front(job);
            }
            if let Some(reply) = reply {
                return Some((key, reply));
            }
        }
    }

    fn is_free(&self) -> bool {
        self.running < self.threads
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wakeup.eventfd.as_fd())
    }
}
