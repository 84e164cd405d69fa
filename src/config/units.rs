//! Numbers with units: "30s", "1h30m", "512MiB".

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::value::Typed;

/// A time as "30s", "1h30m", "250ms".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of bytes as "10MB", "512MiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// Longer times are typing errors, and close to the limits of clocks.
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// Parses a time. It must have a unit and be longer than zero.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err(format!("must be longer than zero, not \"{text}\"")),
        Ok(time) if time > MAX_TIME => Err(format!("must be a year at most, not \"{text}\"")),
        Ok(time) => Ok(time),
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => Err(
            format!("\"{text}\" has no unit (write for example \"{text}s\" or \"{text}ms\")"),
        ),
        Err(_) => Err(format!(
            "\"{text}\" is not a time (write for example \"250ms\", \"30s\" or \"1h30m\")"
        )),
    }
}

/// Parses a size. It must have a unit and be more than zero.
pub(super) fn size(text: &str) -> Result<u64, String> {
    if text.trim_end().ends_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "\"{text}\" has no unit (write for example \"{text}KiB\" or \"{text}MiB\")"
        ));
    }
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.0 == 0 => Err(format!("must be more than zero, not \"{text}\"")),
        Ok(size) => Ok(size.0),
        Err(_) => Err(format!(
            "\"{text}\" is not a size (write for example \"64KiB\", \"512MiB\" or \"1.5GB\")"
        )),
    }
}

struct Text<T> {
    expected: &'static str,
    example: fn(i64) -> String,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let example = (self.example)(number);
        Err(E::custom(format!(
            "{number} has no unit (write for example {example})"
        )))
    }
}

impl Typed for Time {
    fn description() -> String {
        "time".into()
    }
}

impl Typed for Size {
    fn description() -> String {
        "size".into()
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text {
            expected: "a time such as \"30s\"",
            example: |number| format!("\"{number}s\" or \"{number}ms\""),
            parse: time,
        };
        deserializer.deserialize_any(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text {
            expected: "a size such as \"10MiB\"",
            example: |number| format!("\"{number}KiB\" or \"{number}MiB\""),
            parse: size,
        };
        deserializer.deserialize_any(text).map(Self)
    }
}
