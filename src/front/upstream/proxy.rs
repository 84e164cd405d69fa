//! Requests on their way to upstreams and their responses on the way back: the sockets around what [`super::dispatch`] and
//! [`super::failure`] decide.
//!
//! A request has a connection to itself until its response is complete, or shares a lane (`lanes`). What finds no room before the client is not read from the upstream
//! beyond `MOST_WAITING`; a client that leaves takes its connection to the upstream with it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use preforkd_http::{Call, Expected, Outgoing, Output, Rate, Ready, Response, Watch};
use preforkd_worker::running::Running;

use crate::layers::sendfile::Folders;

use self::judge::Judge;
use self::places::{Connections, Places};
use self::stream::{Stream, may_switch};
use super::address::Address;
use super::connection::State;
use super::dispatch::{Arrival, Dispatch, Facts, Outcome, Place, Ticket};
use super::failure::{Failure, is_idempotent};
use super::lane::Lane;
use super::protocol::{self, Passing, Upload};
use super::settings::Settings;
use super::{Instant, NEVER, after};
use crate::cache::Recording;

mod ahead;
mod answers;
mod file;
mod judge;
mod lanes;
mod places;
mod run;
mod stream;

/// Bytes of a response that may wait for the client before the upstream is left waiting.
const MOST_WAITING: usize = 128 * 1024;
/// The upstream is read again when no more than this part of it waits.
const FEW: usize = 2;
/// The same as [`MOST_WAITING`] while all responses together hold more than [`Proxy::hold_at_most`].
const MOST_WHEN_FULL: usize = 8 * 1024;
/// Bytes of all responses that may wait, unless another number is set.
const MOST_HELD: usize = 256 * 1024 * 1024;
/// A body up to this size is sent together with the head.
const SMALL_BODY: u64 = 16 * 1024;
/// One read takes at most so much.
const READ_BUFFER: usize = 64 * 1024;
/// Deadlines are kept to this, in nanoseconds, so that those of many connections cost one wake-up.
const TICK: Instant = 10_000_000;
/// The number of the descriptor by which workers of the front wake each other. Connections count from 0.
const WAKE: u32 = u32::MAX - 2;
/// Memory of a request that is kept for the next one, in bytes, and for how many.
const KEPT_MESSAGE: usize = 32 * 1024;
const KEPT_MESSAGES: usize = 16;

/// A request that is being answered.
#[derive(Debug)]
struct Exchange {
    response: Response,
    upstream: usize,
    /// Its connection, if it runs.
    connection: Option<u32>,
    /// The head, and a small body.
    message: Vec<u8>,
    sending: Sending,
    expected: Expected,
    idempotent: bool,
    /// It is a call of gRPC: both sides speak when they have something to say.
    is_call: bool,
    /// Attempts on new connections.
    tries: u32,
    /// How long it waits for an address that is closed.
    patient_until: Instant,
    /// Only a new connection will do: a kept one has ended under it.
    fresh: bool,
    /// Bytes of the response that wait for the client.
    waiting: usize,
    recording: Option<Box<Recording>>,
    /// The folders of which the response may name files.
    folders: Option<Arc<Folders>>,
    /// It is only asked whether a request may pass.
    judge: Option<Box<Judge>>,
}

/// What follows the message.
#[derive(Debug)]
enum Sending {
    Nothing,
    /// A larger body, with its length.
    Held(Upload, u64),
    Stream(Stream),
}

impl Exchange {
    /// Whether all that the client sends has come.
    fn is_whole(&self) -> bool {
        match &self.sending {
            Sending::Stream(stream) => stream.complete,
            Sending::Nothing | Sending::Held(..) => true,
        }
    }

    /// Whether a part of the body was sent that is not held any more.
    fn has_passed_on(&self) -> bool {
        matches!(&self.sending, Sending::Stream(stream) if stream.begun)
    }
}

/// One upstream.
#[derive(Debug)]
struct Upstream {
    settings: Settings,
    dispatch: Dispatch,
    spots: Vec<Spot>,
    complaints: Rate,
}

/// An address, and the requests that it gets at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The address.
    pub address: Address,
    /// At most so many, and no more than the settings of the upstream allow.
    pub at_a_time: usize,
}

impl From<Address> for At {
    fn from(address: Address) -> Self {
        Self {
            address,
            at_a_time: usize::MAX,
        }
    }
}

/// One of its addresses.
#[derive(Debug)]
struct Spot {
    place: Place,
    address: Address,
    /// Kept connections; the last one was used last.
    kept: Vec<u32>,
    /// The connection that was offered as a lane last. It may have ended.
    lane: Option<u32>,
    /// One was not taken as such.
    takes_no_lanes: bool,
}

impl Upstream {
    fn spot(&mut self, place: Place) -> Option<&mut Spot> {
        self.spots.iter_mut().find(|spot| spot.place == place)
    }
}

/// A request that has been given an address.
#[derive(Debug, Clone, Copy)]
struct Start {
    upstream: usize,
    ticket: Ticket,
    place: Place,
}

/// Passes requests on to upstreams. It is the larger part of a [`preforkd_http::Service`]: the rest decides which upstream gets a request.
#[derive(Debug)]
pub struct Proxy {
    watch: Option<Watch>,
    upstreams: Vec<Upstream>,
    places: Place,
    connections: Connections,
    exchanges: Places<Exchange>,
    outputs: VecDeque<(Ticket, Output)>,
    /// Responses that were recorded whole.
    recorded: Vec<Recording>,
    /// Connections that go on in the next turn.
    ready: VecDeque<u32>,
    /// Lanes on which requests were put in this turn.
    lanes_to_write: Vec<u32>,
    /// Those that may have something to read though they have not rung, and when to look.
    lanes_to_look_at: Vec<u32>,
    look_at_lanes: Instant,
    /// Empty when a call is over, as is `dirty`.
    starts: VecDeque<Start>,
    /// Upstreams whose queue is to be looked at.
    dirty: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    buffer: Vec<u8>,
    messages: Vec<Vec<u8>>,
    /// Bytes of all responses that wait for their clients, and from where on each gets less room.
    held: usize,
    most_held: usize,
    /// Where all workers of the front count what runs.
    running: Option<Running>,
    wake: Option<OwnedFd>,
    /// Nobody tells of other workers any more.
    no_more: bool,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            watch: None,
            upstreams: Vec::new(),
            places: 0,
            connections: Connections::default(),
            exchanges: Places::default(),
            outputs: VecDeque::new(),
            recorded: Vec::new(),
            ready: VecDeque::new(),
            lanes_to_write: Vec::new(),
            lanes_to_look_at: Vec::new(),
            look_at_lanes: NEVER,
            starts: VecDeque::new(),
            dirty: Vec::new(),
            timers: BinaryHeap::new(),
            buffer: vec![0; READ_BUFFER],
            messages: Vec::new(),
            held: 0,
            most_held: MOST_HELD,
            running: None,
            wake: None,
            no_more: false,
        }
    }
}

impl Proxy {
    /// Adds an upstream without an address; its number.
    pub fn add(&mut self, settings: Settings) -> usize {
        self.upstreams.push(Upstream {
            dispatch: Dispatch::new(settings.limits),
            settings,
            spots: Vec::new(),
            complaints: Rate::new(5, 10_000_000_000),
        });
        self.upstreams.len() - 1
    }

    /// When responses hold more than this for their clients, in bytes and all together, each of them gets less room.
    pub fn hold_at_most(&mut self, bytes: usize) {
        self.most_held = bytes;
    }

    /// What runs at addresses is counted there from now on, together with other workers of the front, where the master tells the addresses.
    /// They are woken by writing to the descriptor.
    pub fn share(&mut self, running: Running, wake: Option<OwnedFd>) {
        (self.running, self.wake) = (Some(running), wake);
    }

    /// An address may have room now that another worker of the front had.
    fn woken(&mut self, now: Instant) {
        for (number, of) in self.upstreams.iter().enumerate() {
            if of.dispatch.waiting() > 0 {
                self.dirty.push(number);
            }
        }
        self.settle(now);
    }

    /// The bytes of a response that may wait.
    fn room(&self) -> usize {
        match self.held > self.most_held {
            true => MOST_WHEN_FULL,
            false => MOST_WAITING,
        }
    }

    /// These are the addresses of an upstream from now on. Requests that run elsewhere go on.
    pub fn set_addresses(&mut self, upstream: usize, addresses: &[At], now: Instant) {
        let Some(of) = self.upstreams.get_mut(upstream) else {
            return;
        };
        let (stay, go): (Vec<_>, Vec<_>) = mem::take(&mut of.spots)
            .into_iter()
            .partition(|spot| addresses.iter().any(|at| at.address == spot.address));
        of.spots = stay;
        let before = self.places;
        let mut places = Vec::new();
        for At { address, at_a_time } in addresses {
            let known = of.spots.iter().find(|spot| spot.address == *address);
            let place = known.map(|spot| spot.place).unwrap_or_else(|| {
                self.places += 1;
                of.spots.push(Spot {
                    place: self.places,
                    address: address.clone(),
                    kept: Vec::new(),
                    lane: None,
                    takes_no_lanes: false,
                });
                self.places
            });
            places.push((place, *at_a_time));
        }
        of.dispatch.set(&places);
        if let Some(running) = self.running.filter(|_| of.settings.is_told) {
            if !of.dispatch.shares_queue()
                && let Some(queue) = running.queue(&of.settings.name)
            {
                of.dispatch.share_queue(queue);
            }
            for spot in of.spots.iter().filter(|spot| spot.place > before) {
                let shared = running.place(&of.settings.name, &spot.address.to_string());
                let share = |shared| of.dispatch.share(spot.place, shared);
                shared.into_iter().for_each(share);
            }
        }
        for spot in go {
            for token in spot.kept {
                self.connections.remove(token);
            }
            if let Some(token) = spot.lane {
                self.close_lane(token, spot.place);
            }
        }
        // What has come first goes to a new address first.
        self.take_back(upstream, now);
        self.dirty.push(upstream);
        self.settle(now);
    }

    /// Whether requests are refused while an upstream has no address. Those that wait are when [`Self::set_addresses`] is called.
    pub fn refuse(&mut self, upstream: usize, refuses: bool) {
        if let Some(of) = self.upstreams.get_mut(upstream) {
            of.dispatch.refuse(refuses);
        }
    }

    /// The master is gone. An address of a worker that refuses a connection is not waited for any more, and when none is left, neither
    /// are workers.
    pub fn expect_no_more(&mut self, now: Instant) {
        if !mem::replace(&mut self.no_more, true) {
            self.dirty.extend(0..self.upstreams.len());
            self.settle(now);
        }
    }

    /// Requests that an upstream answers now, and those that wait for it.
    pub fn load(&self, upstream: usize) -> (usize, usize) {
        let of = self.upstreams.get(upstream).map(|of| &of.dispatch);
        of.map_or((0, 0), |of| (of.running(), of.waiting() + of.ahead()))
    }

    /// Requests that wait for an upstream.
    pub fn waiting_for(&self, upstream: usize) -> usize {
        let of = self.upstreams.get(upstream);
        of.map_or(0, |of| of.dispatch.waiting())
    }

    /// How many addresses an upstream has, and how many of them are not left alone.
    pub fn addresses(&self, upstream: usize) -> (usize, usize) {
        let of = self.upstreams.get(upstream);
        of.map_or((0, 0), |of| of.dispatch.addresses())
    }

    /// See [`preforkd_http::Service::begin`].
    pub fn begin(&mut self, watch: Watch) {
        if let Some(wake) = &self.wake
            && let Err(error) = watch.add(wake, WAKE, false)
        {
            log::error!(
                "could not watch the descriptor by which workers of the front wake each other: {error}; requests may wait longer"
            );
        }
        self.watch = Some(watch);
    }

    /// Passes a request on to an upstream. Gives the response back if it is answered at once.
    pub fn call<'a>(
        &mut self,
        upstream: usize,
        call: Call<'_>,
        passing: impl Into<Passing<'a>>,
        mut response: Response,
    ) -> Option<Response> {
        let Call {
            key: ticket,
            request,
            origin,
            body,
            streamed,
            now,
        } = call;
        let Some(of) = self.upstreams.get_mut(upstream) else {
            response.fail(500, "500 Internal Server Error\n");
            return Some(response);
        };
        let (speaks, keep) = (of.settings.protocol, !of.settings.keep.is_zero());
        let passing = passing.into();
        let is_question = passing.asked.is_some();
        let is_call = protocol::is_call(speaks, request) && !is_question;
        let length = match streamed || is_question {
            true => 0,
            false => request.body_length().unwrap_or(0),
        };
        let upgrade = match streamed || length > 0 || is_question || !speaks.can_switch() {
            true => None,
            false => request.upgrade().filter(|protocol| may_switch(protocol)),
        };
        let outgoing = Outgoing {
            streamed,
            upgrade,
            // Some leave out that field, and the status of a call is such a one.
            trailers: (request.takes_trailers() || is_call) && speaks.is_http() && !is_question,
            ..passing.outgoing
        };
        let passing = Passing {
            outgoing,
            ..passing
        };
        let mut message = self.messages.pop().unwrap_or_default();
        let written = protocol::write(speaks, &mut message, request, origin, passing, keep);
        if let Err(refused) = written {
            let (status, text) = refused.status();
            response.fail(status, text);
            return Some(response);
        }
        let mut body = protocol::upload(speaks, body, length);
        let length = body.length();
        let idempotent = is_question || is_idempotent(request.method());
        let facts = Facts {
            ticket,
            ahead: idempotent && !streamed && length <= SMALL_BODY && !speaks.is_framed(),
        };
        let arrival = of.dispatch.arrive(facts, now);
        let refused = match arrival {
            Arrival::Run(_) | Arrival::Wait => None,
            Arrival::Full => Some(Failure::QueueFull),
            Arrival::Refused => Some(Failure::NotRunning),
        };
        if let Some(failure) = refused {
            if streamed {
                response.close();
            }
            answers::fail(of, None, &failure, &mut response, now);
            return Some(response);
        }
        let mut sending = Sending::Nothing;
        if streamed {
            let mut stream = Stream::body(request.declared_length().is_none());
            stream.keeps = speaks.is_framed();
            stream.drops_trailers = !outgoing.changes.is_empty();
            sending = Sending::Stream(stream);
        } else if length > SMALL_BODY {
            sending = Sending::Held(body, length);
        } else if length > 0
            && let Err(error) = answers::append(&mut message, &mut body, length)
        {
            if let Arrival::Run(place) = arrival {
                of.dispatch.ended(ticket, place, Outcome::Unknown, now);
            }
            of.dispatch.left(ticket);
            answers::fail(of, None, &Failure::Body(error), &mut response, now);
            self.dirty.push(upstream);
            self.settle(now);
            return Some(response);
        }
        let patient_until = after(now, of.settings.limits.queue_timeout);
        let exchange = Exchange {
            response,
            upstream,
            connection: None,
            message,
            sending,
            expected: Expected {
                head_only: request.method() == b"HEAD" && !is_question,
                upgrade: upgrade.is_some(),
                trailers: outgoing.trailers,
                judged: is_question,
            },
            idempotent,
            is_call,
            tries: 0,
            patient_until,
            fresh: false,
            waiting: 0,
            recording: None,
            folders: passing.folders.cloned(),
            judge: passing
                .asked
                .map(|(note, asked)| Box::new(Judge::new(note, asked))),
        };
        self.exchanges.insert(ticket, exchange);
        if let Arrival::Run(place) = arrival {
            self.starts.push_back(Start {
                upstream,
                ticket,
                place,
            });
        }
        if self.no_more || self.upstreams[upstream].dispatch.is_free() {
            self.dirty.push(upstream);
        }
        self.settle(now);
        None
    }

    /// Has the response be recorded to a request that was passed on just now.
    pub fn record(&mut self, ticket: Ticket, recording: Box<Recording>) {
        if let Some(exchange) = self.exchanges.get(ticket) {
            exchange.recording = Some(recording);
        }
    }

    /// A response that was recorded.
    pub fn recorded(&mut self) -> Option<Recording> {
        self.recorded.pop()
    }

    /// See [`preforkd_http::Service::left`].
    pub fn left(&mut self, ticket: Ticket, now: Instant) -> Option<Response> {
        let mut exchange = self.exchanges.remove(ticket)?;
        if let Some(recording) = exchange.recording.take() {
            recording.left();
        }
        self.held -= exchange.waiting;
        let upstream = exchange.upstream;
        match exchange.connection {
            Some(token) => {
                if !self.leave_lane(ticket, token, now)
                    && let Some(connection) = self.connections.remove(token)
                {
                    let of = &mut self.upstreams[upstream];
                    let place = connection.place;
                    of.dispatch.ended(ticket, place, Outcome::Unknown, now);
                }
            }
            None => drop(self.upstreams[upstream].dispatch.left(ticket)),
        }
        self.dirty.push(upstream);
        self.settle(now);
        Some(exchange.response)
    }

    /// See [`preforkd_http::Service::waiting`].
    pub fn waiting(&mut self, ticket: Ticket, bytes: usize, now: Instant) {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return;
        };
        let connection = exchange.connection;
        self.held -= mem::replace(&mut exchange.waiting, bytes);
        self.held += bytes;
        let Some(token) = connection.filter(|_| bytes <= self.room() / FEW) else {
            return;
        };
        if let Some(connection) = self.connections.get(token)
            && connection.ticket() == Some(ticket)
            && mem::take(&mut connection.paused)
        {
            let readable = connection.readable;
            self.set_deadline(token, now);
            if readable {
                self.queue(token);
            }
        }
    }

    /// See [`preforkd_http::Service::event`].
    pub fn event(&mut self, token: u32, ready: Ready, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            if token == WAKE {
                self.woken(now);
            }
            return;
        };
        connection.readable |= ready.read;
        connection.hangup |= ready.hangup;
        match connection.state {
            // Whatever it says: there is nothing that it could have to say.
            State::Kept => {
                if ready.read {
                    self.look_at_kept(token);
                }
            }
            State::Connecting(_) => {
                if ready.write {
                    self.connected(token, now);
                }
            }
            State::Busy(_) => {
                let waits = |lane: &Lane| !lane.rest().is_empty();
                if ready.write && connection.lane.as_deref().is_some_and(waits) {
                    self.write_lane(token, now);
                } else if (connection.carry() || ready.write) && !connection.sent {
                    self.write(token, now);
                }
                self.read(token, now);
            }
        }
        self.settle(now);
    }

    /// See [`preforkd_http::Service::turn`].
    pub fn turn(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            if let Some(token) = self.ready.pop_front() {
                if let Some(connection) = self.connections.get(token) {
                    connection.queued = false;
                }
                self.read(token, now);
            }
        }
        while let Some(&Reverse((at, token))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            self.look_at_deadline(token, at, now);
        }
        self.look_at_lanes(now);
        for upstream in 0..self.upstreams.len() {
            while let Some(ticket) = self.upstreams[upstream].dispatch.expired(now) {
                self.answer(ticket, None, &Failure::QueueTimeout, now);
            }
            self.take_back(upstream, now);
            if self.upstreams[upstream].dispatch.opened(now) {
                self.dirty.push(upstream);
            }
        }
        self.settle(now);
        self.write_lanes(now);
        self.settle(now);
        self.connections.free();
    }

    /// See [`preforkd_http::Service::deadline`].
    pub fn deadline(&self) -> Instant {
        let is_done = self.ready.is_empty() && self.lanes_to_write.is_empty();
        if !is_done || !self.outputs.is_empty() {
            return 0;
        }
        let queues = self.upstreams.iter().map(|of| of.dispatch.deadline());
        let timer = self.timers.peek().map_or(NEVER, |Reverse((at, _))| *at);
        queues.fold(timer.min(self.look_at_lanes), Instant::min)
    }

    /// See [`preforkd_http::Service::output`].
    pub fn output(&mut self) -> Option<(Ticket, Output)> {
        self.outputs.pop_front()
    }
}
