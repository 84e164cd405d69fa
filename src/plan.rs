//! A configuration checked against the host: what to bind, what to launch, by which policy.
//!
//! The only place that knows the kinds of worker: what comes out is the same for all of them. Pure: what it
//! has to know of the host it asks of a [`Host`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Address, App as Written, Apps, Config, Diagnostic, Place, Ready};
use crate::supervisor::{Policy, Readiness};

mod check;
mod command;
pub mod control;
mod host;
mod identity;
mod output;
mod policy;
mod sockets;
#[cfg(test)]
mod tests;
mod wsgi;

pub use check::{CHECK_LISTENER, Check};
pub use host::{Host, User};
pub use output::{LogFile, Output};

/// What the master does with a configuration. Its JSON form is for a master of the same program: it holds all of it, but
/// needs paths that are valid UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the master writes its process id.
    pub pid_file: Option<PathBuf>,
    /// Where the master can be asked and told things: as configured, else beside the pid file, else in the
    /// runtime directory of the service.
    pub control: Option<PathBuf>,
    /// Every socket that any app listens on.
    pub listeners: Vec<Listener>,
    /// The apps, by name.
    pub apps: BTreeMap<String, App>,
}

/// A socket to bind, or to take over from the init system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Where.
    pub address: Address,
    /// The length of its accept queue.
    pub backlog: u32,
    /// An IPv6 socket that leaves IPv4 to another listener on the same port.
    pub v6only: bool,
    /// Permission bits of a unix socket; `None` leaves them to the umask.
    pub mode: Option<u32>,
    /// Owner of a unix socket.
    pub owner: Option<u32>,
    /// Group of a unix socket.
    pub group: Option<u32>,
}

/// A pool of like workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Which listeners its workers get, in this order, and under which names.
    pub sockets: Vec<(String, Address)>,
    /// How a worker is started.
    pub launch: Launch,
    /// Whether the launched process is a template that forks the workers.
    pub template: bool,
    /// How many, how patiently.
    pub policy: Policy,
    /// How many requests a worker serves at a time, where its scoreboard record shows them.
    pub threads: Option<u32>,
    /// How it is seen that a worker hangs.
    pub hang: Hang,
    /// When a worker makes room for a fresh one.
    pub recycle: Recycle,
    /// What must succeed before a reload starts any worker.
    pub before: Option<Launch>,
    /// What its first worker must answer in a reload.
    pub check: Option<Check>,
    /// Where what its workers say goes.
    pub output: Output,
}

#[cfg(test)]
impl App {
    /// An app of so many workers for tests, whose program is never executed.
    pub fn example(workers: u32) -> Self {
        Self {
            sockets: Vec::new(),
            launch: Launch {
                program: "/bin/true".into(),
                args: vec!["true".into()],
                env: BTreeMap::new(),
                chdir: "/".into(),
                user: None,
                umask: None,
            },
            template: false,
            policy: Policy {
                workers,
                range: None,
                readiness: Readiness::Notify,
                announces_end: false,
                start_timeout: Duration::from_secs(5),
                graceful_timeout: Duration::from_secs(10),
                abort_grace: Duration::from_secs(2),
                check: false,
                soak: Duration::ZERO,
                surge: None,
                max_draining: 2,
                give_up: None,
                backoff: Default::default(),
            },
            threads: None,
            hang: Hang::Unseen,
            recycle: Recycle {
                max_age: None,
                max_memory: None,
            },
            before: None,
            check: None,
            output: Output::default(),
        }
    }
}

/// When a worker makes room for a fresh one. (After how many requests, a WSGI worker knows itself.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycle {
    /// When it is so old, or up to a tenth younger.
    pub max_age: Option<Duration>,
    /// When its share of memory is larger, in bytes.
    pub max_memory: Option<u64>,
}

/// How it is seen that a worker hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hang {
    /// Nobody looks.
    Unseen,
    /// Its record in the scoreboard shows a request older than this.
    Request(Duration),
    /// It has not said `WATCHDOG=1` for so long.
    Silence(Duration),
}

/// How a process is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The file to execute.
    pub program: PathBuf,
    /// The arguments, the program's own name first.
    pub args: Vec<String>,
    /// What is added to the master's environment.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub chdir: PathBuf,
    /// Who it runs as; `None`: as the master.
    pub user: Option<Credentials>,
    /// The file mode creation mask; `None`: the master's.
    pub umask: Option<u32>,
}

/// User and groups of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Plan {
    /// The log files of all apps.
    pub fn log_files(&self) -> BTreeSet<LogFile> {
        let apps = self.apps.values();
        apps.flat_map(|app| app.output.files()).cloned().collect()
    }

    /// Reads the text of the configuration `file` and checks it against `host`; relative paths in it are
    /// relative to its folder.
    ///
    /// # Errors
    /// The first thing that is wrong, ready to be shown.
    pub fn parse(text: &str, file: &Path, host: &dyn Host) -> Result<Self, Diagnostic> {
        let shown = file.display().to_string();
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = file.parent().unwrap_or(Path::new("/"));
        let plan = Config::parse(text).and_then(|config| Self::new(&config, folder, host));
        plan.map_err(|place| Diagnostic::new(&shown, text, place))
    }

    /// Checks `config`, whose relative paths are relative to `folder`, against `host`.
    ///
    /// # Errors
    /// The first thing that cannot be, with its place in the file.
    pub fn new(config: &Config, folder: &Path, host: &dyn Host) -> Result<Self, Place> {
        if config.app.is_empty() {
            return Err(Place::whole(
                "there is no app to run (add a table [app.NAME])",
            ));
        }
        let pid_file = config.master.pid_file.as_ref().map(|path| path.as_path());
        let control = config.master.control.as_ref().map(|path| path.as_path());
        let mut plan = Self {
            pid_file: pid_file.map(|path| folder.join(path)),
            control: control::place(control, pid_file, folder, host),
            listeners: Vec::new(),
            apps: BTreeMap::new(),
        };
        for (name, written) in &config.app {
            let (header, name) = (name.span(), name.get_ref());
            if !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
                || name.is_empty()
            {
                let message = format!(
                    "\"{name}\" is not a name for an app (use letters, digits, - and _ only)"
                );
                return Err(Place::at(header, message));
            }
            let draft = Draft {
                name,
                header,
                written,
                folder,
                host,
            };
            let app = draft.app(&mut plan.listeners)?;
            plan.apps.insert(name.clone(), app);
        }
        leave_ipv4_to_its_own(&mut plan.listeners);
        Ok(plan)
    }
}

/// A dual-stack `[::]:80` and a `0.0.0.0:80` cannot both be bound; with both configured each gets its own.
fn leave_ipv4_to_its_own(listeners: &mut [Listener]) {
    let ipv4_ports: Vec<u16> = listeners
        .iter()
        .filter_map(|l| match l.address {
            Address::Tcp(address) if address.is_ipv4() => Some(address.port()),
            _ => None,
        })
        .collect();
    for listener in listeners {
        if let Address::Tcp(address) = listener.address {
            listener.v6only = address.is_ipv6() && ipv4_ports.contains(&address.port());
        }
    }
}

/// One `[app.NAME]` on its way to an [`App`].
struct Draft<'a> {
    name: &'a str,
    /// The place of the name in the table's header.
    header: std::ops::Range<usize>,
    written: &'a Written,
    folder: &'a Path,
    host: &'a dyn Host,
}

impl Draft<'_> {
    fn app(&self, listeners: &mut Vec<Listener>) -> Result<App, Place> {
        self.refuse_keys_of_the_other_kind()?;
        let sockets = self.sockets(listeners)?;
        let check = self.check()?;
        let mut env = self.env()?;
        let user = self.user(&mut env)?;
        if let Some(time) = &self.written.watchdog {
            // sd_watchdog_enabled(3) of the program looks here.
            env.insert("WATCHDOG_USEC".into(), time.0.as_micros().to_string());
        }
        let mut launch = Launch {
            program: PathBuf::new(),
            args: Vec::new(),
            env,
            chdir: self.chdir()?,
            user,
            umask: self.written.umask.as_ref().map(|mask| mask.0),
        };
        let (template, readiness) = match (&self.written.wsgi, &self.written.command) {
            (Some(wsgi), None) => (self.wsgi(wsgi, &sockets, &mut launch)?, Readiness::Notify),
            (None, Some(command)) => (
                false,
                self.command(command, &sockets, check.is_some(), &mut launch)?,
            ),
            (Some(_), Some(command)) => {
                return Err(
                    command.wrong("an app has either `wsgi` or `command`, not both (remove one)")
                );
            }
            (None, None) => {
                return Err(self.wrong(format!(
                    "[app.{}] has neither `wsgi` nor `command` (add one of them)",
                    self.name
                )));
            }
        };
        let before = self.before(&launch)?;
        Ok(App {
            output: self.output()?,
            sockets,
            before,
            launch,
            template,
            policy: self.policy(readiness, check.is_some())?,
            check,
            threads: self.written.wsgi.as_ref().map(|_| self.written.threads.0),
            hang: self.hang(),
            recycle: Recycle {
                max_age: self.written.max_age.as_ref().map(|age| age.0),
                max_memory: self.written.max_memory.as_ref().map(|size| size.0),
            },
        })
    }

    /// Refuses a key that does nothing for this kind of app.
    fn refuse_keys_of_the_other_kind(&self) -> Result<(), Place> {
        let kind = match (&self.written.wsgi, &self.written.command) {
            (Some(_), None) => Apps::Wsgi,
            (None, Some(_)) => Apps::Command,
            _ => return Ok(()),
        };
        let mut written = self.written.written();
        let wrong = written.find(|(key, _)| key.apps != Apps::Any && key.apps != kind);
        let Some((key, place)) = wrong else {
            return Ok(());
        };
        let advice = match key.instead {
            Some(instead) => format!("use `{instead}`"),
            None => "remove it".into(),
        };
        let message = format!(
            "`{}` is for {}, not for {kind} ({advice})",
            key.name, key.apps
        );
        Err(Place::at(place, message))
    }

    /// Variables for the workers' environment.
    fn env(&self) -> Result<BTreeMap<String, String>, Place> {
        let mut env = BTreeMap::new();
        for (name, value) in &*self.written.env {
            let wrong = |message| Err(Place::at(name.span(), message));
            let name = name.get_ref();
            if name.is_empty() || name.contains(['=', '\0']) {
                return wrong(format!(
                    "env: {name:?} is not a name for a variable (it must not be empty, nor hold \"=\" or a NUL character)"
                ));
            }
            if value.contains('\0') {
                return wrong(format!(
                    "env: the value of {name} must not hold a NUL character"
                ));
            }
            env.insert(name.clone(), value.clone());
        }
        Ok(env)
    }

    fn chdir(&self) -> Result<PathBuf, Place> {
        let Some(chdir) = &self.written.chdir else {
            return Ok(self.folder.to_owned());
        };
        let path = normal(&self.folder.join(&**chdir));
        if !self.host.is_folder(&path) {
            return Err(chdir.wrong(format!(
                "chdir: there is no folder {} (create it first)",
                path.display()
            )));
        }
        Ok(path)
    }

    fn wrong(&self, message: impl Into<String>) -> Place {
        Place::at(self.header.clone(), message)
    }

    /// When a program that is not ours is ready.
    fn readiness(&self) -> Readiness {
        match *self.written.ready {
            Ready::Notify => Readiness::Notify,
            Ready::Exec => Readiness::Exec,
            Ready::After(time) => Readiness::After(time),
        }
    }
}

/// Removes `.` and resolves `..` by name, so that messages show the path that is meant.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}
