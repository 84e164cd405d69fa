//! `wsgi`: a WSGI application in the user's own Python.

use std::path::{Path, PathBuf};

use preforkd_worker::contract::Kind;
use preforkd_worker::env;
use preforkd_worker::settings::{Http, Settings};

use super::host::find_program;
use super::{Draft, Launch, callable, normal};
use crate::config::{Address, Place, Value};

/// The program for the interpreter: it loads the extension and runs it.
const BOOTSTRAP: &str = include_str!("../python/bootstrap.py");

/// The variable in which `python -m preforkd` names its interpreter.
const OF_MODULE: &str = "PREFORKD_PYTHON";

/// Files by which pipx and `uv tool` know the environments that they have made for one program.
const OF_TOOLS: [&str; 2] = ["pipx_metadata.json", "uv-receipt.toml"];

impl Draft<'_> {
    /// Fills in how to execute the interpreter. Returns whether it is a template. What is probably a mistake is added to `warnings`.
    pub(super) fn wsgi(
        &self,
        wsgi: &Value<String>,
        sockets: &[(String, Address)],
        launch: &mut Launch,
        warnings: &mut Vec<String>,
    ) -> Result<bool, Place> {
        let app = self.written;
        callable::check(wsgi).map_err(|complaint| wsgi.wrong(format!("wsgi: {complaint}")))?;
        if sockets.is_empty() {
            return Err(self.wrong(format!(
                "[app.{}] has `wsgi`, but no listener (add for example listen = [\"127.0.0.1:8000\"])",
                self.name
            )));
        }
        let (program, why) = self.python(launch)?;
        launch.program = program;
        let settings = Settings {
            application: wsgi.to_string(),
            hooks: self.hooks()?,
            threads: app.threads.0,
            http: self.http(warnings)?,
            prefix: self.prefix(launch)?,
            static_files: self.static_files(launch, warnings)?,
            django_static: app.static_files.by_django,
            interpreter: why.to_owned(),
            max_requests: app.max_requests.as_ref().map(|most| u64::from(most.0)),
            max_requests_jitter: u64::from(app.max_requests_jitter.0),
        };
        let settings = settings.encode().map_err(|error| {
            self.wrong(format!(
                "the settings of a worker cannot be encoded: {error}"
            ))
        })?;
        launch.args = vec![
            launch.program.to_string_lossy().into_owned(),
            "-c".into(),
            BOOTSTRAP.into(),
        ];
        let extension = self
            .host
            .extension()
            .map_err(|message| self.wrong(message))?;
        let kind = match *app.preload {
            true => Kind::Template,
            false => Kind::Wsgi,
        };
        launch.env.extend([
            (env::KIND.into(), kind.name().into()),
            (
                env::EXTENSION.into(),
                extension.to_string_lossy().into_owned(),
            ),
            (env::WSGI.into(), settings),
        ]);
        Ok(*app.preload)
    }

    /// How requests are taken. What is probably a mistake is added to `warnings`.
    pub(super) fn http(&self, warnings: &mut Vec<String>) -> Result<Http, Place> {
        let app = self.written;
        let settings = Http {
            request_id: *app.request_id,
            access_format: self.access_format()?,
            trusted_proxies: app.trusted_proxies.to_vec(),
            forwarded_fields: self.forwarded_fields()?,
            proxy_protocol: self.proxy_protocol()?,
            max_head: app.max_head.0,
            max_headers: app.max_headers.0,
            max_body: app.max_body.0,
            body_in_memory: app.body_in_memory.0,
            response_in_memory: app.response_in_memory.0,
            response_in_file: app.response_in_file.0,
            max_buffered: app.max_buffered.0,
            header_timeout: app.header_timeout.0,
            body_timeout: app.body_timeout.0,
            write_timeout: app.write_timeout.0,
            keepalive_timeout: app.keepalive_timeout.0,
            graceful_timeout: app.graceful_timeout.0,
            max_connections: app.max_connections.0,
        };
        if settings.max_body > settings.max_buffered {
            warnings.push(format!(
                "max_body is {} bytes, but max_buffered is {}: a larger request body is answered with 413 all the same (raise max_buffered, or lower \
                 max_body)",
                settings.max_body, settings.max_buffered
            ));
        }
        Ok(settings)
    }

    fn hooks(&self) -> Result<Option<String>, Place> {
        let Some(hooks) = &self.written.hooks else {
            return Ok(None);
        };
        let is_name =
            |part: &str| !part.is_empty() && part.chars().all(|c| c == '_' || c.is_alphanumeric());
        match hooks.split('.').all(is_name) {
            true => Ok(Some(hooks.to_string())),
            false => Err(hooks.wrong(format!(
                "hooks: must be the name of a module, not {:?} (write for example \"mysite.hooks\")",
                **hooks
            ))),
        }
    }

    /// The configured interpreter, else the one that preforkd was started with as a module, else that of a virtual environment: of the
    /// project, of the shell, of preforkd; else `python3`. Also why, in words that follow "it is".
    fn python(&self, launch: &Launch) -> Result<(PathBuf, &'static str), Place> {
        if self.is_unfit() {
            // A wrapper script must not run as another user, nor in another folder.
            return Ok((PathBuf::new(), ""));
        }
        let chdir = &launch.chdir;
        let path = self.host.variable("PATH").unwrap_or_default();
        if let Some(python) = &self.written.python {
            let name = python.to_string_lossy();
            let Some(found) = find_program(&name, self.folder, &path, self.host) else {
                let missing = python.wrong(self.no_interpreter(&name, &path));
                return self.lacks(missing, (PathBuf::new(), ""));
            };
            // The path stays as it is: a virtual environment is found by its link.
            let found = normal(&found);
            let asked = self.host.interpreter(&found, launch);
            let asked = asked.or_else(|message| {
                let wrong = python.wrong(format!("python: {message}"));
                self.lacks(wrong, PathBuf::new())
            });
            return Ok((asked?, "that of the key `python`"));
        }
        let of_module = self.host.variable(OF_MODULE).map(PathBuf::from);
        let of_module =
            of_module.filter(|file| file.is_absolute() && self.host.is_executable(file));
        let found = match of_module {
            Some(found) => Ok(Some((found, "the one that runs preforkd as a module"))),
            None => self.of_environment(chdir),
        };
        let found = match found {
            Ok(found) => found.or_else(|| {
                let first = find_program("python3", chdir, &path, self.host)?;
                Some((first, "the first python3 in PATH"))
            }),
            Err(message) => return self.lacks(self.wrong(message), (PathBuf::new(), "")),
        };
        let Some((found, why)) = found else {
            let missing = self.wrong("there is no Python interpreter: neither .venv nor venv below `chdir` has one, and there is no python3 in PATH (write `python = \"PATH\"`)");
            return self.lacks(missing, (PathBuf::new(), ""));
        };
        let asked = self.host.interpreter(&found, launch);
        let asked = asked.or_else(|message| self.lacks(self.wrong(message), PathBuf::new()));
        Ok((asked?, why))
    }

    /// The interpreter of the first virtual environment that there is.
    ///
    /// # Errors
    /// It has none any more, or it is the tool's that has installed preforkd. Another interpreter would not have the packages of the project.
    fn of_environment(&self, chdir: &Path) -> Result<Option<(PathBuf, &'static str)>, String> {
        let of_project = [
            (Some(chdir.join(".venv")), "that of .venv in `chdir`"),
            (Some(chdir.join("venv")), "that of venv in `chdir`"),
            (
                self.host.variable("VIRTUAL_ENV").map(PathBuf::from),
                "that of VIRTUAL_ENV",
            ),
        ];
        let own = self.host.own_environment();
        let of_preforkd = (
            own.clone(),
            "that of the environment in which preforkd is installed",
        );
        let all = of_project.into_iter().chain([of_preforkd]);
        let all = all.filter_map(|(folder, why)| Some((folder?, why)));
        for (folder, why) in all.filter(|(folder, _)| folder.is_absolute()) {
            let python = folder.join("bin/python");
            let shown = folder.display();
            if !self.host.is_executable(&python) {
                if self.host.is_file(&folder.join("pyvenv.cfg")) {
                    return Err(format!(
                        "there is no Python interpreter in the virtual environment {shown} any more (make it again, python3 -m venv --clear {shown}, \
                         and install the packages of the project; or write `python = \"PATH\"`)"
                    ));
                }
                continue;
            }
            let is_own = own.as_ref() == Some(&folder);
            let mut marks = OF_TOOLS.iter().map(|mark| folder.join(mark));
            if is_own && marks.any(|mark| self.host.is_file(&mark)) {
                return Err(format!(
                    "{} has no virtual environment, and that of preforkd, {shown}, is one that pipx or uv has made for preforkd alone (make one, \
                     python3 -m venv .venv, and install the packages of the project; or write `python = \"PATH\"`)",
                    chdir.display()
                ));
            }
            return Ok(Some((python, why)));
        }
        Ok(None)
    }

    /// Why `python` names no interpreter.
    fn no_interpreter(&self, name: &str, path: &str) -> String {
        let place = normal(&self.folder.join(name));
        let shown = place.display();
        if name.is_empty() {
            return "python: must be the path of an interpreter, not \"\" (write for example \".venv/bin/python\")".into();
        }
        if !name.contains('/') && !self.host.is_folder(&place) {
            return format!(
                "python: there is no program \"{name}\" in PATH, which is {path} (write the path of an interpreter)"
            );
        }
        if self.host.is_folder(&place) {
            let inside = place.join("bin/python");
            let hint = match self.host.is_executable(&inside) {
                true => format!("write the interpreter in it, \"{}\"", inside.display()),
                false => "write the path of an interpreter".to_owned(),
            };
            return format!("python: {shown} is a folder ({hint})");
        }
        format!("python: there is no executable file {shown} (write the path of an interpreter)")
    }
}
