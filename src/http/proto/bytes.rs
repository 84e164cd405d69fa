//! Classes of bytes, looked up in one table: a head is read and written byte by byte, and each byte costs.

/// A byte of a token: method, field name (RFC 9110 section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// A byte of a field value or a reason phrase (RFC 9110 section 5.5, RFC 9112 section 4).
pub(crate) const TEXT: u8 = 2;
/// A byte of a host's name: unreserved, percent sign or sub-delimiter but the comma (RFC 3986 section 3.2.2).
pub(crate) const NAME: u8 = 4;
/// A byte of a request target; see [`crate::proto::h1::target`].
pub(crate) const TARGET: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut n = 0;
    while n < 256 {
        let b = n as u8;
        if b.is_ascii_alphanumeric() {
            classes[n] |= TOKEN | NAME;
        }
        if (b >= b' ' && b != 0x7f) || b == b'\t' {
            classes[n] |= TEXT;
        }
        if b.is_ascii_graphic() && b != b'#' {
            classes[n] |= TARGET;
        }
        n += 1;
    }
    mark(
        mark(classes, b"!#$%&'*+-.^_`|~", TOKEN),
        b"-._~%!$&'()*+;=",
        NAME,
    )
};

const fn mark(mut classes: [u8; 256], bytes: &[u8], class: u8) -> [u8; 256] {
    let mut n = 0;
    while n < bytes.len() {
        classes[bytes[n] as usize] |= class;
        n += 1;
    }
    classes
}

/// Whether the byte is of the class.
pub(crate) fn is(class: u8, b: u8) -> bool {
    CLASSES[usize::from(b)] & class != 0
}

/// Whether all bytes are of the class, which is one; so are none.
pub(crate) fn all(class: u8, bytes: &[u8]) -> bool {
    // Without a branch for each byte: nearly always all are.
    let common = |left, &b: &u8| left & CLASSES[usize::from(b)];
    bytes.iter().fold(class, common) != 0
}

/// A byte of a token.
pub(crate) fn token(b: u8) -> bool {
    is(TOKEN, b)
}

/// A byte of a field value.
pub(crate) fn text(b: u8) -> bool {
    is(TEXT, b)
}

/// A number in decimal digits only, without a sign; none also if it is too large.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a class, those above 0x7f left out.
    fn members(class: u8) -> String {
        let ascii = 0..0x80u8;
        ascii.filter(|&b| is(class, b)).map(char::from).collect()
    }

    #[test]
    fn classes_are_those_of_the_grammar() {
        let alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let sorted = |more: &str| {
            let mut bytes: Vec<char> = alphanumeric.chars().chain(more.chars()).collect();
            bytes.sort_unstable();
            bytes.into_iter().collect::<String>()
        };
        assert_eq!(members(TOKEN), sorted("!#$%&'*+-.^_`|~"));
        assert_eq!(members(NAME), sorted("-._~%!$&'()*+;="));
        assert_eq!(members(TARGET), sorted("!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~"));
        assert_eq!(members(TEXT).chars().next(), Some('\t'));
        assert_eq!(members(TEXT)[1..], (' '..='~').collect::<String>());
        for high in 0x80..=0xff {
            assert!(
                is(TEXT, high) && !is(TOKEN | NAME | TARGET, high),
                "{high:#x}"
            );
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        assert_eq!(number(b"0018446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", " 1", "1 ", "0x1", "18446744073709551616"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn all_of_none_is_all() {
        assert!(all(TOKEN, b"") && all(TOKEN, b"a-b") && !all(TOKEN, b"a b"));
    }
}
