//! Upstreams: what a request is passed on to.
//!
//! [`failure`], [`health`] and [`dispatch`] decide, and know neither socket nor clock. [`proxy`] has the sockets. What an upstream
//! speaks is known in `protocol` only.

use std::time::Duration;

pub mod address;
mod connection;
pub mod dispatch;
pub mod failure;
mod framed;
pub mod health;
mod lane;
pub mod news;
pub mod protocol;
pub mod proxy;
pub mod settings;

/// A point in time: CLOCK_MONOTONIC in nanoseconds.
pub type Instant = u64;

/// No point in time.
pub const NEVER: Instant = u64::MAX;

/// The point in time so much later.
fn after(now: Instant, duration: Duration) -> Instant {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    now.saturating_add(nanoseconds).min(NEVER - 1)
}
