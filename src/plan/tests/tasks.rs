//! Programs that end: `restart` and `run_before`.

use super::*;
use crate::supervisor::{READY_AFTER_EXEC, Readiness, Restart};

const TASK: &str = "[app.migrate]\ncommand = ['celery']\n";
const OTHERS: &str = "\n[app.web]\ncommand = ['celery']\n[app.queue]\ncommand = ['celery']\n";

fn planned(keys: &str) -> Result<Plan, String> {
    plan_as((0, 0), &format!("{TASK}{keys}{OTHERS}"))
}

#[test]
fn a_program_that_runs_once_is_ready_when_it_runs_and_one_that_others_wait_for_when_it_has_finished()
 {
    for (keys, restart, readiness) in [
        ("", Restart::Always, Readiness::Notify),
        (
            "restart = 'never'",
            Restart::Never,
            Readiness::After(READY_AFTER_EXEC),
        ),
        (
            "restart = 'never'\nready = 'notify'",
            Restart::Never,
            Readiness::Notify,
        ),
        (
            "restart = 'on-failure'",
            Restart::OnFailure,
            Readiness::Notify,
        ),
        (
            "restart = 'on-failure'\nrun_before = ['web']",
            Restart::OnFailure,
            Readiness::Finished,
        ),
        (
            "restart = 'never'\nrun_before = 'web'",
            Restart::Never,
            Readiness::Finished,
        ),
    ] {
        let plan = planned(keys).expect(keys);
        let policy = &plan.apps["migrate"].policy;
        assert_eq!((policy.restart, policy.readiness), (restart, readiness));
    }
}

#[test]
fn the_apps_that_a_task_names_come_after_it() {
    let plan = planned("restart = 'never'\nrun_before = ['web', 'queue']").expect("it is right");
    let migrate = BTreeSet::from(["migrate".to_owned()]);
    assert_eq!(plan.apps["web"].after, migrate);
    assert_eq!(plan.apps["queue"].after, migrate);
    assert_eq!(plan.apps["migrate"].after, BTreeSet::new());
}

#[test]
fn what_does_not_go_together_is_refused_where_it_stands() {
    for (keys, place, message) in [
        ("run_before = ['web']", "3:15", "only a program that ends"),
        (
            "restart = 'never'\nrun_before = ['web']\nrequired = false",
            "5:12",
            "required = false does not go with run_before",
        ),
        (
            "restart = 'never'\nenabled = false\nrun_before = ['web']",
            "4:11",
            "enabled = false does not go with run_before",
        ),
        (
            "restart = 'never'\nrun_before = ['wed']",
            "4:15",
            "run_before: there is no app \"wed\" (configured: migrate, queue, web)",
        ),
        (
            "restart = 'never'\nrun_before = ['web', 'migrate']",
            "4:22",
            "run_before: migrate cannot wait for itself",
        ),
        (
            "restart = 'never'\nafter = ['web']\nrun_before = ['web']",
            "5:15",
            "run_before: these apps would wait for each other: ",
        ),
        (
            "restart = 'never'\nrun_before = ['web']\nready = 'exec'",
            "5:9",
            "`ready` does not go with run_before",
        ),
        (
            "restart = 'never'\nrun_before = ['web']\nworkers = 2",
            "4:15",
            "has one worker",
        ),
        (
            "restart = 'never'\nmax_age = '1h'",
            "4:11",
            "max_age does not go with restart = \"never\"",
        ),
        (
            "restart = 'never'\nmax_memory = '1GiB'",
            "4:14",
            "max_memory does not go with restart = \"never\"",
        ),
        (
            "restart = 'never'\nlisten = ['127.0.0.1:7']\nworkers = { min = 1, max = 2 }",
            "5:11",
            "a number that follows the load does not go with",
        ),
    ] {
        let error = planned(keys).expect_err(keys);
        assert!(
            error.starts_with(&format!("app.toml:{place}: ")) && error.contains(message),
            "{keys}: {error}"
        );
    }
}

#[test]
fn the_tasks_of_an_app_are_those_it_waits_for_and_theirs() {
    let task = |name: &str, before: &str| {
        format!("[app.{name}]\ncommand = ['celery']\nrestart = 'never'\nrun_before = '{before}'\n")
    };
    let text = [
        task("fetch", "migrate"),
        task("migrate", "web"),
        task("other", "queue"),
        "[app.db]\ncommand = ['celery']\n".into(),
        "[app.web]\ncommand = ['celery']\nafter = 'db'\n[app.queue]\ncommand = ['celery']".into(),
    ];
    let plan = plan(&text.concat());
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (app, tasks) in [
        ("web", &["fetch", "migrate"][..]),
        ("migrate", &["fetch"]),
        ("queue", &["other"]),
        ("db", &[]),
    ] {
        assert_eq!(plan.tasks_before(&names(&[app])), names(tasks), "{app}");
    }
}
