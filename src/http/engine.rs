//! Where requests run: on the loop's own thread, or on a pool of threads.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::body::Body;
use crate::descriptors::Own;
use crate::handler::{Handler, Reply};
use crate::request::{Origin, OwnedRequest, Request};
use crate::response::Response;

/// Something that a handler has to do for a connection. The request is borrowed on the loop's thread, and owned on its
/// way to another.
pub(crate) enum Work<R, S> {
    Call {
        request: R,
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
    fn submit(
        &mut self,
        key: u64,
        work: Work<Request<'_>, Self::Stream>,
    ) -> Option<Reply<Self::Stream>>;

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

    fn submit(
        &mut self,
        _key: u64,
        work: Work<Request<'_>, H::Stream>,
    ) -> Option<Reply<H::Stream>> {
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

type Job<S> = Work<Box<OwnedRequest>, S>;

/// A finished job: its connection and, unless it only closed something, the reply.
type Finished<S> = (u64, Option<Reply<S>>);

/// What loop and threads share. A queue under a lock and not a channel: a thread without work goes to sleep at once,
/// where channels first spin, which on a busy processor takes time from the threads that have work.
struct Shared<S> {
    queue: Mutex<Queue<S>>,
    work: Condvar,
    finished: Mutex<Vec<Finished<S>>>,
    eventfd: Own,
    /// The loop was woken and has not looked yet; it need not be woken again.
    woken: AtomicBool,
}

/// Bounded by the number of connections, as each has one job at most.
struct Queue<S> {
    jobs: VecDeque<(u64, Job<S>)>,
    /// Threads that sleep.
    idle: usize,
    closed: bool,
}

// Nothing can panic while it holds one of the locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The loop's end of a pool of threads.
pub struct Pool<S> {
    threads: usize,
    running: usize,
    shared: Arc<Shared<S>>,
    /// Taken out of `shared` and not yet dealt with.
    finished: VecDeque<Finished<S>>,
}

/// A thread's end of the pool; the thread calls [`Seat::run`].
pub struct Seat<S> {
    shared: Arc<Shared<S>>,
}

/// A pool and its `threads` seats.
///
/// # Errors
/// No descriptor is left.
pub fn pool<S: Send + 'static>(threads: usize) -> io::Result<(Pool<S>, Vec<Seat<S>>)> {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            jobs: VecDeque::new(),
            idle: 0,
            closed: false,
        }),
        work: Condvar::new(),
        finished: Mutex::new(Vec::new()),
        eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into(),
        woken: AtomicBool::new(false),
    });
    let seats = (0..threads)
        .map(|_| Seat {
            shared: shared.clone(),
        })
        .collect();
    Ok((
        Pool {
            threads,
            running: 0,
            shared,
            finished: VecDeque::new(),
        },
        seats,
    ))
}

impl<S: Send> Seat<S> {
    /// Runs jobs until the pool is dropped.
    pub fn run<H: Handler<Stream = S>>(self, handler: &mut H) {
        while let Some((key, job)) = self.next(handler) {
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
            lock(&self.shared.finished).push((key, reply));
            if !self.shared.woken.swap(true, Ordering::AcqRel) {
                // It can only fail when the counter is full, and then the loop is woken anyway.
                let _ = rustix::io::write(&self.shared.eventfd, &1u64.to_ne_bytes());
            }
        }
    }

    /// The next job; none when the pool was dropped. The handler lets go of what it holds only if it has to wait.
    fn next<H: Handler<Stream = S>>(&self, handler: &mut H) -> Option<(u64, Job<S>)> {
        if let Some(job) = lock(&self.shared.queue).jobs.pop_front() {
            return Some(job);
        }
        handler.idle(|| {
            let mut queue = lock(&self.shared.queue);
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    return Some(job);
                }
                if queue.closed {
                    return None;
                }
                queue.idle += 1;
                queue = self
                    .shared
                    .work
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        })
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.work.notify_all();
    }
}

impl<S: Send + 'static> Engine for Pool<S> {
    type Stream = S;

    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        wait()
    }

    fn submit(&mut self, key: u64, work: Work<Request<'_>, S>) -> Option<Reply<S>> {
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
        let mut queue = lock(&self.shared.queue);
        queue.jobs.push_back((key, job));
        let sleeping = queue.idle > 0;
        drop(queue);
        if sleeping {
            self.shared.work.notify_one();
        }
        None
    }

    fn collect(&mut self) -> Option<(u64, Reply<S>)> {
        loop {
            // Both sides exchange the flag, so either the thread sees it cleared and wakes the loop again, or its reply
            // is seen here. The counter is never read: edge-triggered, every write to it is an event.
            if self.finished.is_empty() && self.shared.woken.swap(false, Ordering::AcqRel) {
                self.finished = mem::take(&mut *lock(&self.shared.finished)).into();
            }
            let (key, reply) = self.finished.pop_front()?;
            self.running -= 1;
            if let Some(reply) = reply {
                return Some((key, reply));
            }
        }
    }

    fn is_free(&self) -> bool {
        self.running < self.threads
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.eventfd.as_fd())
    }
}
