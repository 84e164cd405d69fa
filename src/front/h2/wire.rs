//! The transport of all connections of the front: bytes of a socket, with TLS or without, or a stream of HTTP/2.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use h2::Reason;
use preforkd_http::descriptors::Own;
use preforkd_http::standing::Standing;
use preforkd_http::{Origin, Reject, Request, Slice, Tls, Transport};
use rustix::io::Errno;

use super::connection::Session;
use super::stream::Stream;
use super::wake::Owner;
use crate::clients::{Clients, Counted};
use crate::crowds::{Crowds, Member};
use crate::tls::{Listeners, Way};
use crate::visits::{Visit, Visited};

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    listeners: Listeners,
    pub(super) queue: Owner,
    /// HTTP/2 is spoken without TLS, with those who begin so.
    pub(super) http2: bool,
    /// Who may have how many connections.
    clients: Option<Clients>,
    /// Where the connections of sites are counted.
    visited: Option<Arc<Visited>>,
    /// How many connections sites may have.
    crowds: Option<Arc<Crowds>>,
}

impl Shared {
    /// With these certificates. `http2`: it is spoken without TLS, too; over TLS the terms say so.
    pub fn new(listeners: Listeners, http2: bool) -> Self {
        Self {
            listeners,
            queue: Owner::default(),
            http2,
            clients: None,
            visited: None,
            crowds: None,
        }
    }

    /// The same; connections are counted by their sites.
    pub fn counted(self, visited: Option<Visited>) -> Self {
        Self {
            visited: visited.map(Arc::new),
            ..self
        }
    }

    /// The same; no site has more connections than these allow.
    pub fn crowded(self, crowds: Option<Arc<Crowds>>) -> Self {
        Self { crowds, ..self }
    }

    /// The same; no client has more connections than these allow.
    pub fn limited(self, clients: Option<Clients>) -> Self {
        Self { clients, ..self }
    }
}

/// What a connection counts as, as long as it is open.
#[derive(Debug, Default)]
pub struct Counts {
    client: Option<Counted>,
    pub(super) visit: Option<Arc<Visit>>,
    pub(super) member: Option<Arc<Member>>,
}

/// A connection, or a stream.
#[derive(Debug)]
pub enum Wire {
    /// A connection.
    Bytes(Way, Counts),
    /// A stream of one.
    Stream(Box<Stream>),
}

impl Transport for Wire {
    type Shared = Shared;
    type Multiplex = Session;

    fn new(shared: &mut Shared, socket: OwnedFd, origin: &Origin) -> Self {
        let counts = Counts {
            client: None,
            visit: shared.visited.as_ref().map(Visited::begin),
            member: shared.crowds.as_ref().map(Crowds::begin),
        };
        Self::Bytes(Way::new(&mut shared.listeners, socket, origin), counts)
    }

    fn admit(&mut self, shared: &mut Shared, origin: &Origin) -> Result<(), &'static str> {
        if let (Self::Bytes(_, counts), Some(clients)) = (self, &shared.clients) {
            counts.client = clients.admit(origin)?;
        }
        Ok(())
    }

    fn takes(&mut self, request: Request<'_>) -> Option<Reject> {
        match self {
            Self::Bytes(_, counts) => counts.member.as_ref()?.takes(request, true),
            Self::Stream(stream) => stream.member()?.takes(request, false),
        }
    }

    fn is_kept(&self) -> bool {
        match self {
            Self::Bytes(_, counts) => {
                let member = counts.member.as_ref();
                !member.is_some_and(|member| member.is_in_the_way())
            }
            Self::Stream(_) => true,
        }
    }

    fn carries(&mut self, request: Request<'_>) {
        let visit = match self {
            Self::Bytes(_, counts) => &counts.visit,
            Self::Stream(stream) => stream.visit(),
        };
        if let Some(visit) = visit {
            visit.carries(request.marked());
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Bytes(way, _) => way.read(buffer),
            Self::Stream(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, data: &[u8], more: bool) -> Result<usize, Errno> {
        match self {
            Self::Bytes(way, _) => way.write(data, more),
            Self::Stream(stream) => stream.write(data),
        }
    }

    fn write_both(&mut self, data: &[u8], slice: &Slice, more: bool) -> Result<usize, Errno> {
        match self {
            Self::Bytes(way, _) => way.write_both(data, slice, more),
            Self::Stream(stream) => stream.write_both(data, slice),
        }
    }

    fn send_file(&mut self, file: &File, offset: &mut u64, length: usize) -> Result<usize, Errno> {
        match self {
            Self::Bytes(way, _) => way.send_file(file, offset, length),
            Self::Stream(stream) => stream.send_file(file, offset, length),
        }
    }

    fn can_hold(&self) -> bool {
        match self {
            Self::Bytes(way, _) => way.can_hold(),
            Self::Stream(_) => false,
        }
    }

    fn push(&self) {
        if let Self::Bytes(way, _) = self {
            way.push();
        }
    }

    fn finish(&mut self) -> Result<(), Errno> {
        match self {
            Self::Bytes(way, _) => way.finish(),
            Self::Stream(stream) => stream.finish(),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Bytes(way, _) => way.abort(),
            Self::Stream(stream) => stream.abort(Reason::INTERNAL_ERROR),
        }
    }

    fn leave(&mut self) {
        match self {
            Self::Bytes(way, _) => way.leave(),
            Self::Stream(stream) => stream.abort(Reason::CANCEL),
        }
    }

    fn reset_at_death(&mut self, reset: bool) {
        if let Self::Bytes(way, _) = self {
            way.reset_at_death(reset);
        }
    }

    fn stands(&self, standing: Standing) {
        if let Self::Bytes(way, _) = self {
            way.stands(standing);
        }
    }

    fn watch(&mut self, epoll: &Own, key: u64, write: bool) -> io::Result<()> {
        match self {
            Self::Bytes(way, _) => way.watch(epoll, key, write),
            Self::Stream(stream) => {
                stream.set_key(key);
                stream.watch();
                Ok(())
            }
        }
    }

    fn has_input(&self) -> bool {
        match self {
            Self::Bytes(way, _) => way.has_input(),
            Self::Stream(stream) => stream.has_input(),
        }
    }

    fn has_output(&self) -> bool {
        match self {
            Self::Bytes(way, _) => way.has_output(),
            Self::Stream(_) => false,
        }
    }

    fn flush(&mut self) -> Result<usize, Errno> {
        match self {
            Self::Bytes(way, _) => way.flush(),
            Self::Stream(_) => Ok(0),
        }
    }

    fn is_starting(&self) -> bool {
        match self {
            Self::Bytes(way, _) => way.is_starting(),
            Self::Stream(_) => false,
        }
    }

    fn refusal(&self) -> Option<&str> {
        match self {
            Self::Bytes(way, _) => way.refusal(),
            Self::Stream(_) => None,
        }
    }

    fn tls(&self) -> Option<&Arc<Tls>> {
        match self {
            Self::Bytes(way, _) => way.tls(),
            Self::Stream(stream) => stream.tls(),
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    fn has_left(&mut self) -> bool {
        match self {
            Self::Bytes(..) => false,
            Self::Stream(stream) => stream.has_left(),
        }
    }

    fn read_preamble(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Bytes(way, _) => way.read_preamble(buffer),
            Self::Stream(stream) => stream.read(buffer),
        }
    }

    fn begin_with<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Bytes(way, _) => way.begin_with(bytes),
            Self::Stream(_) => bytes,
        }
    }
}
