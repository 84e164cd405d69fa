//! What a release is made of: the plan of the candidate, and which of its apps continue as they run.

use std::collections::BTreeSet;

use super::choices::{Choices, Scope};
use crate::config::Address;
use crate::plan::{Listener, Plan};

/// A plan that is to take over.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) plan: Plan,
    /// The apps that continue as they run.
    pub(super) kept: BTreeSet<String>,
    /// The apps that serve well, and must not be replaced by what cannot be started.
    pub(super) serving: BTreeSet<String>,
    /// The listeners to look at: those that are not open are opened, and those that have lost their path bound anew.
    pub(super) listeners: Vec<Listener>,
}

impl Proposal {
    /// A plan of which every app is started anew.
    pub(super) fn of_all(plan: Plan) -> Self {
        Self {
            listeners: plan.listeners.clone(),
            kept: BTreeSet::new(),
            serving: BTreeSet::new(),
            plan,
        }
    }

    /// Of the apps that were to continue, those that have one of these listeners take part after all. Returns them.
    pub(super) fn take_back(&mut self, listeners: &[Address]) -> Vec<String> {
        let apps = &self.plan.apps;
        let has_one = |name: &String| {
            let sockets = apps.get(name).into_iter().flat_map(|app| &app.sockets);
            let mut addresses = sockets.map(|(_, address)| address);
            addresses.any(|address| listeners.contains(address))
        };
        let (taken, kept) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(has_one);
        self.kept = kept;
        Vec::from_iter::<BTreeSet<String>>(taken)
    }

    /// Why an app that serves well would not be started any more.
    pub(super) fn unfit(&self) -> Option<&str> {
        let mut serving = self.replaced();
        serving.find_map(|name| self.plan.apps.get(name)?.unfit.as_deref())
    }

    /// Why an app that serves well would wait for a listener, of those that are missing.
    pub(super) fn waits<'a>(&self, missing: &'a [(Address, String)]) -> Option<&'a str> {
        let serves = |address| {
            let app = self.plan.app_at(address);
            app.is_some_and(|app| self.replaced().any(|name| name == app))
        };
        let lost = missing.iter().find(|(address, _)| serves(address));
        lost.map(|(_, why)| why.as_str())
    }

    fn replaced(&self) -> impl Iterator<Item = &String> {
        self.serving.difference(&self.kept)
    }

    /// The running plan without some of its apps.
    pub(super) fn without(current: &Plan, stops: impl Fn(&str) -> bool) -> Self {
        let plan = current.clone().only(|name, _| !stops(name));
        Self {
            kept: plan.apps.keys().cloned().collect(),
            serving: BTreeSet::new(),
            listeners: Vec::new(),
            plan,
        }
    }

    /// The configuration that was found, as far as the release is about it, and the running plan for all else. `may_stay` tells whether
    /// an app that has not changed runs as it should.
    ///
    /// # Errors
    /// Two apps would have the same listener.
    pub(super) fn new(
        found: Plan,
        current: &Plan,
        choices: &Choices,
        may_stay: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        let found = found.only(|name, app| choices.runs(name, app));
        match choices.scope() {
            scope if scope.is_whole() => Ok(Self::whole(found, current, scope, may_stay)),
            scope => Self::in_part(&found, current, scope),
        }
    }

    fn whole(
        mut found: Plan,
        current: &Plan,
        scope: &Scope,
        may_stay: impl Fn(&str) -> bool,
    ) -> Self {
        let named = scope.names();
        let stays = |name: &String| {
            let (Some(new), Some(old)) = (found.apps.get(name), current.apps.get(name)) else {
                return false;
            };
            let unchanged = new.on_change
                && old.is_as(new)
                && found.same_listeners(current, name)
                && !named.contains(name);
            unchanged && may_stay(name)
        };
        let mut kept: BTreeSet<_> = current.apps.keys().filter(|n| stays(n)).cloned().collect();
        let takes_part = found.apps.keys().filter(|name| !kept.contains(*name));
        let tasks = found.tasks_before(&takes_part.cloned().collect());
        kept.retain(|name| !tasks.contains(name));
        for (name, app) in found
            .apps
            .iter_mut()
            .filter(|(name, _)| kept.contains(*name))
        {
            app.clone_from(&current.apps[name]);
        }
        Self {
            listeners: found.listeners.clone(),
            kept,
            serving: BTreeSet::new(),
            plan: found,
        }
    }

    fn in_part(found: &Plan, current: &Plan, scope: &Scope) -> Result<Self, String> {
        let mut names = scope.names();
        names.extend(found.tasks_before(&names));
        let plan = current.clone().with_apps_of(found, &names);
        let plan = plan.map_err(|(address, name)| {
            format!(
                "{address} is a listener of {name}, which keeps running as it is (reload {name} too)"
            )
        })?;
        let of_others = |name: &&String| !names.contains(*name);
        Ok(Self {
            kept: plan.apps.keys().filter(of_others).cloned().collect(),
            serving: BTreeSet::new(),
            listeners: plan.listeners_of(&names),
            plan,
        })
    }
}
