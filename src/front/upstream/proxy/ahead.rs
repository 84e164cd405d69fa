//! Taking back what was sent ahead to a worker that is busy for longer than expected.

use super::super::Instant;
use super::super::connection::Connection;
use super::super::dispatch::Ticket;
use super::super::failure::Failure;
use super::{Proxy, Sending};

impl Proxy {
    /// Takes back what is stuck behind long requests of an upstream, to go elsewhere.
    pub(super) fn take_back(&mut self, upstream: usize, now: Instant) {
        while let Some((place, mut tickets)) = self.upstreams[upstream].dispatch.stuck(now) {
            tickets.retain(|&ticket| self.is_unread(ticket));
            let dispatch = &mut self.upstreams[upstream].dispatch;
            let wanted = dispatch.unread(place, &tickets, now);
            for &ticket in wanted.iter().rev() {
                if self.withdraw(ticket) {
                    self.upstreams[upstream].dispatch.taken_back(ticket, place);
                }
            }
            if !wanted.is_empty() {
                self.dirty.push(upstream);
            }
        }
    }

    /// Whether the worker has read nothing of a request that was sent to it, and that can be sent again.
    fn is_unread(&mut self, ticket: Ticket) -> bool {
        let exchange = self.exchanges.get(ticket);
        let exchange = exchange.filter(|exchange| !exchange.has_passed_on());
        let token = exchange.and_then(|exchange| exchange.connection);
        let connection = token.and_then(|token| self.connections.get(token));
        connection.is_some_and(|connection| {
            let lane = connection.lane.as_ref().filter(|lane| lane.is_taken());
            match lane.and_then(|lane| Some((lane, lane.position(ticket)?))) {
                Some((lane, at)) => lane.is_waiting(at),
                None => connection.is_unread(),
            }
        })
    }

    /// Takes a request back, if the worker has not begun to read it. It does not begin a request whose connection has ended by then.
    /// One that it reads in between it gives back ([`Proxy::given_back`]), or it has just begun, and answers.
    fn withdraw(&mut self, ticket: Ticket) -> bool {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return false;
        };
        let Some(token) = exchange.connection else {
            return false;
        };
        if let Some(was_taken_back) = self.withdraw_from_lane(ticket, token) {
            return was_taken_back;
        }
        let (Some(connection), Some(exchange)) =
            (self.connections.get(token), self.exchanges.get(ticket))
        else {
            return false;
        };
        if let Sending::Held(body, _) = &mut exchange.sending
            && body.rewind().is_err()
        {
            return false;
        }
        connection.end_writing();
        if !connection.is_unread() {
            // Another request cannot follow.
            connection.hangup = true;
            return false;
        }
        self.part(ticket, token);
        true
    }

    /// The worker has read a request when it was to be taken back, and has not begun it.
    pub(super) fn given_back(&mut self, token: u32, ticket: Ticket, now: Instant) {
        let exchange = self.exchanges.get(ticket);
        let can_be_sent_again = exchange.is_some_and(|exchange| match &mut exchange.sending {
            Sending::Held(body, _) => body.rewind().is_ok(),
            _ => !exchange.has_passed_on(),
        });
        if !can_be_sent_again {
            return self.failed(token, Failure::NoAnswer, now);
        }
        if let Some(connection) = self.part(ticket, token) {
            let of = &mut self.upstreams[connection.upstream];
            of.dispatch.taken_back(ticket, connection.place);
            self.dirty.push(connection.upstream);
        }
    }

    /// Parts a request from its connection, which ends. It has not failed.
    fn part(&mut self, ticket: Ticket, token: u32) -> Option<Connection> {
        if let Some(exchange) = self.exchanges.get(ticket) {
            exchange.connection = None;
            exchange.tries = 0;
        }
        self.connections.remove(token)
    }
}
