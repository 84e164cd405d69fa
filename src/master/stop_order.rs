//! The order in which apps are told to end: an app waits until all apps that come after it have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::Plan;
use crate::release::Name;

/// The apps that come directly before each app (`after`).
type Before<'a> = BTreeMap<&'a str, &'a BTreeSet<String>>;

/// The apps that wait for their turn while the master stops.
#[derive(Default)]
pub(super) struct StopOrder {
    /// All apps that come after each of them, also indirectly.
    waiting: BTreeMap<Name, BTreeSet<Name>>,
}

impl StopOrder {
    /// The order of a stop: these apps wait for those that come after them.
    pub(super) fn new(before: &Before, apps: BTreeSet<Name>) -> Self {
        let mut behind: BTreeMap<&str, BTreeSet<Name>> = BTreeMap::new();
        for &app in before.keys() {
            for first in all_before(before, app) {
                behind.entry(first).or_default().insert(app.into());
            }
        }
        let waiting = apps.into_iter().filter_map(|name| {
            let behind = behind.get(&*name)?.clone();
            Some((name, behind))
        });
        Self {
            waiting: waiting.collect(),
        }
    }

    /// Whether an app waits for its turn.
    pub(super) fn is_waiting(&self, app: &str) -> bool {
        self.waiting.contains_key(app)
    }

    /// The apps that wait, each with those that come after it.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&Name, &BTreeSet<Name>)> {
        self.waiting.iter()
    }

    /// Takes the apps whose turn has come.
    pub(super) fn take_due(&mut self, has_ended: impl Fn(&Name) -> bool) -> Vec<Name> {
        let due = self.waiting.iter();
        let due = due.filter(|(_, behind)| behind.iter().all(&has_ended));
        let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        self.waiting.retain(|name, _| !due.contains(name));
        due
    }

    /// No app waits any more: all are told at once.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// The direct predecessors of the apps of a plan.
pub(super) fn before(plan: &Plan) -> Before<'_> {
    let apps = plan.apps.iter();
    apps.map(|(name, app)| (name.as_str(), &app.after))
        .collect()
}

/// All apps that come before an app. A plan has no cycles.
fn all_before<'a>(before: &Before<'a>, app: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![app];
    while let Some(app) = open.pop() {
        for first in before.get(app).into_iter().flat_map(|first| first.iter()) {
            if found.insert(first.as_str()) {
                open.push(first);
            }
        }
    }
    found
}

/// The time that a stop in this order may take: the longest chain of apps, each of which may take this time.
pub(super) fn longest(before: &Before, time: impl Fn(&str) -> Duration) -> Option<Duration> {
    let mut known = BTreeMap::new();
    let chains = before
        .keys()
        .map(|app| chain(before, app, &time, &mut known));
    chains.max()
}

/// The longest chain that begins with the end of this app.
fn chain<'a>(
    before: &Before<'a>,
    app: &'a str,
    time: &impl Fn(&str) -> Duration,
    known: &mut BTreeMap<&'a str, Duration>,
) -> Duration {
    if let Some(&chain) = known.get(app) {
        return chain;
    }
    let Some(first) = before.get(app) else {
        return Duration::ZERO;
    };
    let rest = first.iter().map(|app| chain(before, app, time, known));
    let rest = rest.max().unwrap_or_default();
    let whole = rest.saturating_add(time(app));
    known.insert(app, whole);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    type Edges = BTreeMap<&'static str, BTreeSet<String>>;

    fn edges(edges: &[(&'static str, &[&str])]) -> Edges {
        let edges = edges.iter();
        edges
            .map(|(app, first)| (*app, first.iter().map(|app| (*app).to_owned()).collect()))
            .collect()
    }

    fn before(edges: &Edges) -> Before<'_> {
        edges.iter().map(|(app, first)| (*app, first)).collect()
    }

    fn names(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|name| Name::from(*name)).collect()
    }

    #[test]
    fn an_app_is_told_when_all_that_come_after_it_have_ended() {
        let edges = edges(&[
            ("db", &[]),
            ("cache", &[]),
            ("web", &["db", "cache"]),
            ("mail", &["web"]),
            ("cron", &[]),
        ]);
        let apps = names(&["db", "cache", "web", "mail", "cron"]);
        let mut order = StopOrder::new(&before(&edges), apps);
        assert!(!order.is_waiting("mail") && !order.is_waiting("cron"));
        let mut ended = names(&[]);
        let mut told = Vec::new();
        for ends in ["cron", "mail", "web", "db"] {
            ended.insert(ends.into());
            told.push(order.take_due(|app| ended.contains(app)));
        }
        let expected: [&[Name]; 4] = [&[], &["web".into()], &["cache".into(), "db".into()], &[]];
        assert_eq!(told, expected);
        assert_eq!(order.waiting().count(), 0);
    }

    #[test]
    fn an_app_without_workers_between_two_others_does_not_hide_their_order() {
        let edges = edges(&[("db", &[]), ("web", &["db"]), ("mail", &["web"])]);
        let mut order = StopOrder::new(&before(&edges), names(&["db", "mail"]));
        assert_eq!(order.take_due(|app| &**app == "web"), []);
        assert_eq!(order.take_due(|_| true), ["db".into()]);
    }

    #[test]
    fn an_urgent_stop_knows_no_order() {
        let edges = edges(&[("db", &[]), ("web", &["db"])]);
        let mut order = StopOrder::new(&before(&edges), names(&["db", "web"]));
        assert!(order.is_waiting("db"));
        order.clear();
        assert!(!order.is_waiting("db"));
    }

    #[test]
    fn a_stop_may_take_as_long_as_its_longest_chain() {
        let edges = edges(&[
            ("a", &[]),
            ("b", &["a"]),
            ("c", &["a", "b"]),
            ("alone", &[]),
            ("d", &["unknown"]),
        ]);
        let time = |app: &str| Duration::from_secs(if app == "alone" { 25 } else { 10 });
        let longest = |edges| longest(&before(edges), time);
        assert_eq!(longest(&edges), Some(Duration::from_secs(30)));
        assert_eq!(longest(&Edges::new()), None);
    }
}
