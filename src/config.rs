//! `app.toml` as written. [`KEYS`] is the only table of its keys: type, default, when a change takes effect. After
//! parsing, each value is as written or the default. [`crate::plan`] checks whether it fits this host. Every error names the
//! key and shows its position.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

mod diagnostic;
mod keys;
mod listen;
mod mapping;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod unknown;
mod value;

pub use diagnostic::{Diagnostic, Place};
pub use keys::{App, Check, GiveUp, KEYS, Listen, Mapping, Master, Range, Reload};
pub use listen::{Address, Entry};
pub use mapping::{Mapped, Precompressed};
pub use table::{Apps, DefaultValue, Key, TakesEffect, Value};
pub use units::{Size, Time};
pub use value::{AccessLog, GroupName, Mode, Number, Ready, Then, Typed, UserName, Workers};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Config {
    /// Settings of the master itself.
    #[serde(default = "nothing_written")]
    pub master: Master,
    /// The apps by name.
    #[serde(default)]
    pub app: BTreeMap<Spanned<String>, App>,
}

fn nothing_written() -> Master {
    table::default("{}")
}

impl Config {
    /// Parses a configuration file.
    ///
    /// # Errors
    /// The first error, with its key and position; for an unknown key, the nearest known one.
    pub fn parse(text: &str) -> Result<Self, Place> {
        toml::from_str(text).map_err(|error| diagnostic::explain(&error, text))
    }
}
