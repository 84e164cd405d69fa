use super::*;
use std::time::Duration;

/// The error that the user sees for a faulty file.
fn shown(text: &str) -> String {
    let place = Config::parse(text).expect_err("the file is faulty");
    Diagnostic::new("app.toml", text, place).to_string()
}

#[test]
fn every_key_of_the_design_is_read() {
    let config = Config::parse(
        r#"
        [master]
        pid_file = "/run/preforkd/preforkd.pid"
        [app.web]
        wsgi = "mysite.wsgi:application"
        listen = ["127.0.0.1:8000", "[::1]:8000", { address = "unix:web.sock", mode = "0660", group = "www" }, "fd:x"]
        workers = "auto"
        start_timeout = "1m 30s"
        max_body = "1MiB"
        ready = "250ms"
        "#,
    )
    .expect("a good file");
    let web = config.app.values().next().expect("one app");
    assert_eq!(*web.workers, Workers::Auto);
    assert_eq!(*web.start_timeout, Time(Duration::from_secs(90)));
    assert_eq!(*web.max_body, Size(1 << 20));
    assert_eq!(
        web.ready.as_deref(),
        Some(&Ready::After(Duration::from_millis(250)))
    );
    let addresses: Vec<_> = web
        .listen
        .iter()
        .map(|l| l.get_ref().0.address.to_string())
        .collect();
    assert_eq!(
        addresses,
        ["127.0.0.1:8000", "[::1]:8000", "unix:web.sock", "fd:x"]
    );
    let socket = &web.listen[2].get_ref().0;
    assert_eq!(socket.mode.as_deref(), Some(&Mode(0o660)));
}

#[test]
fn an_unknown_key_shows_its_position_and_the_nearest_known_one() {
    assert_eq!(
        shown("[app.web]\nwsgi = \"a:b\"\nwrokers = 4\n"),
        "app.toml:3:1: unknown key `wrokers`; did you mean `workers`?\n  |\n3 | wrokers = 4\n  | ^^^^^^^"
    );
}

#[test]
fn a_key_unlike_any_other_lists_the_known_ones() {
    let shown = shown("[master]\nzzz = 4\n");
    assert!(
        shown.starts_with("app.toml:2:1: unknown key `zzz`; known here: control, control_mode, control_group, pid_file"),
        "{shown}"
    );
}

#[test]
fn an_invalid_value_shows_its_position_and_what_to_write() {
    let cases = [
        (
            "[app.w]\nstart_timeout = \"30x\"",
            "2:17: start_timeout: \"30x\" is not a time",
            "\"1h30m\"",
        ),
        (
            "[app.w]\nstart_timeout = 30",
            "2:17: start_timeout: 30 has no unit",
            "\"30s\"",
        ),
        (
            "[app.w]\nstart_timeout = \"0s\"",
            "2:17: start_timeout: must be longer than zero",
            "not \"0s\"",
        ),
        (
            "[app.w]\nstart_timeout = \"300000years\"",
            "2:17: start_timeout: must be a year at most",
            "",
        ),
        (
            "[app.w.reload]\ncheck = \"/health\"",
            "2:9: reload.check: must be a table, not the string \"/health\"",
            "(write { path = \"/health\" })",
        ),
        (
            "[app]\nwsgi = 'm:app'\nlisten = ['127.0.0.1:80']",
            "3:1: listen: this app has no name",
            "(write it below [app.NAME], for example [app.web])",
        ),
        (
            "[[site]]\nlisten = '127.0.0.1:80'",
            "1:3: site: this site has no name",
            "[site.web]",
        ),
        (
            "[app]\nw = 4",
            "2:5: w: must be a table, not the number 4",
            "",
        ),
        (
            "[app.w]\ngive_up = { crashes = 3 }",
            "2:11: give_up: the key `within` is missing",
            "",
        ),
        (
            "[app.w.log_rotate]\nkeep = 3",
            "1:1: log_rotate: the key `size` is missing",
            "",
        ),
        (
            "[app.w]\ngive_up = { crashes = 3, within = \"1m\", then = \"stop\" }",
            "2:48: give_up.then: must be \"degrade\" or \"exit\", not \"stop\"",
            "",
        ),
        (
            "[app.w]\nthreads = \"four\"",
            "2:11: threads: must be a number from 1 to 1000, not the string \"four\"",
            "",
        ),
        (
            "[app.w]\nthreads = \"4000\"",
            "2:11: threads: must be between 1 and 1000, not 4000",
            "",
        ),
        (
            "[app.w]\nworkers = \"99999999999999999999\"",
            "2:11: workers: must be between 1 and 10000",
            "",
        ),
        (
            "[app.w]\nlisten = 8000",
            "2:10: listen: 8000 is not an address to listen on",
            "(write \"127.0.0.1:8000\", or",
        ),
        (
            "[app.w]\nlisten = \"localhost:80\"",
            "2:10: listen: \"localhost:80\" is not an address",
            "127.0.0.1:80",
        ),
        (
            "[app.w]\ncommand = 4",
            "2:11: command: must be a list, not the number 4",
            "(write [\"…\"])",
        ),
        (
            "[app.w]\ncommand = \"a | b\"",
            "2:11: command: no shell is involved",
            "write [\"sh\", \"-c\", \"a | b\"]",
        ),
        (
            "[app.w.reload]\nbefore = \"a && b\"",
            "2:10: reload.before: no shell is involved",
            "write [\"sh\", \"-c\", \"a && b\"]",
        ),
        (
            "[app.w]\nlisten = [\"a\", \"0.0.0.0:${PORT}\"]",
            "2:25: listen: the variable PORT is not set",
            "2 | listen = [\"a\", \"0.0.0.0:${PORT}\"]\n  |                         ^^^^^^^",
        ),
        (
            "[app.w]\nenv = { A = \"x\\u0024{B}\" }",
            "2:13: env.A: the variable B is not set",
            "${B:-DEFAULT}",
        ),
        (
            "[master]\npid_file = '${HOME'",
            "2:13: pid_file: \"${\" has no \"}\"",
            "${NAME:-DEFAULT}",
        ),
        (
            "[app.w]\nstatic = { '/${A}/' = { folder = '${B}' } }",
            "2:35: static./${A}/.folder: the variable B is not set",
            "",
        ),
        (
            "[app.w]\nthreads = 1001",
            "2:11: threads: must be between 1 and 1000, not 1001",
            "",
        ),
        (
            "[app.w]\nmax_requests = -1",
            "2:16: max_requests: must be at least 1, not -1",
            "",
        ),
        (
            "[app.w]\numask = 22",
            "2:9: umask: must be octal digits in quotes, not the number 22",
            "(write \"022\")",
        ),
        (
            "[app.w]\nchdir = 22",
            "2:9: chdir: must be a path, not the number 22",
            "(write it in quotes: \"22\")",
        ),
        (
            "[app.w]\nenv = []",
            "2:7: env: must be a table, not a list",
            "",
        ),
        (
            "[app.w]\npreload = 1",
            "2:11: preload: must be a boolean, not the number 1",
            "",
        ),
        (
            "[app.w]\nmax_body = \"10\"",
            "2:12: max_body: \"10\" has no unit",
            "10MiB",
        ),
        (
            "[app.w]\nmax_body = \"0B\"",
            "2:12: max_body: must be more than zero",
            "",
        ),
        (
            "[app.w]\nmax_body = \"many\"",
            "2:12: max_body: \"many\" is not a size",
            "512MiB",
        ),
        (
            "[app.w]\nworkers = 0",
            "2:11: workers: must be between 1 and 10000",
            "not 0",
        ),
        (
            "[app.w]\nworkers = \"lots\"",
            "2:11: workers: must be a number, \"auto\"",
            "lots",
        ),
        (
            "[app.w]\numask = \"999\"",
            "2:9: umask: \"999\" is not a mode",
            "0660",
        ),
        (
            "[app.w]\nready = \"soon\"",
            "2:9: ready: must be \"notify\", \"exec\" or a time",
            "soon",
        ),
        (
            "[app.w]\nlisten = [\":80\"]",
            "2:11: listen: \":80\" is not an address",
            "0.0.0.0:80",
        ),
        (
            "[app.w]\nlisten = [\"localhost:80\"]",
            "2:11: listen: \"localhost:80\" is not an address",
            "127.0.0.1:80",
        ),
        (
            "[app.w]\nlisten = [\"unix:\"]",
            "2:11: listen: \"unix:\" needs a path",
            "/run",
        ),
        (
            "[app.w]\nlisten = [\"::1:80\"]",
            "2:11: listen: \"::1:80\" is not an address",
            "[::1]:80",
        ),
        (
            "[app.w]\nlisten = [\"127.0.0.1:80000\"]",
            "2:11: listen: \"127.0.0.1:80000\" is not an address",
            "from 1 to 65535",
        ),
        (
            "[app.w]\nlisten = [\":80\"]",
            "2:11: listen: \":80\" is not an address",
            "0.0.0.0:80",
        ),
        (
            "[app.w]\nlisten = [\"fd://3\"]",
            "2:11: listen: \"fd://3\" does not name an inherited socket",
            "FileDescriptorName=",
        ),
        (
            "[app.w]\nlisten = [\"example.org:80\"]",
            "2:11: listen: \"example.org:80\" is not an address",
            "looks up no names; write the address of example.org",
        ),
        (
            "[app.w]\nlisten = [{ address = \"x\" }]",
            "2:23: listen.address: \"x\" is not an address",
            "fd:NAME",
        ),
        (
            "[app.w]\nlisten = [{ addres = \"x\" }]",
            "2:13: listen: unknown key `addres`",
            "did you mean `address`",
        ),
        (
            "[app.w]\nasgi = \"m:app\"",
            "2:1: unknown key `asgi`: preforkd serves WSGI applications",
            "uvicorn",
        ),
        (
            "[app.w]\nlisten = [{ mode = \"0600\" }]",
            "2:11: listen: the key `address` is missing",
            "",
        ),
        (
            "[app.w]\nworkers = { min = 3, max = 2 }",
            "2:11: workers: `min` must not be greater than `max`",
            "",
        ),
        (
            "[app.w]\nworkers = { min = 3, max = 10001 }",
            "2:28: workers.max: must be between 1 and 10000",
            "",
        ),
        (
            "[app.w]\nworkers = { min = 3, mex = 4 }",
            "2:22: workers: unknown key `mex`",
            "did you mean `max`",
        ),
        (
            "[aap.x]\na = 1",
            "1:2: unknown key `aap`",
            "did you mean `app`",
        ),
        (
            "[app.w.relod]\na = 1",
            "1:8: unknown key `relod`",
            "did you mean `reload`",
        ),
        (
            "[app.w.reload.chek]\na = 1",
            "1:15: reload: unknown key `chek`",
            "did you mean `check`",
        ),
        ("master = 4", "1:10: master: must be a table", ""),
        (
            "[app.'a.b']\nthreads = 0",
            "2:11: threads: must be between 1 and 1000",
            "",
        ),
        (
            "[app.w]\nreload.soak = \"5x\"",
            "2:15: reload.soak: \"5x\" is not a time",
            "",
        ),
        (
            "[[app.w.listen]]\naddress = \"x\"",
            "2:11: listen.address: \"x\" is not an address",
            "",
        ),
        (
            "[app.w]\nenv = { A = 4.5 }",
            "2:13: env.A: must be a string, not the number 4.5",
            "",
        ),
        (
            "[app.w]\nenv = { A = 0x10 }",
            "2:13: env.A: must be a string, not the number 16",
            "",
        ),
        (
            "[app.w]\nthreads = 4.5",
            "2:11: threads: must be a whole number, not 4.5",
            "",
        ),
        (
            "[app.w]\nworkers = 2.0",
            "2:11: workers: must be a whole number, not 2.0 (write 2)",
            "",
        ),
        (
            "[app.w]\nlog_mode = 640",
            "2:12: log_mode: must be octal digits in quotes, not the number 640 (write \"0640\")",
            "",
        ),
        (
            "[app.w]\numask = 18",
            "2:9: umask: must be octal digits in quotes, not the number 18 (write for example \"0640\")",
            "",
        ),
        (
            "[app.w]\ncheck = true",
            "2:1: unknown key `check`",
            "write `check` in the table [app.NAME.reload]",
        ),
        (
            "[app.w]\nthreads = 99999999999999999999",
            "2:11: threads: must be",
            "99999999999999999999\n",
        ),
        ("[app.w", "1:7: unclosed table", ""),
        (
            "[app.w]\naccess_log = true",
            "2:14: access_log: must be a path, not the boolean true",
            "(write \"…\")",
        ),
        (
            "[app.w]\npreload = \"yes\"",
            "2:11: preload: must be a boolean",
            "(write true or false)",
        ),
        (
            "[app.w]\ntimeout = \"30\"",
            "2:11: timeout: \"30\" has no unit",
            "\"30s\"",
        ),
        (
            "[app.w]\nstatic = []",
            "2:10: static: must be a table",
            "(write { \"/static/\" = \"FOLDER\" })",
        ),
        (
            "[app.w]\nPreload = true",
            "2:1: unknown key `Preload`",
            "did you mean `preload`?",
        ),
        (
            "[app.w]\nmax-body = true",
            "2:1: unknown key `max-body`",
            "did you mean `max_body`?",
        ),
        (
            "[app.w]\nbind = \"x\"",
            "2:1: unknown key `bind`",
            "did you mean `listen`?",
        ),
        (
            "[app.w]\nstdout_logfile_maxbytes = '1MB'",
            "2:1: unknown key `stdout_logfile_maxbytes`",
            "did you mean `log_rotate`?",
        ),
        (
            "[include]\nfiles = 'conf.d/*.toml'",
            "1:1: include: must be a list, not a table",
            "(write [\"…\"])",
        ),
        (
            "[app.w]\nharakiri = 30",
            "2:1: unknown key `harakiri`",
            "did you mean `timeout`?",
        ),
        (
            "[app.w]\nworker_class = \"gevent\"",
            "2:1: unknown key `worker_class`: there is one kind of worker",
            "`threads`",
        ),
        (
            "[app.w]\ncertfile = \"x\"",
            "2:1: unknown key `certfile`: an app speaks no TLS",
            "[site.NAME]",
        ),
        (
            "[app.w]\nforwarded_allow_ips = \"*\"",
            "2:1: unknown key `forwarded_allow_ips`",
            "did you mean `trusted_proxies`?",
        ),
        (
            "[app.w]\nreload = true",
            "2:10: reload: must be \"always\", \"on-change\" or a table, not the boolean true",
            "or a table, not the boolean true",
        ),
        (
            "[app.w]\nlisten = [{ host = \"x\", port = 1 }]",
            "2:13: listen: unknown key `host`",
            "known here: address, name",
        ),
        (
            "[app.w]\npidfile = \"x\"",
            "2:1: unknown key `pidfile`",
            "write `pid_file` in the table [master]",
        ),
        (
            "bind = \"x\"",
            "1:1: unknown key `bind`",
            "write `listen` in the table [app.NAME] or [site.NAME]",
        ),
        (
            "[app.w.reload]\nsurge = 1\nworkers = 4",
            "3:1: unknown key `workers`",
            "write `workers` in the table [app.NAME] or [front]",
        ),
        (
            "[site.s]\nlisten = \"[::1]:1\"\naccess_log = \"-\"",
            "3:1: unknown key `access_log`",
            "write `access_log` in the table [app.NAME] or [front]",
        ),
        (
            "[master]\nuser = \"www\"",
            "2:1: unknown key `user`",
            "write `user` in the table [app.NAME] or [front]",
        ),
        (
            "[front]\nmetrics = \"127.0.0.1:9000\"",
            "2:1: unknown key `metrics`",
            "write `metrics` in the table [master]",
        ),
        (
            "[app.w]\nlisten = [{ address = \"unix:x\", user = \"www\" }]",
            "2:33: listen: unknown key `user`",
            "did you mean `owner`?",
        ),
        (
            "[web]\nwsgi = \"x\"",
            "1:2: unknown key `web`",
            "(an app is a table [app.NAME], and a site [site.NAME])",
        ),
        (
            "[app.w]\nwsgi = \"a:b\"\nwsgi = \"c:d\"",
            "3:1: wsgi stands twice",
            "(remove one)",
        ),
    ];
    for (text, place, hint) in cases {
        let shown = shown(text);
        assert!(shown.starts_with(&format!("app.toml:{place}")), "{shown}");
        assert!(shown.contains(hint), "{shown}");
    }
}

#[test]
fn a_number_is_as_good_as_a_string_where_its_meaning_is_clear() {
    let text = "[app.w]\nenv = { A = 1, B = true, C = -1 }\nlog_mode = 0o640\numask = 0o027";
    let config = Config::parse(text).expect("it is right");
    let app = &config.app["w"];
    let env: Vec<_> = app.env.values().map(String::as_str).collect();
    assert_eq!(env, ["1", "true", "-1"]);
    assert_eq!(app.log_mode.as_deref(), Some(&Mode(0o640)));
    assert_eq!(app.umask.as_deref(), Some(&Mode(0o027)));
}

#[test]
fn what_is_no_address_is_answered_with_one() {
    for (written, hint) in [
        ("http://127.0.0.1:8000/", "write \"127.0.0.1:8000\")"),
        ("tcp://[::1]:8000", "write \"[::1]:8000\")"),
        ("https://127.0.0.1:8443", "TLS is for a server in front"),
        ("ftp://x", "\"fd:NAME\""),
        (
            " 127.0.0.1:8000",
            "write \"127.0.0.1:8000\", without spaces",
        ),
        ("/run/web.sock", "write \"unix:/run/web.sock\""),
        ("./web", "write \"unix:./web\""),
        ("web.sock", "write \"unix:web.sock\""),
        ("unix:@web", "\"unix:/run/web\""),
        ("8000", "write \"127.0.0.1:8000\""),
        ("80000", "from 1 to 65535, not \"80000\""),
        ("127.0.0.1", "\"127.0.0.1:8000\""),
        ("::1", "\"[::1]:8000\""),
        ("::", "\"[::]:8000\""),
        ("[::]", "\"[::]:8000\""),
        ("localhost", "\"127.0.0.1:8000\""),
        ("::1:8000", "write \"[::1]:8000\""),
        ("::1:21335", "write \"[::1]:21335\""),
        ("*:80", "write \"0.0.0.0:80\""),
        ("0:80", "write \"0.0.0.0:80\""),
        ("127.0.0.1:http", "from 1 to 65535, not \"http\""),
        ("127.0.0.1:-1", "from 1 to 65535, not \"-1\""),
        ("127.0.0.1:", "from 1 to 65535, not \"\""),
        ("[::1]:65536", "from 1 to 65535, not \"65536\""),
        ("[fe80::1%eth0]:80", "the number of an interface"),
        (
            "256.1.1.1:80",
            "256.1.1.1 is no IPv4 address: each of its numbers is at most 255",
        ),
        ("a b:80", "\"fd:NAME\""),
        ("", "\"fd:NAME\""),
    ] {
        let shown = shown(&format!("[app.w]\nlisten = [{written:?}]"));
        assert!(
            shown.contains(hint) && shown.contains(&format!("{written:?}")),
            "{shown}"
        );
    }
}

#[test]
fn the_caret_stands_under_the_position_whatever_comes_before() {
    let text = "# ü\r\n[app.w]\r\n\tworkers = 0 # null\r\n";
    assert!(
        shown(text).ends_with("\n3 |  workers = 0 # null\n  |            ^"),
        "{}",
        shown(text)
    );
}

/// A configuration in an environment with some variables.
fn with_variables(text: &str) -> Result<Config, Place> {
    let variable = |name: &str| {
        let value = match name {
            "PORT" => "8000",
            "N" => "3",
            "YES" => "true",
            "TIME" => "5s",
            "WORDS" => "a 'b' \"] | c\nthreads = 7",
            _ => return Ok(None),
        };
        Ok(Some(value.to_owned()))
    };
    let sources = Sources::new("app.toml".into(), "/".into(), text.to_owned());
    Document::parse(&sources, 0, &variable)?.typed(&sources)
}

#[test]
fn variables_are_replaced_in_strings_of_every_key_and_never_in_keys() {
    let config = with_variables(
        r#"
        [app.web]
        listen = ["127.0.0.1:${PORT}", { address = "unix:${PORT}.sock", name = "n${N}" }]
        workers = "${N}"
        threads = "${N}"
        preload = "${YES}"
        start_timeout = "${TIME}"
        env = { A = "${WORDS}", "${N}" = "$${N}", B = "$N", C = "${NONE:-}" }
        command = "run ${WORDS} '${N} ${N}' ${NONE:-x}"
        chdir = """${NONE:-/srv
}"""
        [app.web.static]
        "/${N}/" = "${N}"
        [app.web.reload.check]
        path = "/${N}"
        expect = "204"
        "#,
    )
    .expect("a good file");
    let web = config.app.values().next().expect("one app");
    let addresses = web.listen.iter().map(|l| &l.get_ref().0);
    let addresses: Vec<_> = addresses
        .map(|l| {
            (
                l.address.to_string(),
                l.name.as_ref().map(|n| n.to_string()),
            )
        })
        .collect();
    assert_eq!(
        addresses,
        [
            ("127.0.0.1:8000".into(), None),
            ("unix:8000.sock".into(), Some("n3".into()))
        ]
    );
    assert_eq!((&*web.workers, web.threads.0), (&Workers::Number(3), 3));
    assert!(*web.preload);
    assert_eq!(web.start_timeout.0, Duration::from_secs(5));
    let words = "a 'b' \"] | c\nthreads = 7";
    let env: Vec<_> = web
        .env
        .iter()
        .map(|(k, v)| (k.get_ref().as_str(), v.as_str()))
        .collect();
    assert_eq!(
        env,
        [("${N}", "${N}"), ("A", words), ("B", "$N"), ("C", "")]
    );
    let command = web.command.as_ref().expect("it is written");
    assert_eq!(command.to_vec(), ["run", words, "3 3", "x"]);
    assert_eq!(web.chdir.as_deref(), Some(&"/srv\n".into()));
    let (prefix, mapped) = web.static_files.mappings.iter().next().expect("one");
    assert_eq!(
        (prefix.as_str(), mapped.get_ref().0.folder.to_str()),
        ("/${N}/", Some("3"))
    );
    let check = web.reload.check.as_ref().expect("it is written");
    let path = check.path.as_ref().expect("it is written");
    assert_eq!((path.as_str(), check.expect.0), ("/3", 204));
}

#[test]
fn a_single_value_is_as_good_as_a_list_of_one_and_a_string_as_a_command() {
    let single = with_variables(
        "[app.w]\nlisten = '127.0.0.1:80'\ntrusted_proxies = 'unix'\ncommand = 'a \"b c\"'\npreload = 'true'\nworkers = '4'\nreload.before = 'a b'",
    );
    let list = with_variables(
        "[app.w]\nlisten = ['127.0.0.1:80']\ntrusted_proxies = ['unix']\ncommand = ['a', 'b c']\npreload = true\nworkers = 4\nreload.before = ['a', 'b']",
    );
    let (single, list) = (single.expect("good"), list.expect("good"));
    let (single, list) = (&single.app["w"], &list.app["w"]);
    let same = |text: &App| {
        let entries = text
            .listen
            .iter()
            .map(|l| l.get_ref().0.address.to_string());
        let entries: Vec<_> = entries.collect();
        let before = text.reload.before.as_ref().map(|words| words.to_vec());
        let command = text.command.as_ref().map(|words| words.to_vec());
        let proxies = text.trusted_proxies.to_vec();
        (
            entries,
            proxies,
            command,
            before,
            *text.preload,
            (*text.workers).clone(),
        )
    };
    assert_eq!(same(single), same(list));
    let table = with_variables("[app.w.listen]\naddress = 'unix:x'").expect("good");
    assert_eq!(table.app["w"].listen.len(), 1);
}

proptest::proptest! {
    #[test]
    fn what_a_variable_holds_stays_one_string(value in "[^\0]*") {
        let text = "[app.w]\nenv = { A = '${V}', B = \"\"\"<${V}>\"\"\" }\ncommand = 'run --x=${V} ${V}'\nlisten = []";
        let sources = Sources::new("app.toml".into(), "/".into(), text.to_owned());
        let variable = |_: &str| Ok(Some(value.clone()));
        let config = Document::parse(&sources, 0, &variable).and_then(|it| it.typed(&sources));
        let config = config.expect("a good file");
        let app = &config.app["w"];
        assert_eq!(app.env["A"], value);
        assert_eq!(app.env["B"], format!("<{value}>"));
        let command = app.command.as_ref().expect("it is written");
        assert_eq!(command.to_vec(), ["run", &format!("--x={value}"), &value]);
    }

    #[test]
    fn any_text_is_read_or_answered(text in "[\\[\\]{}$\"'=.,:#a-z\\-\n é]*") {
        for text in [text.clone(), format!("[app.w]\ncommand = '''{text}'''"), format!("[app.w]\nenv = {{ A = \"{text}\" }}")] {
            let sources = Sources::new("app.toml".into(), "/".into(), text.clone());
            let read = Document::parse(&sources, 0, &|_| Ok(None)).and_then(|it| it.typed(&sources));
            if let Err(place) = read {
                assert!(sources.diagnostic(place).to_string().starts_with("app.toml:"));
            }
        }
    }

    #[test]
    fn any_value_can_be_quoted_in_a_file_of_variables(value in "[^\0\r]*", rest in "[\"'\\\\=#a-z \n]*") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!("A=\"{quoted}\" # a comment\nexport B = 2\n");
        let expected = vec![("A".to_owned(), value), ("B".to_owned(), "2".to_owned())];
        assert_eq!(env_file::variables(&text), Ok(expected));
        // Anything may follow, and has a line if it is wrong.
        if let Err(wrong) = env_file::variables(&(text.clone() + &rest)) {
            assert!(wrong.line >= 3);
        }
    }
}
