//! A file of the configuration as TOML, before it gets types: references to variables are replaced, and what is written in a
//! form that is as good as the proper one takes the proper one.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::expand::{self, Lookup};
use super::keys::{File, KEYS};
use super::sources::Sources;
use super::{Config, Place, command_line, diagnostic};

/// The tables of a file. Positions count through all files.
pub struct Document<'a>(Spanned<DeTable<'a>>);

impl<'a> Document<'a> {
    /// Parses a file of `sources`, and replaces the references to variables in its strings.
    ///
    /// # Errors
    /// The text is not TOML, or a reference is wrong.
    pub fn parse(sources: &'a Sources, file: usize, variable: &Lookup) -> Result<Self, Place> {
        let (text, start) = sources.file(file);
        let reading = Reading {
            text,
            start,
            variable,
        };
        let parsed = DeTable::parse(text).map_err(|error| Place {
            span: error.span().map(|span| reading.shift(span)),
            message: diagnostic::in_words(&error, text, error.span()),
        })?;
        let span = reading.shift(parsed.span());
        let mut path = Path::default();
        let table = reading.table(parsed.into_inner(), &mut path)?;
        Ok(Self(Spanned::new(span, table)))
    }

    /// The patterns of its key `include`.
    ///
    /// # Errors
    /// The key has another type.
    pub fn include(&self, sources: &Sources) -> Result<Vec<Spanned<String>>, Place> {
        let (name, place) = ("include", self.0.span());
        let Some((name, patterns)) = self.0.get_ref().get_key_value(name) else {
            return Ok(Vec::new());
        };
        let table = DeTable::from_iter([(name.clone(), patterns.clone())]);
        let deserializer = toml::Deserializer::from(Spanned::new(place, table));
        let file = File::deserialize(deserializer);
        let file = file.map_err(|error| diagnostic::explain(&error, sources))?;
        Ok(file.include.to_vec())
    }

    /// Adds the tables of a file that was included.
    ///
    /// # Errors
    /// It has a table that is there already, or one that belongs in the first file.
    pub fn add(&mut self, other: Document<'a>, sources: &Sources) -> Result<(), Place> {
        for (key, value) in other.0.into_inner() {
            if key.get_ref() == "include" {
                continue;
            }
            if let name @ ("master" | "front") = &**key.get_ref() {
                let first = sources.name(0);
                let message =
                    format!("an included file cannot have [{name}] (move the table to {first})");
                return Err(Place::at(key.span(), message));
            }
            let ours = self.0.get_mut().get_mut(&**key.get_ref());
            match (ours.map(Spanned::get_mut), value.get_ref()) {
                (Some(DeValue::Table(ours)), DeValue::Table(_)) => {
                    let DeValue::Table(theirs) = value.into_inner() else {
                        continue;
                    };
                    add_tables(key.get_ref(), ours, theirs, sources)?;
                }
                (Some(_), _) => {
                    let message = format!("{} stands in two files (remove one)", key.get_ref());
                    return Err(Place::at(key.span(), message));
                }
                (None, _) => {
                    self.0.get_mut().insert(key, value);
                }
            }
        }
        Ok(())
    }

    /// Checks that `table` has tables with names in it, and not the keys of one.
    fn check_named(&self, table: &str) -> Result<(), Place> {
        let Some((key, value)) = self.0.get_ref().get_key_value(table) else {
            return Ok(());
        };
        let tables = match value.get_ref() {
            DeValue::Table(tables) => tables,
            DeValue::Array(_) => return Err(without_name(table, key)),
            // Of a wrong type, which the types say.
            _ => return Ok(()),
        };
        let of_one = format!("{table}.NAME");
        let is_key = |name: &str| {
            let mut keys = KEYS.iter();
            keys.any(|key| key.table == of_one && key.name == name)
        };
        let mut entries = tables.iter();
        let stray = entries.find(|(name, value)| {
            !matches!(value.get_ref(), DeValue::Table(_)) && is_key(name.get_ref())
        });
        stray.map_or(Ok(()), |(key, _)| Err(without_name(table, key)))
    }

    /// Gives the values their types.
    ///
    /// # Errors
    /// The first error, with its key and position; for an unknown key, the nearest known one.
    pub fn typed(self, sources: &Sources) -> Result<Config, Place> {
        for table in ["app", "site"] {
            self.check_named(table)?;
        }
        let deserializer = toml::Deserializer::from(self.0);
        Config::deserialize(deserializer).map_err(|error| diagnostic::explain(&error, sources))
    }
}

/// Why a table has no name.
fn without_name(table: &str, key: &Spanned<DeString>) -> Place {
    let message = format!(
        "{}: this {table} has no name (write it below [{table}.NAME], for example [{table}.web])",
        key.get_ref()
    );
    Place::at(key.span(), message)
}

/// Adds the tables `[key.NAME]` of another file.
fn add_tables<'a>(
    key: &str,
    ours: &mut DeTable<'a>,
    theirs: DeTable<'a>,
    sources: &Sources,
) -> Result<(), Place> {
    for (name, value) in theirs {
        if let Some((known, _)) = ours.get_key_value(&**name.get_ref()) {
            let first = sources.position(known.span().start);
            let message = format!(
                "[{key}.{}] is there already: {first} (rename or remove one of them)",
                name.get_ref()
            );
            return Err(Place::at(name.span(), message));
        }
        ours.insert(name, value);
    }
    Ok(())
}

/// The way to a value.
#[derive(Default)]
struct Path {
    /// The table in the table of keys, such as `app.NAME.reload`; `None` where keys are names.
    table: Option<String>,
    /// The keys, for messages.
    keys: Vec<String>,
}

impl Path {
    /// Whether a table of keys can stand here.
    fn has_keys(&self) -> bool {
        let table = self.table.as_deref();
        KEYS.iter().any(|key| Some(key.table) == table)
    }

    fn key(&self) -> String {
        let from = match self.keys.first().map(String::as_str) {
            Some("app" | "site") => 2,
            _ => 1,
        };
        let own = self.keys.get(from..).filter(|own| !own.is_empty());
        own.unwrap_or(&self.keys).join(".")
    }
}

/// What a value should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Boolean,
    Command,
    List,
    Mode,
    /// A table whose keys are names.
    Names,
    /// A table of variables.
    Variables,
    Other,
}

fn form(table: &str, name: &str) -> Form {
    let mut rows = KEYS.iter();
    let row = rows.find(|key| key.table == table && key.name == name);
    let description = row.map(|key| (key.type_description)());
    match description.as_deref() {
        Some("boolean") => Form::Boolean,
        Some("command") => Form::Command,
        Some("mode") => Form::Mode,
        Some("table of strings") if name == "env" => Form::Variables,
        Some(list) if list.starts_with("list of ") => Form::List,
        Some(table) if table.starts_with("table of ") => Form::Names,
        _ => Form::Other,
    }
}

/// The table that stands below a key.
fn below(table: Option<&str>, name: &str) -> Option<String> {
    match (table, name) {
        // The keys of [app] are the names of apps.
        (None, "master" | "front" | "app" | "site") => Some(name.to_owned()),
        (Some(names @ ("app" | "site")), _) => Some(format!("{names}.NAME")),
        // The same as those of apps, and of the site.
        (Some("site.NAME"), "listen" | "static") => Some(format!("app.NAME.{name}")),
        (Some("site.NAME.routes"), "folder") => Some("app.NAME.static".to_owned()),
        (Some("site.NAME" | "site.NAME.routes"), "request_headers") => {
            Some("site.NAME.response_headers".to_owned())
        }
        (Some("site.NAME.routes"), name) if name != "answer" => Some(format!("site.NAME.{name}")),
        (Some(table), name) => Some(format!("{table}.{name}")),
        _ => None,
    }
}

struct Reading<'r> {
    text: &'r str,
    start: usize,
    variable: &'r Lookup<'r>,
}

impl Reading<'_> {
    fn shift(&self, span: Range<usize>) -> Range<usize> {
        span.start + self.start..span.end + self.start
    }

    fn table<'a>(&self, table: DeTable<'a>, path: &mut Path) -> Result<DeTable<'a>, Place> {
        let mut read = DeTable::new();
        for (name, value) in table {
            let place = self.shift(name.span());
            let name = name.into_inner().into_owned();
            let form = form(path.table.as_deref().unwrap_or_default(), &name);
            let outer = path.table.clone();
            path.table = below(outer.as_deref(), &name);
            path.keys.push(name.clone());
            let value = self.value(value, form, path)?;
            path.keys.pop();
            path.table = outer;
            read.insert(Spanned::new(place, Cow::Owned(name)), value);
        }
        Ok(read)
    }

    /// The elements of a table whose keys are names.
    fn names<'a>(
        &self,
        table: DeTable<'a>,
        form: Form,
        path: &mut Path,
    ) -> Result<DeTable<'a>, Place> {
        let mut read = DeTable::new();
        for (name, value) in table {
            let place = self.shift(name.span());
            let name = name.into_inner().into_owned();
            path.keys.push(name.clone());
            let local = value.span();
            let mut value = self.value(value, Form::Other, path)?;
            let written = self.text.get(local).unwrap_or_default();
            let is_clear = match value.get_ref() {
                DeValue::Boolean(_) => true,
                // In another base, or with "_" between the digits, it may be meant in another way.
                DeValue::Integer(_) => written
                    .bytes()
                    .all(|byte| byte == b'-' || byte.is_ascii_digit()),
                _ => false,
            };
            if form == Form::Variables && is_clear {
                *value.get_mut() = DeValue::String(written.to_owned().into());
            }
            path.keys.pop();
            read.insert(Spanned::new(place, Cow::Owned(name)), value);
        }
        Ok(read)
    }

    /// The digits of a mode that is written as a number.
    fn mode(&self, local: &Range<usize>, path: &Path) -> Result<String, Place> {
        let written = self.text.get(local.clone()).unwrap_or_default();
        let is_octal = |digits: &str| digits.bytes().all(|byte| (b'0'..b'8').contains(&byte));
        if let Some(digits) = written.strip_prefix("0o") {
            return Ok(digits.replace('_', ""));
        }
        let message = match is_octal(written) {
            true => format!(
                "must be octal digits in quotes, not the number {written} (write \"0{written}\")"
            ),
            false => format!(
                "must be octal digits in quotes, not the number {written} (write for example \"0640\")"
            ),
        };
        let span = self.shift(local.clone());
        Err(Place::at(span, self.said(path, &message)))
    }

    fn value<'a>(
        &self,
        value: Spanned<DeValue<'a>>,
        form: Form,
        path: &mut Path,
    ) -> Result<Spanned<DeValue<'a>>, Place> {
        let local = value.span();
        let span = self.shift(local.clone());
        let at = |value| Spanned::new(span.clone(), value);
        let read = match (form, value.into_inner()) {
            (Form::Command, DeValue::String(text)) => {
                let words = command_line::split(&text)
                    .map_err(|message| Place::at(span.clone(), self.said(path, &message)))?;
                // Split first: what a variable holds is data, and stays one word.
                let words = words.iter().map(|word| {
                    let word = self.expanded(word, &local, path)?;
                    Ok(at(DeValue::String(word.into())))
                });
                DeValue::Array(words.collect::<Result<DeArray<'a>, Place>>()?)
            }
            (_, DeValue::String(text)) => {
                let text = self.expanded(&text, &local, path)?;
                match (form, text.as_str()) {
                    (Form::Boolean, "true") => DeValue::Boolean(true),
                    (Form::Boolean, "false") => DeValue::Boolean(false),
                    _ => DeValue::String(text.into()),
                }
            }
            (_, DeValue::Array(values)) => {
                let values = values.into_iter();
                let values = values.map(|value| self.value(value, Form::Other, path));
                DeValue::Array(values.collect::<Result<DeArray<'a>, Place>>()?)
            }
            (Form::Names | Form::Variables, DeValue::Table(table)) => {
                DeValue::Table(self.names(table, form, path)?)
            }
            (Form::Mode, DeValue::Integer(_)) => DeValue::String(self.mode(&local, path)?.into()),
            (_, DeValue::Table(table)) => DeValue::Table(self.table(table, path)?),
            (_, other) => other,
        };
        Ok(match (form, read) {
            (Form::List, DeValue::Table(table)) if !path.has_keys() => at(DeValue::Table(table)),
            (Form::List, single) if !matches!(single, DeValue::Array(_)) => {
                let list = std::iter::once(at(single));
                at(DeValue::Array(list.collect()))
            }
            (_, read) => at(read),
        })
    }

    /// A string with its references replaced. An error shows the reference, if it stands in the file as it is.
    fn expanded(&self, text: &str, local: &Range<usize>, path: &Path) -> Result<String, Place> {
        expand::expand(text, self.variable).map_err(|wrong| {
            let written = self.text.get(local.clone()).unwrap_or_default();
            let found = written.find(&wrong.reference).map(|at| {
                let start = local.start + at;
                start..start + wrong.reference.len()
            });
            let span = self.shift(found.unwrap_or_else(|| local.clone()));
            Place::at(span, self.said(path, &wrong.message))
        })
    }

    fn said(&self, path: &Path, message: &str) -> String {
        format!("{}: {message}", path.key())
    }
}
