//! The keys that the sample file shows.

use preforkd::config::Apps;
use toml::{Table, Value};

/// A line `key = value` or `#key = value`.
#[derive(Debug)]
pub struct Line {
    pub table: String,
    pub name: String,
    pub value: Value,
    pub commented: bool,
    /// The apps that this part of the file is for.
    pub apps: Apps,
    /// The comment above, in one line.
    pub comment: String,
}

/// All lines that show a key.
pub fn lines(sample: &str) -> Vec<Line> {
    let (mut table, mut apps, mut comment) = (String::new(), Apps::Any, String::new());
    let mut lines = Vec::new();
    for line in sample.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if let Some(part) = line.strip_prefix("# ---- ") {
            apps = match part.starts_with("only with `wsgi`") {
                true => Apps::Wsgi,
                false => Apps::Any,
            };
        } else if let Some(text) = line.strip_prefix("# ") {
            comment = format!("{comment} {text}").trim_start().to_owned();
        } else if let Some(header) = bare.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            table = header
                .replace("app.hello", "app.NAME")
                .replace("app.queue", "app.NAME")
                .replace("site.shop", "site.NAME");
            apps = match header {
                "app.queue" => Apps::Command,
                other if other.starts_with("app.") => apps,
                _ => Apps::Any,
            };
            comment.clear();
        } else if bare.contains('=') {
            let read: Table = bare
                .parse()
                .unwrap_or_else(|error| panic!("{line}: {error}"));
            for (name, value) in read {
                let (table, comment) = (table.clone(), std::mem::take(&mut comment));
                let commented = line.starts_with('#');
                lines.push(Line {
                    table,
                    name,
                    value,
                    commented,
                    apps,
                    comment,
                });
            }
        } else {
            assert!(matches!(bare, ""), "neither comment, table nor key: {line}");
            comment.clear();
        }
    }
    lines
}

/// The file with every line uncommented; the first one for a key that it shows several times.
pub fn uncommented(sample: &str) -> String {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let (mut table, mut text) = ("", String::new());
    for line in sample.lines().filter(|line| !line.starts_with("# ")) {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if bare.starts_with('[') {
            table = bare;
        } else if let Some((name, _)) = bare.split_once('=') {
            if seen.contains(&(table, name)) {
                continue;
            }
            seen.push((table, name));
        }
        text.push_str(bare);
        text.push('\n');
    }
    text
}
