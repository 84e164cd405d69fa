//! Requests run on threads of a pool; one thread owns a request from its call to its end.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::{Answer, Engine, Report};
use crate::exchange::{Exchange, Outlet, Sent};
use crate::limits::Limits;
use crate::message::backlog::Backlog;
use crate::message::body::Body;
use crate::message::budget::Budget;
use crate::message::request::{Origin, OwnedRequest};
use crate::message::response::Response;
use crate::net::descriptors::Own;
use crate::net::transport::Transport;
use crate::serve::client::Client;
use crate::serve::core::{Core, Lent};
use crate::serve::handler::{Handler, Observer};
use crate::serve::timers::{Instant, now};

/// How often a request that sends nothing tells that it goes on, at most, in nanoseconds.
const ALIVE: Instant = 10_000_000;

struct Job {
    key: u64,
    request: Box<OwnedRequest>,
    origin: Origin,
    body: Body,
    exchange: Exchange,
}

/// What loop and threads share. A queue under a lock and not a channel: a thread without work goes to sleep at once,
/// where channels first spin, which on a busy processor takes time from the threads that have work.
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    reports: Mutex<Vec<(u64, Report)>>,
    eventfd: Own,
    /// The loop was woken and has not looked yet; it need not be woken again.
    woken: AtomicBool,
}

/// Bounded by the number of connections, as each has one job at most.
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that sleep.
    idle: usize,
    closed: bool,
}

// Nothing can panic while it holds one of the locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn tell(&self, key: u64, report: Report) {
        lock(&self.reports).push((key, report));
        if !self.woken.swap(true, Ordering::AcqRel) {
            // It can only fail when the counter is full, and then the loop is woken anyway.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// The loop's end of a pool of threads.
pub struct Pool {
    threads: usize,
    running: usize,
    shared: Arc<Shared>,
    /// Taken out of `shared` and not yet dealt with.
    reports: VecDeque<(u64, Report)>,
}

/// A thread's end of the pool; the thread calls [`Seat::run`].
pub struct Seat {
    shared: Arc<Shared>,
}

/// A pool and its `threads` seats.
///
/// # Errors
/// No descriptor is left.
pub fn pool(threads: usize) -> io::Result<(Pool, Vec<Seat>)> {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            jobs: VecDeque::new(),
            idle: 0,
            closed: false,
        }),
        work: Condvar::new(),
        reports: Mutex::new(Vec::new()),
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
            reports: VecDeque::new(),
        },
        seats,
    ))
}

impl Seat {
    /// Runs requests until the pool is dropped.
    pub fn run<H: Handler>(self, handler: &mut H) {
        while let Some(job) = self.next(handler) {
            let exchange = handler.call(job.request.borrow(), &job.origin, job.body, job.exchange);
            let (response, _, part) = exchange.into_parts();
            let answer = Box::new(Answer { response, part });
            self.shared.tell(job.key, Report::Done(answer));
        }
    }

    /// The next job; none when the pool was dropped. The handler lets go of what it holds only if it has to wait.
    fn next<H: Handler>(&self, handler: &mut H) -> Option<Job> {
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

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.work.notify_all();
    }
}

impl Engine for Pool {
    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        wait()
    }

    fn submit<O: Observer, T: Transport>(
        &mut self,
        core: &mut Lent<Core<O, T>>,
        key: u64,
        client: Client<T>,
        body: Body,
        response: Response,
    ) -> (Client<T>, Option<Answer>) {
        self.running += 1;
        let outlet = Remote {
            key,
            shared: self.shared.clone(),
            limits: core.limits.clone(),
            budget: core.budget.clone(),
            backlog: None,
            told: 0,
        };
        let job = Job {
            key,
            request: Box::new(client.connection.request().to_owned()),
            origin: client.link.origin,
            body,
            exchange: Exchange::new(response, Box::new(outlet)),
        };
        let mut queue = lock(&self.shared.queue);
        queue.jobs.push_back(job);
        let sleeping = queue.idle > 0;
        drop(queue);
        if sleeping {
            self.shared.work.notify_one();
        }
        (client, None)
    }

    fn collect(&mut self) -> Option<(u64, Report)> {
        // Both sides exchange the flag, so either the thread sees it cleared and wakes the loop again, or its report
        // is seen here. The counter is never read: edge-triggered, every write to it is an event.
        if self.reports.is_empty() && self.shared.woken.swap(false, Ordering::AcqRel) {
            self.reports = mem::take(&mut *lock(&self.shared.reports)).into();
        }
        let (key, report) = self.reports.pop_front()?;
        if let Report::Done(_) = report {
            self.running -= 1;
        }
        Some((key, report))
    }

    fn is_free(&self) -> bool {
        self.running < self.threads
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.eventfd.as_fd())
    }
}

/// Hands over to the loop, which sends.
struct Remote {
    key: u64,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    /// None before the first piece.
    backlog: Option<Arc<Backlog>>,
    /// When the loop was last told that the request goes on.
    told: Instant,
}

impl Remote {
    fn backlog(&mut self) -> Arc<Backlog> {
        let new = || Arc::new(Backlog::new(&self.limits, &self.budget));
        self.backlog.get_or_insert_with(new).clone()
    }

    fn tell(&self, backlog: Arc<Backlog>) {
        if backlog.begin_to_tell() {
            self.shared.tell(self.key, Report::Piece(backlog));
        }
    }
}

impl Outlet for Remote {
    fn send(&mut self, response: &mut Response) -> Sent {
        let backlog = self.backlog();
        let mut data = response.take_out();
        backlog.closes(response.ends_with_connection());
        let sent = backlog.give(&mut data);
        response.give_out(data);
        if sent == Sent::Taken {
            self.tell(backlog);
        }
        sent
    }

    fn wait(&mut self, response: &mut Response) -> Sent {
        let backlog = self.backlog();
        let mut data = response.take_out();
        let mut waits = false;
        let sent = loop {
            match backlog.store(&mut data) {
                Sent::Full => {
                    if !mem::replace(&mut waits, true) {
                        self.shared.tell(self.key, Report::Waiting);
                    }
                    backlog.wait(data.len());
                }
                sent => break sent,
            }
        };
        response.give_out(data);
        if waits {
            self.shared.tell(self.key, Report::Alive);
        }
        if sent == Sent::Taken {
            self.tell(backlog);
        }
        sent
    }

    fn alive(&mut self) -> Sent {
        let now = now();
        if self.told.saturating_add(ALIVE) <= now {
            self.told = now;
            self.shared.tell(self.key, Report::Alive);
        }
        match &self.backlog {
            Some(backlog) if backlog.is_gone() => Sent::Gone,
            // The loop can only say so through one.
            Some(_) => Sent::Taken,
            None => {
                let backlog = self.backlog();
                self.tell(backlog);
                Sent::Taken
            }
        }
    }
}
