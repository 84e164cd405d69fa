//! WebSocket over HTTP/2 (RFC 8441): a stream that CONNECT with `:protocol` opens. To upstreams it is an upgrade of HTTP/1.1 (RFC 6455), whose
//! key and proof have no place in HTTP/2, so they are made and looked at here.

use base64ct::{Base64, Encoding as _};
use h2::ext::Protocol;
use http::request::Parts;
use http::{Response, StatusCode, header};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::tls::digest::sha1;

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key, and characters of it in Base64.
const KEY: usize = 16;
const TEXT: usize = 24;

/// Whether a request asks for it.
pub fn is_asked(request: &Parts) -> bool {
    let protocol = request.extensions.get::<Protocol>();
    request.method == http::Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

/// The key of one upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake([u8; TEXT]);

impl Handshake {
    /// One with a key of its own; none if the kernel has no random bytes.
    pub fn new() -> Option<Self> {
        let mut key = [0; KEY];
        let filled = getrandom(&mut key, GetRandomFlags::empty()).ok()?;
        (filled == KEY).then_some(())?;
        Self::of(key)
    }

    fn of(key: [u8; KEY]) -> Option<Self> {
        let mut text = [0; TEXT];
        Base64::encode(&key, &mut text).ok()?;
        Some(Self(text))
    }

    /// `Sec-WebSocket-Key`.
    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// Whether this `Sec-WebSocket-Accept` proves that the upstream has understood the request.
    pub fn is_proven_by(&self, accept: &[u8]) -> bool {
        let text = [&self.0[..], GUID].concat();
        let proof = sha1(&text);
        Base64::encode_string(proof.as_ref()).as_bytes() == accept
    }
}

/// What a response is to a request that asks for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stream goes on with it; the response says so.
    Switched,
    /// The client would take it for that, or nothing is proven. The response says that instead, and has no body.
    Wrong,
    /// It is refused, or an interim one.
    Other,
}

/// Makes the answer of HTTP/2 of a head of HTTP/1.1 (RFC 8441 section 5): a status of success means that the stream goes on.
pub fn answer(response: &mut Response<()>, handshake: &Handshake) -> Answer {
    let status = response.status();
    let proof = response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    let is_proven = proof.is_some_and(|proof| handshake.is_proven_by(proof.as_bytes()));
    match status {
        StatusCode::SWITCHING_PROTOCOLS if is_proven => {
            *response.status_mut() = StatusCode::OK;
            Answer::Switched
        }
        StatusCode::SWITCHING_PROTOCOLS => wrong(response),
        status if status.is_success() => wrong(response),
        _ => Answer::Other,
    }
}

fn wrong(response: &mut Response<()>) -> Answer {
    *response = Response::new(());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    Answer::Wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        let handshake = Handshake::of(*b"the sample nonce").unwrap();
        assert_eq!(handshake.key(), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert!(handshake.is_proven_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!handshake.is_proven_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
        assert_ne!(Handshake::new(), Handshake::new());
    }

    #[test]
    fn only_what_is_proven_goes_on_and_nothing_else_is_a_success() {
        let handshake = Handshake::of(*b"the sample nonce").unwrap();
        let proof = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        for (status, accept, answered, expected) in [
            (101, proof, 200, Answer::Switched),
            (101, "x", 502, Answer::Wrong),
            (200, proof, 502, Answer::Wrong),
            (204, "", 502, Answer::Wrong),
            (103, "", 103, Answer::Other),
            (302, "", 302, Answer::Other),
            (426, "", 426, Answer::Other),
        ] {
            let mut response = Response::builder()
                .status(status)
                .header("sec-websocket-accept", accept)
                .body(())
                .unwrap();
            assert_eq!(answer(&mut response, &handshake), expected, "{status}");
            assert_eq!(response.status().as_u16(), answered);
            assert!(response.headers().is_empty());
        }
    }
}
