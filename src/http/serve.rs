//! The loop: sockets, deadlines and the handler around [`crate::Connection`].
//!
//! epoll is used directly and not through mio, as only so can listeners be watched with EPOLLEXCLUSIVE. A keep-alive
//! request costs one wait (shared by all that are ready), one read and one write, and where responses go out together one push.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use self::core::{Core, LATE_BODY, Lent};
use self::drive::Turn;
use crate::files::Files;
use crate::layer::Layer;
use crate::limits::Limits;
use crate::net::multiplex::{Multiplex, Single};
use crate::net::plain::Plain;
use crate::net::transport::Transport;
use crate::net::trusted::TrustedProxies;
use crate::serve::client::Client;
use crate::serve::engine::{Engine, Inline, Pool, Service, Serving};
use crate::serve::handler::{Handler, Observer};
use crate::serve::timers::{Instant, NEVER, now};

mod accepting;
mod between;
pub(crate) mod board;
mod calls;
pub(crate) mod client;
mod complaints;
pub(crate) mod core;
mod cork;
mod drive;
mod ending;
pub(crate) mod engine;
pub(crate) mod handler;
mod lanes;
mod lingering;
pub(crate) mod multiplexed;
mod refusals;
pub(crate) mod relayed;
mod room;
mod serving;
mod slab;
mod streams;
pub(crate) mod timers;

const STOP: u64 = u64::MAX;
const WAKEUP: u64 = u64::MAX - 1;
const SIGNALS: u64 = u64::MAX - 2;
/// Keys from here on are listeners.
const LISTENERS: u64 = u64::MAX << 32;
/// Keys from here on are descriptors of a service; no connection has a key that is so high.
const SERVICE: u64 = LISTENERS - (1 << 32);

/// What a worker sends for a request of the front that it has read and does not begin, because the front has ended the connection. No response
/// begins so.
pub const NOT_BEGUN: u8 = 0;

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
pub struct Config {
    /// Limits of all connections.
    pub limits: Arc<Limits>,
    /// Listening sockets; they become non-blocking.
    pub listeners: Vec<OwnedFd>,
    /// The last listener is for probes: the others are left alone until it is shut down.
    pub private: bool,
    /// Those at which only the front connects.
    pub front: FrontListeners,
    /// Connections begin with a PROXY header, and only these peers may connect. Not on the private listener.
    pub proxy_protocol: Option<TrustedProxies>,
    /// Folders of static files.
    pub files: Files,
    /// What looks at each exchange, in this order; see [`crate::layer::standard`].
    pub layers: Vec<Arc<dyn Layer>>,
    /// When one of them becomes readable, or ends, the server is to stop gracefully.
    pub stop: Vec<OwnedFd>,
    /// A non-blocking pipe, to which a byte is written when a signal has come.
    pub signals: Option<OwnedFd>,
}

/// The listeners of a server at which only the front of its master connects, by their numbers.
#[derive(Debug, Clone, Default)]
pub struct FrontListeners {
    /// All of them.
    pub all: Vec<usize>,
    /// The one that no other worker has.
    pub own: Option<usize>,
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
    serve_inline_over::<Plain, H>(config, (), handler, observer)
}

/// Serves with a pool of threads for the handlers and the calling thread for input and output, until `stop` becomes readable and
/// everything is answered. The threads' [`crate::Seat::run`] returns then.
///
/// # Errors
/// A listener cannot be used, or epoll fails.
pub fn serve_pool(config: Config, pool: Pool, observer: impl Observer) -> io::Result<()> {
    serve_pool_over::<Plain>(config, (), pool, observer)
}

/// [`serve_inline`] over another transport, with what all connections share.
///
/// # Errors
/// The same.
pub fn serve_inline_over<T: Transport<Multiplex = Single>, H: Handler>(
    config: Config,
    shared: T::Shared,
    handler: &mut H,
    observer: impl Observer,
) -> io::Result<()> {
    Server::<_, _, T>::new(config, shared, Inline(handler), observer)?.run()
}

/// [`serve_pool`] over another transport, with what all connections share.
///
/// # Errors
/// The same.
pub fn serve_pool_over<T: Transport<Multiplex = Single>>(
    config: Config,
    shared: T::Shared,
    pool: Pool,
    observer: impl Observer,
) -> io::Result<()> {
    Server::<_, _, T>::new(config, shared, pool, observer)?.run()
}

/// Serves with a service on the calling thread, until `stop` becomes readable and everything is answered.
///
/// # Errors
/// A listener cannot be used, or epoll fails.
pub fn serve_service<S: Service>(
    config: Config,
    service: S,
    observer: impl Observer,
) -> io::Result<()> {
    serve_service_over::<Plain, S>(config, (), service, observer)
}

/// [`serve_service`] over another transport, with what all connections share.
///
/// # Errors
/// The same.
pub fn serve_service_over<T: Transport, S: Service>(
    config: Config,
    shared: T::Shared,
    service: S,
    observer: impl Observer,
) -> io::Result<()> {
    Server::<_, _, T>::new(config, shared, Serving(service), observer)?.run()
}

struct Server<E, O, T: Transport> {
    core: Lent<Core<O, T>>,
    engine: E,
}

impl<E: Engine, O: Observer, T: Transport> Server<E, O, T> {
    fn new(config: Config, shared: T::Shared, mut engine: E, observer: O) -> io::Result<Self> {
        let mut core = Core::new(config, shared, engine.wakeup(), observer)?;
        core.tells_who_left = E::SERVES;
        engine.begin(core.epoll.as_fd())?;
        Ok(Self {
            core: Lent::new(core),
            engine,
        })
    }

    fn run(mut self) -> io::Result<()> {
        self.watch_listeners()?;
        let mut events = Vec::with_capacity(256);
        let mut callers = Vec::new();
        while !(self.core.draining && self.core.clients.len() == 0 && self.core.late.is_none()) {
            self.wait(&mut events)?;
            self.core.now = now();
            self.core.woken = self.core.now;
            if self.core.interrupted && self.core.run_signal_handlers() {
                self.drain();
            }
            for (index, &(key, flags)) in events.iter().enumerate() {
                let core = &mut *self.core;
                if core.cork.is_holding() {
                    core.now = now();
                    if core.cork.is_due(core.now) {
                        core.push();
                    }
                }
                let mut later = events[index + 1..].iter();
                core.cork
                    .expect_others(later.any(|&(key, _)| Core::<O, T>::is_client(key)));
                match key {
                    STOP => {
                        core.push();
                        self.drain();
                    }
                    WAKEUP => {}
                    SIGNALS => {
                        if core.run_signal_handlers() {
                            self.drain();
                        }
                    }
                    listener if listener >= LISTENERS => {
                        callers.push((listener - LISTENERS) as usize);
                    }
                    token if E::SERVES && token >= SERVICE => {
                        let (flags, now) = (EventFlags::from_bits_retain(flags), core.now);
                        self.engine.event(token as u32, flags, now);
                    }
                    client => self.event(client, EventFlags::from_bits_retain(flags)),
                }
            }
            self.core.push();
            let queued = self.core.queue.len();
            let ready = self.core.ready.len();
            let turns = events.len() - callers.len() + queued + ready;
            for _ in 0..ready {
                if let Some(key) = self.core.next_ready() {
                    self.go_on(key);
                }
            }
            for _ in 0..queued {
                if let Some(key) = self.core.queue.pop_front() {
                    self.go_on(key);
                }
            }
            self.collect();
            if E::SERVES {
                self.serve();
            }
            // Clients that are already here come first; whoever waits to be accepted can be taken by another worker too.
            for listener in callers.drain(..) {
                self.accept(listener, turns);
            }
            self.look_for_callers();
            self.cease_to_yield();
            if self.core.stopping {
                self.drain();
            }
            self.expire()?;
            if E::SERVES {
                self.let_go();
            }
            if T::Multiplex::EXISTS {
                self.carry();
            }
            let now = self.core.now;
            self.core.refusals.tell_rest(now);
            self.core.layers.flush();
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<(u64, u32)>) -> io::Result<()> {
        let core = &mut *self.core;
        let deadline = match core.ready.is_empty() && !core.interrupted {
            true => core.pause.min(core.yielding).min(core.room.full_until),
            false => 0,
        };
        let deadline = match core.breaks_off() {
            true => deadline,
            false => deadline.min(core.breaks_off),
        };
        let deadline = deadline.min(self.engine.deadline());
        self.engine.wait(|| core.wait(deadline, events))
    }

    fn event(&mut self, key: u64, flags: EventFlags) {
        if self.core.note_event(key, flags) {
            if E::SERVES {
                self.core.note_left(key, flags);
            }
            self.go_on(key);
        }
    }

    fn go_on(&mut self, key: u64) {
        if let Some(client) = self.core.clients.lend(key) {
            self.drive(key, client);
        }
    }

    fn drive(&mut self, key: u64, mut client: Client<T>) {
        let mut steps = drive::STEPS;
        loop {
            match self.core.turn(key, &mut client, &mut steps) {
                Turn::Ready if client.link.is_front => {
                    let Some(begun) = self.core.begin_for_front(key, client) else {
                        return;
                    };
                    // What was sent ahead on a lane goes out together. The front sees to it that this is little.
                    steps = drive::STEPS;
                    client = self.dispatch(key, begun);
                }
                Turn::Ready => client = self.dispatch(key, client),
                Turn::Ask if E::SERVES => client = self.ask(key, client),
                turn => {
                    self.core.settle(key, client, turn);
                    if E::SERVES {
                        self.tell_waiting(key);
                        self.feed(key);
                    }
                    return;
                }
            }
        }
    }

    fn expire(&mut self) -> io::Result<()> {
        while let Some(key) = self.core.overdue() {
            if E::SERVES && self.core.is_late_stream(key) {
                self.refuse_rest(key, LATE_BODY);
            } else if let Some(client) = self.core.timeout(key) {
                self.drive(key, client);
            }
        }
        self.core.break_off();
        if self.core.pause <= self.core.now {
            self.core.pause = NEVER;
            if self.core.late.is_some() {
                self.end_late();
            }
        }
        if self.core.room.full_until <= self.core.now {
            self.core.room.full_until = NEVER;
        }
        self.watch_listeners()
    }
}
