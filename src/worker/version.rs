//! The version of preforkd that a file belongs to. Each part carries a record of it between two separators, so that it can be read
//! without the part being run.

use std::hint;

/// What stands before and after the record; a byte that is rare in programs.
pub const SEPARATOR: u8 = 0x1e;
/// What the record begins with; the version follows.
pub const BEGIN: &str = "preforkd version ";

const RECORD: &str = concat!(
    "\u{1e}preforkd version ",
    env!("CARGO_PKG_VERSION"),
    "\u{1e}"
);

/// The version of the part that calls it.
pub fn own() -> &'static str {
    // The compiler must not see through it, so the record stays whole in the file.
    let record = hint::black_box(RECORD).trim_matches(char::from(SEPARATOR));
    record.strip_prefix(BEGIN).unwrap_or(record)
}

/// The version in a piece of a file between two separators, if it is the record.
pub fn of_record(piece: &[u8]) -> Option<&str> {
    let version = std::str::from_utf8(piece.strip_prefix(BEGIN.as_bytes())?).ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    (!version.is_empty() && version.len() <= 64 && version.bytes().all(is_plain)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_version_of_the_crate() {
        assert_eq!(own(), env!("CARGO_PKG_VERSION"));
        let mut pieces = RECORD.as_bytes().split(|&byte| byte == SEPARATOR);
        assert_eq!(pieces.find_map(of_record), Some(own()));
    }

    #[test]
    fn other_bytes_are_no_record() {
        let long = [BEGIN.as_bytes(), &[b'1'; 65]].concat();
        for piece in [
            &b""[..],
            b"preforkd version ",
            b"preforkd version 1 2",
            b"preforkd version 1\n",
            b"preforkd version \xff",
            b" preforkd version 1.0",
            &long,
        ] {
            assert_eq!(of_record(piece), None, "{}", piece.escape_ascii());
        }
        assert_eq!(
            of_record(b"preforkd version 1.2.3-rc.1+x"),
            Some("1.2.3-rc.1+x")
        );
    }
}
