//! Sockets: what accepts, and what bytes go through.

pub mod descriptors;
pub(crate) mod lane;
pub(crate) mod listener;
pub(crate) mod multiplex;
pub(crate) mod plain;
pub(crate) mod proxy_protocol;
pub mod standing;
pub(crate) mod transport;
pub(crate) mod trusted;
