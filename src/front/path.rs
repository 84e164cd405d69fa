//! Paths as routes compare them. Two spellings of one path must not reach two targets: a rule for `/app/admin` counts for
//! `/app/%61dmin`, `/app//admin` and `/app/x/../admin` too. What is passed on to a target is the path as the client has sent it.

/// A path in the form in which paths are compared: decoded once, without empty and dot segments (RFC 3986 section 6.2.2). What leads above
/// the root leads to the root (section 5.2.4). An encoded slash is a part of a segment: it stays as `%2F`, and a percent sign as `%25`, so
/// that no two different paths have the same form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Normal {
    bytes: Vec<u8>,
    /// For each segment, where it ends here, and where it ends in the path as sent.
    ends: Vec<(usize, usize)>,
}

impl Normal {
    /// The path, beginning with a slash.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Finds the form of a path. The memory of the last one is used again.
    pub fn set(&mut self, path: &[u8]) {
        self.bytes.clear();
        self.ends.clear();
        let mut start = usize::from(path.first() == Some(&b'/'));
        loop {
            let length = path[start..].iter().position(|&b| b == b'/');
            let end = length.map_or(path.len(), |length| start + length);
            self.segment(&path[start..end], end);
            match length {
                Some(_) => start = end + 1,
                None => break,
            }
        }
    }

    /// Adds a segment, which ends at `end` of the path as sent. A trailing slash is an empty segment at the end.
    fn segment(&mut self, raw: &[u8], end: usize) {
        if self.bytes.last() != Some(&b'/') {
            self.bytes.push(b'/');
        }
        let first = self.bytes.len();
        decode(raw, &mut self.bytes);
        match &self.bytes[first..] {
            b"" | b"." => self.bytes.truncate(first),
            b".." => {
                let parent = match self.ends.pop() {
                    Some(_) => self.ends.last().map_or(0, |(end, _)| *end),
                    None => 0,
                };
                self.bytes.truncate(parent);
                self.bytes.push(b'/');
            }
            _ => self.ends.push((self.bytes.len(), end)),
        }
    }

    /// Where what follows `prefix`, which is in this form, begins in the path as sent; `None` if it does not begin with it.
    pub fn after(&self, prefix: &[u8]) -> Option<usize> {
        if prefix == b"/" {
            return Some(0);
        }
        let end = prefix.strip_suffix(b"/").unwrap_or(prefix).len();
        let (_, sent) = self.ends.iter().find(|(here, _)| *here == end)?;
        Some(*sent)
    }
}

/// Whether a path begins with a prefix, at the border of a segment; both in the form of [`Normal`]. A prefix with a slash at its end is for
/// what is below it.
pub(crate) fn begins_with(path: &[u8], prefix: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        None => false,
        Some([] | [b'/', ..]) => true,
        Some(_) => prefix.ends_with(b"/"),
    }
}

/// Decodes `%XX`, except for a slash and a percent sign.
fn decode(raw: &[u8], out: &mut Vec<u8>) {
    if !raw.contains(&b'%') {
        return out.extend_from_slice(raw);
    }
    let mut rest = raw;
    while let [first, more @ ..] = rest {
        let encoded = match rest {
            [b'%', high, low, ..] => Option::zip(hex(*high), hex(*low)),
            _ => None,
        };
        let byte = encoded.map_or(*first, |(high, low)| high << 4 | low);
        rest = if encoded.is_some() { &rest[3..] } else { more };
        match byte {
            b'/' => out.extend_from_slice(b"%2F"),
            b'%' => out.extend_from_slice(b"%25"),
            byte => out.push(byte),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// The form of a path.
pub(crate) fn normal(path: &[u8]) -> Normal {
    let mut normal = Normal::default();
    normal.set(path);
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> String {
        String::from_utf8_lossy(normal(path.as_bytes()).bytes()).into_owned()
    }

    #[test]
    fn spellings_of_a_path_have_one_form() {
        for path in [
            "/app/admin",
            "/app/%61dmin",
            "/%61pp/admin",
            "/app//admin",
            "//app/admin",
            "/app/./admin",
            "/app/%2e/admin",
            "/app/x/../admin",
            "/app/x/%2e%2E/admin",
            "/app/x/y/../../admin",
            "/../app/admin",
            "/x/../../app/admin",
        ] {
            assert_eq!(shown(path), "/app/admin", "{path}");
        }
        for (path, form) in [
            ("/", "/"),
            ("*", "/*"),
            ("/a/", "/a/"),
            ("/a//", "/a/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/a/b/../..", "/"),
            ("/...", "/..."),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2F..%2Fb", "/a%2F..%2Fb"),
            ("/%252f", "/%252f"),
            ("/%25", "/%25"),
            ("/%", "/%25"),
            ("/%zz", "/%25zz"),
            ("/%2561", "/%2561"),
        ] {
            assert_eq!(shown(path), form, "{path}");
        }
        assert_ne!(shown("/a%2fb"), shown("/a%252fb"));
        assert_ne!(shown("/a%2fb"), shown("/a/b"));
    }

    #[test]
    fn a_prefix_ends_at_the_border_of_a_segment() {
        for (path, prefix, is) in [
            ("/app", "/app", true),
            ("/app/", "/app", true),
            ("/app/x", "/app", true),
            ("/apple", "/app", false),
            ("/app", "/app/", false),
            ("/app/", "/app/", true),
            ("/app/x", "/app/", true),
            ("/x", "/", true),
            ("/", "/", true),
            ("/app%2fx", "/app", false),
        ] {
            let found = begins_with(normal(path.as_bytes()).bytes(), prefix.as_bytes());
            assert_eq!(found, is, "{path} {prefix}");
        }
    }

    #[test]
    fn what_follows_a_prefix_is_as_it_was_sent() {
        for (path, prefix, rest) in [
            ("/app/x%20y", "/app", "/x%20y"),
            ("/app/x", "/app/", "/x"),
            ("/%61pp//x/../y", "/app", "//x/../y"),
            ("//app/x", "/app", "/x"),
            ("/x/../app/y", "/app", "/y"),
            ("/app", "/app", ""),
            ("/a/b/c", "/a/b", "/c"),
            ("/app/x", "/", "/app/x"),
        ] {
            let normal = normal(path.as_bytes());
            let at = normal.after(prefix.as_bytes());
            assert_eq!(at.map(|at| &path[at..]), Some(rest), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_form_is_its_own_form_and_has_no_dots(path in "/([a./%25eE]|%2[eEfF]|%61|\\.\\.|//){0,20}") {
            let form = normal(path.as_bytes());
            let text = form.bytes();
            proptest::prop_assert!(text.starts_with(b"/"));
            let whole = normal(text);
            // A percent sign of the form stands for one that was sent.
            let again: Vec<u8> = whole.bytes().to_vec();
            proptest::prop_assert_eq!(again, text);
            let inner = text.strip_suffix(b"/").unwrap_or(text);
            if !inner.is_empty() {
                for segment in inner.split(|&b| b == b'/').skip(1) {
                    proptest::prop_assert!(!segment.is_empty() && segment != b"." && segment != b"..");
                }
            }
        }
    }
}
