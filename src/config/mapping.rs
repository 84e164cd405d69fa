//! An entry of `static`: a path, or a table with a path and how to serve what is there.

use std::fmt;
use std::path::PathBuf;

use preforkd_worker::settings::Coding;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::keys::Mapping;
use super::short::Short;
use super::table::Value;
use super::value::Typed;

/// An entry of `static`: a path, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped(pub Mapping);

/// The encodings that may lie beside a file, what is preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precompressed(pub Vec<Coding>);

impl Short for Mapped {
    const EXPECTED: &'static str = "a path, or a table with `folder`";
    type Table = Mapping;

    fn from_text(text: &str) -> Result<Self, String> {
        let path = Value::without_place(PathBuf::from(text));
        Ok(Self(Mapping::of(path)))
    }

    fn from_table(table: Mapping) -> Self {
        Self(table)
    }
}

impl<'de> Deserialize<'de> for Mapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

struct PrecompressedVisitor;

impl<'de> Visitor<'de> for PrecompressedVisitor {
    type Value = Precompressed;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a boolean, or a list of \"br\", \"zstd\" and \"gzip\"")
    }

    fn visit_bool<E: Error>(self, all: bool) -> Result<Precompressed, E> {
        Ok(Precompressed(match all {
            true => Coding::ALL.to_vec(),
            false => Vec::new(),
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Precompressed, A::Error> {
        let mut codings = Vec::new();
        while let Some(name) = seq.next_element::<String>()? {
            let coding = Coding::ALL.into_iter().find(|coding| coding.name() == name);
            let Some(coding) = coding else {
                return Err(A::Error::custom(format!(
                    "\"{name}\" is not a content coding that can be used here (write \"br\", \"zstd\" or \"gzip\")"
                )));
            };
            if codings.contains(&coding) {
                return Err(A::Error::custom(format!(
                    "\"{name}\" is there twice (remove one)"
                )));
            }
            codings.push(coding);
        }
        Ok(Precompressed(codings))
    }
}

impl<'de> Deserialize<'de> for Precompressed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PrecompressedVisitor)
    }
}

impl Typed for Mapped {
    fn description() -> String {
        "mapping".into()
    }
}

impl Typed for Precompressed {
    fn description() -> String {
        "boolean or list of \"br\", \"zstd\", \"gzip\"".into()
    }
}
