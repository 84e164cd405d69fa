use super::*;

/// The text for these arguments, in an environment with `PORT` or without.
fn given(arguments: &[&str], port: Option<&str>) -> Given {
    let command = add_to(Command::new("preforkd").arg(Arg::new("target")));
    let all = std::iter::once("preforkd").chain(arguments.iter().copied());
    let matches = command.try_get_matches_from(all).expect("valid arguments");
    let application: &String = matches.get_one("target").expect("an application");
    let variable = |name: &str| port.filter(|_| name == "PORT").map(str::to_owned);
    configuration(application, &matches, variable)
}

fn text(arguments: &[&str]) -> String {
    given(arguments, None).text
}

#[test]
fn an_application_alone_listens_where_only_this_host_reaches_it() {
    let expected = "[app.web]\nwsgi = \"mysite.wsgi\"\nlisten = [\"127.0.0.1:8000\"]\n";
    assert_eq!(text(&["mysite.wsgi"]), expected);
    // The check of the configuration reads the variable.
    let given = given(&["mysite.wsgi"], Some("5000"));
    assert_eq!(given.text, "[app.web]\nwsgi = \"mysite.wsgi\"\n");
    assert!(text(&["m.w"]).contains("listen"));
    let empty = super::tests::given(&["m.w"], Some(""));
    assert!(empty.text.contains("listen"), "{}", empty.text);
}

#[test]
fn options_set_keys_as_users_of_gunicorn_type_them() {
    for (arguments, line) in [
        (&["-w", "4"][..], "workers = 4"),
        (&["-w", "auto"], "workers = \"auto\""),
        (&["--workers=4x"], "workers = \"4x\""),
        (&["--threads", "2"], "threads = 2"),
        (&["--timeout", "90"], "timeout = \"90s\""),
        (&["--timeout", "2m"], "timeout = \"2m\""),
        (&["--keep-alive", "5"], "keepalive_timeout = \"5s\""),
        (&["--preload"], "preload = true"),
        (&["--chdir", "/srv/$x"], "chdir = \"/srv/$$x\""),
        (&["--access-logfile", "-"], "access_log = \"-\""),
        (
            &["-e", "A=1", "-e", "B=x=\"y\""],
            "env = { A = \"1\", B = \"x=\\\"y\\\"\" }",
        ),
        (
            &["--static", "/static/=static"],
            "static = { \"/static/\" = \"static\" }",
        ),
        (&["--static", "django"], "static = \"django\""),
        (
            &["--forwarded-allow-ips", "10.0.0.1, unix"],
            "trusted_proxies = [\"10.0.0.1\", \"unix\"]",
        ),
        (&["-m", "022"], "umask = \"022\""),
        (
            &["-b", ":80", "--listen", "[::1]:81"],
            "listen = [\"0.0.0.0:80\", \"[::1]:81\"]",
        ),
        (&["-b", "0:80"], "listen = [\"0.0.0.0:80\"]"),
        (&["-b", "*:80"], "listen = [\"0.0.0.0:80\"]"),
        (&["-b", "80"], "listen = [\"127.0.0.1:80\"]"),
        (&["-b", "localhost:80"], "listen = [\"127.0.0.1:80\"]"),
        (&["-b", "unix:web.sock"], "listen = [\"unix:web.sock\"]"),
    ] {
        let text = text(&[&["m.w"], arguments].concat());
        assert!(
            text.lines().any(|found| found == line),
            "{text}\nnot: {line}"
        );
        let table: Result<toml::Table, _> = text.parse();
        assert!(table.is_ok(), "{text}");
    }
}

#[test]
fn all_options_together_are_a_configuration() {
    let mut arguments = vec!["m.w", "-n", "shop"];
    for setting in &SETTINGS {
        let value = match setting.value {
            "" => None,
            "NUMBER" => Some("2"),
            "TIME" => Some("20"),
            "NAME=VALUE" => Some("A=b"),
            "PREFIX=PATH|django" => Some("/static/=s"),
            "ADDRESS" => Some(":80"),
            "ADDRESSES" => Some("10.0.0.1"),
            "MODE" => Some("022"),
            _ => Some("x"),
        };
        let long: &'static str = Box::leak(format!("--{}", setting.long).into_boxed_str());
        arguments.extend([Some(long), value].into_iter().flatten());
    }
    let given = given(&arguments, None);
    let written: toml::Table = given.text.parse().expect("TOML");
    assert_eq!(written["master"]["pid_file"].as_str(), Some("x"));
    let app = written["app"]["shop"].as_table().expect("a table");
    assert_eq!(app.len(), SETTINGS.len(), "wsgi instead of pid_file");
    let options = given.options.expect("it was given by options");
    assert_eq!(
        options.len(),
        SETTINGS.len() + 2,
        "the name and the application"
    );
    for by in options {
        let part = &given.text[by.part];
        assert!(
            part.starts_with(by.key) || part.starts_with("[app."),
            "{part} is by {}",
            by.option
        );
    }
}

#[test]
fn each_option_sets_a_key_of_the_table_once() {
    for setting in &SETTINGS {
        assert!(setting.row().is_some(), "{}", setting.key);
        assert_eq!(written(setting.key), Some(format!("--{}", setting.long)));
        let same = |other: &&Setting| {
            other.long == setting.long || other.short.is_some() && other.short == setting.short
        };
        assert_eq!(SETTINGS.iter().filter(same).count(), 1, "{}", setting.long);
    }
}

#[test]
fn options_of_other_servers_are_answered_with_ours() {
    for (option, said) in [
        ("-k", "one kind of worker"),
        ("--worker-class", "one kind of worker"),
        ("-D", "stays in the foreground"),
        ("--daemon", "stays in the foreground"),
        ("--certfile", "`tls` in a table [site.NAME]"),
        ("--http-socket", "write --bind"),
        ("--processes", "write --workers"),
        ("--harakiri", "write --timeout"),
        ("--module", "preforkd mysite.wsgi"),
        ("--reload", "preforkd reload"),
        ("--max-memory", "write `max_memory` in app.toml"),
        ("--limit-request-fields", "write `max_headers` in app.toml"),
    ] {
        let answer = elsewhere(option).expect(option);
        assert!(answer.contains(said), "{option}: {answer}");
    }
    // Known here, but not where it was given.
    assert_eq!(elsewhere("--workers"), None);
    assert_eq!(elsewhere("--nonsense"), None);
    assert_eq!(elsewhere("-x"), None);
}
