//! What requests of a certificate authority are answered with, which prove over plain HTTP that a host is ours (RFC 8555 section 8.3).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use preforkd_http::{Request, Response};
use preforkd_worker::acme::PATH;

/// The answers, by the token that the path of a request ends with. They count for each host and listener: a token is secret until the authority
/// has asked for it, and only that can have sent who asks.
#[derive(Debug, Default)]
pub struct Proofs(RwLock<BTreeMap<String, Arc<str>>>);

impl Proofs {
    /// Takes others instead.
    pub fn replace(&self, all: &BTreeMap<String, String>) {
        let all = all
            .iter()
            .map(|(token, answer)| (token.clone(), answer.as_str().into()));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    /// The answer to a request, if it asks for one that is known.
    pub fn find(&self, request: Request<'_>) -> Option<Arc<str>> {
        let token = token(request)?;
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(token).cloned()
    }
}

/// The token for whose answer a request may ask.
pub fn token(request: Request<'_>) -> Option<&str> {
    let token = request.path().strip_prefix(PATH.as_bytes())?;
    str::from_utf8(token).ok().filter(|token| !token.is_empty())
}

/// Answers a request.
pub fn answer(text: &str, response: &mut Response) {
    let begun = response
        .begin(b"200 OK")
        .and_then(|()| response.field(b"Content-Type", b"application/octet-stream"));
    if begun.is_err() {
        response.discard();
        response.fail(500, "500 Internal Server Error\n");
        return;
    }
    response.finish(Some(text.len() as u64));
    response.write(text.as_bytes());
    response.end();
}
