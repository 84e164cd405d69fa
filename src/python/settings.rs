//! What the settings of a worker mean to the HTTP server and to the process.

use preforkd_http::Limits;
use preforkd_worker::settings::Settings;

/// The limits of the HTTP server. A size that does not fit into memory is no limit.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        max_head: size(settings.max_head),
        max_fields: settings.max_headers as usize,
        max_body: settings.max_body,
        body_in_memory: size(settings.body_in_memory),
        max_connections: settings.max_connections.max(1) as usize,
        header_timeout: settings.header_timeout,
        body_timeout: settings.body_timeout,
        write_timeout: settings.write_timeout,
        keepalive_timeout: settings.keepalive_timeout,
    }
}

/// After how many requests this worker asks to be replaced, by chance between `max_requests` and
/// `max_requests_jitter` more.
pub(crate) fn lifetime(settings: &Settings) -> Option<u64> {
    use std::hash::{BuildHasher, RandomState};
    // A fork inherits the thread's keys if the template has used them, so it is the process id that tells workers apart.
    let chance = RandomState::new().hash_one(std::process::id());
    let most = settings.max_requests?;
    Some(most.saturating_add(chance % settings.max_requests_jitter.saturating_add(1)))
}

/// Seconds after SIGTERM until the worker ends itself, should nobody be there to kill it: a little more than the master waits.
pub(crate) fn last_resort(settings: &Settings) -> u32 {
    let seconds = settings.graceful_timeout.as_secs_f64().ceil();
    (seconds as u32).saturating_add(1)
}
