//! The manual and the sample file agree with the table of keys, and describe no others.

#[path = "keys/manual.rs"]
mod manual;
#[path = "keys/sample.rs"]
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use preforkd::config::{Apps, Config, DefaultValue, KEYS, Key, TakesEffect};
use toml::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key(table: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.table == table && key.name == name)
}

/// The path at which a key is described: the layers of routes are those of sites.
fn described_at(key: &Key) -> String {
    let of_site = (key.table == "site.NAME.routes").then(|| self::key("site.NAME", key.name));
    let same = of_site
        .flatten()
        .filter(|of_site| of_site.sentence == key.sentence);
    same.unwrap_or(key).path()
}

/// A sentence without the markup that only some texts have.
fn bare(sentence: &str) -> String {
    sentence.replace('`', "")
}

/// A value in TOML.
fn value(text: &str) -> Value {
    let table: toml::Table = format!("it = {text}")
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    table["it"].clone()
}

#[test]
fn each_key_stands_in_the_table_once_with_one_sentence() {
    let paths: BTreeSet<String> = KEYS.iter().map(Key::path).collect();
    assert_eq!(paths.len(), KEYS.len(), "a key is there twice");
    assert!(
        paths.contains("app.NAME.static") && paths.contains("app.NAME.reload.check.path"),
        "{paths:?}"
    );
    for key in KEYS.iter() {
        let (path, sentence) = (key.path(), key.sentence);
        assert!(
            sentence.starts_with(|c: char| c.is_uppercase()),
            "{path}: {sentence}"
        );
        assert!(
            sentence.ends_with('.') && !sentence.contains(". "),
            "{path}: {sentence}"
        );
    }
}

#[test]
fn the_manual_describes_each_key_as_the_table_does() {
    let entries = manual::entries(&read("man/preforkd.toml.5"));
    let mut described: BTreeMap<String, manual::Entry> = BTreeMap::new();
    for entry in entries {
        let path = format!("{}.{}", entry.table, entry.name);
        assert!(
            key(&entry.table, &entry.name).is_some(),
            "the manual describes {path}, which does not exist"
        );
        assert!(
            described.insert(path.clone(), entry).is_none(),
            "the manual describes {path} twice"
        );
    }
    for key in KEYS.iter() {
        let path = described_at(key);
        let entry = described
            .get(&path)
            .unwrap_or_else(|| panic!("the manual does not describe {path}"));
        let type_description = (key.type_description)();
        let head = format!(
            "Type: {type_description}; default: {}; takes effect: {}.",
            key.default, key.takes_effect
        );
        assert_eq!(entry.head, head, "{path}");
        assert!(
            entry.text.starts_with(&bare(key.sentence)),
            "{path}: {}\nnot: {}",
            entry.text,
            key.sentence
        );
        // A key inside the value of another one is for the same apps as that.
        let outer = key.table.rsplit_once('.');
        let outer = outer.and_then(|(table, name)| self::key(table, name));
        assert_eq!(
            entry.apps,
            outer.unwrap_or(key).apps,
            "{path} stands in the section of other apps"
        );
    }
}

#[test]
fn the_sample_shows_each_key_as_the_table_does() {
    let mut shown: BTreeSet<String> = BTreeSet::new();
    for line in sample::lines(&read("conf/app.toml")) {
        let path = format!("{}.{}", line.table, line.name);
        let key = key(&line.table, &line.name)
            .unwrap_or_else(|| panic!("the sample shows {path}, which does not exist"));
        note_keys_inside(&path, &line.value, &mut shown);
        if !shown.insert(path.clone()) {
            // Another form of a key whose default was already shown.
            assert!(line.commented, "{path} is set twice");
            continue;
        }
        let comment = bare(&line.comment);
        assert!(
            comment.starts_with(&bare(key.sentence)),
            "{path}: {comment}\nnot: {}",
            key.sentence
        );
        match key.default {
            DefaultValue::Toml(default) if line.commented => {
                assert_eq!(line.value, value(default), "{path}")
            }
            DefaultValue::Toml(_) => {}
            none => assert!(
                comment.contains(&format!("Default: {none}.")),
                "{path}: {comment}"
            ),
        }
        let restart = comment.contains("Takes effect at a restart.");
        assert_eq!(
            restart,
            key.takes_effect == TakesEffect::Restart,
            "{path}: {comment}"
        );
        if key.apps != Apps::Any || line.apps == Apps::Wsgi {
            assert_eq!(
                line.apps, key.apps,
                "{path} is shown among the keys of other apps"
            );
        }
    }
    // A table with a header of its own is shown by its keys.
    let with_header: Vec<String> = shown
        .iter()
        .filter_map(|path| Some(path.rsplit_once('.')?.0.to_owned()))
        .collect();
    shown.extend(with_header);
    for path in KEYS.iter().map(described_at) {
        assert!(shown.contains(&path), "the sample does not show {path}");
    }
}

/// Notes the keys inside a value that is a table of keys, a list of such tables, or a table of them. Keys with a default are shown
/// with it.
fn note_keys_inside(path: &str, value: &Value, shown: &mut BTreeSet<String>) {
    let values: Vec<&Value> = match value {
        Value::Array(values) => values.iter().collect(),
        Value::Table(values) if path == "app.NAME.static" => values.values().collect(),
        other => vec![other],
    };
    if !KEYS.iter().any(|key| key.table == path) {
        return;
    }
    for (name, value) in values.into_iter().filter_map(Value::as_table).flatten() {
        let key = key(path, name)
            .unwrap_or_else(|| panic!("the sample shows {path}.{name}, which does not exist"));
        if let DefaultValue::Toml(default) = key.default {
            assert_eq!(*value, self::value(default), "{path}.{name}");
        }
        shown.insert(key.path());
        note_keys_inside(&key.path(), value, shown);
    }
}

#[test]
fn every_line_of_the_sample_can_be_uncommented() {
    let text = sample::uncommented(&read("conf/app.toml"));
    let config = Config::parse(&text).unwrap_or_else(|place| panic!("{}\n{text}", place.message));
    assert_eq!(config.app.len(), 2);
}

/// The pages for those who come from other servers: what they call a key of ours exists, and their example is valid.
#[test]
fn the_pages_about_other_servers_name_keys_that_exist() {
    // Keys of the other server, and commands, in the explanations.
    let common = ["preforkd", "ulimit"];
    let pages: [(&str, &[&str], usize); 4] = [
        ("nginx", &[], 1),
        ("supervisord", &["socket_owner", "socket_mode"], 2),
        ("gunicorn", &[], 1),
        ("uwsgi", &[], 1),
    ];
    for (name, others, apps) in pages {
        let page = read(&format!("man/preforkd-{name}.7"));
        let words = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(".Ic ").or(line.strip_prefix(".Pq Ic "))?;
            rest.split_whitespace().next()
        });
        let mut named = BTreeSet::new();
        for word in words.filter(|word| !common.contains(word) && !others.contains(word)) {
            assert!(
                KEYS.iter().any(|key| key.name == word),
                "the page about {name} names {word}, which does not exist"
            );
            named.insert(word);
        }
        assert!(named.len() > 20, "{name}: only {named:?}");

        let ours = page.rsplit(".Bd -literal").next().expect("an example");
        let ours = ours.split_once('\n').expect("lines").1;
        let ours = ours.split(".Ed").next().expect("its end");
        let config =
            Config::parse(ours).unwrap_or_else(|place| panic!("{name}: {}", place.message));
        assert_eq!(config.app.len(), apps, "{ours}");
    }
}
