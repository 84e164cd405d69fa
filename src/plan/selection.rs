//! Plans made of parts of others: without apps that are stopped, or with apps as they run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{App, Draft, FileState, Launch, Listener, Plan};
use crate::config::Address;

impl Plan {
    /// The plan with only the apps that this picks; the others are stopped.
    pub fn only(mut self, runs: impl Fn(&str, &App) -> bool) -> Self {
        let Self {
            apps,
            scheduled,
            stopped,
            ..
        } = &mut self;
        let mut picked = |name: &String, app: &App| {
            let runs = runs(name, app);
            if !runs {
                stopped.insert(name.clone());
            }
            runs
        };
        apps.retain(|name, app| picked(name, app));
        scheduled.retain(|name, scheduled| picked(name, &scheduled.app));
        self.drop_unused_listeners();
        self
    }

    /// The plan with only the apps that this picks. A task of the release is stopped, too, if none of the apps that wait for it is picked,
    /// unless it is `named`.
    pub fn only_started(
        self,
        runs: impl Fn(&str, &App) -> bool,
        named: impl Fn(&str) -> bool,
    ) -> Self {
        let waits =
            |(name, app): &(&str, &App)| runs(name, app) && (!self.is_task(name) || named(name));
        let apps = self.all_apps().filter(waits);
        let idle = self.idle_tasks(&apps.map(|(name, _)| name.to_owned()).collect());
        let is_idle =
            |name: &str, app: &App| idle.contains(name) && !named(name) && runs(name, app);
        let tasks = self.apps.iter().filter(|(name, app)| is_idle(name, app));
        let tasks = tasks.map(|(name, _)| name.clone()).collect();
        let picked =
            self.only(|name, app| runs(name, app) && (!idle.contains(name) || named(name)));
        Self {
            idle: tasks,
            ..picked
        }
    }

    /// The plan in which these apps are as in `other`, with their listeners, or removed if `other` does not have them.
    ///
    /// # Errors
    /// The address of a listener, which one of these apps would share with another app of that name; without a name, with the process that
    /// answers `/metrics`.
    pub fn with_apps_of(
        mut self,
        other: &Self,
        names: &BTreeSet<String>,
    ) -> Result<Self, (Address, String)> {
        for name in names {
            self.apps.remove(name);
            self.scheduled.remove(name);
            self.stopped.remove(name);
            self.idle.remove(name);
            if other.idle.contains(name) {
                self.idle.insert(name.clone());
            }
            if let Some(app) = other.apps.get(name) {
                self.apps.insert(name.clone(), app.clone());
            } else if let Some(scheduled) = other.scheduled.get(name) {
                self.scheduled.insert(name.clone(), scheduled.clone());
            } else if other.stopped.contains(name) {
                self.stopped.insert(name.clone());
            }
        }
        let no_app = String::new();
        let theirs = self.apps.iter().filter(|(name, _)| !names.contains(*name));
        let theirs = theirs.flat_map(|(name, app)| app.addresses().map(move |at| (at, name)));
        let metrics = self.metrics.clone();
        let of_master = metrics.iter().flat_map(|metrics| &metrics.listeners);
        let of_master = of_master.map(|at| (at, &no_app));
        let theirs: BTreeMap<_, _> = theirs.chain(of_master).collect();
        for listener in other.listeners_of(names) {
            if let Some((address, name)) = theirs.get_key_value(&listener.address) {
                return Err(((*address).clone(), (*name).clone()));
            }
            let is_same = |known: &Listener| known.address == listener.address;
            self.listeners.retain(|known| !is_same(known));
            self.listeners.push(listener);
        }
        self.drop_unused_listeners();
        Ok(self)
    }

    /// The listeners of these apps.
    pub fn listeners_of(&self, names: &BTreeSet<String>) -> Vec<Listener> {
        let apps = names.iter().filter_map(|name| self.apps.get(name));
        let used: BTreeSet<_> = apps.flat_map(App::addresses).collect();
        let all = self.listeners.iter();
        all.filter(|listener| used.contains(&listener.address))
            .cloned()
            .collect()
    }

    /// Whether an app has the same listeners in both plans, with the same settings.
    pub fn same_listeners(&self, other: &Self, name: &str) -> bool {
        let of = |plan: &Self| plan.listeners_of(&BTreeSet::from([name.to_owned()]));
        of(self) == of(other)
    }

    /// Whether the configuration has an app of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.runs(name) || self.stopped.contains(name)
    }

    /// Whether it has an app of this name that is not stopped.
    pub fn runs(&self, name: &str) -> bool {
        self.apps.contains_key(name) || self.scheduled.contains_key(name)
    }

    fn drop_unused_listeners(&mut self) {
        let used: BTreeSet<_> = self
            .apps
            .values()
            .flat_map(App::addresses)
            .chain(self.metrics.iter().flat_map(|metrics| &metrics.listeners))
            .cloned()
            .collect();
        self.listeners
            .retain(|listener| used.contains(&listener.address));
    }
}

impl App {
    /// The addresses of its listeners.
    fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.sockets.iter().map(|(_, address)| address)
    }

    /// Whether workers of `newer` would be started, and run, as those of this one.
    pub fn is_as(&self, newer: &Self) -> bool {
        let same = Self {
            enabled: self.enabled,
            on_change: self.on_change,
            // Workers take new ones in while they run.
            certificates: self.certificates.clone(),
            acme: self.acme.clone(),
            ..newer.clone()
        };
        *self == same
    }
}

impl Draft<'_> {
    /// What is behind the program and the working directory. An interpreter's first argument is mostly the program proper.
    pub(super) fn files_behind(&self, launch: &Launch) -> Vec<FileState> {
        let script = launch.args.get(1).map(|word| launch.chdir.join(word));
        let script = script.filter(|path| self.host.is_file(path));
        let paths: [Option<&Path>; 3] = [
            Some(&launch.chdir),
            Some(&launch.program),
            script.as_deref(),
        ];
        let paths = paths.into_iter().flatten();
        paths
            .filter_map(|path| self.host.file_state(path))
            .collect()
    }
}
