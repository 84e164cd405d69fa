//! What is in the folder of a project, and how it is served.

use std::path::{Path, PathBuf};

use super::scan::{self, Candidate, Interface};

/// The largest file that is looked at, in bytes.
const MOST: u64 = 1 << 20;
/// How many files are looked at.
const FILES: usize = 500;

/// Files in which an application mostly is, the likeliest first.
const USUAL: [&str; 8] = [
    "wsgi.py",
    "asgi.py",
    "app.py",
    "application.py",
    "main.py",
    "server.py",
    "api.py",
    "__init__.py",
];

/// Folders that are no part of a project.
const OTHERS: [&str; 8] = [
    "venv",
    "env",
    "node_modules",
    "tests",
    "test",
    "docs",
    "migrations",
    "__pycache__",
];

/// A project that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) framework: &'static str,
    pub(super) interface: Interface,
    /// Such as `mysite.wsgi:application`.
    pub(super) application: String,
    /// The folder in which Python finds the module, seen from that of the project; empty if it is the same.
    pub(super) folder: String,
    /// The file that says so.
    pub(super) seen_in: String,
    /// Whether Django knows of static files, and no middleware serves them.
    pub(super) has_static: bool,
    /// The environment of the project.
    pub(super) environment: Option<&'static str>,
}

/// Finds out what is in a folder.
///
/// # Errors
/// Nothing that could be served is found.
pub(super) fn find(folder: &Path) -> Result<Project, String> {
    let found = django(folder)
        .or_else(|| pyramid(folder))
        .or_else(|| in_files(folder));
    let environments = [".venv", "venv"].into_iter();
    let is_one = |name: &&str| folder.join(name).join("bin/python").exists();
    let environment = environments.into_iter().find(is_one);
    let found = found.map(|project| Project {
        environment,
        ..project
    });
    found.ok_or_else(|| {
        format!(
            "nothing that can be served is found in {} (looked for manage.py, a configuration of Pyramid, and for a file in which an application of Flask, FastAPI or another framework is made; name it: preforkd --print-config MODULE:CALLABLE > app.toml)",
            folder.display()
        )
    })
}

/// A Django project, by its manage.py and its settings.
fn django(folder: &Path) -> Option<Project> {
    let (base, text) = ["", "src", "backend", "app"].into_iter().find_map(|base| {
        let text = read(&folder.join(base).join("manage.py"))?;
        text.contains("DJANGO_SETTINGS_MODULE")
            .then_some((base, text))
    })?;
    let module = scan::default_of(&text, "DJANGO_SETTINGS_MODULE\"")
        .or_else(|| scan::default_of(&text, "DJANGO_SETTINGS_MODULE'"))?;
    let package = module.split(".settings").next().unwrap_or(module);
    let top = folder.join(base);
    let settings = settings(&top.join(module.replace('.', "/")));
    let has = |name: &str| {
        let path = package.replace('.', "/");
        top.join(path).join(format!("{name}.py")).is_file()
    };
    let written = scan::setting(&settings, "WSGI_APPLICATION");
    let written = written.and_then(|path| path.rsplit_once('.'));
    let written = written.map(|(module, name)| format!("{module}:{name}"));
    let (interface, application) = match written {
        Some(application) if has("wsgi") => (Interface::Wsgi, application),
        _ if has("wsgi") => (Interface::Wsgi, format!("{package}.wsgi:application")),
        _ if has("asgi") => (Interface::Asgi, format!("{package}.asgi:application")),
        _ => return None,
    };
    Some(Project {
        framework: "Django",
        interface,
        application,
        folder: base.to_owned(),
        seen_in: Path::new(base).join("manage.py").display().to_string(),
        has_static: settings.contains("django.contrib.staticfiles")
            && !settings.contains("whitenoise."),
        environment: None,
    })
}

/// The text of all files of a module of settings: one file, or those of a package.
fn settings(module: &Path) -> String {
    if let Some(text) = read(&module.with_extension("py")) {
        return match module.file_stem().is_some_and(|name| name == "settings") {
            true => text,
            // `settings.production` mostly begins with the others.
            false => text + &all_of(module.parent().unwrap_or(module)),
        };
    }
    all_of(module)
}

fn all_of(folder: &Path) -> String {
    let files = python_files(folder);
    files.iter().filter_map(|file| read(file)).collect()
}

/// A Pyramid project, by the file that pserve(1) reads.
fn pyramid(folder: &Path) -> Option<Project> {
    let mut files: Vec<_> = entries(folder);
    files.retain(|path| path.extension().is_some_and(|ending| ending == "ini"));
    // That for production comes before that for development.
    files.sort_by_key(|path| !path.to_string_lossy().contains("production"));
    let file = files.into_iter().find(|path| {
        read(path).is_some_and(|text| text.contains("[app:main]") && text.contains("pyramid"))
    })?;
    let name = file.file_name()?.to_str()?.to_owned();
    Some(Project {
        framework: "Pyramid",
        interface: Interface::Wsgi,
        application: format!("pyramid.paster:get_app('{name}')"),
        folder: String::new(),
        seen_in: name,
        has_static: false,
        environment: None,
    })
}

/// An application that a file makes.
fn in_files(folder: &Path) -> Option<Project> {
    let mut found: Vec<(usize, PathBuf, Candidate)> = Vec::new();
    let mut left = FILES;
    for (depth, place) in places(folder) {
        for file in python_files(&place).into_iter().take(left) {
            left -= 1;
            let Some(text) = read(&file) else { continue };
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let usual = USUAL.iter().position(|usual| *usual == name);
            let candidates = scan::candidates(&text).into_iter().take(1);
            let rank = depth * 100 + usual.unwrap_or(USUAL.len());
            found.extend(candidates.map(|one| (rank, file.clone(), one)));
        }
    }
    // A factory is taken where there is nothing else.
    let rank = |(rank, path, one): &(usize, PathBuf, Candidate)| {
        (one.expression.ends_with(')'), *rank, path.clone())
    };
    found.sort_by_key(rank);
    let (_, file, one) = found.into_iter().next()?;
    let seen_in = file.strip_prefix(folder).ok()?.to_str()?.to_owned();
    let (base, module) = match seen_in.strip_prefix("src/") {
        Some(rest) => ("src", rest),
        None => ("", seen_in.as_str()),
    };
    let module = module.strip_suffix(".py")?.replace('/', ".");
    let module = module.strip_suffix(".__init__").unwrap_or(&module);
    Some(Project {
        framework: one.framework,
        interface: one.interface,
        application: format!("{module}:{}", one.expression),
        folder: base.to_owned(),
        seen_in,
        has_static: false,
        environment: None,
    })
}

/// The folders in which applications are looked for, and how deep they are: the project, its packages, `src` and the packages there.
fn places(folder: &Path) -> Vec<(usize, PathBuf)> {
    let source = folder.join("src");
    let mut places = vec![(0, folder.to_owned()), (1, source.clone())];
    for (depth, above) in [(2, folder), (3, source.as_path())] {
        let packages = entries(above).into_iter().filter(|path| is_package(path));
        places.extend(packages.map(|path| (depth, path)));
    }
    places
}

fn is_package(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_dir()
        && name != "src"
        && !name.starts_with('.')
        && name.chars().all(|c| c == '_' || c.is_alphanumeric())
        && !OTHERS.contains(&&*name)
        && !path.join("pyvenv.cfg").is_file()
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

fn python_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = entries(folder);
    files.retain(|path| path.extension().is_some_and(|ending| ending == "py"));
    files
}

/// The text of a regular file that is not large.
fn read(path: &Path) -> Option<String> {
    let found = path.metadata().ok()?;
    let fits = found.is_file() && found.len() <= MOST;
    fits.then(|| std::fs::read_to_string(path).ok()).flatten()
}

#[cfg(test)]
#[path = "../tests/project.rs"]
mod tests;
