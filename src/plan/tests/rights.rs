//! The rights of workers, and what a master cannot give.

use super::*;

fn of_app(ids: (u32, u32), keys: &str) -> Result<App, String> {
    let text = format!("[app.w]\ncommand = 'celery'\n{keys}");
    let mut plan = plan_as(ids, &text)?;
    Ok(plan.apps.remove("w").expect("the app"))
}

fn refusal(ids: (u32, u32), keys: &str) -> String {
    of_app(ids, keys).expect_err(keys)
}

#[test]
fn workers_get_no_new_rights_and_else_what_the_master_has() {
    let launch = of_app((0, 0), "").expect("good").launch;
    let rights = Rights {
        no_new_privs: true,
        ..Rights::default()
    };
    assert_eq!(launch.rights, rights);
    assert!(!launch.env_clear);
    let launch = of_app((0, 0), "no_new_privs = false").expect("good").launch;
    assert_eq!(launch.rights, Rights::default());
}

#[test]
fn what_runs_beside_the_workers_has_their_rights() {
    let text = "nice = 5\nenv_clear = true\n[app.w.reload]\nbefore = 'celery'\ncheck = { command = 'celery' }";
    let app = of_app((0, 0), text).expect("good");
    let before = app.before.expect("a command");
    let Some(Ask::Command(check)) = app.check.map(|check| check.ask) else {
        panic!("no program checks")
    };
    for step in [before, check] {
        assert_eq!(step.rights, app.launch.rights);
        assert!(step.env_clear);
    }
    assert_eq!(app.launch.rights.nice, Some(5));
}

#[test]
fn the_keys_become_rights() {
    let keys = "capabilities = ['CAP_NET_BIND_SERVICE', 'kill']\noom_score_adj = 500\nnice = -5\ncpu_affinity = [1, '4-6', 5]\nworkers = 'auto'
        limits = { nofile = '1024:65536', as = '2GiB', core = 0, nproc = 'unlimited' }";
    let app = of_app((0, 0), keys).expect("good");
    let all = [
        (Resource::As, (Some(2 << 30), Some(2 << 30))),
        (Resource::Core, (Some(0), Some(0))),
        (Resource::Nofile, (Some(1024), Some(65536))),
        (Resource::Nproc, (None, None)),
    ];
    let rights = Rights {
        no_new_privs: true,
        capabilities: Some(1 << 10 | 1 << 5),
        limits: all.into(),
        oom_score_adj: Some(500),
        nice: Some(-5),
        cpus: [1, 4, 5, 6].into(),
        landlock: None,
    };
    assert_eq!(app.launch.rights, rights);
    assert_eq!(app.policy.workers, 4);
    assert_eq!(
        app.warnings,
        ["limits.nproc: the kernel limits no processes of root (set `user`, or remove it)"]
    );
    let none = of_app((0, 0), "capabilities = []").expect("good");
    assert_eq!(none.launch.rights.capabilities, Some(0));
}

#[test]
fn groups_are_added_to_those_of_the_user() {
    for (keys, user) in [
        ("user = 'www'\ngroups = ['media']", (33, 34, vec![34, 40])),
        ("groups = 'media'", (0, 0, vec![0, 40])),
        ("group = 'media'\ngroups = 'media'", (0, 40, vec![40])),
    ] {
        let found = of_app((0, 0), keys).expect(keys).launch.user.expect(keys);
        assert_eq!((found.uid, found.gid, found.groups), user, "{keys}");
    }
    let missing = refusal((0, 0), "groups = 'none'");
    assert!(
        missing.contains("groups: there is no group \"none\""),
        "{missing}"
    );
}

#[test]
fn what_the_master_cannot_give_is_refused_with_what_to_do() {
    let user = (1000, 1000);
    for (keys, why) in [
        (
            "groups = 'media'",
            "groups: only a master that runs as root",
        ),
        (
            "capabilities = ['kill']",
            "capabilities: the master does not have CAP_KILL",
        ),
        (
            "limits = { nofile = 4097 }",
            "limits.nofile: the hard limit of the master is 4096",
        ),
        (
            "limits = { nofile = '1:unlimited' }",
            "limits.nofile: the hard limit of the master is 4096",
        ),
        (
            "nice = -1",
            "nice: only a master that runs as root can set it below 0",
        ),
        (
            "oom_score_adj = -1",
            "oom_score_adj: only a master that runs as root can set it below its own, which is 100",
        ),
    ] {
        let message = refusal(user, keys);
        assert!(message.contains(why), "{keys}: {message}");
        assert!(message.ends_with(')'), "{message}");
    }
    let fits = "capabilities = ['net_bind_service']\nlimits = { nofile = 4096, nproc = 'unlimited' }\nnice = 0\noom_score_adj = 0";
    of_app(user, fits).expect("it may give these");
}

#[test]
fn values_that_mean_nothing_are_refused() {
    for (keys, why) in [
        (
            "capabilities = ['CAP_NET_BIND_SERVICES']",
            "such as \"CAP_NET_BIND_SERVICE\"",
        ),
        ("limits = { nofile = -1 }", "must be at least 0"),
        (
            "limits = { nofile = '2:1' }",
            "the soft limit must not be above the hard limit",
        ),
        ("limits = { files = 1 }", "files"),
        ("nice = 20", "must be between -20 and 19, not 20"),
        ("oom_score_adj = -1001", "must be between -1000 and 1000"),
        ("cpu_affinity = '3-1'", "names no CPUs"),
        ("cpu_affinity = 1024", "names no CPUs"),
    ] {
        let message = refusal((0, 0), keys);
        assert!(message.contains(why), "{keys}: {message}");
    }
}

/// What an app with these keys may reach.
fn reach(kernel: u32, keys: &str) -> Result<(Option<Landlock>, Vec<String>), String> {
    let host = Invented {
        ids: (0, 0),
        variables: &[],
        environment: None,
        landlock: kernel,
    };
    let text = format!("[app.w]\n{keys}");
    let plan = Plan::parse(&text, Path::new("/srv/app.toml"), &host);
    let mut plan = plan.map_err(|error| error.one_line())?;
    let app = plan.apps.remove("w").expect("the app");
    Ok((app.launch.rights.landlock, app.warnings))
}

/// The paths that may be read, or changed, but for those of the system.
fn paths(landlock: &Landlock, write: bool) -> Vec<&str> {
    let all = landlock.paths.iter().filter(|reach| reach.write == write);
    let own = all.filter_map(|reach| reach.path.to_str());
    let of_system = |path: &&str| {
        [
            "/bin", "/dev", "/etc", "/gnu", "/lib", "/nix", "/proc", "/run", "/sbin", "/sys",
            "/usr", "/var",
        ]
        .iter()
        .any(|system| path.starts_with(system))
    };
    own.filter(|path| !of_system(path)).collect()
}

#[test]
fn an_app_reaches_what_is_written_and_what_it_needs() {
    let wsgi =
        "wsgi = 'a:b'\nlisten = ['127.0.0.1:1']\nchdir = 'site'\nstatic = { '/s/' = 'static' }";
    let keys = format!("{wsgi}\nlandlock = {{ read = [], write = 'old', connect = [443] }}");
    let (found, warnings) = reach(7, &keys).expect("good");
    let found = found.expect("rules");
    assert_eq!(
        paths(&found, false),
        [
            "/srv/site",
            "/srv/site/.venv/bin/python",
            "/srv/site/.venv",
            "/srv/static"
        ]
    );
    assert_eq!(paths(&found, true), ["/srv/old", "/tmp"]);
    assert_eq!(found.connect, Some([443].into()));
    assert_eq!(found.bind, None);
    assert_eq!(warnings, [""; 0]);
    let command = "command = '/srv/other/run'\nenv = { TMPDIR = 'old' }\nlandlock = {}";
    let (found, _) = reach(7, command).expect("good");
    let found = found.expect("rules");
    assert_eq!(paths(&found, false), ["/", "/srv", "/srv/other/run"]);
    assert_eq!(paths(&found, true), ["/srv/old"]);
}

#[test]
fn what_is_below_a_folder_that_may_be_changed_adds_nothing() {
    let keys = "command = '/srv/other/run'\nchdir = 'site'\nlandlock = { read = ['other', 'static'], write = ['static', '/srv'] }";
    let (found, _) = reach(7, keys).expect("good");
    let found = found.expect("rules");
    assert_eq!(paths(&found, false), [""; 0]);
    assert_eq!(paths(&found, true), ["/srv", "/tmp"]);
}

#[test]
fn what_runs_beside_the_workers_reaches_its_own_program_too() {
    let keys =
        "command = 'celery'\nlandlock = { read = [] }\n[app.w.reload]\nbefore = '/srv/other/run'";
    let text = format!("[app.w]\n{keys}");
    let app = plan(&text).apps.remove("w").expect("the app");
    let before = app.before.expect("a command").rights.landlock;
    let before = before.expect("rules");
    assert!(
        paths(&before, false).contains(&"/srv/other/run"),
        "{before:?}"
    );
}

#[test]
fn a_worker_with_a_port_of_its_own_may_bind_it() {
    let keys = |addresses| {
        format!(
            "command = ['celery', '{{port}}']\naddresses = '{addresses}'\nlandlock = {{ bind = [80] }}"
        )
    };
    let (found, _) = reach(7, &keys("127.0.0.1:9000-9001")).expect("good");
    assert_eq!(found.expect("rules").bind, Some([80, 9000, 9001].into()));
    let refused = reach(7, &keys("127.0.0.1")).expect_err("any port");
    assert!(
        refused.contains("landlock.bind: the port of a worker is not known"),
        "{refused}"
    );
}

#[test]
fn what_the_kernel_does_not_restrict_is_said_and_an_error_if_it_is_required() {
    for (kernel, keys, lack, rules) in [
        (0, "", Some("has no Landlock"), false),
        (2, "", Some("cut off"), true),
        (3, "", None, true),
        (3, "connect = [], ", Some("does not restrict ports"), true),
        (4, "bind = [], ", None, true),
    ] {
        let keys =
            |required| format!("command = 'celery'\nlandlock = {{ {keys}required = {required} }}");
        let (found, warnings) = reach(kernel, &keys(false)).expect("good");
        assert_eq!(found.is_some(), rules, "{kernel}");
        assert_eq!(warnings.len(), usize::from(lack.is_some()), "{warnings:?}");
        match (lack, reach(kernel, &keys(true))) {
            (None, found) => drop(found.expect("all of it is there")),
            (Some(lack), found) => {
                let refused = found.expect_err(lack);
                assert!(refused.contains(lack), "{refused}");
                assert!(warnings[0].contains(lack), "{warnings:?}");
            }
        }
    }
    let both = reach(7, "command = 'celery'\nno_new_privs = false\nlandlock = {}");
    assert!(
        both.expect_err("not both")
            .contains("it takes `no_new_privs = true`")
    );
}
