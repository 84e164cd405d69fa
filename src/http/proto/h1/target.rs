//! Request targets and hosts (RFC 9112 section 3.2, RFC 9110 sections 4 and 7.2).

use crate::proto::bytes;
use crate::proto::reject::Reject;

/// A request target, split. The parts are offsets into the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Start and end of the path; empty for an absolute target without one.
    pub path: (usize, usize),
    /// Start and end of the query, without its question mark.
    pub query: (usize, usize),
    /// Start and end of the authority of an absolute target.
    pub authority: Option<(usize, usize)>,
}

pub(crate) fn parse(method: &[u8], target: &[u8]) -> Result<Target, Reject> {
    // RFC 9112 section 3.2: no whitespace, and a fragment is not part of a target. Characters that the grammar leaves out
    // but that browsers send in queries ("|", "{", "^") are not ambiguous and pass.
    if !bytes::all(bytes::TARGET, target) {
        return Err(Reject::bad("invalid character in the request target"));
    }
    if method == b"CONNECT" {
        return Err(Reject::with(501, "CONNECT is not supported"));
    }
    if target.first() == Some(&b'/') {
        return Ok(split(target, 0, None));
    }
    if target == b"*" {
        return match method {
            b"OPTIONS" => Ok(split(target, 0, None)),
            _ => Err(Reject::bad("only OPTIONS has the target *")),
        };
    }
    let scheme_end = [&b"http://"[..], b"https://"]
        .iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|s| s.eq_ignore_ascii_case(scheme))
        })
        .map(|scheme| scheme.len())
        .ok_or(Reject::bad("invalid request target"))?;
    let rest = &target[scheme_end..];
    let end = scheme_end
        + rest
            .iter()
            .position(|b| matches!(b, b'/' | b'?'))
            .unwrap_or(rest.len());
    host(&target[scheme_end..end])?;
    Ok(split(target, end, Some((scheme_end, end))))
}

fn split(target: &[u8], path: usize, authority: Option<(usize, usize)>) -> Target {
    match memchr::memchr(b'?', &target[path..]) {
        Some(n) => Target {
            path: (path, path + n),
            query: (path + n + 1, target.len()),
            authority,
        },
        None => Target {
            path: (path, target.len()),
            query: (target.len(), target.len()),
            authority,
        },
    }
}

/// Checks a `Host` value or an authority: `uri-host [ ":" port ]` of RFC 3986 section 3.2, without user information
/// (RFC 9110 section 4.2.4) and without the comma, which may be two joined fields.
pub(crate) fn host(value: &[u8]) -> Result<(), Reject> {
    const BAD: Reject = Reject::bad("invalid host");
    let (name, port) = if value.first() == Some(&b'[') {
        let end = memchr::memchr(b']', value).ok_or(BAD)?;
        let literal = &value[1..end];
        let address = literal
            .iter()
            .all(|&b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
        let future = matches!(literal.first(), Some(b'v' | b'V'))
            && literal
                .iter()
                .all(|&b| bytes::is(bytes::NAME, b) || b == b':');
        if !(address && literal.contains(&b':') || future) {
            return Err(BAD);
        }
        (literal, &value[end + 1..])
    } else {
        let end = memchr::memchr(b':', value).unwrap_or(value.len());
        if !bytes::all(bytes::NAME, &value[..end]) {
            return Err(BAD);
        }
        value.split_at(end)
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if name.is_empty() || !port_ok {
        Err(BAD)
    } else {
        Ok(())
    }
}

/// Decodes `%XX` once; a percent sign without two hexadecimal digits stays as it is.
pub fn percent_decode(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = raw;
    while let Some(n) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..n]);
        match rest
            .get(n + 1..n + 3)
            .and_then(|d| Some((hex(d[0])?, hex(d[1])?)))
        {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &rest[n + 3..];
            }
            None => {
                out.push(b'%');
                rest = &rest[n + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split() {
        let parts = |method: &[u8], target: &'static [u8]| {
            let t = parse(method, target).unwrap();
            (
                &target[t.path.0..t.path.1],
                &target[t.query.0..t.query.1],
                t.authority.map(|(a, b)| &target[a..b]),
            )
        };
        assert_eq!(parts(b"GET", b"/a?b?c"), (&b"/a"[..], &b"b?c"[..], None));
        assert_eq!(parts(b"GET", b"/"), (&b"/"[..], &b""[..], None));
        assert_eq!(parts(b"OPTIONS", b"*"), (&b"*"[..], &b""[..], None));
        assert_eq!(
            parts(b"GET", b"HTTP://h:1/p?q"),
            (&b"/p"[..], &b"q"[..], Some(&b"h:1"[..]))
        );
        assert_eq!(
            parts(b"GET", b"http://h?q"),
            (&b""[..], &b"q"[..], Some(&b"h"[..]))
        );
    }

    #[test]
    fn hosts_are_checked() {
        for good in [
            "a",
            "a.b:80",
            "127.0.0.1",
            "[::1]:8000",
            "a_b",
            "xn--a",
            "a:",
            "[v1.a:b]",
        ] {
            assert!(host(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a@b", "a/b", "a,b", "a:b", "a:1:2", "[::1", "[]", "[::1]x", "[zz]",
            "a\x7f", "a:123456",
        ] {
            assert!(host(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_signs_are_decoded_once() {
        for (raw, decoded) in [
            ("/a%20b", "/a b"),
            ("%2525", "%25"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            percent_decode(raw.as_bytes(), &mut out);
            assert_eq!(out, decoded.as_bytes(), "{raw}");
        }
    }
}
