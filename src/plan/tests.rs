use std::time::Duration;

use preforkd_worker::acme::Seen;
use preforkd_worker::contract::Kind;
use preforkd_worker::env;
use preforkd_worker::inspection::{Django, Inspection, StaticFiles};
use preforkd_worker::settings::{Coding, Mapping, Settings};

use super::*;
use crate::config::{Apps, StopSignal};
use crate::schedule::Zone;

mod django;
mod keys;
mod platform;
mod proxies;
mod rights;
mod scheduled;
mod sites;
mod tasks;

/// An invented host.
struct Invented {
    ids: (u32, u32),
    /// Variables, besides PATH.
    variables: &'static [(&'static str, &'static str)],
    /// The virtual environment of preforkd.
    environment: Option<&'static str>,
    landlock: u32,
}

const FILES: [&str; 12] = [
    "/opt/tool/bin/python",
    "/opt/a/bin/python",
    "/opt/b/bin/python",
    "/opt/c/bin/python",
    "/usr/bin/python3",
    "/srv/site/.venv/bin/python",
    "/usr/bin/celery",
    "/usr/bin/env",
    "/usr/bin/gunicorn",
    "/usr/bin/nginx",
    "/usr/sbin/php-fpm8.2",
    "/srv/other/run",
];

impl Host for Invented {
    fn own_ids(&self) -> (u32, u32) {
        self.ids
    }
    fn user(&self, name: &str) -> Option<User> {
        (name == "www").then(|| User {
            name: "www".into(),
            uid: 33,
            gid: 34,
            groups: vec![34, 40],
            home: "/var/www".into(),
        })
    }
    fn group(&self, name: &str) -> Option<u32> {
        (name == "media").then_some(40)
    }
    fn is_folder(&self, path: &Path) -> bool {
        ["/srv", "/srv/site", "/srv/other", "/srv/old", "/srv/static"]
            .iter()
            .any(|f| path == Path::new(f))
    }
    fn is_file(&self, path: &Path) -> bool {
        let files = [
            "/srv/static/favicon.ico",
            "/srv/old/venv/pyvenv.cfg",
            "/opt/broken/pyvenv.cfg",
            "/opt/tool/pipx_metadata.json",
        ];
        files.iter().any(|file| path == Path::new(file)) || path.ends_with("acme/site-a.pem")
    }
    fn file_state(&self, path: &Path) -> Option<FileState> {
        let known = self.is_folder(path) || self.is_executable(path) || self.is_file(path);
        known.then(|| FileState {
            path: path.to_owned(),
            identity: (1, 1),
            time: None,
        })
    }
    fn closed_to(&self, path: &Path, user: Option<&Credentials>) -> Option<PathBuf> {
        let closed = user.is_some() && path == Path::new("/srv/other");
        closed.then(|| path.to_owned())
    }
    fn is_executable(&self, path: &Path) -> bool {
        FILES.iter().any(|f| path == Path::new(f))
    }
    fn absolute(&self, path: &Path) -> PathBuf {
        Path::new("/srv").join(path)
    }
    fn data(&self, path: &Path, _: Option<&Credentials>, _: u64) -> Result<String, String> {
        match path.to_str() {
            Some("/srv/.env") => Ok("A=file\nB='x y'\nHOME=/file\n".into()),
            Some("/srv/site/.env") => Ok("export B=later\n".into()),
            Some("/srv/prefix.env") => Ok("SCRIPT_NAME=/shop\n".into()),
            Some("/srv/key") => Ok("hunter2\r\n".into()),
            Some("/srv/other-key") => Ok("hunter_34-=\n".into()),
            Some("/run/credentials/django") => Ok("swordfish\n\n".into()),
            Some("/srv/cert.pem") => Ok("-----BEGIN CERTIFICATE-----".into()),
            Some("/srv/key.pem") => Ok("-----BEGIN EC PRIVATE KEY-----".into()),
            Some("/srv/kept/acme/site-a.pem") => Ok("issued".into()),
            Some("/srv/broken/acme/site-a.pem") => Ok("BAD".into()),
            Some("/srv/bad.pem") => Ok("-----BEGIN BAD CERTIFICATE-----".into()),
            Some("/srv/both.pem") => {
                Ok("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----".into())
            }
            Some("/srv/page.html" | "/srv/page.txt") => Ok("<h1>Sorry</h1>".into()),
            Some("/srv/htpasswd") => Ok(format!("ann:$2y$05${}\n", "a".repeat(53))),
            Some("/srv/other-htpasswd") => Ok(format!("ann:$2y$06${}\n", "a".repeat(53))),
            Some("/srv/old-htpasswd") => Ok("ann:{SHA}x\n".into()),
            Some("/srv/nul") => Ok("hunter2\0".into()),
            Some("/srv/bad.env") => Ok("A=1\nB='x\n".into()),
            Some("/srv/contract.env") => Ok("LISTEN_FDS=3\n".into()),
            _ => Err(format!("cannot read {}: no such file", path.display())),
        }
    }
    fn matching(&self, folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let names = match pattern {
            "conf.d/*.toml" => &["conf.d/a.toml", "conf.d/b.toml"][..],
            "*.toml" => &["app.toml", "loop.toml"],
            "none/*" => return Err("there is no folder none".into()),
            _ => &[],
        };
        Ok(names.iter().map(|name| folder.join(name)).collect())
    }
    fn included(&self, path: &Path, _: &Path, _: u64) -> Result<String, String> {
        let text = match path.to_str() {
            Some("/srv/conf.d/a.toml") => "[app.a]\ncommand = 'celery'\n",
            Some("/srv/conf.d/b.toml") => {
                "include = '../site/c.toml'\n[app.b]\ncommand = '/srv/other/run'\n"
            }
            Some("/srv/site/c.toml") => "[app.c]\ncommand = 'celery'\nenv_file = '.env'\n",
            Some("/srv/bad.toml") => "# bad\n[app.x]\ncommand = 'celery'\nworkers = 0\n",
            Some("/srv/typo.toml") => "[app.x]\ncommand = 'nope'\n",
            Some("/srv/twice.toml") => "\n[app.w]\ncommand = 'celery'\n",
            Some("/srv/master.toml") => "[master]\npid_file = 'x'\n",
            Some("/srv/loop.toml") => "include = 'app.toml'",
            Some("/srv/unset.toml") => "[app.x]\ncommand = '${NONE}'",
            Some("/srv/deep.toml") => "include = 'x/deep.toml'",
            Some(deep) if deep.ends_with("/x/deep.toml") => "include = 'x/deep.toml'",
            _ => return Err(format!("cannot read {}: no such file", path.display())),
        };
        Ok(text.into())
    }
    fn variable(&self, name: &str) -> Option<String> {
        let path = ("PATH", "/bin:/usr/bin");
        let mut all = self.variables.iter().chain([&path]);
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).into())
    }
    fn time_zone(&self, name: Option<&str>) -> Result<Zone, String> {
        match name {
            None => Ok(Zone::Utc),
            Some("Europe/Berlin") => Ok(Zone::Rule("CET-1CEST,M3.5.0,M10.5.0/3".into())),
            Some(name) => Err(format!("there is no time zone \"{name}\"")),
        }
    }
    fn privileges(&self) -> Privileges {
        Privileges {
            capabilities: if self.ids.0 == 0 {
                (1 << 41) - 1
            } else {
                1 << 10
            },
            hard_limits: [(Resource::Nofile, 4096)].into(),
            nice: if self.ids.0 == 0 { -20 } else { 0 },
            oom_score_adj: 100,
        }
    }
    fn landlock(&self) -> u32 {
        self.landlock
    }
    fn cpus(&self) -> u32 {
        6
    }
    fn interpreter(&self, path: &Path, _: &Launch) -> Result<PathBuf, String> {
        Ok(path.to_owned())
    }
    fn inspect(&self, _: &str, launch: &Launch, _: Duration) -> Result<Inspection, String> {
        let settings = &launch.env[env::WSGI];
        let settings = Settings::parse(settings).map_err(|error| error.to_string())?;
        assert_eq!(launch.env[env::KIND], Kind::Inspection.name());
        invented_site(&settings.application)
    }
    fn own_environment(&self) -> Option<PathBuf> {
        self.environment.map(PathBuf::from)
    }
    fn extension(&self) -> Result<PathBuf, String> {
        Ok("/lib/ext.so".into())
    }
    fn front(&self) -> Result<PathBuf, String> {
        Ok("/lib/preforkd-front".into())
    }
    fn certificate_flaws(&self, _: &Path, settings: &str) -> Result<String, String> {
        let mut flaws = String::new();
        if settings.contains("/srv/both.pem") {
            flaws.push_str("warning\ta\tthe certificate of [site.a] is not valid\n");
        }
        if settings.contains("BAD CERTIFICATE") {
            flaws.push_str("error\ta\tcannot use the certificate of [site.a]: it is bad\n");
        }
        Ok(flaws)
    }
    fn look(&self, _: &Path, text: &str) -> Result<Seen, String> {
        match text.contains("BAD") {
            true => Err("it is bad".into()),
            false => Ok(Seen {
                not_before: 0,
                not_after: 1,
                names: Vec::new(),
                is_self_signed: false,
            }),
        }
    }
    fn self_signed(&self, _: &Path, hosts: &[String]) -> Result<String, String> {
        Ok(format!("self-signed for {}", hosts.join(" ")))
    }
}

/// What an application says, by its name.
fn invented_site(application: &str) -> Result<Inspection, String> {
    let folder = match application {
        "broken:app" => return Err("there is no module broken".into()),
        "strange:app" => Some("/nowhere"),
        "closed:app" => Some("/srv/other"),
        "plain:app" => None,
        _ => Some("/srv/static"),
    };
    let folders = folder.map(|folder| ("/static/".to_owned(), vec![folder.into()]));
    let missing = (application == "empty:app").then(|| "STATIC_ROOT is\n not set".to_owned());
    let static_files = StaticFiles {
        folders: folders.into_iter().filter(|_| missing.is_none()).collect(),
        by_finders: false,
        missing,
    };
    let site = Django {
        version: "5.2".into(),
        debug: false,
        has_logging: true,
        static_path: Some("/static/".into()),
        serves_static: false,
        static_files,
    };
    Ok(Inspection {
        python: "3.12.1".into(),
        django: folder.map(|_| site),
    })
}

fn plan_as(ids: (u32, u32), text: &str) -> Result<Plan, String> {
    plan_with(ids, &[], text)
}

fn plan_with(
    ids: (u32, u32),
    variables: &'static [(&'static str, &'static str)],
    text: &str,
) -> Result<Plan, String> {
    let host = Invented {
        ids,
        variables,
        environment: None,
        landlock: 7,
    };
    let plan = Plan::parse(text, Path::new("/srv/app.toml"), &host);
    plan.map_err(|error| error.one_line().replacen("/srv/", "", 1))
}

fn plan(text: &str) -> Plan {
    plan_as((0, 0), text).expect("a good configuration")
}

#[test]
fn the_interpreter_is_the_first_that_applies() {
    type Variables = &'static [(&'static str, &'static str)];
    const ALL: Variables = &[
        ("PREFORKD_PYTHON", "/opt/a/bin/python"),
        ("VIRTUAL_ENV", "/opt/b"),
    ];
    const OF_SHELL: Variables = &[("VIRTUAL_ENV", "/opt/b")];
    const GONE: Variables = &[
        ("PREFORKD_PYTHON", "/opt/gone/bin/python"),
        ("VIRTUAL_ENV", "/opt/b"),
    ];
    const RELATIVE: Variables = &[("PREFORKD_PYTHON", "opt/a/bin/python")];
    let own = Some("/opt/c");
    for (written, variables, environment, found) in [
        (
            "python = '/usr/bin/python3'\nchdir = 'site'",
            ALL,
            own,
            "/usr/bin/python3",
        ),
        ("chdir = 'site'", ALL, own, "/opt/a/bin/python"),
        (
            "chdir = 'site'",
            OF_SHELL,
            own,
            "/srv/site/.venv/bin/python",
        ),
        ("", OF_SHELL, own, "/opt/b/bin/python"),
        ("", GONE, own, "/opt/b/bin/python"),
        ("", RELATIVE, own, "/opt/c/bin/python"),
        ("", &[], own, "/opt/c/bin/python"),
        ("", &[], Some("/opt/gone"), "/usr/bin/python3"),
        ("", &[], None, "/usr/bin/python3"),
    ] {
        let host = Invented {
            ids: (0, 0),
            variables,
            environment,
            landlock: 7,
        };
        let text = format!("[app.web]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:80']\n{written}");
        let plan = Plan::parse(&text, Path::new("/srv/app.toml"), &host).expect("a good one");
        let program = &plan.apps["web"].launch.program;
        assert_eq!(
            program,
            Path::new(found),
            "{written:?} {variables:?} {environment:?}"
        );
    }
}

#[test]
fn an_environment_that_cannot_have_the_packages_of_the_project_is_refused() {
    type Variables = &'static [(&'static str, &'static str)];
    const OF_SHELL: Variables = &[("VIRTUAL_ENV", "/opt/broken")];
    const OF_MODULE: Variables = &[("PREFORKD_PYTHON", "/opt/tool/bin/python")];
    let gone = "there is no Python interpreter in the virtual environment ";
    for (written, variables, environment, refusal) in [
        ("chdir = 'old'", &[][..], None, Some(format!("{gone}/srv/old/venv any more (make it again"))),
        ("", OF_SHELL, None, Some(format!("{gone}/opt/broken any more"))),
        ("", &[], Some("/opt/broken"), Some(format!("{gone}/opt/broken any more"))),
        // Another one comes first.
        ("chdir = 'site'", OF_SHELL, Some("/opt/tool"), None),
        ("python = '/usr/bin/python3'", OF_SHELL, Some("/opt/tool"), None),
        (
            "",
            &[],
            Some("/opt/tool"),
            Some("/srv has no virtual environment, and that of preforkd, /opt/tool, is one that pipx or uv has made".into()),
        ),
        // Whoever runs it as a module has said so.
        ("", OF_MODULE, Some("/opt/tool"), None),
    ] {
        let host = Invented {
            ids: (0, 0),
            variables,
            environment,
            landlock: 7,
        };
        let text = format!("[app.web]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:80']\n{written}");
        let plan = Plan::parse(&text, Path::new("/srv/app.toml"), &host);
        let said = plan.err().map(|error| error.one_line());
        match refusal {
            None => assert_eq!(said, None, "{written:?} {variables:?}"),
            Some(refusal) => {
                let said = said.expect("refused");
                assert!(said.contains(&refusal), "{said}");
                assert!(said.contains("`python = \"PATH\"`"), "{said}");
            }
        }
    }
}

#[test]
fn a_wsgi_app_is_launched_by_the_python_of_its_virtual_environment() {
    let plan = plan(
        "[app.web]\nwsgi = 'site.wsgi:app'\nchdir = 'site'\nlisten = ['127.0.0.1:80']\nworkers = 'auto'\npreload = true",
    );
    let web = &plan.apps["web"];
    assert_eq!(web.launch.program, Path::new("/srv/site/.venv/bin/python"));
    assert_eq!(web.launch.chdir, Path::new("/srv/site"));
    assert_eq!(web.policy.workers, 6);
    assert!(web.template);
    let settings = Settings::parse(&web.launch.env[env::WSGI]).expect("what a worker reads");
    assert_eq!(settings.application, "site.wsgi:app");
    assert_eq!(settings.http.graceful_timeout, Duration::from_secs(30));
    assert_eq!(web.launch.env[env::KIND], Kind::Template.name());
}

#[test]
fn static_files_are_mapped() {
    let plan = plan(
        "[app.web]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:80']\n[app.web.static]\n'/' = 'static'\n\
         '/favicon.ico' = 'static/favicon.ico'\n'/my files/' = 'static'\n\
         '/s/' = { folder = 'static', max_age = '30d', immutable = true, headers = { A = 'b' }, index = '', fallthrough = true, precompressed = true }",
    );
    let web = &plan.apps["web"];
    let settings = Settings::parse(&web.launch.env[env::WSGI]).expect("what a worker reads");
    let simple = |path: &str, index: Option<&str>, fallthrough| Mapping {
        path: path.into(),
        behind: vec![],
        max_age: None,
        immutable: false,
        headers: BTreeMap::new(),
        index: index.map(str::to_owned),
        fallthrough,
        precompressed: vec![],
    };
    let index = Some("index.html");
    let table = Mapping {
        max_age: Some(30 * 24 * 3600),
        immutable: true,
        headers: [("A".to_owned(), "b".to_owned())].into(),
        precompressed: Coding::ALL.to_vec(),
        ..simple("/srv/static", None, true)
    };
    let wanted = [
        ("/", simple("/srv/static", index, true)),
        (
            "/favicon.ico",
            simple("/srv/static/favicon.ico", None, false),
        ),
        ("/my files/", simple("/srv/static", index, false)),
        ("/s/", table),
    ];
    let wanted = wanted.map(|(prefix, mapping)| (prefix.to_owned(), mapping));
    assert_eq!(settings.static_files, wanted.into());
    assert_eq!(plan.warnings().count(), 0);
}

#[test]
fn what_is_probably_a_mistake_is_warned_of() {
    for (mapping, warning) in [
        (
            "static = { '/' = { folder = 'static', fallthrough = false } }",
            "static: the application is never called",
        ),
        (
            "max_buffered = '1MiB'\nmax_body = '2MiB'",
            "max_body is 2097152 bytes, but max_buffered is 1048576: ",
        ),
        (
            "user = 'www'\nstatic = { '/s/' = 'other' }",
            "static: user www may not enter /srv/other, so /srv/other cannot be served: Permission denied",
        ),
    ] {
        let plan = plan(&format!(
            "[app.web]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:80']\n{mapping}"
        ));
        let warnings: Vec<_> = plan.warnings().collect();
        assert!(
            matches!(warnings[..], [("web", text)] if text.starts_with(warning)),
            "{warnings:?}"
        );
    }
    for (word, check, is_doubted) in [
        ("{fd}", "path = '/'", true),
        ("{fd} {fd:check}", "path = '/'", false),
        ("all", "path = '/'", false),
        ("{fd}", "command = ['/usr/bin/python3']", false),
    ] {
        let plan = plan(&format!(
            "[app.web]\ncommand = '/usr/bin/python3 {word}'\nlisten = ['127.0.0.1:80']\n[app.web.reload.check]\n{check}"
        ));
        let mut warnings = plan.warnings();
        let is_told = warnings.any(|(_, text)| text.starts_with("reload.check: the request"));
        assert_eq!(is_told, is_doubted, "{word} {check}");
    }
}

#[test]
fn without_a_virtual_environment_python3_of_the_path_is_used() {
    let plan = plan("[app.web]\nwsgi = 'site.wsgi:app'\nlisten = ['127.0.0.1:80']");
    assert_eq!(
        plan.apps["web"].launch.program,
        Path::new("/usr/bin/python3")
    );
}

#[test]
fn descriptors_are_filled_into_a_command() {
    let plan = plan(
        "[app.q]\ncommand = ['celery', '--fd={fd}', '{fd:b}', '{x}']\nlisten = ['127.0.0.1:1', { address = '127.0.0.1:2', name = 'b' }]",
    );
    assert_eq!(plan.apps["q"].launch.args, ["celery", "--fd=3", "4", "{x}"]);
    assert_eq!(plan.apps["q"].launch.program, Path::new("/usr/bin/celery"));
    assert_eq!(plan.apps["q"].sockets[0].0, "q");
    assert_eq!(plan.apps["q"].sockets[1].0, "b");
}

#[test]
fn a_descriptor_that_gunicorn_would_take_over_twice_is_warned_of() {
    let warned = |command: &str| {
        let text = format!("[app.q]\ncommand = '{command}'\nlisten = '127.0.0.1:80'");
        plan(&text).warnings().count() == 1
    };
    assert!(warned("/usr/bin/gunicorn -b fd://{fd} m:app"));
    assert!(warned("python3 -m gunicorn --bind=fd://3 m:app"));
    assert!(!warned("/usr/bin/gunicorn m:app"));
    assert!(!warned(
        "env -u LISTEN_PID /usr/bin/gunicorn -b fd://3 m:app"
    ));
}

#[test]
fn some_programs_end_in_good_order_at_another_signal_than_sigterm() {
    let signal = |program: &str, key: &str| {
        let text = format!("[app.q]\ncommand = ['{program}']\n{key}");
        plan(&text).apps["q"].stop.signal
    };
    assert_eq!(signal("celery", ""), StopSignal::Term);
    assert_eq!(signal("nginx", ""), StopSignal::Quit);
    assert_eq!(signal("/usr/sbin/php-fpm8.2", ""), StopSignal::Quit);
    assert_eq!(signal("nginx", "stop_signal = 'TERM'"), StopSignal::Term);
}

#[test]
fn the_user_brings_its_groups_and_its_home() {
    let plan =
        plan("[app.q]\ncommand = ['celery']\nuser = 'www'\ngroup = 'media'\nenv = { HOME = '/x' }");
    let launch = &plan.apps["q"].launch;
    let user = launch.user.as_ref().expect("a user");
    assert_eq!(
        (user.uid, user.gid, &user.groups[..]),
        (33, 40, &[34, 40][..])
    );
    assert_eq!(launch.env["HOME"], "/x");
    assert_eq!(launch.env["USER"], "www");
}

#[test]
fn what_an_app_that_is_not_required_lacks_is_no_error() {
    let optional = |app: &str| {
        let plan = plan(&format!("[app.q]\nrequired = false\n{app}"));
        let app = plan.apps["q"].clone();
        (app.unfit.clone(), app.warnings.clone(), app, plan)
    };
    for (text, reason) in [
        (
            "command = ['celery']\nuser = 'nobody2'",
            "app.toml:4:8: user: there is no user \"nobody2\"",
        ),
        (
            "command = ['celery']\ngroup = 'none'",
            "app.toml:4:9: group: there is no group \"none\"",
        ),
        (
            "command = ['selery']",
            "app.toml:3:11: command: there is no program \"selery\" in PATH",
        ),
        (
            "wsgi = 'a:b'\nlisten = '127.0.0.1:80'\npython = '/nowhere/python'",
            "app.toml:5:10: python: there is no executable file /nowhere/python",
        ),
        (
            "wsgi = 'a:b'\nlisten = '127.0.0.1:80'\nchdir = 'nowhere'",
            "app.toml:5:9: chdir: there is no folder /srv/nowhere",
        ),
        (
            "command = ['celery']\nenv_file = 'nowhere.env'",
            "app.toml:4:12: env_file: cannot read /srv/nowhere.env",
        ),
        (
            "command = ['celery']\nsecrets = { KEY = 'file:nowhere' }",
            "app.toml:4:19: secrets.KEY: cannot read /srv/nowhere",
        ),
        (
            "command = ['celery']\nsecrets = { KEY = 'credential:none' }",
            "app.toml:4:19: secrets.KEY: the init system has passed no credentials",
        ),
        (
            "wsgi = 'a:b'\nlisten = '127.0.0.1:80'\nstatic = { '/s/' = 'nowhere' }",
            "app.toml:5:20: static: there is no folder /srv/nowhere (create it first",
        ),
        (
            "command = ['celery']\nstderr = 'nowhere/q.log'",
            "app.toml:4:10: stderr: there is no folder /srv/nowhere (create it first)",
        ),
        (
            "command = ['celery']\nlog_owner = 'nobody2'",
            "app.toml:4:13: log_owner: there is no user \"nobody2\"",
        ),
        (
            "command = ['celery']\nlog_group = 'none'",
            "app.toml:4:13: log_group: there is no group \"none\"",
        ),
    ] {
        let (unfit, warnings, ..) = optional(text);
        let unfit = unfit.unwrap_or_default();
        assert!(unfit.contains(reason), "{text}: {unfit}");
        let warning = "not required, so it is not started until a reload";
        assert!(
            warnings[0].contains(reason) && warnings[0].contains(warning),
            "{warnings:?}"
        );
        let error = plan_as((0, 0), &format!("[app.q]\nrequired = true\n{text}"));
        assert_eq!(
            error.expect_err("it is required"),
            unfit.replacen("/srv/", "", 1)
        );
    }
    // What the launcher looks for at each start may come.
    for (text, missing) in [
        ("command = ['celery']\nchdir = 'nowhere'", "/srv/nowhere"),
        ("command = ['./run']", "/srv/./run"),
        ("command = ['celery']\nlisten = 'unix:/none/a'", "/none"),
    ] {
        let (unfit, warnings, app, plan) = optional(text);
        assert_eq!(unfit, None);
        let known = app.cannot_start().unwrap_or_default();
        assert!(
            known.starts_with("/srv/app.toml:") && known.contains(missing),
            "{known}"
        );
        assert!(
            warnings[0].starts_with("/srv/app.toml:") && warnings[0].contains(missing),
            "{warnings:?}"
        );
        assert!(warnings[0].ends_with("it is tried again"), "{warnings:?}");
        assert!(!app.launch.program.as_os_str().is_empty());
        assert!(plan.listeners.iter().all(|listener| !listener.required));
        plan_as((0, 0), &format!("[app.q]\n{text}")).expect_err("it is required");
    }
    // Files are not read with the rights of root instead of those of a user that does not exist.
    let (unfit, _, app, _) = optional(
        "command = ['celery']\nuser = 'nobody2'\nenv_file = 'secret.env'\nenv = { A = '1' }",
    );
    assert!(unfit.is_some());
    assert_eq!(app.launch.env.get("A").map(String::as_str), Some("1"));
    // A mistake in the configuration stays one.
    for mistake in [
        "command = []",
        "command = ['celery']\nsecrets = { KEY = 'the secret itself' }",
        "command = ['celery']\nsecrets = { KEY = 'credential:../key' }",
        "command = ['celery']\nstdout = '-'",
        "wsgi = 'a:b'\nlisten = '127.0.0.1:80'\nstatic = { 's' = 'nowhere' }",
        "command = ['celery']\nschedule = '* * * *'",
    ] {
        let text = format!("[app.q]\nrequired = false\n{mistake}");
        plan_as((0, 0), &text).expect_err(mistake);
    }
    plan_as(
        (33, 34),
        "[app.q]\nrequired = false\ncommand = ['celery']\nuser = 'nobody2'",
    )
    .expect("the user is missing");
}

#[test]
fn variables_come_from_files_and_the_key_env_has_the_last_word() {
    let plan = plan(
        "[app.q]\ncommand = 'celery'\nuser = 'www'\nenv_file = ['.env', 'site/.env']\nenv = { C = 'key', A = 'key' }",
    );
    let env = plan.apps["q"].launch.env.iter();
    let env: Vec<_> = env.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("A", "key"),
        ("B", "later"),
        ("C", "key"),
        ("HOME", "/file"),
        ("LOGNAME", "www"),
        ("USER", "www"),
    ];
    assert_eq!(env, expected);
}

#[test]
fn secrets_are_the_contents_of_files_and_no_message_quotes_them() {
    let variables = &[("CREDENTIALS_DIRECTORY", "/run/credentials")];
    let with = |variables, secrets: &str| {
        let app = "[app.q]\ncommand = 'celery'\nenv_file = '.env'\nenv = { E = 'e' }";
        plan_with((0, 0), variables, &format!("{app}\nsecrets = {secrets}"))
    };
    let plan = with(
        variables,
        "{ A = 'file:key', B = 'credential:django', C = 'file:${NONE:-/srv/key}' }",
    );
    let env = &plan.expect("good").apps["q"].launch.env;
    let values = ["A", "B", "C"].map(|name| env[name].as_str());
    assert_eq!(values, ["hunter2", "swordfish\n", "hunter2"]);
    for (variables, secrets, expected) in [
        (
            &variables[..],
            "{ A = 'hunter2' }",
            "secrets.A: must be \"credential:NAME\" or \"file:PATH\", not the secret itself",
        ),
        (
            variables,
            "{ A = 'file:nul' }",
            "secrets.A: the file has a NUL character",
        ),
        (
            variables,
            "{ A = 'file:none' }",
            "secrets.A: cannot read /srv/none: no such file",
        ),
        (
            variables,
            "{ A = 'credential:../key' }",
            "secrets.A: must be the name of a credential",
        ),
        (
            variables,
            "{ A = 'credential:' }",
            "secrets.A: must be the name of a credential",
        ),
        (
            variables,
            "{ A = 'credential:x' }",
            "secrets.A: cannot read /run/credentials/x: no such file",
        ),
        (
            &[],
            "{ A = 'credential:x' }",
            "secrets.A: the init system has passed no credentials",
        ),
        (
            variables,
            "{ 'A=' = 'file:key' }",
            "secrets: \"A=\" is not a valid name",
        ),
        (
            variables,
            "{ E = 'file:key' }",
            "secrets: E stands in `env` too (remove one of them)",
        ),
    ] {
        let error = with(variables, secrets).expect_err(secrets);
        let (_, said) = error.split_once(": ").expect("a position");
        assert!(
            said.starts_with(expected) && !said.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn included_files_add_apps_and_their_paths_start_at_their_own_folders() {
    let plan = plan("include = 'conf.d/*.toml'\n[app.w]\ncommand = 'celery'");
    let apps = plan.apps.iter();
    let apps: Vec<_> = apps
        .map(|(name, app)| (name.as_str(), app.launch.chdir.to_str().expect("UTF-8")))
        .collect();
    let expected = [
        ("a", "/srv/conf.d"),
        ("b", "/srv/conf.d"),
        ("c", "/srv/site"),
        ("w", "/srv"),
    ];
    assert_eq!(apps, expected);
    assert_eq!(plan.apps["c"].launch.env["B"], "later");
}

#[test]
fn an_error_names_the_included_file_or_the_place_that_includes_it() {
    let app = "[app.w]\ncommand = 'celery'";
    for (include, expected) in [
        ("'bad.toml'", "bad.toml:4:11: workers: must be between"),
        (
            "'typo.toml'",
            "typo.toml:2:11: command: there is no program \"nope\"",
        ),
        (
            "'unset.toml'",
            "unset.toml:2:12: command: the variable NONE is not set",
        ),
        (
            "'twice.toml'",
            "twice.toml:2:6: [app.w] is there already: /srv/app.toml:2:6 (rename or remove",
        ),
        (
            "'master.toml'",
            "master.toml:1:2: an included file cannot have [master] (move the table to /srv/app.toml)",
        ),
        (
            "['conf.d/*.toml', 'none.toml']",
            "app.toml:1:29: include: cannot read /srv/none.toml: no such file",
        ),
        (
            "'none/*'",
            "app.toml:1:11: include: there is no folder none",
        ),
        (
            "'app.toml'",
            "app.toml:1:11: include: /srv/app.toml is read already (remove it from the list)",
        ),
        (
            "'./x/../app.toml'",
            "app.toml:1:11: include: /srv/./x/../app.toml is read already",
        ),
        (
            "'*.toml'",
            "loop.toml:1:11: include: /srv/app.toml is read already",
        ),
        (
            "'deep.toml'",
            "x/x/x/x/deep.toml:1:11: include: files are included more than 5 deep",
        ),
        (
            "''",
            "app.toml:1:11: include: must be the path of a file, not \"\"",
        ),
        (
            "4",
            "app.toml:1:11: include: must be a string, not the number 4",
        ),
        (
            "'${NONE}/x'",
            "app.toml:1:12: include: the variable NONE is not set",
        ),
    ] {
        let text = format!("include = {include}\n{app}");
        let error = plan_as((0, 0), &text).expect_err(&text);
        assert!(error.starts_with(expected), "{error}\nnot {expected}");
    }
    // Nothing but the included files, none of which exists; and a key in the wrong place.
    for (text, expected) in [
        (
            "include = 'other/*.toml'",
            "app.toml:1:1: there is no app to run",
        ),
        ("[master]\n[app]\n", "app.toml:1:1: there is no app to run"),
        (
            "include = ['other/*.toml', 'nowhere/*.toml']\n[master]\n",
            "app.toml:1:28: there is no app to run; include: there is no folder /srv/nowhere (create it",
        ),
        (
            "[app.w]\ncommand = 'celery'\ninclude = 'x'",
            "app.toml:3:1: unknown key `include`; write `include` before the first table",
        ),
    ] {
        let error = plan_as((0, 0), text).expect_err(text);
        assert!(error.starts_with(expected), "{error}\nnot {expected}");
    }
}

#[test]
fn a_master_that_is_already_the_user_changes_nothing() {
    let plan = plan_as((33, 34), "[app.q]\ncommand = ['celery']\nuser = 'www'").unwrap();
    assert_eq!(plan.apps["q"].launch.user, None);
}

#[test]
fn an_ipv6_socket_leaves_ipv4_to_a_listener_of_the_same_port() {
    let plan = plan(
        "[app.q]\ncommand = ['celery']\nlisten = ['[::]:80', '0.0.0.0:80', '[::]:81', '127.0.0.1:82', '[::]:82']",
    );
    let v6only: Vec<_> = plan.listeners.iter().map(|l| l.v6only).collect();
    assert_eq!(v6only, [true, false, false, false, true]);
}

#[test]
fn the_control_socket_is_found_even_if_the_file_is_faulty() {
    let host = Invented {
        ids: (0, 0),
        variables: &[],
        environment: None,
        landlock: 7,
    };
    let find = |text: &str| {
        let places = control::Places::find(text, Path::new("/srv/app.toml"), &host);
        places.written
    };
    let app = "[app.q]\ncommand = ['celery']\n";
    let faulty = "[app.w]\nwrokers = = 2\npid_file = 'no'\n[app.w.master]\ncontrol = 'no'\n";
    for (written, place) in [
        ("[master]\npid_file = 'x.pid'\n", "/srv/x.sock"),
        (
            "[master] \ncontrol = '/run/c'\npid_file = 'x.pid'\n",
            "/run/c",
        ),
        (
            "[master]   # itself\npid_file = 'x.pid' # its pid\n",
            "/srv/x.sock",
        ),
        ("[ master ]\n\"pid_file\" = 'x.pid'\n", "/srv/x.sock"),
        ("master.pid_file = 'x.pid'\n", "/srv/x.sock"),
        ("master = { pid_file = 'x.pid' }\n", "/srv/x.sock"),
        ("[master]\nnonsense\ncontrol = 'c'\n", "/srv/c"),
    ] {
        for rest in [app, faulty] {
            let text = written.to_owned() + rest;
            assert_eq!(find(&text), Some(place.into()), "{text}");
        }
    }
    assert_eq!(
        find("[master]\ncontrol = '${NONE:-/run}/${PATH}'"),
        Some("/run//bin:/usr/bin".into())
    );
    assert_eq!(find("[master]\ncontrol = '${NONE}'"), None);
    assert_eq!(find(faulty), None);
    assert_eq!(find("[app.w]\ncontrol = 'no'"), None);
    let places = control::Places::find("", Path::new("/srv/app.toml"), &host);
    let of_service: PathBuf = "/run/preforkd/preforkd.sock".into();
    assert_eq!(places.of_service, [of_service]);
    let plan = plan("[master]\npid_file = 'x.pid'\n[app.q]\ncommand = ['celery']");
    assert_eq!(plan.control, Some("/srv/x.sock".into()));
    assert_eq!(plan.usual_control, []);
}

#[test]
fn without_a_place_the_control_socket_has_a_name_that_follows_from_the_file() {
    let plan = |file, ids, variables| {
        let host = Invented {
            ids,
            variables,
            environment: None,
            landlock: 7,
        };
        let plan = Plan::parse("[app.q]\ncommand = ['celery']", Path::new(file), &host);
        let usual = plan.expect("fine").usual_control;
        let places = control::Places::find("", Path::new(file), &host);
        assert_eq!(places.usual, usual, "commands look where masters listen");
        usual
    };
    let folders = |usual: &[control::Usual]| {
        let folders = usual
            .iter()
            .map(|usual| (usual.folder.display().to_string(), usual.mode));
        folders.collect::<Vec<_>>()
    };
    let of_root = plan("/srv/app.toml", (0, 0), &[]);
    let expected = [
        ("/run/preforkd".into(), Some(0o755)),
        ("/tmp/preforkd-0".into(), Some(0o700)),
    ];
    assert_eq!(folders(&of_root), expected);
    let variables = &[("XDG_RUNTIME_DIR", "/run/user/7")];
    let of_user = plan("/srv/app.toml", (7, 7), variables);
    let expected = [
        ("/run/preforkd".into(), None),
        ("/run/user/7".into(), None),
        ("/tmp/preforkd-7".into(), Some(0o700)),
    ];
    assert_eq!(folders(&of_user), expected);
    assert_eq!(of_user[0].name, of_root[0].name);
    assert!(of_user[0].path().as_os_str().len() < 60, "{of_user:?}");
    let other = plan(
        "/srv/other.toml",
        (7, 7),
        &[("XDG_RUNTIME_DIR", "relative")],
    );
    assert_ne!(other[0].name, of_user[0].name);
    assert!(control::is_usual_name(&other[0].name));
    for name in [
        "preforkd.sock",
        "preforkd-web.sock",
        "preforkd-0123456789abcde.sock",
        "preforkd-0123456789ABCDEF.sock",
        "preforkd-0123456789abcdef-web.front",
        ".preforkd-0123456789abcdef",
    ] {
        assert!(!control::is_usual_name(name), "{name}");
    }
    for usual in [&of_root, &of_user, &other].into_iter().flatten() {
        let in_run = usual.folder == Path::new("/run/preforkd");
        let is_made = usual.mode.is_some() || in_run;
        assert_eq!(control::is_made(&usual.folder), is_made, "{usual:?}");
    }
    for folder in ["/tmp/preforkd-x", "/tmp/preforkd-7/x", "/tmp", "/run"] {
        assert!(!control::is_made(Path::new(folder)), "{folder}");
    }
    assert_eq!(other.len(), 2);
}

#[test]
fn an_invalid_configuration_is_refused_with_its_position_and_what_to_do() {
    let app = |rest: &str| format!("[app.w]\n{rest}");
    let listen = "listen = ['127.0.0.1:80']";
    let cases = [
        ("".into(), "1:1: there is no app to run"),
        (
            "[app.'a b']\ncommand = ['celery']".into(),
            "1:6: \"a b\" is not a valid name for an app",
        ),
        (app(""), "1:6: [app.w] has neither `wsgi` nor `command`"),
        (
            app("wsgi = 'a:b'\ncommand = ['x']"),
            "3:11: an app has either",
        ),
        (
            app("wsgi = 'a.app'"),
            "2:8: wsgi: must be \"MODULE:CALLABLE\"",
        ),
        (
            app("wsgi = 'a:b'\nlisten = ['127.0.0.1:1']\nhooks = 'site/hooks.py'"),
            "4:9: hooks: must be the name of a module",
        ),
        (
            app("wsgi = 'a:b('"),
            "2:8: wsgi: must be \"MODULE:CALLABLE\"",
        ),
        (
            app("wsgi = 'a:b'"),
            "1:6: [app.w] has `wsgi`, but no listener",
        ),
        (
            app("command = []"),
            "2:11: command: the name of a program is missing",
        ),
        (
            app("command = 'celery'\nenv_file = ['.env', 'none.env']"),
            "3:21: env_file: cannot read /srv/none.env: no such file",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nenv_file = 'prefix.env'\nprefix = '/x'"
            )),
            "4:12: env_file: SCRIPT_NAME is \"/shop\", but `prefix` is \"/x\"",
        ),
        (
            app("command = 'celery'\nenv_file = 'bad.env'"),
            "3:12: env_file: /srv/bad.env:2: B: the quote is not closed",
        ),
        (
            app("command = 'celery'\nenv_file = 'contract.env'"),
            "3:12: env_file: /srv/contract.env: the master sets LISTEN_FDS for each worker (remove it)",
        ),
        (
            app("command = ''"),
            "2:11: command: the name of a program is missing",
        ),
        (
            app("command = ['celery', '${NOTIFY_SOCKET}']"),
            "2:23: command: the variable NOTIFY_SOCKET is meant for the master alone",
        ),
        (
            app("command = ['celery', '${LISTEN_FDS}']"),
            "2:23: command: the variable LISTEN_FDS is meant for the master alone",
        ),
        (
            app("command = ['nope']"),
            "2:11: command: there is no program \"nope\" in PATH",
        ),
        (
            app("command = ['./run']"),
            "2:11: command: there is no executable file",
        ),
        (
            app("command = ['celery', '{fd}']"),
            "2:11: command: {fd} needs a listener",
        ),
        (
            app("command = ['celery', '{fd:z}']\nlisten = ['127.0.0.1:80']"),
            "2:11: command: {fd:z} names no listener of this app (it has: w)",
        ),
        (
            app("command = ['celery', '{fd']"),
            "2:11: command: \"{fd\" has",
        ),
        (
            app("command = ['celery']\nstdin = 'listener'"),
            "3:9: stdin: there is no listener that could be the standard input (add `listen`)",
        ),
        (
            app("command = ['celery']\nstop_signal = 'KILL'"),
            "3:15: stop_signal: \"KILL\" is no signal that can tell a worker to end (write one of TERM, QUIT, INT, HUP, USR1, USR2, WINCH)",
        ),
        (
            app("command = ['celery', '{port}']\naddresses = 'localhost:9000'"),
            "3:13: addresses: \"localhost:9000\" is no range of addresses (write \"127.0.0.1\" for any free port",
        ),
        (
            app("command = ['celery']\naddresses = '127.0.0.1'"),
            "3:13: addresses: neither `command` nor `env` has {port} or {address}",
        ),
        (
            app("command = ['celery', '{port}']\nworkers = 4\naddresses = '127.0.0.1:19060-19061'"),
            "4:13: addresses: 127.0.0.1:19060-19061 has 2 ports, and 4 workers need 5, with 1 more during a reload",
        ),
        (
            app(
                "command = ['celery', '{port}']\nworkers = 4\naddresses = '127.0.0.1:19060-19061'\nreplace = 'stop-first'",
            ),
            "4:13: addresses: 127.0.0.1:19060-19061 has 2 ports, and 4 workers need 4, with 0 more",
        ),
        (
            app("command = ['celery']\nthreads = 4"),
            "3:11: `threads` is for apps with `wsgi`, not for apps with `command` (remove it)",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\nready = 'exec'")),
            "4:9: `ready` is for apps with `command`",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\nthreads = 0")),
            "4:11: threads: must be between 1 and 1000",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\nmax_requests = 0")),
            "4:16: max_requests: must be at least 1",
        ),
        (
            app("command = ['celery']\nreload = { surge = 0 }"),
            "3:20: reload.surge: must be at least 1",
        ),
        (
            app("command = ['celery']\nreload = { max_draining = 0 }"),
            "3:27: reload.max_draining: must be at least 1",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\nchdir = 'nope'")),
            "4:9: chdir: there is no folder /srv/nope",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\npython = 'x/python'")),
            "4:10: python: there is no executable file /srv/x/python",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\npython = 'site/.venv'")),
            "4:10: python: there is no executable file /srv/site/.venv",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\npython = 'site'")),
            "4:10: python: /srv/site is a folder (write the path of an interpreter)",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\npython = ''")),
            "4:10: python: must be the path of an interpreter, not \"\"",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\npython = 'python2'")),
            "4:10: python: there is no program \"python2\" in PATH, which is /bin:/usr/bin",
        ),
        (
            app(&format!("wsgi = 'src/a.py:b'\n{listen}")),
            "2:8: wsgi: must be \"MODULE:CALLABLE\", not \"src/a.py:b\" (write for example \"src.a:b\")",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s' = 'static' }}"
            )),
            "4:19: static: the prefix \"/s\" stands for one file, and /srv/static is a folder (write \"/s/\")",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ 's/' = 'static' }}"
            )),
            "4:19: static: the prefix \"s/\" must begin with \"/\"",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '//s/' = 'static' }}"
            )),
            "4:21: static: no request has the prefix \"//s/\"",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/%2E./' = 'static' }}"
            )),
            "4:25: static: no request has the prefix \"/s/%2E./\"",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = 'static', '/%73/' = 'static', '/%zz/' = 'static' }}"
            )),
            "4:20: static: the prefixes \"/%73/\" and \"/s/\" are the same, as they are percent-decoded (remove one of them)",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = 'static/favicon.ico' }}"
            )),
            "4:20: static: /srv/static/favicon.ico is a file, and the prefix \"/s/\" stands for a folder (write \"/s\")",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s' = 'static/nope' }}"
            )),
            "4:19: static: there is no file /srv/static/nope",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', maxage = '1y' }} }}"
            )),
            "4:41: static./s/: unknown key `maxage`; did you mean `max_age`?",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', max_age = 60 }} }}"
            )),
            "4:51: static./s/.max_age: 60 has no unit",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ max_age = '1y' }} }}"
            )),
            "4:20: static./s/: the key `folder` is missing",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', index = 'a/b' }} }}"
            )),
            "4:49: static: `index` must be the name of a file, not \"a/b\"",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', precompressed = ['br', 'lzma'] }} }}"
            )),
            "4:57: static./s/.precompressed: \"lzma\" is not a content coding",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', headers = {{ 'X A' = 'b' }} }} }}"
            )),
            "4:53: static: \"X A\" is not a name of a header",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', headers = {{ A = \"b\\nc\" }} }} }}"
            )),
            "4:57: static: the value of the header A must not contain control characters",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', headers = {{ content-length = '7' }} }} }}"
            )),
            "4:53: static: the server sets the header content-length itself (remove it)",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', headers = {{ A = 'b', a = 'c' }} }} }}"
            )),
            "4:62: static: the header a is there twice",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = {{ folder = 'static', max_age = '1y', headers = {{ Cache-Control = 'no-store' }} }} }}"
            )),
            "4:69: static: `max_age` and `immutable` set the header Cache-Control",
        ),
        (
            app(&format!(
                "wsgi = 'a:b'\n{listen}\nstatic = {{ '/s/' = 'nope' }}"
            )),
            "4:20: static: there is no folder /srv/nope",
        ),
        (
            app("command = ['celery']\nlisten = ['127.0.0.1:80', '127.0.0.1:80']"),
            "3:27: listen: 127.0.0.1:80 is configured twice",
        ),
        (
            app("command = ['celery']\nlisten = ['0.0.0.0:80', '127.0.0.1:80']"),
            "3:25: listen: 127.0.0.1:80 and 0.0.0.0:80 cannot both be bound (remove one)",
        ),
        (
            app("command = ['celery']\nlisten = ['[::1]:80', '[::]:80']"),
            "3:23: listen: [::]:80 and [::1]:80 cannot both be bound (remove one)",
        ),
        (
            app("command = ['celery']\nlisten = [{ address = '127.0.0.1:80', mode = '0600' }]"),
            "3:11: listen: 127.0.0.1:80: `mode`",
        ),
        (
            app("command = ['celery']\nlisten = ['unix:nope/x']"),
            "3:11: listen: unix:/srv/nope/x: there is no folder /srv/nope",
        ),
        (
            app("command = ['celery']\nuser = 'nope'"),
            "3:8: user: there is no user \"nope\"",
        ),
        (
            app("command = ['celery']\ngroup = 'nope'"),
            "3:9: group: there is no group \"nope\"",
        ),
        (
            app("command = ['celery']\ntimeout = '3s'"),
            "3:11: `timeout` is for apps with `wsgi`, not for apps with `command` (use `watchdog`)",
        ),
        (
            app(&format!("wsgi = 'a:b'\n{listen}\nwatchdog = '3s'")),
            "4:12: `watchdog` is for apps with `command`, not for apps with `wsgi` (use `timeout`)",
        ),
        (
            app("command = ['celery']\nenv = { NOTIFY_SOCKET = 'x' }"),
            "3:9: env: the master sets NOTIFY_SOCKET for each worker (remove it)",
        ),
        (
            app("command = ['celery']\nenv = { 'A=' = 'x' }"),
            "3:9: env: \"A=\" is not a valid name",
        ),
    ];
    let others = [
        (
            "listen = [{ address = 'unix:x', owner = 'nope' }]",
            "3:41: listen.owner: there is no user",
        ),
        (
            "listen = [{ address = 'unix:x', group = 'nope' }]",
            "3:41: listen.group: there is no group",
        ),
        (
            "listen = [{ address = 'unix:x', name = 'a b' }]",
            "3:11: listen: \"a b\" is not a valid name for a listener",
        ),
        (
            "workers = { min = 1, max = 2 }",
            "3:11: workers: the number can follow the load only",
        ),
        (
            "reload = { check = { path = 'x' } }",
            "3:29: reload.check.path: must begin with",
        ),
        (
            "reload = { check = { path = '/', host = '' } }",
            "3:41: reload.check.host: \"\" is not a host name",
        ),
        (
            "reload = { check = { path = '/', expect = 100 } }",
            "3:43: reload.check.expect: must be between 200 and 599",
        ),
        (
            "reload = { check = { path = '/', failures = 2 } }",
            "3:45: reload.check.failures: it counts repeated checks (add `every`, or remove it)",
        ),
        (
            "reload = { check = { every = '10s' } }",
            "3:20: reload.check: a connection to a listener of the master always succeeds (add `path` for a request, or `command`)",
        ),
        (
            "reload = { check = { path = '/', command = ['celery'] } }",
            "3:44: reload.check.command: a check is either a request or a program",
        ),
        (
            "reload = { check = { command = ['nope'] } }",
            "3:32: reload.check.command: there is no program \"nope\" in PATH",
        ),
        (
            "reload = { check = { command = ['celery'], expect = 204 } }",
            "3:53: reload.check.expect: it belongs to a request (add `path`, or remove it)",
        ),
        (
            "reload = { check = { path = '/', attempts = 0 } }",
            "3:45: reload.check.attempts: must be at least 1",
        ),
        (
            "reload = { before = [] }",
            "3:21: reload.before: the name of a program is missing",
        ),
        (
            "reload = { before_at_start = true }",
            "3:30: reload.before_at_start: there is no command to run (add `before`",
        ),
        (
            "give_up = { crashes = 0, within = '1m' }",
            "3:23: give_up.crashes: must be at least 1",
        ),
        (
            "stdout = 'nope/x.log'",
            "3:10: stdout: there is no folder /srv/nope",
        ),
        (
            "log_owner = 'nope'",
            "3:13: log_owner: there is no user",
        ),
        (
            "log_group = 'nope'",
            "3:13: log_group: there is no group",
        ),
        (
            "log_rotate = { keep = 3 }",
            "3:14: log_rotate: the key `size` is missing",
        ),
        (
            "log_rotate = { size = '1MiB', keep = 0 }",
            "3:38: log_rotate.keep: must be between 1 and 1000",
        ),
        ("stderr = 'site'", "3:10: stderr: /srv/site is a folder"),
        (
            "stdout = '-'",
            "3:10: stdout: must be the path of a file, not \"-\" (leave `stdout` out for the standard output of preforkd)",
        ),
        (
            "stderr = 'syslog:'",
            "3:10: stderr: must be the path of a file, not \"syslog:\" (leave `stderr` out for the standard error",
        ),
        (
            "access_log = 'x.log'",
            "3:14: `access_log` is for apps with `wsgi`, not for apps with `command` (remove it)",
        ),
    ]
    .map(|(rest, expected)| (app(&format!("command = ['celery']\n{rest}")), expected));
    for (text, expected) in cases.into_iter().chain(others) {
        let error = plan_as((0, 0), &text).expect_err(&text);
        assert!(
            error.starts_with(&format!("app.toml:{expected}")),
            "{error}\nnot {expected}"
        );
    }
    let error = plan_as((1000, 1000), &app("command = ['celery']\nuser = 'www'")).unwrap_err();
    assert!(
        error.contains("3:8: user: only a master that runs as root"),
        "{error}"
    );
}

#[test]
fn an_access_log_goes_to_a_file_standard_output_or_syslog() {
    let app = |rest: &str| format!("[app.w]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:1']\n{rest}");
    for (rest, argument) in [
        ("access_log = 'a.log'", "/srv/a.log"),
        ("access_log = './-'", "/srv/-"),
        ("access_log = '-'", "-"),
        ("access_log = '-'\nstdout = 'out.log'", "/srv/out.log"),
        (
            "access_log = 'syslog:'\nstdout = 'out.log'",
            "syslog:/dev/log,facility=local7,tag=preforkd",
        ),
    ] {
        let plan = plan(&app(rest));
        let file = plan.apps["w"].output.access_log.as_ref().expect(rest);
        assert!(file.lossy, "no request waits for it");
        assert_eq!(file.target.argument(), argument);
        let json = serde_json::to_string(&plan).expect("it has a form");
        assert_eq!(serde_json::from_str::<Plan>(&json).expect(&json), plan);
    }
    let error = plan_as((0, 0), &app("access_log = 'syslog:a:b'")).expect_err("no port");
    let said = "app.toml:4:14: access_log: \"a:b\" is not the address of a syslog server (write";
    assert!(error.starts_with(said), "{error}");
}

#[test]
fn words_of_other_servers_for_an_access_log_are_no_file_names() {
    let app = |rest: &str| format!("[app.w]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:1']\n{rest}");
    let plan = plan_as((0, 0), &app("access_log = 'off'")).expect("it is valid");
    assert_eq!(plan.apps["w"].output.access_log, None);
    for (word, said) in [
        ("none", "\"none\" is not the path of a file (write \"off\";"),
        (
            "stdout",
            "\"stdout\" is not the path of a file (write \"-\"; for a file of this name, \"./stdout\")",
        ),
        (
            "stderr",
            "\"stderr\" is not the path of a file (write \"/dev/stderr\";",
        ),
        (
            "syslog",
            "\"syslog\" is not the path of a file (write \"syslog:\";",
        ),
        (
            "/dev/log",
            "/dev/log is the socket of a syslog server (write \"syslog:\")",
        ),
        (
            "syslog:server=192.0.2.1",
            "\"server=192.0.2.1\" is not the address of a syslog server (write",
        ),
    ] {
        let error = plan_as((0, 0), &app(&format!("access_log = '{word}'"))).expect_err(word);
        let expected = format!("app.toml:4:14: access_log: {said}");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_format_of_the_access_log_is_checked() {
    let error = |format: &str| {
        let text =
            format!("[app.w]\nwsgi = 'a:b'\nlisten = ['127.0.0.1:1']\naccess_format = '{format}'");
        plan_as((0, 0), &text).expect_err(format)
    };
    let unknown = error("{client} {statsu}");
    assert_eq!(
        unknown,
        "app.toml:4:17: access_format: unknown field {statsu}; did you mean {status}?"
    );
    for (format, said) in [
        ("{x}", "unknown field {x}; known here: client, user, time,"),
        ("%(h)s", "it has no field (write \"combined\", \"json\", or"),
        ("{status", "a brace without its counterpart (write {{"),
    ] {
        let error = error(format);
        assert!(error.contains(&format!("access_format: {said}")), "{error}");
    }
}

#[test]
fn log_files_are_kept_as_the_keys_say() {
    let keys = "log_mode = '0640'\nlog_owner = 'www'\nlog_group = 'media'\nlog_rotate = { size = '1MiB', keep = 3 }";
    let app = format!("[app.q]\ncommand = 'celery'\nstdout = 'a.log'\n{keys}");
    let plan = plan(&app);
    let file = plan.apps["q"].output.stdout.as_ref().expect("a file");
    let arguments: Vec<_> = file.upkeep.arguments().collect();
    let expected = [
        "--mode=416",
        "--owner=33",
        "--group=40",
        "--size=1048576",
        "--keep=3",
    ];
    assert_eq!(arguments, expected);
    let error = plan_as((1000, 1000), &app).expect_err("not root");
    let said = "app.toml:5:13: log_owner: only a master that runs as root";
    assert!(error.starts_with(said), "{error}");
    let none = plan_as(
        (1000, 1000),
        "[app.q]\ncommand = 'celery'\nstdout = 'a.log'",
    );
    let none = none.expect("good").apps["q"].output.clone();
    assert_eq!(none.stdout.expect("a file").upkeep, Upkeep::default());
}

#[test]
fn a_signal_is_written_as_name_or_number_in_any_case() {
    for text in ["QUIT", "quit", "SIGQUIT", "sigquit", "3"] {
        let plan = plan(&format!(
            "[app.q]\ncommand = 'celery'\nstop_signal = '{text}'"
        ));
        assert_eq!(plan.apps["q"].stop.signal, StopSignal::Quit, "{text}");
    }
    let text = "[app.q]\ncommand = 'celery'\nstop_signal = '9'";
    let error = plan_as((0, 0), text).expect_err("KILL");
    assert!(error.contains("is no signal that can tell"), "{error}");
}

#[test]
fn a_file_of_variables_with_a_dash_may_be_missing() {
    let text = "[app.q]\ncommand = 'celery'\nenv_file = '-nothing.env'";
    assert!(plan(text).apps["q"].launch.env.is_empty());
    let error = plan_as((0, 0), &text.replace('-', "")).expect_err("missing");
    assert!(error.contains("env_file: cannot read"), "{error}");
}

#[test]
fn the_control_socket_is_a_path() {
    for (text, said) in [
        (
            "",
            "app.toml:2:11: control: must be the path of a socket, not \"\"",
        ),
        (
            "unix:/run/a.sock",
            "app.toml:2:11: control: must be the path of a socket, not an address (write \"/run/a.sock\")",
        ),
    ] {
        let text = format!("[master]\ncontrol = '{text}'\n[app.q]\ncommand = 'celery'");
        let error = plan_as((0, 0), &text).expect_err("no path");
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_folder_is_included_by_a_pattern() {
    let error = plan_as((0, 0), "include = 'site'").expect_err("a folder");
    assert!(
        error.contains("is a folder (write \"site/*.toml\""),
        "{error}"
    );
}

#[test]
fn a_log_file_of_two_apps_has_one_upkeep() {
    let apps = |a: &str, b: &str| {
        plan_as(
            (0, 0),
            &format!("[app.a]\ncommand = 'celery'\n{a}\n[app.b]\ncommand = 'celery'\n{b}"),
        )
    };
    let rotate = "log_rotate = { size = '1MiB', keep = 3 }";
    let same = |a: &str, b: &str| apps(a, b).map(drop).expect("one upkeep");
    same("stdout = 'o.log'", "stderr = 'o.log'");
    same(
        &format!("stdout = 'o.log'\n{rotate}"),
        &format!("stderr = '/srv/site/../o.log'\n{rotate}\nstdout = 'o.log.4'"),
    );
    // Nothing but a regular file is rotated.
    same(
        &format!("stdout = 'other/run'\n{rotate}"),
        "stdout = 'other/run'",
    );
    for (a, b, key) in [
        (rotate, "", "log_rotate"),
        ("", "log_rotate = { size = '1MiB', keep = 2 }", "log_rotate"),
        ("log_mode = '0640'", "log_mode = '0600'", "log_mode"),
        ("log_owner = 'www'", "", "log_owner"),
        ("log_group = 'media'", "", "log_group"),
    ] {
        let error = apps(
            &format!("stdout = 'o.log'\n{a}"),
            &format!("stderr = '/srv/site/../o.log'\n{b}"),
        );
        let error = error.map(drop).expect_err(key);
        let said = format!("stderr: /srv/o.log is a log file of app.a too, with another `{key}`");
        assert!(error.contains(&said), "{error}");
        assert!(
            error.starts_with("app.toml:") && error.contains(":10: "),
            "{error}"
        );
    }
    let scheduled = format!("stdout = 'o.log'\nschedule = '@daily'\n{rotate}");
    let error = apps(&scheduled, "stdout = 'o.log'").map(drop);
    assert!(error.expect_err("differing").contains("of app.a too"));
}

#[test]
fn no_log_file_has_a_name_of_a_rotated_one() {
    let apps = |a: &str, b: &str| {
        let text = format!("[app.a]\ncommand = 'celery'\n{a}\n[app.b]\ncommand = 'celery'\n{b}");
        plan_as((0, 0), &text).map(drop).expect_err("one name")
    };
    let rotated = "stdout = 'o.log'\nlog_rotate = { size = '1MiB', keep = 3 }";
    let error = apps(rotated, "stdout = 'o.log.3'");
    let said = "app.toml:7:10: stdout: /srv/o.log.3 is a name that `log_rotate` gives to old files of /srv/o.log, the log file of app.a";
    assert!(error.starts_with(said), "{error}");
    let error = apps("stdout = 'o.log.1'", rotated);
    let said = "app.toml:6:10: stdout: `log_rotate` would rename /srv/o.log to /srv/o.log.1, the log file of app.a";
    assert!(error.starts_with(said), "{error}");
    let error = apps(&format!("{rotated}\nstderr = 'o.log.2'"), "");
    assert!(error.contains("stderr: /srv/o.log.2 is a name"), "{error}");
}

#[test]
fn lines_with_a_prefix_have_a_writer_for_each_process() {
    let output = |rest: &str| {
        let text = format!("[app.q]\ncommand = 'celery'\nprefix_output = true\n{rest}");
        let output = plan(&text).apps["q"].output.clone();
        let file = |file: &Option<LogFile>| {
            let file = file.as_ref().expect("a writer").of_process(Some(3), 7);
            let prefix = file.prefix.expect("it is asked for").to_string();
            (file.target.argument(), prefix)
        };
        (file(&output.stdout), file(&output.stderr))
    };
    let of = |target: &str| (target.into(), "q/3: ".to_owned());
    assert_eq!(output(""), (of("-"), of("/dev/stderr")));
    assert_eq!(output("stdout = 'a'"), (of("/srv/a"), of("/dev/stderr")));
    let both = output("stdout = 'a'\nstderr = 'a'");
    assert_eq!(both, (of("/srv/a"), of("/srv/a")));
    let without = plan("[app.q]\ncommand = 'celery'\nstdout = 'a'");
    assert_eq!(without.apps["q"].output.stderr, None);
    let stdout = without.apps["q"].output.stdout.clone().expect("a file");
    assert_eq!(stdout.of_process(Some(3), 7), stdout);
}
