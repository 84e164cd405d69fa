//! Values of a request in `request_headers` and `response_headers`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use preforkd_http::{Facts, Note, Origin, Request};
use preforkd_worker::layers::{Changes, RequestValue, TextPiece, text_pieces};

use super::gate::{Noted, client};
use crate::hosts::without_port;

/// What is known of a request.
#[derive(Debug)]
pub struct Values<'a> {
    client: Option<IpAddr>,
    host: Option<&'a [u8]>,
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    facts: Option<&'a Facts>,
}

/// What of it is not known any more when the response comes, unless it is kept.
#[derive(Debug)]
pub struct Kept {
    client: Option<IpAddr>,
    host: Option<Box<[u8]>>,
    method: Box<[u8]>,
    path: Box<[u8]>,
    query: Box<[u8]>,
}

impl<'a> Values<'a> {
    /// Of a request that is there.
    pub fn of(request: Request<'a>, origin: &Origin) -> Self {
        let facts = request.facts();
        let asked = request.authority().or_else(|| request.field(b"host"));
        let told = facts.and_then(|facts| facts.host.as_deref());
        Self {
            client: client(request, origin),
            host: told.or(asked).map(without_port),
            method: request.method(),
            path: request.path(),
            query: request.query(),
            facts,
        }
    }

    /// Keeps it until the response comes.
    pub fn keep(&self) -> Kept {
        Kept {
            client: self.client,
            host: self.host.map(Into::into),
            method: self.method.into(),
            path: self.path.into(),
            query: self.query.into(),
        }
    }

    /// The changes, with these values. A field that is empty then is only removed.
    pub fn fill<'c>(&self, changes: &'c Changes) -> Cow<'c, Changes> {
        if !has_values(changes) {
            return Cow::Borrowed(changes);
        }
        let mut filled = changes.clone();
        for (_, text) in filled.set.iter_mut().chain(&mut filled.add) {
            *text = self.text_of(text);
        }
        let (set, empty): (Vec<_>, Vec<_>) = filled
            .set
            .into_iter()
            .partition(|(_, text)| !text.is_empty());
        filled.set = set;
        filled
            .remove
            .extend(empty.into_iter().map(|(name, _)| name));
        filled.add.retain(|(_, text)| !text.is_empty());
        Cow::Owned(filled)
    }

    fn text_of(&self, text: &str) -> String {
        let mut filled = String::new();
        // The check of the configuration has refused all others.
        for piece in text_pieces(text).unwrap_or_default() {
            match piece {
                TextPiece::Text(text) => filled.push_str(text),
                TextPiece::Value(value) => self.add(&mut filled, value),
            }
        }
        filled.trim().to_owned()
    }

    fn add(&self, out: &mut String, value: RequestValue) {
        let nothing = Default::default();
        let facts = self.facts.unwrap_or(&nothing);
        let note = facts.note.as_ref();
        let certificate = facts.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let bytes = match value {
            RequestValue::ClientIp => {
                if let Some(client) = self.client {
                    let _ = write!(out, "{client}");
                }
                return;
            }
            RequestValue::Scheme => match facts.https.unwrap_or(facts.tls.is_some()) {
                true => Some(&b"https"[..]),
                false => Some(&b"http"[..]),
            },
            RequestValue::Host => self.host,
            RequestValue::Method => Some(self.method),
            RequestValue::Path => Some(self.path),
            RequestValue::Query => Some(self.query),
            RequestValue::RequestId => facts.request_id.as_deref().map(str::as_bytes),
            RequestValue::User => note
                .and_then(|note| note.get::<Noted>()?.served_user())
                .or_else(|| note.and_then(Note::user)),
            RequestValue::ClientCertSubject => certificate.map(|client| client.subject.as_bytes()),
        };
        encode(out, bytes.unwrap_or_default());
    }
}

impl Kept {
    /// What is known, with what layers have found out.
    pub fn with<'a>(&'a self, facts: &'a Facts) -> Values<'a> {
        Values {
            client: self.client,
            host: self.host.as_deref(),
            method: &self.method,
            path: &self.path,
            query: &self.query,
            facts: Some(facts),
        }
    }
}

/// Whether values stand in the changes.
pub fn has_values(changes: &Changes) -> bool {
    let mut texts = changes.set.iter().chain(&changes.add);
    texts.any(|(_, text)| text.contains('{'))
}

/// What could end a field, or is no text, is percent-encoded.
fn encode(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => c.to_string().bytes().for_each(|byte| percent(out, byte)),
                false => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| percent(out, byte));
    }
}

fn percent(out: &mut String, byte: u8) {
    // Writing to memory cannot fail.
    let _ = write!(out, "%{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_its_field() {
        for (bytes, text) in [
            (&b"/a%20b"[..], "/a%20b"),
            (b"a\r\nX: b", "a%0D%0AX: b"),
            (b"\0\x7f\t", "%00%7F%09"),
            ("\u{e9}\u{85}".as_bytes(), "\u{e9}%C2%85"),
            (b"\xff\xfe", "%FF%FE"),
        ] {
            let mut out = String::new();
            encode(&mut out, bytes);
            assert_eq!(out, text);
        }
    }
}
