//! Paths in their normal form (RFC 3986 section 6.2.2.3), as other servers look for files: without empty and dot segments.

/// The same path without empty segments and those that are `.` or `..`, encoded or not; none if it has no such segment. What leads above
/// the root leads nowhere, and is empty. All else stays as it is encoded: an encoded slash is a part of a name.
pub(super) fn normal(path: &[u8]) -> Option<Vec<u8>> {
    if !is_suspect(path) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_with_slash = false;
    let mut is_normal = true;
    let mut segments = path.split(|&b| b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = dots(segment);
        // A path that ends with a slash has an empty segment there.
        ends_with_slash = segment.is_empty() || dots.is_some();
        is_normal &= !ends_with_slash || segment.is_empty() && segments.peek().is_none();
        match dots {
            Some(2) if kept.pop().is_none() => return Some(Vec::new()),
            Some(_) => {}
            None if segment.is_empty() => {}
            None => kept.push(segment),
        }
    }
    if is_normal {
        return None;
    }
    let mut normal = Vec::with_capacity(path.len());
    for segment in kept {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if ends_with_slash {
        normal.push(b'/');
    }
    Some(normal)
}

/// Whether a segment may be an empty or a dot segment; a glance, as this is on the way of each request.
fn is_suspect(path: &[u8]) -> bool {
    path.windows(2)
        .any(|pair| matches!(pair, [b'/', b'/' | b'.' | b'%']))
}

/// How many dots the segment consists of, if it is one or two.
fn dots(segment: &[u8]) -> Option<usize> {
    let mut rest = segment;
    let mut dots = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return None,
        };
        dots += 1;
    }
    (1..=2).contains(&dots).then_some(dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_dot_segments_are_left_out() {
        for (path, expected) in [
            ("//", "/"),
            ("//a", "/a"),
            ("/a//b///c", "/a/b/c"),
            ("/a//", "/a/"),
            ("/./a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/%2e/b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.%2E/c", "/a/c"),
            ("/a/%2e%2e/b", "/b"),
            ("/a//../b", "/b"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("//%61", "/%61"),
            ("//a%2f..%2fb", "/a%2f..%2fb"),
            ("//%252e%252e/a", "/%252e%252e/a"),
            // Above the root.
            ("/..", ""),
            ("/../a", ""),
            ("/a/../../a", ""),
            ("/a//../..", ""),
        ] {
            let found = normal(path.as_bytes()).expect(path);
            assert_eq!(str::from_utf8(&found), Ok(expected), "{path}");
        }
        for path in [
            "",
            "*",
            "/",
            "/a",
            "/a/",
            "/a/b",
            "/.a",
            "/...",
            "/a/.git/b",
            "/a/%20",
            "/%2e%2ea",
            "/%2f%2f",
            "/a.",
            "/a..",
            "/a%2f..%2fb",
        ] {
            assert_eq!(normal(path.as_bytes()), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_normal_stays_below_the_root(path in "/([a./%25eE]|%2[eEfF]|\\.\\.|//){0,20}") {
            if let Some(found) = normal(path.as_bytes()) {
                assert_eq!(normal(&found), None);
                assert!(found.is_empty() || found.starts_with(b"/"));
                assert!(found.len() <= path.len());
            }
        }
    }
}
