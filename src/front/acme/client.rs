//! The way to the authority: HTTPS, with what its answers say about when to come back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

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

/// What the latest refusal has said about when to come back, in seconds.
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
            if !parts.status.is_success() {
                let told = parts.headers.get(RETRY_AFTER);
                let told = told.and_then(|value| seconds(value.to_str().ok()?));
                *retry_after.lock().unwrap_or_else(PoisonError::into_inner) = told;
            }
            let body = Limited::new(body, MOST);
            Ok(Response::from_parts(parts, body).into())
        })
    }
}

/// A number of seconds. The other form, a date, is left to the waits of our own.
fn seconds(value: &str) -> Option<u64> {
    value.trim().parse().ok()
}
