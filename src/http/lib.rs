//! Serving HTTP inside a worker process.
//!
//! Bytes go from a transport (`net`) through a protocol (`proto`) to an [`Exchange`], past the layers (`layer`) to what answers it: a
//! static file (`files`) or a [`Handler`]; and the same way back. `serve` is the loop around them, with sockets and deadlines.
//! What a request means is the business of the handler: nothing here knows Python.
#![forbid(unsafe_code)]

mod exchange;
mod files;
pub mod layer;
mod limits;
mod message;
mod net;
mod proto;
mod rate;
mod serve;

pub use exchange::{Exchange, Sent};
pub use files::{Chooser, Files, NamedFile, Sending, choose_coding, is_unmodified, sends_file};
pub use limits::{Limits, MOST_FIELDS};
pub use message::body::Body;
pub use message::coder::Coder;
pub use message::facts::{ClientCertificate, Facts, Note, Tls};
pub use message::head::{Head, HeadError};
pub use message::request::{Origin, Relayed, Request};
pub use message::response::{Piece, Response, phrase};
pub use message::slice::Slice;
pub use message::temporary::try_temporary_file;
pub use net::multiplex::{Multiplex, Opening, Single, Step as MultiplexStep};
pub use net::plain::Plain;
#[cfg(any(test, fuzzing))]
pub use net::proxy_protocol::drive as proxy_header;
pub use net::transport::Transport;
pub use net::trusted::TrustedProxies;
pub use net::{descriptors, standing};
pub use proto::h1::connection::{Connection, Event, Phase};
pub use proto::h1::hop::is_hop_by_hop;
pub use proto::h1::incoming::{Expected, Fault, Incoming, Step};
pub use proto::h1::outgoing::{Outgoing, changed, pass_trailers, write_request};
pub use proto::h1::target::percent_decode;
pub use proto::reject::Reject;
pub use rate::{LeftOut, Rate};
pub use serve::board::{Board, Life};
pub use serve::engine::{Call, Output, Pool, Ready, Seat, Service, Taking, Watch, pool};
pub use serve::handler::{Handler, Observer};
pub use serve::{
    Config, FrontListeners, NOT_BEGUN, serve_inline, serve_inline_over, serve_pool,
    serve_pool_over, serve_service, serve_service_over,
};
