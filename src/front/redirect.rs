//! The location of a redirect.

use preforkd_http::Request;

use crate::hosts::without_port;

/// Fills in the parts of what was asked for. `{host}` is the host without its port, `{path}` the path as sent, `{query}` the query with its
/// question mark, if there is one.
/// `{rest}` is the part of the path after the first `stripped` bytes.
pub(crate) fn location(pattern: &str, request: Request<'_>, stripped: usize) -> Vec<u8> {
    let host = request.authority().or_else(|| request.field(b"host"));
    let parts = Parts {
        host: host.map(without_port).unwrap_or_default(),
        path: match request.path() {
            b"*" => b"/",
            path => path,
        },
        rest: request.path().get(stripped..).unwrap_or_default(),
        query: request.query(),
    };
    fill(pattern, &parts)
}

struct Parts<'a> {
    host: &'a [u8],
    path: &'a [u8],
    rest: &'a [u8],
    query: &'a [u8],
}

fn fill(pattern: &str, parts: &Parts<'_>) -> Vec<u8> {
    let mut location = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('{') {
        location.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let known = [("{host}", 0), ("{path}", 1), ("{rest}", 2), ("{query}", 3)];
        let known = known
            .into_iter()
            .find_map(|(name, part)| Some((rest.strip_prefix(name)?, part)));
        let Some((after, part)) = known else {
            location.push(b'{');
            rest = &rest[1..];
            continue;
        };
        let path = if part == 2 { parts.rest } else { parts.path };
        match part {
            0 => location.extend_from_slice(parts.host),
            // At the beginning, a second slash would make a host of what follows (RFC 3986 section 4.2), and so would a backslash in
            // browsers.
            1 | 2 if location.is_empty() => {
                let inner = path.iter().position(|b| !b"/\\".contains(b));
                location.push(b'/');
                location.extend_from_slice(&path[inner.unwrap_or(path.len())..]);
            }
            1 | 2 => location.extend_from_slice(path),
            _ if parts.query.is_empty() => {}
            _ => {
                location.push(b'?');
                location.extend_from_slice(parts.query);
            }
        }
        rest = after;
    }
    location.extend_from_slice(rest.as_bytes());
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_what_was_asked_for_are_filled_in() {
        for (pattern, path, query, location) in [
            (
                "https://{host}{path}{query}",
                "/a%20b",
                "c=d?e",
                "https://shop.example/a%20b?c=d?e",
            ),
            (
                "https://{host}:8443{path}{query}",
                "/",
                "",
                "https://shop.example:8443/",
            ),
            (
                "https://other.example/",
                "/a",
                "b",
                "https://other.example/",
            ),
            ("/new{path}", "/a", "b", "/new/a"),
            ("{path}/", "//evil.example", "", "/evil.example/"),
            ("{path}/", "/\\evil.example", "", "/evil.example/"),
            ("{path}", "/", "", "/"),
            ("/new{rest}{query}", "/old/a%20b", "c", "/new/a%20b?c"),
            (
                "https://new.example{rest}",
                "/old",
                "",
                "https://new.example",
            ),
            ("{rest}", "/old//evil.example", "", "/evil.example"),
            ("{rest}", "/old", "", "/"),
            ("/x?{other}", "/a", "b", "/x?{other}"),
        ] {
            let parts = Parts {
                host: b"shop.example",
                path: path.as_bytes(),
                rest: path.strip_prefix("/old").unwrap_or_default().as_bytes(),
                query: query.as_bytes(),
            };
            let found = fill(pattern, &parts);
            assert_eq!(String::from_utf8_lossy(&found), location, "{pattern}");
        }
    }
}
