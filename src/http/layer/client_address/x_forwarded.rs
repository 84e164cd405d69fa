//! `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `-Prefix`. No standard describes them.

use std::net::IpAddr;

use super::claims::{Claims, host, node, number, scheme, walk};
use crate::message::request::Request;
use crate::net::trusted::TrustedProxies;
use crate::proto::h1::target::percent_decode;

/// What these fields say, each of them a list to which every proxy has added itself at the end, or a single value that the first
/// has set and the others have passed on.
///
/// # Errors
/// One that counts is not what it should be.
pub(super) fn read(request: Request<'_>, trusted: &TrustedProxies) -> Result<Claims, &'static str> {
    let (client, number_) = chain(request, trusted);
    // The proxy that has added the client to the one list has added what it saw of it to the others.
    let entry = |name| {
        let beside = entries(request, name).take(number_ + 1);
        beside.last().filter(|entry| !entry.is_empty())
    };
    Ok(Claims {
        client,
        https: match entry(b"x-forwarded-proto") {
            Some(text) => Some(scheme(text).map_err(|()| "invalid X-Forwarded-Proto")?),
            None => None,
        },
        host: match entry(b"x-forwarded-host") {
            Some(text) => Some(host(text).map_err(|()| "invalid X-Forwarded-Host")?),
            None => None,
        },
        port: match entry(b"x-forwarded-port") {
            Some(text) => Some(number(text).ok_or("invalid X-Forwarded-Port")?),
            None => None,
        },
        prefix: match entry(b"x-forwarded-prefix") {
            Some(text) => Some(prefix(text).ok_or("invalid X-Forwarded-Prefix")?),
            None => None,
        },
    })
}

/// The client, whatever the other fields say.
pub(super) fn client(
    request: Request<'_>,
    trusted: &TrustedProxies,
) -> Option<(IpAddr, Option<u16>)> {
    chain(request, trusted).0
}

/// The client, and its number in the chain.
fn chain(request: Request<'_>, trusted: &TrustedProxies) -> (Option<(IpAddr, Option<u16>)>, usize) {
    walk(entries(request, b"x-forwarded-for").map(node), trusted)
}

/// The entries of all fields of that name, the last first (RFC 9110 section 5.3: they are one list).
fn entries<'a>(
    request: Request<'a>,
    name: &'static [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let fields = request.fields().rev();
    let fields = fields.filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    fields.flat_map(|(_, value)| {
        let entries = value.rsplit(|&b| b == b',');
        entries.map(<[u8]>::trim_ascii)
    })
}

/// A path, decoded, without slashes at its end. Two slashes at its start would make a link in a page lead to another host.
fn prefix(text: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    percent_decode(text, &mut path);
    let is_path = path.first() == Some(&b'/')
        && !path.starts_with(b"//")
        && !path.starts_with(b"/\\")
        && !path.iter().any(|b| b.is_ascii_control())
        && !text.iter().any(|b| matches!(b, b'?' | b'#'));
    while path.last() == Some(&b'/') {
        path.pop();
    }
    is_path.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_path_on_this_host() {
        for (text, path) in [
            ("/shop", Some("/shop")),
            ("/shop/", Some("/shop")),
            ("/", Some("")),
            ("/a//b", Some("/a//b")),
            ("/a%20b", Some("/a b")),
            ("shop", None),
            ("//evil.example", None),
            ("/%2Fevil.example", None),
            ("/\\evil.example", None),
            ("https://evil.example/", None),
            ("/a%0D%0Ab", None),
            ("/a\tb", None),
            ("/a?b", None),
            ("/a#b", None),
        ] {
            let found = prefix(text.as_bytes());
            assert_eq!(found.as_deref(), path.map(str::as_bytes), "{text}");
        }
    }
}
