//! What a release is about: all apps, or those that commands have named, and the front if it follows them.

use std::collections::BTreeSet;

use super::join;
use crate::master::world::ClientId;
use crate::plan::{Extent, FRONT, Plan};
use crate::release::Name;

/// What a client wants of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::master) struct Request {
    pub(in crate::master) client: ClientId,
    /// The apps; none for all.
    pub(in crate::master) names: BTreeSet<Name>,
    /// Apps that are stopped are to be started.
    pub(in crate::master) starts: bool,
}

/// What a release is about.
#[derive(Debug, Default)]
pub(in crate::master) struct Scope {
    /// All apps, for which there may be no client: SIGHUP.
    pub(super) all: bool,
    pub(super) requests: Vec<Request>,
    /// The apps that it stops, which it does without reading the configuration.
    pub(super) stops: BTreeSet<Name>,
    /// The apps were paused (WINCH) after it was requested.
    pub(super) paused: bool,
    /// Why the front takes part although nobody has named it.
    front: Option<String>,
}

/// What a release is for, in the words of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::master) enum Purpose {
    Reload,
    /// Start these apps.
    Start(String),
    /// Stop these apps.
    Stop(String),
}

impl Scope {
    /// A reload of all apps.
    pub(in crate::master) fn whole() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// The reload that a client would request by these names; none for all apps.
    pub(in crate::master) fn reload(client: ClientId, names: BTreeSet<Name>) -> Self {
        if names.is_empty() {
            return Self::whole();
        }
        let request = Request {
            client,
            names,
            starts: false,
        };
        Self {
            requests: vec![request],
            ..Self::default()
        }
    }

    /// What it is for.
    pub(in crate::master) fn purpose(&self) -> Purpose {
        let names = self.requests.iter().flat_map(|request| &request.names);
        let names: BTreeSet<_> = names.cloned().collect();
        let only_starts = self.requests.iter().all(|request| request.starts);
        match (names.is_empty(), self.stops.is_empty()) {
            _ if self.all || !only_starts => Purpose::Reload,
            (false, _) => Purpose::Start(join(&names)),
            (true, false) => Purpose::Stop(join(&self.stops)),
            (true, true) => Purpose::Reload,
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.all && self.requests.is_empty()
    }

    /// Whether it is about all apps.
    pub(in crate::master) fn is_whole(&self) -> bool {
        self.all
    }

    /// Whether the apps were paused after it was requested, so that it ends no pause.
    pub(in crate::master) fn is_paused(&self) -> bool {
        self.paused
    }

    /// The apps that were named, and the front if it takes part with them.
    pub(in crate::master) fn names(&self) -> BTreeSet<String> {
        let names = self.requests.iter().flat_map(|request| &request.names);
        let names = names.map(|name| name.to_string());
        let front = self.front.iter().map(|_| FRONT.to_owned());
        names.chain(front).collect()
    }

    /// How far the check of the configuration goes for it.
    pub(in crate::master) fn extent(&self, running: &Plan) -> Extent {
        match self.all {
            true => Extent::default(),
            false => Extent::part(self.names(), running),
        }
    }

    /// The front takes part too, if it is not about all and finds other static files of its apps.
    pub(in crate::master) fn follow_static_files(&mut self, running: &Plan, found: &Plan) {
        if !self.includes(FRONT) {
            self.front = others_change_front(&running.other_static_files(found));
        }
    }

    /// Why the front takes part although nobody has named it.
    pub(in crate::master) fn why_front(&self) -> Option<&str> {
        self.front.as_deref()
    }

    /// Whether an app may be changed by it.
    pub(in crate::master) fn includes(&self, name: &str) -> bool {
        let is_named = self.requests.iter().any(|r| r.names.contains(name));
        self.all || is_named || self.front.is_some() && name == FRONT
    }

    /// Whether an app that is stopped is started by it.
    pub(in crate::master) fn starts(&self, name: &str) -> bool {
        let mut starts = self.requests.iter().filter(|request| request.starts);
        starts.any(|request| request.names.contains(name))
    }
}

/// Why the front is replaced although nobody has named it, if these apps have other static files.
fn others_change_front(apps: &BTreeSet<&str>) -> Option<String> {
    let apps: Vec<&str> = apps.iter().copied().collect();
    let names = apps.join(" and ");
    let of = match apps.len() {
        0 => return None,
        1 => format!("app {names}"),
        _ => format!("apps {names}"),
    };
    Some(format!(
        "the static files of {of} have changed, so its workers are replaced too"
    ))
}
