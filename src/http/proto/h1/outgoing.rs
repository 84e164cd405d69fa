//! Writing a request to an upstream (RFC 9112 section 3, RFC 9110 section 7.6): what the client has asked for, without what was only for
//! its connection to us, and with what we know of the client.

use preforkd_worker::layers::Changes;
use std::io::Write;
use std::net::IpAddr;

use crate::message::facts::{ClientCertificate, Facts};
use crate::message::request::{Origin, Request};
use crate::proto::bytes::number;
use crate::proto::h1::encode::decimal;
use crate::proto::h1::hop;

/// How a request is changed on its way to an upstream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'a> {
    /// So many bytes of the path are left out at its beginning, as it came.
    pub strip: usize,
    /// This takes their place. It begins with a slash, does not end with one, and may be empty.
    pub rewrite: Option<&'a [u8]>,
    /// The host that is sent in place of the one that the client asked for.
    pub host: Option<&'a [u8]>,
    /// The host that is sent if the client named none, as in HTTP/1.0.
    pub default_host: &'a [u8],
    /// The client speaks TLS with somebody before us. What layers and the transport know of it counts, too.
    pub https: bool,
    /// The body is not there yet: it follows in the framing that the client has chosen.
    pub streamed: bool,
    /// The protocol that the upstream is asked to go on with, as the client has asked us.
    pub upgrade: Option<&'a [u8]>,
    /// The upstream may send fields after the body.
    pub trailers: bool,
    /// What changes in the fields that are passed on, one after the other. None of them is one that is written here.
    pub changes: &'a [&'a Changes],
    /// In place of the request, this target is asked for whether it may pass ([`write_request`]).
    pub question: Option<&'a [u8]>,
}

/// Appends the head of the request to `out`. The body of [`Request::body_length`] bytes follows it, unless it is
/// [`Outgoing::streamed`].
///
/// The target is in origin form, and path and query are as the client has sent them. `Host` is the authority of an absolute target, if
/// it is one (RFC 9112 section 3.2.2). Of `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `-Prefix` those are written that are
/// known, each with one value; what came under such a name, or under that of another field with this meaning, is not passed on.
/// `X-SSL-Client-…` tells of the certificate of the client, where clients are asked for one, and never comes from the client.
/// A question is a GET without a body. `X-Forwarded-Method` and `-Uri`, `X-Original-Method` and `-URL` say what it is about; fields that are for a
/// body or for a representation that the client has are left out.
///
/// `Via` is not written: it would switch off compression in some servers, and tells an upstream of ours nothing.
pub fn write_request(
    out: &mut Vec<u8>,
    request: Request<'_>,
    origin: &Origin,
    outgoing: Outgoing<'_>,
) {
    if let Some(target) = outgoing.question {
        return question(out, request, origin, target, &outgoing);
    }
    let method = request.method();
    out.extend_from_slice(method);
    out.push(b' ');
    let (path, rest) = request.path_and_rest();
    let (mut stripped, path) = path.split_at(outgoing.strip.min(path.len()));
    if let Some(to) = outgoing.rewrite.filter(|_| path != b"*") {
        out.extend_from_slice(to);
        if to.is_empty() && path.is_empty() {
            out.push(b'/');
        }
        // Nothing can be put in front of the path to have the one that was asked for.
        stripped = b"";
    }
    if !stripped.is_empty() && path.first() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(path);
    out.extend_from_slice(rest);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let asked = request.authority().or_else(|| request.field(b"host"));
    out.extend_from_slice(outgoing.host.or(asked).unwrap_or(outgoing.default_host));
    out.extend_from_slice(b"\r\n");
    match outgoing.changes.is_empty() {
        true => passed_on(request).for_each(|(name, value)| field(out, name, value)),
        false => {
            for (name, value) in changed(request, outgoing.changes) {
                field(out, name, value);
            }
        }
    }
    match outgoing.streamed {
        true => framing(out, request),
        false => body_length(out, request),
    }
    match (outgoing.upgrade, outgoing.trailers) {
        (Some(protocol), _) => {
            field(out, b"Connection", b"Upgrade");
            field(out, b"Upgrade", protocol);
        }
        (None, true) => {
            field(out, b"Connection", b"TE");
            field(out, b"TE", b"trailers");
        }
        (None, false) => {}
    }
    forwarded(out, request, origin, asked, stripped, outgoing.https);
    out.extend_from_slice(b"\r\n");
}

/// Asks whether a request may pass.
#[cold]
fn question(
    out: &mut Vec<u8>,
    request: Request<'_>,
    origin: &Origin,
    target: &[u8],
    outgoing: &Outgoing<'_>,
) {
    let asked = request.authority().or_else(|| request.field(b"host"));
    let host = asked.unwrap_or(outgoing.default_host);
    for part in [b"GET ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"] {
        out.extend_from_slice(part);
    }
    for (name, value) in changed(request, outgoing.changes) {
        if !is_of_body(name) {
            field(out, name, value);
        }
    }
    let facts = request.facts();
    let https = facts.and_then(|facts| facts.https);
    let https = https.unwrap_or(outgoing.https || facts.is_some_and(|facts| facts.tls.is_some()));
    let scheme: &[u8] = if https { b"https://" } else { b"http://" };
    let host = facts
        .and_then(|facts| facts.host.as_deref())
        .unwrap_or(host);
    let (path, rest) = request.path_and_rest();
    let (method, uri) = (request.method(), [path, rest].concat());
    for (name, value) in [
        (&b"X-Forwarded-Method"[..], method),
        (b"X-Forwarded-Uri", &uri),
        (b"X-Original-Method", method),
        (b"X-Original-URL", &[scheme, host, &uri].concat()),
    ] {
        field(out, name, value);
    }
    forwarded(out, request, origin, asked, &[], outgoing.https);
    out.extend_from_slice(b"\r\n");
}

/// Whether a field is for the body of a request, for a part or a state of what was asked for, or is said of a question anew.
fn is_of_body(name: &[u8]) -> bool {
    let begins_with = |start: &str| {
        let own = name.get(..start.len());
        own.is_some_and(|own| own.eq_ignore_ascii_case(start.as_bytes()))
    };
    ["content-", "if-", "x-original-"]
        .into_iter()
        .any(begins_with)
        || name.eq_ignore_ascii_case(b"range")
}

/// The fields of a request that an upstream gets as they came: without those that are for the connection of the client only, and without
/// those that say what we know better.
pub fn passed_on<'a>(request: Request<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let named = names_fields(request);
    let fields = request.fields();
    fields.filter(move |(name, _)| !(is_ours(name) || named && is_named(request, name)))
}

/// The fields that are passed on, with these changes. A name with `_` counts as one with `-`, as programs with a CGI-like interface read it.
pub fn changed<'a>(request: Request<'a>, changes: &'a [&'a Changes]) -> Vec<(&'a [u8], &'a [u8])> {
    let is = |name: &[u8], other: &str| {
        let plain = |byte: &u8| match byte {
            b'_' => b'-',
            byte => byte.to_ascii_lowercase(),
        };
        name.iter()
            .map(plain)
            .eq(other.as_bytes().iter().map(plain))
    };
    let mut fields: Vec<_> = passed_on(request).collect();
    for change in changes {
        let set = change.set.iter().map(|(name, _)| name);
        let gone: Vec<_> = change.remove.iter().chain(set).collect();
        fields.retain(|(name, _)| !gone.iter().any(|other| is(name, other)));
        let new = change.set.iter().chain(&change.add);
        fields.extend(new.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    }
    fields
}

/// Whether the fields `Connection` of the request name others.
fn names_fields(request: Request<'_>) -> bool {
    let mut fields = request.fields();
    fields.any(|(name, value)| is_connection(name) && hop::names_fields(value))
}

#[cold]
fn is_named(request: Request<'_>, field: &[u8]) -> bool {
    let mut fields = request.fields();
    fields.any(|(name, value)| is_connection(name) && hop::names(value, field))
}

fn is_connection(name: &[u8]) -> bool {
    name.len() == 10 && name.eq_ignore_ascii_case(b"connection")
}

/// Appends the fields that have followed the body of a request to `out`, without those that may only stand in the head (RFC 9110 section
/// 6.5.1), or that say what we know better: an upstream may take them for fields of the head.
pub fn pass_trailers(lines: &[u8], out: &mut Vec<u8>) {
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let has_underscore = || memchr::memchr(b'_', name).is_some();
        if !(hop::is_of_the_head(name) || is_ours(name) || has_underscore()) {
            field(out, name, value);
        }
    }
}

/// Whether a field of the client ends here, or is written anew.
fn is_ours(name: &[u8]) -> bool {
    const FORWARDED: &[u8] = b"x-forwarded-";
    const CLIENT: &[u8] = b"x-ssl-client-";
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let is_written = match name.len() {
        4 => is(b"host"),
        // Answered by us.
        6 => is(b"expect"),
        9 => is(b"x-real-ip") || is(b"forwarded"),
        // The name of a variable that programs with a CGI-like interface believe (CVE-2016-5385).
        5 => is(b"proxy"),
        12 => is(b"x-request-id"),
        14 => is(b"content-length"),
        // With these a client would say which file is sent to it, and in which words (CVE-2025-61780).
        15 => is(b"x-sendfile-type") || is(b"x-accel-mapping"),
        _ => false,
    };
    let begins_with = |start: &[u8]| {
        let own = name.get(..start.len());
        own.is_some_and(|own| own.eq_ignore_ascii_case(start))
    };
    is_written || hop::is_hop_by_hop(name) || begins_with(FORWARDED) || begins_with(CLIENT)
}

/// Says which certificate the client has shown, where clients are asked for one.
#[cold]
fn client_certificate(out: &mut Vec<u8>, client: Option<&ClientCertificate>) {
    let Some(client) = client else {
        return field(out, b"X-SSL-Client-Verify", b"NONE");
    };
    for (name, value) in [
        (&b"X-SSL-Client-Verify"[..], "SUCCESS"),
        (b"X-SSL-Client-Subject", &client.subject),
        (b"X-SSL-Client-Issuer", &client.issuer),
        (b"X-SSL-Client-Serial", &client.serial),
        (b"X-SSL-Client-Fingerprint", &client.fingerprint),
    ] {
        field(out, name, value.as_bytes());
    }
}

/// Says how long the body is. It is whole, so this is known.
fn body_length(out: &mut Vec<u8>, request: Request<'_>) {
    let length = match request.body_length() {
        Some(length) => length,
        // RFC 9110 section 8.6: methods that expect a body say that they have none.
        None if matches!(request.method(), b"POST" | b"PUT" | b"PATCH") => 0,
        None => return,
    };
    number_field(out, b"Content-Length", length);
}

/// Says where a body ends that is still to come.
fn framing(out: &mut Vec<u8>, request: Request<'_>) {
    match request.declared_length() {
        Some(length) => number_field(out, b"Content-Length", length),
        None => field(out, b"Transfer-Encoding", b"chunked"),
    }
}

/// Says who has asked, and for what.
fn forwarded(
    out: &mut Vec<u8>,
    request: Request<'_>,
    origin: &Origin,
    asked: Option<&[u8]>,
    stripped: &[u8],
    https: bool,
) {
    let nothing = Facts::default();
    let facts = request.facts().unwrap_or(&nothing);
    let client = facts.client.or(origin.peer.map(|peer| peer.ip()));
    if let Some(client) = client.map(|client| client.to_canonical()) {
        out.extend_from_slice(b"X-Forwarded-For: ");
        match client {
            IpAddr::V4(client) => {
                for (place, octet) in client.octets().into_iter().enumerate() {
                    if place > 0 {
                        out.push(b'.');
                    }
                    decimal(out, octet.into());
                }
            }
            // Writing to memory cannot fail.
            IpAddr::V6(client) => drop(write!(out, "{client}")),
        }
        out.extend_from_slice(b"\r\n");
    }
    let https = facts.https.unwrap_or(https || facts.tls.is_some());
    let (scheme, usual) = match https {
        true => (&b"https"[..], 443),
        false => (&b"http"[..], 80),
    };
    field(out, b"X-Forwarded-Proto", scheme);
    if let Some(host) = facts.host.as_deref().or(asked) {
        field(out, b"X-Forwarded-Host", host);
        let port = facts.port.or_else(|| port(host)).unwrap_or(usual);
        number_field(out, b"X-Forwarded-Port", port.into());
    }
    let prefix = facts.prefix.as_deref().unwrap_or_default();
    let stripped = stripped.strip_suffix(b"/").unwrap_or(stripped);
    if !prefix.is_empty() || !stripped.is_empty() {
        out.extend_from_slice(b"X-Forwarded-Prefix: ");
        out.extend_from_slice(prefix);
        out.extend_from_slice(stripped);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(tls) = facts
        .tls
        .as_deref()
        .filter(|tls| tls.client_policy.is_some())
    {
        client_certificate(out, tls.client.as_ref());
    }
    if let Some(id) = &facts.request_id {
        field(out, b"X-Request-ID", id.as_bytes());
    }
}

fn port(host: &[u8]) -> Option<u16> {
    let at = memchr::memrchr(b':', host)?;
    number(&host[at + 1..]).and_then(|port| port.try_into().ok())
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn number_field(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
