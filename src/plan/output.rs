//! The output of workers: `stdout`, `stderr`, `access_log`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::identity::no_user;
use super::log_target::{LOCAL, LogTarget};
use super::{Draft, normal};
use crate::config::{AccessLog, Place, Value};

/// The standard error of the master, as its writer finds it.
const STDERR: &str = "/dev/stderr";

/// What stands for no access log, as in nginx.
const OFF: &str = "off";
/// Words that other servers have for an access log, and what stands for them here.
const MEANT: [(&str, &str); 5] = [
    ("none", OFF),
    ("false", OFF),
    ("stdout", "-"),
    ("stderr", STDERR),
    ("syslog", "syslog:"),
];

/// A log file, or what takes the place of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogFile {
    /// Where its lines go.
    pub target: LogTarget,
    /// Writers lose lines rather than wait for a slow disk.
    pub lossy: bool,
    /// What is done with it, if it is a file.
    pub upkeep: Upkeep,
    /// What stands before each line.
    pub prefix: Option<Prefix>,
}

impl LogFile {
    /// The same for the lines of one process, if they have a prefix.
    pub fn of_process(&self, slot: Option<u32>, process: u64) -> Self {
        self.with(slot, Some(process))
    }

    /// The same for all processes of the app.
    pub fn of_app(&self) -> Self {
        self.with(None, None)
    }

    fn with(&self, slot: Option<u32>, process: Option<u64>) -> Self {
        let mut file = self.clone();
        if let Some(prefix) = &mut file.prefix {
            (prefix.slot, prefix.process) = (slot, process);
        }
        file
    }
}

/// The origin of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    /// The name of the app.
    pub app: String,
    /// The slot of the worker; `None` for what is no worker.
    pub slot: Option<u32>,
    /// Tells the processes of a slot apart: the last line of one may have no end, and the next one must not continue it.
    pub process: Option<u64>,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.app)?;
        match self.slot {
            Some(slot) => write!(f, "/{slot}: "),
            None => f.write_str(": "),
        }
    }
}

/// Owner, permissions and rotation of a log file; also as arguments of its writer.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::Args,
)]
pub struct Upkeep {
    /// Permission bits; `None` leaves them to the umask.
    #[arg(long)]
    pub mode: Option<u32>,
    /// User id of the owner.
    #[arg(long)]
    pub owner: Option<u32>,
    /// Group id.
    #[arg(long)]
    pub group: Option<u32>,
    /// The size, in bytes, that the file may have before it is renamed.
    #[arg(long)]
    pub size: Option<u64>,
    /// How many renamed files are kept.
    #[arg(long, default_value_t)]
    pub keep: u32,
}

impl Upkeep {
    /// The arguments for the log writer.
    pub fn arguments(&self) -> impl Iterator<Item = String> {
        let all = [
            ("mode", self.mode.map(u64::from)),
            ("owner", self.owner.map(u64::from)),
            ("group", self.group.map(u64::from)),
            ("size", self.size),
            ("keep", self.size.map(|_| u64::from(self.keep))),
        ];
        let all = all.into_iter();
        all.filter_map(|(name, number)| Some(format!("--{name}={}", number?)))
    }
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
        let upkeep = self.upkeep()?;
        let stdout = self.log_file(&written.stdout, "stdout", &upkeep)?;
        let access_log = match &written.access_log {
            Some(key) => self.access_log(key, stdout.as_ref(), &upkeep)?,
            None => None,
        };
        let stderr = self.log_file(&written.stderr, "stderr", &upkeep)?;
        Ok(Output {
            stdout: self.with_prefix(stdout, LogTarget::Stdout),
            stderr: self.with_prefix(stderr, LogTarget::File(STDERR.into())),
            access_log,
            taken_over: written.wsgi.is_some(),
        })
    }

    fn log_file(
        &self,
        key: &Option<Value<PathBuf>>,
        name: &str,
        upkeep: &Upkeep,
    ) -> Result<Option<LogFile>, Place> {
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
        Ok(Some(LogFile {
            target,
            lossy,
            upkeep: upkeep.clone(),
            prefix: self.output_prefix(),
        }))
    }

    /// What takes the place of a log file where each line gets a prefix: a log writer for a stream of the master.
    fn with_prefix(&self, file: Option<LogFile>, stream: LogTarget) -> Option<LogFile> {
        let prefix = self.output_prefix();
        file.or_else(|| {
            prefix.is_some().then(|| LogFile {
                target: stream,
                lossy: false,
                upkeep: Upkeep::default(),
                prefix,
            })
        })
    }

    fn output_prefix(&self) -> Option<Prefix> {
        (*self.written.prefix_output).then(|| Prefix {
            app: self.name.to_owned(),
            slot: None,
            process: None,
        })
    }

    fn file<T>(&self, key: &Value<T>, path: &Path, name: &str) -> Result<LogTarget, Place> {
        let path = normal(&self.folder.join(path));
        let folder = path.parent().unwrap_or(Path::new("/"));
        if !self.host.is_folder(folder) {
            let message = format!(
                "{name}: there is no folder {} (create it first)",
                folder.display()
            );
            return self.lacks(key.wrong(message), LogTarget::File(path));
        }
        if self.host.is_folder(&path) {
            let message = format!(
                "{name}: {} is a folder (write the path of a file)",
                path.display()
            );
            return self.lacks(key.wrong(message), LogTarget::File(path));
        }
        Ok(LogTarget::File(path))
    }

    /// The access log, of which no worker waits for a writer; none if it is off.
    fn access_log(
        &self,
        key: &Value<AccessLog>,
        stdout: Option<&LogFile>,
        upkeep: &Upkeep,
    ) -> Result<Option<LogFile>, Place> {
        let written = key.0.as_os_str();
        if written == OFF {
            return Ok(None);
        }
        let meant = MEANT.iter().find(|(word, _)| written == *word);
        if let Some((word, meant)) = meant {
            return Err(key.wrong(format!(
                "access_log: {word:?} is not the path of a file (write {meant:?}; for a file of this name, \"./{word}\")"
            )));
        }
        if written == LOCAL {
            return Err(key.wrong(format!(
                "access_log: {LOCAL} is the socket of a syslog server (write \"syslog:\")"
            )));
        }
        let target = match LogTarget::is_special(written) {
            true => LogTarget::parse(written)
                .map_err(|message| key.wrong(format!("access_log: {message}")))?,
            false => self.file(key, &key.0, "access_log")?,
        };
        Ok(Some(LogFile {
            target: match (target, stdout) {
                // That of the app.
                (LogTarget::Stdout, Some(stdout)) => stdout.target.clone(),
                (target, _) => target,
            },
            lossy: true,
            upkeep: upkeep.clone(),
            prefix: None,
        }))
    }

    fn upkeep(&self) -> Result<Upkeep, Place> {
        let app = self.written;
        let owner = match &app.log_owner {
            None => None,
            Some(name) => match self.host.user(&name.0) {
                None => self.lacks(name.wrong(no_user("log_owner", &name.0)), None)?,
                Some(user) if ![0, user.uid].contains(&self.host.own_ids().0) => {
                    return Err(name.wrong(
                        "log_owner: only a master that runs as root can give files to another user (start preforkd as root, or remove the key)",
                    ));
                }
                Some(user) => Some(user.uid),
            },
        };
        let group = match &app.log_group {
            None => None,
            Some(group) => match self.group("log_group", group) {
                Ok(gid) => Some(gid),
                Err(missing) => self.lacks(missing, None)?,
            },
        };
        let rotation = app.log_rotate.as_ref();
        Ok(Upkeep {
            mode: app.log_mode.as_ref().map(|mode| mode.0),
            owner,
            group,
            size: rotation.map(|rotation| rotation.size.0),
            keep: rotation.map_or_else(Default::default, |rotation| rotation.keep.0),
        })
    }
}
