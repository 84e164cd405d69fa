//! Bytes of HTTP as Python strings and back: latin-1, one code point for each byte (PEP 3333, "Unicode Issues").

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// A str with one code point for each byte.
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.is_ascii() => PyString::new(py, text),
        _ => PyString::new(
            py,
            &bytes.iter().map(|&b| char::from(b)).collect::<String>(),
        ),
    }
}

/// The bytes of a str; none when a code point is above 255.
pub(crate) fn encode<'a>(text: &'a Bound<'_, PyString>) -> Option<Cow<'a, [u8]>> {
    let text = text.to_str().ok()?;
    if text.is_ascii() {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect::<Option<Vec<_>>>()
        .map(Cow::Owned)
}
