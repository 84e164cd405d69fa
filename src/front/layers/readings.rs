//! The ways in which an application may read a path. A rule for a path must count for all spellings that reach it: some applications decode
//! `%2F`, some take a backslash for a slash, some cut `;parameters` off, and some leave dot segments to whoever looks at the beginning of
//! the path first. They do so in any combination, and cut before or after they decode.

use crate::path::{Normal, normal};

/// The forms of a path besides the first one, which is that of [`Normal`]; none for nearly all paths.
pub fn others(path: &[u8]) -> Vec<Normal> {
    if !is_strange(path) {
        return Vec::new();
    }
    let first = normal(path);
    let mut reads: Vec<Vec<u8>> = Vec::new();
    for bits in 0..16 {
        let is = |bit: u8| bits & bit > 0;
        let mut read = path.to_vec();
        if is(1) {
            read = parameters(&read, false);
        }
        read = slashes(read, is(2), is(4));
        if is(8) {
            read = parameters(&read, true);
        }
        if !reads.contains(&read) {
            reads.push(read);
        }
    }
    let mut found: Vec<Normal> = Vec::new();
    for read in &reads {
        for form in [normal(read), normal(before_dots(read))] {
            if form.bytes() != first.bytes()
                && !found.iter().any(|other| other.bytes() == form.bytes())
            {
                found.push(form);
            }
        }
    }
    found
}

/// Whether there is more than one way to read it.
fn is_strange(path: &[u8]) -> bool {
    path.iter().enumerate().any(|(at, byte)| match byte {
        b';' | b'\\' => true,
        b'%' => matches!(encoded(&path[at..]), Some(b'/' | b'\\' | b'.' | b';')),
        b'.' => at > 0 && path[at - 1] == b'/',
        _ => false,
    })
}

/// The byte that stands here as `%XX`.
fn encoded(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
    match rest.first() {
        Some(b'%') => u8::try_from(digit(1)? << 4 | digit(2)?).ok(),
        _ => None,
    }
}

/// With a slash for `%2F`, and for a backslash, encoded or not.
fn slashes(path: Vec<u8>, encoded_too: bool, backslashes: bool) -> Vec<u8> {
    if !encoded_too && !backslashes {
        return path;
    }
    let mut read = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let (meant, length) = match encoded(&path[at..]) {
            Some(b'/') if encoded_too => (b'/', 3),
            Some(b'\\') if backslashes => (b'/', 3),
            _ if byte == b'\\' && backslashes => (b'/', 1),
            _ => (byte, 1),
        };
        read.push(meant);
        at += length;
    }
    read
}

/// Without what follows a semicolon in a segment, or an encoded one too.
fn parameters(path: &[u8], encoded_too: bool) -> Vec<u8> {
    let mut read = Vec::with_capacity(path.len());
    let mut skips = false;
    for (at, &byte) in path.iter().enumerate() {
        skips = match byte {
            b'/' => false,
            b';' => true,
            b'%' => skips || encoded_too && encoded(&path[at..]) == Some(b';'),
            _ => skips,
        };
        if !skips {
            read.push(byte);
        }
    }
    read
}

/// What stands before the first dot segment.
fn before_dots(path: &[u8]) -> &[u8] {
    let mut start = 0;
    for segment in path.split(|&b| b == b'/') {
        let mut decoded = Vec::new();
        let mut at = 0;
        while let Some(&byte) = segment.get(at) {
            let found = encoded(&segment[at..]);
            decoded.push(found.unwrap_or(byte));
            at += if found.is_some() { 3 } else { 1 };
        }
        if matches!(&decoded[..], b"." | b"..") {
            return &path[..start];
        }
        start += segment.len() + 1;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Vec<String> {
        let all = [normal(path.as_bytes())].into_iter();
        let all = all.chain(others(path.as_bytes()));
        all.map(|form| String::from_utf8_lossy(form.bytes()).into_owned())
            .collect()
    }

    #[test]
    fn a_usual_path_is_read_in_one_way() {
        for path in ["/", "/a/b.css", "/a%20b", "/%61dmin", "//a//b", "/a..b/c."] {
            assert_eq!(others(path.as_bytes()), [], "{path}");
        }
    }

    #[test]
    fn every_way_to_reach_a_path_is_one_of_the_readings() {
        for path in [
            "/app/admin",
            "/app/%61dmin",
            "/app//admin",
            "/app/./admin",
            "/app/x/../admin",
            "/app%2Fadmin",
            "/app%2fadmin/",
            "/app%5cadmin",
            "/app\\admin",
            "/app/admin;x",
            "/app/admin;x/y",
            "/app;a=b/admin",
            "/app/admin%3bx",
            "/app/admin/../public",
            "/app/admin/%2e%2e/public",
            "/app/admin/..;/public",
            "/public/..;/app/admin",
            "/public/..%2fapp/admin",
            "/app/public%2f..%2fadmin",
            "/app/public;/..%2fadmin;x",
            "/;x%2Fy/app%2fadmin",
            "/app%2Fx%5C..%2F..%2Fadmin",
        ] {
            let below = |form: &String| form == "/app/admin" || form.starts_with("/app/admin/");
            assert!(shown(path).iter().any(below), "{path}: {:?}", shown(path));
        }
        for path in ["/app/administrator", "/app/adm", "/x;/app%2eadmin"] {
            let below = |form: &String| form.starts_with("/app/admin/") || form == "/app/admin";
            assert!(!shown(path).iter().any(below), "{path}: {:?}", shown(path));
        }
    }
}
