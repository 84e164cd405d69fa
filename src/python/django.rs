//! What the settings of a loaded Django site say that a server must know.

use std::path::{Path, PathBuf};

use preforkd_worker::inspection::{self, StaticFiles};
use pyo3::prelude::*;

/// The app of Django that finds static files.
const STATICFILES: &str = "django.contrib.staticfiles";

/// A Django site that is set up.
pub(crate) struct Django<'py> {
    settings: Bound<'py, PyAny>,
    /// `STATIC_URL`.
    url: Option<String>,
    /// `STATIC_ROOT`, if it is set.
    root: Option<PathBuf>,
    debug: bool,
    has_finders: bool,
    /// A middleware serves its static files.
    pub serves_static: bool,
}

impl<'py> Django<'py> {
    /// None if Django is not there, or not set up.
    pub fn find(py: Python<'py>) -> PyResult<Option<Self>> {
        let modules = py.import("sys")?.getattr("modules")?;
        if !modules.contains("django.core.handlers.wsgi")? {
            return Ok(None);
        }
        let settings = py.import("django.conf")?.getattr("settings")?;
        if !settings.getattr("configured")?.is_truthy()? {
            return Ok(None);
        }
        let root = settings.getattr("STATIC_ROOT")?;
        let root = match root.is_none() {
            true => None,
            false => Some(root.str()?.extract::<PathBuf>()?),
        };
        let middleware: Vec<String> = settings
            .getattr("MIDDLEWARE")?
            .try_iter()?
            .map(|name| name?.extract())
            .collect::<PyResult<_>>()?;
        let apps = py.import("django.apps")?.getattr("apps")?;
        let is_installed = apps.call_method1("is_installed", (STATICFILES,))?;
        Ok(Some(Self {
            url: settings.getattr("STATIC_URL")?.extract()?,
            root: root.filter(|root| !root.as_os_str().is_empty()),
            debug: settings.getattr("DEBUG")?.is_truthy()?,
            has_finders: is_installed.is_truthy()?,
            serves_static: middleware
                .iter()
                .any(|name| name.starts_with("whitenoise.")),
            settings,
        }))
    }

    /// What is told of it.
    pub fn inspection(&self) -> PyResult<inspection::Django> {
        let py = self.settings.py();
        let version = py
            .import("django")?
            .call_method0("get_version")?
            .extract()?;
        Ok(inspection::Django {
            version,
            debug: self.debug,
            has_logging: self.has_logging()?,
            static_path: self.own_path(),
            serves_static: self.serves_static,
            static_files: self.static_files()?,
        })
    }

    /// Whether `LOGGING` says what becomes of errors.
    pub fn has_logging(&self) -> PyResult<bool> {
        Ok(self.settings.getattr("LOGGING")?.is_truthy()?
            || !self.settings.getattr("LOGGING_CONFIG")?.is_truthy()?)
    }

    /// The path of `STATIC_URL`, if that is a path of this site below its root.
    pub fn own_path(&self) -> Option<String> {
        let url = self.url.as_deref()?;
        let path = path(url)?;
        (path.len() > 1 && !url.contains("//")).then_some(path)
    }

    /// What to do so that its static files are served.
    pub fn advice(&self) -> String {
        let write = "write static = \"django\"";
        match (self.debug, self.has_finders, &self.root) {
            (true, true, _) => write.to_owned(),
            (_, false, _) => format!(
                "add \"{STATICFILES}\" to INSTALLED_APPS, set STATIC_ROOT, run manage.py collectstatic, and {write}"
            ),
            (false, true, None) => format!(
                "set STATIC_ROOT in the settings of the site, run manage.py collectstatic, and {write}"
            ),
            (false, true, Some(_)) => format!("run manage.py collectstatic, and {write}"),
        }
    }

    /// Where its static files are: by the finders under `DEBUG`, else in `STATIC_ROOT`.
    pub fn static_files(&self) -> PyResult<StaticFiles> {
        let missing = |why: String| StaticFiles {
            missing: Some(why),
            ..StaticFiles::default()
        };
        let Some(url) = &self.url else {
            return Ok(missing(
                "the setting STATIC_URL is not set (add STATIC_URL = \"static/\")".into(),
            ));
        };
        let Some(path) = path(url) else {
            return Ok(missing(format!(
                "the setting STATIC_URL is {url:?}, which names no path (end it with a slash)"
            )));
        };
        if self.debug {
            return self.by_finders(&path);
        }
        let Some(root) = &self.root else {
            return Ok(missing(
                "the setting STATIC_ROOT is not set, and DEBUG is off (add for example STATIC_ROOT = BASE_DIR / \"staticfiles\", run manage.py collectstatic, and reload)"
                    .into(),
            ));
        };
        let shown = root.display();
        if !root.is_dir() || is_empty(root) {
            return Ok(missing(format!(
                "there is nothing in {shown}, the setting STATIC_ROOT (run manage.py collectstatic, and reload)"
            )));
        }
        Ok(StaticFiles {
            folders: vec![(path, vec![root.clone()])],
            ..StaticFiles::default()
        })
    }

    fn by_finders(&self, path: &str) -> PyResult<StaticFiles> {
        let mut files = StaticFiles {
            by_finders: true,
            ..StaticFiles::default()
        };
        if !self.has_finders {
            files.missing = Some(format!(
                "\"{STATICFILES}\" is not in INSTALLED_APPS, so nothing finds static files (add it)"
            ));
            return Ok(files);
        }
        let py = self.settings.py();
        let finders = py.import("django.contrib.staticfiles.finders")?;
        let (mut found, mut strange) = (Vec::new(), Vec::new());
        for finder in finders.call_method0("get_finders")?.try_iter()? {
            let finder = finder?;
            match storages(&finder)? {
                Some(storages) => found.extend(storages),
                None => strange.push(finder.get_type().name()?.to_string()),
            }
        }
        files.folders = by_prefix(path, &found);
        if !strange.is_empty() {
            files.missing = Some(format!(
                "what only {} finds has no folder, and is not served (run manage.py collectstatic, and turn DEBUG off)",
                strange.join(", ")
            ));
        }
        Ok(files)
    }
}

/// The path of a URL, which may be on another host that asks this one; none if it does not end with a slash.
fn path(url: &str) -> Option<String> {
    let after = url.split_once("//").map(|(_, rest)| rest);
    let path = match after {
        Some(rest) => rest.split_once('/').map(|(_, path)| path)?,
        None => url.trim_start_matches('/'),
    };
    (path.is_empty() || path.ends_with('/')).then(|| format!("/{path}"))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The folders that a finder searches, each with what paths in it begin with; none if it searches something else.
fn storages(finder: &Bound<'_, PyAny>) -> PyResult<Option<Vec<(String, PathBuf)>>> {
    let storages = match (
        finder.getattr_opt("storages")?,
        finder.getattr_opt("storage")?,
    ) {
        (Some(storages), _) => storages.call_method0("values")?,
        (None, Some(storage)) => pyo3::types::PyList::new(finder.py(), [storage])?.into_any(),
        (None, None) => return Ok(None),
    };
    let mut found = Vec::new();
    for storage in storages.try_iter()? {
        let storage = storage?;
        let Some(location) = storage.getattr_opt("location")? else {
            return Ok(None);
        };
        let prefix = storage.getattr_opt("prefix")?;
        let prefix = prefix.filter(|prefix| !prefix.is_none());
        let prefix = prefix
            .map(|prefix| prefix.extract::<String>())
            .transpose()?;
        let prefix = prefix.unwrap_or_default();
        let location = location.str()?.extract::<PathBuf>()?;
        if location.is_dir() {
            found.push((prefix.trim_matches('/').to_owned(), location));
        }
    }
    Ok(Some(found))
}

/// The folders for each prefix. The longest prefix of a path counts, so the folders of the shorter ones are searched for it too, at what they have
/// of that name, in the order of the finders.
fn by_prefix(path: &str, found: &[(String, PathBuf)]) -> Vec<(String, Vec<PathBuf>)> {
    let mut prefixes: Vec<&str> = found.iter().map(|(prefix, _)| prefix.as_str()).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let of = |prefix: &str| {
        let folders = found.iter().filter_map(|(other, folder)| {
            let rest = prefix.strip_prefix(other.as_str())?;
            let folder = match (rest, other.is_empty()) {
                ("", _) => folder.clone(),
                (rest, true) => folder.join(rest),
                (rest, false) => folder.join(rest.strip_prefix('/')?),
            };
            folder.is_dir().then_some(folder)
        });
        let whole = match prefix {
            "" => path.to_owned(),
            prefix => format!("{path}{prefix}/"),
        };
        (whole, folders.collect::<Vec<_>>())
    };
    prefixes.into_iter().map(of).collect()
}

/// Says that nothing will tell of errors of the site, if that is so: Django shows them on pages under `DEBUG` only, and mails them otherwise.
pub(crate) fn tell_of_logging(py: Python<'_>) -> PyResult<()> {
    if let Some(django) = Django::find(py)?
        && !django.debug
        && !django.has_logging()?
    {
        log::warn!(
            "DEBUG is off and the settings have no LOGGING, so the log shows no error of a view (add LOGGING with a handler for the logger \"django\")"
        );
    }
    Ok(())
}
