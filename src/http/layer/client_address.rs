//! Who asks: the client's address, and the URL that it has asked for, where a trusted proxy tells. From anybody else the fields for
//! this are removed. A proxy may pass on what its client has written, so those of a trusted one that say the same in another way are
//! removed too, unless they agree with what was found.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::claims::{Claims, Node, number};
use super::{Arrived, Layer, Stages};
use crate::message::facts::Facts;
use crate::message::request::Origin;
use crate::net::trusted::TrustedProxies;
use crate::proto::reject::Reject;

mod claims;
mod forwarded;
mod x_forwarded;

/// The most of a field's name that is logged.
const LONGEST: usize = 40;

/// Removes what proxies claim, or believes it.
pub(super) struct ClientAddress {
    trusted: TrustedProxies,
    /// The fields that trusted proxies set; all, if there is no list.
    fields: Option<Vec<String>>,
    /// The numbers of the sockets at which only the front can connect.
    front: Vec<usize>,
    /// That fields are removed was logged.
    told: AtomicBool,
    /// What to do about fields that a proxy should not have passed on was logged.
    hinted: AtomicBool,
}

impl ClientAddress {
    pub fn layer(
        trusted: TrustedProxies,
        fields: Option<Vec<String>>,
        front: Vec<usize>,
    ) -> Arc<dyn Layer> {
        Arc::new(Self {
            trusted,
            fields,
            front,
            told: AtomicBool::new(false),
            hinted: AtomicBool::new(false),
        })
    }

    /// Whether a field is one that proxies are known to set.
    fn is_named(&self, name: &[u8]) -> bool {
        let mut fields = self.fields.iter().flatten();
        fields.any(|field| field.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Believes what a trusted proxy claims.
    fn believe(&self, arrived: &mut Arrived<'_>) -> Result<(), Reject> {
        // The front sets other ones than the proxies of the app.
        if self.fields.is_some() && !self.is_front(arrived.origin()) {
            arrived.remove_fields(|name| is_claim(name) && !self.is_named(name));
        }
        if let Err(why) = believe(arrived, &self.trusted) {
            if self.fields.is_none() && !self.hinted.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "refusing requests that a trusted proxy passes on: {why}; its client can write each such field that the proxy does not \
                     set (name those that it sets: forwarded_fields = [\"X-Forwarded-For\", \"X-Forwarded-Proto\"]); answering 400"
                );
            }
            return Err(Reject::with(400, why));
        }
        self.remove_lies(arrived);
        Ok(())
    }

    /// Whether the peer itself has written the fields, and is trusted.
    fn is_trusted(&self, origin: &Origin) -> bool {
        !origin.relayed.is_some_and(|relayed| relayed.hidden)
            && (self.trusted.has_peer(origin.peer) || self.is_front(origin))
    }

    /// Whether the peer is the front.
    fn is_front(&self, origin: &Origin) -> bool {
        self.front.contains(&origin.listener)
    }

    /// Notes who has sent a request that is refused, for the log. Where `Forwarded` says it too, the two may contradict each other.
    #[cold]
    fn note_client(&self, arrived: &mut Arrived<'_>) {
        let request = arrived.request();
        let client = match request.field(b"forwarded") {
            None => x_forwarded::client(request, &self.trusted),
            Some(_) => None,
        };
        arrived.facts().client = client.map(|(client, _)| client);
    }

    #[cold]
    fn remove(&self, arrived: &mut Arrived<'_>) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let request = arrived.request();
            let name = request.fields().find(|(name, _)| is_claim(name));
            let name = name.map_or_else(Default::default, |(name, _)| {
                String::from_utf8_lossy(&name[..name.len().min(LONGEST)])
            });
            log::warn!("{}", removal(&name, arrived.origin()));
        }
        arrived.remove_fields(is_claim);
    }

    /// Removes the fields that applications take for the client's address or scheme, and that say something else than what was found: the
    /// proxy has passed them on as the client has written them. An address that only such a field tells is not known to be true, unless
    /// the field is known to be the proxy's.
    fn remove_lies(&self, arrived: &mut Arrived<'_>) {
        let (client, https) = (arrived.facts().client, arrived.facts().https);
        let is_lie = |name: &[u8], value: &[u8]| {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            let tls = match () {
                () if is(b"x-real-ip") => {
                    return match claims::node(value) {
                        Node::Address(address, _) => client != Some(address),
                        Node::Unix | Node::Hidden => true,
                    };
                }
                () if is(b"x-forwarded-ssl") => value.eq_ignore_ascii_case(b"on"),
                () if is(b"x-forwarded-scheme") || is(b"x-forwarded-protocol") => {
                    value.eq_ignore_ascii_case(b"ssl") || claims::scheme(value) == Ok(true)
                }
                () => return false,
            };
            https.is_some_and(|https| https != tls)
        };
        let fields = arrived.request().fields();
        let lies: Vec<Vec<u8>> = fields
            .filter(|(name, value)| is_lie(name, value) && !self.is_named(name))
            .map(|(name, _)| name.to_vec())
            .collect();
        // All of that name: of two, nobody knows which one an application takes.
        if !lies.is_empty() {
            arrived.remove_fields(|name| lies.iter().any(|lie| lie.eq_ignore_ascii_case(name)));
        }
    }
}

impl Layer for ClientAddress {
    fn stages(&self) -> Stages {
        Stages {
            request: true,
            ..Stages::default()
        }
    }

    fn request(&self, arrived: &mut Arrived<'_>) -> Option<Reject> {
        let claims = arrived.has_field(is_claim);
        let relayed = arrived.origin().relayed.as_ref();
        // What most requests are, as this is on the way of each.
        if !claims && self.trusted.is_empty() && relayed.is_none() {
            return None;
        }
        if relayed.is_some_and(|relayed| relayed.tls) {
            arrived.facts().https = Some(true);
        }
        match self.is_trusted(arrived.origin()) {
            false if claims => self.remove(arrived),
            true => {
                arrived.facts().trusted = true;
                if claims && let Err(reject) = self.believe(arrived) {
                    self.note_client(arrived);
                    return Some(reject);
                }
            }
            false => {}
        }
        None
    }
}

/// Whether a field is for proxies to say who asks. X-Real-IP is one too: applications take it for the client's address.
fn is_claim(name: &[u8]) -> bool {
    const FAMILY: &[u8] = b"x-forwarded-";
    match name.first() {
        Some(b'x' | b'X') => {
            name.len() > FAMILY.len() && name[..FAMILY.len()].eq_ignore_ascii_case(FAMILY)
                || name.eq_ignore_ascii_case(b"x-real-ip")
        }
        Some(b'f' | b'F') => name.eq_ignore_ascii_case(b"forwarded"),
        _ => false,
    }
}

/// Notes what the fields say.
fn believe(arrived: &mut Arrived<'_>, trusted: &TrustedProxies) -> Result<(), &'static str> {
    let request = arrived.request();
    let claims = x_forwarded::read(request, trusted)?.and(forwarded::read(request, trusted)?)?;
    let host = match &claims.host {
        Some(host) => Some(host.as_slice()),
        None => request.authority().or_else(|| request.field(b"host")),
    };
    let port = port(&claims, host);
    let host = claims
        .host
        .map(|host| with_port(host, claims.https, claims.port));
    let facts: &mut Facts = arrived.facts();
    if let Some((client, port)) = claims.client {
        facts.client = Some(client);
        facts.client_port = port;
    }
    facts.https = claims.https.or(facts.https);
    facts.host = host.map(Vec::into_boxed_slice);
    facts.port = port;
    facts.prefix = claims.prefix.map(Vec::into_boxed_slice);
    Ok(())
}

/// The port that the client has asked for: the one that was claimed, that of the host, or that of the scheme.
fn port(claims: &Claims, host: Option<&[u8]>) -> Option<u16> {
    if claims.port.is_some() || (claims.https.is_none() && claims.host.is_none()) {
        return claims.port;
    }
    host.and_then(port_of)
        .or(Some(usual_port(claims.https == Some(true))))
}

/// A host as the client has written it: with a port, unless it is the usual one.
fn with_port(mut host: Vec<u8>, https: Option<bool>, port: Option<u16>) -> Vec<u8> {
    if let Some(port) = port
        && port != usual_port(https == Some(true))
        && port_of(&host).is_none()
    {
        host.extend_from_slice(format!(":{port}").as_bytes());
    }
    host
}

fn usual_port(https: bool) -> u16 {
    match https {
        true => 443,
        false => 80,
    }
}

fn port_of(host: &[u8]) -> Option<u16> {
    let at = memchr::memrchr(b':', host)?;
    number(&host[at + 1..])
}

/// The words for the log.
fn removal(field: &str, origin: &Origin) -> String {
    let word = |peer: SocketAddr| peer.ip().to_canonical().to_string();
    let (peer, entry) = match (origin.peer, origin.relayed) {
        (_, Some(relayed)) if relayed.hidden => {
            return format!(
                "removed the field {field} of a request: the proxy does not tell who has sent it (PROXY UNKNOWN); the application sees \
                 none of the fields X-Forwarded-*, Forwarded and X-Real-IP of such a client; further ones are removed silently"
            );
        }
        (Some(peer), _) => (word(peer), word(peer)),
        (None, _) => ("a Unix socket".to_owned(), "unix".to_owned()),
    };
    format!(
        "removed the field {field} of a request from {peer}, which is not in trusted_proxies (if that is your proxy, add it: trusted_proxies = \
         [\"{entry}\"]); the application sees none of the fields X-Forwarded-*, Forwarded and X-Real-IP from there, nor what they say of \
         https and of the client's address; further ones are removed silently"
    )
}

#[cfg(test)]
mod tests;
