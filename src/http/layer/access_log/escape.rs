//! Values that a client has sent, so that they look like no other line and no other value, and control no terminal.

use std::io::Write as _;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Quotation marks, backslashes, control characters and what is not ASCII as `\xHH`.
    Text,
    /// As in a JSON string (RFC 8259 section 7). Bytes that are not UTF-8 stand there as the text `\xHH`.
    Json,
}

/// What stands at the end of a value that was cut.
const CUT: &[u8] = b"...";

/// A value that is being written, of limited length.
pub(super) struct Value<'a> {
    out: &'a mut Vec<u8>,
    escape: Escape,
    left: usize,
    is_cut: bool,
}

impl<'a> Value<'a> {
    /// A value that adds `most` bytes to `out` at most.
    pub fn begin(out: &'a mut Vec<u8>, escape: Escape, most: usize) -> Self {
        let quotes = match escape {
            Escape::Text => 0,
            Escape::Json => 2,
        };
        if escape == Escape::Json {
            out.push(b'"');
        }
        Self {
            out,
            escape,
            left: most.saturating_sub(CUT.len() + quotes),
            is_cut: false,
        }
    }

    /// Adds bytes that a client has sent.
    pub fn add(&mut self, bytes: &[u8]) {
        let is_plain = |&byte: &u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if bytes.len() <= self.left && bytes.iter().all(is_plain) && !self.is_cut {
            self.out.extend_from_slice(bytes);
            self.left -= bytes.len();
            return;
        }
        match self.escape {
            Escape::Text => self.add_text(bytes),
            Escape::Json => self.add_json(bytes),
        }
    }

    fn add_text(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let done = match byte {
                b'"' | b'\\' | 0..=0x1f | 0x7f.. => self.put(&hex(byte)),
                _ => self.put(&[byte]),
            };
            if !done {
                return;
            }
        }
    }

    fn add_json(&mut self, bytes: &[u8]) {
        let mut room = [0; 12];
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                let done = match c {
                    '"' => self.put(b"\\\""),
                    '\\' => self.put(b"\\\\"),
                    ' '..='~' => self.put(&[c as u8]),
                    _ if is_shown(c) => self.put(c.encode_utf8(&mut room).as_bytes()),
                    // All of these are in the basic plane.
                    _ => {
                        let mut rest = &mut room[..];
                        // It has room for six bytes.
                        let _ = write!(rest, "\\u{:04x}", u32::from(c));
                        let length = 12 - rest.len();
                        let escaped = room;
                        self.put(&escaped[..length])
                    }
                };
                if !done {
                    return;
                }
            }
            for &byte in chunk.invalid() {
                let [_, x, high, low] = hex(byte);
                if !self.put(&[b'\\', b'\\', x, high, low]) {
                    return;
                }
            }
        }
    }

    /// Adds this whole or not at all; whether there was room.
    fn put(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.left || self.is_cut {
            self.is_cut = true;
            return false;
        }
        self.out.extend_from_slice(bytes);
        self.left -= bytes.len();
        true
    }

    /// The end of the value.
    pub fn end(self) {
        if self.is_cut {
            self.out.extend_from_slice(CUT);
        }
        if self.escape == Escape::Json {
            self.out.push(b'"');
        }
    }
}

fn is_shown(c: char) -> bool {
    !preforkd_worker::text::clean(c.encode_utf8(&mut [0; 4]), 1).is_empty()
}

fn hex(byte: u8) -> [u8; 4] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |number: u8| DIGITS[usize::from(number)];
    [b'\\', b'x', digit(byte >> 4), digit(byte & 15)]
}

/// The text with everything escaped, for messages: `most` bytes at most.
pub(crate) fn shown(bytes: &[u8], most: usize) -> String {
    let mut out = Vec::new();
    let mut value = Value::begin(&mut out, Escape::Text, most);
    value.add(bytes);
    value.end();
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(escape: Escape, bytes: &[u8], most: usize) -> String {
        let mut out = Vec::new();
        let mut value = Value::begin(&mut out, escape, most);
        value.add(bytes);
        value.end();
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_is_escaped_and_how() {
        for (bytes, text, json) in [
            (&b"plain text"[..], "plain text", r#""plain text""#),
            (b"a\"b\\c", r"a\x22b\x5Cc", r#""a\"b\\c""#),
            (
                b"\n\r\t\0\x7f",
                r"\x0A\x0D\x09\x00\x7F",
                r#""\u000a\u000d\u0009\u0000\u007f""#,
            ),
            (
                "ü\u{85}\u{202e}".as_bytes(),
                r"\xC3\xBC\xC2\x85\xE2\x80\xAE",
                r#""ü\u0085\u202e""#,
            ),
            (b"\xff\xc3", r"\xFF\xC3", r#""\\xFF\\xC3""#),
        ] {
            assert_eq!(written(Escape::Text, bytes, 100), text);
            assert_eq!(written(Escape::Json, bytes, 100), json);
        }
    }

    #[test]
    fn a_long_value_is_cut_between_two_characters() {
        assert_eq!(written(Escape::Text, b"abcdefgh", 8), "abcde...");
        assert_eq!(written(Escape::Text, b"abcd\"efgh", 10), "abcd...");
        assert_eq!(written(Escape::Json, "aüü".as_bytes(), 9), r#""aü...""#);
        assert_eq!(written(Escape::Text, b"abcde", 8), "abcde");
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_json_string_of_limited_length(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            most in 8..200usize,
        ) {
            let text = written(Escape::Json, &bytes, most);
            prop_assert!(text.len() <= most);
            prop_assert!(serde_json::from_str::<String>(&text).is_ok());
            let text = written(Escape::Text, &bytes, most);
            prop_assert!(text.len() <= most);
            prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'));
        }
    }
}
