//! The head of a response (RFC 9110 section 6), in the form of no protocol.

use std::fmt;

use crate::proto::bytes::{TEXT, TOKEN, all, number};

/// More memory than this is not kept from one head to the next, in bytes.
const KEPT: usize = 16 * 1024;

/// Why a response head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Not three digits from 200 to 999, a space and a phrase.
    Status,
    /// Not a token (RFC 9110 section 5.1).
    Name,
    /// CR, LF, NUL or another control character (RFC 9110 section 5.5): response splitting.
    Value,
    /// `Transfer-Encoding` and its like are the server's own (PEP 3333, "Other HTTP Features").
    HopByHop,
    /// Not a number, or given twice with different numbers.
    ContentLength,
    /// The head was sent already.
    Sent,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => {
                "the status must be three digits, a space and a reason, without control characters"
            }
            Self::Name => "the name must be a token",
            Self::Value => "the value must not contain control characters",
            Self::HopByHop => "a hop-by-hop header is the server's own",
            Self::ContentLength => "Content-Length must be one number",
            Self::Sent => "the response head was sent already",
        })
    }
}

impl std::error::Error for HeadError {}

/// A status and fields in their order. Layers may change it until the protocol writes it.
///
/// `Content-Length` and the wish to close the connection are kept apart from the fields, as each protocol says them in its own way.
#[derive(Debug, Default)]
pub struct Head {
    /// 0 before the head was begun.
    code: u16,
    /// The status and its phrase, then the fields, each as `name: value` and a line end. Neither name nor value can contain one. HTTP/1
    /// copies them as they are.
    text: Vec<u8>,
    /// Where the fields begin.
    fields: usize,
    length: Option<u64>,
    pub(crate) has_date: bool,
    pub(crate) has_server: bool,
    pub(crate) close: bool,
}

impl Head {
    /// Begins a head with `status`, such as `200 OK`, or leaves it empty.
    pub(crate) fn begin(&mut self, status: &[u8]) -> Result<(), HeadError> {
        self.clear();
        // An interim status is no answer, and after 101 the connection would speak another protocol.
        let code = status_code(status).filter(|&code| code >= 200);
        self.begin_with(status, code)
    }

    /// The same for a status whose phrase is ours: there is nothing to check but its range.
    pub(crate) fn begin_known(&mut self, code: u16, phrase: &str) -> Result<(), HeadError> {
        self.clear();
        if !(200..1000).contains(&code) {
            return Err(HeadError::Status);
        }
        self.code = code;
        let digit = |place| b'0' + (code / place % 10) as u8;
        self.text
            .extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
        self.text.extend_from_slice(phrase.as_bytes());
        self.fields = self.text.len();
        Ok(())
    }

    /// The same for a status below 200, which a proxy passes on.
    pub(crate) fn begin_interim(&mut self, status: &[u8]) -> Result<(), HeadError> {
        self.clear();
        let code = status_code(status).filter(|code| (100..200).contains(code));
        self.begin_with(status, code)
    }

    fn begin_with(&mut self, status: &[u8], code: Option<u16>) -> Result<(), HeadError> {
        self.code = code.ok_or(HeadError::Status)?;
        self.text.extend_from_slice(status);
        // RFC 9112 section 4: the space stays even when there is no phrase.
        if status.len() == 3 {
            self.text.push(b' ');
        }
        self.fields = self.text.len();
        Ok(())
    }

    /// Takes everything back.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.code = 0;
        self.text.clear();
        self.fields = 0;
        self.length = None;
        (self.has_date, self.has_server, self.close) = (false, false, false);
    }

    /// The same, for another exchange.
    #[inline]
    pub(crate) fn renew(&mut self) {
        self.clear();
        self.text.shrink_to(KEPT);
    }

    /// Whether it was begun.
    pub(crate) fn is_begun(&self) -> bool {
        self.code != 0
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.code
    }

    /// The status code, a space and the phrase.
    pub(crate) fn status_text(&self) -> &[u8] {
        &self.text[..self.fields]
    }

    /// The fields as lines.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.text[self.fields..]
    }

    /// The length of the body that the application has declared.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Fields in their order, without those that are kept apart.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.lines();
        std::iter::from_fn(move || {
            let (name, value, length) = first(rest)?;
            rest = &rest[length..];
            Some((name, value))
        })
    }

    /// The first field of that name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Adds a field. `Connection` is dropped but for its wish to close, `Keep-Alive` is dropped.
    ///
    /// # Errors
    /// See [`HeadError`]; nothing is added then.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if name.is_empty() || !all(TOKEN, name) {
            return Err(HeadError::Name);
        }
        if !all(TEXT, value) {
            return Err(HeadError::Value);
        }
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"date") => self.has_date = true,
            6 if is(b"server") => self.has_server = true,
            10 if is(b"connection") => {
                self.close |= value
                    .split(|&b| b == b',')
                    .any(|o| o.trim_ascii().eq_ignore_ascii_case(b"close"));
                return Ok(());
            }
            10 if is(b"keep-alive") => return Ok(()),
            14 if is(b"content-length") => {
                let length = number(value).ok_or(HeadError::ContentLength)?;
                return match self.length.replace(length) {
                    Some(other) if other != length => Err(HeadError::ContentLength),
                    _ => Ok(()),
                };
            }
            17 if is(b"transfer-encoding") => return Err(HeadError::HopByHop),
            2 | 7 if is(b"te") || is(b"trailer") || is(b"upgrade") => {
                return Err(HeadError::HopByHop);
            }
            18 | 19 if is(b"proxy-authenticate") || is(b"proxy-authorization") => {
                return Err(HeadError::HopByHop);
            }
            _ => {}
        }
        let text = &mut self.text;
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: &[u8]) {
        let mut at = self.fields;
        while let Some((other, _, length)) = first(&self.text[at..]) {
            match other.eq_ignore_ascii_case(name) {
                true => drop(self.text.drain(at..at + length)),
                false => at += length,
            }
        }
        match name.len() {
            4 => self.has_date &= !name.eq_ignore_ascii_case(b"date"),
            6 => self.has_server &= !name.eq_ignore_ascii_case(b"server"),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length = None,
            _ => {}
        }
    }

    /// Says another status, with the same fields.
    pub(crate) fn restate(&mut self, status: &[u8]) -> Result<(), HeadError> {
        self.code = status_code(status).ok_or(HeadError::Status)?;
        self.text.splice(..self.fields, status.iter().copied());
        self.fields = status.len();
        Ok(())
    }

    /// Sets a field in place of all others of that name.
    ///
    /// # Errors
    /// See [`HeadError`]; the others are gone all the same.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        self.remove(name);
        self.add(name, value)
    }
}

/// Name and value of the first of these fields, and the length of its line.
fn first(lines: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let end = memchr::memchr(b'\r', lines)?;
    let colon = memchr::memchr(b':', &lines[..end])?;
    Some((&lines[..colon], &lines[colon + 2..end], end + 2))
}

fn status_code(status: &[u8]) -> Option<u16> {
    let (digits, phrase) = status.split_at_checked(3)?;
    let phrase_ok = match phrase {
        [] => true,
        [b' ', phrase @ ..] => all(TEXT, phrase),
        _ => false,
    };
    let code = number(digits)? as u16;
    phrase_ok.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let mut head = Head::default();
        head.begin(b"200 OK").unwrap();
        for (name, value) in [("X-A", "1"), ("x-b", ""), ("X-a", "a: b")] {
            head.add(name.as_bytes(), value.as_bytes()).unwrap();
        }
        head
    }

    fn fields(head: &Head) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        head.fields()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn fields_are_found_changed_and_removed() {
        let mut head = head();
        assert_eq!(
            fields(&head),
            pairs(&[("X-A", "1"), ("x-b", ""), ("X-a", "a: b")])
        );
        assert_eq!(head.get(b"X-B"), Some(&b""[..]));
        assert_eq!(head.get(b"X-C"), None);
        head.set(b"x-A", b"2").unwrap();
        assert_eq!(fields(&head), pairs(&[("x-b", ""), ("x-A", "2")]));
        head.remove(b"X-A");
        head.remove(b"X-B");
        assert_eq!(fields(&head), []);
        assert_eq!(head.status_text(), b"200 OK");
    }

    #[test]
    fn what_is_kept_apart_is_no_field() {
        let mut head = head();
        head.remove(b"x-a");
        for (name, value) in [
            ("Content-Length", "5"),
            ("Connection", "a, Close"),
            ("Keep-Alive", "1"),
            ("date", "now"),
        ] {
            head.add(name.as_bytes(), value.as_bytes()).unwrap();
        }
        assert_eq!(fields(&head), pairs(&[("x-b", ""), ("date", "now")]));
        assert_eq!(
            (head.content_length(), head.close, head.has_date),
            (Some(5), true, true)
        );
        head.remove(b"Date");
        assert!(!head.has_date);
    }

    #[test]
    fn another_status_leaves_the_fields() {
        let mut head = head();
        head.restate(b"206 Partial Content").unwrap();
        assert_eq!(head.status_text(), b"206 Partial Content");
        assert_eq!((head.status(), fields(&head).len()), (206, 3));
        assert_eq!(head.get(b"x-a"), Some(&b"1"[..]));
    }

    #[test]
    fn a_head_that_is_refused_leaves_nothing() {
        let mut head = head();
        assert_eq!(head.add(b"A", b"a\r\nB: c"), Err(HeadError::Value));
        assert_eq!(fields(&head).len(), 3);
        assert_eq!(head.begin(b"20"), Err(HeadError::Status));
        assert!(!head.is_begun() && fields(&head).is_empty());
    }
}
