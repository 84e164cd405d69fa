//! Limits that keep one client from using up the worker.

use std::time::Duration;

use preforkd_worker::settings::Http;

/// Sizes and times; every one has to be set, as a server that faces the world has no unlimited resource.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of request line and header fields together; more is answered 414 or 431.
    pub max_head: usize,
    /// Number of header fields, at most [`MOST_FIELDS`]; more is answered 431.
    pub max_fields: usize,
    /// Bytes of a request body; more is answered 413.
    pub max_body: u64,
    /// Bytes of a body kept in memory; a larger one goes to a file.
    pub body_in_memory: usize,
    /// Bytes of a response that wait in memory when the client does not take them; more go to a temporary file.
    pub response_in_memory: usize,
    /// Bytes of a response that wait in the file; then the application waits for the client.
    pub response_in_file: u64,
    /// Bytes of all bodies of requests, and of all that waits so of responses, together.
    pub max_buffered: u64,
    /// Connections open at a time; at the limit the one that has been idle for longest makes room.
    pub max_connections: usize,
    /// From the connection's start to the first byte, and from the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Between two reads of a request body; and for all of it, with a second more for each 500 bytes that have come.
    pub body_timeout: Duration,
    /// Without progress in writing a response.
    pub write_timeout: Duration,
    /// From the stop order to the end of the server: shortly before, responses that have not ended are broken off.
    pub drain_timeout: Duration,
    /// Between a response and the first byte of the next request.
    pub keepalive_timeout: Duration,
}

impl From<&Http> for Limits {
    /// A size that does not fit into memory is no limit.
    fn from(settings: &Http) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            max_head: size(settings.max_head),
            max_fields: settings.max_headers as usize,
            max_body: settings.max_body,
            body_in_memory: size(settings.body_in_memory),
            response_in_memory: size(settings.response_in_memory),
            response_in_file: settings.response_in_file,
            max_buffered: settings.max_buffered,
            max_connections: settings.max_connections.max(1) as usize,
            header_timeout: settings.header_timeout,
            body_timeout: settings.body_timeout,
            write_timeout: settings.write_timeout,
            drain_timeout: settings.graceful_timeout,
            keepalive_timeout: settings.keepalive_timeout,
        }
    }
}

impl Limits {
    /// The limits of requests that come from the front. They speak of what a client has sent; so there is room for what the front adds.
    pub(crate) fn with_room_for_front(&self) -> Self {
        Self {
            max_head: self.max_head.saturating_add(HEAD_OF_FRONT),
            max_fields: self.max_fields.saturating_add(FIELDS_OF_FRONT),
            ..self.clone()
        }
    }
}

/// The most header fields that a client may be allowed to send.
pub const MOST_FIELDS: usize = 256;
/// The fields that the front may add.
pub(crate) const FIELDS_OF_FRONT: usize = 128;
/// The bytes that it may add. Values may be made of those of the request, more than once.
const HEAD_OF_FRONT: usize = 64 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head: 32 * 1024,
            max_fields: 100,
            max_body: 64 * 1024 * 1024,
            body_in_memory: 256 * 1024,
            response_in_memory: 256 * 1024,
            response_in_file: 64 * 1024 * 1024,
            max_buffered: 1024 * 1024 * 1024,
            max_connections: 1000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(30),
        }
    }
}
