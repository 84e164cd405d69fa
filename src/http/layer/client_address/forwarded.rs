//! `Forwarded` (RFC 7239).

use super::claims::{Claims, Node, host, node, scheme, walk};
use crate::message::request::Request;
use crate::net::trusted::TrustedProxies;
use crate::proto::bytes::token;

/// What one proxy has added.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    for_: Option<Vec<u8>>,
    proto: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
}

/// What the fields say; each is a list to which every proxy has added an element at the end.
///
/// # Errors
/// A field has not the form of RFC 7239 section 4, or a value that counts is not what it should be.
pub(super) fn read(request: Request<'_>, trusted: &TrustedProxies) -> Result<Claims, &'static str> {
    let mut chain = Vec::new();
    for (name, value) in request.fields() {
        if name.eq_ignore_ascii_case(b"forwarded") {
            // A field of its own each, so that a quote that is not closed swallows nothing of the next.
            elements(value, &mut chain).ok_or("malformed Forwarded")?;
        }
    }
    let nodes = chain.iter().rev().map(|element| match &element.for_ {
        Some(text) => node(text),
        None => Node::Hidden,
    });
    let (client, number) = walk(nodes, trusted);
    let Some(element) = chain.iter().rev().nth(number) else {
        return Ok(Claims::default());
    };
    let (proto, of) = (element.proto.as_deref(), element.host.as_deref());
    Ok(Claims {
        client,
        https: match proto.filter(|text| !text.is_empty()) {
            Some(text) => Some(scheme(text).map_err(|()| "invalid proto in Forwarded")?),
            None => None,
        },
        host: match of.filter(|text| !text.is_empty()) {
            Some(text) => Some(host(text).map_err(|()| "invalid host in Forwarded")?),
            None => None,
        },
        ..Claims::default()
    })
}

/// Adds the elements of a field; none if it is malformed.
fn elements(field: &[u8], chain: &mut Vec<Element>) -> Option<()> {
    let mut rest = field;
    loop {
        let mut element = Element::default();
        loop {
            rest = rest.trim_ascii_start();
            match rest.first() {
                // RFC 7239 section 4: an element may be empty, and so may what stands between two semicolons.
                None | Some(b',') => break,
                Some(b';') => rest = &rest[1..],
                Some(_) => {
                    rest = pair(rest, &mut element)?.trim_ascii_start();
                    match rest.first() {
                        None | Some(b',') => break,
                        Some(b';') => rest = &rest[1..],
                        Some(_) => return None,
                    }
                }
            }
        }
        chain.push(element);
        match rest.first() {
            None => return Some(()),
            Some(_) => rest = &rest[1..],
        }
    }
}

/// Takes `token "=" value`; what follows it.
fn pair<'a>(text: &'a [u8], element: &mut Element) -> Option<&'a [u8]> {
    let end = text
        .iter()
        .position(|&b| !token(b))
        .filter(|&end| end > 0)?;
    let (name, rest) = text.split_at(end);
    let (value, rest) = match rest.strip_prefix(b"=")? {
        [b'"', quoted @ ..] => unquote(quoted)?,
        plain => {
            // Addresses with colons ought to stand in quotes, which configurations of proxies often leave out.
            let value = |b: u8| token(b) || matches!(b, b':' | b'[' | b']');
            let end = plain.iter().position(|&b| !value(b)).unwrap_or(plain.len());
            (plain[..end].to_vec(), &plain[end..])
        }
    };
    let place = match name.to_ascii_lowercase().as_slice() {
        b"for" => &mut element.for_,
        b"proto" => &mut element.proto,
        b"host" => &mut element.host,
        _ => return Some(rest),
    };
    // Each parameter once in an element.
    match place.replace(value) {
        None => Some(rest),
        Some(_) => None,
    }
}

/// The text up to the closing quote, and what follows it (RFC 9110 section 5.6.4).
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, &b)) = bytes.next() {
        match b {
            b'"' => return Some((value, &text[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            b => value.push(b),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(field: &str) -> Option<Vec<String>> {
        let mut chain = Vec::new();
        elements(field.as_bytes(), &mut chain)?;
        let shown = |text: &Option<Vec<u8>>| match text {
            Some(text) => String::from_utf8(text.clone()).unwrap(),
            None => "-".to_owned(),
        };
        let lines = chain
            .iter()
            .map(|e| [&e.for_, &e.proto, &e.host].map(shown).join(" "));
        Some(lines.collect())
    }

    #[test]
    fn elements_are_split_at_commas_outside_of_quotes() {
        for (field, elements) in [
            ("for=192.0.2.1", &["192.0.2.1 - -"][..]),
            ("For=\"[2001:db8::1]:4711\"", &["[2001:db8::1]:4711 - -"]),
            (
                "for=192.0.2.1;proto=https;by=203.0.113.4;host=a.example",
                &["192.0.2.1 https a.example"],
            ),
            (
                "for=192.0.2.1, for=198.51.100.1;PROTO=http",
                &["192.0.2.1 - -", "198.51.100.1 http -"],
            ),
            ("for=\"a,b;c\\\"d\", for=_x", &["a,b;c\"d - -", "_x - -"]),
            ("for=192.0.2.1; proto=https", &["192.0.2.1 https -"]),
            (
                "for=[2001:db8::1]:80;host=a:81",
                &["[2001:db8::1]:80 - a:81"],
            ),
            ("for=a,,for=b", &["a - -", "- - -", "b - -"]),
            ("", &["- - -"]),
            (";;for=a;", &["a - -"]),
            ("secret=x;for=a", &["a - -"]),
            ("for=\"\"", &[" - -"]),
        ] {
            let expected: Vec<_> = elements.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(parsed(field), Some(expected), "{field}");
        }
        for malformed in [
            "for",
            "for=\"a",
            "for=\"a\\",
            "for=a b",
            "for =a",
            "for= a=b",
            "=a",
            "for=a;for=b",
            "for=a;proto=http;Proto=https",
            "for=\"a\"b",
            "for=a/b",
            "192.0.2.1",
        ] {
            assert_eq!(parsed(malformed), None, "{malformed}");
        }
    }
}
