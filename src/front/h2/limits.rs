//! What a connection may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use h2::server::Builder;
use preforkd_http::{Limits, Rate};

/// Streams that a client may have open at a time.
pub const STREAMS: u32 = 128;
/// Bytes of a body that a client may send before they were read, on each stream and on all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The library's budget for frames with little data that were not looked at, in frames of one byte with 256 each: what comes at once, and
/// the messages of a client of gRPC to an upstream that is slower.
const SMALL_FRAMES: usize = 2 * 1024 * 1024;
/// Bytes of a response that the library holds for each stream.
pub const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset because the client has broken the protocol on them.
const OWN_RESETS: usize = 256;
/// What a header field counts besides its name and value (RFC 9113 section 6.5.2).
const FIELD: usize = 32;
/// A client may cancel so many requests at once, and then one for each of these nanoseconds.
const CANCELS: u64 = 200;
const CANCEL_TIME: u64 = 50_000_000;
/// Bytes that frames may take beyond [`SHARE`] times what they carry.
const OVERHEAD: u64 = 1024 * 1024;
const SHARE: u64 = 8;

/// The library's part of the limits.
pub fn builder(limits: &Limits) -> Builder {
    let list = limits.max_head + limits.max_fields * FIELD;
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .max_local_error_reset_streams(Some(OWN_RESETS));
    builder
}

/// What the streams of a connection have done, for its budget.
#[derive(Debug, Default)]
pub struct Meter {
    /// Their number.
    open: AtomicUsize,
    /// Bytes of heads and bodies, in both directions.
    carried: AtomicU64,
    /// Requests that the client has cancelled and that were not charged yet.
    cancelled: AtomicU64,
}

impl Meter {
    /// A stream has begun, with a head of so many bytes.
    pub fn begin(&self, head: usize) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.carry(head);
    }

    /// A stream has ended; whether because the client has cancelled it.
    pub fn end(&self, cancelled: bool) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if cancelled {
            self.cancel();
        }
    }

    /// A request was of no use to anybody.
    pub fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes of a body have gone either way.
    pub fn carry(&self, bytes: usize) {
        self.carried.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The number of streams.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Whether a client still does something else than to keep us busy.
#[derive(Debug)]
pub struct Budget {
    meter: Arc<Meter>,
    received: u64,
    cancels: Rate,
}

impl Budget {
    /// Of the connection with these streams.
    pub fn new(meter: Arc<Meter>) -> Self {
        Self {
            meter,
            received: 0,
            cancels: Rate::new(CANCELS, CANCEL_TIME),
        }
    }

    /// So many bytes have come, frames and all.
    pub fn receive(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// What the client does too often, if it does.
    pub fn exceeded(&mut self, now: u64) -> Option<&'static str> {
        for _ in 0..self.meter.cancelled.swap(0, Ordering::Relaxed) {
            if self.cancels.take(now).is_none() {
                return Some("it cancels requests too often");
            }
        }
        let carried = self.meter.carried.load(Ordering::Relaxed);
        let allowed = carried.saturating_mul(SHARE).saturating_add(OVERHEAD);
        (self.received > allowed).then_some("it sends frames that carry next to nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn frames_that_carry_nothing_have_an_end() {
        let meter = Arc::new(Meter::default());
        let mut budget = Budget::new(meter.clone());
        budget.receive(OVERHEAD as usize);
        assert_eq!(budget.exceeded(0), None);
        budget.receive(9);
        assert!(budget.exceeded(0).is_some());
        // A frame of two bytes has nine more of its own.
        meter.carry(2);
        assert_eq!(budget.exceeded(0), None);
        budget.receive(8);
        assert!(budget.exceeded(0).is_some());
    }

    #[test]
    fn who_cancels_now_and_then_may_and_who_does_nothing_else_may_not() {
        let meter = Arc::new(Meter::default());
        let mut budget = Budget::new(meter.clone());
        for second in 0..100 {
            for _ in 0..20 {
                meter.begin(0);
                meter.end(true);
            }
            assert_eq!(budget.exceeded(second * SECOND), None);
        }
        for _ in 0..=CANCELS {
            meter.cancel();
        }
        assert!(budget.exceeded(100 * SECOND).is_some());
        assert_eq!(meter.open(), 0);
    }
}
