//! Apps with `schedule`, with real processes and the clock of the machine: each is due in every second.

mod common;

use common::programs::write_script;
use common::{Run, preforkd};
use nix::sys::signal::Signal;

/// An app whose program is a shell script without apostrophes.
fn scheduled(script: &str, rest: &str) -> String {
    let script = script.replace('$', "$$");
    format!(
        "[master]\ncontrol = 'control'\n[app.tick]\ncommand = ['/bin/sh', '-c', '{script}']\n{rest}\n"
    )
}

const EACH_SECOND: &str = "schedule = '* * * * * *'";

fn status(run: &Run) -> (Option<i32>, String) {
    command(run, &["status"])
}

fn command(run: &Run, words: &[&str]) -> (Option<i32>, String) {
    let mut command = preforkd();
    let command = command.arg("--socket").arg(run.path("control"));
    let output = command.args(words).output().expect("preforkd starts");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), shown)
}

#[test]
fn a_run_has_the_environment_the_folder_and_the_output_of_its_app() {
    let script = r#"echo $PREFORKD_APP $PREFORKD_GENERATION ${PREFORKD_SLOT-none} ${NOTIFY_SOCKET-none} $COLOUR ${PWD##*/}"#;
    let rest = format!(
        "{EACH_SECOND}\nenv = {{ COLOUR = 'blue' }}\nchdir = 'place'\nprefix_output = true"
    );
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("place")).expect("room");
    let mut run = Run::begin_in(folder, &scheduled(script, &rest), |_| {});
    let ready = run.message("READY=1");
    assert!(
        ready.contains("STATUS=generation 1: 1 app with a schedule"),
        "{ready}"
    );
    run.logged(&["app=tick: next run at "]);
    assert_eq!(run.next_line(), "tick: tick 1 none none blue place");
    run.logged(&["app=tick run gen=1 pid=", ": succeeded after "]);
    assert_eq!(
        run.next_line(),
        "tick: tick 1 none none blue place",
        "it is run again"
    );
    let (code, shown) = status(&run);
    assert_eq!(code, Some(0), "{shown}");
    for part in [
        "tick: runs at * * * * * *",
        "next run: 2",
        "last run: 2",
        "succeeded after",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let mut command = preforkd();
    let command = command.arg("--socket").arg(run.path("control"));
    let scaled = command.args(["scale", "tick=2"]).output();
    let refused = scaled.expect("preforkd starts").stderr;
    let refused = String::from_utf8_lossy(&refused);
    assert!(
        refused.contains("tick has a schedule, and so no workers"),
        "{refused}"
    );
    run.stop();
    run.all_ended();
}

#[test]
fn a_run_that_fails_is_an_error_with_its_last_output() {
    let mut run = Run::start(&scheduled("echo no room >&2; exit 3", EACH_SECOND));
    let line = run.logged(&[
        "app=tick run gen=1 pid=",
        ": failed: exited with status 3 after ",
    ]);
    assert!(
        line.contains("(its last output: no room); next run at 2"),
        "{line}"
    );
    let (code, shown) = status(&run);
    assert_eq!(
        code,
        Some(0),
        "it does not make the master less ready: {shown}"
    );
    assert!(shown.contains(", failed: exited with status 3"), "{shown}");
    run.stop();
}

#[test]
fn a_run_goes_on_over_a_reload_and_ends_at_a_stop() {
    let mut run = Run::start(&scheduled(
        "echo 0 1 $$ began; exec sleep 1000",
        EACH_SECOND,
    ));
    let old = run.event("began");
    run.logged(&["app=tick run gen=1: left out at 2", "still goes on after"]);
    run.write(
        "app.toml",
        &scheduled("echo 0 2 $$ began; exec sleep 1000", EACH_SECOND),
    );
    run.reload();
    let (_, shown) = status(&run);
    assert!(
        shown.contains(&format!("running: pid {}, for ", old.pid)),
        "{shown}"
    );
    nix::sys::signal::kill(old.pid, Signal::SIGKILL).expect("it goes on");
    run.logged(&[
        "app=tick run gen=1",
        ": failed: killed by SIGKILL",
        "left out meanwhile",
    ]);
    let new = run.event("began");
    assert_eq!(new.generation, "2");
    let log = run.stop();
    assert!(log.contains("app=tick run gen=2"), "{log}");
    assert!(
        log.contains("sending SIGTERM (stop)") && log.contains("ended (stop)"),
        "{log}"
    );
    run.all_ended();
}

#[test]
fn a_run_that_takes_too_long_is_ended_with_its_whole_session() {
    let script = r#"trap "" TERM; sleep 1000 & echo 0 1 $$ began; wait"#;
    let rest = "schedule = { cron = '* * * * * *', timeout = '300ms' }\ngraceful_timeout = '200ms'";
    let mut run = Run::start(&scheduled(script, rest));
    run.event("began");
    run.logged(&["sending SIGTERM (still running after "]);
    run.logged(&["failed: did not end within 300ms and was terminated: killed by SIGKILL"]);
    let log = run.stop();
    assert!(!log.contains("left a process"), "{log}");
    run.all_ended();
}

#[test]
fn what_a_run_leaves_behind_is_ended() {
    let mut run = Run::start(&scheduled(
        "sleep 1000 >&2 & echo 0 1 $$ began",
        EACH_SECOND,
    ));
    run.event("began");
    run.logged(&[
        "app=tick run gen=1",
        "left a process that it had started; sending SIGTERM",
    ]);
    run.stop();
    run.all_ended();
}

#[test]
fn a_program_that_cannot_be_executed_is_a_failed_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("tool");
    write_script(&program, "#!/no/such/interpreter\n");
    let config = format!("[app.tick]\ncommand = './tool'\n{EACH_SECOND}\n");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    run.logged(&["app=tick run gen=1", "failed: cannot execute "]);
    run.stop();
}

#[test]
fn a_pause_holds_runs_back() {
    let mut run = Run::start(&scheduled("echo 0 1 $$ ran", EACH_SECOND));
    run.event("ran");
    run.signal(Signal::SIGWINCH);
    run.logged(&["pausing"]);
    let (_, shown) = status(&run);
    assert!(
        shown.contains("next run: none, paused until the next reload"),
        "{shown}"
    );
    run.reload();
    let (_, shown) = status(&run);
    assert!(shown.contains("next run: 2"), "{shown}");
    run.stop();
}

#[test]
fn a_task_runs_before_the_schedule_that_waits_for_it() {
    let task = |script: &str| {
        let script = script.replace('$', "$$");
        format!(
            "[app.task]\ncommand = ['/bin/sh', '-c', '{script}']\nrestart = 'never'\nrun_before = ['tick']\n"
        )
    };
    let tick = scheduled("echo 0 1 $$ old", EACH_SECOND);
    let mut run = Run::start(&(tick.clone() + &task("echo 0 1 $$ task")));
    assert_eq!(run.next_event().name, "task");
    run.event("old");
    // It fails, and the old schedule goes on.
    let new = scheduled("echo 0 1 $$ new", EACH_SECOND);
    run.write(
        "app.toml",
        &(new.clone() + &task("echo 0 1 $$ bad; exit 3")),
    );
    run.signal(Signal::SIGHUP);
    run.event("bad");
    run.logged(&["reload failed: app=task", "exited with status 3"]);
    run.event("old");
    run.write("app.toml", &(new + &task("echo 0 1 $$ good")));
    assert_eq!(command(&run, &["reload", "tick"]).0, Some(0));
    let mut names = std::iter::from_fn(|| Some(run.next_event().name));
    let before: Vec<_> = names.by_ref().take_while(|name| name != "new").collect();
    assert!(before.iter().any(|name| name == "good"), "{before:?}");
    run.stop();
}
