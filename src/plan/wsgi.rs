//! `wsgi`: a WSGI application in the user's own Python.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use toml::Spanned;

use super::host::find_program;
use super::policy::at_least_one;
use super::{Draft, Launch, normal};
use crate::config::{Address, Key, Place, Size, Time};

/// What the interpreter runs: it loads the extension and hands over to it.
const BOOTSTRAP: &str = include_str!("../python/bootstrap.py");

impl Draft<'_> {
    /// Fills in how the interpreter is executed; says whether it is a template.
    pub(super) fn wsgi(
        &self,
        wsgi: &Spanned<String>,
        sockets: &[(String, Address)],
        launch: &mut Launch,
    ) -> Result<bool, Place> {
        let app = self.written;
        let well_formed = |name: &str| {
            let parts = name.split_once(':');
            parts.is_some_and(|(module, callable)| !module.is_empty() && !callable.is_empty())
        };
        if !well_formed(wsgi.get_ref()) {
            let message = format!(
                "wsgi must be \"MODULE:CALLABLE\", as \"mysite.wsgi:application\", not \"{}\"",
                wsgi.get_ref()
            );
            return Err(Place::at(wsgi.span(), message));
        }
        if sockets.is_empty() {
            return Err(self.wrong(format!(
                "[app.{}] serves HTTP but listens nowhere (add listen = [\"127.0.0.1:8000\"])",
                self.name
            )));
        }
        if let Some(ready) = &app.ready {
            let message =
                "`ready` is for apps with `command`; a WSGI worker says itself when it is ready";
            return Err(Place::at(ready.span(), message));
        }
        let threads = number(&app.threads, 1, 1..=1000, "threads")?;
        let preload = app.preload.as_ref().is_some_and(|p| *p.get_ref());
        let settings = json!({
            "application": wsgi.get_ref(),
            "threads": threads,
            "preload": preload,
            "static": self.static_files()?,
            "max_requests": at_least_one(&app.max_requests, "max_requests")?,
            "max_requests_jitter": app.max_requests_jitter.as_ref().map_or(0, |n| *n.get_ref()),
            "max_head": size(&app.max_head, 32 << 10),
            "max_headers": number(&app.max_headers, 100, 1..=256, "max_headers")?,
            "max_body": size(&app.max_body, 64 << 20),
            "body_in_memory": size(&app.body_in_memory, 256 << 10),
            "header_timeout": seconds(&app.header_timeout, 10),
            "body_timeout": seconds(&app.body_timeout, 30),
            "write_timeout": seconds(&app.write_timeout, 30),
            "keepalive_timeout": seconds(&app.keepalive_timeout, 30),
            "graceful_timeout": app.graceful_timeout.map_or(30.0, |t| t.0.as_secs_f64()),
            "max_connections": number(&app.max_connections, 1000, 1..=1_000_000, "max_connections")?,
            "listeners": sockets.iter().map(|(_, address)| address.to_string()).collect::<Vec<_>>(),
        });
        launch.program = self.python(launch)?;
        launch.args = vec![
            launch.program.to_string_lossy().into_owned(),
            "-c".into(),
            BOOTSTRAP.into(),
        ];
        let extension = self
            .host
            .extension()
            .map_err(|message| self.wrong(message))?;
        let extension = extension.to_string_lossy().into_owned();
        launch.env.insert("PREFORKD_EXTENSION".into(), extension);
        launch
            .env
            .insert("PREFORKD_WSGI".into(), settings.to_string());
        Ok(preload)
    }

    fn static_files(&self) -> Result<serde_json::Value, Place> {
        let mut folders = serde_json::Map::new();
        let Some(written) = &self.written.static_files else {
            return Ok(folders.into());
        };
        for (prefix, folder) in written.get_ref() {
            if !(prefix.starts_with('/') && prefix.ends_with('/')) {
                let message =
                    format!("static: the prefix \"{prefix}\" must begin and end with \"/\"");
                return Err(Place::at(folder.span(), message));
            }
            let path = normal(&self.folder.join(folder.get_ref()));
            if !self.host.is_folder(&path) {
                let message = format!(
                    "static: there is no folder {} (for Django: manage.py collectstatic)",
                    path.display()
                );
                return Err(Place::at(folder.span(), message));
            }
            folders.insert(prefix.clone(), path.to_string_lossy().into());
        }
        Ok(folders.into())
    }

    /// The configured interpreter, else that of a virtual environment, else `python3`.
    fn python(&self, launch: &Launch) -> Result<PathBuf, Place> {
        let chdir = &launch.chdir;
        let path = self.host.variable("PATH").unwrap_or_default();
        if let Some(python) = &self.written.python {
            let name = python.get_ref().to_string_lossy();
            let found = find_program(&name, self.folder, &path, self.host).ok_or_else(|| {
                let place = if name.contains('/') {
                    normal(&self.folder.join(&*name)).display().to_string()
                } else {
                    format!("{name} in PATH")
                };
                Place::at(
                    python.span(),
                    format!("python: there is no executable {place}"),
                )
            })?;
            // Only by name: the link of a virtual environment must not be followed.
            let found = normal(&found);
            return self
                .host
                .interpreter(&found, launch)
                .map_err(|m| Place::at(python.span(), m));
        }
        let environment = self.host.variable("VIRTUAL_ENV").map(PathBuf::from);
        let environments = [
            Some(chdir.join(".venv")),
            Some(chdir.join("venv")),
            environment,
        ];
        let found = environments
            .into_iter()
            .flatten()
            .map(|folder| folder.join("bin/python"))
            .find(|file| self.host.is_executable(file))
            .or_else(|| find_program("python3", chdir, &path, self.host))
            .ok_or_else(|| {
                self.wrong("there is no Python: neither .venv nor venv in the app's folder, nor python3 in PATH (say `python = \"…\"`)")
            })?;
        self.host
            .interpreter(&found, launch)
            .map_err(|m| self.wrong(m))
    }
}

fn size(key: &Key<Size>, default: u64) -> u64 {
    key.as_ref().map_or(default, |size| size.get_ref().0)
}

fn seconds(key: &Key<Time>, default: u64) -> f64 {
    let time = key.as_ref().map(|time| time.get_ref().0);
    time.unwrap_or(Duration::from_secs(default)).as_secs_f64()
}

fn number(
    key: &Key<u32>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
    name: &str,
) -> Result<u32, Place> {
    let Some(key) = key else { return Ok(default) };
    let number = *key.get_ref();
    if range.contains(&number) {
        return Ok(number);
    }
    let (least, most) = range.into_inner();
    let message = format!("{name} must be between {least} and {most}, not {number}");
    Err(Place::at(key.span(), message))
}
