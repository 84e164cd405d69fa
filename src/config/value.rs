//! Values with a small syntax of their own: `workers`, `mode` and `umask`, `ready`.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{Range, units};

/// The most workers of one app: far more than a machine runs, few enough that a typing error is found.
const MOST_WORKERS: i64 = 10_000;

/// How many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// So many.
    Number(u32),
    /// As many as CPUs that the master may use.
    Auto,
    /// As many as the load needs.
    Range(Range),
}

/// Permission bits, as "0660".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

/// When a worker counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// When it says so (`READY=1`).
    Notify,
    /// When its program was executed.
    Exec,
    /// When it has lived so long.
    After(Duration),
}

struct WorkersVisitor;

impl<'de> Visitor<'de> for WorkersVisitor {
    type Value = Workers;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number of workers, \"auto\" or { min = …, max = … }")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Workers, E> {
        match number {
            1..=MOST_WORKERS => Ok(Workers::Number(number as u32)),
            _ => Err(E::custom(format!(
                "workers must be between 1 and {MOST_WORKERS}, not {number}"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Workers, A::Error> {
        let range = Range::deserialize(MapAccessDeserializer::new(map))?;
        let Range { min, max, .. } = range;
        if !(1..=MOST_WORKERS).contains(&i64::from(max)) {
            return Err(A::Error::custom(format!(
                "workers: max must be between 1 and {MOST_WORKERS}, not {max}"
            )));
        }
        if min > max {
            return Err(A::Error::custom(format!(
                "workers: min is {min} and max is {max}, which is less"
            )));
        }
        Ok(Workers::Range(range))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Workers, E> {
        match text {
            "auto" => Ok(Workers::Auto),
            _ => Err(E::custom(format!(
                "workers must be a number, \"auto\" or {{ min = …, max = … }}, not \"{text}\""
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WorkersVisitor)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(D::Error::custom(format!(
                "\"{text}\" is no mode (write three or four octal digits, as \"0660\")"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Ready {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "notify" => Ok(Self::Notify),
            "exec" => Ok(Self::Exec),
            other => units::time(other).map(Self::After).map_err(|_| {
                D::Error::custom(format!(
                    "ready must be \"notify\", \"exec\" or a time such as \"2s\", not \"{other}\""
                ))
            }),
        }
    }
}
