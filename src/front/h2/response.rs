//! The head of a response of HTTP/1.1, as our own encoder writes it, in the form of HTTP/2.

use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// In the form of the library.
    pub response: Response<()>,
    /// The bytes that it took.
    pub length: usize,
    /// The length of the body that it announces.
    pub body: Option<u64>,
}

/// Reads the head at the beginning of `bytes`. None if it is not whole, or not one of ours.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let mut rest = bytes;
    let line = line(&mut rest)?;
    let status = line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).ok()?;
    let mut body = None;
    loop {
        let line = self::line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], line.get(colon + 2..)?);
        let name = HeaderName::from_bytes(name).ok()?;
        if is_of_http1(name.as_str()) {
            continue;
        }
        if name == http::header::CONTENT_LENGTH {
            body = str::from_utf8(value).ok()?.parse().ok();
        }
        // The values of an upstream may have spaces at their ends no more than ours.
        let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
        response.headers_mut().append(name, value);
    }
    Some(Head {
        response,
        length: bytes.len() - rest.len(),
        body,
    })
}

/// Takes the next line.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    let line = rest[..end].strip_suffix(b"\r")?;
    *rest = &rest[end + 1..];
    Some(line)
}

/// Fields that have no meaning in HTTP/2, and must not be sent (RFC 9113 section 8.2.2).
fn is_of_http1(name: &str) -> bool {
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
