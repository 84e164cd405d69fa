//! The order of the apps: which of them come before an app.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{App, Draft, Plan};
use crate::config::Place;
use crate::supervisor::Readiness;

/// One app comes before another one, as a key of one of them says.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) first: String,
    pub(super) then: String,
    /// The key, and the app that it names, at this place.
    pub(super) key: &'static str,
    pub(super) named: String,
    pub(super) place: Range<usize>,
}

impl Draft<'_> {
    /// What the app says about its order.
    pub(super) fn edges(&self) -> impl Iterator<Item = Edge> {
        let after = self.written.after.iter();
        let after = after.map(|first| Edge {
            first: first.get_ref().clone(),
            then: self.name.to_owned(),
            key: "after",
            named: first.get_ref().clone(),
            place: first.span(),
        });
        let before = self.written.run_before.iter();
        after.chain(before.map(|then| Edge {
            first: self.name.to_owned(),
            then: then.get_ref().clone(),
            key: "run_before",
            named: then.get_ref().clone(),
            place: then.span(),
        }))
    }
}

impl Plan {
    /// The tasks (`run_before`) of which one of these apps waits for the end, directly or for a task that does. When the apps take part
    /// in a release, their tasks run again.
    pub fn tasks_before(&self, apps: &BTreeSet<String>) -> BTreeSet<String> {
        let mut tasks = BTreeSet::new();
        let mut open: Vec<&str> = apps.iter().map(String::as_str).collect();
        while let Some(app) = open.pop() {
            let before = self.app(app).map(|app| &app.after);
            for name in before.into_iter().flatten() {
                if self.is_task(name) && tasks.insert(name.clone()) {
                    open.push(name);
                }
            }
        }
        tasks
    }

    /// Whether an app is a task of the release.
    pub fn is_task(&self, name: &str) -> bool {
        let app = self.apps.get(name);
        app.is_some_and(|app| app.policy.readiness == Readiness::Finished)
    }

    /// The tasks that come before none of these apps, directly or before another task.
    pub fn idle_tasks(&self, apps: &BTreeSet<String>) -> BTreeSet<String> {
        let busy = self.tasks_before(apps);
        let tasks = self.apps.keys().filter(|name| self.is_task(name));
        tasks
            .filter(|name| !busy.contains(*name))
            .cloned()
            .collect()
    }

    /// A task that comes before an app, and does not run as this tells although the app does: both names.
    pub fn task_not_run(&self, runs: impl Fn(&str, &App) -> bool) -> Option<(&str, &str)> {
        let running = self.all_apps().filter(|(name, app)| runs(name, app));
        let mut pairs =
            running.flat_map(|(name, app)| app.after.iter().map(move |task| (task, name)));
        let stopped = pairs.find(|(task, _)| {
            self.is_task(task) && !self.apps.get(*task).is_some_and(|app| runs(task, app))
        });
        stopped.map(|(task, app)| (task.as_str(), app))
    }
}

/// The apps that come directly before each app. An app that comes before none and after none is not there.
///
/// # Errors
/// A key names an app that is not configured or its own app, or apps would wait for each other.
pub(super) fn order(
    apps: &BTreeSet<&str>,
    edges: &[Edge],
) -> Result<BTreeMap<String, BTreeSet<String>>, Place> {
    let mut before: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for edge in edges {
        let wrong = |message| {
            let key = edge.key;
            Err(Place::at(edge.place.clone(), format!("{key}: {message}")))
        };
        if !apps.contains(edge.named.as_str()) {
            let known: Vec<_> = apps.iter().copied().collect();
            return wrong(format!(
                "there is no app \"{}\" (configured: {})",
                edge.named,
                known.join(", ")
            ));
        }
        if edge.first == edge.then {
            let named = &edge.named;
            return wrong(format!("{named} cannot wait for itself (remove it)"));
        }
        if let Some(way) = way(&before, &edge.first, &edge.then) {
            let cycle: Vec<_> = std::iter::once(edge.then.as_str()).chain(way).collect();
            return wrong(format!(
                "these apps would wait for each other: {} (remove one of them)",
                cycle.join(" -> ")
            ));
        }
        let before = before.entry(edge.then.clone()).or_default();
        before.insert(edge.first.clone());
    }
    Ok(before)
}

/// The way from an app to one that comes before it, with both ends.
fn way<'a>(
    before: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a str,
    to: &str,
) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, Option<&str>> = BTreeMap::from([(from, None)]);
    let mut open = vec![from];
    while let Some(app) = open.pop() {
        if app == to {
            let mut way = vec![app];
            while let Some(Some(previous)) = way.last().and_then(|app| came_from.get(app)) {
                way.push(previous);
            }
            way.reverse();
            return Some(way);
        }
        for next in before.get(app).into_iter().flatten() {
            came_from.entry(next).or_insert_with(|| {
                open.push(next);
                Some(app)
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(edges: &[(&str, &str)]) -> Result<BTreeMap<String, BTreeSet<String>>, Place> {
        let apps = BTreeSet::from(["a", "b", "c", "d"]);
        let edges = edges.iter().enumerate().map(|(at, (then, first))| Edge {
            first: (*first).into(),
            then: (*then).into(),
            key: "after",
            named: (*first).into(),
            place: at..at,
        });
        order(&apps, &edges.collect::<Vec<_>>())
    }

    #[test]
    fn each_app_has_those_directly_before_it() {
        let found = ordered(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "b")]);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let expected = [
            ("a", set(&["b", "c"])),
            ("b", set(&["d"])),
            ("c", set(&["d"])),
        ];
        let expected = expected.map(|(name, before)| (name.to_owned(), before));
        assert_eq!(found.expect("no cycle"), expected.into());
        assert_eq!(ordered(&[]).expect("nothing"), BTreeMap::new());
    }

    #[test]
    fn a_cycle_is_named_where_it_closes() {
        for (edges, at, cycle) in [
            (&[("a", "b"), ("b", "a")][..], 1, "b -> a -> b"),
            (
                &[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")],
                3,
                "d -> b -> c -> d",
            ),
            (
                &[("d", "a"), ("a", "b"), ("a", "c"), ("c", "d")],
                3,
                "c -> d -> a -> c",
            ),
        ] {
            let error = ordered(edges).expect_err(cycle);
            assert_eq!(error.span, Some(at..at));
            let expected = format!(
                "after: these apps would wait for each other: {cycle} (remove one of them)"
            );
            assert_eq!(error.message, expected);
        }
    }

    #[test]
    fn no_app_waits_for_itself_or_for_one_that_is_not_there() {
        let error = ordered(&[("a", "b"), ("b", "b")]).expect_err("itself");
        assert_eq!(error.message, "after: b cannot wait for itself (remove it)");
        assert_eq!(error.span, Some(1..1));
        let error = ordered(&[("a", "e")]).expect_err("unknown");
        let expected = "after: there is no app \"e\" (configured: a, b, c, d)";
        assert_eq!(error.message, expected);
    }
}
