//! A configuration checked against the host: what to bind, what to launch, and by which policy.
//!
//! This is the only module that knows the kinds of worker; its result is the same for all of them. Pure: it asks a [`Host`]
//! about the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::config::{
    self, Address, App as Written, Apps, Config, Diagnostic, Place, Ready, Sources, Stdin,
    StopSignal, When,
};
#[cfg(test)]
use crate::supervisor::Restart;
use crate::supervisor::{Policy, Readiness, Replace};

mod access_format;
mod callable;
mod check;
mod command;
pub mod control;
mod environment;
mod files;
mod host;
mod identity;
mod lacking;
pub mod log_target;
mod lossless;
mod order;
mod output;
mod own_address;
mod platform;
mod policy;
mod proxies;
mod scheduled;
mod selection;
mod shared_logs;
mod sockets;
mod static_files;
#[cfg(test)]
mod tests;
pub mod variables;
mod wsgi;

pub use check::{Ask, CHECK_LISTENER, Check};
pub use host::{FileState, Host, User};
use lacking::Lacking;
pub use output::{LogFile, Output, Prefix, Upkeep};
pub use own_address::OwnAddress;
pub use scheduled::Scheduled;

/// A checked configuration. Its JSON form is complete, but only for a process of the same program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The path of the pid file.
    #[serde(with = "lossless")]
    pub pid_file: Option<PathBuf>,
    /// The path of the control socket: as configured, else beside the pid file, else in the runtime directory of the
    /// service.
    #[serde(with = "lossless")]
    pub control: Option<PathBuf>,
    /// The permission bits of the control socket.
    pub control_mode: u32,
    /// The group of the control socket; the master's if `None`.
    pub control_group: Option<u32>,
    /// All sockets that any app listens on.
    pub listeners: Vec<Listener>,
    /// The apps with workers, by name.
    pub apps: BTreeMap<String, App>,
    /// The names of further apps of the configuration, which do not run.
    pub stopped: BTreeSet<String>,
    /// The apps with a schedule, by name.
    pub scheduled: BTreeMap<String, Scheduled>,
}

/// A socket to bind, or to inherit from the init system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its address.
    #[serde(with = "lossless")]
    pub address: Address,
    /// The length of its accept queue.
    pub backlog: u32,
    /// For an IPv6 socket: another listener has the same port for IPv4.
    pub v6only: bool,
    /// Whether a program that is not ours gets it, and might remove the file of a unix socket.
    pub is_lent: bool,
    /// Permission bits of a unix socket; `None` leaves them to the umask.
    pub mode: Option<u32>,
    /// Owner of a unix socket.
    pub owner: Option<u32>,
    /// Group of a unix socket.
    pub group: Option<u32>,
    /// Whether the start, or a reload, fails without it.
    pub required: bool,
}

/// A pool of like workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The listeners that its workers get, in this order, and their names.
    #[serde(with = "lossless")]
    pub sockets: Vec<(String, Address)>,
    /// How a worker is started.
    pub launch: Launch,
    /// Whether the launched process is a template that forks the workers.
    pub template: bool,
    /// The number of workers, and the time limits.
    pub policy: Policy,
    /// The number of requests a worker serves at a time, if its scoreboard record shows them.
    pub threads: Option<u32>,
    /// The addresses of which each worker gets one, if its launch names one.
    pub own_address: Option<OwnAddress>,
    /// What its standard input is.
    pub stdin: Stdin,
    /// How a worker is told to end.
    pub stop: Stop,
    /// How a hanging worker is detected.
    pub hang: Hang,
    /// When a worker is recycled.
    pub recycle: Recycle,
    /// The command that must succeed before a reload starts any worker.
    pub before: Option<Launch>,
    /// Whether it must succeed before the first start, too.
    pub before_at_start: bool,
    /// The check of the first worker of a new generation.
    pub check: Option<Check>,
    /// Whether it runs without being started by a command.
    pub enabled: bool,
    /// A reload of the whole configuration leaves it alone if its plan has not changed.
    pub on_change: bool,
    /// The files behind its program and folder.
    pub files: Vec<FileState>,
    /// Where the output of its workers goes.
    pub output: Output,
    /// What is allowed and probably a mistake, for the log.
    pub warnings: Vec<String>,
    /// What was decided for it from outside of the configuration.
    pub notices: Vec<String>,
    /// The apps that come directly before it, when apps start and stop.
    pub after: BTreeSet<String>,
    /// Whether its failure holds up the others.
    pub required: bool,
    /// Why none of its workers can be started, until a reload finds what is missing. Without it the launch is not to be used: it may
    /// lack the user.
    pub unfit: Option<String>,
}

impl App {
    /// The longest that one step of a start or reload takes: a worker gets ready, or a command runs, or the first worker proves itself.
    pub fn time_to_start(&self) -> Duration {
        let check = self.check.as_ref();
        let check = check.map(|check| check.timeout.saturating_mul(check.attempts + 1));
        let proof = self.policy.soak.saturating_add(check.unwrap_or_default());
        let ends = match self.policy.replace {
            Replace::StartFirst => Duration::ZERO,
            Replace::StopFirst => self.time_to_stop(),
        };
        let starts = self.policy.start_timeout.saturating_add(proof);
        starts.saturating_add(ends)
    }

    /// The longest that its workers take to end.
    pub fn time_to_stop(&self) -> Duration {
        let Policy {
            graceful_timeout,
            abort_grace,
            ..
        } = self.policy;
        graceful_timeout.saturating_add(abort_grace)
    }
}

#[cfg(test)]
impl Listener {
    /// A required listener for tests.
    pub fn example(address: Address) -> Self {
        Self {
            address,
            backlog: 10,
            v6only: false,
            is_lent: false,
            mode: None,
            owner: None,
            group: None,
            required: true,
        }
    }
}

#[cfg(test)]
impl App {
    /// An app for tests, whose program is never executed.
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
                restart: Restart::Always,
                replace: Replace::StartFirst,
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
            own_address: None,
            stdin: Stdin::Null,
            stop: Stop::default(),
            hang: Hang::Unseen,
            recycle: Recycle {
                max_age: None,
                max_memory: None,
            },
            before: None,
            before_at_start: false,
            check: None,
            enabled: true,
            on_change: false,
            files: Vec::new(),
            output: Output::default(),
            warnings: Vec::new(),
            notices: Vec::new(),
            after: BTreeSet::new(),
            required: true,
            unfit: None,
        }
    }
}

/// When a worker is recycled. (A WSGI worker counts its requests itself.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycle {
    /// At this age, or up to a tenth earlier.
    pub max_age: Option<Duration>,
    /// When its share of memory exceeds this, in bytes.
    pub max_memory: Option<u64>,
}

/// How a worker is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// By this signal...
    pub signal: StopSignal,
    /// ...to its whole process group.
    pub group: bool,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: StopSignal::Term,
            group: false,
        }
    }
}

impl From<StopSignal> for Signal {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Term => Self::SIGTERM,
            StopSignal::Quit => Self::SIGQUIT,
            StopSignal::Int => Self::SIGINT,
            StopSignal::Hup => Self::SIGHUP,
            StopSignal::Usr1 => Self::SIGUSR1,
            StopSignal::Usr2 => Self::SIGUSR2,
            StopSignal::Winch => Self::SIGWINCH,
        }
    }
}

/// How a hanging worker is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hang {
    /// Not at all.
    Unseen,
    /// Its record in the scoreboard shows a request older than this.
    Request(Duration),
    /// It has not sent `WATCHDOG=1` for this time.
    Silence(Duration),
}

/// How a process is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The file to execute.
    #[serde(with = "lossless")]
    pub program: PathBuf,
    /// The arguments, starting with the program's own name.
    pub args: Vec<String>,
    /// Variables to add to the master's environment.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    #[serde(with = "lossless")]
    pub chdir: PathBuf,
    /// The user it runs as; the master's if `None`.
    pub user: Option<Credentials>,
    /// The file mode creation mask; the master's if `None`.
    pub umask: Option<u32>,
}

/// The user and groups of a process.
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
    /// All apps: those with workers, and those with a schedule.
    pub fn all_apps(&self) -> impl Iterator<Item = (&str, &App)> {
        let apps = self.apps.iter().map(|(name, app)| (name.as_str(), app));
        let scheduled = self.scheduled.iter();
        apps.chain(scheduled.map(|(name, scheduled)| (name.as_str(), &scheduled.app)))
    }

    /// The name of the app that has a listener.
    pub fn app_at(&self, address: &Address) -> Option<&str> {
        let mut apps = self.apps.iter();
        let found = apps.find(|(_, app)| app.sockets.iter().any(|(_, at)| at == address));
        found.map(|(name, _)| name.as_str())
    }

    /// The log files of all apps.
    pub fn log_files(&self) -> BTreeSet<LogFile> {
        let apps = self.all_apps().map(|(_, app)| app);
        apps.flat_map(|app| app.output.files()).cloned().collect()
    }

    /// The names of the apps of which the old workers end before new ones start.
    pub fn stopped_first<N: Ord + for<'a> From<&'a str>>(&self) -> BTreeSet<N> {
        let apps = self.apps.iter();
        let first = apps.filter(|(_, app)| app.policy.replace == Replace::StopFirst);
        first.map(|(name, _)| name.as_str().into()).collect()
    }

    /// What was decided for the apps from outside of the configuration, with their names.
    pub fn notices(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all_apps().flat_map(|(name, app)| {
            let notices = app.notices.iter();
            notices.map(move |notice| (name, notice.as_str()))
        })
    }

    /// What is allowed and probably a mistake, each with the name of its app.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all_apps().flat_map(|(name, app)| {
            let warnings = app.warnings.iter();
            warnings.map(move |warning| (name, warning.as_str()))
        })
    }

    /// Parses the configuration `file`, and the files that it includes, and checks it against `host`.
    ///
    /// # Errors
    /// The first error, formatted.
    pub fn parse(text: &str, file: &Path, host: &dyn Host) -> Result<Self, Diagnostic> {
        let (sources, config) = files::load(text, file, host)?;
        Self::new(&config, &sources, host).map_err(|place| sources.diagnostic(place))
    }

    /// Checks `config` against `host`. A relative path starts at the folder of the file that it stands in.
    ///
    /// # Errors
    /// The first error, with its position.
    fn new(config: &Config, sources: &Sources, host: &dyn Host) -> Result<Self, Place> {
        let folder = sources.folder(0);
        if config.app.is_empty() {
            return Err(Place::whole(
                "there is no app to run (add a table [app.NAME])",
            ));
        }
        let pid_file = config.master.pid_file.as_ref().map(|path| path.as_path());
        let control = config.master.control.as_ref().map(|path| path.as_path());
        control::check(&config.master)?;
        let (control_mode, control_group) = control::rights(&config.master, host)?;
        let mut plan = Self {
            control_mode,
            control_group,
            pid_file: pid_file.map(|path| folder.join(path)),
            control: control::place(control, pid_file, folder, host),
            listeners: Vec::new(),
            apps: BTreeMap::new(),
            stopped: BTreeSet::new(),
            scheduled: BTreeMap::new(),
        };
        let (mut edges, mut logs) = (Vec::new(), Vec::new());
        for (name, written) in &config.app {
            let (header, name) = (name.span(), name.get_ref());
            if !is_app_name(name) {
                let message = format!(
                    "\"{name}\" is not a valid name for an app (use letters, digits, - and _ only)"
                );
                return Err(Place::at(header, message));
            }
            let draft = Draft {
                name,
                written,
                all: &config.app,
                folder: sources.folder(header.start),
                header,
                host,
                lacking: Lacking::default(),
            };
            edges.extend(draft.edges());
            if let Some(schedule) = &written.schedule {
                let scheduled = draft.scheduled(&schedule.0)?;
                logs.extend(draft.log_uses(&scheduled.app.output));
                plan.scheduled.insert(name.clone(), scheduled);
                continue;
            }
            let mut app = draft.app(&mut plan.listeners)?;
            logs.extend(draft.log_uses(&app.output));
            draft.lacking.note(&mut app, sources);
            plan.apps.insert(name.clone(), app);
        }
        let names = config.app.keys().map(|name| name.get_ref().as_str());
        let names = names.collect();
        for (name, before) in order::order(&names, &edges)? {
            if let Some(app) = plan.apps.get_mut(&name) {
                app.after = before;
            }
        }
        shared_logs::check(&logs)?;
        leave_ipv4_to_its_own(&mut plan.listeners);
        Ok(plan)
    }
}

/// Whether an app can have this name.
pub fn is_app_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    !name.is_empty() && name.chars().all(valid)
}

/// A dual-stack `[::]:80` and a `0.0.0.0:80` cannot both be bound. If both are configured, the first is IPv6 only.
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

/// An `[app.NAME]` table while it is checked.
struct Draft<'a> {
    name: &'a str,
    /// The position of the name in the table's header.
    header: std::ops::Range<usize>,
    written: &'a Written,
    /// All apps.
    all: &'a BTreeMap<Spanned<String>, Written>,
    folder: &'a Path,
    host: &'a dyn Host,
    lacking: Lacking,
}

impl Draft<'_> {
    fn app(&self, listeners: &mut Vec<Listener>) -> Result<App, Place> {
        self.refuse_keys_of_the_other_kind()?;
        let mut notices = Vec::new();
        let sockets = self.sockets(listeners, &mut notices)?;
        let (mut env, user) = self.environment()?;
        if let Some(time) = &self.written.watchdog {
            // The program's sd_watchdog_enabled(3) reads these.
            env.insert("WATCHDOG_USEC".into(), time.0.as_micros().to_string());
        }
        let own_address = self.own_address(&env)?;
        let mut launch = Launch {
            program: PathBuf::new(),
            args: Vec::new(),
            env,
            chdir: self.chdir()?,
            user,
            umask: self.written.umask.as_ref().map(|mask| mask.0),
        };
        let mut warnings = Vec::new();
        let (template, readiness) = match (&self.written.wsgi, &self.written.command) {
            (Some(wsgi), None) => (
                self.wsgi(wsgi, &sockets, &mut launch, &mut warnings)?,
                Readiness::Notify,
            ),
            (None, Some(command)) => (
                false,
                self.command(
                    command,
                    &sockets,
                    self.has_check_listener(own_address.is_some()),
                    &mut launch,
                    &mut warnings,
                )?,
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
        let check = self.check(&launch, own_address.is_some())?;
        let has_listener = !sockets.is_empty();
        let policy = self.policy(readiness, check.is_some(), has_listener, &mut notices)?;
        let words = launch.args.iter().chain(launch.env.values());
        for (word, meant) in words.filter_map(|text| own_address::misspelt(text)) {
            warnings.push(format!("{{{word}}} stays as it is (did you mean {meant}?)"));
        }
        if let Some(range) = &own_address {
            self.enough_addresses(range, &policy, &mut warnings)?;
        }
        let before = self.before(&launch)?;
        let stop = Stop {
            signal: self.stop_signal(&launch.program),
            group: *self.written.stop_group,
        };
        Ok(App {
            enabled: *self.written.enabled,
            on_change: *self.written.reload.when == When::OnChange,
            files: self.files_behind(&launch),
            output: self.output()?,
            sockets,
            before,
            before_at_start: self.before_at_start()?,
            launch,
            template,
            policy,
            check,
            threads: self.written.wsgi.as_ref().map(|_| self.written.threads.0),
            own_address,
            stdin: self.stdin(has_listener)?,
            stop,
            hang: self.hang(),
            recycle: Recycle {
                max_age: self.written.max_age.as_ref().map(|age| age.0),
                max_memory: self.written.max_memory.as_ref().map(|size| size.0),
            },
            warnings,
            notices,
            after: BTreeSet::new(),
            required: *self.written.required,
            unfit: None,
        })
    }

    /// Refuses a key that has no effect for this kind of app.
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

    fn chdir(&self) -> Result<PathBuf, Place> {
        let Some(chdir) = &self.written.chdir else {
            return Ok(self.folder.to_owned());
        };
        let path = normal(&self.folder.join(&**chdir));
        if !self.host.is_folder(&path) {
            let missing = chdir.wrong(format!(
                "chdir: there is no folder {} (create it first)",
                path.display()
            ));
            // Its interpreter may be in there.
            match self.written.wsgi {
                Some(_) => self.lacks(missing, ())?,
                None => self.may_come(missing)?,
            }
        }
        Ok(path)
    }

    fn wrong(&self, message: impl Into<String>) -> Place {
        Place::at(self.header.clone(), message)
    }

    /// When a program is ready.
    fn readiness(&self) -> Readiness {
        match self.written.ready.as_deref() {
            None if *self.written.restart == config::Restart::Never => Readiness::Exec,
            None | Some(Ready::Notify) => Readiness::Notify,
            Some(Ready::Exec) => Readiness::Exec,
            Some(Ready::After(time)) => Readiness::After(*time),
        }
    }
}

/// Removes `.` and resolves `..` lexically, so that messages show the effective path.
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
