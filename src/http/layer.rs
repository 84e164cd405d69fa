//! Layers: what looks at each exchange between the protocol and what answers it.
//!
//! A layer is one file in `layer/`, and one line in [`standard`], in whose order the layers see a request. It names the stages in which
//! it takes part; it costs nothing in the others.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use preforkd_worker::access_format::Format;
use preforkd_worker::env::{Environment, FRONT_LISTENER};
use preforkd_worker::settings::Http;

use crate::message::coder::Coder;
use crate::message::facts::Facts;
use crate::message::head::Head;
use crate::message::request::{Origin, Request};
use crate::message::response::Response;
use crate::net::transport::Transport;
use crate::net::trusted::TrustedProxies;
use crate::proto::h1::connection::Connection;
use crate::proto::reject::Reject;
use crate::serve::timers::{Instant, now};

pub mod access_log;
mod client_address;
mod request_id;

use access_log::AccessLog;
use client_address::ClientAddress;
use request_id::RequestId;

/// What the layers of a server are made of.
#[derive(Debug, Default)]
pub struct Options {
    /// Who may say for whom it asks.
    pub trusted_proxies: TrustedProxies,
    /// The fields that they set; all that say for whom they ask, if there is no list.
    pub forwarded_fields: Option<Vec<String>>,
    /// The numbers of the sockets at which only the front can connect, whose word counts too.
    pub front: Vec<usize>,
    /// Requests have names.
    pub request_id: bool,
    /// The access log.
    pub access_log: Option<access_log::Options>,
}

impl Options {
    /// Those of a worker with these settings. The access log goes to the pipe, if there is one.
    ///
    /// # Errors
    /// A setting that the master should have refused.
    pub fn new(
        settings: &Http,
        environment: &Environment,
        access_log: Option<OwnedFd>,
    ) -> Result<Self, String> {
        let access_log = access_log.map(|pipe| {
            let format = Format::parse(&settings.access_format).map_err(|error| {
                format!(
                    "could not read the setting access_format: {error} (only preforkd can set it)"
                )
            })?;
            Ok::<_, String>(access_log::Options {
                pipe,
                format,
                worker: access_log::Worker {
                    app: environment.app.clone(),
                    slot: environment.slot.unwrap_or_default(),
                    generation: environment.generation,
                },
            })
        });
        Ok(Self {
            trusted_proxies: settings.trusted_proxies[..].into(),
            forwarded_fields: settings.forwarded_fields.clone(),
            front: front(&environment.listener_names),
            request_id: settings.request_id,
            access_log: access_log.transpose()?,
        })
    }
}

/// The numbers of the sockets of the front's listener.
fn front(names: &[String]) -> Vec<usize> {
    let numbered = names.iter().enumerate();
    let front = numbered.filter(|(_, name)| *name == FRONT_LISTENER);
    front.map(|(number, _)| number).collect()
}

/// The layers of a server with these options, in the order in which they see a request.
pub fn standard(options: Options) -> Vec<Arc<dyn Layer>> {
    let mut layers = vec![ClientAddress::layer(
        options.trusted_proxies,
        options.forwarded_fields,
        options.front,
    )];
    layers.extend(options.request_id.then(RequestId::layer));
    layers.extend(options.access_log.map(AccessLog::layer));
    layers
}

/// Where a layer takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// [`Layer::request`] is called.
    pub request: bool,
    /// [`Layer::response`], [`Layer::coder`] and [`Layer::page`] are called.
    pub response: bool,
    /// [`Layer::ended`] and [`Layer::flush`] are called.
    pub ended: bool,
    /// [`Layer::ended`] is told the time up to the very end, for which the clock is read once more.
    pub exact: bool,
}

/// A module between the protocol and what answers. Every exchange passes it, for the application and for static files alike.
///
/// The methods are on the way of each request: none may wait.
pub trait Layer: Send + Sync {
    /// Where it takes part; asked once.
    fn stages(&self) -> Stages;

    /// The head of a request has come and is valid; its body may still be on its way, and no `100 Continue` was sent. The layer may
    /// remove fields of it and note facts. A [`Reject`] answers it, the first one if there are several: the other layers still see the
    /// head, so that the access log knows as much of the request as can be known, and nothing else does. Called on the loop's thread.
    fn request(&self, _arrived: &mut Arrived<'_>) -> Option<Reject> {
        None
    }

    /// The head of a response is complete, and goes out when all layers have seen it; also that of a refusal, if the layers have seen
    /// the request. Called on the thread that makes the response.
    fn response(&self, _facts: &Facts, _head: &mut Head) {}

    /// What changes the body of the response with this head, which all layers have seen; the layer says so in the head. `length` is that of
    /// the body, if it is known. It goes out only if there is a body to send. Called on the thread that makes the response.
    fn coder(
        &self,
        _facts: &Facts,
        _head: &mut Head,
        _length: Option<u64>,
    ) -> Option<Box<dyn Coder>> {
        None
    }

    /// The page that the client gets in place of a text of the server's own with this status.
    fn page(&self, _facts: &Facts, _status: u16) -> Option<Arc<Page>> {
        None
    }

    /// A response has ended or broken off, or a request was refused. Called on the loop's thread.
    fn ended(&self, _ended: &Ended<'_>) {}

    /// The loop has done what there was to do, and may wait now. Called on the loop's thread.
    fn flush(&self) {}
}

/// A text of the server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its content type.
    pub content_type: String,
    /// The text.
    pub text: String,
}

/// A request whose head has come.
pub struct Arrived<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) origin: &'a Origin,
}

impl Arrived<'_> {
    /// The request as it is by now. The length of its body is not known yet.
    pub fn request(&self) -> Request<'_> {
        self.connection.request()
    }

    /// Where it came in.
    pub fn origin(&self) -> &Origin {
        self.origin
    }

    /// Whether there is a field with such a name.
    #[inline]
    pub fn has_field(&self, is: impl Fn(&[u8]) -> bool) -> bool {
        self.connection.has_field(is)
    }

    /// Removes the fields whose name is such a one.
    pub fn remove_fields(&mut self, is: impl FnMut(&[u8]) -> bool) {
        self.connection.remove_fields(is);
    }

    /// The body of the request may have so many bytes, if the limits of the server allow them. The answer to one of which it is known that
    /// it has more; others get it later.
    pub fn limit_body(&mut self, most: u64) -> Option<Reject> {
        self.connection.limit_body(most)
    }

    /// What is known of the exchange, to add to it.
    pub fn facts(&mut self) -> &mut Facts {
        self.connection.facts_mut()
    }
}

/// An exchange that is over.
#[derive(Debug)]
pub struct Ended<'a> {
    /// Where the request came in.
    pub origin: &'a Origin,
    /// The request; none that was refused before it was understood.
    pub request: Option<Request<'a>>,
    /// The beginning of what came in place of one, up to the end of its line.
    pub line: Option<&'a [u8]>,
    /// The status of the response; 0 if it broke off before its head was sent.
    pub status: u16,
    /// The bytes of the body that were written.
    pub bytes: u64,
    /// Microseconds from when the request had come whole to the end of the response; for a refusal, from its first byte. What has come
    /// counts from when the kernel has told of it, but not before the end of the response before it.
    pub microseconds: u64,
    /// Those of them for which the request waited for a thread.
    pub waited: u64,
}

/// The layers of a server by their stages.
#[derive(Clone)]
pub(crate) struct Layers {
    request: Arc<[Arc<dyn Layer>]>,
    response: Arc<[Arc<dyn Layer>]>,
    ended: Arc<[Arc<dyn Layer>]>,
    exact: bool,
}

impl Layers {
    pub fn new(layers: &[Arc<dyn Layer>]) -> Self {
        let of = |stage: fn(Stages) -> bool| {
            let taking_part = layers.iter().filter(|layer| stage(layer.stages()));
            taking_part.cloned().collect()
        };
        Self {
            request: of(|stages| stages.request),
            response: of(|stages| stages.response),
            ended: of(|stages| stages.ended),
            exact: layers.iter().any(|layer| layer.stages().exact),
        }
    }

    /// Has the layers see a request whose head has come, once.
    #[inline(always)]
    pub fn request(
        &self,
        connection: &mut Connection,
        origin: &Origin,
        transport: &mut impl Transport,
    ) -> Option<Reject> {
        if !connection.passes() {
            return None;
        }
        if let Some(tls) = transport.tls() {
            let facts = connection.facts_mut();
            facts.https = Some(true);
            facts.tls = Some(tls.clone());
        }
        let reject = self.see_request(connection, origin);
        reject.or_else(|| transport.takes(connection.request()))
    }

    fn see_request(&self, connection: &mut Connection, origin: &Origin) -> Option<Reject> {
        let mut arrived = Arrived { connection, origin };
        let mut first = None;
        for layer in self.request.iter() {
            let reject = layer.request(&mut arrived);
            first = first.or(reject);
        }
        first
    }

    /// Has the layers see the head of the response to this request.
    #[inline(always)]
    pub fn show(&self, response: &mut Response, connection: &Connection) {
        if !self.response.is_empty() {
            self.show_all(response, connection);
        }
    }

    fn show_all(&self, response: &mut Response, connection: &Connection) {
        if connection.has_passed() {
            let facts = connection.facts().cloned().unwrap_or_default();
            response.show(self.response.clone(), facts);
        }
    }

    /// Whether a layer wants to know of ended exchanges.
    pub fn see_ends(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The time of an end that came in a turn of this time.
    pub fn time_of_end(&self, turn: Instant) -> Instant {
        match self.exact {
            true => now(),
            false => turn,
        }
    }

    pub fn ended(&self, ended: &Ended<'_>) {
        for layer in self.ended.iter() {
            layer.ended(ended);
        }
    }

    pub fn flush(&self) {
        for layer in self.ended.iter() {
            layer.flush();
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}
