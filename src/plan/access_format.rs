//! `access_format`: the form of a line of the access log.

use preforkd_worker::access_format::{FIELDS, Format, FormatError};

use super::Draft;
use crate::config::Place;

/// How like a name of a field must be to be suggested, of 1.
const LIKE: f64 = 0.75;

impl Draft<'_> {
    /// The format as written, checked.
    pub(super) fn access_format(&self) -> Result<String, Place> {
        let key = &self.written.access_format;
        Format::parse(key).map_err(|error| {
            let hint = match &error {
                FormatError::Unknown(name) => hint(name),
                _ => String::new(),
            };
            key.wrong(format!("access_format: {error}{hint}"))
        })?;
        Ok(key.to_string())
    }
}

/// The nearest name, or all of them.
fn hint(unknown: &str) -> String {
    let names = FIELDS.iter().map(|known| known.0);
    let scored = names.map(|name| (strsim::jaro_winkler(unknown, name), name));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, name)) if score > LIKE => format!("; did you mean {{{name}}}?"),
        _ => {
            let all: Vec<&str> = FIELDS.iter().map(|known| known.0).collect();
            format!("; known here: {}", all.join(", "))
        }
    }
}
