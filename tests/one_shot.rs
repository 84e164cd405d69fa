//! Programs that do their work and end: `restart`.

mod common;

use common::{Run, preforkd, worker};
use nix::sys::signal::Signal;

fn app(restart: &str, script: &str) -> String {
    format!(
        "[master]\ncontrol = 'control'\n[app.task]\ncommand = ['/bin/sh', '-c', '{script}']\nrestart = '{restart}'\n"
    )
}

#[test]
fn a_program_that_has_finished_is_not_started_again_and_is_in_order() {
    for restart in ["on-failure", "never"] {
        let mut run = Run::begin(&app(restart, "echo 0 1 $$$$ ran"));
        run.event("ran");
        run.logged(&["app=task worker=0 gen=1", "finished after "]);
        run.status("generation 1: task finished");
        let mut status = preforkd();
        status.args(["status", "--socket"]);
        let status = status.arg(run.path("control")).output();
        let status = status.expect("it runs");
        let shown = String::from_utf8_lossy(&status.stdout);
        assert_eq!(status.status.code(), Some(0), "{shown}");
        assert!(shown.contains("task: 0/1 ready, 1 finished"), "{shown}");
        let message = run.reload();
        assert!(message.contains("generation 2: task "), "{message}");
        run.event("ran");
        run.logged(&["app=task worker=0 gen=2", "finished after "]);
        let log = run.stop();
        assert!(!log.contains("ERROR"), "{log}");
        assert_eq!(log.matches("finished after").count(), 2, "{log}");
    }
}

#[test]
fn a_failure_is_one_line_with_its_reason() {
    let script = "read line < go; echo no such table >&2; exit 3";
    let folder = tempfile::tempdir().expect("a folder");
    nix::unistd::mkfifo(&folder.path().join("go"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut run = Run::begin_in(folder, &app("never", script), |_| {});
    run.message("READY=1");
    run.write("go", "now\n");
    let line = run.logged(&["app=task worker=0 gen=1", "exited"]);
    let reason = "exited with status 3, after ";
    assert!(line.contains("ERROR") && line.contains(reason), "{line}");
    let rest = "(its last output: no such table); it is not started again until the next reload";
    assert!(line.contains(rest), "{line}");
    run.status("task 0/1 ready (1 failed)");
    let log = run.stop();
    assert_eq!(log.matches("app=task worker").count(), 2, "{log}");
}

#[test]
fn on_failure_it_is_tried_again() {
    let script = "mkdir first && exit 3; echo 0 1 $$$$ ran";
    let config = app("on-failure", script) + "ready = 'exec'\nrequired = false\n";
    let mut run = Run::begin(&config);
    run.event("ran");
    run.logged(&["exited with status 3", "starting a replacement"]);
    run.logged(&["finished after "]);
    run.stop();
}

/// Its end may be seen together with its execution, or later.
#[test]
fn a_program_that_ends_at_once_does_not_start() {
    for restart in ["always", "on-failure", "never"] {
        let config = app(restart, "exit 3") + "ready = 'exec'\n";
        let (status, log) = Run::begin(&config).ended();
        assert_eq!(status, Some(1), "{log}");
        let reason = "cannot start: app=task: its first worker exited with status 3, ";
        assert!(log.contains(reason), "{log}");
        assert!(!log.contains("starting a replacement"), "{log}");
    }
    let (status, log) = Run::begin(&(app("always", "exit 0") + "ready = 'exec'\n")).ended();
    assert_eq!(status, Some(1), "{log}");
    let hint = "(a program that is to end needs `restart`, see preforkd.toml(5))";
    assert!(log.contains(hint), "{log}");
}

/// Runs a command that names the app `task`; returns its exit status and all that it says.
fn command(run: &Run, word: &str) -> (Option<i32>, String) {
    let mut command = preforkd();
    command.args([word, "task", "--socket"]);
    let output = command.arg(run.path("control")).output();
    let output = output.expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    (output.status.code(), said)
}

#[test]
fn a_command_that_starts_a_program_says_what_became_of_it() {
    for restart in ["never", "on-failure", "always"] {
        let script = "echo no such table >&2; exit 3";
        let config = app(restart, script) + "ready = 'exec'\nenabled = false\n";
        let web = format!("[app.web]\ncommand = '{}'\n", worker());
        let mut run = Run::start(&(config + &web));
        let stays = "exited with status 3, ";
        for word in ["start", "restart"] {
            let (code, said) = command(&run, word);
            assert_eq!(code, Some(1), "{said}");
            let refused = "task could not be started: app=task: its first worker ";
            assert!(said.contains(refused) && said.contains(stays), "{said}");
            assert!(said.contains("task stays stopped"), "{said}");
        }
        run.stop();
    }
}

#[test]
fn a_command_that_starts_a_program_says_that_another_worker_has_failed() {
    let script = "test $PREFORKD_SLOT = 0 && exec sleep 1000; echo no such table >&2; exit 3";
    let config = app("never", script) + "ready = '300ms'\nworkers = 2\nenabled = false\n";
    let web = format!("[app.web]\ncommand = '{}'\n", worker());
    let mut run = Run::start(&(config + &web));
    let (code, said) = command(&run, "start");
    assert_eq!(code, Some(1), "{said}");
    let fails = "task was started and fails: exited with status 3, ";
    assert!(said.contains(fails), "{said}");
    assert!(said.contains("no such table"), "{said}");
    run.stop();
}

/// An app, and a task that runs before it.
fn with_task(script: &str) -> String {
    let web = format!(
        "[app.web]\ncommand = '{}'\nlisten = 'unix:web.sock'\n",
        worker()
    );
    app("never", script) + "run_before = 'web'\n" + &web
}

#[test]
fn a_task_of_apps_that_are_not_required_keeps_no_other_app_waiting() {
    let config = |script: &str| {
        let optional = with_task(script).replace("[app.web]\n", "[app.web]\nrequired = false\n");
        format!("{optional}[app.api]\ncommand = '{}'\n", worker())
    };
    let folder = tempfile::tempdir().expect("a folder");
    nix::unistd::mkfifo(&folder.path().join("go"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let waits = "read status < go; exit $$status";
    let mut run = Run::begin_in(folder, &config(waits), |_| {});
    let message = run.message("READY=1");
    assert!(message.contains("api 1/1 ready"), "{message}");
    assert!(message.contains("web 0/1 ready"), "{message}");
    run.write("go", "3\n");
    run.logged(&["app=task", "exited with status 3"]);
    let failed = "its task task has failed; not started until the next reload";
    run.logged(&["ERROR", "app=web", failed]);

    let message = run.reload();
    assert!(
        message.contains("web 0/1 ready"),
        "its task runs: {message}"
    );
    run.write("go", "0\n");
    run.logged(&["app=task", "finished after"]);
    run.logged(&["app=web: all its workers are ready now"]);
    run.stop();
}

#[test]
fn nothing_starts_before_the_task_has_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    nix::unistd::mkfifo(&folder.path().join("go"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let config = with_task("read line < go; echo 0 $PREFORKD_GENERATION $$$$ migrated");
    let mut run = Run::begin_in(folder, &config, |_| {});
    for generation in ["1", "2"] {
        run.write("go", "now\n");
        for name in ["migrated", "started"] {
            let event = run.next_event();
            assert_eq!((&*event.generation, &*event.name), (generation, name));
        }
        let ready = format!("generation {generation}: task finished; web 1/1 ready");
        run.status(&ready);
        if generation == "1" {
            run.signal(Signal::SIGHUP);
        }
    }
    let log = run.stop();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_task_that_fails_refuses_the_release() {
    let mut run = Run::start(&with_task("exit 0"));
    let web = run.event("started").pid;
    let mut scale = preforkd();
    scale
        .args(["scale", "task=2", "--socket"])
        .arg(run.path("control"));
    let answer = scale.output().expect("it runs");
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(said.contains("task is a task of the release"), "{said}");
    run.write("app.toml", &with_task("echo no such table >&2; exit 3"));
    let message = run.reload();
    let refused =
        "reload failed: app=task: its first worker exited with status 3, before it was ready";
    assert!(message.contains(refused), "{message}");
    assert!(message.contains("keeping generation 1"), "{message}");
    let stat = run.ask("file /proc/self/stat");
    assert_eq!(stat.split(' ').next(), Some(&*web.to_string()));
    run.logged(&[
        "exited with status 3",
        "no such table",
        "its generation has failed",
    ]);
    run.stop();
}

#[test]
fn at_the_first_start_a_task_that_fails_ends_the_master() {
    let mut run = Run::begin(&with_task("exit 3"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(1), "{log}");
    let reason = "cannot start: app=task: its first worker exited with status 3";
    assert!(log.contains(reason), "{log}");
    assert!(!log.contains("app=web worker"), "{log}");
}

#[test]
fn a_task_has_start_timeout_to_finish() {
    let config = with_task("exec sleep 1000").replace(
        "[app.web]",
        "start_timeout = '200ms'\nabort_grace = '1s'\n[app.web]",
    );
    let mut run = Run::begin(&config);
    let (status, log) = run.ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("not finished within start_timeout"), "{log}");
    assert!(!log.contains("not ready within"), "{log}");
}

#[test]
fn a_restart_is_refused_before_anything_is_stopped_while_its_task_is() {
    let mut run = Run::start(&with_task("exit 0"));
    let ask = |run: &Run, words: &[&str]| {
        let mut command = preforkd();
        command.args(words).arg("--socket").arg(run.path("control"));
        let output = command.output().expect("preforkd starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let web = run.ask("pid");
    assert_eq!(ask(&run, &["stop", "task"]).0, Some(0));
    let (status, said) = ask(&run, &["restart", "web"]);
    assert_eq!(status, Some(1));
    let why = "task, which runs before web, is stopped (start it with `preforkd start task`); nothing was stopped";
    assert!(said.contains(why), "{said}");
    assert_eq!(run.ask("pid"), web);
    assert_eq!(
        ask(&run, &["restart", "task", "web"]),
        (Some(0), String::new())
    );
    assert_ne!(run.ask("pid"), web);
    run.stop();
}
