//! The rules of the house (ARCHITECTURE.md), kept by reading its sources; and the documents, kept true by
//! comparing them with the code.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::preforkd as program;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The code of a file without its comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source");
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of this crate that a file names.
fn imports(path: &Path) -> BTreeSet<String> {
    let code = code(path);
    let paths = code.split("crate::").skip(1);
    paths
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

fn of_manager(path: &Path) -> bool {
    let path = path.strip_prefix(root().join("src")).expect("below src");
    !["http", "python", "worker"]
        .iter()
        .any(|krate| path.starts_with(krate))
}

#[test]
fn the_supervisor_knows_nothing_but_std() {
    for file in sources("src/supervisor")
        .into_iter()
        .chain([root().join("src/supervisor.rs")])
    {
        let name = file.display().to_string();
        assert!(imports(&file).is_empty(), "{name} imports from the crate");
        let code = code(&file);
        let code = code
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let is_test = name.ends_with("tests.rs") || name.ends_with("histories.rs");
        for forbidden in [
            "Instant::now",
            "std::io",
            "std::fs",
            "std::process",
            "nix::",
            "libc::",
            "log::",
        ] {
            assert!(
                is_test || !code.contains(forbidden),
                "{name} uses {forbidden}"
            );
        }
    }
}

#[test]
fn effects_know_neither_each_other_nor_who_decides() {
    for file in sources("src/effects") {
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for module in ["supervisor", "master", "cli"] {
            assert!(
                !imports(&file).contains(module),
                "effects/{name} imports {module}"
            );
        }
        let code = code(&file);
        for other in [
            "control",
            "host",
            "init",
            "interpreter",
            "launch",
            "listen",
            "log_files",
            "memory",
            "notify",
            "paths",
            "pid_file",
            "private",
            "probe",
            "scoreboard",
            "signals",
            "socket_file",
            "tail",
            "template",
        ] {
            let known = code.contains(&format!("super::{other}"))
                || code.contains(&format!("effects::{other}"));
            let users: &[&str] = match other {
                "interpreter" => &["host"],
                "launch" => &["log_files", "probe", "template"],
                "notify" => &["template"],
                "paths" => &["notify", "pid_file", "private", "socket_file"],
                "socket_file" => &["control", "listen"],
                _ => &[],
            };
            let allowed = users.contains(&name.as_str());
            assert!(
                !known || allowed || other == name,
                "effects/{name} knows effects/{other}"
            );
        }
    }
}

/// By its name a file may be another one a moment later, where an application's user owns the folder: `paths` and `socket_file`
/// have the ways to do this by descriptor.
#[test]
fn effects_make_change_and_remove_no_file_by_its_path() {
    let mut files = sources("src/effects");
    files.extend(sources("src/log_writer"));
    files.push(root().join("src/log_writer.rs"));
    for file in files {
        let name = file.display().to_string();
        let code = code(&file);
        let code = code.split("#[cfg(test)]\nmod tests").next();
        let code = code.unwrap_or_default();
        for forbidden in [
            "fs::write(",
            "fs::rename(",
            "fs::create_dir",
            "remove_file(",
            "create(true)",
            "File::create",
            "unistd::chown(",
            "UnixListener::bind(",
            "UnixDatagram::bind(",
            "UnixStream::connect(",
        ] {
            // In a folder that only the master can enter.
            let allowed = name.ends_with("private.rs") && forbidden == "remove_file(";
            assert!(
                allowed || !code.contains(forbidden),
                "{name} uses {forbidden}"
            );
        }
    }
}

#[test]
fn only_the_plan_reads_the_configuration() {
    for file in sources("src").into_iter().filter(|f| of_manager(f)) {
        let path = file.strip_prefix(root().join("src")).expect("below src");
        if path.starts_with("plan")
            || path.starts_with("config")
            || path == Path::new("plan.rs")
            || path == Path::new("config.rs")
        {
            continue;
        }
        let code = code(&file);
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(
            !words.any(|word| word == "Config"),
            "{} knows Config",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_stands_in_two_files_only() {
    for file in sources("src") {
        let path = file
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        let code = code(&file);
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let found = words.filter(|word| *word == "unsafe").count();
        let allowed = ["src/sys.rs", "src/python/sys.rs"].contains(&path.as_str());
        assert!(found == 0 || allowed, "{path} has unsafe code");
    }
}

#[test]
fn the_master_starts_no_thread_and_knows_no_python_and_no_http() {
    for file in sources("src").into_iter().filter(|f| of_manager(f)) {
        let code = code(&file);
        for forbidden in [
            "thread::spawn",
            "thread::scope",
            "thread::Builder",
            "pyo3",
            "preforkd_http::",
            "preforkd_python::",
        ] {
            assert!(
                !code.contains(forbidden),
                "{} uses {forbidden}",
                file.display()
            );
        }
    }
    let manifest = read("Cargo.toml");
    let dependencies = manifest
        .split("[dependencies]")
        .nth(1)
        .and_then(|d| d.split("\n[").next())
        .expect("a table");
    for forbidden in ["pyo3", "preforkd-http", "preforkd-python"] {
        assert!(
            !dependencies.contains(forbidden),
            "the manager depends on {forbidden}"
        );
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    for manifest in [
        "Cargo.toml",
        "src/http/Cargo.toml",
        "src/python/Cargo.toml",
        "src/worker/Cargo.toml",
    ] {
        let text = read(manifest);
        let mut reason = false;
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
                reason = false;
            } else if in_dependencies && line.starts_with('#') {
                reason = true;
            } else if in_dependencies
                && line.contains('=')
                && !line.contains("path =")
                && !line.starts_with(' ')
            {
                assert!(reason, "{manifest}: {line}");
            }
        }
    }
}

/// The values of `.It Dv NAME` or `.It Ic NAME` in a man page.
fn items(page: &str, macro_name: &str) -> BTreeSet<String> {
    let start = format!(".It {macro_name} ");
    let page = read(page);
    let items = page.lines().filter_map(|line| line.strip_prefix(&start));
    items
        .flat_map(|rest| {
            rest.split_whitespace()
                .take(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_manual_has_every_signal_and_no_other() {
    let table: BTreeSet<String> = preforkd::signals::TABLE
        .iter()
        .map(|(signal, _)| signal.to_string())
        .collect();
    assert_eq!(items("man/preforkd.8", "Dv"), table);
}

/// The public fields of the structs in src/config.rs, as they are called in the file.
fn keys() -> BTreeSet<String> {
    let text = read("src/config.rs");
    let mut keys = BTreeSet::new();
    let mut renamed = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("#[serde(rename = \"") {
            renamed = rest.split('"').next().map(str::to_owned);
        } else if let Some((name, _)) = line
            .strip_prefix("pub ")
            .and_then(|rest| rest.split_once(": "))
        {
            if name.starts_with("fn ") {
                continue;
            }
            keys.insert(renamed.take().unwrap_or_else(|| name.to_owned()));
        }
    }
    // The tables themselves.
    keys.retain(|key| key != "master" && key != "app");
    keys
}

#[test]
fn every_key_stands_in_the_manual_and_in_the_sample() {
    let keys = keys();
    assert!(
        keys.contains("workers") && keys.contains("static") && keys.len() > 20,
        "{keys:?}"
    );
    let described = items("man/preforkd.toml.5", "Ic");
    let missing: Vec<_> = keys.difference(&described).collect();
    assert!(
        missing.is_empty(),
        "preforkd.toml.5 does not describe {missing:?}"
    );
    let of_listen = ["address", "name", "mode", "owner", "group"]
        .map(str::to_owned)
        .into();
    let unknown: Vec<_> = described
        .difference(&keys)
        .filter(|key| !BTreeSet::contains(&of_listen, *key))
        .collect();
    assert!(
        unknown.is_empty(),
        "preforkd.toml.5 describes {unknown:?}, which there is not"
    );
    let sample = read("conf/app.toml");
    for key in &keys {
        let found = sample.lines().any(|line| {
            let words: Vec<_> = line.trim_start_matches('#').split_whitespace().collect();
            words.windows(2).any(|pair| pair == [key.as_str(), "="])
        });
        assert!(found, "conf/app.toml does not show `{key}`");
    }
}

#[test]
fn every_sample_configuration_is_accepted() {
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join("conf"))
        .expect("a folder")
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let output = program()
                .arg("-t")
                .arg("-c")
                .arg(&path)
                .output()
                .expect("preforkd runs");
            // Built or not, the extension module is not the sample's matter.
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() || said.contains("extension module"),
                "{said}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 2, "app.toml and minimal.toml");
}
