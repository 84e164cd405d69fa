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

/// The state of the app, and the exit status of `preforkd status`.
fn status(run: &Run, options: &[&str]) -> (String, Option<i32>) {
    let mut command = common::preforkd();
    let command = command.args(["status", "-c"]).arg(run.path("app.toml"));
    let output = command.args(options).output().expect("preforkd starts");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (shown, output.status.code())
}

#[test]
fn while_checks_keep_failing_replacements_wait_longer_and_the_app_is_not_ready() {
    for workers in ["workers = 1", "workers = 2"] {
        let config = "[master]\ncontrol = 'control.sock'\n".to_owned() + &checked(workers);
        let mut run = Run::start(&config);
        run.logged(&[
            SICK,
            "the next time not before 200ms, unless a check passes",
        ]);
        let held = "(number of replacements since a check has passed: 1)";
        run.logged(&["not replaced again for ", held]);
        run.status("check fails");
        let (shown, code) = status(&run, &[]);
        assert_eq!(code, Some(4), "{shown}");
        assert!(shown.contains("ready, check fails"), "{shown}");
        let (shown, code) = status(&run, &["--json"]);
        assert_eq!(code, Some(4), "{shown}");
        assert!(shown.contains("\"check_fails\":true"), "{shown}");
        run.logged(&[SICK, "the next time not before 400ms"]);
        run.write("healthy", "");
        run.logged(&["app=web check: passed again"]);
        let (shown, _) = status(&run, &["--json"]);
        assert!(shown.contains("\"check_fails\":false"), "{shown}");
        run.stop();
    }
}

#[test]
fn a_worker_with_an_address_of_its_own_is_the_one_at_fault() {
    let server = "['python3', '-m', 'http.server', '--bind', '{address}', '{port}']";
    let server = server.replace("{address}", "127.0.0.1");
    // The second one comes when the first worker has proved itself.
    let reload = |path: &str| {
        format!(
            "reload = {{ check = {{ path = '{path}', every = '700ms', failures = 2, timeout = '20s' }} }}"
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
    let (shown, _) = status(&run, &[]);
    assert!(shown.contains(&format!("check failed: {SICK}")), "{shown}");
    run.write("healthy", "");
    run.logged(&["app=web check: passed again"]);
    let (shown, _) = status(&run, &[]);
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

/// Two workers without listener, whose check looks for a file of their own slot.
fn with_program(rest: &str) -> String {
    let script = "echo noise; echo no $PREFORKD_APP-$PREFORKD_SLOT of $PREFORKD_PID in $PWD, $A; test -e healthy-$PREFORKD_SLOT";
    let check = format!("{{ command = ['sh', '-c', '{script}'], {rest} }}");
    format!(
        "[app.queue]\ncommand = ['{}']\nenv = {{ A = 'b' }}\nworkers = 2\nreload = {{ check = {check} }}\n",
        common::worker()
    )
}

#[test]
fn a_program_checks_each_worker_without_listener_by_itself() {
    let mut run = Run::begin(&with_program(
        "every = '50ms', failures = 2, timeout = '20s'",
    ));
    run.write("healthy-0", "");
    let (one, other) = (run.event("started"), run.event("started"));
    let sick = [one, other].into_iter().find(|worker| worker.slot == "1");
    let sick = sick.expect("slot 1").pid;
    let folder = run.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    let reason = "sh exited with status 1 after ";
    let said = format!("no queue-1 of {sick} in {folder}, b");
    run.logged(&["app=queue check: failed (1 of 2 in a row): ", reason, &said]);
    run.logged(&[
        "app=queue worker=1",
        "hangs: 2 checks in a row failed: ",
        &said,
    ]);
    assert_eq!(run.event("abrt").pid, sick);
    run.write("healthy-1", "");
    run.message("READY=1");
    run.stop();
}

#[test]
fn a_program_proves_the_first_worker_of_a_generation() {
    let mut run = Run::start(&with_program("attempts = 2, timeout = '20s'"));
    run.signal(Signal::SIGHUP);
    run.logged(&["app=queue check", "no queue-0 of ", "; trying again"]);
    let why = "its first worker failed its check: sh exited with status 1";
    run.logged(&["reload failed", why, "keeping generation 1"]);
    run.write("healthy-0", "");
    run.signal(Signal::SIGHUP);
    run.logged(&["app=queue check pid=", ": passed"]);
    run.logged(&["generation 3 is ready"]);
    run.stop();
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_all_that_it_has_started() {
    let script = "(trap \"\" TERM; echo held; exec sleep 1000) & wait";
    let check = format!(
        "{{ command = ['sh', '-c', '{script}'], every = '50ms', failures = 1, timeout = '300ms' }}"
    );
    let config = format!(
        "[app.queue]\ncommand = ['{}']\nreload = {{ check = {check} }}\n",
        common::worker()
    );
    let mut run = Run::start(&config);
    run.logged(&[
        "app=queue check pid=",
        "sending SIGTERM (still running after ",
    ]);
    let late = "did not end within 300ms and was terminated";
    run.logged(&[
        "app=queue worker=0",
        "hangs: 1 checks in a row failed: sh ",
        late,
    ]);
    run.stop();
    run.all_ended();
}

#[test]
fn without_a_path_a_connection_to_the_own_address_is_enough() {
    let server = |port: &str| {
        format!(
            "[app.web]\ncommand = ['python3', '-m', 'http.server', '--bind', '127.0.0.1', '{port}']\nready = 'exec'\n\
             env = {{ PORT = '{{port}}' }}\nreload = {{ check = {{ attempts = 20, every = '100ms', failures = 1000000 }} }}\n"
        )
    };
    let mut run = Run::start(&server("{port}"));
    run.signal(Signal::SIGHUP);
    run.logged(&["app=web check pid=", "connecting to 127.0.0.1:"]);
    run.logged(&["app=web check pid=", ": passed"]);
    // A server at another port than its own.
    run.write(
        "app.toml",
        &server("0").replace("attempts = 20", "attempts = 1"),
    );
    run.signal(Signal::SIGHUP);
    let why = "its first worker failed its check: the connection to 127.0.0.1:";
    run.logged(&["reload failed", why, "Connection refused"]);
    run.stop();
}
