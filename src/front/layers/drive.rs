//! What must hold of paths whatever they are, for random tests and for the fuzzer.

use super::readings::others;
use crate::path::{Normal, begins_with, normal};

/// The path for which there is a rule.
const RULE: &[u8] = b"/app/admin";

/// How an application may read a path.
#[derive(Debug, Clone, Copy)]
struct Application {
    /// It decodes `%2F` to a slash.
    slashes: bool,
    /// It takes a backslash for a slash, encoded or not.
    backslashes: bool,
    /// It cuts off what follows a semicolon in a segment: before it decodes, or after that.
    cuts: bool,
    cuts_decoded: bool,
    /// It resolves dot segments.
    resolves: bool,
}

impl Application {
    fn each() -> impl Iterator<Item = Self> {
        (0..32).map(|bits: u32| Self {
            slashes: bits & 1 > 0,
            backslashes: bits & 2 > 0,
            cuts: bits & 4 > 0,
            cuts_decoded: bits & 8 > 0,
            resolves: bits & 16 > 0,
        })
    }

    /// The segments that it sees.
    fn segments(self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut raw = path.to_vec();
        if self.cuts {
            raw = cut(&raw);
        }
        let mut read = Vec::new();
        let mut rest = &raw[..];
        while let Some((&first, more)) = rest.split_first() {
            let digits = rest
                .get(1..3)
                .and_then(|digits| str::from_utf8(digits).ok());
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match (first, byte) {
                (b'%', Some(byte)) if byte != b'/' || self.slashes => {
                    read.push(byte);
                    rest = &rest[3..];
                }
                _ => {
                    read.push(first);
                    rest = more;
                }
            }
        }
        if self.backslashes {
            for byte in &mut read {
                *byte = if *byte == b'\\' { b'/' } else { *byte };
            }
        }
        if self.cuts_decoded {
            read = cut(&read);
        }
        let mut segments: Vec<Vec<u8>> = Vec::new();
        for segment in read.split(|&byte| byte == b'/') {
            match segment {
                b"" => {}
                b"." if self.resolves => {}
                b".." if self.resolves => drop(segments.pop()),
                other => segments.push(other.to_vec()),
            }
        }
        segments
    }

    /// Whether a request for the path gets to what the rule is for.
    fn reaches(self, path: &[u8]) -> bool {
        let segments = self.segments(path);
        segments.len() >= 2 && segments[0] == b"app" && segments[1] == b"admin"
    }
}

/// Without what follows a semicolon in a segment.
fn cut(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|&byte| byte == b'/');
    let parts: Vec<_> = parts
        .map(|part| part.split(|&byte| byte == b';').next().unwrap_or_default())
        .collect();
    parts.join(&b'/')
}

/// Reads a path. A rule for a path counts if there is an application that gets to what it is for; a form is its own form; and what follows
/// a prefix is what the path has there.
///
/// # Panics
/// It does not hold.
pub fn check(path: &[u8]) {
    let path = [b"/", path].concat();
    let shown = path.escape_ascii();
    let first = normal(&path);
    let counts = |form: &Normal| begins_with(form.bytes(), RULE);
    let is_found = counts(&first) || others(&path).iter().any(counts);
    for application in Application::each() {
        let passes = application.reaches(&path) && !is_found;
        assert!(!passes, "{shown} passes the rule: {application:?}");
    }
    let form = first.bytes();
    assert!(form.starts_with(b"/"), "{shown}");
    assert_eq!(normal(form).bytes(), form, "{shown}");
    for prefix in [&b"/"[..], b"/app", b"/app/admin"] {
        if !begins_with(form, prefix) || prefix == b"/" {
            continue;
        }
        let at = first.after(prefix).unwrap_or_else(|| panic!("{shown}"));
        let rest = [prefix, &path[at..]].concat();
        assert_eq!(normal(&rest).bytes(), form, "{shown}: {at}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_spelling_passes_a_rule(path in "(app|%61pp|admin|adm%69n|x|/|//|%2[fF]|%5[cC]|\\\\|;|%3[bB]|;y=z|\\.|\\.\\.|%2[eE]|%25|%){0,14}") {
            check(path.as_bytes());
        }

        #[test]
        fn no_bytes_panic(path in prop::collection::vec(any::<u8>(), 0..60)) {
            check(&path);
        }
    }
}
