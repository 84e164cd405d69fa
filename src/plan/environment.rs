//! `env`, `env_file` and `secrets`: the variables that workers get in addition to those of the master.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use preforkd_worker::env;
use toml::Spanned;

use super::{Credentials, Draft, normal};
use crate::config::{Place, env_file};

/// The largest file of variables, in bytes. A program cannot be started with much more: execve(2).
const MAX_FILE: u64 = 1 << 20;

/// The largest secret, in bytes. A variable has at most twice as many: execve(2).
const MAX_SECRET: u64 = 64 << 10;

/// The folder with the credentials of the service: systemd.exec(5).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where the content of a secret is.
enum Source<'a> {
    /// In the file with this path.
    File(&'a str),
    /// In the credential with this name.
    Credential(&'a str),
}

impl<'a> Source<'a> {
    /// What `text` names. No message quotes it, as it may be the secret by mistake.
    fn parse(text: &'a str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path));
        }
        let Some(name) = text.strip_prefix("credential:") else {
            return Err(
                "must be \"credential:NAME\" or \"file:PATH\", not the secret itself".into(),
            );
        };
        match name.is_empty() || name.contains('/') || [".", ".."].contains(&name) {
            true => Err("must be the name of a credential (write for example \"credential:django\", or \"file:PATH\" for a path)".into()),
            false => Ok(Self::Credential(name)),
        }
    }
}

impl Draft<'_> {
    /// The variables, and the user of the workers. `env` overrides the files, and a later file an earlier one.
    pub(super) fn environment(
        &self,
    ) -> Result<(BTreeMap<String, String>, Option<Credentials>), Place> {
        let (user, login) = self.user()?;
        let mut env = BTreeMap::new();
        if self.is_unfit() {
            // Whose rights are needed to read the files is not known.
            return Ok((self.env()?, user));
        }
        for file in &*self.written.env_file {
            let found = self.env_file(file, user.as_ref());
            env.extend(found.or_else(|missing| self.lacks(missing, Vec::new()))?);
        }
        env.extend(self.env()?);
        for (name, source) in &*self.written.secrets {
            check_name("secrets", name)?;
            if self.written.env.contains_key(name.get_ref().as_str()) {
                let message = format!(
                    "secrets: {} stands in `env` too (remove one of them)",
                    name.get_ref()
                );
                return Err(Place::at(name.span(), message));
            }
            let wrong =
                |why| Place::at(source.span(), format!("secrets.{}: {why}", name.get_ref()));
            let found = Source::parse(source.get_ref()).map_err(wrong)?;
            match self.secret(&found, user.as_ref()) {
                Ok(secret) => {
                    env.insert(name.get_ref().clone(), secret);
                }
                Err(why) => self.lacks(wrong(why), ())?,
            }
        }
        for (name, value) in login {
            env.entry(name.into()).or_insert(value);
        }
        Ok((env, user))
    }

    /// The variables in a file. It is data, which the user of the workers may own.
    fn env_file(
        &self,
        file: &Spanned<PathBuf>,
        user: Option<&Credentials>,
    ) -> Result<Vec<(String, String)>, Place> {
        let written = file.get_ref().as_os_str().as_bytes();
        // As in systemd.exec(5), a file with "-" before its path may be missing.
        let (path, may_be_missing) = match written.strip_prefix(b"-") {
            Some(path) => (Path::new(OsStr::from_bytes(path)), true),
            None => (file.get_ref().as_path(), false),
        };
        let path = normal(&self.folder.join(path));
        if may_be_missing && self.host.file_state(&path).is_none() {
            return Ok(Vec::new());
        }
        let wrong = |message: String| Place::at(file.span(), format!("env_file: {message}"));
        let text = self.host.data(&path, user, MAX_FILE).map_err(wrong)?;
        let variables = env_file::variables(&text).map_err(|error| {
            let (line, message) = (error.line, error.message);
            wrong(format!("{}:{line}: {message}", path.display()))
        })?;
        match variables.iter().find(|(name, _)| env::is_of_contract(name)) {
            Some((name, _)) => Err(wrong(format!("{}: {}", path.display(), of_contract(name)))),
            None => Ok(variables),
        }
    }

    /// The secret that `text` names, read with the rights of this user where others than that of the master can change it. No message quotes it.
    pub(super) fn named_secret(
        &self,
        text: &str,
        user: Option<&Credentials>,
    ) -> Result<String, String> {
        self.secret(&Source::parse(text)?, user)
    }

    /// The content of the file. No message quotes it.
    fn secret(&self, source: &Source, user: Option<&Credentials>) -> Result<String, String> {
        let text = match source {
            Source::File(path) => {
                let path = normal(&self.folder.join(path));
                self.host.data(&path, user, MAX_SECRET)?
            }
            Source::Credential(name) => {
                let folder = self.host.variable(CREDENTIALS).ok_or_else(|| {
                    format!(
                        "the init system has passed no credentials, as {CREDENTIALS} is not set (for systemd, add LoadCredential={name}:PATH to the unit)"
                    )
                })?;
                // The init system has prepared it for the master.
                let path = PathBuf::from(folder).join(name);
                self.host.data(&path, None, MAX_SECRET)?
            }
        };
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        match secret.contains('\0') {
            true => Err("the file has a NUL character, which a variable cannot have".into()),
            false => Ok(secret.to_owned()),
        }
    }

    fn env(&self) -> Result<BTreeMap<String, String>, Place> {
        let mut found = BTreeMap::new();
        for (name, value) in &*self.written.env {
            check_name("env", name)?;
            if env::is_of_contract(name.get_ref()) {
                let message = format!("env: {}", of_contract(name.get_ref()));
                return Err(Place::at(name.span(), message));
            }
            let (place, name) = (name.span(), name.get_ref());
            if value.contains('\0') {
                let message = format!("env: the value of {name} must not contain a NUL character");
                return Err(Place::at(place, message));
            }
            found.insert(name.clone(), value.clone());
        }
        Ok(found)
    }
}

/// What is wrong with a variable of the worker contract.
fn of_contract(name: &str) -> String {
    format!("the master sets {name} for each worker (remove it)")
}

fn check_name(key: &str, name: &Spanned<String>) -> Result<(), Place> {
    let (place, name) = (name.span(), name.get_ref());
    match name.is_empty() || name.contains(['=', '\0']) {
        true => Err(Place::at(
            place,
            format!(
                "{key}: {name:?} is not a valid name for a variable (it must not be empty, nor contain \"=\" or a NUL character)"
            ),
        )),
        false => Ok(()),
    }
}
