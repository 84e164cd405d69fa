//! Static files that nobody serves: a Django site answers with 404 below its `STATIC_URL`, and no mapping of `static` is there. Then pages
//! have no styles, and nothing else says why.

use std::sync::Mutex;
use std::time::Instant;

use preforkd_http::{Rate, Request};
use preforkd_worker::settings::Settings;
use pyo3::prelude::*;

use crate::django::Django;
use crate::line::Line;

/// The pause between two lines, in nanoseconds.
const PAUSE: u64 = 60_000_000_000;

/// What to say of requests that the application has answered with 404.
pub(crate) struct Unserved {
    /// The path of `STATIC_URL`.
    path: String,
    /// What serves the application below another path.
    prefix: String,
    advice: String,
    begun: Instant,
    rate: Mutex<Rate>,
}

impl Unserved {
    /// For a loaded Django site whose `STATIC_URL` is a path of it that no mapping leads to; none if files are served otherwise.
    pub fn find(py: Python<'_>, settings: &Settings) -> Option<Self> {
        let django = Django::find(py).ok()??;
        let path = django.own_path().filter(|_| !django.serves_static)?;
        // What Django itself is asked for was told when the worker began to serve.
        let mut prefixes = settings.static_files.keys();
        let is_mapped = settings.django_static || prefixes.any(|prefix| path.starts_with(prefix));
        (!is_mapped).then(|| Self {
            advice: django.advice(),
            path,
            prefix: settings.prefix.clone(),
            begun: Instant::now(),
            rate: Mutex::new(Rate::new(1, PAUSE)),
        })
    }

    /// The application has answered this request with 404.
    #[cold]
    pub fn note(&self, request: Request<'_>) {
        if !self.is_below(request.path()) {
            return;
        }
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let left_out = self.rate.lock().ok().and_then(|mut rate| rate.take(now));
        if let Some(left_out) = left_out {
            log::warn!(
                "the application has answered 404 to {}, and no entry of `static` is for {} ({}){left_out}",
                Line(request),
                self.path,
                self.advice
            );
        }
    }

    fn is_below(&self, path: &[u8]) -> bool {
        let below = path.strip_prefix(self.prefix.as_bytes()).unwrap_or(path);
        path.starts_with(self.path.as_bytes()) || below.starts_with(self.path.as_bytes())
    }
}
