//! `reload`: a table, or in short when the workers are replaced.

use std::ops::Deref;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{Deserialize, Deserializer};

use super::keys::Reload;
use super::short::Short;
use super::table::{Value, default};
use super::value::Typed;

/// Which reloads of the whole configuration replace the workers of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// All.
    Always,
    /// Those that find a change in what the configuration says about it.
    OnChange,
}

/// How a reload proceeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proceeding(pub Reload);

impl Deref for Proceeding {
    type Target = Reload;

    fn deref(&self) -> &Reload {
        &self.0
    }
}

impl Short for Proceeding {
    const EXPECTED: &'static str = "\"always\", \"on-change\" or a table";
    type Table = Reload;

    fn from_text(text: &str) -> Result<Self, String> {
        let when = When::deserialize(StrDeserializer::<Error>::new(text));
        let when = when
            .map_err(|_| format!("must be \"always\", \"on-change\" or a table, not \"{text}\""))?;
        Ok(Self(Reload {
            when: Value::without_place(when),
            ..default("{}")
        }))
    }

    fn from_table(table: Reload) -> Self {
        Self(table)
    }
}

impl<'de> Deserialize<'de> for Proceeding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Typed for Proceeding {
    fn description() -> String {
        "\"always\", \"on-change\" or table".into()
    }
}

impl Typed for When {
    fn description() -> String {
        "\"always\" or \"on-change\"".into()
    }
}
