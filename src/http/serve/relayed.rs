//! The PROXY header, which comes before anything else on a connection if the server is told to expect one.
//!
//! It is never guessed whether one is there: who could leave it out, or send one of its own through a proxy that adds none, could choose
//! its address (HAProxy's specification, section 2).

use std::mem;

use super::core::Core;
use super::drive::Turn;
use crate::message::request::{Origin, Relayed};
use crate::net::proxy_protocol::{Header, Parsed, parse};
use crate::net::transport::Transport;
use crate::rate::{Rate, SECOND};
use crate::serve::client::Client;
use crate::serve::handler::Observer;

/// How often the log says that connections were closed for want of a header.
pub(super) const TURNED_AWAY: Rate = Rate::new(1, 10 * SECOND);

/// What a connection has to begin with.
#[derive(Debug)]
pub(crate) enum Preamble {
    /// A PROXY header, of which these bytes have come.
    Header(Vec<u8>),
    /// Nothing will do: the peer is no proxy of ours.
    Untrusted,
    /// Bytes that show which protocol it speaks, as far as they have come.
    Opening(Vec<u8>),
    /// A request of the front, with which it may offer a lane.
    Offer,
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// What a new connection has to begin with. The master asks on its private listener without a header.
    pub(super) fn preamble(&self, origin: &Origin) -> Option<Preamble> {
        let none = Self::opening();
        let Some(trusted) = self.proxy_protocol.as_ref() else {
            return none;
        };
        if self.private && origin.listener + 1 == self.listeners.len() {
            return none;
        }
        Some(match trusted.has_peer(origin.peer) {
            true => Preamble::Header(Vec::new()),
            false => Preamble::Untrusted,
        })
    }

    /// Reads until the header is there.
    #[cold]
    pub(super) fn read_preamble(&mut self, key: u64, client: &mut Client<T>) -> Option<Turn> {
        let link = &mut client.link;
        let mut bytes = match &mut link.preamble {
            Some(Preamble::Header(bytes)) => mem::take(bytes),
            Some(Preamble::Untrusted) => {
                self.turn_away(
                    &link.origin,
                    "with proxy_protocol, only peers in trusted_proxies may connect (if it is your proxy, add its address)",
                );
                return Some(Turn::Close);
            }
            Some(Preamble::Opening(bytes)) => {
                let bytes = mem::take(bytes);
                return self.read_opening(key, client, bytes);
            }
            Some(Preamble::Offer) => return self.read_offer(key, client),
            None => return None,
        };
        if link.readable {
            match link.read_preamble(&mut self.buffer) {
                Ok(n) => bytes.extend_from_slice(&self.buffer[..n]),
                Err(_) => return Some(Turn::Close),
            }
        }
        match parse(&bytes) {
            Parsed::Header(header, length) => {
                link.origin = relayed(link.origin, header);
                let origin = link.origin;
                if let Err(why) = link.transport.admit(&mut self.shared, &origin) {
                    self.turn_away(&origin, why);
                    return Some(Turn::Close);
                }
                link.preamble = Self::opening();
                let received = link.transport.begin_with(&bytes[length..]);
                link.readable |= link.transport.has_input();
                client.take_in(received, self.now);
                None
            }
            // Some load balancers only connect, to see whether that works.
            Parsed::More if link.eof && bytes.is_empty() => Some(Turn::Close),
            Parsed::More if link.eof => {
                self.turn_away(&link.origin, "it ended within the PROXY header");
                Some(Turn::Close)
            }
            Parsed::More => {
                link.preamble = Some(Preamble::Header(bytes));
                match link.readable {
                    true => None,
                    false => Some(self.wait_to_read(key, link)),
                }
            }
            Parsed::Bad(why) => {
                self.turn_away(&link.origin, why);
                Some(Turn::Close)
            }
        }
    }

    /// Says why a connection is closed, if nothing like it was said just now.
    pub(super) fn turn_away(&mut self, origin: &Origin, why: &str) {
        let Some(left_out) = self.turned_away.take(self.now) else {
            return;
        };
        let peer = match origin.peer {
            Some(peer) => peer.ip().to_canonical().to_string(),
            None => "a Unix socket".into(),
        };
        log::warn!("closed a connection from {peer}: {why}{left_out}");
    }
}

/// Where a connection comes from after its header.
fn relayed(origin: Origin, header: Header) -> Origin {
    match header {
        Header::Local => origin,
        Header::Hidden { tls } => Origin {
            relayed: Some(Relayed {
                server: None,
                tls,
                hidden: true,
            }),
            ..origin
        },
        Header::Relayed {
            client,
            server,
            tls,
        } => Origin {
            peer: Some(client),
            relayed: Some(Relayed {
                server: Some(server),
                tls,
                hidden: false,
            }),
            ..origin
        },
    }
}
