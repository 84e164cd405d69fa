//! A configuration checked against the host: what to bind, what to launch, and by which policy.
//!
//! This is the only module that knows the kinds of worker; its result is the same for all of them. Pure: it asks a [`Host`]
//! about the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Address, Config, Diagnostic, Given, Place, Sources};
use crate::supervisor::Replace;

mod access_format;
pub mod acme;
mod app;
mod callable;
pub mod certificates;
mod check;
mod command;
pub mod control;
mod django;
mod draft;
pub mod effective;
mod environment;
mod files;
mod host;
mod htpasswd;
mod identity;
mod lacking;
mod landlock;
mod layers;
pub mod log_target;
mod lossless;
mod metrics;
mod order;
mod output;
mod outside;
mod own_address;
mod platform;
mod policy;
mod proxies;
mod rights;
mod routes;
mod scheduled;
mod selection;
mod shared_logs;
mod site_names;
mod sites;
mod sockets;
mod speech;
mod static_files;
#[cfg(test)]
mod tests;
mod upstreams;
pub mod variables;
mod wsgi;

pub use acme::Acme;
pub use app::{App, Credentials, Hang, Launch, OwnListener, Recycle, Secret, Stop};
pub use check::{Ask, CHECK_LISTENER, Check};
pub use django::{DjangoFiles, Extent};
use draft::Draft;
pub use host::{FileState, Host, User};
use lacking::Lacking;
pub use lacking::TRIED_AGAIN;
pub use landlock::{Landlock, Reach};
pub use metrics::Metrics;
pub use output::{LogFile, Output, Prefix, Upkeep};
pub use own_address::OwnAddress;
pub use rights::{Privileges, Resource, Rights};
pub use scheduled::Scheduled;
pub use sites::FRONT;

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
    /// Where the control socket may be if there is none of these.
    pub usual_control: Vec<control::Usual>,
    /// The permission bits of the control socket.
    pub control_mode: u32,
    /// The group of the control socket; the master's if `None`.
    pub control_group: Option<u32>,
    /// The process that answers `/metrics`.
    pub metrics: Option<Metrics>,
    /// How long all apps go on serving after the order to stop.
    pub lame_duck: Option<Duration>,
    /// All sockets that any app listens on.
    pub listeners: Vec<Listener>,
    /// The apps with workers, by name.
    pub apps: BTreeMap<String, App>,
    /// The names of further apps of the configuration, which do not run.
    pub stopped: BTreeSet<String>,
    /// Those of them that are tasks of a release, and do not run because no app runs that waits for them.
    pub idle: BTreeSet<String>,
    /// The apps with a schedule, by name.
    pub scheduled: BTreeMap<String, Scheduled>,
    /// Patterns of `include` match nothing because these folders do not exist: what is wrong where, and the folder.
    #[serde(with = "lossless")]
    pub no_folders: Vec<(String, PathBuf)>,
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
    /// Whether it is open also while its app has no worker. Otherwise it is opened with the start of one.
    pub stays_open: bool,
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
            stays_open: true,
        }
    }
}

impl Plan {
    /// All apps: those with workers, and those with a schedule.
    pub fn all_apps(&self) -> impl Iterator<Item = (&str, &App)> {
        let apps = self.apps.iter().map(|(name, app)| (name.as_str(), app));
        let scheduled = self.scheduled.iter();
        apps.chain(scheduled.map(|(name, scheduled)| (name.as_str(), &scheduled.app)))
    }

    /// The names of all apps, also of those that do not run.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        let stopped = self.stopped.iter().map(String::as_str);
        self.all_apps().map(|(name, _)| name).chain(stopped)
    }

    /// The name of the app that has a listener.
    pub fn app_at(&self, address: &Address) -> Option<&str> {
        let mut apps = self.apps.iter();
        let found = apps.find(|(_, app)| app.sockets.iter().any(|(_, at)| at == address));
        found.map(|(name, _)| name.as_str())
    }

    /// All apps, to change them.
    pub fn all_apps_mut(&mut self) -> impl Iterator<Item = (&str, &mut App)> {
        let apps = self.apps.iter_mut().map(|(name, app)| (&**name, app));
        let scheduled = self.scheduled.iter_mut();
        apps.chain(scheduled.map(|(name, scheduled)| (&**name, &mut scheduled.app)))
    }

    /// The app of this name, whether it has workers or a schedule.
    pub fn app(&self, name: &str) -> Option<&App> {
        let scheduled = || Some(&self.scheduled.get(name)?.app);
        self.apps.get(name).or_else(scheduled)
    }

    /// What is wrong with a newer configuration of which a folder of apps has disappeared.
    pub fn lost_folder<'a>(&self, newer: &'a Self) -> Option<&'a str> {
        let known = |folder: &Path| self.no_folders.iter().any(|(_, known)| known == folder);
        let mut lost = newer.no_folders.iter();
        let lost = lost.find(|(_, folder)| !known(folder));
        lost.map(|(why, _)| why.as_str())
    }

    /// Why an app cannot be started now, as far as that is known. The program of one with a schedule may come until it is run.
    pub fn cannot_start(&self, name: &str) -> Option<&str> {
        match self.scheduled.get(name) {
            Some(scheduled) => scheduled.app.unfit.as_deref(),
            None => self.apps.get(name)?.cannot_start(),
        }
    }

    /// The log files of all apps of which processes can be started.
    pub fn log_files(&self) -> BTreeSet<LogFile> {
        let apps = self.all_apps().map(|(_, app)| app);
        let apps = apps.filter(|app| app.unfit.is_none());
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
        Self::of(Given::file(text), file, host)
    }

    /// The same, of what may have been given by options instead. Relative paths start at the folder of `file`.
    ///
    /// # Errors
    /// The first error, formatted.
    pub fn of(given: Given, file: &Path, host: &dyn Host) -> Result<Self, Diagnostic> {
        Self::for_release(given, file, host, &Extent::default())
    }

    /// The same for a release of this extent.
    ///
    /// # Errors
    /// The first error, formatted.
    pub fn for_release(
        given: Given,
        file: &Path,
        host: &dyn Host,
        extent: &Extent,
    ) -> Result<Self, Diagnostic> {
        let files::Loaded {
            sources,
            config,
            no_folders,
            lost,
        } = files::load(given, file, host)?;
        if let Some(mut place) = lost.filter(|_| config.app.is_empty() && config.site.is_empty()) {
            place.message = format!("there is no app to run; {}", place.message);
            return Err(sources.diagnostic(place));
        }
        let plan = Self::new(&config, &sources, host, extent);
        let plan = plan.map_err(|place| sources.diagnostic(place))?;
        let usual_control = match plan.control {
            Some(_) => Vec::new(),
            None => control::usual(file, host),
        };
        Ok(Self {
            no_folders,
            usual_control,
            ..plan
        })
    }

    /// Checks `config` against `host`. A relative path starts at the folder of the file that it stands in.
    ///
    /// # Errors
    /// The first error, with its position.
    fn new(
        config: &Config,
        sources: &Sources,
        host: &dyn Host,
        extent: &Extent,
    ) -> Result<Self, Place> {
        let folder = sources.folder(0);
        if config.app.is_empty() && config.site.is_empty() {
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
            usual_control: Vec::new(),
            metrics: None,
            lame_duck: config.master.lame_duck.as_ref().map(|time| time.0),
            listeners: Vec::new(),
            apps: BTreeMap::new(),
            stopped: BTreeSet::new(),
            idle: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            no_folders: Vec::new(),
        };
        let reached = sites::reached(config, plan.control.as_deref(), sources, host)?;
        let (mut edges, mut logs) = (Vec::new(), Vec::new());
        for (name, written) in &config.app {
            let (header, name) = (name.span(), name.get_ref());
            if !is_app_name(name) {
                let message = format!(
                    "\"{name}\" is not a valid name for an app (use letters, digits, - and _ only)"
                );
                return Err(Place::at(header, message));
            }
            if name == sites::FRONT {
                let message = "\"front\" is the name of the workers that serve sites (choose another one for the app)";
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
                reached: &reached,
            };
            edges.extend(draft.edges());
            if let Some(schedule) = &written.schedule {
                let mut scheduled = draft.scheduled(&schedule.0)?;
                logs.extend(draft.log_uses(&scheduled.app.output));
                draft.lacking.note(&mut scheduled.app, sources);
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
            } else if let Some(scheduled) = plan.scheduled.get_mut(&name) {
                scheduled.app.after = before;
            }
        }
        if let Some((front, uses)) =
            sites::front(config, sources, host, extent, &reached, &mut plan)?
        {
            logs.extend(uses);
            plan.apps.insert(sites::FRONT.to_owned(), front);
        }
        shared_logs::check(&logs)?;
        plan.metrics = metrics::metrics(config, sources, host, &mut plan)?;
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
