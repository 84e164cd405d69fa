//! The keys of the layers of the front, which sites and their routes have alike.

use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error as _};

use super::keys::{BasicAuth, ForwardAuth, Maintenance};
use super::short::Short;
use super::table::Value;
use super::value::Typed;

/// A path, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintained(pub Maintenance);

impl Short for Maintained {
    const EXPECTED: &'static str = "a path, or a table with `page`";
    type Table = Maintenance;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(Maintenance {
            page: Value::without_place(PathBuf::from(text)),
            retry_after: Value::default("\"5m\""),
            except: Value::default("[]"),
        }))
    }

    fn from_table(table: Maintenance) -> Self {
        Self(table)
    }
}

impl<'de> Deserialize<'de> for Maintained {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Typed for Maintained {
    fn description() -> String {
        "path or table".into()
    }
}

/// A path, or a table with one; none if nobody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked(pub Option<BasicAuth>);

impl Short for Asked {
    const EXPECTED: &'static str = "a path, a table with `file`, or false";
    type Table = BasicAuth;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(Some(BasicAuth::of(PathBuf::from(text)))))
    }

    fn from_bool(value: bool) -> Option<Self> {
        (!value).then_some(Self(None))
    }

    fn from_table(table: BasicAuth) -> Self {
        Self(Some(table))
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Typed for Asked {
    fn description() -> String {
        "path, table or false".into()
    }
}

/// An app and a path, or a table; none if nobody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded(pub Option<ForwardAuth>);

impl Short for Forwarded {
    const EXPECTED: &'static str = "an app and a path such as \"auth:/verify\", a table, or false";
    type Table = ForwardAuth;

    fn from_text(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':');
        let parts = parts.filter(|(app, path)| !app.is_empty() && path.starts_with('/'));
        let parts = parts.filter(|(_, path)| !path.starts_with("//"));
        let (app, path) = parts.ok_or_else(|| {
            format!(
                "{text:?} is not an app and a path (write for example \"auth:/verify\", or a table with `to` for an address)"
            )
        })?;
        Ok(Self(Some(ForwardAuth::of(app, path))))
    }

    fn from_bool(value: bool) -> Option<Self> {
        (!value).then_some(Self(None))
    }

    fn from_table(table: ForwardAuth) -> Self {
        Self(Some(table))
    }
}

impl<'de> Deserialize<'de> for Forwarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Typed for Forwarded {
    fn description() -> String {
        "app and path, table or false".into()
    }
}

/// A number of requests and the seconds in which they may come, as "10/s".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerTime {
    /// The requests.
    pub requests: u32,
    /// The seconds.
    pub seconds: u64,
}

impl<'de> Deserialize<'de> for PerTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (number, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return None,
            };
            let requests = number.trim().parse().ok();
            let requests = requests.filter(|number| (1..=1_000_000).contains(number))?;
            Some(Self { requests, seconds })
        };
        read().ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is not a rate (write a number of requests and a time, such as \"10/s\", \"100/m\" or \"1000/h\")"
            ))
        })
    }
}

impl Typed for PerTime {
    fn description() -> String {
        "rate".into()
    }
}
