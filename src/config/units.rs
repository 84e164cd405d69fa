//! Numbers with units: "30s", "1h30m", "512MiB".

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A time as "30s", "1h30m", "250ms".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of bytes as "10MB", "512MiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// Longer times are typing errors, and near the end of what a clock can count.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a time; it must be longer than zero and have a unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err(format!("the time \"{text}\" must be longer than zero")),
        Ok(time) if time > LONGEST => Err(format!("the time \"{text}\" is longer than a year")),
        Ok(time) => Ok(time),
        Err(error) => Err(format!(
            "\"{text}\" is no time: {error} (write it as \"30s\", \"1h30m\" or \"250ms\")"
        )),
    }
}

fn size(text: &str) -> Result<u64, String> {
    if text.trim_end().ends_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "the size \"{text}\" has no unit (write \"{text}B\", \"{text}KiB\" or \"{text}MiB\")"
        ));
    }
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.0 == 0 => Err(format!("the size \"{text}\" must be more than zero")),
        Ok(size) => Ok(size.0),
        Err(_) => Err(format!(
            "\"{text}\" is no size (write it as \"64KiB\", \"512MiB\" or \"1.5GB\")"
        )),
    }
}

struct Text<T> {
    expected: &'static str,
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
        let expected = self.expected;
        Err(E::custom(format!(
            "{number} has no unit; expected {expected}"
        )))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text {
            expected: "a time such as \"30s\"",
            parse: time,
        };
        deserializer.deserialize_any(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text {
            expected: "a size such as \"10MiB\"",
            parse: size,
        };
        deserializer.deserialize_any(text).map(Self)
    }
}
