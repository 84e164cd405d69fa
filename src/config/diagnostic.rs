//! Formats an error in a file: `file:line:column: message`, the line, and a caret under the position. In what the command line says, it is
//! `option: message`.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::sources::{ByOption, Sources};
use super::unknown;

/// An error at a position of the file, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The position; `None` for the whole file.
    pub span: Option<Range<usize>>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Place {
    /// An error at `span`.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
        }
    }

    /// An error of the file as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            span: None,
            message: message.into(),
        }
    }
}

/// A formatted error in a configuration.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    shown: Shown,
    message: String,
}

/// Where an error is.
#[derive(Debug, Clone)]
enum Shown {
    /// A position in a file.
    At {
        file: String,
        line: usize,
        column: usize,
        text: String,
        width: usize,
    },
    /// In an option of the command line.
    Option(String),
    /// In what the command line says as a whole.
    CommandLine,
}

impl Diagnostic {
    /// Finds the line and column of `place` in the text of `file`.
    pub fn new(file: &str, text: &str, place: Place) -> Self {
        let span = place.span.unwrap_or(0..0);
        let start = floor(text, span.start);
        let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let to = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, span.end.clamp(start, to));
        Self {
            shown: Shown::At {
                file: file.to_owned(),
                line: text[..from].matches('\n').count() + 1,
                column: text[from..start].chars().count() + 1,
                // A tab has no known width; keep it, so that the caret stands under its character.
                text: text[from..to].trim_end_matches('\r').replace('\t', " "),
                width: text[start..end].chars().count().max(1),
            },
            message: place.message,
        }
    }

    /// An error in what these options have written. The message begins with the option in place of the key that it sets.
    pub(super) fn of_options(options: &[ByOption], place: Place) -> Self {
        let span = place.span.unwrap_or(0..0);
        let mut options = options.iter();
        let option = options.find(|by| by.part.start <= span.start && span.end <= by.part.end);
        let message = option.and_then(|by| {
            let rest = place.message.strip_prefix(by.key)?;
            Some(rest.strip_prefix(": ")?.to_owned())
        });
        Self {
            shown: option.map_or(Shown::CommandLine, |by| Shown::Option(by.option.clone())),
            message: message.unwrap_or(place.message),
        }
    }

    /// The error in one line, for the log.
    pub fn one_line(&self) -> String {
        match self.position() {
            position if position.is_empty() => self.message.clone(),
            position => format!("{position}: {}", self.message),
        }
    }

    /// Its position, as `file:line:column`, or the option.
    pub(super) fn position(&self) -> String {
        match &self.shown {
            Shown::At {
                file, line, column, ..
            } => format!("{file}:{line}:{column}"),
            Shown::Option(option) => option.clone(),
            Shown::CommandLine => String::new(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown::At {
            line,
            column,
            text,
            width,
            ..
        } = &self.shown
        else {
            return f.write_str(&self.one_line());
        };
        let number = line.to_string();
        let gap = " ".repeat(number.len());
        let indent = " ".repeat(column - 1);
        let caret = "^".repeat(*width);
        writeln!(f, "{}", self.one_line())?;
        writeln!(f, "{gap} |")?;
        writeln!(f, "{number} | {text}")?;
        write!(f, "{gap} | {indent}{caret}")
    }
}

fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0)
}

/// Rewords an error of the TOML parser where that helps, and adds the key. The position counts through all files.
pub(super) fn explain(error: &toml::de::Error, sources: &Sources) -> Place {
    let (text, span) = match error.span() {
        Some(span) => {
            let (text, span) = sources.local(&span);
            (text, Some(span))
        }
        None => ("", None),
    };
    Place {
        span: error.span(),
        message: in_words(error, text, span),
    }
}

/// Rewords an error at a position of this text.
pub(super) fn in_words(error: &toml::de::Error, text: &str, span: Option<Range<usize>>) -> String {
    let path = span.as_ref().and_then(|span| path_to(text, span));
    let path = path.unwrap_or_default();
    let written = span.and_then(|span| text.get(span));
    let (key, message) = match unknown::explain(error.message()) {
        Some((unknown, message)) => {
            let known = path.iter().position(|key| *key == unknown);
            (key(&path[..known.unwrap_or(path.len())]), message)
        }
        None if error.message() == "duplicate key" => {
            let written = written.unwrap_or_default();
            (None, format!("{written} stands twice (remove one)"))
        }
        None => {
            let name = path.last().cloned();
            let key = key(&path).or(name);
            let message = in_words_of_toml(error.message(), key.as_deref(), written);
            (key, message)
        }
    };
    match key {
        Some(key) => format!("{key}: {message}"),
        None => message,
    }
}

/// A key as a path below `[master]`, its app or its site.
fn key(path: &[String]) -> Option<String> {
    let from = match path.first()?.as_str() {
        "app" | "site" => 2,
        _ => 1,
    };
    let key = path.get(from..)?.join(".");
    (!key.is_empty()).then_some(key)
}

/// The keys that lead to the value at `span`. `None` if the file is not valid TOML.
fn path_to(text: &str, span: &Range<usize>) -> Option<Vec<String>> {
    let file = DeTable::parse(text).ok()?;
    let mut path = find(file.get_ref(), span)?;
    path.reverse();
    Some(path)
}

/// The same, innermost key first.
fn find(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    table.iter().find_map(|(name, value)| {
        // The position of a table with a header is the header, so look inside each table.
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find(inner, span),
            DeValue::Array(values) => values.iter().find_map(|value| match value.get_ref() {
                DeValue::Table(inner) => find(inner, span),
                _ => None,
            }),
            _ => None,
        };
        let place = value.span();
        let here = place.start <= span.start && span.end <= place.end;
        let mut path = inner.or_else(|| here.then(Vec::new))?;
        path.push(name.get_ref().to_string());
        Some(path)
    })
}

/// Replaces serde's type names by terms of TOML, and says what to write. `written` is the value as it is written.
fn in_words_of_toml(message: &str, key: Option<&str>, written: Option<&str>) -> String {
    let found = |found: &str| match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        other => {
            let other = other.replace('`', "").replace("floating point", "number");
            let other = other.replace("integer", "number");
            format!("the {}", other.trim_end_matches(" as i128"))
        }
    };
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    let parts = |start| message.strip_prefix(start)?.split_once(", expected ");
    if let Some((what, expected)) = parts("invalid type: ") {
        let text = what
            .strip_prefix("string \"")
            .and_then(|text| text.strip_suffix('"'));
        let quoted = || match (what, written) {
            ("sequence" | "map", _) | (_, None) => "write it in quotes".to_owned(),
            (what, _) if what.starts_with("boolean") => "write \"…\"".to_owned(),
            (_, Some(written)) => format!("write it in quotes: \"{written}\""),
        };
        let (expected, hint) = match expected {
            "a sequence" => ("a list", format!("write {}", list(text))),
            "a string" => ("a string", quoted()),
            "path string" => ("a path", quoted()),
            "a map" | "a table" => ("a table", format!("write {}", table(key))),
            prefixes if prefixes.starts_with("a table of ") => {
                (prefixes, format!("write {}", table(key)))
            }
            "a boolean" => ("a boolean", "write true or false".to_owned()),
            other => match text.filter(|text| text.parse::<i64>().is_ok()) {
                Some(number) if other.contains("number") => {
                    (other, format!("write {number}, without quotes"))
                }
                _ => (other, String::new()),
            },
        };
        let hint = match hint.is_empty() {
            true => hint,
            false => format!(" ({hint})"),
        };
        return format!("must be {expected}, not {}{hint}", found(what));
    }
    if let Some((what, expected)) = parts("unknown variant ") {
        return format!("must be {expected}, not {what}").replace('`', "\"");
    }
    message.replace('\n', "; ")
}

/// A list of the words of a string.
fn list(text: Option<&str>) -> String {
    let words: Vec<_> = text.map_or_else(Vec::new, |text| text.split_whitespace().collect());
    match words.is_empty() {
        true => "[\"…\"]".to_owned(),
        false => format!("[\"{}\"]", words.join("\", \"")),
    }
}

/// An example of the table that a key has.
fn table(key: Option<&str>) -> &'static str {
    match key {
        Some("env") => "{ NAME = \"VALUE\" }",
        Some("static") => "{ \"/static/\" = \"FOLDER\" }",
        Some("reload") => "{ check = { path = \"/health\" } }",
        Some("routes") => "{ path = \"/PATH\", folder = \"FOLDER\" }",
        Some("reload.check") => "{ path = \"/health\" }",
        Some("log_rotate") => "{ size = \"100MiB\", keep = 5 }",
        Some("give_up") => "{ crashes = 5, within = \"1m\" }",
        _ => "{ KEY = VALUE }",
    }
}
