//! Requests and responses, their heads and bodies, whatever the protocol.

pub(crate) mod backlog;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod coder;
pub(crate) mod date;
pub(crate) mod facts;
pub(crate) mod head;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod slice;
pub(crate) mod spool;
pub(crate) mod temporary;
