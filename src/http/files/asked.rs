//! What a request asks of a file: its preconditions (RFC 9110 section 13), ranges (section 14) and encodings (section 12.5.3).

use crate::message::request::Request;

/// The fields that concern a file. A list may stand in several lines, everything else in one.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub if_match: Vec<&'a [u8]>,
    pub if_none_match: Vec<&'a [u8]>,
    pub if_modified_since: Single<'a>,
    pub if_unmodified_since: Single<'a>,
    pub if_range: Single<'a>,
    pub range: Single<'a>,
    pub encodings: Vec<&'a [u8]>,
}

/// A field that may stand there once.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Single<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    /// Several lines, of which none counts.
    Ambiguous,
}

impl<'a> Single<'a> {
    pub fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Ambiguous => Self::Ambiguous,
        };
    }
}

impl<'a> Asked<'a> {
    pub fn read(request: Request<'a>) -> Self {
        let mut asked = Self::default();
        for (name, value) in request.fields() {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            match name.len() {
                5 if is(b"range") => asked.range.add(value),
                8 if is(b"if-match") => asked.if_match.push(value),
                8 if is(b"if-range") => asked.if_range.add(value),
                13 if is(b"if-none-match") => asked.if_none_match.push(value),
                15 if is(b"accept-encoding") => asked.encodings.push(value),
                17 if is(b"if-modified-since") => asked.if_modified_since.add(value),
                19 if is(b"if-unmodified-since") => asked.if_unmodified_since.add(value),
                _ => {}
            }
        }
        asked
    }
}
