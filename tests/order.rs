//! The order of apps at start and stop: `after`.

mod common;

use common::{Run, app, preforkd, worker};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// An app `db`, and `web` after it, which goes on when it is told to end until it is asked to.
fn ordered(rest: &str) -> String {
    let web = app(&format!("after = ['db']\n{rest}"));
    let web = web.replace("']\nlisten", "', 'ignore-signals']\nlisten");
    format!("{web}[app.db]\ncommand = ['{}']\n", worker())
}

/// Starts them; returns their workers as they started.
fn started(config: &str) -> (Run, Pid, Pid) {
    let mut run = Run::start(config);
    let (db, web) = (run.event("started").pid, run.event("started").pid);
    run.logged(&["app=db worker=0", &format!("pid={db}")]);
    (run, db, web)
}

#[test]
fn apps_end_in_the_opposite_order_of_their_start() {
    let (mut run, db, web) = started(&ordered(""));
    run.signal(Signal::SIGTERM);
    let told = run.next_event();
    assert_eq!((told.pid, &*told.name), (web, "term"));
    run.logged(&["app=db: ends after the apps that come after it (web)"]);
    run.ask("say serves");
    let serves = run.next_event();
    assert_eq!((serves.pid, &*serves.name), (web, "serves"));
    assert_eq!(run.ask("exit 0"), "");
    let told = run.next_event();
    assert_eq!((told.pid, &*told.name), (db, "term"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn an_app_has_ended_when_nothing_that_it_has_started_is_left() {
    let config = ordered("graceful_timeout = '200ms'").replace("', 'ignore-signals'", "'");
    let (mut run, db, web) = started(&config);
    run.ask("start group");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.event("term").pid, web);
    assert_eq!(run.event("term").pid, db);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    let killed = log.find("sending SIGKILL to a process that it had started");
    let db_ended = log.rfind("app=db worker=0");
    assert!(killed.is_some() && killed < db_ended, "{log}");
}

#[test]
fn an_app_that_starts_later_is_shown_with_what_it_waits_for() {
    let db = format!("[app.db]\ncommand = ['{}', 'mute']\n", worker());
    let before = "[app.db.reload]\nbefore = ['cat', 'gate']\nbefore_at_start = true\n";
    let config = format!(
        "[master]\ncontrol = 'control.sock'\n{}{db}{before}",
        app("after = ['db']")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let gate = folder.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("room");
    let mut run = Run::begin_in(folder, &config, |_| {});
    let shows = |run: &Run, lines: [&str; 2]| {
        let mut command = preforkd();
        let command = command.arg("status").arg("-c").arg(run.path("app.toml"));
        let output = command.output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        assert_eq!(output.status.code(), Some(4), "it is not ready");
    };
    run.logged(&["before pid=", "running"]);
    run.status("web 0/1 ready, to be started later");
    let for_commands = "0/1 ready, waiting for the commands `before`\n";
    let both = ["web", "db"].map(|name| format!("{name}: {for_commands}"));
    shows(&run, both.each_ref().map(String::as_str));
    std::fs::write(gate, "").expect("it is read");
    run.event("started");
    shows(
        &run,
        ["db: 0/1 ready\n", "web: 0/1 ready, waiting for db\n"],
    );
    run.signal(Signal::SIGTERM);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn a_second_signal_ends_all_at_once() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut run, db, web) = started(&ordered("graceful_timeout = '1h'"));
        run.signal(Signal::SIGTERM);
        assert_eq!(run.event("term").pid, web);
        run.signal_from_another(second);
        assert_eq!(run.event("term").pid, db);
        let (status, log) = run.ended();
        assert_eq!(status, Some(0), "{log}");
        assert!(log.contains("stopping now"), "{log}");
    }
}

#[test]
fn what_is_not_required_and_fails_keeps_no_app_from_its_start_or_stop() {
    let broken = format!("command = ['{}', 'exit 3']\nrequired = false\n", worker());
    for config in [
        format!("{}after = ['db']\n[app.db]\n{broken}", app("")),
        format!("{}[app.late]\nafter = ['web']\n{broken}", app("")),
    ] {
        let mut run = Run::start(&config);
        run.logged(&["exited with status 3"]);
        let log = run.stop();
        assert!(log.contains("app=web worker=0 gen=1"), "{log}");
    }
}
