//! Programs that do their work and end: `restart`.

mod common;

use common::{Run, preforkd};

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
    let config = app("on-failure", script) + "ready = 'exec'\n";
    let mut run = Run::begin(&config);
    run.event("ran");
    run.logged(&["exited with status 3", "starting a replacement"]);
    run.logged(&["finished after "]);
    run.stop();
}
