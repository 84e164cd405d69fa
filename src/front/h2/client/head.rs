//! Heads on their way to an upstream and back: from the form of HTTP/1.1 to that of HTTP/2, and from there to HTTP/1.1.

use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri};

use super::super::body::Rest;
use super::super::chunks::Chunks;
use super::super::response::{field, is_of_http1, line};

/// The head of a request.
pub struct Asked {
    /// In the form of the library.
    pub request: Request<()>,
    /// The bytes that it took.
    pub length: usize,
    /// How its body comes, if there is one.
    pub rest: Option<Rest>,
}

/// Reads the head at the beginning of `bytes`, which is one that we have written. None if it cannot be said in HTTP/2.
pub fn request(bytes: &[u8]) -> Option<Asked> {
    let mut rest = bytes;
    let mut first = line(&mut rest)?.split(|&byte| byte == b' ');
    let (method, target) = (first.next()?, first.next()?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    let target = PathAndQuery::try_from(target).ok().filter(|parsed| {
        // What comes after a `#` is dropped by the parser.
        parsed.as_str().len() == target.len()
    })?;
    let (mut authority, mut body) = (None, None);
    loop {
        let line = line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line)?;
        if name == header::HOST {
            if !value.is_empty() {
                authority = Some(Authority::try_from(value.as_bytes()).ok()?);
            }
            continue;
        }
        if name == header::TRANSFER_ENCODING {
            body = Some(Rest::Chunks(Chunks::default()));
        }
        if is_of_http1(name.as_str()) {
            continue;
        }
        if name == header::CONTENT_LENGTH {
            let length = value.to_str().ok()?.parse().ok()?;
            body = (length > 0).then_some(Rest::Length(length));
        }
        request.headers_mut().append(name, value);
    }
    let mut uri = http::uri::Parts::default();
    if let Some(authority) = authority {
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(authority);
    }
    uri.path_and_query = Some(target);
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    Some(Asked {
        request,
        length: bytes.len() - rest.len(),
        rest: body,
    })
}

/// How the end of a body is seen in the form of HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// Appends the head of a response to `out`. `is_bare`: it has no body, whatever it says, as its request was HEAD. `ends`: none follows.
pub fn response(
    status: StatusCode,
    fields: &HeaderMap,
    is_bare: bool,
    ends: bool,
    out: &mut Vec<u8>,
) -> Framing {
    let length = fields.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_bare = is_bare || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let framing = match length {
        _ if is_bare => Framing::None,
        _ if ends => Framing::Length(0),
        // Only after chunks there is a place for what follows the body.
        Some(length) if !has_trailers(fields) => Framing::Length(length),
        _ => Framing::Chunked,
    };
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in fields {
        let is_left_out = is_of_http1(name.as_str())
            || *name == header::CONTENT_LENGTH && framing == Framing::Chunked;
        if !is_left_out {
            add(out, name, value.as_bytes());
        }
    }
    match framing {
        Framing::Length(0) if length.is_none() => add(out, &header::CONTENT_LENGTH, b"0"),
        Framing::Chunked => add(out, &header::TRANSFER_ENCODING, b"chunked"),
        Framing::None | Framing::Length(_) => {}
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Whether fields are to be expected after the body: they were announced, or it is gRPC, whose status is one of them.
fn has_trailers(fields: &HeaderMap) -> bool {
    let kind = fields.get(header::CONTENT_TYPE);
    fields.contains_key(header::TRAILER) || kind.is_some_and(|kind| is_grpc(kind.as_bytes()))
}

/// Whether this `Content-Type` is that of gRPC ("gRPC over HTTP2"), and not of what only resembles it, such as gRPC-Web.
pub fn is_grpc(kind: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    kind.split_at_checked(GRPC.len())
        .is_some_and(|(own, rest)| {
            own.eq_ignore_ascii_case(GRPC)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
}

fn add(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_that_of_http_1_without_what_is_for_its_connection() {
        let bytes = b"POST /a?b=%2F HTTP/1.1\r\nHost: a.example:81\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\
            Connection: TE\r\nTE: trailers\r\n\r\n3\r\nabc\r\n";
        let asked = request(bytes).unwrap();
        assert_eq!(asked.length, bytes.len() - 8);
        assert!(matches!(asked.rest, Some(Rest::Chunks(_))));
        let (parts, ()) = asked.request.into_parts();
        assert_eq!(parts.uri.to_string(), "http://a.example:81/a?b=%2F");
        let fields: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(fields, ["x-a", "te"]);
    }

    #[test]
    fn a_body_has_a_length_or_there_is_none() {
        for (field, expected) in [("Content-Length: 3", Some(3)), ("Content-Length: 0", None)] {
            let asked = request(format!("PUT / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").as_bytes())
                .unwrap();
            let length = match asked.rest {
                Some(Rest::Length(length)) => Some(length),
                _ => None,
            };
            assert_eq!(length, expected, "{field}");
            assert!(asked.request.headers().contains_key("content-length"));
        }
    }

    #[test]
    fn what_cannot_be_said_in_http_2_is_none() {
        for head in [
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ] {
            assert!(request(head.as_bytes()).is_none(), "{head}");
        }
        let none = request(b"GET / HTTP/1.1\r\nHost: \r\n\r\n").unwrap();
        assert_eq!(none.request.uri().to_string(), "/");
        let all = request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(all.request.uri().path(), "*");
    }

    #[test]
    fn a_response_says_where_it_ends() {
        let seen = |status: u16, fields: &[(&'static str, &str)], is_bare, ends| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, value.parse().unwrap());
            }
            let mut out = Vec::new();
            let status = StatusCode::from_u16(status).unwrap();
            let framing = response(status, &map, is_bare, ends, &mut out);
            (String::from_utf8(out).unwrap(), framing)
        };
        let (length, kind) = ("content-length", "content-type");
        for (status, fields, is_bare, ends, head, framing) in [
            (
                200,
                &[][..],
                false,
                false,
                "200 OK\r\ntransfer-encoding: chunked",
                Framing::Chunked,
            ),
            (
                200,
                &[],
                false,
                true,
                "200 OK\r\ncontent-length: 0",
                Framing::Length(0),
            ),
            (
                200,
                &[(length, "5")],
                false,
                false,
                "200 OK\r\ncontent-length: 5",
                Framing::Length(5),
            ),
            (
                200,
                &[(length, "5")],
                true,
                true,
                "200 OK\r\ncontent-length: 5",
                Framing::None,
            ),
            (200, &[], true, true, "200 OK", Framing::None),
            (204, &[], false, true, "204 No Content", Framing::None),
            (
                103,
                &[("link", "x")],
                false,
                false,
                "103 Early Hints\r\nlink: x",
                Framing::None,
            ),
            (
                299,
                &[(length, "0")],
                false,
                true,
                "299 \r\ncontent-length: 0",
                Framing::Length(0),
            ),
            (
                200,
                &[(kind, "application/grpc+proto"), (length, "5")],
                false,
                false,
                "200 OK\r\ncontent-type: application/grpc+proto\r\ntransfer-encoding: chunked",
                Framing::Chunked,
            ),
            (
                200,
                &[("trailer", "x"), (length, "5")],
                false,
                false,
                "200 OK\r\ntrailer: x\r\ntransfer-encoding: chunked",
                Framing::Chunked,
            ),
        ] {
            let expected = (format!("HTTP/1.1 {head}\r\n\r\n"), framing);
            assert_eq!(seen(status, fields, is_bare, ends), expected);
        }
    }

    #[test]
    fn grpc_is_known_by_its_type() {
        for kind in [
            "application/grpc",
            "Application/gRPC+json",
            "application/grpc;x=y",
        ] {
            assert!(is_grpc(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "application/grpc-web",
            "application/grpcx",
            "application/json",
            "",
        ] {
            assert!(!is_grpc(kind.as_bytes()), "{kind}");
        }
    }
}
