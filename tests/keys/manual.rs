//! The entries in a manual page in mdoc(7) that describe keys.

use preforkd::config::Apps;

/// A key in the manual.
#[derive(Debug)]
pub struct Entry {
    pub table: String,
    pub name: String,
    pub apps: Apps,
    /// Type, default, and when a change takes effect.
    pub head: String,
    pub text: String,
}

/// The sections that describe keys.
fn table_of(heading: &str) -> Option<(&'static str, Apps)> {
    Some(match heading {
        "FILES OF THE CONFIGURATION" => ("", Apps::Any),
        "MASTER" => ("master", Apps::Any),
        "APPS" => ("app.NAME", Apps::Any),
        "Apps with wsgi" => ("app.NAME", Apps::Wsgi),
        "Apps with command" => ("app.NAME", Apps::Command),
        "RELOAD" => ("app.NAME.reload", Apps::Any),
        "LISTENERS" => ("app.NAME.listen", Apps::Any),
        "SITES" | "Layers of sites and routes" => ("site.NAME", Apps::Any),
        "FRONT" => ("front", Apps::Any),
        _ => return None,
    })
}

/// All entries `.It Ic NAME`. An entry in a nested list belongs to the table that the outer entry describes.
pub fn entries(page: &str) -> Vec<Entry> {
    let mut entries: Vec<(Entry, Vec<&str>)> = Vec::new();
    let mut section = None;
    // The current item of each open list.
    let mut items: Vec<Option<&str>> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let (request, rest) = line.split_once(' ').unwrap_or((line, ""));
        match request {
            ".Sh" | ".Ss" => section = table_of(rest),
            ".Bl" => items.push(None),
            ".El" => {
                items.pop();
            }
            ".It" => {
                let outer: Vec<&str> = items[..items.len() - 1].iter().copied().flatten().collect();
                let name = rest.strip_prefix("Ic ");
                *items.last_mut().expect("an item stands in a list") = name;
                if let Some(name) = name {
                    let (table, apps) =
                        section.unwrap_or_else(|| panic!("`{name}` stands in no section of keys"));
                    let table = [&[table], &outer[..]].concat().join(".");
                    let (head, text) = (String::new(), String::new());
                    entries.push((
                        Entry {
                            table,
                            name: name.into(),
                            apps,
                            head,
                            text,
                        },
                        Vec::new(),
                    ));
                }
                inside = name.is_some();
                continue;
            }
            _ => {
                if let (true, Some((_, lines))) = (inside, entries.last_mut()) {
                    lines.push(line);
                }
                continue;
            }
        }
        inside = false;
    }
    let entries = entries.into_iter().map(|(entry, lines)| {
        let end = lines
            .iter()
            .position(|line| *line == ".Pp")
            .unwrap_or(lines.len());
        Entry {
            head: plain(&lines[..end]),
            text: plain(&lines[end..]),
            ..entry
        }
    });
    entries.collect()
}

/// The text without macros, with quotes for `.Dq`.
fn plain(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let words = line
            .strip_prefix('.')
            .map(|line| line.split_once(' ').unwrap_or((line, "")));
        let shown = match words {
            None => (*line).to_owned(),
            Some(("Pp" | "Bd" | "Ed", _)) => String::new(),
            Some((name, words)) => {
                // Punctuation is an argument of its own (mdoc(7), "Delimiters").
                let (words, points) = match words.rsplit_once(' ') {
                    Some((words, points @ ("." | "," | ";" | ":" | ")"))) => (words, points),
                    _ => (words, ""),
                };
                match name {
                    "Dq" => format!("\"{words}\"{points}"),
                    "Pq" => format!("({words}){points}"),
                    _ => format!("{words}{points}"),
                }
            }
        };
        if !text.is_empty() && !shown.is_empty() {
            text.push(' ');
        }
        text.push_str(&shown);
    }
    text.replace("\\(dq", "\"")
}
