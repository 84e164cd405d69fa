//! Apps with `schedule`.

use super::*;

fn scheduled(rest: &str) -> Scheduled {
    let mut plan = plan(&format!("[app.c]\ncommand = ['celery', 'beat']\n{rest}"));
    assert_eq!(plan.apps, BTreeMap::new());
    plan.scheduled.remove("c").expect("it has a schedule")
}

#[test]
fn a_string_is_a_schedule_in_the_time_of_the_machine() {
    let c =
        scheduled("schedule = ' */5 * * * * '\nuser = 'www'\nenv = { A = 'b' }\nstdout = 'x.log'");
    assert_eq!(
        (c.cron.as_str(), &c.zone, c.timeout),
        ("*/5 * * * *", &Zone::Utc, None)
    );
    assert_eq!(c.app.launch.args, ["celery", "beat"]);
    assert_eq!(c.app.launch.env["A"], "b");
    assert_eq!(c.app.launch.user.as_ref().map(|user| user.uid), Some(33));
}

#[test]
fn a_table_has_a_time_zone_and_a_limit() {
    let c = scheduled(
        "workers = 1\nschedule = { cron = '@daily', timezone = 'Europe/Berlin', timeout = '1h' }",
    );
    assert!(matches!(c.zone, Zone::Rule(_)));
    assert_eq!(c.timeout, Some(Duration::from_secs(3600)));
    let table =
        scheduled("[app.c.schedule]\ncron = '@daily'\ntimezone = 'Europe/Berlin'\ntimeout = '1h'");
    assert_eq!(table, c);
}

#[test]
fn its_log_files_are_opened_like_those_of_other_apps() {
    let plan = plan(
        "[app.c]\ncommand = 'celery'\nschedule = '@daily'\nstdout = 'c.log'\n[app.d]\ncommand = 'celery'\nstdout = 'd.log'",
    );
    let names: Vec<_> = plan.all_apps().map(|(name, _)| name).collect();
    assert_eq!(names, ["d", "c"]);
    assert_eq!(plan.log_files().len(), 2);
}

#[test]
fn what_is_for_workers_is_refused_where_it_stands() {
    for (key, column, part) in [
        ("workers = 2", 11, "one run at a time (remove it)"),
        (
            "listen = 'unix:x'",
            10,
            "a run accepts no connections (remove it)",
        ),
        ("backlog = 5", 11, "a run accepts no connections"),
        (
            "timeout = '5s'",
            11,
            "write schedule = { cron = \"…\", timeout = \"…\" }",
        ),
        ("max_age = '5s'", 11, "write schedule = {"),
        ("ready = 'exec'", 9, "need not become ready"),
        ("start_timeout = '5s'", 17, "need not become ready"),
        ("watchdog = '5s'", 12, "need not become ready"),
        ("reload = { soak = '5s' }", 10, "a run is none"),
        (
            "give_up = { crashes = 1, within = '1s' }",
            11,
            "a run is none",
        ),
    ] {
        let text = format!("[app.c]\ncommand = 'celery'\nschedule = '@daily'\n{key}");
        let refused = plan_as((0, 0), &text).expect_err(key);
        let name = key.split(' ').next().expect("a key");
        let start = format!("app.toml:4:{column}: `{name}` has no meaning with `schedule`: ");
        assert!(refused.starts_with(&start), "{refused}");
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn a_wrong_schedule_is_refused_where_it_stands() {
    for (schedule, start) in [
        (
            "'* * * *'",
            "app.toml:3:12: schedule: \"* * * *\" has 4 fields",
        ),
        (
            "'0 0 30 2 *'",
            "app.toml:3:12: schedule: \"0 0 30 2 *\" never comes",
        ),
        ("5", "app.toml:3:12: schedule: "),
        (
            "{ timezone = 'Europe/Berlin' }",
            "app.toml:3:12: schedule: ",
        ),
        ("{ cron = '61 * * * *' }", "app.toml:3:21: "),
        (
            "{ cron = '@daily', timezone = 'Mars' }",
            "app.toml:3:42: schedule.timezone: there is no time zone \"Mars\"",
        ),
        ("{ cron = '@daily', timeout = '5' }", "app.toml:3:41: "),
    ] {
        let text = format!("[app.c]\ncommand = 'celery'\nschedule = {schedule}");
        let refused = plan_as((0, 0), &text).expect_err(schedule);
        assert!(refused.starts_with(start), "{refused}");
    }
    let refused = plan_as((0, 0), "[app.c]\nwsgi = 'a:b'\nschedule = '@daily'").expect_err("wsgi");
    let expected = "app.toml:3:12: `schedule` is for apps with `command`";
    assert!(refused.starts_with(expected), "{refused}");
    let text = "[app.c]\ncommand = ['celery', '{port}']\nschedule = '@daily'";
    let refused = plan_as((0, 0), text).expect_err("no port");
    assert!(refused.contains("{port} or {address}"), "{refused}");
}

#[test]
fn one_that_is_not_required_may_lack_something() {
    let lacking = "env_file = 'nowhere.env'\nschedule = '@daily'";
    let app = scheduled(&format!("required = false\n{lacking}")).app;
    let unfit = app.unfit.expect("it lacks a file");
    assert!(
        unfit.contains("env_file: cannot read /srv/nowhere.env"),
        "{unfit}"
    );
    let error = plan_as((0, 0), &format!("[app.c]\ncommand = 'celery'\n{lacking}"));
    error.expect_err("it is required");
}
