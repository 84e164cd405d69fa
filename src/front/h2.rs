//! HTTP/2 (RFC 9113) with clients: over TLS where both sides have agreed on it, and with prior knowledge on other listeners; and with
//! upstreams, with prior knowledge ([`client`]).
//!
//! Framing, header compression and flow control are those of the library, which is polled over memory. A stream is to the loop a transport
//! that gives a request in the form of HTTP/1.1 and takes a response in that form, so that the parser, the limits and what answers
//! requests are the same. To the proxy a stream of an upstream takes a request and gives a response in that form.

mod body;
mod chunks;
pub mod client;
pub mod connection;
#[cfg(any(test, fuzzing))]
pub mod drive;
mod io;
mod limits;
mod request;
mod response;
mod stream;
mod wake;
mod websocket;
pub mod wire;

pub use wire::{Shared, Wire};
