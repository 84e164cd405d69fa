//! What a release is made of: the plan of the candidate, and which of its apps continue as they run.

use std::collections::BTreeSet;

use super::choices::{Choices, Scope};
use crate::config::Address;
use crate::plan::{App, FRONT, Listener, Plan};

/// A plan that is to take over.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) plan: Plan,
    /// The apps that continue as they run.
    pub(super) kept: BTreeSet<String>,
    /// The apps that serve well, and must not be replaced by what cannot be started, and those that a command names.
    pub(super) must_start: BTreeSet<String>,
    /// The listeners to look at: those that are not open are opened, and those that have lost their path bound anew.
    pub(super) listeners: Vec<Listener>,
}

impl Proposal {
    /// The configuration that was found while nothing runs yet.
    pub(super) fn first(found: Plan, choices: &Choices) -> Self {
        Self::of_all(picked(found, choices, choices.scope()))
    }

    /// A plan of which every app is started anew.
    pub(super) fn of_all(plan: Plan) -> Self {
        Self {
            listeners: plan.listeners.clone(),
            kept: BTreeSet::new(),
            must_start: BTreeSet::new(),
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

    /// Why an app that must start cannot.
    pub(super) fn unfit(&self) -> Option<&str> {
        let mut serving = self.replaced();
        serving.find_map(|name| self.plan.cannot_start(name))
    }

    /// Why an app that must start would wait for a listener, of those that are missing.
    pub(super) fn waits<'a>(&self, missing: &'a [(Address, String)]) -> Option<&'a str> {
        let serves = |address| {
            let app = self.plan.app_at(address);
            app.is_some_and(|app| self.replaced().any(|name| name == app))
        };
        let lost = missing.iter().find(|(address, _)| serves(address));
        lost.map(|(_, why)| why.as_str())
    }

    fn replaced(&self) -> impl Iterator<Item = &String> {
        self.must_start.difference(&self.kept)
    }

    /// The running plan without some of its apps.
    pub(super) fn without(current: &Plan, stops: impl Fn(&str) -> bool) -> Self {
        let plan = current.clone().only(|name, _| !stops(name));
        Self {
            kept: plan.apps.keys().cloned().collect(),
            must_start: BTreeSet::new(),
            listeners: Vec::new(),
            plan,
        }
    }

    /// The configuration that was found, as far as the release is about it, and the running plan for all else. `may_stay` tells whether
    /// an app that has not changed runs as it should.
    ///
    /// # Errors
    /// Two apps would have the same listener, or the task of an app that takes part is stopped.
    pub(super) fn new(
        found: Plan,
        current: &Plan,
        choices: &Choices,
        may_stay: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        Self::about(found, current, choices, choices.scope(), may_stay)
    }

    /// What a release of this scope makes of the configuration that was found.
    ///
    /// # Errors
    /// As those of [`Proposal::new`].
    pub(super) fn about(
        found: Plan,
        current: &Plan,
        choices: &Choices,
        scope: &Scope,
        may_stay: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        let tasks_of = found.clone();
        let found = picked(found, choices, scope);
        let made = match scope {
            scope if scope.is_whole() => Self::whole(found, current, scope, may_stay),
            scope => Self::in_part(&found, current, scope)?,
        };
        let takes_part = |name: &str| made.plan.runs(name) && !made.kept.contains(name);
        let runs = |name: &str, _: &App| match tasks_of.is_task(name) {
            true => made.plan.runs(name),
            false => takes_part(name),
        };
        if takes_part(FRONT)
            && let Some(why) = tasks_of.not_asked()
        {
            return Err(why);
        }
        match tasks_of.task_not_run(runs) {
            Some((task, app)) => Err(task_stopped_text(task, app)),
            None => Ok(made),
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
        let takes_part = found.all_apps().filter(|(name, _)| !kept.contains(*name));
        let takes_part = takes_part.map(|(name, _)| name.to_owned()).collect();
        let tasks = found.tasks_before(&takes_part);
        kept.retain(|name| !tasks.contains(name));
        // A task that has run before runs again with the apps that wait for it.
        let idle = current.apps.keys().filter(|name| found.is_task(name));
        let idle = idle.filter(|name| {
            !tasks.contains(*name) && !named.contains(*name) && found.same_listeners(current, name)
        });
        kept.extend(idle.cloned());
        for (name, app) in found
            .apps
            .iter_mut()
            .filter(|(name, _)| kept.contains(*name))
        {
            // Its workers take new certificates in while they run.
            let (certificates, acme) = (app.certificates.take(), app.acme.take());
            app.clone_from(&current.apps[name]);
            (app.certificates, app.acme) = (certificates, acme);
        }
        Self {
            listeners: found.listeners.clone(),
            kept,
            must_start: BTreeSet::new(),
            plan: found,
        }
    }

    fn in_part(found: &Plan, current: &Plan, scope: &Scope) -> Result<Self, String> {
        let mut names = scope.names();
        names.extend(found.tasks_before(&names));
        let plan = current.clone().with_apps_of(found, &names);
        let plan = plan.map_err(|(address, name)| match name.is_empty() {
            true => format!("/metrics is answered at {address} (reload without naming apps)"),
            false => format!(
                "{address} is a listener of {name}, which keeps running as it is (reload {name} too)"
            ),
        })?;
        let of_others = |name: &&String| !names.contains(*name);
        Ok(Self {
            kept: plan.apps.keys().filter(of_others).cloned().collect(),
            must_start: BTreeSet::new(),
            listeners: plan.listeners_of(&names),
            plan: Plan {
                // A folder that is there now may be the one that the named apps are from, and is missed when it disappears.
                no_folders: found.no_folders.clone(),
                ..plan
            },
        })
    }
}

/// Why an app cannot start whose task is stopped.
pub(super) fn task_stopped_text(task: &str, app: &str) -> String {
    format!("{task}, which runs before {app}, is stopped (start it with `preforkd start {task}`)")
}

/// The configuration that was found with the apps that run.
fn picked(found: Plan, choices: &Choices, scope: &Scope) -> Plan {
    let named = scope.names();
    found.only_started(
        |name, app| choices.runs(name, app),
        |name| named.contains(name),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::master::choices::Request;
    use crate::master::preview;
    use crate::master::world::ClientId;
    use crate::plan::DjangoFiles;
    use crate::supervisor::Readiness;

    /// Apps with a listener each; `web` waits for the task `migrate`.
    fn plan(workers: u32) -> Plan {
        let app = |name: &str| {
            let mut app = App::example(workers);
            let address = Address::Unix(format!("/{name}").into());
            app.sockets = vec![(name.to_owned(), address)];
            (name.to_owned(), app)
        };
        let mut apps: BTreeMap<_, _> = ["api", "migrate", "web"].map(app).into();
        let task = apps.get_mut("migrate").expect("it is there");
        task.policy.readiness = Readiness::Finished;
        let web = apps.get_mut("web").expect("it is there");
        web.after = ["migrate".to_owned()].into();
        let addresses = apps.values().flat_map(|app| &app.sockets);
        let listeners = addresses.map(|(_, address)| Listener::example(address.clone()));
        Plan {
            control_mode: 0o600,
            control_group: None,
            pid_file: None,
            control: None,
            usual_control: Vec::new(),
            metrics: None,
            lame_duck: None,
            listeners: listeners.collect(),
            apps,
            stopped: BTreeSet::new(),
            idle: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            no_folders: Vec::new(),
        }
    }

    fn request(names: &[&str], starts: bool) -> Request {
        Request {
            client: ClientId::example(1),
            names: names.iter().map(|name| (*name).into()).collect(),
            starts,
        }
    }

    /// The choices at a release about these requests, and about all apps.
    fn choices(running: &Plan, requests: &[Request], all: bool) -> Choices {
        let mut choices = Choices::default();
        for request in requests {
            choices.request(request.clone());
        }
        if all {
            choices.request_all(None);
        }
        assert_eq!(choices.begin(running), None, "it reads the configuration");
        choices
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn on_change(mut plan: Plan) -> Plan {
        plan.apps.values_mut().for_each(|app| app.on_change = true);
        plan
    }

    #[test]
    fn requests_together_are_about_all_apps_that_they_name() {
        let (old, new) = (plan(1), plan(2));
        let requests = [request(&["api"], false), request(&["migrate"], false)];
        let choices = choices(&old, &requests, false);
        let made = Proposal::new(new, &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, names(&["web"]));
        let workers = |name: &str| made.plan.apps[name].policy.workers;
        assert_eq!((workers("api"), workers("web")), (2, 1));
        assert_eq!(made.listeners.len(), 2);
    }

    #[test]
    fn the_tasks_before_a_named_app_run_again() {
        let old = plan(1);
        let choices = choices(&old, &[request(&["web"], false)], false);
        let made = Proposal::new(plan(1), &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, names(&["api"]));
    }

    #[test]
    fn a_release_of_an_app_whose_task_was_stopped_is_refused() {
        let old = Proposal::without(&plan(1), |name| name == "migrate").plan;
        let refusal = |requests: &[Request], all| {
            let mut choices = Choices::default();
            choices.stopped_for_test("migrate");
            for request in requests {
                choices.request(request.clone());
            }
            if all {
                choices.request_all(None);
            }
            assert_eq!(choices.begin(&old), None);
            Proposal::new(plan(1), &old, &choices, |_| true).err()
        };
        let why =
            "migrate, which runs before web, is stopped (start it with `preforkd start migrate`)";
        assert_eq!(refusal(&[], true).as_deref(), Some(why));
        assert_eq!(
            refusal(&[request(&["web"], false)], false).as_deref(),
            Some(why)
        );
        assert_eq!(
            refusal(&[request(&["web"], true)], false).as_deref(),
            Some(why)
        );
        assert_eq!(refusal(&[request(&["api"], false)], false), None);
        assert_eq!(refusal(&[request(&["migrate"], true)], false), None);
        let both = request(&["migrate", "web"], true);
        assert_eq!(refusal(&[both], false), None);
    }

    #[test]
    fn a_task_runs_only_with_an_app_that_waits_for_it() {
        let old = Proposal::without(&plan(1), |name| name == "web").plan;
        let mut choices = Choices::default();
        choices.stopped_for_test("web");
        choices.request_all(None);
        assert_eq!(choices.begin(&old), None);
        let made = Proposal::new(plan(1), &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.plan.stopped, names(&["migrate", "web"]));
        assert_eq!(made.plan.idle, names(&["migrate"]));
        choices.request(request(&["web"], true));
        assert_eq!(choices.begin(&made.plan), None);
        let made = Proposal::new(plan(1), &made.plan, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, names(&["api"]));
        assert!(made.plan.runs("migrate") && made.plan.runs("web"));
        assert_eq!(made.plan.idle, names(&[]));
    }

    #[test]
    fn a_task_whose_apps_stay_does_not_run_again() {
        let old = on_change(plan(1));
        let mut new = old.clone();
        new.apps.get_mut("migrate").expect("it is there").on_change = false;
        let choices = choices(&old, &[], true);
        let made = Proposal::new(new, &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, names(&["api", "migrate", "web"]));
    }

    /// A plan with a front, whose site `shop` has the static files of `web` in this folder.
    fn with_front(folder: Option<&str>) -> Plan {
        let mut plan = plan(1);
        let mut front = App::example(1);
        let files = DjangoFiles::example("web", folder);
        front.django = [("shop".to_owned(), files)].into();
        front.on_change = true;
        plan.apps.insert(FRONT.into(), front);
        plan
    }

    #[test]
    fn the_front_is_replaced_with_an_app_that_has_other_static_files() {
        let (old, new) = (with_front(Some("/old")), with_front(Some("/new")));
        let why = "the static files of app web have changed, so its workers are replaced too";
        for (found, kept, told) in [
            (&new, names(&["api"]), true),
            (&old, names(&["api", FRONT]), false),
        ] {
            let mut choices = choices(&old, &[request(&["web"], false)], false);
            choices.follow_static_files(&old, found);
            let made = Proposal::new(found.clone(), &old, &choices, |_| true);
            let made = made.expect("no conflict");
            assert_eq!(made.kept, kept);
            assert_eq!(made.plan.apps[FRONT], found.apps[FRONT]);
            assert_eq!(choices.scope().includes(FRONT), told);
            assert_eq!(choices.scope().why_front(), told.then_some(why));
            // What is told before is what happens.
            let text = preview::describe(&old, &made, choices.scope());
            let line = "front: is replaced (changed: static files of app web)\n";
            assert_eq!(text.contains(line), told, "{text}");
            assert!(text.contains("web: is replaced (nothing has changed, but it is named)\n"));
            assert!(!text.contains("api: "), "{text}");
        }
        let choices = choices(&old, &[request(&[FRONT, "web"], false)], false);
        let made = Proposal::new(new, &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, names(&["api"]));
    }

    #[test]
    fn a_front_that_is_replaced_must_know_the_static_files_of_all_sites() {
        let (old, mut new) = (with_front(Some("/old")), with_front(Some("/new")));
        let unknown = DjangoFiles::example("api", None);
        let front = new.apps.get_mut(FRONT).expect("it is there");
        front.django.insert("news".into(), unknown);
        let made = |found: &Plan| {
            let mut choices = choices(&old, &[request(&["web"], false)], false);
            choices.follow_static_files(&old, found);
            Proposal::new(found.clone(), &old, &choices, |_| true)
        };
        let refused = made(&new).expect_err("the folder of news is not known");
        assert!(
            refused.starts_with("[site.news] static = \"django\" is new"),
            "{refused}"
        );
        new.apps
            .get_mut(FRONT)
            .expect("it is there")
            .django
            .remove("shop");
        let made = made(&new).expect("the front stays");
        assert!(made.kept.contains(FRONT));
    }

    #[test]
    fn a_front_that_does_not_run_is_not_started_with_an_app() {
        let old = with_front(Some("/old")).only(|name, _| name != FRONT);
        let mut choices = choices(&old, &[request(&["web"], false)], false);
        choices.follow_static_files(&old, &with_front(Some("/new")));
        assert_eq!(choices.scope().why_front(), None);
    }

    #[test]
    fn a_reload_of_all_apps_is_about_more_than_the_named_ones() {
        let old = plan(1);
        let choices = choices(&old, &[request(&["api"], false)], true);
        let made = Proposal::new(plan(2), &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, BTreeSet::new());
    }

    #[test]
    fn what_has_not_changed_stays_unless_it_is_named_or_in_trouble() {
        let old = on_change(plan(1));
        let kept = |requests: &[Request], new: Plan, trouble: &str| {
            let choices = choices(&old, requests, true);
            let made = Proposal::new(new, &old, &choices, |name| name != trouble);
            made.expect("no conflict").kept
        };
        assert_eq!(
            kept(&[], old.clone(), ""),
            names(&["api", "migrate", "web"])
        );
        let named = [request(&["api"], false)];
        assert_eq!(kept(&named, old.clone(), ""), names(&["migrate", "web"]));
        assert_eq!(kept(&[], old.clone(), "web"), names(&["api"]));
        assert_eq!(kept(&[], plan(1), ""), BTreeSet::new());
        assert_eq!(kept(&[], on_change(plan(2)), ""), BTreeSet::new());
        let mut new = old.clone();
        new.listeners[0].backlog = 20;
        assert_eq!(kept(&[], new, ""), names(&["migrate", "web"]));
    }

    #[test]
    fn a_kept_app_whose_socket_is_new_takes_part_after_all() {
        let old = on_change(plan(1));
        let choices = choices(&old, &[], true);
        let made = Proposal::new(old.clone(), &old, &choices, |_| true);
        let mut made = made.expect("no conflict");
        let taken = made.take_back(&[Address::Unix("/api".into())]);
        assert_eq!(taken, ["api"]);
        assert_eq!(made.kept, names(&["migrate", "web"]));
    }

    #[test]
    fn a_listener_of_an_app_that_stays_is_not_shared() {
        let (old, mut new) = (plan(1), plan(1));
        let sockets = new.apps["web"].sockets.clone();
        new.apps.get_mut("api").expect("it is there").sockets = sockets;
        let choices = choices(&old, &[request(&["api"], false)], false);
        let refused = Proposal::new(new, &old, &choices, |_| true);
        let reason = refused.map(|_| ()).expect_err("web has it");
        assert!(reason.contains("is a listener of web"), "{reason}");
    }

    #[test]
    fn a_folder_that_a_release_of_one_app_has_found_is_missed_later() {
        let missing = vec![("there is no folder conf.d".to_owned(), "/conf.d".into())];
        let lost = Plan {
            no_folders: missing,
            ..plan(1)
        };
        for starts in [false, true] {
            let choices = choices(&lost, &[request(&["api"], starts)], false);
            assert_eq!(lost.lost_folder(&lost), None, "it was never there");
            let made = Proposal::new(plan(1), &lost, &choices, |_| true).expect("no conflict");
            assert_eq!(
                made.plan.lost_folder(&lost),
                Some("there is no folder conf.d")
            );
        }
    }

    #[test]
    fn an_app_that_is_not_enabled_runs_when_it_is_started_and_from_then_on() {
        let mut found = plan(1);
        found.apps.get_mut("api").expect("it is there").enabled = false;
        let old = Proposal::first(found.clone(), &Choices::default()).plan;
        assert!(old.stopped.contains("api"));
        let mut choices = choices(&old, &[request(&["api"], true)], false);
        let made = Proposal::new(found.clone(), &old, &choices, |_| true).expect("no conflict");
        assert_eq!(made.kept, names(&["migrate", "web"]));
        assert!(made.plan.runs("api"));
        choices.taken_over(&made.plan);
        choices.request_all(None);
        assert_eq!(choices.begin(&made.plan), None);
        let again = Proposal::new(found, &made.plan, &choices, |_| true);
        assert!(again.expect("no conflict").plan.runs("api"));
    }

    #[test]
    fn apps_that_are_stopped_leave_the_others_as_they_are() {
        let old = plan(1);
        let made = Proposal::without(&old, |name| name == "web");
        assert_eq!(made.kept, names(&["api", "migrate"]));
        assert!(made.plan.stopped.contains("web") && made.listeners.is_empty());
        assert_eq!(made.plan.listeners.len(), 2);
    }
}
