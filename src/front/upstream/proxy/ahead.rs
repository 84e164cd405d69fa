//! Taking back what was sent ahead to a worker that is busy for longer than expected.

use super::super::Instant;
use super::super::dispatch::Ticket;
use super::Proxy;

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

    /// Whether the worker has read nothing of a request that was sent to it.
    fn is_unread(&mut self, ticket: Ticket) -> bool {
        let exchange = self.exchanges.get(ticket);
        let token = exchange.and_then(|exchange| exchange.connection);
        let connection = token.and_then(|token| self.connections.get(token));
        connection.is_some_and(|connection| connection.is_unread())
    }

    /// Takes a request back, if the worker has not begun to read it. It does not begin a request whose connection has ended by then.
    fn withdraw(&mut self, ticket: Ticket) -> bool {
        let Some(exchange) = self.exchanges.get(ticket) else {
            return false;
        };
        let Some(token) = exchange.connection else {
            return false;
        };
        let Some(connection) = self.connections.get(token) else {
            return false;
        };
        connection.end_writing();
        if !connection.is_unread() {
            // It has just begun, and answers. Another request cannot follow.
            connection.hangup = true;
            return false;
        }
        exchange.connection = None;
        // It has not failed.
        exchange.tries = 0;
        self.connections.remove(token);
        true
    }
}
