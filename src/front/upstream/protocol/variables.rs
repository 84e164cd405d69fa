//! A request as the variables of CGI (RFC 3875 section 4.1), with those besides that programs have come to need.

use std::borrow::Cow;
use std::net::IpAddr;

use preforkd_http::{Note, Origin, Outgoing, Request, changed, percent_decode};

use crate::hosts::without_port;
use crate::layers::gate::Noted;

/// A file that answers a request: a script. All as its interpreter is to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The folder of all scripts.
    pub root: Vec<u8>,
    /// The script below it; begins with a slash.
    pub name: Vec<u8>,
    /// What follows the script in the path of the request; empty, or begins with a slash.
    pub info: Vec<u8>,
}

/// Hands each variable of a request to `put`, the same name never twice.
///
/// No variable with a name that a client chooses begins with anything but `HTTP_`, so that it cannot set one that means something to the
/// program, such as `PHP_VALUE`. There is no `HTTP_PROXY` (CVE-2016-5385). A field whose name has other characters than letters, digits
/// and `-` is left out: in the name of a variable it would look like another one.
pub fn each(
    request: Request<'_>,
    origin: &Origin,
    outgoing: Outgoing<'_>,
    script: Option<&Script>,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let nothing = Default::default();
    let facts = request.facts().unwrap_or(&nothing);
    let (path, rest) = request.path_and_rest();
    let (stripped, path) = path.split_at(outgoing.strip.min(path.len()));
    let rewritten = outgoing.rewrite.map(|to| [to, path].concat());
    let (stripped, path) = match &rewritten {
        Some(path) => (&b""[..], &path[..]),
        None => (stripped, path),
    };
    let (mut prefix, mut decoded) = (Vec::new(), Vec::new());
    percent_decode(stripped, &mut prefix);
    percent_decode(path, &mut decoded);
    if prefix.ends_with(b"/") {
        prefix.pop();
    }
    let prefix = [facts.prefix.as_deref().unwrap_or_default(), &prefix].concat();
    let (name, info) = match script {
        Some(script) => {
            put(
                b"SCRIPT_FILENAME",
                &[&script.root[..], &script.name].concat(),
            );
            put(b"DOCUMENT_ROOT", &script.root);
            // php-cgi refuses to run without it.
            put(b"REDIRECT_STATUS", b"200");
            ([&prefix[..], &script.name].concat(), script.info.clone())
        }
        None if decoded.is_empty() || decoded.starts_with(b"/") => (prefix, decoded),
        None => (prefix, [b"/", &decoded[..]].concat()),
    };
    put(b"SCRIPT_NAME", &name);
    put(b"PATH_INFO", &info);
    put(b"DOCUMENT_URI", &[name, info].concat());
    put(b"REQUEST_URI", &[request.path(), rest].concat());
    put(b"QUERY_STRING", request.query());
    put(b"REQUEST_METHOD", request.method());
    put(b"GATEWAY_INTERFACE", b"CGI/1.1");
    put(b"SERVER_SOFTWARE", b"preforkd");
    let protocol: &[u8] = match request.is_http11() {
        true => b"HTTP/1.1",
        false => b"HTTP/1.0",
    };
    put(b"SERVER_PROTOCOL", protocol);
    let https = facts.https.unwrap_or(outgoing.https || facts.tls.is_some());
    let (scheme, usual): (&[u8], u16) = if https {
        (b"https", 443)
    } else {
        (b"http", 80)
    };
    put(b"REQUEST_SCHEME", scheme);
    if https {
        put(b"HTTPS", b"on");
    }
    let sent = request.authority().or_else(|| request.field(b"host"));
    let host = outgoing.host.or(sent).unwrap_or(outgoing.default_host);
    let asked = facts.host.as_deref().unwrap_or(host);
    put(b"SERVER_NAME", without_port(asked));
    let port = facts.port.or_else(|| port(asked)).unwrap_or(usual);
    put(b"SERVER_PORT", port.to_string().as_bytes());
    if let Some(client) = facts.client.or(origin.peer.map(|peer| peer.ip())) {
        let client: IpAddr = client.to_canonical();
        put(b"REMOTE_ADDR", client.to_string().as_bytes());
        let peer = origin
            .peer
            .filter(|peer| peer.ip().to_canonical() == client);
        if let Some(port) = facts.client_port.or(peer.map(|peer| peer.port())) {
            put(b"REMOTE_PORT", port.to_string().as_bytes());
        }
    }
    if let Some(user) = Noted::of(request).and_then(Noted::user) {
        put(b"AUTH_TYPE", b"Basic");
        put(b"REMOTE_USER", user);
    } else if let Some(user) = facts.note.as_ref().and_then(Note::user) {
        put(b"REMOTE_USER", user);
    }
    if let Some(length) = request.body_length() {
        put(b"CONTENT_LENGTH", length.to_string().as_bytes());
    }
    let passed = changed(request, outgoing.changes);
    let is_type = |(name, _): &&(&[u8], &[u8])| name.eq_ignore_ascii_case(b"content-type");
    if let Some((_, kind)) = passed.iter().find(is_type) {
        put(b"CONTENT_TYPE", kind);
    }
    put(b"HTTP_HOST", host);
    if let Some(id) = &facts.request_id {
        put(b"HTTP_X_REQUEST_ID", id.as_bytes());
    }
    for (name, value) in fields(&passed) {
        put(&name, &value);
    }
}

/// The fields of the client under the names of variables. Several of one name are one list (RFC 9110 section 5.3).
fn fields<'a>(passed: &[(&'a [u8], &'a [u8])]) -> Vec<(Vec<u8>, Cow<'a, [u8]>)> {
    let mut all: Vec<(Vec<u8>, Cow<'a, [u8]>)> = Vec::new();
    for &(name, value) in passed {
        let is_known = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
        if !name.iter().all(is_known) || name.eq_ignore_ascii_case(b"content-type") {
            continue;
        }
        let upper = name.iter().map(|b| match b {
            b'-' => b'_',
            b => b.to_ascii_uppercase(),
        });
        let name: Vec<u8> = b"HTTP_".iter().copied().chain(upper).collect();
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => {
                // RFC 9113 section 8.2.3.
                let between: &[u8] = if name == b"HTTP_COOKIE" { b"; " } else { b", " };
                let list = list.to_mut();
                list.extend_from_slice(between);
                list.extend_from_slice(value);
            }
            None => all.push((name, value.into())),
        }
    }
    all
}

fn port(host: &[u8]) -> Option<u16> {
    let digits = host.get(without_port(host).len() + 1..)?;
    str::from_utf8(digits).ok()?.parse().ok()
}
