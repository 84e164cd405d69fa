//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod hop;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod target;
