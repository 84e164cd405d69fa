//! How an error in a file is shown: `file:line:column: message`, the line, and a caret under the place.

use std::fmt;
use std::ops::Range;

/// Something wrong at a place of the file, counted in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where; `None` if the whole file is meant.
    pub span: Option<Range<usize>>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Place {
    /// Something wrong at `span`.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
        }
    }

    /// Something wrong with the file as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            span: None,
            message: message.into(),
        }
    }
}

/// An error in a file, ready to be shown.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    file: String,
    line: usize,
    column: usize,
    text: String,
    width: usize,
    message: String,
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
            file: file.to_owned(),
            line: text[..from].matches('\n').count() + 1,
            column: text[from..start].chars().count() + 1,
            // A tab has no known width; the caret must stand under its character.
            text: text[from..to].trim_end_matches('\r').replace('\t', " "),
            width: text[start..end].chars().count().max(1),
            message: place.message,
        }
    }

    /// The error in one line, for the log.
    pub fn one_line(&self) -> String {
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        format!("{file}:{line}:{column}: {message}")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gap = " ".repeat(number.len());
        let indent = " ".repeat(self.column - 1);
        let caret = "^".repeat(self.width);
        writeln!(f, "{}", self.one_line())?;
        writeln!(f, "{gap} |")?;
        writeln!(f, "{number} | {}", self.text)?;
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

/// Puts an error of the TOML reader in our own words where they help more.
pub(super) fn explain(error: &toml::de::Error) -> Place {
    let message = error.message();
    let message = unknown_key(message).unwrap_or_else(|| wrong_type(message));
    Place {
        span: error.span(),
        message,
    }
}

/// serde names types; people want to know what to write.
fn wrong_type(message: &str) -> String {
    let hint = match message {
        m if m.starts_with("invalid type: string") && m.contains("expected a sequence") => {
            " (write a list: [\"…\"])"
        }
        m if m.starts_with("invalid type") && m.ends_with("expected a string") => {
            " (write it in quotes)"
        }
        m if m.ends_with("expected struct Check") => " (write a table: { path = \"/\" })",
        _ => "",
    };
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    let message = message.replace('\n', "; ");
    let message = match message.rsplit_once("expected ") {
        Some((start, "u16" | "u32")) => format!("{start}expected a number"),
        Some((start, what)) if what.starts_with("struct ") => format!("{start}expected a table"),
        _ => message,
    };
    message + hint
}

/// serde's "unknown field `a`, expected one of `b`, `c`": the list is long, the nearest key is what helps.
fn unknown_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let (score, nearest) = known
        .iter()
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(if score > 0.75 {
        format!("unknown key `{key}`; did you mean `{nearest}`?")
    } else {
        format!("unknown key `{key}`; known here are: {}", known.join(", "))
    })
}
