//! What the configuration takes from elsewhere: variables of the environment, files of variables, other files.

mod common;

use common::{Run, app};

#[test]
fn references_get_the_environment_of_the_start_also_at_a_reload() {
    let config = app("workers = '${WEB_WORKERS}'\nenv = { DATA = '${DATA_DIR:-/none}/x' }");
    let mut run = Run::begin_with(&config, |command| {
        command
            .env("WEB_WORKERS", "2")
            .env("DATA_DIR", "/srv '\"] $X");
    });
    run.message("READY=1");
    assert_eq!(run.ask("env DATA"), "/srv '\"] $X/x");
    let message = run.reload();
    assert!(message.contains("generation 2: web 2/2 ready"), "{message}");
    run.write("app.toml", &app("env = { DATA = '${NOT_SET}' }"));
    let message = run.reload();
    let reason = "app.toml:4:17: env.DATA: the variable NOT_SET is not set";
    assert!(message.contains(reason), "{message}");
    assert_eq!(run.ask("env DATA"), "/srv '\"] $X/x");
    run.stop();
}

#[test]
fn a_variable_for_the_master_alone_is_refused_at_the_start_already() {
    let mut run = Run::begin(&app("env = { A = '${NOTIFY_SOCKET}' }"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(2), "{log}");
    assert!(
        log.contains("NOTIFY_SOCKET is meant for the master alone"),
        "{log}"
    );
}

#[test]
fn a_file_of_variables_is_read_at_each_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(".env"), "A='one two'\n").expect("room");
    let mut run = Run::begin_in(folder, &app("env_file = '.env'"), |_| {});
    run.message("READY=1");
    assert_eq!(run.ask("env A"), "one two");
    run.write(".env", "export A=three # changed\n");
    assert!(run.reload().contains("generation 2: web 1/1 ready"));
    assert_eq!(run.ask("env A"), "three");
    run.write(".env", "A=1\nB='hunter2\n");
    let message = run.reload();
    assert!(message.contains("app.toml:4:12: env_file: /"), "{message}");
    let reason = "/.env:2: B: the quote is not closed";
    assert!(message.contains(reason), "{message}");
    assert_eq!(run.ask("env A"), "three");
    let log = run.stop();
    assert!(!log.contains("hunter2"), "{log}");
}
