//! Which part each app of a new configuration takes in its release.

use std::collections::{BTreeSet, VecDeque};

use super::Master;
use super::world::World;
use crate::plan;
use crate::release::{self, Fact, Name, Part, Parts};
use crate::supervisor::Replace;

/// How an app stands while the configuration is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It does not run yet.
    New,
    /// It serves, or is paused.
    Well,
    /// It fails, or has no worker that is ready.
    Failing,
}

/// An app that is not required holds up no other one, unless it could be broken by the release, or a command names it and is to
/// tell whether it has started, or it is new and others end that had perhaps what it needs: they start again if it fails.
fn part(app: &plan::App, standing: Standing, is_named: bool, others_end: bool) -> Part {
    let succeeds =
        others_end && standing == Standing::New && app.policy.replace == Replace::StopFirst;
    if !app.required && !is_named && !succeeds && standing != Standing::Well {
        return Part::Install;
    }
    let after: BTreeSet<Name> = app.after.iter().map(|name| name.as_str().into()).collect();
    Part::Prove { after }
}

/// Lets tasks hold up nothing if all apps that wait for them do not, either.
fn background_tasks(parts: &mut Parts, plan: &plan::Plan, named: &BTreeSet<String>) {
    let tasks: BTreeSet<_> = plan.apps.keys().filter(|name| plan.is_task(name)).collect();
    let in_background = |parts: &Parts, task: &str| {
        let mut waiting = plan.apps.iter().filter(|(_, app)| app.after.contains(task));
        let is_installed = |name: &str| parts.get(name) == Some(&Part::Install);
        let mut scheduled = plan.scheduled.values();
        // The schedule is followed when the release is done, and no run begins before its task.
        if scheduled.any(|scheduled| scheduled.app.after.contains(task)) {
            return false;
        }
        waiting.clone().next().is_some() && waiting.all(|(name, _)| is_installed(name))
    };
    // A task may wait for another one, of which it then decides.
    for _ in 0..tasks.len() {
        for task in tasks.iter().filter(|task| !named.contains(**task)) {
            let name: Name = task.as_str().into();
            if matches!(parts.get(&name), Some(Part::Prove { .. })) && in_background(parts, task) {
                parts.insert(name, Part::Install);
            }
        }
    }
}

impl<W: World> Master<W> {
    /// The parts of the apps of the prepared configuration.
    fn parts(&self) -> Parts {
        let Some(candidate) = self.preparation.candidate() else {
            return Parts::new();
        };
        let named = self.choices.scope().names();
        let ending = match self.release.current() {
            Some(_) => self.ending(&candidate.plan),
            None => BTreeSet::new(),
        };
        let part = |(name, app): (&String, _)| {
            let kept = candidate.kept.contains(name);
            let is_named = named.contains(name);
            let name: Name = name.as_str().into();
            let part = match kept {
                true => Part::Keep,
                false => part(app, self.standing(&name), is_named, !ending.is_empty()),
            };
            (name, part)
        };
        let mut parts: Parts = candidate.plan.apps.iter().map(part).collect();
        background_tasks(&mut parts, &candidate.plan, &named);
        // At the first start nothing has to end first.
        if self.release.current().is_some() {
            let last = candidate.plan.stopped_first();
            release::propose_last(&mut parts, &last);
            release::displace_before(&mut parts, &last, &ending);
        }
        parts
    }

    /// What the release is to do with the apps of the prepared configuration. One that must prove itself and is known to fail refuses it,
    /// before anything has ended for it: it may serve since the preparation began, or others end for it. Nothing yet if commands `before` of
    /// such apps are to run first. Those of the others hold up nothing.
    pub(super) fn prepared(&mut self) -> Option<Fact> {
        let parts = self.parts();
        let plan = self.preparation.candidate();
        let plan = plan.map(|candidate| &candidate.plan);
        let mut proven = parts.iter();
        let why = proven.find_map(|(name, part)| match part {
            Part::Prove { .. } => plan?.cannot_start(name),
            _ => None,
        });
        if let Some(why) = why.map(str::to_owned) {
            return Some(Fact::NotPrepared(why));
        }
        let proven = parts.iter();
        let proven = proven.filter(|(_, part)| matches!(part, Part::Prove { .. }));
        let owed = proven.filter(|(name, _)| self.preparation.owes_command(name));
        let owed: VecDeque<_> = owed.map(|(name, _)| name.clone()).collect();
        if owed.is_empty() {
            return Some(Fact::Prepared(parts));
        }
        let (turn, jobs) = (&mut self.turn, &mut self.jobs);
        self.preparation.run_commands(turn, jobs, owed);
        self.workers.changed = true;
        None
    }

    /// The names of the apps that serve well.
    pub(super) fn serving_well(&self) -> BTreeSet<String> {
        let names = self.workers.apps.keys();
        let well = names.filter(|name| self.standing(name) == Standing::Well);
        well.map(|name| name.to_string()).collect()
    }

    fn standing(&self, name: &Name) -> Standing {
        let app = self.workers.apps.get(name).filter(|app| !app.removed);
        match app.map(|app| &app.supervisor) {
            None => Standing::New,
            Some(app) if app.is_well() || app.is_paused() => Standing::Well,
            Some(_) => Standing::Failing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_required_and_does_not_serve_is_not_proven() {
        let mut app = plan::App::example(1);
        app.after = ["db".to_owned()].into();
        let proven = Part::Prove {
            after: ["db".into()].into(),
        };
        for standing in [Standing::New, Standing::Well, Standing::Failing] {
            assert_eq!(part(&app, standing, false, false), proven);
        }
        app.required = false;
        for (standing, expected) in [
            (Standing::New, &Part::Install),
            (Standing::Well, &proven),
            (Standing::Failing, &Part::Install),
        ] {
            assert_eq!(&part(&app, standing, false, false), expected);
            assert_eq!(&part(&app, standing, false, true), expected);
            let named = part(&app, standing, true, false);
            assert_eq!(named, proven, "a command names it");
        }
        app.policy.replace = Replace::StopFirst;
        for (standing, others_end, expected) in [
            (Standing::New, false, &Part::Install),
            (Standing::New, true, &proven),
            (Standing::Failing, true, &Part::Install),
        ] {
            assert_eq!(&part(&app, standing, false, others_end), expected);
        }
    }
}
