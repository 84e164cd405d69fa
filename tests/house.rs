//! The rules of ARCHITECTURE.md, checked by reading the sources; and the documents, checked by comparing them with the code.

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

/// The modules of this crate that a file imports.
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
    !["front", "http", "python", "worker"]
        .iter()
        .any(|krate| path.starts_with(krate))
}

/// The names of the manager's dependencies in code.
fn external_crates() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let tables = manifest.split("\n[").skip(1);
    let dependencies = tables.filter(|table| {
        table
            .split(']')
            .next()
            .unwrap_or("")
            .ends_with("dependencies")
    });
    let lines = dependencies.flat_map(|table| table.lines().skip(1));
    let names = lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "));
    let names: Vec<_> = names.map(|(name, _)| name.replace('-', "_")).collect();
    assert!(names.iter().any(|name| name == "nix"), "{names:?}");
    names
}

#[test]
fn supervisor_and_release_know_nothing_but_std() {
    let folders = ["src/supervisor", "src/release"].into_iter();
    let files = ["src/supervisor.rs", "src/release.rs"].map(|file| root().join(file));
    for file in folders.flat_map(sources).chain(files) {
        let name = file.display().to_string();
        assert!(imports(&file).is_empty(), "{name} imports from the crate");
        let code = code(&file);
        let code = code
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
            // The JSON form of a policy is derived, and not code of ours.
            .replace(", serde::Serialize, serde::Deserialize", "");
        let is_test = ["tests.rs", "histories.rs", "cost.rs"]
            .iter()
            .any(|test| name.ends_with(test));
        for forbidden in ["Instant::now", "std::io", "std::fs", "std::process"] {
            assert!(
                is_test || !code.contains(forbidden),
                "{name} uses {forbidden}"
            );
        }
        // The only crate allowed is a random number generator with a seed from the client; without one it would ask the system.
        for used in code.split("fastrand::").skip(1) {
            let seeded = used.starts_with("Rng::with_seed(") || used.starts_with("Rng,");
            assert!(seeded, "{name} uses fastrand without a seed");
        }
        for krate in external_crates() {
            let allowed = krate == "fastrand" || is_test;
            assert!(
                allowed || !code.contains(&format!("{krate}::")),
                "{name} uses the crate {krate}"
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
            "acme_job",
            "beacon",
            "certificate_keeper",
            "certificate_watch",
            "config_check",
            "control",
            "data_file",
            "file_watch",
            "guard",
            "host",
            "init",
            "inspect",
            "installed",
            "interpreter",
            "launch",
            "listen",
            "loader",
            "log_files",
            "memory",
            "notify",
            "paths",
            "pid_file",
            "private",
            "privileges",
            "probe",
            "process",
            "rights",
            "scoreboard",
            "sealed",
            "spawn",
            "signals",
            "socket_file",
            "tail",
            "template",
            "terminal",
            "time_zone",
        ] {
            let known = code.contains(&format!("super::{other}"))
                || code.contains(&format!("effects::{other}"));
            let users: &[&str] = match other {
                "data_file" | "inspect" | "interpreter" | "loader" | "privileges" | "time_zone" => {
                    &["host"]
                }
                "installed" => &["host", "launch"],
                "launch" => &[
                    "certificate_keeper",
                    "certificate_watch",
                    "config_check",
                    "guard",
                    "inspect",
                    "log_files",
                    "probe",
                    "template",
                ],
                "notify" => &["template"],
                "process" => &["holder"],
                "paths" => &[
                    "data_file",
                    "notify",
                    "own_folder",
                    "pid_file",
                    "private",
                    "socket_file",
                    "state_folder",
                ],
                "rights" => &["data_file", "temporary"],
                "socket_file" => &["control", "listen", "notify", "own_folder", "own_listeners"],
                "tail" => &["inspect"],
                "signals" => &["terminal"],
                "spawn" => &["launch", "metrics"],
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

/// Where an application's user owns the folder, a name may refer to another file a moment later. `paths` and `socket_file`
/// do these things by descriptor.
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
fn in_the_master_only_its_world_touches_the_kernel() {
    for file in sources("src/master") {
        let name = file.display().to_string();
        let is_world = ["master/system.rs", "master/system/", "master/world.rs"]
            .iter()
            .any(|world| name.contains(world));
        let code = code(&file);
        // Names of kernel objects make no system call.
        let code = code
            .replace("nix::unistd::Pid", "")
            .replace("nix::sys::signal::Signal", "");
        for forbidden in [
            "effects::",
            "nix::",
            "mio::",
            "std::fs",
            "std::os",
            "Instant::now",
            "elapsed()",
        ] {
            let allowed = is_world || name.contains("/simulation") || is_test_of(&code, forbidden);
            assert!(
                allowed || !code.contains(forbidden),
                "{name} uses {forbidden}"
            );
        }
    }
}

/// Whether a file mentions something in its tests only.
fn is_test_of(code: &str, what: &str) -> bool {
    let marks = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\nimpl"];
    let ends = marks.iter().filter_map(|mark| code.find(mark));
    let own = &code[..ends.min().unwrap_or(code.len())];
    !own.contains(what)
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

/// Code without the items under `#[cfg(test)]` at the left margin.
fn without_items_for_tests(code: &str) -> String {
    let mut parts = format!("\n{code}")
        .split("\n#[cfg(test)]\n")
        .map(str::to_owned)
        .collect::<Vec<_>>();
    for part in &mut parts[1..] {
        // A one-line item, or a block up to the brace at the margin.
        let end = match part.lines().next().is_some_and(|line| line.ends_with(';')) {
            true => part.find('\n'),
            false => part.find("\n}\n").map(|at| at + 2),
        };
        part.replace_range(..end.unwrap_or(part.len()), "");
    }
    parts.concat()
}

#[test]
fn the_plan_has_no_default_of_its_own() {
    let files = sources("src/plan")
        .into_iter()
        .chain([root().join("src/plan.rs")]);
    let is_test = |file: &Path| {
        file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
    };
    for file in files.filter(|file| !is_test(file)) {
        let code = without_items_for_tests(&code(&file));
        // A default belongs in a row of config/keys.rs; here it would be a second one.
        for default in ["unwrap_or(", "map_or("] {
            let mut uses = code.split(default).skip(1);
            let literal =
                uses.find(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '"'));
            let literal = literal.and_then(|rest| rest.lines().next());
            assert_eq!(literal, None, "{}: {default}", file.display());
        }
        assert!(
            !code.contains("Duration::from_"),
            "{} has a time of its own",
            file.display()
        );
    }
}

#[test]
fn unsafe_code_stands_in_the_files_for_it_only() {
    for file in sources("src") {
        let path = file
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        let code = code(&file);
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let found = words.filter(|word| *word == "unsafe").count();
        let allowed = ["src/sys.rs", "src/python/sys.rs", "src/worker/sys.rs"];
        let allowed = allowed.contains(&path.as_str());
        assert!(found == 0 || allowed, "{path} has unsafe code");
    }
}

/// `println!` and its like panic when nobody reads what they print, or a disk is full.
#[test]
fn nothing_that_the_manager_prints_can_make_it_panic() {
    for file in sources("src").into_iter().filter(|f| of_manager(f)) {
        let code = code(&file);
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '!');
        let printing = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
        let found = words.find(|word| printing.contains(word));
        assert_eq!(found, None, "{}", file.display());
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
            "preforkd_front::",
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
    for forbidden in [
        "pyo3",
        "rustls",
        "preforkd-front",
        "preforkd-http",
        "preforkd-python",
    ] {
        assert!(
            !dependencies.contains(forbidden),
            "the manager depends on {forbidden}"
        );
    }
}

/// The crates of this repository that each of its crates may use: none of them knows the manager.
#[test]
fn the_crates_of_workers_know_only_what_they_are_built_on() {
    for (krate, may_know) in [
        ("worker", &[][..]),
        ("http", &["worker"]),
        ("python", &["http", "worker"]),
        ("front", &["http", "worker"]),
    ] {
        let manifest = read(format!("src/{krate}/Cargo.toml"));
        let lines = manifest
            .lines()
            .filter(|line| line.contains("path = \"../"));
        for line in lines {
            let known = may_know.iter().any(|known| {
                line.starts_with(&format!("preforkd-{known} ="))
                    && line.contains(&format!("\"../{known}\""))
            });
            assert!(known, "src/{krate}: {line}");
        }
        for file in sources(&format!("src/{krate}")) {
            let code = code(&file);
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            let manager = words.find(|word| word.starts_with("preforkd::"));
            assert_eq!(manager, None, "{}", file.display());
        }
    }
}

#[test]
fn the_front_forbids_unsafe_code() {
    for file in ["src/front/lib.rs", "src/front/main.rs"] {
        assert!(read(file).contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

#[test]
fn system_calls_go_through_nix_in_the_manager_and_through_rustix_in_workers() {
    for file in sources("src") {
        let path = file.strip_prefix(root().join("src")).expect("below src");
        let name = path.display().to_string();
        let code = code(&file);
        let foreign = match of_manager(&file) {
            true => "rustix::",
            false => "nix::",
        };
        let uses = |krate: &str| {
            let mut found = code.match_indices(krate);
            // `std::os::unix::` and the like end with the same letters.
            found.any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        assert!(!uses(foreign), "{name} uses {foreign}");
        let may_use_libc = ["sys.rs", "python/sys.rs"].contains(&name.as_str());
        assert!(may_use_libc || !uses("libc::"), "{name} uses libc");
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    for manifest in [
        "Cargo.toml",
        "src/front/Cargo.toml",
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
    // `.It Ev ONE , TWO` has two of them.
    items
        .flat_map(|rest| {
            rest.split(',')
                .filter_map(|item| item.split_whitespace().next())
        })
        .map(str::to_owned)
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

#[test]
fn the_manual_has_the_version_and_every_variable_of_the_contract() {
    use preforkd_worker::{contract, env};
    let described = items("man/preforkd-worker.7", "Ev");
    let of_all = [env::APP, env::SLOT, env::GENERATION];
    for variable in env::PRIVATE.iter().chain(&of_all) {
        assert!(described.contains(*variable), "{variable}");
    }
    let version = format!("It is {} in this release,", contract::VERSION);
    assert!(read("man/preforkd-worker.7").contains(&version));
    let stand_in = format!("CONTRACT = \"{}\"", contract::VERSION);
    assert!(read("src/python/tests/manager.py").contains(&stand_in));
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
            // The sample is right even if the extension module is not built.
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

/// The extension links neither TLS nor HTTP/2, and one folder is to be changed when a library does.
#[test]
fn only_the_front_knows_tls_and_http_2() {
    let folders = [
        (
            &["/front/tls"][..],
            &["rustls", "aws_lc_rs", "x509_cert"][..],
        ),
        (&["/front/h2"], &["use h2"]),
        // Its traits, and the process that orders certificates.
        (&["/front/h2", "/front/acme"], &["tokio", "use bytes"]),
        (&["/front/acme"], &["instant_acme"]),
    ];
    for (folders, knows) in folders {
        for file in sources("src") {
            let name = file.display().to_string();
            if folders.iter().any(|folder| name.contains(folder)) || name.contains("/front/tests/")
            {
                continue;
            }
            let code = code(&file);
            for library in knows {
                assert!(!code.contains(library), "{name} knows {library}");
            }
        }
    }
    let libraries = ["rustls", "aws-lc-rs", "x509-cert", "tokio", "\nh2 = "];
    for of in ["", "src/worker", "src/http", "src/python"] {
        let path = root().join(of).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).expect("read a manifest");
        // Tests of the manager have an authority and clients of their own.
        let linked = manifest.split("\n[dev-dependencies]").next();
        let manifest = linked.unwrap_or_default();
        for library in libraries {
            assert!(!manifest.contains(library), "{}", path.display());
        }
    }
}
