//! `reload`: a table, or in short when the workers are replaced.

use std::fmt;
use std::ops::Deref;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::keys::Reload;
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

struct ProceedingVisitor;

impl<'de> Visitor<'de> for ProceedingVisitor {
    type Value = Proceeding;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("\"always\", \"on-change\" or a table")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Proceeding, E> {
        let when = When::deserialize(StrDeserializer::<E>::new(text)).map_err(|_| {
            E::custom(format!(
                "must be \"always\", \"on-change\" or a table, not \"{text}\""
            ))
        })?;
        Ok(Proceeding(Reload {
            when: Value::without_place(when),
            ..default("{}")
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Proceeding, A::Error> {
        Reload::deserialize(MapAccessDeserializer::new(map)).map(Proceeding)
    }
}

impl<'de> Deserialize<'de> for Proceeding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProceedingVisitor)
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
