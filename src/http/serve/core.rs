//! The loop without its engine: connections, deadlines and what goes in and out. While the application runs on the loop's own
//! thread it is lent to the response, so that a handler that sends can look after the rest (see `between`).

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event as PollEvent, EventData, EventFlags};
use rustix::io::Errno;

use super::accepting::Late;
use super::between::Current;
use super::complaints::Complaints;
use super::cork::Cork;
use super::lingering::Lingering;
use super::refusals::Refusals;
use super::relayed::{Preamble, TURNED_AWAY};
use super::room::Room;
use super::{Config, FrontListeners, READ_BUFFER, SERVICE, SIGNALS, STOP, TICK, WAKEUP};
use crate::exchange::Outlet;
use crate::files::Files;
use crate::layer::Layers;
use crate::limits::Limits;
use crate::message::budget::Budget;
use crate::message::response::Response;
use crate::net::descriptors::Own;
use crate::net::listener::Listener;
use crate::net::transport::Transport;
use crate::net::trusted::TrustedProxies;
use crate::proto::h1::connection::{Connection, Phase};
use crate::proto::reject::Reject;
use crate::rate::Rate;
use crate::serve::client::{Client, Link, Task};
use crate::serve::handler::Observer;
use crate::serve::slab::Slab;
use crate::serve::timers::{Instant, NEVER, Timers, now, until};

pub(super) const LATE_HEAD: Reject =
    Reject::with(408, "the head of the request did not come in time").because_of("header_timeout");
pub(super) const LATE_BODY: Reject =
    Reject::with(408, "the body of the request did not come in time").because_of("body_timeout");

pub(crate) struct Core<O, T: Transport> {
    pub(super) epoll: Own,
    pub(super) observer: O,
    pub(crate) limits: Arc<Limits>,
    /// Those of requests that the front passes on.
    pub(super) limits_for_front: Arc<Limits>,
    pub(crate) budget: Arc<Budget>,
    pub(super) files: Files,
    pub(super) listeners: Vec<Listener>,
    pub(super) private: bool,
    pub(super) front: FrontListeners,
    /// What is left of the listeners in a drain, until `pause`.
    pub(super) late: Option<Late>,
    pub(super) proxy_protocol: Option<TrustedProxies>,
    pub(super) turned_away: Rate,
    pub(super) layers: Layers,
    _stop: Vec<Own>,
    signals: Option<Own>,
    /// A signal has come, whose handlers may not have run.
    pub(super) interrupted: bool,
    pub(super) clients: Slab<Client<T>>,
    /// How many of them are streams of others.
    pub(super) streams: usize,
    /// What all transports share.
    pub(super) shared: T::Shared,
    pub(super) timers: Timers,
    /// Connections that can go on at once but have to let others go first.
    pub(super) queue: VecDeque<u64>,
    /// Connections whose request waits for this thread, which is in another one.
    pub(super) ready: VecDeque<u64>,
    /// The request that this thread is in.
    pub(super) current: Option<Current<T>>,
    /// Requests on threads with their start.
    pub(super) running: VecDeque<(u64, Instant)>,
    /// Requests that the pool has and no thread has taken yet.
    pub(super) waiting: VecDeque<u64>,
    /// The clock, read once a turn.
    pub(super) now: Instant,
    /// When the kernel told of the events that are being dealt with.
    pub(super) woken: Instant,
    pub(super) buffer: Vec<u8>,
    /// An empty output buffer to use again.
    pub(super) spare: Vec<u8>,
    /// A response that is over, whose memory is used again.
    pub(super) kept: Option<Response>,
    /// What has parsed requests of streams that are over, which is used again too.
    #[allow(clippy::vec_box, reason = "they go back to clients as they are")]
    pub(super) parsers: Vec<Box<Connection>>,
    /// The last attempt to accept found no descriptor left, which was logged.
    pub(super) exhausted: bool,
    /// No connection is accepted before.
    pub(super) pause: Instant,
    /// Until then whoever waits is left to workers that hold no connection yet.
    pub(super) yielding: Instant,
    /// When to look next whether somebody waits in vain.
    pub(super) next_look: Instant,
    /// It was asked for the end, and the drain has to begin when the thread is free.
    pub(super) stopping: bool,
    pub(super) draining: bool,
    /// When responses that have not ended are broken off.
    pub(super) breaks_off: Instant,
    pub(super) cork: Cork,
    pub(super) complaints: Complaints,
    pub(super) room: Room,
    pub(super) lingering: Lingering,
    pub(super) refusals: Refusals,
    /// Events that were found while the thread was in a request.
    pub(super) found: Vec<(u64, u32)>,
    /// The engine has to know of clients that have left.
    pub(super) tells_who_left: bool,
    /// Those it does not know of yet.
    pub(super) left: Vec<u64>,
}

impl<O: Observer, T: Transport> Core<O, T> {
    pub fn new(
        config: Config,
        shared: T::Shared,
        wakeup: Option<BorrowedFd<'_>>,
        observer: O,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stops = config.stop.iter().map(|stop| (stop.as_fd(), STOP));
        let wakeup = wakeup.map(|wakeup| (wakeup, WAKEUP));
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
        let refusals = Refusals::new(config.proxy_protocol.is_some());
        Ok(Self {
            epoll: epoll.into(),
            observer,
            budget: Arc::new(Budget::new(config.limits.max_buffered)),
            limits_for_front: Arc::new(config.limits.with_room_for_front()),
            limits: config.limits,
            files: config.files,
            listeners,
            private: config.private,
            front: config.front,
            late: None,
            proxy_protocol: config.proxy_protocol,
            turned_away: TURNED_AWAY,
            layers: Layers::new(&config.layers),
            _stop: config.stop.into_iter().map(Own::from).collect(),
            signals: config.signals.map(Own::from),
            interrupted: false,
            clients: Slab::default(),
            streams: 0,
            shared,
            timers: Timers::default(),
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            current: None,
            running: VecDeque::new(),
            waiting: VecDeque::new(),
            now: now(),
            woken: 0,
            buffer: vec![0; READ_BUFFER],
            spare: Vec::new(),
            kept: None,
            parsers: Vec::new(),
            exhausted: false,
            pause: NEVER,
            yielding: NEVER,
            next_look: 0,
            stopping: false,
            draining: false,
            breaks_off: NEVER,
            cork: Cork::default(),
            complaints: Complaints::default(),
            room: Room::default(),
            lingering: Lingering::default(),
            refusals,
            found: Vec::new(),
            tells_who_left: false,
            left: Vec::new(),
        })
    }

    /// Waits for events, until `deadline` at the latest; not at all when there is something to do.
    #[inline(always)]
    pub(super) fn wait(
        &mut self,
        deadline: Instant,
        events: &mut Vec<(u64, u32)>,
    ) -> io::Result<()> {
        let timeout = match self.queue.is_empty() {
            true => until(deadline.min(self.timers.next()), self.now),
            false => until(0, 0),
        };
        events.clear();
        let mut found = [const { MaybeUninit::<PollEvent>::uninit() }; 128];
        match epoll::wait(&self.epoll, &mut found[..], timeout.as_ref()) {
            Ok((found, _)) => {
                events.extend(
                    found
                        .iter()
                        .map(|event| ({ event.data }.u64(), { event.flags }.bits())),
                );
                Ok(())
            }
            Err(Errno::INTR) => {
                self.interrupted = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the handlers of a signal that has come; whether the server is to stop for it. The byte that was written is of no
    /// interest: a signal may also have come without one, if the application uses the place where its writer stands for itself.
    #[cold]
    pub(super) fn run_signal_handlers(&mut self) -> bool {
        self.interrupted = false;
        self.push();
        if let Some(signals) = &self.signals {
            let _ = rustix::io::read(signals, &mut self.buffer[..]);
        }
        self.observer.interrupted()
    }

    /// Notes what the kernel says about a connection; whether there is such a connection here.
    pub(super) fn note_event(&mut self, key: u64, flags: EventFlags) -> bool {
        let (woken, now) = (self.woken, self.now);
        let Some(client) = self.clients.get_mut(key) else {
            return false;
        };
        let link = &mut client.link;
        link.note_event(flags, woken, now);
        // A thread of the pool makes something that nobody can get any more.
        link.broken |= matches!(link.task, Task::Running) && flags.intersects(link.lost());
        true
    }

    /// The connection whose deadline comes next, if that has passed.
    pub(super) fn overdue(&mut self) -> Option<u64> {
        while let Some(key) = self.timers.pop(self.now) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            client.link.armed = NEVER;
            if client.link.deadline <= self.now {
                return Some(key);
            }
            self.arm(key);
        }
        None
    }

    /// Puts the connection's deadline into the timers unless an earlier entry is there.
    pub(super) fn arm(&mut self, key: u64) {
        if let Some(mut client) = self.clients.lend(key) {
            self.arm_link(key, &mut client.link);
            self.clients.give_back(key, client);
        }
    }

    /// The same for a connection that was taken out.
    pub(super) fn arm_link(&mut self, key: u64, link: &mut Link<T>) {
        if link.deadline < link.armed {
            link.armed = link.deadline.next_multiple_of(TICK);
            self.timers.push(link.armed, key);
        }
    }

    /// The connection's deadline has passed. Gives it back if it goes on.
    pub(super) fn timeout(&mut self, key: u64) -> Option<Client<T>> {
        let mut client = self.clients.lend(key)?;
        let link = &mut client.link;
        if let Task::Multiplexed(_) = link.task {
            return self.end_multiplexed(key, client);
        }
        if let Task::Lingering(_) = link.task {
            if self.is_lingering_on(link) {
                return Some(client);
            }
            self.close(key, client);
            return None;
        }
        let reading = matches!(link.task, Task::None) && !link.has_output();
        match client.connection.phase() {
            // A request may have come in since the last look, and a connection must not be closed under it.
            Phase::Idle if matches!(link.preamble, Some(Preamble::Offer)) => {
                link.readable = true;
                if self.take_offer(&mut client) {
                    return Some(client);
                }
            }
            Phase::Idle if link.preamble.is_some() => {
                let origin = link.origin;
                if !matches!(link.preamble, Some(Preamble::Opening(_))) {
                    self.turn_away(&origin, "no PROXY header came in time");
                } else if self.is_late_opening(&mut client) {
                    return Some(client);
                }
            }
            Phase::Idle if reading => {
                if let Ok(n @ 1..) = link.read(&mut self.buffer) {
                    client.receive(&self.buffer[..n], NEVER, self.now);
                    return Some(client);
                }
            }
            phase @ (Phase::Head | Phase::Body) if reading => {
                let late = match phase {
                    Phase::Head => LATE_HEAD,
                    _ => LATE_BODY,
                };
                let late = client.connection.refused(late);
                self.reject(&mut client, late);
                return Some(client);
            }
            _ => {}
        }
        self.close(key, client);
        None
    }

    pub(super) fn after(&self, duration: Duration) -> Instant {
        self.now
            .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
            .min(NEVER / 2)
    }

    /// Whether an event's key is that of a connection.
    pub(super) fn is_client(key: u64) -> bool {
        key < SERVICE
    }
}

/// What is lent to a response while a handler makes it, and is back before and after.
pub(crate) struct Lent<T>(Option<Box<T>>);

impl<T> Lent<T> {
    pub fn new(value: T) -> Self {
        Self(Some(Box::new(value)))
    }

    /// # Panics
    /// If it was lent already.
    pub fn lend(&mut self) -> Box<T> {
        self.0.take().expect(LENT)
    }
}

impl<O: Observer, T: Transport> Lent<Core<O, T>> {
    /// # Panics
    /// If it is not what was lent: the handler came back with the response to another request.
    pub fn give_back(&mut self, outlet: Box<dyn Outlet>) {
        let outlet: Box<dyn Any> = outlet;
        self.0 = outlet.downcast().ok();
        assert!(self.0.is_some(), "{LENT}");
    }
}

const LENT: &str = "the loop goes on when the handler has returned";

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect(LENT)
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect(LENT)
    }
}
