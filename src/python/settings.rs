//! What the settings of a worker mean to the process.

use std::time::{SystemTime, UNIX_EPOCH};

use preforkd_worker::settings::Settings;

/// After how many requests this worker asks to be replaced, by chance between `max_requests` and
/// `max_requests_jitter` more.
pub(crate) fn lifetime(settings: &Settings) -> Option<u64> {
    let most = settings.max_requests?;
    // A fork inherits the state of every generator, so each worker seeds one of its own: the process id tells
    // workers of one instant apart, the time those of one process id.
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = time.map_or(0, |time| time.as_nanos() as u64);
    let mut random = fastrand::Rng::with_seed(time ^ u64::from(std::process::id()).rotate_left(32));
    Some(most.saturating_add(random.u64(0..=settings.max_requests_jitter)))
}

/// Seconds after SIGTERM until the worker ends itself, should nobody be there to kill it: a little more than the master waits.
pub(crate) fn last_resort(settings: &Settings) -> u32 {
    let seconds = settings.http.graceful_timeout.as_secs_f64().ceil();
    (seconds as u32).saturating_add(1)
}
