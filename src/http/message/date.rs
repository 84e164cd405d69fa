//! The Date field, formatted once per second (RFC 9110 section 6.6.1).

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Length of an IMF-fixdate (RFC 9110 section 5.6.7).
const LENGTH: usize = 29;

thread_local! {
    static NOW: Cell<(i64, [u8; LENGTH])> = const { Cell::new((i64::MIN, [0; LENGTH])) };
}

/// The current date as an IMF-fixdate.
pub(crate) fn now() -> [u8; LENGTH] {
    // The coarse clock is exact to a few milliseconds and costs no system call.
    let seconds = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    NOW.with(|cell| {
        let (second, text) = cell.get();
        if second == seconds {
            return text;
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
        let mut text = [b' '; LENGTH];
        let formatted = httpdate::fmt_http_date(time);
        let n = formatted.len().min(LENGTH);
        text[..n].copy_from_slice(&formatted.as_bytes()[..n]);
        cell.set((seconds, text));
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_date_is_now() {
        let text = super::now();
        let date = httpdate::parse_http_date(std::str::from_utf8(&text).unwrap()).unwrap();
        assert!(date.elapsed().unwrap_or_default().as_secs() < 5);
        assert_eq!(text, super::now());
    }
}
