//! The order in which apps end at a graceful stop: an app that comes after others (`after`) ends before them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::App;
use crate::release::Name;

/// The apps that were not told to end yet, each with those that end before it.
#[derive(Debug, Default)]
pub(super) struct StopOrder {
    waiting: BTreeMap<Name, BTreeSet<Name>>,
}

impl StopOrder {
    /// The order of the running apps. Others are in nobody's way, but the order of two apps may come from one between them that does not
    /// run.
    pub(super) fn new(apps: &BTreeMap<String, App>, running: &BTreeSet<Name>) -> Self {
        let mut waiting: BTreeMap<_, BTreeSet<Name>> = running
            .iter()
            .map(|name| (name.clone(), BTreeSet::new()))
            .collect();
        for name in running {
            for first in all_before(apps, name) {
                if let Some(later) = waiting.get_mut(first) {
                    later.insert(name.clone());
                }
            }
        }
        Self { waiting }
    }

    /// Whether every app was told to end.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether an app was not told to end yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.waiting.contains_key(name)
    }

    /// The apps that wait, each with those that end before it.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&Name, &BTreeSet<Name>)> {
        self.waiting.iter().filter(|(_, later)| !later.is_empty())
    }

    /// The apps that others wait for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &Name> {
        self.waiting.values().flatten()
    }

    /// The apps that wait for none any more, as these have `ended`: they are to be told to end now.
    pub(super) fn take_free(&mut self, ended: &BTreeSet<Name>) -> Vec<Name> {
        let is_free = |later: &BTreeSet<Name>| later.is_subset(ended);
        let free = self.waiting.iter().filter(|(_, later)| is_free(later));
        let free: Vec<_> = free.map(|(name, _)| name.clone()).collect();
        for name in &free {
            self.waiting.remove(name);
        }
        free
    }
}

/// The apps that come before an app, directly or not.
fn all_before<'a>(apps: &'a BTreeMap<String, App>, name: &str) -> BTreeSet<&'a str> {
    let before = |name: &str| apps.get(name).into_iter().flat_map(|app| &app.after);
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = before(name).map(String::as_str).collect();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(before(next).map(String::as_str));
        }
    }
    found
}

/// The time that a stop in this order may take: the longest chain of apps, each of which may take this time.
pub(super) fn longest(
    apps: &BTreeMap<String, App>,
    time: impl Fn(&App) -> Duration,
) -> Option<Duration> {
    let mut known = BTreeMap::new();
    let chains = apps.keys().map(|name| chain(apps, name, &time, &mut known));
    chains.max()
}

/// The longest chain that begins with the end of this app.
fn chain<'a>(
    apps: &'a BTreeMap<String, App>,
    name: &'a str,
    time: &impl Fn(&App) -> Duration,
    known: &mut BTreeMap<&'a str, Duration>,
) -> Duration {
    if let Some(&chain) = known.get(name) {
        return chain;
    }
    let Some(app) = apps.get(name) else {
        return Duration::ZERO;
    };
    let rest = app.after.iter();
    let rest = rest.map(|first| chain(apps, first, time, known)).max();
    let whole = rest.unwrap_or_default().saturating_add(time(app));
    known.insert(name, whole);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|name| Name::from(*name)).collect()
    }

    fn plans(apps: &[(&str, &[&str])]) -> BTreeMap<String, App> {
        let apps = apps.iter().map(|(name, after)| {
            let mut app = App::example(1);
            app.after = after.iter().map(|name| (*name).to_owned()).collect();
            ((*name).to_owned(), app)
        });
        apps.collect()
    }

    /// The apps that are told together, one group after the other, if those of `running` run.
    fn groups(apps: &[(&str, &[&str])], running: &[&str]) -> Vec<Vec<Name>> {
        let mut order = StopOrder::new(&plans(apps), &names(running));
        let (mut ended, mut groups) = (BTreeSet::new(), Vec::new());
        while !order.is_empty() {
            let free = order.take_free(&ended);
            assert!(!free.is_empty(), "{order:?} after {groups:?}");
            assert!(free.iter().all(|name| !order.has(name)));
            assert_eq!(order.take_free(&ended), [], "it is told once");
            ended.extend(free.iter().cloned());
            groups.push(free);
        }
        groups
    }

    #[test]
    fn an_app_ends_before_those_that_it_comes_after() {
        let apps: [(&str, &[&str]); 4] = [
            ("api", &["cache", "db"]),
            ("cache", &["db"]),
            ("db", &[]),
            ("web", &[]),
        ];
        let all = ["api", "cache", "db", "web"];
        assert_eq!(
            groups(&apps, &all),
            [
                vec!["api".into(), "web".into()],
                vec!["cache".into()],
                vec![Name::from("db")]
            ]
        );
    }

    #[test]
    fn an_app_between_two_orders_them_also_if_it_does_not_run() {
        let apps: [(&str, &[&str]); 3] = [("api", &["cache"]), ("cache", &["db"]), ("db", &[])];
        assert_eq!(
            groups(&apps, &["api", "db"]),
            [vec![Name::from("api")], vec!["db".into()]]
        );
    }

    #[test]
    fn a_stop_may_take_as_long_as_its_longest_chain() {
        let mut apps = plans(&[
            ("a", &[]),
            ("b", &["a"]),
            ("c", &["a", "b"]),
            ("alone", &[]),
            ("d", &["unknown"]),
        ]);
        let longest = |apps: &_| longest(apps, |app| app.policy.graceful_timeout);
        for app in apps.values_mut() {
            app.policy.graceful_timeout = Duration::from_secs(10);
        }
        assert_eq!(longest(&apps), Some(Duration::from_secs(30)));
        let alone = apps.get_mut("alone").expect("it is there");
        alone.policy.graceful_timeout = Duration::from_secs(45);
        assert_eq!(longest(&apps), Some(Duration::from_secs(45)));
        assert_eq!(longest(&BTreeMap::new()), None);
    }
}
