//! Values of a request in `request_headers`.

use std::borrow::Cow;
use std::fmt::Write as _;

use preforkd_http::{Note, Origin, Request};
use preforkd_worker::layers::{Changes, RequestValue, TextPiece, text_pieces};

use super::gate::{Noted, client};
use crate::hosts::without_port;

/// The changes, with the values of this request. A field that is empty then is only removed.
pub fn fill<'a>(changes: &'a Changes, request: Request<'_>, origin: &Origin) -> Cow<'a, Changes> {
    let mut texts = changes.set.iter().chain(&changes.add);
    if !texts.any(|(_, text)| text.contains('{')) {
        return Cow::Borrowed(changes);
    }
    let mut filled = changes.clone();
    for (_, text) in filled.set.iter_mut().chain(&mut filled.add) {
        *text = text_of(text, request, origin);
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

fn text_of(text: &str, request: Request<'_>, origin: &Origin) -> String {
    let mut filled = String::new();
    // The check of the configuration has refused all others.
    for piece in text_pieces(text).unwrap_or_default() {
        match piece {
            TextPiece::Text(text) => filled.push_str(text),
            TextPiece::Value(value) => add(&mut filled, value, request, origin),
        }
    }
    filled.trim().to_owned()
}

fn add(out: &mut String, value: RequestValue, request: Request<'_>, origin: &Origin) {
    let nothing = Default::default();
    let facts = request.facts().unwrap_or(&nothing);
    let asked = request.authority().or_else(|| request.field(b"host"));
    let host = facts.host.as_deref().or(asked).map(without_port);
    let note = facts.note.as_ref();
    let certificate = facts.tls.as_ref().and_then(|tls| tls.client.as_ref());
    let bytes = match value {
        RequestValue::ClientIp => {
            if let Some(client) = client(request, origin) {
                let _ = write!(out, "{client}");
            }
            return;
        }
        RequestValue::Scheme => match facts.https.unwrap_or(facts.tls.is_some()) {
            true => Some(&b"https"[..]),
            false => Some(&b"http"[..]),
        },
        RequestValue::Host => host,
        RequestValue::Method => Some(request.method()),
        RequestValue::Path => Some(request.path()),
        RequestValue::Query => Some(request.query()),
        RequestValue::RequestId => facts.request_id.as_deref().map(str::as_bytes),
        RequestValue::User => Noted::of(request)
            .and_then(Noted::user)
            .or_else(|| note.and_then(Note::user)),
        RequestValue::ClientCertSubject => certificate.map(|client| client.subject.as_bytes()),
    };
    encode(out, bytes.unwrap_or_default());
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
