//! The simulated configuration, and the behaviour of its programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Address;
use crate::plan::{App, Ask, Check, Hang, Listener, OwnListener, Plan, Scheduled};
use crate::release::Name;
use crate::schedule::Zone;
use crate::supervisor::{GiveUp, Readiness, Replace, Restart};

/// The behaviour of an app's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Ready in time; ends when told to.
    Good,
    /// Dies before it is ready.
    Broken,
    /// Never ready; ends only by KILL.
    NeverReady,
    /// Ready, and ignores TERM and ABRT.
    IgnoresSignals,
}

/// How a process that runs once ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Well,
    Badly,
    /// Not at all, until it is told to.
    Hangs,
    /// Not even then.
    IgnoresSignals,
}

/// An app in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) code: Code,
    pub(super) workers: u32,
    pub(super) template: bool,
    pub(super) check: Option<End>,
    pub(super) before: Option<End>,
    /// The number of its listeners.
    pub(super) listeners: u8,
    pub(super) required: bool,
    /// Whether its folder is missing. Only one that is not required is planned so.
    pub(super) missing: bool,
    /// Whether it comes after all apps with smaller names.
    pub(super) ordered: bool,
    pub(super) replace: Replace,
    pub(super) restart: Restart,
    pub(super) enabled: bool,
    pub(super) on_change: bool,
}

impl Written {
    pub(super) fn good(workers: u32) -> Self {
        Self {
            code: Code::Good,
            workers,
            template: false,
            check: None,
            before: None,
            listeners: 1,
            required: true,
            missing: false,
            ordered: false,
            replace: Replace::StartFirst,
            restart: Restart::Always,
            enabled: true,
            on_change: false,
        }
    }

    /// An app that does not start, and that the others need not wait for.
    pub(super) fn broken() -> Self {
        Self {
            code: Code::Broken,
            required: false,
            ..Self::good(1)
        }
    }
}

/// An app with a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Periodic {
    pub(super) cron: &'static str,
    pub(super) end: End,
    pub(super) timeout: Option<Duration>,
    pub(super) enabled: bool,
}

/// The name of the app with a schedule.
pub(super) const PERIODIC: &str = "periodic";

/// The app of which the front is not told.
pub(super) const UNTOLD: &str = "queue";

/// The possible names of apps.
pub(super) const NAMES: [&str; 3] = ["api", "queue", "web"];

/// The port of the first of them.
const PORT: u16 = 8000;

/// The configuration file.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) apps: BTreeMap<&'static str, Written>,
    pub(super) periodic: Option<Periodic>,
    /// It contains a syntax error.
    pub(super) spoilt: bool,
}

impl Disk {
    /// The result of the configuration check.
    pub(super) fn plan(&self) -> Result<Plan, String> {
        if self.spoilt {
            return Err("app.toml:3:1: unknown key".into());
        }
        let apps = self.apps.iter();
        let apps: BTreeMap<_, _> = apps
            .map(|(name, written)| {
                let mut app = app(name, written);
                let before = self
                    .apps
                    .keys()
                    .filter(|other| written.ordered && *other < name);
                app.after = before.map(|other| (*other).to_owned()).collect();
                ((*name).to_owned(), app)
            })
            .collect();
        let of = |app: &App| {
            let required = app.required;
            let addresses = app.sockets.iter();
            let addresses = addresses.map(move |(_, address)| (address.clone(), required));
            addresses.collect::<Vec<_>>()
        };
        let addresses = apps.values().flat_map(of);
        let listener = |(address, required): (Address, bool)| Listener {
            required,
            stays_open: required,
            ..Listener::example(address)
        };
        Ok(Plan {
            control_mode: 0o600,
            control_group: None,
            pid_file: None,
            control: None,
            usual_control: Vec::new(),
            metrics: None,
            lame_duck: None,
            listeners: addresses.map(listener).collect(),
            apps,
            stopped: BTreeSet::new(),
            idle: BTreeSet::new(),
            scheduled: self.periodic.iter().map(scheduled).collect(),
            no_folders: Vec::new(),
        })
    }
}

fn scheduled(written: &Periodic) -> (String, Scheduled) {
    let mut app = App::example(1);
    app.launch.args = vec![format!("{:?}", written.end)];
    app.enabled = written.enabled;
    let scheduled = Scheduled {
        app,
        cron: written.cron.into(),
        zone: Zone::Utc,
        timeout: written.timeout,
    };
    (PERIODIC.into(), scheduled)
}

/// The port of an app with two listeners.
fn port(name: &str) -> Address {
    let number = NAMES.iter().position(|other| *other == name);
    let number = number.expect("one of the possible names") as u16;
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], PORT + number)))
}

/// The app that a listener belongs to.
pub(super) fn app_at(address: &Address) -> Name {
    match address {
        Address::Tcp(address) => NAMES[usize::from(address.port() - PORT)].into(),
        Address::Unix(path) => path.display().to_string()[1..].into(),
        Address::Inherited(name) => unreachable!("{name} is not in the configuration"),
    }
}

/// The program of an app's workers is encoded in its arguments, which are never executed.
fn app(name: &str, written: &Written) -> App {
    let workers = written.workers;
    let mut app = App::example(workers);
    app.launch.args = vec![format!("{:?}", written.code)];
    app.template = written.template;
    app.sockets = (0..written.listeners)
        .map(|n| {
            let address = match n {
                0 => Address::Unix(format!("/{name}").into()),
                _ => port(name),
            };
            (name.to_owned(), address)
        })
        .collect();
    app.own_listener = Some(OwnListener {
        prefix: format!("/{name}.front").into(),
        mode: 0o600,
        owner: None,
        backlog: 1,
    });
    app.is_reached = true;
    app.is_told = name != UNTOLD;
    app.required = written.required;
    let is_missing = written.missing && !written.required;
    app.missing = is_missing.then(|| format!("app.toml: chdir: there is no folder of {name}"));
    app.enabled = written.enabled;
    app.on_change = written.on_change;
    app.hang = Hang::Request(Duration::from_secs(3));
    app.threads = Some(1);
    app.output.taken_over = written.template;
    app.recycle.max_age = (workers == 3).then(|| Duration::from_secs(30));
    app.recycle.max_memory = (workers == 5).then_some(1 << 20);
    app.before_at_start = !written.required;
    app.before = written.before.map(|end| {
        let mut command = app.launch.clone();
        command.args = vec![format!("{end:?}")];
        command
    });
    app.check = written.check.map(|end| Check {
        ask: Ask::Page {
            path: format!("/{end:?}"),
            host: "localhost".into(),
            expect: 200,
        },
        private: true,
        timeout: Duration::from_secs(1),
        attempts: 1,
        every: workers.is_multiple_of(2).then(|| Duration::from_secs(7)),
        failures: 2,
    });
    let policy = &mut app.policy;
    policy.check = written.check.is_some();
    policy.replace = written.replace;
    policy.restart = written.restart;
    // Only one that a site may reach.
    policy.ends_quiet = app.is_told && !written.template && workers != 2;
    policy.announces_end = workers.is_multiple_of(2);
    policy.readiness = match workers {
        5 => Readiness::After(Duration::from_millis(300)),
        _ => Readiness::Notify,
    };
    policy.soak = Duration::from_millis(u64::from(workers % 3) * 100);
    policy.give_up = (workers == 4).then_some(GiveUp {
        crashes: 6,
        within: Duration::from_secs(60),
        exit: false,
    });
    app
}

/// The code that a process was started with.
pub(super) fn code(argument: &str) -> Code {
    match argument {
        "Broken" => Code::Broken,
        "NeverReady" => Code::NeverReady,
        "IgnoresSignals" => Code::IgnoresSignals,
        _ => Code::Good,
    }
}

/// The end that a job was started with.
pub(super) fn end(argument: &str) -> End {
    match argument.trim_start_matches('/') {
        "Badly" => End::Badly,
        "Hangs" => End::Hangs,
        "IgnoresSignals" => End::IgnoresSignals,
        _ => End::Well,
    }
}
