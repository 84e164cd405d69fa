//! The configuration as it counts: each key with its value, and where that comes from.

use std::fmt;
use std::path::Path;

use super::{App, Host, Plan, files, variables};
use crate::config::{Apps, DefaultValue, Diagnostic, Given, KEYS, Key, Sources};

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of the key.
    pub name: String,
    /// The value in TOML; `None` without one.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From this place in a file, or this option; also from variables of the environment, if it names some.
    Written(String, bool),
    /// From this variable of the environment.
    Variable(&'static str),
    /// Nothing is written; what that means, if there is no value.
    Default(Option<&'static str>),
}

/// A table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, such as `app.web`.
    pub name: String,
    /// Its keys, in the order of the manual.
    pub entries: Vec<Entry>,
}

/// Tables below an app whose keys are shown one by one.
const BELOW: [&str; 3] = ["reload", "queue", "upstream"];

impl Plan {
    /// Reads and checks a configuration, and tells all its values.
    ///
    /// # Errors
    /// The first error, formatted.
    pub fn effective(given: Given, file: &Path, host: &dyn Host) -> Result<Vec<Table>, Diagnostic> {
        let plan = Self::of(given.clone(), file, host)?;
        let files::Loaded {
            sources, config, ..
        } = files::load(given, file, host)?;
        let reading = Reading {
            sources: &sources,
            host,
            parsed: (0..sources.number())
                .map(|number| sources.toml(number))
                .collect(),
        };
        let mut tables = vec![reading.table("master", &["master"], 0, |_| true)];
        for (name, written) in &config.app {
            let (at, name) = (name.span().start, name.get_ref());
            let is_wsgi = written.wsgi.is_some();
            let other = if is_wsgi { "command" } else { "wsgi" };
            let fits = |key: &Key| match key.apps {
                Apps::Any => key.name != other,
                Apps::Wsgi => is_wsgi,
                Apps::Command => !is_wsgi,
            };
            let mut table = reading.table("app.NAME", &["app", name], at, fits);
            if let Some(app) = plan.app(name) {
                by_variables(&mut table, app);
            }
            tables.push(table);
            for below in BELOW {
                tables.push(reading.table(
                    &format!("app.NAME.{below}"),
                    &["app", name, below],
                    at,
                    |_| true,
                ));
            }
        }
        for name in config.site.keys() {
            let (at, name) = (name.span().start, name.get_ref());
            tables.push(reading.table("site.NAME", &["site", name], at, |_| true));
        }
        if !config.site.is_empty() {
            tables.push(reading.table("front", &["front"], 0, |_| true));
        }
        Ok(tables)
    }
}

/// What hosting platforms have set in the place of keys that are not written.
fn by_variables(table: &mut Table, app: &App) {
    let says = |variable: &str| {
        let mut notices = app.notices.iter();
        notices.any(|notice| notice.contains(&format!("from the variable {variable},")))
    };
    for entry in &mut table.entries {
        let is_default = matches!(entry.origin, Origin::Default(_));
        let found = match entry.name.as_str() {
            "workers" if is_default && says("WEB_CONCURRENCY") => {
                ("WEB_CONCURRENCY", app.policy.workers.to_string())
            }
            "listen" if is_default && says("PORT") => {
                let addresses = app.sockets.iter().map(|(_, at)| at.to_string());
                (
                    "PORT",
                    shown(&toml::Value::from(addresses.collect::<Vec<_>>())),
                )
            }
            _ => continue,
        };
        entry.value = Some(found.1);
        entry.origin = Origin::Variable(found.0);
    }
}

struct Reading<'a> {
    sources: &'a Sources,
    host: &'a dyn Host,
    /// The files, as TOML without types.
    parsed: Vec<toml::Table>,
}

impl Reading<'_> {
    /// The keys of `table` that fit, with their values in the table at `path` of the file that has the position `at`.
    fn table(&self, table: &str, path: &[&str], at: usize, fits: impl Fn(&Key) -> bool) -> Table {
        let number = self.sources.number_at(at);
        let mut written: Option<&toml::Table> = self.parsed.get(number);
        for step in path {
            written = written.and_then(|table| table.get(*step)?.as_table());
        }
        let rows = KEYS.iter().filter(|key| key.table == table && fits(key));
        let rows = rows.filter(|key| !(table == "app.NAME" && BELOW.contains(&key.name)));
        let entries = rows.filter_map(|key| {
            let value = written.and_then(|table| table.get(key.name));
            let (value, origin) = match (value, key.default) {
                (Some(value), _) => {
                    let mut value = value.clone();
                    // What these hold is nobody's business.
                    let from_variables =
                        !matches!(key.name, "env" | "secrets") && self.expand(&mut value);
                    let place = self.sources.place_of(number, path, key.name);
                    (Some(shown(&value)), Origin::Written(place, from_variables))
                }
                (None, DefaultValue::Toml(default)) => {
                    (Some(default.to_owned()), Origin::Default(None))
                }
                (None, DefaultValue::Absent(meaning)) => (None, Origin::Default(Some(meaning))),
                (None, DefaultValue::Required) => return None,
            };
            Some(Entry {
                name: key.name.to_owned(),
                value,
                origin,
            })
        });
        Table {
            name: path.join("."),
            entries: entries.collect(),
        }
    }

    /// Replaces references to variables; whether there was one.
    fn expand(&self, value: &mut toml::Value) -> bool {
        match value {
            toml::Value::String(text) => {
                let Some(expanded) = variables::expanded(text, self.host) else {
                    return false;
                };
                // As it would be written again.
                let written = expanded.replace('$', "$$");
                let changed = written != *text;
                *text = written;
                changed
            }
            toml::Value::Array(values) => self.expand_all(values.iter_mut()),
            toml::Value::Table(table) => self.expand_all(table.iter_mut().map(|(_, value)| value)),
            _ => false,
        }
    }

    fn expand_all<'v>(&self, values: impl Iterator<Item = &'v mut toml::Value>) -> bool {
        let references = values.map(|value| usize::from(self.expand(value)));
        references.sum::<usize>() > 0
    }
}

/// A value in one line of TOML.
fn shown(value: &toml::Value) -> String {
    // The escapes of JSON are escapes of TOML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        toml::Value::String(text) => quoted(text),
        toml::Value::Array(values) => {
            let values: Vec<_> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        toml::Value::Table(table) if table.is_empty() => "{}".to_owned(),
        toml::Value::Table(table) => {
            let pairs = table.iter().map(|(name, value)| {
                let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
                let name = match !name.is_empty() && name.chars().all(is_bare) {
                    true => name.clone(),
                    false => quoted(name),
                };
                format!("{name} = {}", shown(value))
            });
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => format!("{number:?}"),
        toml::Value::Boolean(value) => value.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What counts on the command line where no option says otherwise.
            Self::Written(place, _) if place.is_empty() => f.write_str("default"),
            Self::Written(place, false) => f.write_str(place),
            Self::Written(place, true) => write!(f, "{place}, with variables of the environment"),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Default(_) => f.write_str("default"),
        }
    }
}

/// The tables as a configuration that does the same, with the origin of each value as a comment. A default is a comment as a whole.
pub fn text(tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables {
        // An app that lacks a key may not have it written either, not even with its default.
        let is_default = |entry: &Entry| matches!(entry.origin, Origin::Default(_));
        let is_below = table.name.split('.').count() > 2;
        let sign = match is_below && table.entries.iter().all(is_default) {
            true => "#",
            false => "",
        };
        text += &format!("{sign}[{}]\n", table.name);
        for entry in &table.entries {
            text += &match (&entry.value, &entry.origin) {
                (Some(value), Origin::Default(_)) => {
                    format!("#{} = {value}  # default\n", entry.name)
                }
                (Some(value), origin) => format!("{} = {value}  # {origin}\n", entry.name),
                (None, Origin::Default(Some(meaning))) => {
                    format!("# {}: {meaning}  # default\n", entry.name)
                }
                (None, origin) => format!("# {}: none  # {origin}\n", entry.name),
            };
        }
        text.push('\n');
    }
    text.trim_end().to_owned()
}
