//! A request as a handler sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::message::facts::Facts;
use crate::proto::h1::head::{Framing, Head};
use crate::proto::h1::hop;

/// A request head, parsed, with its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    head: &'a Head,
    bytes: &'a [u8],
    body_length: u64,
    facts: Option<&'a Facts>,
    mark: &'a AtomicU32,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Index of the listener in the order they were given.
    pub listener: usize,
    /// The address of the client, or of the proxy that asks for it; none on a unix socket. With a PROXY header, the client that this
    /// names.
    pub peer: Option<SocketAddr>,
    /// What a PROXY header says of the connection besides.
    pub relayed: Option<Relayed>,
}

/// A connection that a proxy has opened for somebody else, and has said so with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// The address to which the client has connected.
    pub server: Option<SocketAddr>,
    /// The client speaks TLS with the proxy.
    pub tls: bool,
    /// The header does not name the client: `peer` is the proxy, but not the proxy asks.
    pub hidden: bool,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        head: &'a Head,
        bytes: &'a [u8],
        body_length: u64,
        facts: Option<&'a Facts>,
        mark: &'a AtomicU32,
    ) -> Self {
        Self {
            head,
            bytes,
            body_length,
            facts,
            mark,
        }
    }

    /// Notes a number for the layers that see the end of the exchange, in place of the one before.
    pub fn mark(&self, number: u32) {
        self.mark.store(number, Ordering::Relaxed);
    }

    /// The number that was noted; 0 if none was.
    pub fn marked(&self) -> u32 {
        self.mark.load(Ordering::Relaxed)
    }

    /// What layers have said of the exchange, if they have.
    pub fn facts(&self) -> Option<&'a Facts> {
        self.facts
    }

    /// The method, as sent.
    pub fn method(&self) -> &'a [u8] {
        self.head.method.get(self.bytes)
    }

    /// The request target, as sent.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.get(self.bytes)
    }

    /// The path of the target, not decoded; `*` for OPTIONS of the server as a whole, else it begins with a slash.
    pub fn path(&self) -> &'a [u8] {
        match self.head.path.get(self.bytes) {
            // RFC 9112 section 3.2.4 and RFC 9110 section 4.2.3: what an absolute target without a path means.
            b"" if self.method() == b"OPTIONS" => b"*",
            b"" => b"/",
            path => path,
        }
    }

    /// The path, and the rest of the target after it: the query with its question mark, if there is one. All as it came.
    pub fn path_and_rest(&self) -> (&'a [u8], &'a [u8]) {
        let rest = self.head.path.rest_of(self.head.target);
        (self.path(), rest.get(self.bytes))
    }

    /// The query without its question mark, not decoded.
    pub fn query(&self) -> &'a [u8] {
        self.head.query.get(self.bytes)
    }

    /// Host and port of an absolute target; they stand above the field `Host` (RFC 9112 section 3.2.2).
    pub fn authority(&self) -> Option<&'a [u8]> {
        self.head
            .authority
            .map(|authority| authority.get(self.bytes))
    }

    /// Header fields in their order, without those whose name has an underscore.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.head
            .fields
            .iter()
            .map(move |(name, value)| (name.get(bytes), value.get(bytes)))
    }

    /// The first field of that name; `name` in lower case.
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.fields()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The protocol and version in which it came, as CGI and access logs write it.
    pub fn protocol(&self) -> &'static str {
        match self.head.minor {
            0 => "HTTP/1.0",
            1 => "HTTP/1.1",
            _ => "HTTP/2.0",
        }
    }

    /// Whether it is HTTP/1.1 or newer.
    pub fn is_http11(&self) -> bool {
        self.head.minor >= 1
    }

    /// Length of the body after decoding; none for a request that has no body at all.
    pub fn body_length(&self) -> Option<u64> {
        match self.head.framing {
            Framing::None => None,
            Framing::Length(_) | Framing::Chunked => Some(self.body_length),
        }
    }

    /// Length of the body as the client has declared it; none if it has not, or if there is no body.
    pub fn declared_length(&self) -> Option<u64> {
        match self.head.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked => None,
        }
    }

    /// Whether the client wants to go on with another protocol, and with which (RFC 9110 section 7.8).
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        let is = |name: &[u8], other: &[u8]| name.eq_ignore_ascii_case(other);
        let mut wishes = self.fields().filter(|(name, _)| is(name, b"upgrade"));
        let (_, wish) = wishes.next()?;
        let asks = |value: &[u8]| hop::options(value).any(|option| is(option, b"upgrade"));
        let mut connection = self.fields().filter(|(name, _)| is(name, b"connection"));
        (self.is_http11() && wishes.next().is_none() && connection.any(|(_, value)| asks(value)))
            .then_some(wish)
    }

    /// Whether the client takes fields that follow the body (RFC 9110 section 6.5.1).
    pub fn takes_trailers(&self) -> bool {
        let mut fields = self
            .fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"te"));
        fields.any(|(_, value)| {
            hop::options(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
        })
    }

    /// The request with its own memory, to hand it to another thread.
    pub(crate) fn to_owned(self) -> OwnedRequest {
        OwnedRequest {
            head: self.head.clone(),
            bytes: self.bytes.to_vec(),
            body_length: self.body_length,
            facts: self.facts.cloned().map(Box::new),
            mark: AtomicU32::new(self.marked()),
        }
    }
}

/// A request that owns its bytes.
#[derive(Debug)]
pub(crate) struct OwnedRequest {
    head: Head,
    bytes: Vec<u8>,
    body_length: u64,
    facts: Option<Box<Facts>>,
    mark: AtomicU32,
}

impl OwnedRequest {
    pub fn borrow(&self) -> Request<'_> {
        Request::new(
            &self.head,
            &self.bytes,
            self.body_length,
            self.facts.as_deref(),
            &self.mark,
        )
    }
}
