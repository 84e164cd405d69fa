//! The words of the log about certificates that are ordered.

use std::time::{Duration, UNIX_EPOCH};

use preforkd_worker::acme::Failure;

/// A day, of seconds since 1970.
pub(super) fn date(seconds: u64) -> String {
    let most = 253_402_300_799; // The year 9999.
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(most));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

/// A number of seconds, as people write it.
pub(super) fn time(seconds: u64) -> String {
    let rounded = match seconds {
        0..600 => seconds,
        _ => seconds / 60 * 60,
    };
    let text = humantime::format_duration(Duration::from_secs(rounded)).to_string();
    text.replace(' ', "")
}

/// What the operator can do about a failure.
pub(super) fn advice(failure: Failure) -> &'static str {
    match failure {
        Failure::Unreachable => {
            "can this machine reach the authority, and does it trust its certificate?"
        }
        Failure::Limited => "too much was asked of it; wait",
        Failure::Refused => "change the hosts or `acme`, and reload",
        Failure::Unproven => {
            "do all hosts lead to this machine in DNS, and can port 80 or 443 be reached from outside?"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_short() {
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00:00 UTC");
        assert_eq!(time(61), "1m1s");
        assert_eq!(time(6601), "1h50m");
        date(u64::MAX);
    }
}
