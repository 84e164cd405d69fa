//! What the init system hears: sd_notify(3). Without one (`NOTIFY_SOCKET` unset) nothing happens.

use log::debug;
use sd_notify::NotifyState;

/// Everything that was asked for runs.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; ended by [`ready`], also if it fails.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[
            NotifyState::Reloading,
            now,
            NotifyState::Status("reloading"),
        ]),
        Err(error) => debug!("no monotonic clock for RELOADING=1: {error}"),
    }
}

/// The stop has begun.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot tell the init system: {error}");
    }
}
