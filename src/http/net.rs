//! Sockets: what accepts, and what bytes go through.

pub mod descriptors;
pub(crate) mod listener;
pub mod standing;
pub(crate) mod transport;
pub(crate) mod trusted;
