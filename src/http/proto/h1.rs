//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod target;
