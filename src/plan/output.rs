//! The output of workers: `stdout`, `stderr`, `access_log`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::log_target::LogTarget;
use super::{Draft, normal};
use crate::config::{AccessLog, Place, Value};

/// A log file, or what takes the place of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogFile {
    /// Where its lines go.
    pub target: LogTarget,
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
        let stdout = self.log_file(&written.stdout, "stdout")?;
        let access_log = match &written.access_log {
            Some(key) => Some(self.access_log(key, stdout.as_ref())?),
            None => None,
        };
        Ok(Output {
            stdout,
            stderr: self.log_file(&written.stderr, "stderr")?,
            access_log,
            taken_over: written.wsgi.is_some(),
        })
    }

    fn log_file(&self, key: &Option<Value<PathBuf>>, name: &str) -> Result<Option<LogFile>, Place> {
        let Some(key) = key else { return Ok(None) };
        if LogTarget::is_special(key.as_os_str()) {
            let stream = if name == "stdout" { "output" } else { "error" };
            return Err(key.wrong(format!(
                "{name}: must be the path of a file, not {:?} (leave `{name}` out for the standard {stream} of preforkd)",
                &**key
            )));
        }
        let target = self.file(key, key, name)?;
        let lossy = false;
        Ok(Some(LogFile { target, lossy }))
    }

    fn file<T>(&self, key: &Value<T>, path: &Path, name: &str) -> Result<LogTarget, Place> {
        let path = normal(&self.folder.join(path));
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
        Ok(LogTarget::File(path))
    }

    /// The access log, of which no worker waits for a writer.
    fn access_log(
        &self,
        key: &Value<AccessLog>,
        stdout: Option<&LogFile>,
    ) -> Result<LogFile, Place> {
        let written = key.0.as_os_str();
        let target = match LogTarget::is_special(written) {
            true => LogTarget::parse(written)
                .map_err(|message| key.wrong(format!("access_log: {message}")))?,
            false => self.file(key, &key.0, "access_log")?,
        };
        Ok(LogFile {
            target: match (target, stdout) {
                // That of the app.
                (LogTarget::Stdout, Some(stdout)) => stdout.target.clone(),
                (target, _) => target,
            },
            lossy: true,
        })
    }
}
