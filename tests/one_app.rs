//! Commands about one app: the others continue with the workers, listeners and the generation that they have.

mod common;

use std::os::unix::net::UnixStream;

use common::{Run, ask, preforkd, worker};
use serde_json::Value;

/// Sends a command; returns its exit status and what it prints.
fn command(run: &Run, words: &[&str]) -> (Option<i32>, String) {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(words).args(["-c", &file]).output();
    let output = output.expect("preforkd runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).expect("text");
    (output.status.code(), printed)
}

/// The answer of a command that succeeds.
fn done(run: &Run, words: &[&str]) -> String {
    let (status, printed) = command(run, words);
    assert_eq!(status, Some(0), "{printed}");
    printed
}

/// The apps `web` and `api`; these lines are added to their tables.
fn apps(web: &str, api: &str) -> String {
    let worker = worker();
    let app = |name: &str, more: &str| {
        format!("[app.{name}]\ncommand = '{worker}'\nlisten = 'unix:{name}.sock'\n{more}\n")
    };
    "[master]\ncontrol = 'control'\n".to_owned() + &app("web", web) + &app("api", api)
}

fn connects(run: &Run, app: &str) -> bool {
    UnixStream::connect(run.path(&format!("{app}.sock"))).is_ok()
}

/// The process that answers.
fn pid(run: &Run, app: &str) -> String {
    let stream = UnixStream::connect(run.path(&format!("{app}.sock")));
    ask(stream.expect("the socket is open"), "pid")
}

fn app(run: &Run, name: &str) -> Value {
    let status: Value = serde_json::from_str(&done(run, &["status", "--json"])).expect("JSON");
    let apps = status["apps"].as_array().expect("a list").clone();
    let mut apps = apps.into_iter();
    apps.find(|app| app["name"] == name).expect("it is there")
}

#[test]
fn only_the_named_app_is_reloaded() {
    let mut run = Run::start(&apps("", ""));
    let (web, api) = (pid(&run, "web"), pid(&run, "api"));
    // The definition of the other app stays as it runs, too.
    run.write("app.toml", &apps("workers = 2", "workers = 3"));
    let said = done(&run, &["reload", "web"]);
    assert!(
        said.contains("generation 2: api 1/1 ready; web 2/2 ready"),
        "{said}"
    );
    assert_ne!(pid(&run, "web"), web);
    assert_eq!(pid(&run, "api"), api);
    assert_eq!(app(&run, "api")["workers"][0]["generation"], 1);

    let (status, said) = command(&run, &["reload", "web", "wep"]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("there is no app \"wep\" (configured: api, web)"),
        "{said}"
    );
    // The whole file is checked.
    run.write("app.toml", &apps("", "workers = 0"));
    let (status, said) = command(&run, &["reload", "web"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("app.toml:10:11: workers"), "{said}");
    assert_eq!(pid(&run, "api"), api);
    run.stop();
}

#[test]
fn a_stopped_app_stays_stopped_until_it_is_started() {
    let mut run = Run::start(&apps("", ""));
    let api = pid(&run, "api");
    // It needs no configuration.
    run.write("app.toml", "nonsense");
    assert_eq!(done(&run, &["stop", "web"]), "web: stopped\n");
    assert!(!connects(&run, "web"), "its listener is closed");
    run.write("app.toml", &apps("", ""));
    assert_eq!(done(&run, &["stop", "web"]), "web: already stopped\n");
    let message = done(&run, &["reload"]);
    assert!(message.contains("web stopped"), "{message}");
    let other = pid(&run, "api");
    assert_ne!(other, api, "a reload replaces the others");
    assert_eq!(app(&run, "web")["stopped"], "by command");
    for refused in [&["scale", "web=2"][..], &["reload", "web"]] {
        let (status, said) = command(&run, refused);
        assert_eq!(status, Some(1));
        assert!(
            said.contains("web is stopped (start it with `preforkd start web`)"),
            "{said}"
        );
    }

    run.write(
        "app.toml",
        &apps("start_timeout = '10s'\nenv = { A = 'b' }", ""),
    );
    run.write("behaviour", "exit 7");
    let (status, said) = command(&run, &["start", "web"]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("exited with status 7") && said.contains("; web stays stopped"),
        "{said}"
    );
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    let said = done(&run, &["start", "web"]);
    assert!(said.contains("web 1/1 ready"), "{said}");
    assert!(connects(&run, "web"));
    assert_eq!(done(&run, &["start", "web"]), "web: already running\n");

    let web = pid(&run, "web");
    done(&run, &["restart", "web"]);
    assert_ne!(pid(&run, "web"), web);
    assert_eq!(
        pid(&run, "api"),
        other,
        "all this does not concern the other app"
    );
    run.stop();
}

#[test]
fn an_app_that_is_not_enabled_is_started_by_a_command() {
    let mut run = Run::start(&apps("enabled = false", ""));
    assert!(!connects(&run, "web"));
    assert_eq!(app(&run, "web")["stopped"], "by configuration");
    let said = done(&run, &["status"]);
    assert!(said.contains("web: stopped by configuration"), "{said}");
    done(&run, &["start", "web"]);
    let message = done(&run, &["reload"]);
    assert!(
        message.contains("web 1/1 ready"),
        "a reload changes nothing: {message}"
    );
    run.stop();
}

#[test]
fn an_app_without_changes_can_stay_at_a_reload() {
    let table = "reload = 'on-change'\nenv_file = 'env'\nchdir = 'current'";
    let folder = tempfile::tempdir().expect("a folder");
    for release in ["1", "2"] {
        std::fs::create_dir(folder.path().join(release)).expect("room");
    }
    let link = |to: &str| {
        let link = folder.path().join("current");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(to, link).expect("room");
    };
    link("1");
    std::fs::write(folder.path().join("env"), "A=1").expect("room");
    let path = folder.path().to_owned();
    let config = apps(table, "").replace("current", &path.join("current").display().to_string());
    let config = config.replace("'env'", &format!("'{}'", path.join("env").display()));
    let mut run = Run::start(&config);
    let (web, api) = (pid(&run, "web"), pid(&run, "api"));
    run.reload();
    run.logged(&["app=web: nothing has changed, so its workers stay"]);
    assert_eq!(pid(&run, "web"), web);
    assert_ne!(pid(&run, "api"), api);
    let mut last = web;
    let replaced = |run: &Run, why: &str, last: &mut String| {
        run.reload();
        let now = pid(run, "web");
        assert_ne!(now, *last, "{why}");
        *last = now;
    };
    std::fs::write(path.join("env"), "A=2").expect("room");
    replaced(&run, "a variable has changed", &mut last);
    link("2");
    replaced(&run, "the link leads to another folder", &mut last);
    std::fs::remove_file(run.path("web.sock")).expect("it is there");
    std::fs::write(run.path("web.sock"), "").expect("room");
    std::fs::remove_file(run.path("web.sock")).expect("it is there");
    run.reload();
    assert!(connects(&run, "web"), "its socket has its file again");
    let now = pid(&run, "web");
    done(&run, &["reload", "web"]);
    assert_ne!(pid(&run, "web"), now, "it was named");
    run.stop();
}
