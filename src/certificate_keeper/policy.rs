//! When a certificate is ordered, and how long to wait after a failure.

use preforkd_worker::acme::{Failure, Seen};

use crate::plan::Acme;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

/// When a certificate is ordered in place of this one, in seconds since 1970: at once if there is none, or if it is not for all of the hosts.
pub(super) fn due(seen: Option<&Seen>, hosts: &[String]) -> u64 {
    match seen {
        Some(seen)
            if !seen.is_self_signed && hosts.iter().all(|host| seen.names.contains(host)) =>
        {
            renewal(seen)
        }
        _ => 0,
    }
}

/// When two thirds of its life are over.
pub(super) fn renewal(seen: &Seen) -> u64 {
    seen.not_before + seen.not_after.saturating_sub(seen.not_before) / 3 * 2
}

/// How long to wait after so many failures, the last of which was of this kind, in seconds. `chance` is between 0 and 1.
///
/// The waits leave room below what authorities allow, such as five failed validations of a host in an hour.
pub(super) fn wait(failures: u32, failure: Failure, retry_after: Option<u64>, chance: f64) -> u64 {
    let usual = match failures {
        0 | 1 => MINUTE,
        2 => 10 * MINUTE,
        3 => 100 * MINUTE,
        _ => DAY,
    };
    let wait = match failure {
        Failure::Unproven => usual,
        Failure::Unreachable => usual.min(100 * MINUTE),
        // Neither time nor another attempt helps: it is the operator's turn, whose change of the configuration counts at once.
        Failure::Refused => usual.max(100 * MINUTE),
        Failure::Limited => usual.max(60 * MINUTE),
    };
    let wait = wait + (wait as f64 / 10.0 * chance) as u64;
    wait.max(retry_after.unwrap_or_default().min(30 * DAY))
}

/// The name of the file with the account. Each external account has one of its own.
pub(super) fn account_file(acme: &Acme) -> String {
    let directory = file_name(&acme.directory);
    match &acme.eab {
        Some(eab) => format!("account-{directory}-of-{}.json", file_name(&eab.key_id)),
        None => format!("account-{directory}.json"),
    }
}

/// A URL as a part of the name of a file.
fn file_name(url: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name = url.trim_start_matches("https://").chars().map(plain);
    name.take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(names: &[&str]) -> Seen {
        Seen {
            not_before: 1000,
            not_after: 1000 + 90 * DAY,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            is_self_signed: false,
        }
    }

    #[test]
    fn it_is_renewed_when_two_thirds_of_its_life_are_over() {
        let hosts = ["a".to_owned(), "b".to_owned()];
        assert_eq!(due(Some(&seen(&["b", "a", "c"])), &hosts), 1000 + 60 * DAY);
        assert_eq!(due(Some(&seen(&["a"])), &hosts), 0, "a host was added");
        assert_eq!(due(None, &hosts), 0);
        let own = Seen {
            is_self_signed: true,
            ..seen(&["a", "b"])
        };
        assert_eq!(due(Some(&own), &hosts), 0);
    }

    #[test]
    fn waits_grow_and_the_authority_may_ask_for_more() {
        let of = |failures, failure| wait(failures, failure, None, 0.0);
        let usual = [1, 2, 3, 4, 50].map(|n| of(n, Failure::Unproven) / MINUTE);
        assert_eq!(usual, [1, 10, 100, 1440, 1440]);
        assert_eq!(of(9, Failure::Unreachable), 100 * MINUTE);
        assert_eq!(of(1, Failure::Limited), 60 * MINUTE);
        assert_eq!(of(1, Failure::Refused), 100 * MINUTE);
        assert_eq!(wait(1, Failure::Limited, Some(7 * DAY), 1.0), 7 * DAY);
        assert_eq!(wait(1, Failure::Limited, Some(5), 0.0), 60 * MINUTE);
        assert_eq!(wait(1, Failure::Unproven, Some(u64::MAX), 0.0), 30 * DAY);
        assert_eq!(wait(2, Failure::Unproven, None, 1.0), 11 * MINUTE);
        // Within an hour at most four attempts, of the five that are allowed.
        let mut at = 0;
        let begun = (1..).take_while(|n| {
            at += wait(*n, Failure::Unproven, None, 0.0);
            at < 60 * MINUTE
        });
        assert!(begun.count() < 4);
    }

    #[test]
    fn a_url_names_a_file() {
        let name = file_name("https://acme.example:14000/dir/../x?y");
        assert_eq!(name, "acme.example-14000-dir-..-x-y");
    }
}
