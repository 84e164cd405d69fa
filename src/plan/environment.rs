//! `env` and `env_file`: the variables that workers get in addition to those of the master.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;

use super::{Credentials, Draft, normal};
use crate::config::{Place, env_file};

/// The largest file of variables, in bytes. A program cannot be started with much more: execve(2).
const MAX_FILE: u64 = 1 << 20;

impl Draft<'_> {
    /// The variables, and the user of the workers. `env` overrides the files, and a later file an earlier one.
    pub(super) fn environment(
        &self,
    ) -> Result<(BTreeMap<String, String>, Option<Credentials>), Place> {
        let (user, login) = self.user()?;
        let mut env = BTreeMap::new();
        for file in &*self.written.env_file {
            env.extend(self.env_file(file, user.as_ref())?);
        }
        env.extend(self.env()?);
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
        let path = normal(&self.folder.join(file.get_ref()));
        let wrong = |message: String| Place::at(file.span(), format!("env_file: {message}"));
        let text = self.host.data(&path, user, MAX_FILE).map_err(wrong)?;
        env_file::variables(&text).map_err(|error| {
            let (line, message) = (error.line, error.message);
            wrong(format!("{}:{line}: {message}", path.display()))
        })
    }

    fn env(&self) -> Result<BTreeMap<String, String>, Place> {
        let mut env = BTreeMap::new();
        for (name, value) in &*self.written.env {
            let wrong = |message| Err(Place::at(name.span(), message));
            let name = name.get_ref();
            if name.is_empty() || name.contains(['=', '\0']) {
                return wrong(format!(
                    "env: {name:?} is not a valid name for a variable (it must not be empty, nor contain \"=\" or a NUL character)"
                ));
            }
            if value.contains('\0') {
                return wrong(format!(
                    "env: the value of {name} must not contain a NUL character"
                ));
            }
            env.insert(name.clone(), value.clone());
        }
        Ok(env)
    }
}
