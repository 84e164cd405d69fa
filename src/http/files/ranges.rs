//! Ranges of bytes (RFC 9110 section 14), and several of them in one response (section 14.6).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A request with more ranges gets the whole file: nobody needs them, and they cost a head each (CVE-2011-3192).
const MOST: usize = 64;

/// From the first to the last byte, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub first: u64,
    pub last: u64,
}

impl Range {
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// None of the ranges is in the file (416).
    Nothing,
    One(Range),
    /// At least two that do not overlap.
    Several(Vec<Range>),
}

/// The ranges that the field asks for, of a file of this size. What cannot be understood is ignored. Ranges that overlap become one:
/// no byte is sent twice.
pub(super) fn parse(field: &[u8], size: u64) -> Wanted {
    let Some(mut ranges) = satisfiable(field, size) else {
        return Wanted::Whole;
    };
    if overlap(&ranges) {
        ranges = joined(ranges);
    }
    match ranges[..] {
        [] => Wanted::Nothing,
        [range] => Wanted::One(range),
        _ => Wanted::Several(ranges),
    }
}

/// The ranges that begin in the file, in their order; none if the field is to be ignored.
fn satisfiable(field: &[u8], size: u64) -> Option<Vec<Range>> {
    let (unit, set) = field.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut ranges = Vec::new();
    let mut count = 0;
    for spec in set.split(|&b| b == b',') {
        let spec = spec.trim_ascii();
        if spec.is_empty() {
            continue;
        }
        count += 1;
        if count > MOST {
            return None;
        }
        let dash = memchr::memchr(b'-', spec)?;
        let (first, last) = (&spec[..dash], &spec[dash + 1..]);
        let (first, last) = match (first.is_empty(), last.is_empty()) {
            (false, false) => (number(first)?, number(last)?),
            (false, true) => (number(first)?, u64::MAX),
            (true, false) => match number(last)? {
                0 => continue,
                // All zero bytes of it, which no range can express.
                _ if size == 0 => return None,
                length => (size.saturating_sub(length), u64::MAX),
            },
            (true, true) => return None,
        };
        if first > last {
            return None;
        }
        if first < size {
            let last = last.min(size - 1);
            ranges.push(Range { first, last });
        }
    }
    (count > 0).then_some(ranges)
}

/// Digits only; what is larger than any file stays that.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        Some(number.saturating_mul(10).saturating_add(digit.into()))
    })
}

fn overlap(ranges: &[Range]) -> bool {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[1].first <= pair[0].last)
}

fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// A body of the type `multipart/byteranges`: each range with the text before it, and the text at the end.
pub(super) struct Multipart {
    pub content_type: String,
    pub parts: Vec<(Vec<u8>, Range)>,
    pub end: Vec<u8>,
}

impl Multipart {
    /// The ranges of a file of this type and size.
    pub fn new(ranges: Vec<Range>, kind: &str, size: u64) -> Self {
        // Random, so that nobody can write a file that contains it.
        let boundary = format!("{:016x}", RandomState::new().hash_one(size));
        let part = |range: Range| {
            let Range { first, last } = range;
            let text = format!(
                "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            (text.into_bytes(), range)
        };
        Self {
            parts: ranges.into_iter().map(part).collect(),
            content_type: format!("multipart/byteranges; boundary={boundary}"),
            end: format!("\r\n--{boundary}--\r\n").into_bytes(),
        }
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        let parts = self.parts.iter();
        let parts = parts.map(|(text, range)| text.len() as u64 + range.length());
        parts.sum::<u64>() + self.end.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(field: &str, size: u64) -> Vec<(u64, u64)> {
        match parse(field.as_bytes(), size) {
            Wanted::Whole => vec![(u64::MAX, u64::MAX)],
            Wanted::Nothing => vec![],
            Wanted::One(range) => vec![(range.first, range.last)],
            Wanted::Several(ranges) => {
                assert!(ranges.len() > 1 && !overlap(&ranges));
                ranges.iter().map(|r| (r.first, r.last)).collect()
            }
        }
    }

    #[test]
    fn ranges_are_read() {
        const WHOLE: (u64, u64) = (u64::MAX, u64::MAX);
        let cases: &[(&str, &[(u64, u64)])] = &[
            ("bytes=0-0", &[(0, 0)]),
            ("BYTES=0-0", &[(0, 0)]),
            ("bytes=90-", &[(90, 99)]),
            ("bytes=-5", &[(95, 99)]),
            ("bytes=-200", &[(0, 99)]),
            ("bytes=10-200", &[(10, 99)]),
            ("bytes=10-99999999999999999999999", &[(10, 99)]),
            ("bytes= 1-2 , 5-6 ", &[(1, 2), (5, 6)]),
            ("bytes=,1-2,,", &[(1, 2)]),
            // The order of the request stays.
            ("bytes=50-59,0-9", &[(50, 59), (0, 9)]),
            ("bytes=0-0,-1", &[(0, 0), (99, 99)]),
            ("bytes=0-1,200-300", &[(0, 1)]),
            // Ranges that overlap become one.
            ("bytes=5-9,0-6", &[(0, 9)]),
            ("bytes=0-,0-,0-,0-", &[(0, 99)]),
            ("bytes=0-5,20-29,4-8,25-50", &[(0, 8), (20, 50)]),
            // Nothing of it is there.
            ("bytes=100-", &[]),
            ("bytes=-0", &[]),
            ("bytes=200-300,400-", &[]),
            // Not understood.
            ("bytes=5-4", &[WHOLE]),
            ("bytes=0-1,5-4", &[WHOLE]),
            ("bytes=", &[WHOLE]),
            ("bytes=,", &[WHOLE]),
            ("bytes=-", &[WHOLE]),
            ("bytes=a-b", &[WHOLE]),
            ("bytes=+1-2", &[WHOLE]),
            ("bytes=1 - 2", &[WHOLE]),
            ("bytes=1--2", &[WHOLE]),
            ("bytes 0-1", &[WHOLE]),
            ("lines=0-1", &[WHOLE]),
            ("0-1", &[WHOLE]),
            ("", &[WHOLE]),
        ];
        for (field, ranges) in cases {
            assert_eq!(wanted(field, 100), *ranges, "{field}");
        }
        assert_eq!(wanted("bytes=0-", 0), []);
        assert_eq!(wanted("bytes=-5", 0), [WHOLE]);
    }

    #[test]
    fn too_many_ranges_get_the_whole_file() {
        let field = |n: u64| {
            let ranges: Vec<_> = (0..n).map(|i| format!("{0}-{0}", 2 * i)).collect();
            format!("bytes={}", ranges.join(","))
        };
        assert_eq!(wanted(&field(64), 1000).len(), 64);
        assert_eq!(parse(field(65).as_bytes(), 1000), Wanted::Whole);
    }

    #[test]
    fn a_multipart_body_is_as_long_as_it_says() {
        let ranges = vec![
            Range { first: 0, last: 9 },
            Range {
                first: 50,
                last: 50,
            },
        ];
        let multipart = Multipart::new(ranges, "text/plain", 100);
        let mut body = Vec::new();
        for (text, range) in &multipart.parts {
            body.extend_from_slice(text);
            body.extend(std::iter::repeat_n(b'x', range.length() as usize));
        }
        body.extend_from_slice(&multipart.end);
        assert_eq!(body.len() as u64, multipart.length());
        let boundary = multipart
            .content_type
            .rsplit_once('=')
            .expect("a boundary")
            .1;
        let text = String::from_utf8(body).expect("ASCII");
        assert_eq!(text.matches(&format!("\r\n--{boundary}\r\n")).count(), 2);
        assert!(text.ends_with(&format!("\r\n--{boundary}--\r\n")));
        assert!(text.contains("Content-Range: bytes 50-50/100\r\n\r\nx\r\n"));
        let other = Multipart::new(vec![], "text/plain", 100);
        assert_ne!(other.content_type, multipart.content_type);
    }

    proptest::proptest! {
        #[test]
        fn no_field_asks_for_more_than_there_is(field in "bytes=[-0-9, ]{0,60}|.{0,40}", size in 0..200_u64) {
            let ranges = match parse(field.as_bytes(), size) {
                Wanted::Whole | Wanted::Nothing => vec![],
                Wanted::One(range) => vec![range],
                Wanted::Several(ranges) => ranges,
            };
            assert!(ranges.iter().all(|range| range.first <= range.last && range.last < size));
            assert!(ranges.iter().map(|range| range.length()).sum::<u64>() <= size);
            assert!(!overlap(&ranges));
        }
    }
}
