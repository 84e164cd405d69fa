//! The apps that sites name, and where the front reaches their workers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use preforkd_worker::env::FRONT_LISTENER;
use preforkd_worker::front::{Speech, Upstream};

use super::{App, Credentials, Host, Listener, OwnListener, control};
use crate::config::{self, Address, Config, Place, Site};

/// Only its owner may connect: the user of the front.
const MODE: u32 = 0o600;

/// How like a name must be to be suggested, of 1.
const LIKE: f64 = 0.75;

/// The apps that sites name.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Their names, each with the position of one that names it.
    names: BTreeMap<String, Range<usize>>,
    /// What the paths of their sockets begin with.
    prefix: PathBuf,
    /// The user of the front, if it is not that of the master.
    owner: Option<u32>,
}

impl Reached {
    /// Finds them. `control` is the path of the control socket, `file` that of the configuration.
    pub fn find(
        config: &Config,
        control: Option<&Path>,
        file: &Path,
        host: &dyn Host,
        user: Option<&Credentials>,
    ) -> Result<Self, Place> {
        let mut names = BTreeMap::new();
        for site in config.site.values() {
            for (name, place) in named(site) {
                check(config, name, &place)?;
                names.entry(name.to_owned()).or_insert(place);
            }
        }
        let prefix = prefix(control, file, host);
        let Some(place) = names.values().next() else {
            return Ok(Self::default());
        };
        let folder = prefix.parent().unwrap_or(Path::new("/"));
        if let Some(closed) = host.closed_to(folder, user) {
            let message = format!(
                "app: the sockets of apps that sites name are in {}, and the user of [front] may not enter {} (give that user the permission to enter it, or write `control` in [master])",
                folder.display(),
                closed.display()
            );
            return Err(Place::at(place.clone(), message));
        }
        Ok(Self {
            names,
            prefix,
            owner: user.map(|user| user.uid),
        })
    }

    /// Whether a site names this app.
    pub fn has(&self, app: &str) -> bool {
        self.names.contains_key(app)
    }

    /// The names of the apps.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    /// The listeners at which only the front reaches each worker of an app, if a site names it.
    pub fn own_listener(&self, app: &str, backlog: u32) -> Option<OwnListener> {
        let mut prefix = self.prefix.clone().into_os_string();
        prefix.push(format!("{app}.front"));
        self.has(app).then(|| OwnListener {
            prefix: prefix.into(),
            mode: MODE,
            owner: self.owner,
            backlog,
        })
    }

    /// The listener at which only the front reaches an app.
    pub fn listener(
        &self,
        app: &str,
        backlog: u32,
        is_lent: bool,
        stays_open: bool,
    ) -> Result<Listener, Place> {
        let mut path = self.prefix.clone().into_os_string();
        path.push(format!("{app}.front"));
        // sockaddr_un(7): 108 bytes with the final NUL.
        if path.len() > 107 {
            let message = format!(
                "app: the path of the socket of app {app} would be too long for one (write a shorter `control` in [master])"
            );
            return Err(Place::at(self.names[app].clone(), message));
        }
        Ok(Listener {
            address: Address::Unix(path.into()),
            backlog,
            v6only: false,
            is_lent,
            mode: Some(MODE),
            owner: self.owner,
            group: None,
            required: true,
            stays_open,
        })
    }

    /// Where the front reaches each app.
    pub fn upstreams(
        &self,
        config: &Config,
        apps: &BTreeMap<String, App>,
    ) -> Result<BTreeMap<String, Upstream>, Place> {
        let mut upstreams = BTreeMap::new();
        for (name, place) in &self.names {
            let wrong = |message: String| Place::at(place.clone(), message);
            let app = apps.get(name);
            let speech = app.map(|app| app.speech.clone()).unwrap_or_default();
            let mut sockets = app.into_iter().flat_map(|app| &app.sockets);
            let private = sockets
                .clone()
                .find(|(name, _)| name == FRONT_LISTENER)
                .and_then(|(_, address)| target(address));
            let found = private.or_else(|| sockets.find_map(|(_, address)| target(address)));
            let is_told = app.is_some_and(|app| app.is_told);
            let has_address = app.is_some_and(|app| app.own_address.is_some());
            if found.is_none() && !has_address {
                return Err(wrong(format!(
                    "app: no listener of app {name} has an address that is known (write one instead of \"fd:NAME\")"
                )));
            }
            let addresses = found.filter(|_| !has_address).into_iter().collect();
            let mut written = config.app.iter();
            let written = written.find(|(known, _)| known.get_ref() == name);
            let Some((_, written)) = written else {
                return Err(wrong(format!("app: there is no app \"{name}\"")));
            };
            let upstream = Upstream {
                is_told,
                ..upstream(addresses, speech, written)
            };
            upstreams.insert(name.clone(), upstream);
        }
        Ok(upstreams)
    }
}

/// What the front is told of these addresses: how it deals with them stands in the table of an app.
pub(super) fn upstream(addresses: Vec<String>, speech: Speech, written: &config::App) -> Upstream {
    let (queue, how) = (&*written.queue, &*written.upstream);
    Upstream {
        addresses,
        is_told: false,
        speech,
        queue_length: queue.length.0,
        queue_timeout: queue.timeout.0,
        connect_timeout: how.connect_timeout.0,
        response_timeout: written.response_timeout(),
        idle_timeout: how.idle_timeout.0,
        max_fails: how.max_fails.0,
        fail_timeout: how.fail_timeout.0,
    }
}

/// The apps that a site names, with their positions.
fn named(site: &Site) -> impl Iterator<Item = (&str, Range<usize>)> {
    let routes = site.routes.iter();
    let routes = routes.filter_map(|route| Some((route.get_ref().app.as_ref()?, route.span())));
    let own = site.app.iter().map(|app| (app, Range::default()));
    let asked = site.asked();
    let asked = asked.filter_map(|asked| Some((asked.app.as_ref()?, Range::default())));
    own.chain(routes).chain(asked).map(|(app, around)| {
        let place = app.place().unwrap_or(around);
        (app.as_str(), place)
    })
}

/// Refuses an app to which no request can be passed on.
fn check(config: &Config, name: &str, place: &Range<usize>) -> Result<(), Place> {
    let wrong = |message: String| Err(Place::at(place.clone(), message));
    let mut apps = config.app.iter();
    match apps.find(|(known, _)| known.get_ref() == name) {
        None => {
            let known = config.app.keys().map(|name| name.get_ref().as_str());
            let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
            let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = match nearest.filter(|(score, _)| *score > LIKE) {
                Some((_, nearest)) => format!("did you mean \"{nearest}\"?"),
                None => format!("add a table [app.{name}]"),
            };
            wrong(format!("app: there is no app \"{name}\" ({hint})"))
        }
        Some((_, app)) if app.schedule.is_some() => wrong(format!(
            "app: app {name} runs at times, and takes no requests (name another app)"
        )),
        Some((_, app)) if *app.proxy_protocol => wrong(format!(
            "app: app {name} has `proxy_protocol`, and the workers that serve sites send no PROXY header (remove it)"
        )),
        Some(_) => Ok(()),
    }
}

/// What the paths of sockets begin with: the name of the control socket, which no other master has, or one in a folder for such files
/// that follows from the path of the configuration.
fn prefix(control: Option<&Path>, file: &Path, host: &dyn Host) -> PathBuf {
    if let Some(control) = control {
        let mut prefix = control.with_extension("").into_os_string();
        prefix.push("-");
        return prefix.into();
    }
    let is_root = host.own_ids().0 == 0;
    let variables = match is_root {
        true => &[][..],
        false => &["XDG_RUNTIME_DIR", "TMPDIR"],
    };
    let named = variables.iter().filter_map(|name| host.variable(name));
    let mut folders = named.map(PathBuf::from).filter(|path| host.is_folder(path));
    let usual = if is_root { "/run" } else { "/tmp" };
    let folder = folders.next().unwrap_or(usual.into());
    folder.join(format!("preforkd-{:016x}-", control::hash(file)))
}

/// Where to connect to reach a listener.
fn target(address: &Address) -> Option<String> {
    match address {
        Address::Tcp(address) => {
            let mut address = *address;
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            Some(address.to_string())
        }
        Address::Unix(_) => Some(address.to_string()),
        Address::Inherited(_) => None,
    }
}
