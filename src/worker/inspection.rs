//! What a process that has only loaded an application tells of it: one JSON object on its standard output. Whoever asked treats it as data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::{Coding, Mapping};

/// The longest inspection that is read, in bytes.
pub const MAX_SIZE: usize = 256 << 10;

/// An application that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// The version of Python.
    pub python: String,
    /// What the application is, if it is a Django site.
    pub django: Option<Django>,
}

/// A Django site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Django {
    /// The version of Django.
    pub version: String,
    /// Its setting `DEBUG`.
    pub debug: bool,
    /// Whether its setting `LOGGING` is there: without it, nothing tells of errors unless `DEBUG` is on.
    pub has_logging: bool,
    /// The path of `STATIC_URL`.
    pub static_path: Option<String>,
    /// A middleware serves the static files.
    pub serves_static: bool,
    /// The static files.
    pub static_files: StaticFiles,
}

/// Where the static files of a Django site are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticFiles {
    /// The prefixes of paths, with the folders that are searched in this order.
    pub folders: Vec<(String, Vec<PathBuf>)>,
    /// Whether the folders are those from which `collectstatic` copies.
    pub by_finders: bool,
    /// Why there are none, or not all, and what to do.
    pub missing: Option<String>,
}

impl StaticFiles {
    /// How they are served: as Django does it, and with what was compressed when they were collected.
    pub fn mappings(&self) -> impl Iterator<Item = (String, Mapping)> {
        let precompressed = match self.by_finders {
            true => Vec::new(),
            false => Coding::ALL.to_vec(),
        };
        self.folders.iter().filter_map(move |(prefix, folders)| {
            let (first, behind) = folders.split_first()?;
            let mapping = Mapping {
                path: first.clone(),
                behind: behind.to_vec(),
                // The application has all other paths.
                fallthrough: prefix == "/",
                precompressed: precompressed.clone(),
                ..Mapping::default()
            };
            Some((prefix.clone(), mapping))
        })
    }
}

impl Inspection {
    /// Encodes the JSON object.
    ///
    /// # Errors
    /// A path is not valid UTF-8.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses the JSON object.
    ///
    /// # Errors
    /// It is none, or has other fields.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspection_survives_encoding_and_anything_else_is_refused() {
        let inspection = Inspection {
            python: "3.12.1".into(),
            django: Some(Django {
                version: "5.2".into(),
                debug: true,
                has_logging: false,
                static_path: Some("/static/".into()),
                serves_static: false,
                static_files: StaticFiles {
                    folders: vec![("/static/".into(), vec!["/srv/größe".into()])],
                    by_finders: true,
                    missing: None,
                },
            }),
        };
        let json = inspection.encode().expect("plain paths");
        assert_eq!(Inspection::parse(&json).ok(), Some(inspection));
        for other in ["", "{}", &json.replacen('{', "{\"new\":1,", 1)] {
            assert!(Inspection::parse(other).is_err(), "{other}");
        }
    }
}
