//! Conditional and range requests (RFC 9110 sections 13 and 14).

use std::time::SystemTime;

use crate::message::request::Request;

/// What tells one version of a file from another.
pub(super) struct Validators {
    /// Strong, with its quotes.
    pub etag: String,
    pub last_modified: String,
    pub modified: SystemTime,
}

/// What the answer is to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Whole,
    /// From the first to the last byte, both included.
    Part {
        first: u64,
        last: u64,
    },
    NotModified,
    Unsatisfiable,
}

/// In the order of RFC 9110 section 13.2.2.
pub(super) fn check(request: Request<'_>, validators: &Validators, size: u64) -> Condition {
    let text = |name: &[u8]| {
        request
            .field(name)
            .map(|value| std::str::from_utf8(value).unwrap_or_default())
    };
    match (text(b"if-none-match"), text(b"if-modified-since")) {
        (Some(tags), _) => {
            let weak = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == validators.etag;
            if tags
                .split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || weak(tag))
            {
                return Condition::NotModified;
            }
        }
        (None, Some(date))
            if httpdate::parse_http_date(date).is_ok_and(|date| validators.modified <= date) =>
        {
            return Condition::NotModified;
        }
        _ => {}
    }
    // A range means something for GET only (section 14.2), and not for another version than the client has (section 13.1.5).
    let current = text(b"if-range")
        .is_none_or(|known| known == validators.etag || known == validators.last_modified);
    match text(b"range") {
        Some(ranges) if request.method() == b"GET" && current => range(ranges, size),
        _ => Condition::Whole,
    }
}

/// One range of bytes. What cannot be understood is ignored, and several ranges are too: nobody needs them here, and
/// overlapping ones have been used to make servers send far more than there is (CVE-2011-3192).
fn range(value: &str, size: u64) -> Condition {
    let parsed = value
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = parsed else {
        return Condition::Whole;
    };
    let number = |digits: &str| {
        let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        valid.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (None, Some(0)) if first.is_empty() => return Condition::Unsatisfiable,
        (None, Some(length)) if first.is_empty() => (size.saturating_sub(length), u64::MAX),
        _ => return Condition::Whole,
    };
    match size.checked_sub(1) {
        Some(end) if first <= end => Condition::Part {
            first,
            last: last.min(end),
        },
        _ => Condition::Unsatisfiable,
    }
}
