//! `app.toml` as written. [`KEYS`] is the only table of its keys: type, default, when a change takes effect. After
//! parsing, each value is as written or the default. [`crate::plan`] checks whether it fits this host. Every error names the
//! key and shows its position.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

mod certified;
mod command_line;
mod diagnostic;
mod document;
pub mod env_file;
mod expand;
mod hsts;
mod keys;
mod layers;
mod listen;
mod mapping;
mod proceeding;
mod rights;
mod route;
mod schedule;
mod short;
mod sources;
mod static_files;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod unknown;
mod value;

pub use certified::{Certified, Challenge};
pub use command_line::CommandLine;
pub use diagnostic::{Diagnostic, Place};
pub use document::Document;
pub use expand::Lookup;
pub use hsts::Hsts;
pub use keys::{
    Acme, Answer, App, BasicAuth, Certificate, Check, Eab, Fields, File, ForwardAuth, Front,
    GiveUp, KEYS, Landlock, Layers, Limits, Listen, Maintenance, Mapping, Master, Range, RateLimit,
    Redirect, Reload, Route, Schedule, Site,
};
pub use layers::{Asked, Forwarded, Maintained, PerTime};
pub use listen::{Address, Entry};
pub use mapping::{Mapped, Precompressed};
pub use proceeding::{Proceeding, When};
pub use rights::{Capability, Cpus, Integer, Limit, Port};
pub use route::{Answered, Redirected};
pub use schedule::{Expression, Scheduled};
pub use sources::{ByOption, Given, Sources};
pub use static_files::StaticFiles;
pub use table::{Apps, DefaultValue, Key, TakesEffect, Value};
pub use units::{Size, Time};
pub use unknown::{Instead, instead};
pub use value::{
    AccessLog, ClientCertificate, FixedWorkers, GroupName, MAX_WORKERS, Mode, Number, Ready,
    Replace, Restart, Stdin, StopSignal, Then, Typed, UserName, Workers,
};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Config {
    /// The patterns of the first file. What they name is here already.
    #[serde(default)]
    pub include: Vec<Spanned<String>>,
    /// Settings of the master itself.
    #[serde(default = "nothing_written")]
    pub master: Master,
    /// The apps by name.
    #[serde(default)]
    pub app: BTreeMap<Spanned<String>, App>,
    /// The sites by name.
    #[serde(default)]
    pub site: BTreeMap<Spanned<String>, Site>,
    /// The workers that serve them.
    #[serde(default = "nothing_written")]
    pub front: Front,
}

fn nothing_written<T: serde::de::DeserializeOwned>() -> T {
    table::default("{}")
}

impl Config {
    /// Parses a single file, in an environment without variables.
    ///
    /// # Errors
    /// The first error, with its key and position; for an unknown key, the nearest known one.
    pub fn parse(text: &str) -> Result<Self, Place> {
        let sources = Sources::new(String::new(), "/".into(), text.to_owned());
        Document::parse(&sources, 0, &|_| Ok(None))?.typed(&sources)
    }
}

/// A string with its references to variables replaced; `None` if one of them is wrong.
pub fn expand(text: &str, variable: &Lookup) -> Option<String> {
    expand::expand(text, variable).ok()
}
