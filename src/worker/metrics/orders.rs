//! What the process that answers `/metrics` is told at its start, as JSON in a memory file.
//!
//! Its descriptors are, from number 3 on: this file, the census, the listeners, and the scoreboard of each app.

use serde::{Deserialize, Serialize};

use crate::front::Outline;

/// The first argument of `preforkd-front` for this process.
pub const COMMAND: &str = "metrics";

/// The orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// The version of the master.
    pub version: String,
    /// The process of the master.
    pub master: u32,
    /// How many listeners there are.
    pub listeners: u32,
    /// The apps.
    pub apps: Vec<App>,
}

/// An app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its number in the census.
    pub number: u32,
    /// The addresses of its listeners.
    pub listeners: Vec<String>,
    /// What it serves, if it is the front.
    pub sites: Vec<Outline>,
}
