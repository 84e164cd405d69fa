//! What is known of an app: how its processes are started, watched and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use preforkd_worker::contract::Kind;
use preforkd_worker::env;
use preforkd_worker::front::{Outline, Speech};
use serde::{Deserialize, Serialize};

use super::{Acme, Check, DjangoFiles, FileState, LogFile, Output, OwnAddress, Rights, lossless};
use crate::config::{Address, Stdin, StopSignal};
#[cfg(test)]
use crate::supervisor::Restart;
use crate::supervisor::{Policy, Readiness, Replace};

/// A pool of like workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The listeners that its workers get, in this order, and their names.
    #[serde(with = "lossless")]
    pub sockets: Vec<(String, Address)>,
    /// How a worker is started.
    pub launch: Launch,
    /// The certificates and keys of the sites, as JSON. Workers get them at their start, and new ones while they run.
    pub certificates: Option<Secret>,
    /// What its workers serve, if they are the front.
    pub sites: Vec<Outline>,
    /// What Django sites among them have told of their static files, by the name of the site.
    pub django: BTreeMap<String, DjangoFiles>,
    /// How certificates are ordered, if sites want that.
    pub acme: Option<Acme>,
    /// Whether the launched process is a template that forks the workers.
    pub template: bool,
    /// The number of workers, and the time limits.
    pub policy: Policy,
    /// The number of requests a worker serves at a time, if its scoreboard record shows them.
    pub threads: Option<u32>,
    /// The addresses of which each worker gets one, if its launch names one.
    pub own_address: Option<OwnAddress>,
    /// What its workers speak with sites.
    pub speech: Speech,
    /// What the front reaches each worker by, if the workers have listeners of their own for that.
    pub own_listener: Option<OwnListener>,
    /// Whether sites name the app.
    pub is_reached: bool,
    /// Whether sites name the app and each worker has an address of its own, which front workers are told.
    pub is_told: bool,
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
    /// Why none of its workers or runs can be started, until a reload finds what is missing. If this is set, the launch is not to be
    /// used: it may lack the user.
    pub unfit: Option<String>,
    /// What does not exist yet and is looked for again at each start of a worker, as the configuration check has found it.
    pub missing: Option<String>,
}

/// Listeners that single workers have for themselves, at which only the front can connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnListener {
    /// What their paths begin with.
    #[serde(with = "lossless")]
    pub prefix: PathBuf,
    /// The permission bits of their files.
    pub mode: u32,
    /// The owner of their files: the user of the front, if that is not the master's.
    pub owner: Option<u32>,
    /// How many connections may wait in each of them.
    pub backlog: u32,
}

impl App {
    /// Why a worker that is started now fails, as far as that is known beforehand.
    pub fn cannot_start(&self) -> Option<&str> {
        self.unfit.as_deref().or(self.missing.as_deref())
    }

    /// The longest that one step of a start or reload takes: a worker gets ready, or a command runs, or the first worker proves itself.
    pub fn time_to_start(&self) -> Duration {
        let check = self.check.as_ref();
        let check = check.map(|check| check.timeout.saturating_mul(check.attempts + 1));
        let proof = self.policy.soak.saturating_add(check.unwrap_or_default());
        let ends = match self.policy.replace {
            Replace::StartFirst => Duration::ZERO,
            Replace::StopFirst => self.time_to_stop(),
        };
        let matures = match self.policy.readiness {
            Readiness::After(time) => time,
            Readiness::Notify | Readiness::Finished => Duration::ZERO,
        };
        let ready = self.policy.start_timeout.saturating_add(matures);
        let starts = ready.saturating_add(proof);
        starts.saturating_add(ends)
    }

    /// Whether its processes would write this log file.
    pub fn writes(&self, file: &LogFile) -> bool {
        self.unfit.is_none() && self.output.files().any(|own| own == file)
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
                release: "/".into(),
                user: None,
                rights: Rights::default(),
                env_clear: false,
                umask: None,
                settings: None,
            },
            certificates: None,
            sites: Vec::new(),
            django: BTreeMap::new(),
            acme: None,
            template: false,
            policy: Policy {
                workers,
                range: None,
                readiness: Readiness::Notify,
                restart: Restart::Always,
                replace: Replace::StartFirst,
                announces_end: false,
                ends_quiet: false,
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
            speech: Speech::default(),
            own_listener: None,
            is_reached: false,
            is_told: false,
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
            missing: None,
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
    /// The folder behind that when the configuration was read, without symbolic links: where the workers run while it is there.
    #[serde(with = "lossless")]
    pub release: PathBuf,
    /// The user it runs as; the master's if `None`.
    pub user: Option<Credentials>,
    /// What it may do, and how much.
    pub rights: Rights,
    /// Whether it gets but few of the variables of the master.
    pub env_clear: bool,
    /// The file mode creation mask; the master's if `None`.
    pub umask: Option<u32>,
    /// Settings for a worker of ours that it gets in a memory file, as they are too long for a variable.
    pub settings: Option<Secret>,
}

impl Launch {
    /// The process that loads the application of a Python worker, tells of it and ends.
    pub fn for_inspection(&self) -> Self {
        let mut launch = self.clone();
        let kind = Kind::Inspection.name().to_owned();
        launch.env.insert(env::KIND.into(), kind);
        launch
    }
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
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
