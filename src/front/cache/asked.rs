//! What of a request counts for the cache.

use preforkd_http::{Origin, Request};
use preforkd_worker::purges;

use super::Fields;
use crate::layers::gate::{Noted, has_body};

/// Fields of requests that ask for something else than the whole response, or that say who asks. The application answers those.
const ASIDE: [&[u8]; 6] = [
    b"authorization",
    b"proxy-authorization",
    b"range",
    b"if-range",
    b"if-match",
    b"if-unmodified-since",
];

/// A request that the cache may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What is asked for: the site, the scheme, the host and the target as it was sent.
    pub key: Vec<u8>,
    /// The same as the places of [`purges`], and the site's.
    pub places: [u64; 2],
    /// Its fields: the names in lower case, those that are there twice together.
    pub fields: Fields,
    /// Its response may be stored.
    pub stores: bool,
}

impl Asked {
    /// Reads a request of the site with this number and name; none if the cache has no part in it.
    pub fn of(request: Request<'_>, origin: &Origin, site: (usize, &str)) -> Option<Self> {
        let method = request.method();
        let facts = request.facts();
        let is_known = Noted::of(request)
            .is_some_and(|noted| noted.user().is_some() || noted.questions.were_answered());
        let has_certificate = facts
            .and_then(|facts| facts.tls.as_ref())
            .is_some_and(|tls| tls.client.is_some());
        let is_aside = |name: &[u8]| ASIDE.iter().any(|other| name.eq_ignore_ascii_case(other));
        if !matches!(method, b"GET" | b"HEAD")
            || is_known
            || has_certificate
            || has_body(request)
            || request.upgrade().is_some()
            || request.fields().any(|(name, _)| is_aside(name))
        {
            return None;
        }
        let mut fields: Fields = Vec::new();
        for (name, value) in request.fields() {
            let name = name.to_ascii_lowercase();
            match fields.iter_mut().find(|(other, _)| *other == name) {
                Some((_, known)) => {
                    known.extend_from_slice(b", ");
                    known.extend_from_slice(value);
                }
                None => fields.push((name, value.to_vec())),
            }
        }
        let host = host(request);
        Some(Self {
            key: key(request, origin, site.0, &host),
            places: [place_of(request, &host), purges::of_site(site.1)],
            fields,
            stores: method == b"GET",
        })
    }

    /// 0 for requests without a cookie, 1 for those with one: what a response says of one kind says nothing of the other.
    pub fn class(&self) -> usize {
        usize::from(self.field(b"cookie").is_some())
    }

    /// Whether it may be answered with less than the whole response.
    pub fn is_conditional(&self) -> bool {
        self.field(b"if-none-match").is_some() || self.field(b"if-modified-since").is_some()
    }

    /// The value of a field of the request.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        let field = self.fields.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| &value[..])
    }
}

/// Everything that the application may be told of what is asked for.
fn key(request: Request<'_>, origin: &Origin, site: usize, host: &[u8]) -> Vec<u8> {
    let facts = request.facts();
    let is_encrypted = facts.and_then(|facts| facts.https);
    let is_encrypted = is_encrypted.or(origin.relayed.map(|relayed| relayed.tls));
    let port = facts.and_then(|facts| facts.port).unwrap_or_default();
    let prefix = facts.and_then(|facts| facts.prefix.as_deref());
    let (path, rest) = request.path_and_rest();
    let mut key = Vec::with_capacity(64 + path.len() + rest.len());
    for number in [
        site as u64,
        origin.listener as u64,
        u64::from(is_encrypted.unwrap_or(false)),
        u64::from(port),
    ] {
        key.extend_from_slice(&number.to_le_bytes());
    }
    // No field has a NUL in its value.
    for part in [host, prefix.unwrap_or_default(), path, rest] {
        key.extend_from_slice(part);
        key.push(0);
    }
    key
}

/// The place in [`purges`] of what is asked for.
pub fn place(request: Request<'_>) -> u64 {
    place_of(request, &host(request))
}

fn place_of(request: Request<'_>, host: &[u8]) -> u64 {
    let (path, rest) = request.path_and_rest();
    purges::of_target(host, &[path, rest].concat())
}

/// The host that the client has asked for, in lower case.
fn host(request: Request<'_>) -> Vec<u8> {
    let told = request.facts().and_then(|facts| facts.host.as_deref());
    let host = told.or(request.authority());
    let host = host.or_else(|| request.field(b"host"));
    host.unwrap_or_default().to_ascii_lowercase()
}
