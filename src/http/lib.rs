//! Serving HTTP/1.1 inside a worker process.
//!
//! [`Connection`] turns bytes into requests, strictly and without a socket; [`Response`] turns answers into bytes; [`server`] is
//! the loop around them with sockets and deadlines. What a request means is the business of a [`Handler`]:
//! nothing here knows Python.
#![forbid(unsafe_code)]

mod access;
mod backlog;
mod body;
mod bytes;
mod chunked;
mod client;
mod connection;
mod date;
pub mod descriptors;
mod engine;
mod exchange;
mod files;
mod handler;
mod head;
mod limits;
mod listener;
mod reject;
mod request;
mod response;
pub mod server;
mod slab;
mod spool;
mod target;
mod timers;

pub use body::Body;
pub use connection::{Connection, Event, Phase};
pub use engine::{Pool, Seat, pool};
pub use exchange::{Exchange, Sent};
pub use files::Files;
pub use handler::{Handler, Observer};
pub use limits::{Limits, MOST_FIELDS};
pub use reject::Reject;
pub use request::{Origin, Request};
pub use response::{HeadError, Response};
pub use target::percent_decode;
