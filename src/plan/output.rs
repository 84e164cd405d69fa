//! The output of workers: `stdout`, `stderr`, `access_log`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Draft, lossless, normal};
use crate::config::{Place, Value};

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogFile {
    /// Its path.
    #[serde(with = "lossless")]
    pub path: PathBuf,
    /// Writers lose lines rather than wait for a slow disk.
    pub lossy: bool,
}

/// The log files of an app. Without one, output goes to the master's own standard output or error, or nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Standard output.
    pub stdout: Option<LogFile>,
    /// Standard error.
    pub stderr: Option<LogFile>,
    /// The access log.
    pub access_log: Option<LogFile>,
    /// A worker switches to its standard error itself when it is ready; until then it writes to the master.
    pub taken_over: bool,
}

impl Output {
    /// All of them.
    pub fn files(&self) -> impl Iterator<Item = &LogFile> {
        let all = [&self.stdout, &self.stderr, &self.access_log];
        all.into_iter().flatten()
    }
}

impl Draft<'_> {
    pub(super) fn output(&self) -> Result<Output, Place> {
        let written = self.written;
        Ok(Output {
            stdout: self.log_file(&written.stdout, "stdout", false)?,
            stderr: self.log_file(&written.stderr, "stderr", false)?,
            access_log: self.log_file(&written.access_log, "access_log", true)?,
            taken_over: written.wsgi.is_some(),
        })
    }

    fn log_file(
        &self,
        key: &Option<Value<PathBuf>>,
        name: &str,
        lossy: bool,
    ) -> Result<Option<LogFile>, Place> {
        let Some(key) = key else { return Ok(None) };
        let path = normal(&self.folder.join(&**key));
        let folder = path.parent().unwrap_or(Path::new("/"));
        if !self.host.is_folder(folder) {
            let message = format!(
                "{name}: there is no folder {} (create it first)",
                folder.display()
            );
            return Err(key.wrong(message));
        }
        if self.host.is_folder(&path) {
            let message = format!(
                "{name}: {} is a folder (write the path of a file)",
                path.display()
            );
            return Err(key.wrong(message));
        }
        Ok(Some(LogFile { path, lossy }))
    }
}
