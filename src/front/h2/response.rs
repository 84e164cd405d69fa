//! The head of a response of HTTP/1.1, as our own encoder writes it, in the form of HTTP/2.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

/// Lines that nearly all heads have, and which need not be read.
const SERVER: &[u8] = b"Server: preforkd";
const CLOSE: &[u8] = b"Connection: close";

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// In the form of the library.
    pub response: Response<()>,
    /// The bytes that it took.
    pub length: usize,
    /// The length of the body that it announces.
    pub body: Option<u64>,
    /// The body comes in chunks.
    pub chunked: bool,
}

/// Reads the head at the beginning of `bytes`. None if it is not whole, or not one of ours.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let mut rest = bytes;
    let line = line(&mut rest)?;
    let status = line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).ok()?;
    let (mut body, mut chunked) = (None, false);
    loop {
        let line = self::line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        if line == CLOSE {
            continue;
        }
        let (name, value) = match line == SERVER {
            true => (header::SERVER, HeaderValue::from_static("preforkd")),
            false => field(line)?,
        };
        if is_of_http1(name.as_str()) {
            chunked |= name == header::TRANSFER_ENCODING;
            continue;
        }
        if name == header::CONTENT_LENGTH {
            body = value.to_str().ok()?.parse().ok();
        }
        response.headers_mut().append(name, value);
    }
    Some(Head {
        response,
        length: bytes.len() - rest.len(),
        body,
        chunked,
    })
}

/// The size of a chunk, and how much of `bytes` says it.
pub fn size(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut rest = bytes;
    let digits = str::from_utf8(line(&mut rest)?).ok()?;
    let size = u64::from_str_radix(digits, 16).ok()?;
    Some((size, bytes.len() - rest.len()))
}

/// The fields after the last chunk, up to the empty line.
pub fn trailers(bytes: &[u8]) -> Option<HeaderMap> {
    let mut rest = bytes;
    let mut fields = HeaderMap::new();
    loop {
        let line = line(&mut rest)?;
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = field(line)?;
        fields.append(name, value);
    }
}

/// The name and the value in a line.
pub fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = match known(&line[..colon]) {
        Some(name) => name,
        None => HeaderName::from_bytes(&line[..colon]).ok()?,
    };
    // No value may begin or end with a space (RFC 9113 section 8.2.1).
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// A name as our own encoder and most applications write it, which is found sooner than by its letters in lower case.
fn known(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"Accept-Ranges" => header::ACCEPT_RANGES,
        b"Cache-Control" => header::CACHE_CONTROL,
        b"Content-Encoding" => header::CONTENT_ENCODING,
        b"Content-Length" => header::CONTENT_LENGTH,
        b"Content-Type" => header::CONTENT_TYPE,
        b"Date" => header::DATE,
        b"ETag" => header::ETAG,
        b"Last-Modified" => header::LAST_MODIFIED,
        b"Location" => header::LOCATION,
        b"Set-Cookie" => header::SET_COOKIE,
        b"Transfer-Encoding" => header::TRANSFER_ENCODING,
        b"Vary" => header::VARY,
        _ => return None,
    })
}

/// Takes the next line, without its end.
pub fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(b'\n', rest)?;
    let line = rest[..end].strip_suffix(b"\r")?;
    *rest = &rest[end + 1..];
    Some(line)
}

/// Fields that have no meaning in HTTP/2, and must not be sent (RFC 9113 section 8.2.2).
pub fn is_of_http1(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_up_to_the_body() {
        let bytes = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nset-cookie: a\r\nSet-Cookie: b: c\r\nContent-Length: 2\r\n\
            Connection: close\r\nx-empty: \r\n\r\nok";
        let head = head(bytes).unwrap();
        assert_eq!((head.length, head.body), (bytes.len() - 2, Some(2)));
        let mut fields: Vec<_> = head.response.headers().iter().collect();
        fields.sort_by_key(|(name, _)| name.as_str().to_owned());
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                ("content-length", "2"),
                ("set-cookie", "a"),
                ("set-cookie", "b: c"),
                ("x-a", "1"),
                ("x-empty", ""),
            ]
        );
    }

    #[test]
    fn a_name_is_the_same_however_it_is_found() {
        for name in [
            "Accept-Ranges",
            "Cache-Control",
            "Content-Encoding",
            "Content-Length",
            "Content-Type",
            "Date",
            "ETag",
            "Last-Modified",
            "Location",
            "Set-Cookie",
            "Transfer-Encoding",
            "Vary",
            "Server",
        ] {
            let found = known(name.as_bytes());
            assert_eq!(found.is_some(), name != "Server");
            let (field, _) = field(format!("{name}: a").as_bytes()).unwrap();
            assert_eq!(field.as_str(), name.to_ascii_lowercase());
        }
        let bytes = b"HTTP/1.1 200 OK\r\nServer: preforkd\r\nConnection: close\r\n\r\n";
        let read = head(bytes).unwrap();
        assert_eq!(read.response.headers()["server"], "preforkd");
        assert_eq!(
            (read.length, read.response.headers().len()),
            (bytes.len(), 1)
        );
    }

    #[test]
    fn what_is_around_chunks_is_read() {
        assert_eq!(size(b"1f\r\nabc"), Some((31, 4)));
        assert_eq!(
            (size(b"1f\r"), size(b"\r\n"), size(b"x\r\n")),
            (None, None, None)
        );
        assert!(trailers(b"\r\n").unwrap().is_empty());
        let fields = trailers(b"X-A: b\r\nx-c:d \r\n\r\n").unwrap();
        assert_eq!(
            (&fields["x-a"], &fields["x-c"]),
            (
                &HeaderValue::from_static("b"),
                &HeaderValue::from_static("d")
            )
        );
        assert!(trailers(b"X-A: b\r\n").is_none());
    }

    #[test]
    fn a_head_that_is_not_whole_is_none() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\n";
        for end in 0..bytes.len() {
            assert!(head(&bytes[..end]).is_none(), "{end}");
        }
        assert_eq!(head(bytes).unwrap().response.status(), 100);
        assert!(head(b"HTTP/1.1 2\r\n\r\n").is_none());
        assert!(head(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n").is_none());
    }
}
