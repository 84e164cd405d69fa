//! `schedule`: a cron expression, or a table with one.

use serde::de::{Deserialize, Deserializer, Error};

use super::keys::Schedule;
use super::short::Short;
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

impl Short for Scheduled {
    const EXPECTED: &'static str = "a cron expression, or a table with `cron`";
    type Table = Schedule;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(Schedule {
            cron: Value::without_place(expression(text)?),
            timezone: None,
            timeout: None,
        }))
    }

    fn from_table(table: Schedule) -> Self {
        Self(table)
    }
}

impl<'de> Deserialize<'de> for Scheduled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
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
