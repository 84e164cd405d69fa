//! The directives of `Cache-Control` in a response: RFC 9111 section 5.2.2, and RFC 5861 section 3.
//!
//! There is a library for this (`http-cache-semantics`). It takes no directive that is written in capitals, and skips a field with a byte
//! outside ASCII: such a `Private` or `no-store` would be given to everybody.

/// RFC 9111 section 1.2.2: the longest time that must be understood, in seconds.
const LONGEST: u64 = 1 << 31;

/// What the fields say together. Of a directive that is there twice, what restricts more counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// The response is not for a shared cache: `no-store` or `private`.
    pub refuses: bool,
    /// It may be used only after the application was asked.
    pub no_cache: bool,
    /// It is for everybody.
    pub public: bool,
    /// It must not be used when it is stale.
    pub must_revalidate: bool,
    /// How long it is fresh, in seconds.
    pub max_age: Option<u64>,
    /// The same for shared caches.
    pub s_maxage: Option<u64>,
    /// How long it may be used after that, while it is asked for anew.
    pub stale_while_revalidate: Option<u64>,
}

impl Directives {
    /// Reads the values of all fields of this name.
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut directives = Self::default();
        for value in values {
            directives.read(value);
        }
        directives
    }

    fn read(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let end = end_of_directive(rest);
            // A quote that is not closed may hide anything.
            self.refuses |= end.is_none();
            let (directive, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.take(directive);
            rest = after.get(1..).unwrap_or_default();
        }
    }

    fn take(&mut self, directive: &[u8]) {
        let mut parts = directive.splitn(2, |&byte| byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let value = parts.next().map(<[u8]>::trim_ascii);
        let seconds = || value.and_then(seconds);
        match &*name.to_ascii_lowercase() {
            // With names of fields, too: what of a response may be stored is not told apart.
            b"private" | b"no-store" => self.refuses = true,
            b"no-cache" => self.no_cache = true,
            b"public" => self.public = true,
            b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate = true,
            // Section 4.2.1: what cannot be understood is stale.
            b"max-age" => shorter(&mut self.max_age, seconds().unwrap_or(0)),
            b"s-maxage" => shorter(&mut self.s_maxage, seconds().unwrap_or(0)),
            b"stale-while-revalidate" => {
                shorter(&mut self.stale_while_revalidate, seconds().unwrap_or(0));
            }
            _ => {}
        }
    }
}

/// Where the directive ends at the beginning of a field; none if it ends within a quoted string.
fn end_of_directive(text: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// A number of seconds, which may be quoted.
pub fn seconds(text: &[u8]) -> Option<u64> {
    let inner = text.strip_prefix(b"\"");
    let inner = inner.and_then(|text| text.strip_suffix(b"\""));
    let digits = inner.unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = str::from_utf8(digits).ok()?.parse().unwrap_or(LONGEST);
    Some(number.min(LONGEST))
}

fn shorter(known: &mut Option<u64>, seconds: u64) {
    *known = Some(known.map_or(seconds, |known| known.min(seconds)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Directives {
        Directives::of(values.iter().copied())
    }

    #[test]
    fn names_have_no_case_and_values_may_be_quoted() {
        let read = read(&[
            b"Public, MAX-AGE=\"60\"",
            b"s-maxage = 5 ,stale-while-revalidate=30",
        ]);
        let expected = Directives {
            public: true,
            max_age: Some(60),
            s_maxage: Some(5),
            stale_while_revalidate: Some(30),
            ..Directives::default()
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn whatever_refuses_is_found() {
        for value in [
            &b"max-age=60, Private"[..],
            b"max-age=60, private=\"set-cookie, x\"",
            b"NO-STORE",
            b"x=\"a, b\", no-store",
            b"x=\"\\\"\", no-store",
            b"\xff, no-store",
            b"max-age=60, x=\"no end, public",
        ] {
            assert!(read(&[value]).refuses, "{}", value.escape_ascii());
        }
        for value in [
            &b"x=\"no-store\", max-age=1"[..],
            b"no-storex",
            b"",
            b",, ,",
        ] {
            assert!(!read(&[value]).refuses, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn what_is_said_twice_or_wrong_is_the_shorter_time() {
        for (value, expected) in [
            (&b"max-age=60, max-age=5"[..], Some(5)),
            (b"max-age=5, max-age=60", Some(5)),
            (b"max-age", Some(0)),
            (b"max-age=", Some(0)),
            (b"max-age=-1", Some(0)),
            (b"max-age=1.5", Some(0)),
            (b"max-age=99999999999999999999999", Some(LONGEST)),
            (b"maxage=60", None),
        ] {
            assert_eq!(read(&[value]).max_age, expected, "{}", value.escape_ascii());
        }
    }
}
