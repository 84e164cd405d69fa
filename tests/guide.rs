//! The README, the pages of conf/guide and the completions of shells agree with the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use preforkd::cli;
use preforkd::config::{Config, KEYS};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The README and the pages of the guide, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let guide = root().join("conf/guide");
    let entries = std::fs::read_dir(&guide).expect("a folder");
    let mut pages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    assert!(pages.len() > 8, "{pages:?}");
    let read = |page: PathBuf| {
        let text = read(&page);
        (page, text)
    };
    pages.into_iter().map(read).collect()
}

/// The blocks of code in one language.
fn blocks<'a>(text: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let start = format!("```{language}\n");
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (block, after) = after.split_once("\n```").expect("its end");
        rest = after;
        Some(block)
    })
}

#[test]
fn each_configuration_that_the_pages_show_is_valid() {
    let mut checked = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "toml") {
            if let Err(place) = Config::parse(block) {
                panic!("{}: {}\n{block}", page.display(), place.message);
            }
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked}");
}

/// The words of a command line, without a comment and without where its output goes.
fn words(line: &str) -> Vec<String> {
    let line = line.split(" >").next().unwrap_or_default();
    let line = line.split(" # ").next().unwrap_or_default();
    shlex::split(line).unwrap_or_else(|| panic!("quotes: {line}"))
}

#[test]
fn each_command_that_the_pages_show_is_taken() {
    let mut checked = 0;
    for (page, text) in pages() {
        // Those in blocks, and those in tables and sentences.
        let inline = text.split('`').skip(1).step_by(2);
        let lines = blocks(&text, "sh").flat_map(str::lines).chain(inline);
        let commands = lines.filter_map(|line| {
            let (program, rest) = line.split_once(' ')?;
            let ours = ["preforkd", ".venv/bin/preforkd"].contains(&program);
            // A word for a value stands for any.
            let is_pattern = rest.split(' ').any(|word| word == "…");
            (ours && !is_pattern).then_some(line)
        });
        for line in commands {
            let taken = cli::command().try_get_matches_from(words(line));
            if let Err(error) = taken {
                panic!("{}: {line}: {error}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

#[test]
fn each_link_leads_to_a_file_and_each_anchor_to_a_heading() {
    let mut checked = 0;
    for (page, text) in pages() {
        let folder = page.parent().expect("a folder");
        let targets = text.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let leads_to = match path {
                "" => page.clone(),
                path => folder.join(path),
            };
            assert!(leads_to.exists(), "{}: {target}", page.display());
            if !anchor.is_empty() {
                let text = read(&leads_to);
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| {
                    let name = line.trim_start_matches('#').trim().to_lowercase();
                    name.replace(' ', "-")
                });
                assert!(
                    anchors.any(|known| known == anchor),
                    "{}: {target}",
                    page.display()
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 30, "{checked}");
}

/// The cells of the rows of all tables but their heads.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    lines.map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(str::trim).collect()
    })
}

/// The texts in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn the_tables_for_those_who_come_from_other_servers_name_keys_that_exist() {
    let text = read(&root().join("conf/guide/coming-from.md"));
    let mut named = BTreeSet::new();
    for row in rows(&text) {
        let [_, ours] = row[..] else {
            panic!("{row:?}");
        };
        let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        for name in quoted(ours).filter(is_name) {
            assert!(KEYS.iter().any(|key| key.name == name), "{name}");
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() > 40, "{named:?}");
}

/// Everything that the program and its workers can say, with texts that go over several lines made one.
fn said() -> String {
    let mut folders = vec![root().join("src")];
    let mut said = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|ending| ending == "rs" || ending == "py")
            {
                let mut continued = false;
                for line in read(&path).lines() {
                    let line = if continued { line.trim_start() } else { line };
                    continued = line.ends_with('\\');
                    said.push_str(line.trim_end_matches('\\'));
                    if !continued {
                        said.push('\n');
                    }
                }
            }
        }
    }
    said
}

/// A symptom can be found only by the words that the log has.
#[test]
fn the_log_has_the_words_by_which_a_symptom_is_found() {
    let said = said();
    let text = read(&root().join("conf/guide/trouble.md"));
    // Of other programs.
    let others = [
        "ModuleNotFoundError",
        "Permission denied",
        "Read-only file system",
        "status=2",
        "/static/",
        "https",
        "http",
        "DEBUG = False",
        "sudo: The \"no new privileges\" flag is set",
    ];
    let mut checked = 0;
    for row in rows(&text) {
        for symptom in quoted(row[0]).filter(|symptom| !others.contains(symptom)) {
            // A word in capitals stands for a value.
            let is_value = |word: &str| {
                word.len() > 1
                    && word
                        .chars()
                        .all(|c| c.is_ascii_uppercase() || "),".contains(c))
            };
            let words: Vec<&str> = symptom.split(' ').collect();
            for piece in words.split(|word| is_value(word)) {
                let piece = piece.join(" ");
                let piece = piece.trim_end_matches(|c: char| "(,:".contains(c));
                if piece.len() > 3 {
                    assert!(said.contains(piece), "{piece:?} of {symptom:?}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 10, "{checked}");
}
