//! An app that is not required and lacks something keeps no other one down, and comes up when that is there.

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use common::{Run, app, ask, preforkd, worker};

/// The required app `web`, and `more`, which is not.
fn with_optional(more: &str) -> String {
    format!(
        "[master]\ncontrol = 'control'\n{}[app.more]\nrequired = false\n{more}\n",
        app("")
    )
}

fn status(run: &Run) -> (Option<i32>, String) {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["status", "-c", &file]).output();
    let output = output.expect("preforkd runs");
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text)
}

/// Waits until `web` serves, and nothing else.
fn only_web_is_ready(config: &str) -> Run {
    let run = Run::begin(config);
    let message = run.message("READY=1");
    assert!(message.contains("more 0/1 ready"), "{message}");
    assert!(!run.ask("pid").is_empty());
    run
}

#[test]
fn an_app_waits_for_a_port_that_another_process_has() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let worker = worker();
    let more = format!("command = '{worker}'\nlisten = '{address}'");
    let mut run = only_web_is_ready(&with_optional(&more));
    let said = format!("cannot listen on {address}: the address is in use by ");
    run.logged(&[
        "WARN",
        "app=more",
        &said,
        "not required, so it is tried again",
    ]);
    run.logged(&["ERROR", "app=more", &said, "retrying"]);
    let (code, text) = status(&run);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("more: 0/1 ready, failing"), "{text}");
    assert!(text.contains(&said), "{text}");

    drop(taken);
    run.logged(&["app=more", "could be opened now"]);
    run.logged(&["app=more: all its workers are ready now"]);
    let stream = std::net::TcpStream::connect(address).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    let (code, text) = status(&run);
    assert_eq!(code, Some(0), "{text}");
    run.stop();
}

#[test]
fn an_app_waits_for_its_folder_and_its_program() {
    let more = "command = ['./later/run']\nchdir = 'there'\nlisten = 'unix:sockets/more'";
    let mut run = only_web_is_ready(&with_optional(more));
    run.logged(&[
        "WARN",
        "app=more chdir: there is no folder",
        "it is tried again",
    ]);
    std::fs::create_dir(run.path("sockets")).expect("room");
    run.logged(&[
        "app=more",
        "its start failed: cannot change to the directory",
        "there",
    ]);
    std::fs::create_dir_all(run.path("there/later")).expect("room");
    let program = run.path("there/later/new");
    std::fs::write(&program, format!("#!/bin/sh\nexec {}\n", worker())).expect("room");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, everybody).expect("it is ours");
    std::fs::rename(&program, run.path("there/later/run")).expect("one file system");
    run.logged(&["app=more: all its workers are ready now"]);
    let stream = UnixStream::connect(run.path("sockets/more")).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    run.stop();
}

#[test]
fn a_user_that_is_missing_is_looked_for_at_the_next_reload() {
    let worker = worker();
    let listens = "listen = 'unix:more.sock'";
    let bad = format!(
        "command = '{worker}'\nuser = 'no-such-user'\n{listens}\n[app.more.reload]\nbefore = ['touch', 'ran']\nbefore_at_start = true"
    );
    let mut run = only_web_is_ready(&with_optional(&bad));
    let why = "user: there is no user \"no-such-user\" on this host";
    run.logged(&[
        "ERROR",
        "app=more",
        why,
        "not started until the next reload",
    ]);
    let (code, text) = status(&run);
    assert_eq!(code, Some(4), "{text}");
    assert!(
        text.contains("more: 0/1 ready, given up until the next reload"),
        "{text}"
    );
    assert!(text.contains(why), "{text}");
    assert!(
        !run.path("ran").exists(),
        "its command must not run as root"
    );

    let good = format!("command = '{worker}'\n{listens}");
    run.write("app.toml", &with_optional(&good));
    run.reload();
    run.logged(&["app=more: all its workers are ready now"]);
    let pid = || {
        ask(
            UnixStream::connect(run.path("more.sock")).expect("it listens"),
            "pid",
        )
    };
    let before = pid();

    // It serves now, so that the reload is refused.
    run.write("app.toml", &with_optional(&bad));
    let message = run.reload();
    assert!(
        message.contains("reload failed: ") && message.contains(why),
        "{message}"
    );
    assert_eq!(pid(), before);
    run.stop();
}
