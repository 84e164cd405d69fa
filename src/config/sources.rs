//! The files of a configuration. Positions count through all of them, so that each value says which file it stands in.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Diagnostic, Place};

/// A part of a configuration that was not written in a file, but by an option of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByOption {
    /// The part.
    pub part: Range<usize>,
    /// The option with its value, as in messages.
    pub option: String,
    /// The key that it sets.
    pub key: &'static str,
}

/// The first file of a configuration, or what stands for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// The text.
    pub text: String,
    /// Which options have written it; `None` for a file.
    pub options: Option<Vec<ByOption>>,
}

impl Given {
    /// The text of a file.
    pub fn file(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            options: None,
        }
    }
}

/// A file.
#[derive(Debug)]
struct Source {
    /// Its name in messages.
    name: String,
    /// The options that have written it, if it is no file.
    options: Option<Vec<ByOption>>,
    /// Its folder, where relative paths in it start.
    folder: PathBuf,
    text: String,
    /// The position of its first byte.
    start: usize,
}

/// The files of a configuration; the first one is that which was given with `-c`.
#[derive(Debug)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// A first file, with its name in messages, its folder and its text.
    pub fn new(name: String, folder: PathBuf, text: String) -> Self {
        Self::of(name, folder, Given::file(text))
    }

    /// The same, of what was given in place of a file too.
    pub fn of(name: String, folder: PathBuf, given: Given) -> Self {
        Self(vec![Source {
            name,
            options: given.options,
            folder,
            text: given.text,
            start: 0,
        }])
    }

    /// Adds a file.
    pub fn add(&mut self, name: String, folder: PathBuf, text: String) {
        let last = &self.0[self.0.len() - 1];
        // One more, so that the end of a file is not the start of the next one.
        let start = last.start + last.text.len() + 1;
        self.0.push(Source {
            name,
            options: None,
            folder,
            text,
            start,
        });
    }

    /// The number of files.
    pub fn number(&self) -> usize {
        self.0.len()
    }

    /// The name of a file by its number.
    pub fn name(&self, number: usize) -> &str {
        &self.0[number].name
    }

    /// A position as `file:line:column`.
    pub(super) fn position(&self, at: usize) -> String {
        self.diagnostic(Place::at(at..at, "")).position()
    }

    /// The number of the file that a position is in.
    pub fn number_at(&self, at: usize) -> usize {
        let after = self.0.partition_point(|source| source.start <= at);
        after.saturating_sub(1)
    }

    /// A file by its number, as TOML without types and with references to variables; an empty table if it is none.
    pub fn toml(&self, number: usize) -> toml::Table {
        self.0[number].text.parse().unwrap_or_default()
    }

    /// Where the key `name` of the table at `path` stands in a file: its position, or the option; empty for what no option has written.
    pub fn place_of(&self, number: usize, path: &[&str], name: &str) -> String {
        let source = &self.0[number];
        let parsed = DeTable::parse(&source.text).ok();
        let span = parsed.and_then(|table| {
            let mut table = table.into_inner();
            for step in path {
                match table.remove(*step)?.into_inner() {
                    DeValue::Table(inner) => table = inner,
                    _ => return None,
                }
            }
            Some(table.get_key_value(name)?.0.span())
        });
        let span = span.unwrap_or_default();
        let span = span.start + source.start..span.end + source.start;
        self.diagnostic(Place::at(span, "")).position()
    }

    /// The text of a file by its number, and the position of its first byte.
    pub(super) fn file(&self, number: usize) -> (&str, usize) {
        let source = &self.0[number];
        (&source.text, source.start)
    }

    /// The folder of the file that this position is in.
    pub fn folder(&self, at: usize) -> &Path {
        &self.source(at).folder
    }

    /// The text of the file that a position is in, and the position relative to it.
    pub(super) fn local(&self, span: &Range<usize>) -> (&str, Range<usize>) {
        let source = self.source(span.start);
        let local = span.start - source.start..span.end.saturating_sub(source.start);
        (&source.text, local)
    }

    /// An error, formatted.
    pub fn diagnostic(&self, place: Place) -> Diagnostic {
        let Place { span, message } = place;
        let source = self.source(span.as_ref().map_or(0, |span| span.start));
        let span = span.map(|span| self.local(&span).1);
        if let Some(options) = &source.options {
            return Diagnostic::of_options(options, Place { span, message });
        }
        Diagnostic::new(&source.name, &source.text, Place { span, message })
    }

    fn source(&self, at: usize) -> &Source {
        &self.0[self.number_at(at)]
    }
}
