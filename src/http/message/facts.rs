//! What layers found out about an exchange.

use std::net::IpAddr;

/// What layers say of an exchange, for later layers, for the handler and for the access log. What none has said is as the request and
/// its connection show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The peer is a proxy whose word counts.
    pub trusted: bool,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The client's port.
    pub client_port: Option<u16>,
    /// Whether the client speaks TLS.
    pub https: Option<bool>,
    /// Host, with its port if it has one, that the client asked for.
    pub host: Option<Box<[u8]>>,
    /// The port that the client asked for.
    pub port: Option<u16>,
    /// The path below which the application is reached; begins with a slash and does not end with one.
    pub prefix: Option<Box<[u8]>>,
    /// The name of this exchange in logs.
    pub request_id: Option<Box<str>>,
}
