//! Requests on lanes: sent together, answered one after the other, and taken back together.

use preforkd_http::Response;
use rustix::io::Errno;

use super::super::connection::{Connection, State};
use super::super::dispatch::{Outcome, Place, Ticket};
use super::super::failure::{Attempt, Failure};
use super::super::lane::{Lane, Sent, Stage};
use super::super::protocol::Progress;
use super::super::{Instant, NEVER, after};
use super::run::{NEW, watch_room};
use super::{Exchange, Proxy, Sending};

/// How long the front waits for the bell of a lane on which several requests were sent before it looks, in nanoseconds.
const LOOK: Instant = 2_000_000;

impl Exchange {
    /// Whether it may be sent on a lane: it is whole and small, and can be sent again.
    pub(super) fn fits_lane(&self) -> bool {
        let plain = !self.expected.upgrade && !self.expected.judged && self.judge.is_none();
        plain && self.idempotent && !self.fresh && matches!(self.sending, Sending::Nothing)
    }
}

impl Proxy {
    /// The lane to an address, if there is one. It may be offered only, or closed.
    pub(super) fn lane_to(&mut self, upstream: usize, place: Place) -> Option<(u32, Stage)> {
        let token = self.upstreams[upstream].spot(place)?.lane?;
        let connection = self.connections.get(token)?;
        let lane = connection.lane.as_ref()?;
        (connection.place == place).then_some((token, lane.stage))
    }

    /// Sends a request on an open lane, with the others of this turn.
    pub(super) fn enter_lane(&mut self, token: u32, ticket: Ticket) {
        let (Some(connection), Some(exchange)) =
            (self.connections.get(token), self.exchanges.get(ticket))
        else {
            return;
        };
        let Some(lane) = &mut connection.lane else {
            return;
        };
        exchange.connection = Some(token);
        if let Some(recording) = &mut exchange.recording {
            recording.begin();
        }
        lane.push(ticket, exchange.expected, &exchange.message);
        if !std::mem::replace(&mut lane.queued, true) {
            self.lanes_to_write.push(token);
        }
        connection.reused = true;
        if let State::Kept = connection.state {
            connection.state = State::Busy(ticket);
            connection.begin_in_lane(exchange.expected);
        }
    }

    /// Writes what was sent on lanes in this turn.
    pub(super) fn write_lanes(&mut self, now: Instant) {
        while let Some(token) = self.lanes_to_write.pop() {
            self.write_lane(token, now);
        }
    }

    /// Writes as much as the worker takes.
    pub(super) fn write_lane(&mut self, token: u32, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let mut is_blocked = false;
        while let Some(lane) = &mut connection.lane {
            lane.queued = false;
            if lane.rest().is_empty() || is_blocked || connection.refused {
                if lane.heard == NEVER {
                    lane.heard = now;
                }
                if lane.sent.len() > 1 {
                    self.look_at_lanes = self.look_at_lanes.min(now + LOOK);
                    if !std::mem::replace(&mut lane.is_looked_at, true) {
                        self.lanes_to_look_at.push(token);
                    }
                }
                break;
            }
            match connection.write_lane() {
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => is_blocked = true,
                // What it has answered before is still to be read.
                Err(_) => connection.refused = true,
            }
        }
        let failed = match is_blocked != connection.watches_room {
            true => watch_room(&self.watch, connection, token, is_blocked).err(),
            false => None,
        };
        if connection.refused {
            connection.readable = true;
            self.queue(token);
        }
        match failed {
            Some(failure) => self.failed(token, failure, now),
            None => self.set_deadline(token, now),
        }
    }

    /// Looks at lanes whose worker has not rung for a while: it may be in a long request, and have answered others before.
    pub(super) fn look_at_lanes(&mut self, now: Instant) {
        if self.look_at_lanes > now {
            return;
        }
        self.look_at_lanes = NEVER;
        for token in std::mem::take(&mut self.lanes_to_look_at) {
            let Some(connection) = self.connections.get(token) else {
                continue;
            };
            let Some(lane) = connection.lane.as_mut() else {
                continue;
            };
            if lane.heard.saturating_add(LOOK) <= now {
                lane.heard = now;
                connection.readable = true;
                self.read(token, now);
            }
            if let Some(connection) = self.connections.get(token)
                && let Some(lane) = &mut connection.lane
            {
                lane.is_looked_at = lane.sent.len() > 1;
                if lane.is_looked_at {
                    self.lanes_to_look_at.push(token);
                    let look = lane.heard.saturating_add(LOOK);
                    self.look_at_lanes = self.look_at_lanes.min(look);
                }
            }
        }
    }

    /// Takes in bytes of responses, one after the other.
    pub(super) fn take_in_all(&mut self, token: u32, mut bytes: &[u8], now: Instant) {
        loop {
            let Some(connection) = self.connections.get(token) else {
                return;
            };
            let State::Busy(ticket) = connection.state else {
                return;
            };
            connection.left_over = 0;
            match connection.is_left() {
                true => self.drop_answer(token, bytes, now),
                false => self.take_in(token, ticket, bytes, now),
            }
            let connection = self.connections.get(token);
            let left_over = connection.map_or(0, |connection| connection.left_over);
            if left_over == 0 {
                return;
            }
            bytes = &bytes[bytes.len() - left_over..];
        }
    }

    /// Bytes have come of a response that nobody wants any more.
    fn drop_answer(&mut self, token: u32, bytes: &[u8], now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let Some(lane) = &mut connection.lane else {
            return;
        };
        let read = connection.reader.read(bytes, &mut lane.dropped, true);
        lane.dropped.discard();
        match read {
            Ok(Progress::More) => {}
            Ok(Progress::Done(taken)) => {
                lane.dropped = Response::new(true, false, true);
                self.next_in_lane(token, Some(bytes.len() - taken), now);
            }
            Ok(Progress::Judged(_) | Progress::Switched) | Err(_) => {
                self.next_in_lane(token, None, now);
            }
        }
    }

    /// The first request has its answer, after which so many bytes were left over. The next one is answered on the same connection, unless it ends.
    pub(super) fn next_in_lane(&mut self, token: u32, left_over: Option<usize>, now: Instant) {
        let Some(connection) = self.connections.get(token) else {
            return;
        };
        let Some(lane) = &mut connection.lane else {
            return;
        };
        let can_wait = !connection.hangup && !connection.refused;
        lane.heard = now;
        lane.pop();
        let is_whole = left_over.is_some() && connection.reader.keeps_connection();
        let left_over = left_over.unwrap_or_default();
        match lane.sent.front() {
            _ if !is_whole => self.end_lane(token, now),
            // Nothing else is there to come before its end.
            Some(next) if next.left && lane.sent.len() == 1 => {
                self.connections.remove(token);
            }
            Some(next) => {
                let (ticket, expected) = (next.ticket, next.expected);
                connection.left_over = left_over;
                connection.state = State::Busy(ticket);
                connection.begin_in_lane(expected);
                self.set_deadline(token, now);
            }
            None if lane.is_open() && left_over == 0 && can_wait => {
                connection.state = State::Kept;
                let keep = self.upstreams[connection.upstream].settings.keep;
                connection.deadline = after(now, keep);
                self.arm(token);
            }
            None => {
                self.connections.remove(token);
            }
        }
    }

    /// The response to the first request of a connection that was offered as a lane is complete; whether it is one from now on. If not, it is as any other
    /// connection.
    pub(super) fn opens_lane(&mut self, token: u32) -> bool {
        let Some(connection) = self.connections.get(token) else {
            return false;
        };
        if connection.lane.as_ref().is_some_and(|lane| lane.is_taken()) {
            connection.open_lane(self.watch.as_ref(), token);
            return true;
        }
        connection.lane = None;
        let (upstream, place) = (connection.upstream, connection.place);
        if let Some(spot) = self.upstreams[upstream].spot(place) {
            (spot.lane, spot.takes_no_lanes) = (None, true);
        }
        false
    }

    /// The lane ends before all that was sent on it is answered.
    fn end_lane(&mut self, token: u32, now: Instant) {
        if let Some(mut connection) = self.connections.remove(token)
            && let Some(mut lane) = connection.lane.take()
        {
            let waiting = lane.take_back(0);
            self.give_back(connection.upstream, connection.place, waiting);
            self.fail_begun(connection.place, &mut lane, now);
        }
    }

    /// A lane has failed, and with it the request that was to be answered next.
    pub(super) fn fail_lane(
        &mut self,
        connection: &Connection,
        mut lane: Box<Lane>,
        failure: Failure,
        now: Instant,
    ) {
        let mut waiting = lane.take_back(0);
        let mut first = lane.sent.pop_front();
        if first.is_none() && !matches!(failure, Failure::NoAnswer) && !waiting.is_empty() {
            // It was not begun, and has waited long enough all the same.
            first = Some(waiting.remove(0));
        }
        self.give_back(connection.upstream, connection.place, waiting);
        if let Some(first) = first.filter(|first| !first.left) {
            let facts = Attempt {
                begun: connection.begun,
                answered: connection.reader.has_begun(),
                reused: connection.reused,
                ..NEW
            };
            self.retry_or_answer(first.ticket, connection.place, failure, facts, now);
        }
        self.fail_begun(connection.place, &mut lane, now);
    }

    /// The worker may have begun these requests, and they have no answer.
    fn fail_begun(&mut self, place: Place, lane: &mut Lane, now: Instant) {
        let facts = Attempt {
            begun: true,
            reused: true,
            ..NEW
        };
        for sent in lane.sent.drain(..).filter(|sent| !sent.left) {
            self.retry_or_answer(sent.ticket, place, Failure::NoAnswer, facts, now);
        }
    }

    /// Requests that a worker never begins wait again, before all that have come later.
    fn give_back(&mut self, upstream: usize, place: Place, waiting: Vec<Sent>) {
        for sent in waiting.into_iter().rev().filter(|sent| !sent.left) {
            if let Some(exchange) = self.exchanges.get(sent.ticket) {
                exchange.connection = None;
                exchange.tries = 0;
            }
            self.upstreams[upstream]
                .dispatch
                .taken_back(sent.ticket, place);
        }
        self.dirty.push(upstream);
    }

    /// Takes a request back if the worker has not begun it; whether it was. None if the connection is no lane, or was not taken as one.
    pub(super) fn withdraw_from_lane(&mut self, ticket: Ticket, token: u32) -> Option<bool> {
        let connection = self.connections.get(token)?;
        let lane = connection.lane.as_mut()?;
        let at = lane.position(ticket)?;
        let mut taken_back = lane.take_back(at);
        if !lane.is_taken() {
            return None;
        }
        let is_empty = lane.sent.is_empty();
        let (upstream, place) = (connection.upstream, connection.place);
        let own = taken_back.iter().position(|sent| sent.ticket == ticket);
        own.map(|own| taken_back.remove(own));
        if own.is_some()
            && let Some(exchange) = self.exchanges.get(ticket)
        {
            exchange.connection = None;
            exchange.tries = 0;
        }
        // There are none, if those behind it were taken back before.
        self.give_back(upstream, place, taken_back);
        if is_empty {
            self.connections.remove(token);
        }
        Some(own.is_some())
    }

    /// The client of a request has left that was sent on a lane; whether it was.
    pub(super) fn leave_lane(&mut self, ticket: Ticket, token: u32, now: Instant) -> bool {
        let Some(connection) = self.connections.get(token) else {
            return false;
        };
        let Some(lane) = &mut connection.lane else {
            return false;
        };
        let Some(at) = lane.position(ticket).filter(|_| lane.is_taken()) else {
            return false;
        };
        lane.sent[at].left = true;
        let waiting = lane.take_back(at);
        let is_over = match lane.sent.front() {
            None => true,
            Some(first) => first.left && lane.sent.len() == 1,
        };
        let (upstream, place) = (connection.upstream, connection.place);
        if is_over {
            self.connections.remove(token);
        }
        self.give_back(upstream, place, waiting);
        let dispatch = &mut self.upstreams[upstream].dispatch;
        dispatch.ended(ticket, place, Outcome::Unknown, now);
        true
    }

    /// The address gets no requests any more. What was sent on its lane is answered.
    pub(super) fn close_lane(&mut self, token: u32, place: Place) {
        let connection = self.connections.get(token);
        let Some(connection) = connection.filter(|connection| connection.place == place) else {
            return;
        };
        let Some(lane) = &mut connection.lane else {
            return;
        };
        lane.stage = Stage::Closed;
        if let State::Kept = connection.state {
            self.connections.remove(token);
        }
    }
}
