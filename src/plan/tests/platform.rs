//! `PORT` and `WEB_CONCURRENCY`.

use super::*;

const WSGI: &str = "[app.w]\nwsgi = 'a:b'\n";
const LISTEN: &str = "listen = '127.0.0.1:7'\n";
const BOTH: Variables = &[("PORT", "5000"), ("WEB_CONCURRENCY", "3")];
const PORT: &str = "listens on 0.0.0.0:5000, from the variable PORT, because `listen` is not given";
const WORKERS: &str =
    "has 3 workers, from the variable WEB_CONCURRENCY, because `workers` is not given";

type Variables = &'static [(&'static str, &'static str)];

/// The address and the number of workers of the app `w`, and what is noted.
fn decided(variables: Variables, text: &str) -> Result<(String, u32, String), String> {
    let plan = plan_with((0, 0), variables, text)?;
    let sockets = plan.apps["w"].sockets.iter();
    let sockets: Vec<_> = sockets
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    let notices: Vec<_> = plan
        .notices()
        .map(|(app, text)| format!("{app} {text}"))
        .collect();
    let workers = plan.apps["w"].policy.workers;
    Ok((sockets.join(" "), workers, notices.join("; ")))
}

#[test]
fn the_platform_decides_what_the_configuration_does_not() {
    for (text, address, workers, noted) in [
        (
            WSGI.to_owned(),
            "w=0.0.0.0:5000",
            3,
            format!("w {PORT}; w {WORKERS}"),
        ),
        (
            format!("{WSGI}{LISTEN}"),
            "w=127.0.0.1:7",
            3,
            format!("w {WORKERS}"),
        ),
        (
            format!("{WSGI}{LISTEN}workers = 1"),
            "w=127.0.0.1:7",
            1,
            String::new(),
        ),
        (
            format!("{WSGI}workers = 2"),
            "w=0.0.0.0:5000",
            2,
            format!("w {PORT}"),
        ),
        (
            format!("{WSGI}workers = {{ min = 2, max = 4 }}"),
            "w=0.0.0.0:5000",
            2,
            format!("w {PORT}"),
        ),
        // Other programs read the variables themselves.
        ("[app.w]\ncommand = 'celery'".into(), "", 1, String::new()),
        (
            format!("{WSGI}[app.q]\ncommand = 'celery'"),
            "w=0.0.0.0:5000",
            3,
            format!("w {PORT}; w {WORKERS}"),
        ),
        (
            format!("{WSGI}{LISTEN}[app.v]\nwsgi = 'a:b'\nworkers = 2"),
            "w=127.0.0.1:7",
            3,
            format!("v {PORT}; w {WORKERS}"),
        ),
    ] {
        let found = decided(BOTH, &text).expect(&text);
        assert_eq!(found, (address.into(), workers, noted), "{text}");
    }
    let unset = &[("PORT", ""), ("WEB_CONCURRENCY", "")];
    let found = decided(unset, &format!("{WSGI}{LISTEN}")).expect("good");
    assert_eq!(found, ("w=127.0.0.1:7".into(), 1, String::new()));
    let two = format!("{WSGI}{LISTEN}[app.v]\nwsgi = 'a:b'\nlisten = '127.0.0.1:8'");
    let (_, workers, noted) = decided(BOTH, &two).expect("good");
    let said = "w the variable WEB_CONCURRENCY does not count: it is for one app, but [app.v], [app.w] have no `workers`";
    assert!(workers == 1 && noted.contains(said), "{noted}");
}

#[test]
fn what_the_platform_cannot_decide_is_an_error() {
    let cases: [(Variables, String, &str); 8] = [
        (
            &[("PORT", "http")],
            WSGI.to_owned(),
            "1:6: [app.w] has no `listen`, and the variable PORT must be a number from 1 to 65535, not \"http\"",
        ),
        (
            &[("PORT", "0")],
            WSGI.to_owned(),
            "1:6: [app.w] has no `listen`, and",
        ),
        (
            &[("PORT", "70000")],
            WSGI.to_owned(),
            "1:6: [app.w] has no `listen`, and",
        ),
        (
            BOTH,
            format!("{WSGI}listen = []"),
            "1:6: [app.w] has `wsgi`, but no listener",
        ),
        (
            BOTH,
            format!("{WSGI}[app.v]\nwsgi = 'a:b'"),
            "3:6: no listener: the variable PORT is for one app, but [app.v], [app.w] have no `listen`",
        ),
        (
            BOTH,
            format!("[app.q]\ncommand = 'celery'\nlisten = '0.0.0.0:5000'\n{WSGI}"),
            "4:6: listen: 0.0.0.0:5000 is configured twice",
        ),
        (
            &[("WEB_CONCURRENCY", "many")],
            format!("{WSGI}{LISTEN}"),
            "1:6: [app.w] has no `workers`, and the variable WEB_CONCURRENCY must be a number from 1 to 10000, not \"many\"",
        ),
        (
            &[("WEB_CONCURRENCY", "0")],
            format!("{WSGI}{LISTEN}"),
            "1:6: [app.w] has no `workers`, and",
        ),
    ];
    for (variables, text, expected) in cases {
        let error = decided(variables, &text).expect_err(&text);
        let expected = format!("app.toml:{expected}");
        assert!(error.starts_with(&expected), "{error}\nnot {expected}");
    }
}
