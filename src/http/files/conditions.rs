//! Preconditions (RFC 9110 section 13), in the order of section 13.2.2.

use std::time::{Duration, SystemTime};

use super::asked::{Asked, Single};
use crate::message::request::Request;

const SECOND: Duration = Duration::from_secs(1);

/// What tells one version of a file from another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// Strong, with its quotes.
    pub etag: String,
    /// None if the file's time is in the future, where no response may place it (RFC 9110 section 8.8.2.1).
    pub last_modified: Option<String>,
    /// In whole seconds, as `last_modified` has them.
    pub modified: SystemTime,
}

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Proceed,
    /// The client has this version (304).
    NotModified,
    /// The client wants another version (412).
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD request; those for ranges are [`is_current`].
pub(super) fn check(asked: &Asked<'_>, validators: &Validators) -> Verdict {
    if !asked.if_match.is_empty() {
        let same = |weak: bool, tag: &[u8]| !weak && tag == validators.etag.as_bytes();
        if !matches(&asked.if_match, same) {
            return Verdict::Failed;
        }
    } else if let Some(date) = date(asked.if_unmodified_since)
        && validators.modified > date
    {
        return Verdict::Failed;
    }
    if !asked.if_none_match.is_empty() {
        let same = |_, tag: &[u8]| tag == validators.etag.as_bytes();
        if matches(&asked.if_none_match, same) {
            return Verdict::NotModified;
        }
    } else if let Some(date) = date(asked.if_modified_since)
        && validators.modified <= date
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a range may be sent at this time: it is of the version that the client has a part of (RFC 9110 section 13.1.5). A date
/// says that only if its second is over: the file may have had another content, or get one, within it (section 8.8.2.2).
pub(super) fn is_current(asked: &Asked<'_>, validators: &Validators, now: SystemTime) -> bool {
    match asked.if_range {
        Single::Absent => true,
        Single::Ambiguous => false,
        Single::Once(value) => {
            value == validators.etag.as_bytes()
                || validators
                    .last_modified
                    .as_ref()
                    .is_some_and(|date| value == date.as_bytes())
                    && now >= validators.modified + SECOND
        }
    }
}

/// Whether the client of a GET or HEAD has a response with these fields already, as RFC 9110 sections 13.1.2 and 13.1.3 compare.
pub fn is_unmodified(
    request: Request<'_>,
    etag: Option<&[u8]>,
    last_modified: Option<&[u8]>,
) -> bool {
    let asked = Asked::read(request);
    if !asked.if_none_match.is_empty() {
        let own = etag.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag));
        return matches(&asked.if_none_match, |_, tag| own == Some(tag));
    }
    let own = last_modified.map_or(Single::Absent, Single::Once);
    date(own)
        .zip(date(asked.if_modified_since))
        .is_some_and(|(own, theirs)| own <= theirs)
}

/// A date that cannot be read is no condition (RFC 9110 sections 13.1.3 and 13.1.4).
fn date(field: Single<'_>) -> Option<SystemTime> {
    let Single::Once(value) = field else {
        return None;
    };
    httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()
}

/// Whether one of the entity tags is the same, or the list is `*`.
fn matches(lines: &[&[u8]], same: impl Fn(bool, &[u8]) -> bool) -> bool {
    if let [line] = lines
        && line.trim_ascii() == b"*"
    {
        return true;
    }
    lines
        .iter()
        .any(|line| tags(line).any(|(weak, tag)| same(weak, tag)))
}

/// The entity tags of a line with their quotes, and whether each is weak; they end where the grammar does (RFC 9110 section
/// 8.8.3). A tag may contain commas.
fn tags(line: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let separator = |b: &u8| matches!(b, b' ' | b'\t' | b',');
        let start = rest.iter().position(|b| !separator(b))?;
        rest = &rest[start..];
        let weak = rest.starts_with(b"W/");
        let tag = &rest[2 * usize::from(weak)..];
        if tag.first() != Some(&b'"') {
            return None;
        }
        let end = memchr::memchr(b'"', &tag[1..])? + 2;
        rest = &tag[end..];
        Some((weak, &tag[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators {
        Validators {
            etag: "\"a,b\"".into(),
            last_modified: Some(DATE.into()),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777),
        }
    }

    fn asked<'a>(fields: &[(&str, &'a str)]) -> Asked<'a> {
        let mut asked = Asked::default();
        for (name, value) in fields {
            let value = value.as_bytes();
            match *name {
                "M" => asked.if_match.push(value),
                "N" => asked.if_none_match.push(value),
                "MS" => asked.if_modified_since.add(value),
                "US" => asked.if_unmodified_since.add(value),
                "R" => asked.if_range.add(value),
                other => panic!("{other}"),
            }
        }
        asked
    }

    #[test]
    fn preconditions_hold_in_their_order() {
        use Verdict::{Failed, NotModified, Proceed};
        let cases: &[(&[(&str, &str)], Verdict)] = &[
            (&[], Proceed),
            // If-Match: strong comparison.
            (&[("M", "*")], Proceed),
            (&[("M", "\"a,b\"")], Proceed),
            (&[("M", "\"x\", \"a,b\"")], Proceed),
            (&[("M", "\"x\""), ("M", "\"a,b\"")], Proceed),
            (&[("M", "W/\"a,b\"")], Failed),
            (&[("M", "\"a\", \"b\"")], Failed),
            (&[("M", "\"x, *, y\"")], Failed),
            (&[("M", "a,b")], Failed),
            (&[("M", "")], Failed),
            // It stands above If-Unmodified-Since.
            (&[("M", "\"a,b\""), ("US", BEFORE)], Proceed),
            (&[("M", "\"x\""), ("US", AFTER)], Failed),
            // If-Unmodified-Since.
            (&[("US", DATE)], Proceed),
            (&[("US", AFTER)], Proceed),
            (&[("US", BEFORE)], Failed),
            (&[("US", "never")], Proceed),
            (&[("US", BEFORE), ("US", BEFORE)], Proceed),
            // If-None-Match: weak comparison.
            (&[("N", "*")], NotModified),
            (&[("N", " * ")], NotModified),
            (&[("N", "\"a,b\"")], NotModified),
            (&[("N", "W/\"a,b\"")], NotModified),
            (&[("N", "W/\"x\",,\t\"a,b\"")], NotModified),
            (&[("N", "\"x\""), ("N", "\"a,b\"")], NotModified),
            (&[("N", "\"a\"")], Proceed),
            (&[("N", "\"x\", *")], Proceed),
            (&[("N", "w/\"a,b\"")], Proceed),
            (&[("N", "\"a,b")], Proceed),
            // It stands above If-Modified-Since.
            (&[("N", "\"x\""), ("MS", AFTER)], Proceed),
            // If-Modified-Since.
            (&[("MS", DATE)], NotModified),
            (&[("MS", AFTER)], NotModified),
            (&[("MS", BEFORE)], Proceed),
            (&[("MS", "yesterday")], Proceed),
            // What fails comes before what was not modified.
            (&[("M", "\"x\""), ("N", "\"a,b\"")], Failed),
            (&[("US", BEFORE), ("MS", AFTER)], Failed),
            (&[("M", "\"a,b\""), ("N", "\"a,b\"")], NotModified),
        ];
        for (fields, verdict) in cases {
            assert_eq!(check(&asked(fields), &validators()), *verdict, "{fields:?}");
        }
    }

    /// So many milliseconds after the file was changed.
    fn later(milliseconds: u64) -> SystemTime {
        validators().modified + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_range_is_of_the_version_that_the_client_has() {
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("R", "\"a,b\"")], true),
            (&[("R", DATE)], true),
            (&[("R", "W/\"a,b\"")], false),
            (&[("R", "\"x\"")], false),
            (&[("R", AFTER)], false),
            (&[("R", BEFORE)], false),
            (&[("R", "\"a,b\""), ("R", "\"a,b\"")], false),
        ];
        for (fields, current) in cases {
            assert_eq!(
                is_current(&asked(fields), &validators(), later(1000)),
                *current,
                "{fields:?}"
            );
        }
        // Within the second of its change, a file may have the same date and another content.
        let date = asked(&[("R", DATE)]);
        assert!(!is_current(&date, &validators(), later(0)));
        assert!(!is_current(&date, &validators(), later(999)));
        let etag = asked(&[("R", "\"a,b\"")]);
        assert!(is_current(&etag, &validators(), later(0)));
    }
}
