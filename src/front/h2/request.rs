//! A request of HTTP/2 in the form of HTTP/1.1, for the parser that both have in common. What could be understood in two ways there is
//! malformed here (RFC 9113 sections 8.1 to 8.3); the rest is for the parser to judge.

use http::HeaderMap;
use http::header::{self, HeaderName};
use http::request::Parts;

use super::websocket::{self, Handshake};

/// Why a request is malformed: a stream error of type PROTOCOL_ERROR (RFC 9113 section 8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// How the parser learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// What follows is no HTTP once the upgrade with this key was answered.
    Tunnel(Handshake),
}

/// Writes the head of a request. `ends`: no body follows.
///
/// # Errors
/// It is malformed.
pub fn head(request: &Parts, ends: bool) -> Result<(Vec<u8>, Framing), Malformed> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = request;
    if uri
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        return Err(Malformed("the scheme is neither http nor https"));
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    let host = host(authority, headers)?;
    let target = match (uri.path_and_query(), authority) {
        (Some(target), _) => target.as_str(),
        // CONNECT, which the parser refuses as it does over HTTP/1.1.
        (None, Some(authority)) => authority,
        (None, None) => return Err(Malformed("there is no path")),
    };
    // An absolute target is for HTTP/1.
    let is_websocket = websocket::is_asked(request);
    let is_connect = method == http::Method::CONNECT && !is_websocket;
    let target = match authority {
        // Nobody is connected to a host.
        Some(authority) if is_connect => authority,
        _ => target,
    };
    let method = match is_websocket {
        true => "GET",
        false => method.as_str(),
    };
    if !(target.starts_with('/') || target == "*" || is_connect) {
        return Err(Malformed("the path does not begin with a slash"));
    }
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Malformed("the path has a space or a control character"));
    }
    let mut text = Vec::with_capacity(512);
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    if let Some(host) = host {
        field(&mut text, &header::HOST, host)?;
    }
    let mut has_cookie = false;
    for (name, value) in headers {
        match *name {
            header::HOST => {}
            // It says nothing that the end of the stream does not say.
            header::CONTENT_LENGTH if !ends && length(headers)? == Some(0) => {}
            header::COOKIE if has_cookie => {}
            header::COOKIE => {
                has_cookie = true;
                cookies(&mut text, headers)?;
            }
            header::CONTENT_LENGTH if is_websocket => {
                return Err(Malformed("there is a length, and the stream is no body"));
            }
            header::SEC_WEBSOCKET_KEY if is_websocket => {}
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => {
                return Err(Malformed("a field is for one connection of HTTP/1 only"));
            }
            header::TE if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                return Err(Malformed("TE is not trailers"));
            }
            _ if matches!(name.as_str(), "keep-alive" | "proxy-connection") => {
                return Err(Malformed("a field is for one connection of HTTP/1 only"));
            }
            _ => field(&mut text, name, value.as_bytes())?,
        }
    }
    if is_websocket {
        let handshake = Handshake::new().ok_or(Malformed("there are no random bytes"))?;
        field(&mut text, &header::SEC_WEBSOCKET_KEY, handshake.key())?;
        text.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n");
        return match ends {
            true => Err(Malformed("the stream has ended, and is to go on")),
            false => Ok((text, Framing::Tunnel(handshake))),
        };
    }
    let framing = match ends {
        true => Framing::None,
        false => match length(headers)? {
            Some(length @ 1..) => Framing::Length(length),
            Some(0) | None => {
                text.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Framing::Chunked
            }
        },
    };
    text.extend_from_slice(b"\r\n");
    Ok((text, framing))
}

/// The end of a body in chunks, with the fields that follow it.
///
/// # Errors
/// They are malformed.
pub fn end(trailers: &HeaderMap) -> Result<Vec<u8>, Malformed> {
    let mut text = b"0\r\n".to_vec();
    for (name, value) in trailers {
        field(&mut text, name, value.as_bytes())?;
    }
    text.extend_from_slice(b"\r\n");
    Ok(text)
}

/// The length of the body, if it was announced.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let digits = value.to_str().ok();
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|text| text.parse().ok());
    length.map_or(Err(Malformed("the length is no number")), |length| {
        Ok(Some(length))
    })
}

/// The host that is asked for. Where both `:authority` and `Host` are there, nobody may have to choose (RFC 9113 section 8.3.1).
fn host<'a>(
    authority: Option<&'a str>,
    headers: &'a HeaderMap,
) -> Result<Option<&'a [u8]>, Malformed> {
    let mut fields = headers.get_all(header::HOST).iter();
    let (first, another) = (fields.next(), fields.next());
    if another.is_some() {
        return Err(Malformed("there is more than one Host"));
    }
    let first = first.map(|value| value.as_bytes());
    let authority = authority.map(str::as_bytes);
    match (authority, first) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => {
            Err(Malformed("Host is not the authority"))
        }
        _ => Ok(authority.or(first)),
    }
}

/// Joins what may come in several fields, and means one (RFC 9113 section 8.2.3).
fn cookies(text: &mut Vec<u8>, headers: &HeaderMap) -> Result<(), Malformed> {
    text.extend_from_slice(b"cookie: ");
    for (number, value) in headers.get_all(header::COOKIE).iter().enumerate() {
        if number > 0 {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(trimmed(value.as_bytes())?);
    }
    text.extend_from_slice(b"\r\n");
    Ok(())
}

fn field(text: &mut Vec<u8>, name: &HeaderName, value: &[u8]) -> Result<(), Malformed> {
    text.extend_from_slice(name.as_str().as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(trimmed(value)?);
    text.extend_from_slice(b"\r\n");
    Ok(())
}

/// A value that neither begins nor ends with white space (RFC 9113 section 8.2.1). Line ends and NUL the library has refused; that
/// none gets through depends on this place alone.
fn trimmed(value: &[u8]) -> Result<&[u8], Malformed> {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if space(value.first()) || space(value.last()) {
        return Err(Malformed("a value begins or ends with white space"));
    }
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(Malformed("a value has a line end or NUL"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn written(method: &str, uri: &str, fields: &[(&str, &str)], ends: bool) -> String {
        let (text, _) = head(&parts(method, uri, fields), ends).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_request_gets_the_form_of_http_1() {
        for (method, uri, fields, ends, expected) in [
            (
                "GET",
                "https://a.example/x?y=%2F",
                &[("accept", "*/*"), ("x-a", "")][..],
                true,
                "GET /x?y=%2F HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\nx-a: \r\n\r\n",
            ),
            (
                "POST",
                "http://a:81/",
                &[("host", "A:81"), ("content-length", "3")],
                false,
                "POST / HTTP/1.1\r\nhost: a:81\r\ncontent-length: 3\r\n\r\n",
            ),
            (
                "POST",
                "/",
                &[("host", "b"), ("content-length", "00")],
                false,
                "POST / HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (
                "PUT",
                "/x",
                &[("host", "b"), ("te", "trailers")],
                false,
                "PUT /x HTTP/1.1\r\nhost: b\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (
                "OPTIONS",
                "*",
                &[("cookie", "a=1"), ("x-b", "2"), ("cookie", "b=2; c=3")],
                true,
                "OPTIONS * HTTP/1.1\r\ncookie: a=1; b=2; c=3\r\nx-b: 2\r\n\r\n",
            ),
            (
                "CONNECT",
                "a:443",
                &[],
                false,
                "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ] {
            assert_eq!(written(method, uri, fields, ends), expected);
        }
    }

    #[test]
    fn websocket_is_an_upgrade_and_nothing_else_is() {
        let with = |protocol, fields: &[(&str, &str)], ends| {
            let mut parts = parts("CONNECT", "https://a/chat?x", fields);
            let protocol = h2::ext::Protocol::from_static(protocol);
            parts.extensions.insert(protocol);
            head(&parts, ends).map(|(text, framing)| (String::from_utf8(text).unwrap(), framing))
        };
        let fields = [
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "theirs"),
        ];
        let (text, framing) = with("websocket", &fields, false).unwrap();
        let Framing::Tunnel(handshake) = framing else {
            panic!("{framing:?}");
        };
        let key = String::from_utf8_lossy(handshake.key());
        assert_eq!(
            text,
            format!(
                "GET /chat?x HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\
                 connection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
        );
        assert!(with("websocket", &[], true).is_err());
        assert!(with("websocket", &[("content-length", "3")], false).is_err());
        let (text, framing) = with("connect-udp", &[], false).unwrap();
        assert!(text.starts_with("CONNECT a HTTP/1.1\r\n"), "{text}");
        assert_eq!(framing, Framing::Chunked);
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_malformed() {
        for (uri, fields) in [
            ("https://a/", &[("host", "b")][..]),
            ("https://a/", &[("host", "a"), ("host", "a")]),
            ("/", &[("host", "a"), ("host", "b")]),
            ("ftp://a/", &[]),
            ("*x", &[]),
            ("https://a/", &[("connection", "close")]),
            ("https://a/", &[("transfer-encoding", "chunked")]),
            ("https://a/", &[("upgrade", "websocket")]),
            ("https://a/", &[("keep-alive", "1")]),
            ("https://a/", &[("proxy-connection", "close")]),
            ("https://a/", &[("te", "gzip")]),
            ("https://a/", &[("x-a", " b")]),
            ("https://a/", &[("x-a", "b\t")]),
            ("https://a/", &[("cookie", "a "), ("cookie", "b")]),
        ] {
            let Ok(uri) = http::Uri::try_from(uri) else {
                continue;
            };
            let mut parts = parts("GET", "/", fields);
            parts.uri = uri.clone();
            assert!(head(&parts, true).is_err(), "{uri} {fields:?}");
        }
        for length in ["-1", "+1", "1 ", "0x1", "18446744073709551616"] {
            let parts = parts("POST", "http://a/", &[("content-length", length)]);
            assert!(head(&parts, false).is_err(), "{length}");
        }
    }
}
