use super::*;
use std::time::Duration;

/// What the user would see of a faulty file.
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
    assert_eq!(web.workers, Some(Workers::Auto));
    assert_eq!(web.start_timeout, Some(Time(Duration::from_secs(90))));
    assert_eq!(*web.max_body.as_ref().unwrap().get_ref(), Size(1 << 20));
    assert_eq!(
        *web.ready.as_ref().unwrap().get_ref(),
        Ready::After(Duration::from_millis(250))
    );
    let addresses: Vec<_> = web
        .listen
        .iter()
        .map(|l| l.get_ref().address.to_string())
        .collect();
    assert_eq!(
        addresses,
        ["127.0.0.1:8000", "[::1]:8000", "unix:web.sock", "fd:x"]
    );
    assert_eq!(web.listen[2].get_ref().mode, Some(Mode(0o660)));
}

#[test]
fn an_unknown_key_shows_its_place_and_the_nearest_known_one() {
    assert_eq!(
        shown("[app.web]\nwsgi = \"a:b\"\nwrokers = 4\n"),
        "app.toml:3:1: unknown key `wrokers`; did you mean `workers`?\n  |\n3 | wrokers = 4\n  | ^^^^^^^"
    );
}

#[test]
fn a_key_like_no_other_lists_the_known_ones() {
    let shown = shown("[master]\nzzz = 4\n");
    assert!(
        shown.starts_with("app.toml:2:1: unknown key `zzz`; known here are: pid_file"),
        "{shown}"
    );
}

#[test]
fn a_wrong_value_shows_the_place_of_the_value_and_what_to_write() {
    let cases = [
        (
            "[app.w]\nstart_timeout = \"30x\"",
            "2:17: \"30x\" is no time",
            "\"1h30m\"",
        ),
        (
            "[app.w]\nstart_timeout = 30",
            "2:17: 30 has no unit",
            "\"30s\"",
        ),
        (
            "[app.w]\nstart_timeout = \"0s\"",
            "2:17: the time \"0s\"",
            "longer than zero",
        ),
        (
            "[app.w]\nstart_timeout = \"300000years\"",
            "2:17: the time \"300000years\"",
            "longer than a year",
        ),
        (
            "[app.w]\nlisten = \"127.0.0.1:80\"",
            "2:10: invalid type",
            "(write a list: [\"…\"])",
        ),
        (
            "[app.w.reload]\ncheck = \"/health\"",
            "2:9: invalid type: string \"/health\", expected a table",
            "(write a table: { path = \"/\" })",
        ),
        (
            "[app.w]\ngive_up = { crashes = 3 }",
            "2:11: the key `within`",
            "is missing",
        ),
        (
            "[app.w]\nthreads = \"4\"",
            "2:11: invalid type",
            "expected a number",
        ),
        (
            "[app.w]\numask = 22",
            "2:9: invalid type",
            "(write it in quotes)",
        ),
        (
            "[app.w]\nmax_body = \"10\"",
            "2:12: the size \"10\" has no unit",
            "10MiB",
        ),
        (
            "[app.w]\nmax_body = \"many\"",
            "2:12: \"many\" is no size",
            "512MiB",
        ),
        (
            "[app.w]\nworkers = 0",
            "2:11: workers must be between 1 and 10000",
            "not 0",
        ),
        (
            "[app.w]\nworkers = \"lots\"",
            "2:11: workers must be a number, \"auto\"",
            "lots",
        ),
        (
            "[app.w]\numask = \"999\"",
            "2:9: \"999\" is no mode",
            "0660",
        ),
        ("[app.w]\nready = \"soon\"", "2:9: ready must be", "soon"),
        (
            "[app.w]\nlisten = [\":80\"]",
            "2:11: \":80\" is no address",
            "0.0.0.0:80",
        ),
        (
            "[app.w]\nlisten = [\"localhost:80\"]",
            "2:11: \"localhost:80\" is no address",
            "127.0.0.1:80",
        ),
        (
            "[app.w]\nlisten = [\"unix:\"]",
            "2:11: \"unix:\" needs a path",
            "/run",
        ),
        (
            "[app.w]\nlisten = [{ address = \"x\" }]",
            "2:23: \"x\" is no address",
            "fd:NAME",
        ),
        (
            "[app.w]\nlisten = [{ addres = \"x\" }]",
            "2:13: unknown key `addres`",
            "did you mean `address`",
        ),
        (
            "[app.w]\nworkers = { min = 3, max = 2 }",
            "2:11: workers: min is 3 and max is 2",
            "",
        ),
        (
            "[app.w]\nworkers = { min = 3, mex = 4 }",
            "2:22: unknown key `mex`",
            "did you mean `max`",
        ),
        ("[app.w", "1:7: ", "unclosed"),
    ];
    for (text, place, hint) in cases {
        let shown = shown(text);
        assert!(shown.starts_with(&format!("app.toml:{place}")), "{shown}");
        assert!(shown.contains(hint), "{shown}");
    }
}

#[test]
fn the_caret_stands_under_the_place_whatever_comes_before() {
    let text = "# ü\r\n[app.w]\r\n\tworkers = 0 # null\r\n";
    assert!(
        shown(text).ends_with("\n3 |  workers = 0 # null\n  |            ^"),
        "{}",
        shown(text)
    );
}
