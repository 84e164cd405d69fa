//! One request on its connection: from the connection's beginning to the end of the response.

use std::cmp::Reverse;
use std::io::{self, BufRead};
use std::mem;

use preforkd_http::{Output, Watch};
use rustix::io::Errno;

use super::super::address::connected;
use super::super::connection::{Connection, Read, State};
use super::super::dispatch::{Arrival, Outcome, Place, Ticket};
use super::super::failure::{Attempt, Failure};
use super::super::lane::{Lane, Stage};
use super::super::protocol::Progress;
use super::super::{Instant, NEVER, after};
use super::{Exchange, Proxy, Sending, Start, Stream, TICK, answers};

/// How long an address of a worker that does not listen is not tried again, in nanoseconds.
const CLOSED: Instant = 100_000_000;

impl Proxy {
    /// Starts what can start, until nothing can.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            if let Some(start) = self.starts.pop_front() {
                self.start(start, now);
            } else if let Some(upstream) = self.dirty.pop() {
                let of = &mut self.upstreams[upstream];
                let nobody_left = self.no_more && of.settings.is_ours && of.spots.is_empty();
                while let Some((ticket, place)) = of.dispatch.next(now) {
                    self.outputs.push_back((ticket, Output::Begins));
                    self.starts.push_back(Start {
                        upstream,
                        ticket,
                        place,
                    });
                }
                if of.dispatch.wakes_others()
                    && let Some(wake) = &self.wake
                {
                    // It cannot be full: it counts to 2^64.
                    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
                }
                let refuses = of.dispatch.is_refusing();
                if nobody_left {
                    self.give_up(upstream, &Failure::NobodyLeft, now);
                } else if refuses {
                    self.give_up(upstream, &Failure::NotRunning, now);
                }
            } else {
                return;
            }
        }
    }

    /// Nobody is there who could answer what waits, or will be there soon.
    fn give_up(&mut self, upstream: usize, failure: &Failure, now: Instant) {
        while let Some(ticket) = self.upstreams[upstream].dispatch.expired(NEVER) {
            self.answer(ticket, None, failure, now);
        }
    }

    /// Nobody will listen there again.
    fn remove(&mut self, upstream: usize, place: Place) {
        let of = &mut self.upstreams[upstream];
        of.dispatch.remove(place);
        let gone: Vec<_> = of
            .spots
            .extract_if(.., |spot| spot.place == place)
            .collect();
        for spot in gone {
            for token in spot.kept {
                self.connections.remove(token);
            }
            if let Some(token) = spot.lane {
                self.close_lane(token, place);
            }
        }
        self.dirty.push(upstream);
    }

    /// A request has been given an address.
    fn start(&mut self, start: Start, now: Instant) {
        let Start {
            upstream,
            ticket,
            place,
        } = start;
        let Some(exchange) = self.exchanges.get(ticket) else {
            return self.release(upstream, ticket, place, Outcome::Unknown, now);
        };
        let (fresh, idempotent) = (exchange.fresh, exchange.idempotent);
        let expected = exchange.expected;
        let fits_lane = exchange.fits_lane();
        let mut offers = false;
        if fits_lane && self.upstreams[upstream].dispatch.has_line(place) {
            match self.lane_to(upstream, place) {
                Some((token, Stage::Open)) => return self.enter_lane(token, ticket),
                Some((_, Stage::Offered)) => {}
                Some((_, Stage::Closed)) | None => {
                    let spot = self.upstreams[upstream].spot(place);
                    offers = spot.is_some_and(|spot| !spot.takes_no_lanes);
                }
            }
        }
        let is_framed = self.upstreams[upstream].settings.protocol.is_framed();
        let sure = !idempotent || is_framed;
        if !fresh
            && !offers
            && let Some(token) = self.take_kept(upstream, place, sure)
        {
            if let Some(connection) = self.connections.get(token) {
                connection.state = State::Busy(ticket);
                connection.reused = true;
            }
            return self.send(token, ticket, now);
        }
        if let Some(exchange) = self.exchanges.get(ticket) {
            exchange.tries += 1;
        }
        let of = &mut self.upstreams[upstream];
        let (timeout, protocol) = (of.settings.connect_timeout, of.settings.protocol);
        let begun = match of.spot(place) {
            Some(spot) => spot.address.connect(),
            // It was removed since.
            None => Err(Failure::Connect(io::ErrorKind::AddrNotAvailable.into())),
        };
        let (socket, is_there) = match begun {
            Ok(begun) => begun,
            Err(failure) => return self.retry_or_answer(ticket, place, failure, NEW, now),
        };
        let state = State::Connecting(ticket);
        let mut connection = Connection::new(socket, upstream, place, state, protocol);
        connection.deadline = after(now, timeout);
        connection.watches_room = !is_there || connection.is_framed();
        if offers {
            // Without one it is as any other connection.
            connection.lane = Lane::offer(ticket, expected).ok().map(Box::new);
        }
        let token = self.connections.insert(connection);
        if offers && let Some(spot) = self.upstreams[upstream].spot(place) {
            spot.lane = Some(token);
        }
        let watched = match (&self.watch, self.connections.get(token)) {
            (Some(watch), Some(connection)) => {
                watch.add(connection.socket(), token, connection.watches_room)
            }
            _ => Err(io::ErrorKind::NotConnected.into()),
        };
        if let Err(error) = watched {
            self.connections.remove(token);
            return self.retry_or_answer(ticket, place, Failure::Connect(error), NEW, now);
        }
        if let Some(exchange) = self.exchanges.get(ticket) {
            exchange.connection = Some(token);
        }
        if is_there {
            if let Some(connection) = self.connections.get(token) {
                connection.state = State::Busy(ticket);
            }
            return self.send(token, ticket, now);
        }
        self.arm(token);
    }

    /// A kept connection to the address. With `sure` it was looked at whether it is still there, for a request that can only be sent
    /// once.
    fn take_kept(&mut self, upstream: usize, place: Place, sure: bool) -> Option<u32> {
        loop {
            let token = self.upstreams[upstream].spot(place)?.kept.pop()?;
            let connection = self.connections.get(token)?;
            if !sure || connection.is_quiet() {
                return Some(token);
            }
            self.connections.remove(token);
        }
    }

    /// Something was said about a kept connection. It can only have ended, or sent what nobody asked for.
    pub(super) fn look_at_kept(&mut self, token: u32) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        if !connection.hangup && connection.is_quiet() {
            connection.readable = false;
            return;
        }
        let (upstream, place) = (connection.upstream, connection.place);
        if let Some(spot) = self.upstreams[upstream].spot(place) {
            spot.kept.retain(|&other| other != token);
        }
        self.connections.remove(token);
    }

    /// The connection has come about, or has failed.
    pub(super) fn connected(&mut self, token: u32, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let Some(ticket) = connection.ticket() else {
            return;
        };
        match connected(connection.socket()) {
            Ok(()) => {
                connection.state = State::Busy(ticket);
                self.send(token, ticket, now);
            }
            Err(error) => self.failed(token, Failure::Connect(error), now),
        }
    }

    /// Begins to send the request on a connection.
    fn send(&mut self, token: u32, ticket: Ticket, now: Instant) {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return;
        };
        exchange.connection = Some(token);
        if let Some(recording) = &mut exchange.recording {
            recording.begin();
        }
        if let Sending::Stream(stream) = &mut exchange.sending {
            stream.rewind();
        }
        let body_left = match &exchange.sending {
            Sending::Held(_, length) => *length,
            Sending::Nothing | Sending::Stream(_) => 0,
        };
        if let Some(connection) = self.connections.get(token) {
            connection.begin(exchange.expected, body_left);
            self.write(token, now);
        }
    }

    /// Writes as much of the request as the upstream takes.
    pub(super) fn write(&mut self, token: u32, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let State::Busy(ticket) = connection.state else {
            return;
        };
        let Some(exchange) = self.exchanges.get(ticket) else {
            return;
        };
        let mut failure = None;
        while !connection.sent && !connection.refused {
            let in_message = connection.written < exchange.message.len();
            let data = match (&mut exchange.sending, in_message) {
                (_, true) => &exchange.message[connection.written..],
                (Sending::Held(body, _), false) if connection.body_left > 0 => {
                    match body.fill_buf() {
                        Ok([]) => {
                            let error = io::ErrorKind::UnexpectedEof.into();
                            failure = Some(Failure::Body(error));
                            break;
                        }
                        Ok(data) => data,
                        Err(error) => {
                            failure = Some(Failure::Body(error));
                            break;
                        }
                    }
                }
                (Sending::Stream(stream), false) if !stream.rest().is_empty() => stream.rest(),
                (Sending::Stream(stream), false) if !stream.complete => break,
                _ => {
                    connection.sent = true;
                    if connection.switched {
                        connection.end_writing();
                    }
                    break;
                }
            };
            match connection.write(data) {
                Ok(n) if in_message => connection.written += n,
                Ok(n) => match &mut exchange.sending {
                    Sending::Held(body, _) => {
                        body.consume(n);
                        connection.body_left = connection.body_left.saturating_sub(n as u64);
                    }
                    Sending::Stream(stream) => stream.consume(n),
                    Sending::Nothing => {}
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    failure = watch_room(&self.watch, connection, token, true).err();
                    break;
                }
                // It may have answered before, and closed; so the response, if there is one, is still to be read.
                Err(_) => {
                    connection.refused = true;
                    connection.readable = true;
                }
            }
        }
        // What came with the connection, or was taken in by sending, makes no event.
        let may_read = connection.refused || connection.is_framed();
        let refused = connection.refused;
        let is_over = connection.ended && (connection.sent || refused);
        match failure {
            Some(failure) => self.failed(token, failure, now),
            None if is_over => self.done(token, ticket, 0, now),
            None => {
                self.tell_wants(ticket);
                self.set_deadline(token, now);
                if may_read {
                    self.queue(token);
                }
            }
        }
    }

    /// How long the upstream has from now on. Nothing while it waits for the client: that has limits of its own.
    pub(super) fn set_deadline(&mut self, token: u32, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let State::Busy(ticket) = connection.state else {
            return;
        };
        let Some(exchange) = self.exchanges.get(ticket) else {
            return;
        };
        let settings = &self.upstreams[exchange.upstream].settings;
        let has_begun = connection.reader.has_begun();
        let waits_for_client = match &exchange.sending {
            Sending::Stream(stream) => !stream.complete && stream.rest().is_empty(),
            Sending::Nothing | Sending::Held(..) => false,
        };
        let timeout = match connection.switched {
            _ if connection.paused => None,
            // Half of it is over already.
            true if connection.ended || connection.sent => {
                Some(settings.silence_timeout.min(settings.upgraded_timeout))
            }
            true => Some(settings.upgraded_timeout),
            // As after an upgrade: nobody knows whose turn it is. The client has a deadline of its own.
            false if exchange.is_call => Some(settings.upgraded_timeout),
            false if waits_for_client => None,
            false if connection.sent && !has_begun => Some(settings.head_timeout),
            false => Some(settings.silence_timeout),
        };
        connection.deadline = timeout.map_or(NEVER, |timeout| after(now, timeout));
        self.arm(token);
    }

    /// Reads once, if there is something to read and room for it.
    pub(super) fn read(&mut self, token: u32, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let State::Busy(ticket) = connection.state else {
            return;
        };
        if !connection.readable || connection.paused || connection.ended {
            return;
        }
        match connection.read(&mut self.buffer) {
            Read::Bytes(n) => {
                let buffer = mem::take(&mut self.buffer);
                self.take_in_all(token, &buffer[..n], now);
                self.buffer = buffer;
            }
            Read::Nothing => {}
            Read::End | Read::Lost(_) if connection.is_left() => {
                self.failed(token, Failure::NoAnswer, now);
            }
            Read::End => {
                let ended = connection.reader.end();
                let of = &self.upstreams[connection.upstream];
                answers::log_said(of, &connection.reader.said());
                match ended {
                    Ok(()) if connection.switched && !connection.sent && !connection.refused => {
                        connection.ended = true;
                        self.outputs.push_back((ticket, Output::Ends));
                        self.set_deadline(token, now);
                    }
                    Ok(()) => self.done(token, ticket, 0, now),
                    Err(_) if !connection.reader.has_begun() => {
                        self.failed(token, Failure::NoAnswer, now);
                    }
                    Err(fault) => self.failed(token, Failure::Broken(fault), now),
                }
            }
            Read::NotBegun => self.failed(token, Failure::NotBegun, now),
            Read::Broken(why) => self.failed(token, Failure::Reset(why), now),
            Read::Lost(_) if !connection.reader.has_begun() => {
                self.failed(token, Failure::NoAnswer, now);
            }
            Read::Lost(error) => self.failed(token, Failure::Lost(error.into()), now),
        }
        self.queue(token);
    }

    /// Bytes of the response have come.
    pub(super) fn take_in(&mut self, token: u32, ticket: Ticket, bytes: &[u8], now: Instant) {
        let room = self.room();
        let (Some(connection), Some(exchange)) =
            (self.connections.get(token), self.exchanges.get(ticket))
        else {
            return;
        };
        let of = &self.upstreams[connection.upstream];
        let is_lane = connection.lane.as_ref().is_some_and(|lane| lane.is_taken());
        if !is_lane && connection.is_given_back(bytes) && of.dispatch.has_line(connection.place) {
            return self.given_back(token, ticket, now);
        }
        let is_whole = exchange.is_whole();
        let read = connection
            .reader
            .read(bytes, &mut exchange.response, is_whole);
        if let (Some(recording), Ok(progress)) = (&mut exchange.recording, &read) {
            let taken = match progress {
                Progress::Done(taken) => *taken,
                // The last is not recorded.
                Progress::More | Progress::Switched | Progress::Judged(_) => bytes.len(),
            };
            let has_head = exchange.response.started();
            if !recording.take(&bytes[..taken], has_head, now) {
                exchange.recording = None;
            }
        }
        let of = &self.upstreams[connection.upstream];
        answers::log_said(of, &connection.reader.said());
        if let Ok(Progress::Judged(taken)) = read {
            return self.judge(token, ticket, &bytes[taken..], now);
        }
        if read.is_ok() && exchange.response.has_head() && !exchange.response.started() {
            let done = match read {
                Ok(Progress::Done(taken)) => Some(bytes.len() - taken),
                _ => None,
            };
            return self.send_file(token, ticket, done, now);
        }
        let switched = match read {
            Ok(Progress::Done(taken)) => {
                return self.done(token, ticket, bytes.len() - taken, now);
            }
            Ok(progress) => progress == Progress::Switched,
            Err(fault) => return self.failed(token, Failure::Broken(fault), now),
        };
        if switched {
            connection.switch();
            connection.noted = of.dispatch.switches(connection.place);
            exchange.sending = Sending::Stream(Stream::switched());
        }
        exchange.response.flush();
        let made = exchange.response.buffered();
        if made > 0 {
            let piece = exchange.response.piece();
            exchange.waiting += made;
            self.held += made;
            connection.paused = exchange.waiting >= room;
            let output = match switched {
                true => Output::Switched(piece),
                false => Output::Piece(piece),
            };
            self.outputs.push_back((ticket, output));
        }
        // A head that comes byte by byte gets no more time than one that comes at once.
        if exchange.response.started() || connection.paused {
            self.set_deadline(token, now);
        }
    }

    /// The response is complete.
    fn done(&mut self, token: u32, ticket: Ticket, left_over: usize, now: Instant) {
        if let Some(mut exchange) = self.put_away(token, ticket, Some(left_over), now) {
            let recording = exchange.recording.take();
            self.recorded.extend(recording.map(|recording| *recording));
            exchange.response.end();
            self.finish(ticket, exchange.response, exchange.message);
        }
    }

    /// The request has its answer. Its connection is kept, if the upstream has sent so many bytes more than the response; it is closed if
    /// more of that is to come.
    pub(super) fn put_away(
        &mut self,
        token: u32,
        ticket: Ticket,
        left_over: Option<usize>,
        now: Instant,
    ) -> Option<Exchange> {
        let (Some(connection), Some(exchange)) =
            (self.connections.get(token), self.exchanges.remove(ticket))
        else {
            return None;
        };
        let (place, upstream) = (connection.place, connection.upstream);
        if connection.lane.is_some() && self.opens_lane(token) {
            self.held -= exchange.waiting;
            self.release(upstream, ticket, place, Outcome::Good, now);
            self.next_in_lane(token, left_over, now);
            return Some(exchange);
        }
        let Some(connection) = self.connections.get(token) else {
            return Some(exchange);
        };
        let of = &mut self.upstreams[upstream];
        let (keep, most_kept) = (of.settings.keep, of.settings.most_kept);
        let spot = of.spots.iter_mut().find(|spot| spot.place == place);
        match spot.filter(|spot| spot.kept.len() < most_kept && !keep.is_zero()) {
            Some(spot) if left_over.is_some_and(|left| connection.can_be_kept(left)) => {
                connection.state = State::Kept;
                connection.deadline = after(now, keep);
                // If it is still told of room, that costs time and no more.
                let _ = watch_room(&self.watch, connection, token, false);
                spot.kept.push(token);
                self.arm(token);
            }
            _ => drop(self.connections.remove(token)),
        }
        self.held -= exchange.waiting;
        self.release(upstream, ticket, place, Outcome::Good, now);
        Some(exchange)
    }

    /// An attempt is over, and an address has room.
    fn release(
        &mut self,
        upstream: usize,
        ticket: Ticket,
        place: Place,
        outcome: Outcome,
        now: Instant,
    ) {
        let of = &mut self.upstreams[upstream];
        let change = of.dispatch.ended(ticket, place, outcome, now);
        if of.dispatch.waiting() > 0 || of.dispatch.is_free() {
            self.dirty.push(upstream);
        }
        answers::note(of, place, change);
    }

    /// The connection has failed.
    pub(super) fn failed(&mut self, token: u32, failure: Failure, now: Instant) {
        let Some(mut connection) = self.connections.remove(token) else {
            return;
        };
        if let Some(lane) = connection.lane.take()
            && lane.is_taken()
        {
            return self.fail_lane(&connection, lane, failure, now);
        }
        let Some(ticket) = connection.ticket() else {
            return;
        };
        let facts = Attempt {
            begun: connection.begun,
            answered: connection.reader.has_begun(),
            reused: connection.reused,
            ..NEW
        };
        self.retry_or_answer(ticket, connection.place, failure, facts, now);
    }

    /// An attempt has failed there: another one, or the end.
    pub(super) fn retry_or_answer(
        &mut self,
        ticket: Ticket,
        place: Place,
        mut failure: Failure,
        facts: Attempt,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return;
        };
        exchange.connection = None;
        let upstream = exchange.upstream;
        // The worker has ended, which the master is about to tell, or does not listen yet.
        let is_ours = self.upstreams[upstream].settings.is_ours;
        let is_closed = is_ours && matches!(failure, Failure::Connect(_));
        if is_closed && self.no_more {
            // Each refusal is the last one of its address.
            exchange.tries = 0;
        } else if is_closed {
            let dispatch = &mut self.upstreams[upstream].dispatch;
            dispatch.closed(place, now.saturating_add(CLOSED));
            if now < exchange.patient_until {
                exchange.tries = 0;
            }
        }
        let (tries, patient_until) = (exchange.tries, exchange.patient_until);
        let attempt = Attempt {
            idempotent: exchange.idempotent,
            whole: !exchange.has_passed_on(),
            tries,
            ..facts
        };
        let mut repeat = failure.may_repeat(attempt);
        if repeat
            && attempt.begun
            && let Sending::Held(body, _) = &mut exchange.sending
            && let Err(error) = body.rewind()
        {
            repeat = false;
            failure = Failure::Body(error);
        }
        exchange.fresh |= attempt.reused;
        let outcome = match failure.counts(attempt.reused) && !is_closed {
            true => Outcome::Bad,
            false => Outcome::Unknown,
        };
        self.release(upstream, ticket, place, outcome, now);
        if is_closed && self.no_more {
            self.remove(upstream, place);
        }
        if !repeat {
            if is_closed && now >= patient_until {
                failure = Failure::QueueTimeout;
            }
            return self.answer(ticket, Some(place), &failure, now);
        }
        let dispatch = &mut self.upstreams[upstream].dispatch;
        match dispatch.again(ticket, place, now) {
            Arrival::Run(place) => self.starts.push_back(Start {
                upstream,
                ticket,
                place,
            }),
            Arrival::Refused => self.answer(ticket, None, &Failure::NotRunning, now),
            Arrival::Wait | Arrival::Full => {}
        }
    }

    /// Has the connection go on in the next turn, if it can.
    pub(super) fn queue(&mut self, token: u32) {
        if let Some(connection) = self.connections.get(token)
            && matches!(connection.state, State::Busy(_))
            && connection.readable
            && !connection.paused
            && !mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(token);
        }
    }

    /// Puts the connection's deadline into the timers unless an earlier entry is there.
    pub(super) fn arm(&mut self, token: u32) {
        if let Some(connection) = self.connections.get(token)
            && connection.deadline < connection.armed
        {
            connection.armed = connection.deadline.saturating_add(TICK - 1) / TICK * TICK;
            self.timers.push(Reverse((connection.armed, token)));
        }
    }

    /// An entry of the timers has come up.
    pub(super) fn look_at_deadline(&mut self, token: u32, at: Instant, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        if connection.armed != at {
            return;
        }
        connection.armed = NEVER;
        if connection.deadline > now {
            return self.arm(token);
        }
        let has_begun = connection.reader.has_begun();
        match connection.state {
            State::Kept => {
                connection.hangup = true;
                self.look_at_kept(token);
            }
            State::Connecting(_) => self.failed(token, Failure::ConnectTimeout, now),
            // Nothing is wrong with it.
            State::Busy(ticket) if connection.switched => self.done(token, ticket, 0, now),
            State::Busy(_) if has_begun => self.failed(token, Failure::Silent, now),
            State::Busy(_) => self.failed(token, Failure::HeadTimeout, now),
        }
    }
}

/// Has an event tell of room to write, or not.
pub(super) fn watch_room(
    watch: &Option<Watch>,
    connection: &mut Connection,
    token: u32,
    wanted: bool,
) -> Result<(), Failure> {
    // What comes may have to be answered, so frames are watched for room all the time.
    let wanted = wanted || connection.is_framed();
    if mem::replace(&mut connection.watches_room, wanted) == wanted {
        return Ok(());
    }
    match watch {
        Some(watch) if connection.rings => watch
            .change_to_end(connection.socket(), token, wanted)
            .map_err(Failure::Lost),
        Some(watch) => watch
            .change(connection.socket(), token, wanted)
            .map_err(Failure::Lost),
        None => Ok(()),
    }
}

/// An attempt of which nothing is known yet.
pub(super) const NEW: Attempt = Attempt {
    begun: false,
    answered: false,
    idempotent: false,
    whole: true,
    reused: false,
    tries: 0,
};
