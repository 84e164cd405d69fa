//! `replace = "stop-first"`: programs of which there must not be two at a time.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::programs::write_script;
use common::{Run, app, preforkd, worker};
use nix::sys::signal::Signal;

/// A program that holds a lock, like all that it starts, and does not start without it.
fn alone() -> String {
    let script = format!(
        "exec 9>lock; flock -n 9 || {{ echo the lock is taken >&2; exit 7; }}; exec {}",
        worker()
    );
    format!(
        "[app.beat]\ncommand = ['/bin/sh', '-c', '{script}']\nlisten = ['unix:web.sock']\nreplace = 'stop-first'\ngraceful_timeout = '300ms'\n"
    )
}

#[test]
fn the_new_one_starts_when_nothing_of_the_old_one_is_left() {
    let mut run = Run::start(&alone());
    run.ask("start group");
    let message = run.reload();
    assert!(
        message.contains("generation 2: beat 1/1 ready"),
        "{message}"
    );
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "2");
    run.logged(&["left a process that it had started; sending SIGTERM"]);
    run.logged(&["sending SIGKILL to a process that it had started"]);
    run.logged(&[
        "app=beat: generation 2 runs, after ",
        " without a ready worker",
    ]);
    run.stop();
}

#[test]
fn one_that_crashes_is_replaced_when_nothing_of_it_is_left() {
    let mut run = Run::start(&alone());
    run.event("started");
    run.ask("start group");
    assert_eq!(run.ask("exit 3"), "");
    run.logged(&[
        "exited with status 3",
        "its app goes on when what it has started has ended",
    ]);
    run.status("beat 0/1 ready (1 leaving)");
    run.logged(&["sending SIGKILL to a process that it had started"]);
    run.event("started");
    run.logged(&["app=beat worker=0 gen=1", "ready after"]);
    let log = run.stop();
    assert!(!log.contains("the lock is taken"), "{log}");
}

#[test]
fn if_the_new_one_fails_the_old_one_is_started_again() {
    let mut run = Run::start(&alone());
    run.write("app.toml", &alone().replace("exec 9>", "exit 3; exec 9>"));
    let message = run.reload();
    let refused = "reload failed: app=beat: its first worker exited with status 3";
    assert!(message.contains(refused), "{message}");
    run.logged(&[
        "app=beat: generation 1 runs again, after ",
        " without a ready worker",
    ]);
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "1");
    run.write("app.toml", &alone());
    let message = run.reload();
    assert!(
        message.contains("generation 3: beat 1/1 ready"),
        "{message}"
    );
    run.stop();
}

#[test]
fn the_failure_of_another_app_ends_nothing() {
    let config = |program: &str| {
        let other =
            format!("[app.web]\ncommand = '{program}'\nready = 'exec'\nreload.soak = '1s'\n");
        alone() + &other
    };
    let mut run = Run::start(&config("sleep 1000"));
    let before = run.event("started").pid;
    run.write("app.toml", &config("false"));
    let message = run.reload();
    assert!(message.contains("reload failed: app=web: "), "{message}");
    let stat = run.ask("file /proc/self/stat");
    let pid = stat.split(' ').next();
    assert_eq!(pid, Some(before.to_string().as_str()), "the same process");
    let log = run.stop();
    assert!(!log.contains("without a ready worker"), "{log}");
}

#[test]
fn a_reload_replaces_it_with_all_others() {
    let config = app("") + &alone().replace("web.sock", "beat.sock");
    let mut run = Run::start(&config);
    run.reload();
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "2");
    run.signal(Signal::SIGTERM);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("the lock is taken"), "{log}");
}

/// The same program in an app of another name.
fn renamed(program: &str) -> String {
    let config = alone().replace("[app.beat]", "[app.cron]");
    config.replace("exec 9>", &format!("{program}exec 9>"))
}

#[test]
fn a_renamed_app_ends_before_the_one_of_the_new_name_starts() {
    let mut run = Run::start(&alone());
    run.ask("start group");
    run.write("app.toml", &renamed(""));
    let message = run.reload();
    assert!(
        message.contains("generation 2: cron 1/1 ready"),
        "{message}"
    );
    run.logged(&["app=beat: no longer configured; its workers end before others start"]);
    run.logged(&["left a process that it had started; sending SIGTERM"]);
    run.logged(&["sending SIGKILL to a process that it had started"]);
    let log = run.stop();
    assert!(!log.contains("the lock is taken"), "{log}");
}

#[test]
fn if_the_program_of_the_new_name_fails_the_old_one_serves_again() {
    for required in ["", "[app.cron]\nrequired = false"] {
        let renamed = |program: &str| match required {
            "" => renamed(program),
            _ => renamed(program).replace("[app.cron]", required),
        };
        let mut run = Run::start(&alone());
        run.write("app.toml", &renamed("exit 3; "));
        let message = run.reload();
        let refused = "reload failed: app=cron: its first worker exited with status 3";
        assert!(message.contains(refused), "{message}");
        assert!(
            message.contains("beat: no worker at present, generation 1 is being started again"),
            "{message}"
        );
        run.logged(&["app=beat: generation 1 runs again, after "]);
        assert_eq!(run.ask("env PREFORKD_GENERATION"), "1");
        // One that another app has displaced is displaced again.
        run.write("app.toml", &renamed(""));
        let message = run.reload();
        assert!(
            message.contains("generation 3: cron 1/1 ready"),
            "{message}"
        );
        let log = run.stop();
        assert!(!log.contains("the lock is taken"), "{log}");
    }
}

#[test]
fn an_app_takes_over_what_a_disabled_one_had() {
    let beat = alone().replace("unix:web.sock", "unix:beat.sock");
    let cron = |script: &str| {
        format!(
            "[app.cron]\ncommand = ['/bin/sh', '-c', '{script}exec {}']\nlisten = ['unix:web.sock']\nreplace = 'stop-first'\n",
            worker()
        )
    };
    let mut run = Run::start(&(beat.clone() + &cron("")));
    let takes = cron("exec 9>lock; flock -n 9 || exit 7; ");
    run.write("app.toml", &(beat.clone() + "enabled = false\n" + &takes));
    let message = run.reload();
    assert!(
        message.contains("generation 2: cron 1/1 ready; beat stopped"),
        "{message}"
    );
    run.logged(&["app=beat: stopped; its workers end before others start"]);
    run.stop();
}

#[test]
fn a_listener_at_the_address_of_a_worker_names_its_app() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let script = format!(
        "import socket; s = socket.create_server((\"127.0.0.1\", {})); print(0, 1, 1, \"bound\", flush=True); s.accept()",
        address.port()
    );
    let own = format!(
        "[app.own]\nreplace = 'stop-first'\nready = 'exec'\ncommand = ['python3', '-c', '{script}']\n"
    );
    let mut run = Run::start(&(app("") + &own));
    run.event("bound");
    run.write(
        "app.toml",
        &app(&format!("listen = '{address}'")).replace("listen = ['unix:web.sock']\n", ""),
    );
    let message = run.reload();
    let once = format!(
        "cannot listen on {address}: a worker of own has it (`preforkd stop own` frees it); keeping"
    );
    assert!(message.contains(&once), "{message}");
    run.stop();
}

#[test]
fn one_that_binds_an_address_beside_the_old_one_is_told_what_to_do() {
    let script = "mkdir lock || { echo Address already in use >&2; exit 1; }; exec sleep 1000";
    let config = format!(
        "[app.x]\nready = '1s'\nreload.soak = '1s'\ncommand = ['/bin/sh', '-c', '{script}']\n"
    );
    let mut run = Run::start(&config);
    let message = run.reload();
    let said = "Address already in use) (the old one still has it: ";
    assert!(message.contains(said), "{message}");
    run.stop();
}

/// The same app with a program in the folder behind a link, as deployment tools make one for each release.
fn released(required: bool, more: &str) -> String {
    format!(
        "[master]\ncontrol = 'control'\n[app.beat]\ncommand = './run'\nchdir = 'current'\nlisten = ['unix:web.sock']\nrequired = {required}\n{more}\n"
    )
}

/// Lets `current` lead to a release.
fn release(folder: &Path, name: &str) {
    symlink(name, folder.join("next")).expect("room");
    std::fs::rename(folder.join("next"), folder.join("current")).expect("ours");
}

#[test]
fn nothing_ends_for_a_release_that_is_known_not_to_start() {
    let stop_first = "replace = 'stop-first'";
    for (required, replace) in [(false, stop_first), (false, ""), (true, stop_first)] {
        let folder = tempfile::tempdir().expect("a folder");
        for release in ["good", "empty"] {
            std::fs::create_dir(folder.path().join(release)).expect("room");
        }
        let script = format!("#!/bin/sh\nexec {}\n", worker());
        write_script(folder.path().join("good/run"), &script);
        release(folder.path(), "good");
        let config = released(required, replace);
        let mut run = Run::begin_in(folder, &config, |_| {});
        let serving = run.event("started").pid;
        run.logged(&["app=beat worker=0 gen=1", "ready after"]);
        let file = run.path("app.toml").display().to_string();
        let refused = |order: &[&str], why: &str| {
            let output = preforkd().args(order).args(["-c", &file]).output();
            let output = output.expect("preforkd runs");
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{order:?}: {said}");
            assert!(said.contains(why), "{order:?}: {said}");
        };
        let orders: [&[&str]; 3] = [&["reload"], &["reload", "beat"], &["restart", "beat"]];
        for order in orders {
            release(&run.path(""), "nowhere");
            refused(order, "app.toml:5:9: chdir: there is no folder ");
            release(&run.path(""), "empty");
            refused(order, "command: there is no executable file ");
            release(&run.path(""), "good");
        }
        let fails = format!("{replace}\nreload.before = ['false']");
        run.write("app.toml", &released(required, &fails));
        for order in &orders[..2] {
            refused(order, "its command `before` exited with status 1");
        }
        let stat = run.ask("file /proc/self/stat");
        let pid = stat.split(' ').next();
        assert_eq!(pid, Some(serving.to_string().as_str()), "the same process");
        let log = run.stop();
        assert!(!log.contains("without a ready worker"), "{log}");
    }
}
