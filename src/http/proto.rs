//! Protocols: bytes to exchanges and back, as state machines without socket and clock.

pub(crate) mod bytes;
pub(crate) mod h1;
pub(crate) mod reject;
