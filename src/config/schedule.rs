//! `schedule`: a cron expression, or a table with one.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::keys::Schedule;
use super::table::Value;
use super::value::Typed;
use crate::schedule;

/// A cron expression, which was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(pub String);

/// A cron expression, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled(pub Schedule);

fn expression(text: &str) -> Result<Expression, String> {
    schedule::parse(text).map(|_| Expression(text.trim().to_owned()))
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        expression(&text).map_err(D::Error::custom)
    }
}

struct ScheduledVisitor;

impl<'de> Visitor<'de> for ScheduledVisitor {
    type Value = Scheduled;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a cron expression, or a table with `cron`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scheduled, E> {
        let cron = expression(text).map_err(E::custom)?;
        Ok(Scheduled(Schedule {
            cron: Value::without_place(cron),
            timezone: None,
            timeout: None,
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scheduled, A::Error> {
        Schedule::deserialize(MapAccessDeserializer::new(map)).map(Scheduled)
    }
}

impl<'de> Deserialize<'de> for Scheduled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScheduledVisitor)
    }
}

impl Typed for Expression {
    fn description() -> String {
        "cron expression".into()
    }
}

impl Typed for Scheduled {
    fn description() -> String {
        "cron expression or table".into()
    }
}
