//! Checks that are repeated while workers serve.

mod common;

use common::{Run, app};
use nix::sys::signal::Signal;

const SICK: &str = "GET /health answered \"HTTP/1.1 503 Service Unavailable\", not 200";

fn checked(rest: &str) -> String {
    let check = "{ path = '/health', every = '50ms', failures = 2, timeout = '20s' }";
    app(&format!("{rest}\nreload = {{ check = {check} }}"))
}

#[test]
fn the_only_worker_is_aborted_and_replaced_when_its_checks_fail() {
    let mut run = Run::start(&checked("workers = 1"));
    let first = run.event("started");
    run.logged(&["app=web check: failed (1 of 2 in a row): ", SICK]);
    let why = format!("hangs: 2 checks in a row failed: {SICK}");
    let line = run.logged(&[&why]);
    assert!(line.contains(&format!("pid={}", first.pid)), "{line}");
    assert_eq!(run.event("abrt").pid, first.pid);
    run.event("started");
    // Its replacement is checked too; now it is healthy.
    run.logged(&["check: failed (1 of 2 in a row)"]);
    run.write("healthy", "");
    run.signal(Signal::SIGHUP);
    assert!(run.message("READY=1").contains("generation 2: web 1/1"));
    run.stop();
}

#[test]
fn workers_behind_a_shared_listener_are_recycled() {
    let mut run = Run::start(&checked("workers = 2"));
    let old = [run.event("started").pid, run.event("started").pid];
    let all = "all its workers are replaced, one at a time";
    run.logged(&["app=web: 2 checks in a row failed: ", SICK, all]);
    for _ in old {
        run.event("started");
        assert!(old.contains(&run.event("term").pid), "no worker is aborted");
    }
    run.stop();
}

#[test]
fn a_worker_with_an_address_of_its_own_is_the_one_at_fault() {
    let server = "['python3', '-m', 'http.server', '--bind', '{address}', '{port}']";
    let server = server.replace("{address}", "127.0.0.1");
    let reload = |path: &str| {
        format!(
            "reload = {{ check = {{ path = '{path}', every = '300ms', failures = 2, timeout = '20s' }} }}"
        )
    };
    let of = |name: &str, path: &str| {
        format!(
            "[app.{name}]\ncommand = {server}\nready = 'exec'\nworkers = 2\n{}\n",
            reload(path)
        )
    };
    let mut run = Run::start(&of("bad", "/nothing"));
    let why = "2 checks in a row failed: GET /nothing";
    for worker in ["worker=0", "worker=1"] {
        let line = run.logged(&["app=bad", worker, "hangs: ", why]);
        assert!(!line.contains("all its workers"), "{line}");
    }
    run.stop();
}

#[test]
fn the_status_shows_a_check_that_has_failed_and_the_log_one_that_passes_again() {
    let config = checked("").replace("failures = 2", "failures = 1000000");
    let mut run = Run::start(&("[master]\ncontrol = 'control.sock'\n".to_owned() + &config));
    run.logged(&["check: failed (1 of 1000000 in a row)", SICK]);
    let status = |run: &Run| {
        let mut command = common::preforkd();
        let command = command.args(["status", "-c"]).arg(run.path("app.toml"));
        let output = command.output().expect("preforkd starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = status(&run);
    assert!(shown.contains(&format!("check failed: {SICK}")), "{shown}");
    run.write("healthy", "");
    run.logged(&["app=web check: passed again"]);
    let shown = status(&run);
    assert!(!shown.contains("check failed"), "{shown}");
    run.stop();
}

#[test]
fn a_check_that_can_reach_no_worker_is_refused() {
    let with = |listen: &str| checked("").replace("'unix:web.sock'", listen);
    let mut run = Run::begin(&with("'fd:web'"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(2));
    assert!(
        log.contains("reload.check.every: no listener has an address to ask at"),
        "{log}"
    );
}
