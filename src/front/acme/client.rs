//! The way to the authority: HTTPS, with what its answers say about when to come back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response};
use http_body_util::Limited;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::tls::outgoing::{self, Connector};

/// The largest answer that is read, in bytes: a chain of certificates is a few thousand.
const MOST: usize = 1 << 20;

/// What the latest answer has said about when to come back, in seconds: a refusal, or one that something is not ready.
pub type RetryAfter = Arc<Mutex<Option<u64>>>;

/// A client of HTTPS.
pub struct Client {
    pool: Pool<Connector, BodyWrapper<Bytes>>,
    retry_after: RetryAfter,
}

impl Client {
    /// One that trusts these issuers, in PEM, or those that the system trusts.
    ///
    /// # Errors
    /// There is none that can be used.
    pub fn new(ca: Option<&str>, retry_after: RetryAfter) -> Result<Self, String> {
        let connector = outgoing::connector(ca)?;
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Ok(Self { pool, retry_after })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answered = self.pool.request(request);
        let retry_after = self.retry_after.clone();
        Box::pin(async move {
            let response = answered.await.map_err(|error| Error::Other(error.into()))?;
            let (parts, body) = response.into_parts();
            let told = parts.headers.get(RETRY_AFTER);
            let told = told.and_then(|value| seconds(value.to_str().ok()?, SystemTime::now()));
            *retry_after.lock().unwrap_or_else(PoisonError::into_inner) = told;
            let body = Limited::new(body, MOST);
            Ok(Response::from_parts(parts, body).into())
        })
    }
}

/// A number of seconds, or a date (RFC 9110 section 10.2.3).
fn seconds(value: &str, now: SystemTime) -> Option<u64> {
    let value = value.trim();
    value.parse().ok().or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        let left = date.duration_since(now).unwrap_or_default();
        Some(left.as_secs() + u64::from(left.subsec_nanos() > 0))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_authority_names_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_776_500);
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(1)),
            ("Sun, 06 Nov 1994 09:49:36 GMT", Some(3600)),
            ("Sun, 06 Nov 1994 07:49:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(seconds(value, now), expected, "{value}");
        }
    }
}
