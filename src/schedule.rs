//! The times of a schedule: a cron expression in a time zone. Pure: the data of the zone come from the plan, and the time from the
//! caller.
//!
//! A cron expression speaks of civil time, in which an hour can be missing or come twice. Changes of less than three hours are
//! handled as crontab(5) of Vixie cron says: a run at a fixed time that is missing happens at once after the change, and a repeated
//! time counts only once. An expression whose minute or hour begins with `*` follows real time instead.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};

pub mod appointments;
#[cfg(test)]
mod tests;

/// A change of the clock by as much is a correction, and the new time counts: cron(8).
pub const CORRECTION: SignedDuration = SignedDuration::from_hours(3);

/// The largest steps of second, minute, hour, day of the month, month, and day of the week.
const MOST: [u64; 6] = [59, 59, 23, 31, 12, 7];

/// More changes of a zone than there are in the years without the rarest day, 29 February, and its rarest weekday.
const MAX_CHANGES: usize = 200;

/// A time zone, and its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Zone {
    /// Without a name, when the machine has none: UTC.
    Utc,
    /// The rule itself, as in the variable TZ: "CET-1CEST,M3.5.0,M10.5.0/3".
    Rule(String),
    /// A file of the time zone database: tzfile(5).
    File {
        /// Its name, such as "Europe/Berlin".
        name: String,
        /// Its content.
        data: Vec<u8>,
    },
}

impl Zone {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Utc => "UTC",
            Self::Rule(rule) => rule,
            Self::File { name, .. } => name,
        }
    }

    fn read(&self) -> Result<TimeZone, String> {
        match self {
            Self::Utc => Ok(TimeZone::UTC),
            Self::Rule(rule) => TimeZone::posix(rule)
                .map_err(|error| format!("\"{rule}\" is not a time zone: {error}")),
            Self::File { name, data } => TimeZone::tzif(name, data)
                .map_err(|error| format!("the data of the time zone {name} are wrong: {error}")),
        }
    }
}

/// Reads a cron expression of five fields, or of six that begin with the second.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str) -> Result<Cron, String> {
    let example = "write for example \"*/5 * * * *\" for every five minutes, \"30 2 * * *\" for 02:30, or \"@daily\"";
    let fields = text.split_whitespace().count();
    if let Some(name) = text.trim().strip_prefix('@') {
        let known = [
            "hourly", "daily", "midnight", "weekly", "monthly", "yearly", "annually",
        ];
        if !known.contains(&name) {
            let known = known.map(|name| format!("@{name}")).join(", ");
            return Err(format!(
                "\"{text}\" is not a schedule (write one of {known})"
            ));
        }
    } else if !(5..=6).contains(&fields) {
        return Err(format!(
            "\"{text}\" has {fields} field{}, not five: minute, hour, day of the month, month, day of the week ({example})",
            if fields == 1 { "" } else { "s" }
        ));
    }
    let first = if fields == 5 { 1 } else { 0 };
    for (field, most) in text.split_whitespace().zip(MOST.into_iter().skip(first)) {
        for part in field.split(',') {
            let step = part
                .split_once('/')
                .and_then(|(_, step)| step.parse::<u64>().ok());
            if let Some(step) = step.filter(|&step| step > most) {
                return Err(format!(
                    "\"{text}\" is not a schedule: the step {step} in \"{part}\" is larger than {most}, so it would have no effect ({example})"
                ));
            }
        }
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(text).map_err(|error| {
        let error = error.to_string();
        let error = error.trim_end_matches('.').replace("Component error: ", "");
        format!("\"{text}\" is not a schedule: {error} ({example})")
    })?;
    let some_day = DateTime::constant(2024, 1, 1, 0, 0, 0, 0);
    match cron.find_next_occurrence(&some_day, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!(
            "\"{text}\" never comes (check the day of the month, and the month)"
        )),
    }
}

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Times {
    cron: Cron,
    zone: TimeZone,
    /// It names a minute and an hour, so each of its times counts once, also when the clock is changed.
    pub fixed: bool,
}

impl Times {
    /// The times of an expression in a zone.
    ///
    /// # Errors
    /// The expression or the data of the zone are wrong.
    pub fn new(expression: &str, zone: &Zone) -> Result<Self, String> {
        let cron = parse(expression)?;
        let zone = zone.read()?;
        // Without the name that stands for it.
        let written = cron.as_str().to_owned();
        let mut time = written.split_whitespace().rev().skip(3).take(2);
        let fixed = !time.any(|field| field.starts_with('*'));
        Ok(Self { cron, zone, fixed })
    }

    /// The first time after an instant; `None` if there is none.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Within one offset from UTC, civil time is real time.
        let mut offset = self.zone.to_offset(after);
        let mut from = offset.to_datetime(after);
        let mut inclusive = false;
        let before = self
            .zone
            .preceding(after.checked_add(SignedDuration::from_nanos(1)).ok()?);
        if let Some(change) = before.take(1).next() {
            let change = Change::at(&self.zone, change.timestamp());
            let counted = change.and_then(|change| self.counted(&change));
            if let Some(counted) = counted.filter(|counted| *counted > from) {
                (from, inclusive) = (counted, true);
            }
        }
        for change in self.zone.following(after).take(MAX_CHANGES) {
            let Some(change) = Change::at(&self.zone, change.timestamp()) else {
                continue;
            };
            let found = self.next_civil(from, inclusive)?;
            if found < change.ends {
                return offset.to_timestamp(found).ok();
            }
            let is_missing = change.skips() && self.fixed && change.is_small();
            if is_missing && found < change.begins {
                return Some(change.at);
            }
            offset = change.offset;
            from = self.counted(&change).unwrap_or(change.begins);
            inclusive = true;
        }
        let found = self.next_civil(from, inclusive)?;
        offset.to_timestamp(found).ok()
    }

    /// Until when the civil times after a change have counted before it.
    fn counted(&self, change: &Change) -> Option<DateTime> {
        (self.fixed && change.is_small() && !change.skips()).then_some(change.ends)
    }

    fn next_civil(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        self.cron.find_next_occurrence(&from, inclusive).ok()
    }

    /// An instant as people read it: `2026-03-29 03:00:00 +02:00`.
    pub fn show(&self, at: Timestamp) -> impl fmt::Display + use<> {
        Zoned::new(at, self.zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S %:z")
            .to_string()
    }
}

/// A change of the offset from UTC.
struct Change {
    at: Timestamp,
    /// Until this civil time the old offset counts...
    ends: DateTime,
    /// ...and from this one the new one.
    begins: DateTime,
    offset: Offset,
}

impl Change {
    /// The change at an instant; `None` if only its name changes.
    fn at(zone: &TimeZone, at: Timestamp) -> Option<Self> {
        let before = at.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        let (old, offset) = (zone.to_offset(before), zone.to_offset(at));
        (old != offset).then(|| Self {
            at,
            ends: old.to_datetime(at),
            begins: offset.to_datetime(at),
            offset,
        })
    }

    /// Whether civil times are missing.
    fn skips(&self) -> bool {
        self.begins > self.ends
    }

    fn is_small(&self) -> bool {
        self.begins.duration_since(self.ends).abs() < CORRECTION
    }
}
