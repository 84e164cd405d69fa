//! The loop: sockets, deadlines and the handler around [`crate::Connection`].
//!
//! epoll is used directly and not through mio, as only so can listeners be watched with EPOLLEXCLUSIVE. A keep-alive
//! request costs one wait (shared by all that are ready), one read and one write, and where responses go out together one push.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event as PollEvent, EventData, EventFlags};
use rustix::io::Errno;

use self::cork::Cork;
use crate::access::AccessLog;
use crate::client::{Client, Task};
use crate::connection::Phase;
use crate::descriptors::Own;
use crate::engine::{Engine, Inline, Pool};
use crate::files::Files;
use crate::handler::{Handler, Observer};
use crate::limits::Limits;
use crate::listener::Listener;
use crate::reject::Reject;
use crate::slab::Slab;
use crate::timers::{Instant, NEVER, Timers, now, until};

mod accepting;
mod calls;
mod cork;
mod drive;

const STOP: u64 = u64::MAX;
const WAKEUP: u64 = u64::MAX - 1;
const SIGNALS: u64 = u64::MAX - 2;
/// Keys from here on are listeners; [`Slab`] gives none that are so high.
const LISTENERS: u64 = u64::MAX << 32;

/// How long a worker that stops waits for the next request of an idle connection, as a client may have sent
/// one that is still on its way; it is answered with `Connection: close`. Long enough for a round trip over any network.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// One read takes at most so much; shared by all connections.
const READ_BUFFER: usize = 64 * 1024;
/// Output buffers above this size are not kept for the next response.
const KEPT_OUTPUT: usize = 256 * 1024;

/// Deadlines of connections are looked at this often at most, in nanoseconds, so that those of many idle connections
/// cost one wake-up together.
const TICK: Instant = 100_000_000;

/// What a server is made of.
#[derive(Debug)]
pub struct Config {
    /// Limits of all connections.
    pub limits: Arc<Limits>,
    /// Listening sockets; they become non-blocking.
    pub listeners: Vec<OwnedFd>,
    /// The last listener is for probes: the others are left alone until it is shut down.
    pub private: bool,
    /// Folders of static files.
    pub files: Files,
    /// A non-blocking pipe for a line on each request.
    pub access_log: Option<OwnedFd>,
    /// When one of them becomes readable, or ends, the server is to stop gracefully.
    pub stop: Vec<OwnedFd>,
    /// A non-blocking pipe, to which a byte is written when a signal has come.
    pub signals: Option<OwnedFd>,
}

/// Serves with the handler on the calling thread, until `stop` becomes readable and everything is answered.
///
/// # Errors
/// A listener cannot be used, or epoll fails.
pub fn serve_inline<H: Handler>(
    config: Config,
    handler: &mut H,
    observer: impl Observer,
) -> io::Result<()> {
    Server::new(config, Inline(handler), observer)?.run()
}

/// Serves with a pool of threads for the handlers and the calling thread for input and output, until `stop` becomes readable and
/// everything is answered. The threads' [`crate::Seat::run`] returns then.
///
/// # Errors
/// A listener cannot be used, or epoll fails.
pub fn serve_pool<S: Send + 'static>(
    config: Config,
    pool: Pool<S>,
    observer: impl Observer,
) -> io::Result<()> {
    Server::new(config, pool, observer)?.run()
}

struct Server<E: Engine, O> {
    epoll: Own,
    engine: E,
    observer: O,
    limits: Arc<Limits>,
    files: Files,
    listeners: Vec<Listener>,
    private: bool,
    access: Option<AccessLog>,
    _stop: Vec<Own>,
    signals: Option<Own>,
    /// The wait was interrupted by a signal.
    interrupted: bool,
    clients: Slab<Box<Client<E::Stream>>>,
    timers: Timers,
    /// Connections that can go on at once but have to let others go first.
    queue: VecDeque<u64>,
    /// Requests on the pool's threads with their start, the oldest first.
    running: VecDeque<(u64, Instant)>,
    /// The clock, read once a turn.
    now: Instant,
    buffer: Vec<u8>,
    /// An empty output buffer to use again.
    spare: Vec<u8>,
    /// The last attempt to accept found no descriptor left, which was logged.
    exhausted: bool,
    /// No connection is accepted before.
    pause: Instant,
    /// Until then whoever waits is left to workers that hold no connection yet.
    yielding: Instant,
    /// When to look next whether somebody waits in vain.
    next_look: Instant,
    draining: bool,
    cork: Cork,
}

impl<E: Engine, O: Observer> Server<E, O> {
    fn new(config: Config, engine: E, observer: O) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stops = config.stop.iter().map(|stop| (stop.as_fd(), STOP));
        let wakeup = engine.wakeup().map(|wakeup| (wakeup, WAKEUP));
        let signals = config.signals.iter().map(|fd| (fd.as_fd(), SIGNALS));
        for (fd, key) in stops.chain(wakeup).chain(signals) {
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&epoll, fd, EventData::new_u64(key), flags)?;
        }
        let listeners = config
            .listeners
            .into_iter()
            .map(Listener::new)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            epoll: epoll.into(),
            engine,
            observer,
            limits: config.limits,
            files: config.files,
            listeners,
            private: config.private,
            access: config.access_log.map(AccessLog::new),
            _stop: config.stop.into_iter().map(Own::from).collect(),
            signals: config.signals.map(Own::from),
            interrupted: false,
            clients: Slab::default(),
            timers: Timers::default(),
            queue: VecDeque::new(),
            running: VecDeque::new(),
            now: now(),
            buffer: vec![0; READ_BUFFER],
            spare: Vec::new(),
            exhausted: false,
            pause: NEVER,
            yielding: NEVER,
            next_look: 0,
            draining: false,
            cork: Cork::default(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        self.watch_listeners()?;
        let mut events = Vec::with_capacity(256);
        let mut callers = Vec::new();
        while !(self.draining && self.clients.len() == 0) {
            self.wait(&mut events)?;
            self.now = now();
            if mem::take(&mut self.interrupted) {
                self.run_signal_handlers()?;
            }
            for (index, &(key, flags)) in events.iter().enumerate() {
                if self.cork.is_holding() {
                    self.now = now();
                    if self.cork.is_due(self.now) {
                        self.push();
                    }
                }
                let mut later = events[index + 1..].iter();
                self.cork
                    .expect_others(later.any(|&(key, _)| key < LISTENERS));
                match key {
                    STOP => {
                        self.push();
                        self.drain()?;
                    }
                    WAKEUP => {}
                    SIGNALS => self.run_signal_handlers()?,
                    listener if listener >= LISTENERS => {
                        callers.push((listener - LISTENERS) as usize)
                    }
                    client => self.event(client, EventFlags::from_bits_retain(flags)),
                }
            }
            self.push();
            let queued = self.queue.len();
            let turns = events.len() - callers.len() + queued;
            for _ in 0..queued {
                if let Some(key) = self.queue.pop_front() {
                    self.go_on(key);
                }
            }
            self.collect();
            // Clients that are already here come first; whoever waits to be accepted can be taken by another worker too.
            for listener in callers.drain(..) {
                self.accept(listener, turns);
            }
            self.look_for_callers();
            self.cease_to_yield();
            self.expire()?;
            if let Some(access) = &mut self.access {
                access.flush();
            }
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<(u64, u32)>) -> io::Result<()> {
        let timeout = match self.queue.is_empty() {
            true => until(
                self.timers.next().min(self.pause).min(self.yielding),
                self.now,
            ),
            false => until(0, 0),
        };
        let (epoll, interrupted) = (&self.epoll, &mut self.interrupted);
        self.engine.wait(|| {
            events.clear();
            let mut found = [PollEvent {
                flags: EventFlags::empty(),
                data: EventData::new_u64(0),
            }; 128];
            match epoll::wait(epoll, &mut found, timeout.as_ref()) {
                Ok(n) => {
                    events.extend(
                        found[..n]
                            .iter()
                            .map(|event| ({ event.data }.u64(), { event.flags }.bits())),
                    );
                    Ok(())
                }
                Err(Errno::INTR) => {
                    *interrupted = true;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    /// The byte that was written is of no interest: a signal may also have come without one, if the application uses the place
    /// where its writer stands for itself.
    fn run_signal_handlers(&mut self) -> io::Result<()> {
        self.push();
        if let Some(signals) = &self.signals {
            let _ = rustix::io::read(signals, &mut self.buffer[..]);
        }
        match self.observer.interrupted() {
            true => self.drain(),
            false => Ok(()),
        }
    }

    fn event(&mut self, key: u64, flags: EventFlags) {
        if let Some(client) = self.clients.get_mut(key) {
            client.readable |= flags
                .intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            client.hangup |=
                flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            self.go_on(key);
        }
    }

    fn expire(&mut self) -> io::Result<()> {
        while let Some(key) = self.timers.pop(self.now) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            client.armed = NEVER;
            if client.deadline > self.now {
                self.arm(key);
            } else {
                self.timeout(key);
            }
        }
        if self.pause <= self.now {
            self.pause = NEVER;
        }
        self.watch_listeners()
    }

    /// Puts the connection's deadline into the timers unless an earlier entry is there.
    fn arm(&mut self, key: u64) {
        if let Some(client) = self.clients.get_mut(key)
            && client.deadline < client.armed
        {
            client.armed = client.deadline.next_multiple_of(TICK);
            self.timers.push(client.armed, key);
        }
    }

    fn timeout(&mut self, key: u64) {
        let Some(mut client) = self.clients.lend(key) else {
            return;
        };
        let reading = matches!(client.task, Task::None) && !client.has_output();
        match client.connection.phase() {
            // A request may have come in since the last look, and a connection must not be closed under it.
            Phase::Idle if reading => {
                if let Ok(n @ 1..) = client.read(&mut self.buffer) {
                    client.connection.receive(&self.buffer[..n]);
                    return self.drive(key, client);
                }
            }
            Phase::Head | Phase::Body if reading => {
                let late = Reject::with(408, "the request did not come in time");
                client.connection.refused(late).answer(&mut client.out);
                client.task = Task::Rejected;
                self.log_refusal(&client, 408);
                return self.drive(key, client);
            }
            _ => {}
        }
        self.close(key, &mut client);
    }

    fn after(&self, duration: Duration) -> Instant {
        self.now
            .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
            .min(NEVER / 2)
    }
}
