//! What the settings of a worker mean to the HTTP server and to the process.

use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use preforkd_http::layer::{self, access_log};
use preforkd_http::{Limits, TrustedProxies};
use preforkd_worker::access_format::Format;
use preforkd_worker::env::Environment;
use preforkd_worker::proxy::Proxy;
use preforkd_worker::settings::Settings;

/// The limits of the HTTP server. A size that does not fit into memory is no limit.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        max_head: size(settings.max_head),
        max_fields: settings.max_headers as usize,
        max_body: settings.max_body,
        body_in_memory: size(settings.body_in_memory),
        response_in_memory: size(settings.response_in_memory),
        response_in_file: settings.response_in_file,
        max_buffered: settings.max_buffered,
        max_connections: settings.max_connections.max(1) as usize,
        header_timeout: settings.header_timeout,
        body_timeout: settings.body_timeout,
        write_timeout: settings.write_timeout,
        drain_timeout: settings.graceful_timeout,
        keepalive_timeout: settings.keepalive_timeout,
    }
}

/// What the layers of the HTTP server are made of.
///
/// # Errors
/// A setting that the master should have refused.
pub(crate) fn layers(
    settings: &Settings,
    environment: &Environment,
    access_log: Option<OwnedFd>,
) -> Result<layer::Options, String> {
    let access_log = access_log.map(|pipe| {
        let format = Format::parse(&settings.access_format).map_err(|error| {
            format!("could not read the setting access_format: {error} (only preforkd can set it)")
        })?;
        Ok::<_, String>(access_log::Options {
            pipe,
            format,
            worker: access_log::Worker {
                app: environment.app.clone(),
                slot: environment.slot.unwrap_or_default(),
                generation: environment.generation,
            },
        })
    });
    Ok(layer::Options {
        trusted_proxies: trusted_proxies(settings),
        forwarded_fields: settings.forwarded_fields.clone(),
        request_id: settings.request_id,
        access_log: access_log.transpose()?,
    })
}

/// Whose word about clients counts.
pub(crate) fn trusted_proxies(settings: &Settings) -> TrustedProxies {
    let mut trusted = TrustedProxies::default();
    for proxy in &settings.trusted_proxies {
        match proxy {
            Proxy::Unix => trusted.unix = true,
            Proxy::Network(network) => trusted.networks.push(*network),
        }
    }
    trusted
}

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
    let seconds = settings.graceful_timeout.as_secs_f64().ceil();
    (seconds as u32).saturating_add(1)
}
