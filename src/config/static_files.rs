//! `static`: mappings by prefix, or "django".

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer};
use toml::Spanned;

use super::mapping::Mapped;
use super::short::Short;
use super::value::Typed;

/// The files that are served without the application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StaticFiles {
    /// The mappings that are written.
    pub mappings: BTreeMap<String, Spanned<Mapped>>,
    /// Whether the settings of a Django site say what there is.
    pub by_django: bool,
}

impl Short for StaticFiles {
    const EXPECTED: &'static str = "a table of prefixes, or \"django\"";
    type Table = BTreeMap<String, Spanned<Mapped>>;

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "django" => Ok(Self {
                by_django: true,
                ..Self::default()
            }),
            // A folder, most likely.
            other => Err(format!(
                "must be a table of prefixes, or \"django\" (write for example {{ \"/static/\" = \"{}\" }})",
                other.escape_default()
            )),
        }
    }

    fn from_table(mappings: BTreeMap<String, Spanned<Mapped>>) -> Self {
        Self {
            mappings,
            by_django: false,
        }
    }
}

impl<'de> Deserialize<'de> for StaticFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Typed for StaticFiles {
    fn description() -> String {
        format!(
            "{} or \"django\"",
            BTreeMap::<String, Mapped>::description()
        )
    }
}
