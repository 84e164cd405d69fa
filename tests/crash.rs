//! Dead workers are replaced, and one log line gives the reason of their death.

mod common;

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Run, app, free_address, worker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_killed_worker_is_replaced_in_its_slot() {
    let mut run = Run::start(&app("workers = 2"));
    run.event("started");
    let second = run.event("started");
    kill(second.pid, Signal::SIGKILL).expect("it lives");
    let line = run.logged(&[
        "killed by SIGKILL, not by preforkd",
        "starting a replacement",
    ]);
    assert!(
        line.contains(&format!("app=web worker=1 gen=1 pid={}", second.pid)),
        "{line}"
    );
    let replacement = run.event("started");
    assert_eq!(
        (replacement.slot, replacement.generation),
        ("1".into(), "1".into())
    );
    run.stop();
}

#[test]
fn no_exit_status_of_a_worker_ends_the_master() {
    let mut run = Run::start(&app(""));
    for status in [0, 1, 2, 3, 4, 111, 255] {
        run.ask(&format!("exit {status}"));
        run.logged(&[&format!("exited with status {status}, after")]);
    }
    run.stop();
}

#[test]
fn a_crash_loop_slows_down_and_ends_when_its_cause_is_removed() {
    let mut run = Run::start(&app("workers = 2"));
    run.write("behaviour", "exit 9");
    run.ask("exit 1");
    run.logged(&["exited with status 9", "retrying in"]);
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    run.status("web 2/2 ready");
    run.stop();
}

#[test]
fn an_app_that_keeps_failing_is_given_up_until_a_reload() {
    let mut run = Run::start(&app(
        "workers = 2\ngive_up = { crashes = 3, within = '1m' }",
    ));
    run.write("behaviour", "exit 9");
    run.ask("exit 1");
    run.logged(&["app=web", "its app is given up"]);
    run.status("web 1/2 ready, given up");
    run.ask("pid");
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    assert!(run.reload().contains("web 2/2 ready"));
    run.stop();
}

#[test]
fn an_app_that_is_given_up_without_workers_refuses_clients() {
    let address = free_address();
    let (give_up, worker) = ("give_up = { crashes = 1, within = '1m' }", worker());
    for listen in [format!("{address}"), "unix:web.sock".to_owned()] {
        let config = format!("[app.web]\ncommand = '{worker}'\nlisten = '{listen}'\n{give_up}\n");
        let mut run = Run::start(&config);
        let connects = |run: &Run| match listen.strip_prefix("unix:") {
            None => TcpStream::connect(address).is_ok(),
            Some(name) => UnixStream::connect(run.path(name)).is_ok(),
        };
        let worker = run.event("started");
        assert!(connects(&run));
        kill(worker.pid, Signal::SIGKILL).expect("it lives");
        run.logged(&["app=web", "not listening on", "while no worker runs"]);
        assert!(!connects(&run));
        // A release that fails leaves it as it is.
        run.write("behaviour", "exit 9");
        run.reload();
        let until = Instant::now() + Duration::from_secs(20);
        while connects(&run) {
            assert!(Instant::now() < until, "it goes on to listen");
        }
        std::fs::remove_file(run.path("behaviour")).expect("it is there");
        assert!(run.reload().contains("web 1/1 ready"));
        assert!(connects(&run));
        run.stop();
    }
}

#[test]
fn giving_up_may_end_the_master_with_a_status_of_its_own() {
    let mut run = Run::start(&app(
        "give_up = { crashes = 2, within = '1m', then = 'exit' }",
    ));
    run.write("behaviour", "exit 9");
    run.ask("exit 1");
    let (status, log) = run.ended();
    assert_eq!(status, Some(3), "{log}");
    assert!(
        log.contains("app=web: given up: 2 failures within 1m"),
        "{log}"
    );
}

#[test]
fn a_worker_that_ends_by_itself_is_replaced_while_it_finishes() {
    let mut run = Run::start(&app("graceful_timeout = '300ms'"));
    let first = run.event("started");
    assert_eq!(run.ask("stopping"), "stopping");
    assert_ne!(run.event("started").pid, first.pid);
    run.status("web 1/1 ready (1 leaving)");
    run.stop();
}

#[test]
fn only_the_worker_itself_can_report_that_it_is_ready() {
    let shell = "'/bin/sh', '-c', '\"$0\"; exit 5'";
    let config = format!(
        "[app.x]\nstart_timeout = '300ms'\ncommand = [{shell}, '{}']\n",
        worker()
    );
    let mut run = Run::begin(&config);
    // The shell is the worker; READY=1 from the program that it starts does not count.
    run.event("started");
    let (status, log) = run.ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(
        log.contains(
            "SIGABRT (not ready within start_timeout): it never sent READY=1 (see `ready`"
        ),
        "{log}"
    );
}

#[test]
fn processes_that_a_crashed_worker_had_started_end_with_it() {
    let shell = "'/bin/sh', '-c', '\"$0\"; exit 5'";
    let config = format!(
        "[app.x]\nready = 'exec'\ncommand = [{shell}, '{}']\n",
        worker()
    );
    let mut run = Run::begin_with(&config, |command| {
        command.arg("--verbose");
    });
    let grandchild = run.event("started").pid;
    // It counts as ready only when the master has heard that its program was executed.
    run.message("READY=1");
    kill(parent(grandchild), Signal::SIGKILL).expect("it lives");
    // Its parent is dead, so the master inherits, ends and reaps it.
    run.logged(&["left a process that it had started; sending SIGTERM"]);
    run.logged(&[&format!("unknown process pid={grandchild}: ")]);
    run.stop();
}

#[test]
fn what_a_worker_leaves_behind_is_ended_though_it_exits_in_good_order_and_killed_if_it_is_deaf() {
    // The shell has gone when its children get their signal. It waits until it counts as ready.
    let script = "trap \"\" TERM; mkfifo go 2>/dev/null; sleep 1000 & sleep 1000 & \
                  echo $PREFORKD_SLOT $PREFORKD_GENERATION $$$$ started; read line < go; exit 0";
    let config = format!(
        "[app.x]\nready = 'exec'\ngraceful_timeout = '200ms'\ncommand = ['/bin/sh', '-c', '{script}']\n"
    );
    let mut run = Run::begin_with(&config, |command| {
        command.arg("--verbose");
    });
    run.event("started");
    run.message("READY=1");
    run.write("go", "\n");
    run.logged(&["left 2 processes that it had started; sending SIGTERM"]);
    run.logged(&[
        "sending SIGKILL to 2 processes that it had started (still running after graceful_timeout)",
    ]);
    run.signal(Signal::SIGTERM);
    let (status, _) = run.ended();
    assert_eq!(status, Some(0));
}

#[test]
fn an_init_system_that_does_not_read_stops_nothing() {
    let mut run = Run::begin(&app("workers = 2"));
    run.logged(&["generation 1 is ready"]);
    // Far more messages than the queue of a datagram socket holds, and none is read.
    for _ in 0..40 {
        run.signal(Signal::SIGTTIN);
        run.logged(&["SIGTTIN", "workers wanted"]);
    }
    for _ in 0..42 {
        run.event("started");
    }
    // Queued messages are sent as soon as it reads, the last status at the end.
    run.message("READY=1");
    run.status("web 42/42 ready");
    run.stop();
}

fn parent(pid: Pid) -> Pid {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let parent = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(1));
    Pid::from_raw(parent.and_then(|p| p.parse().ok()).expect("a pid"))
}

#[test]
fn a_worker_that_has_grown_too_large_is_replaced_whether_it_has_a_watchdog_or_not() {
    for watchdog in ["", "watchdog = '1h'\n"] {
        let began = Instant::now();
        let mut run = Run::start(&app(&format!("{watchdog}max_memory = '64KiB'")));
        let first = run.event("started").pid;
        let pid = format!("pid={first}");
        let line = run.logged(&[&pid, "its share of memory is", "(max_memory 64.0 KiB)"]);
        assert!(line.contains(" WARN "), "{line}");
        assert!(
            line.contains("max_memory is less than a fresh worker needs"),
            "{line}"
        );
        run.logged(&[&pid, "ended (replaced by a fresh worker)"]);
        // It is said once.
        let line = run.logged(&["its share of memory is"]);
        assert!(line.contains(" INFO "), "{line}");
        let time = began.elapsed();
        assert!(
            time >= Duration::from_secs(1),
            "not in a tight loop: {time:?}"
        );
        run.stop();
    }
}

#[test]
fn a_launcher_that_dies_does_not_count_as_a_program_that_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let libraries = folder.path().join("libraries");
    std::fs::create_dir(&libraries).expect("room");
    let mut run = Run::begin_in(folder, &app("ready = 'exec'"), |command| {
        command.env("LD_LIBRARY_PATH", &libraries);
    });
    run.message("READY=1");
    let worker = run.event("started");
    run.logged(&["ready after"]);
    // The dynamic linker refuses this file, so launchers end before they run.
    std::fs::write(libraries.join("libc.so.6"), "").expect("room");
    kill(worker.pid, Signal::SIGKILL).expect("it lives");
    run.logged(&["killed by SIGKILL, not by preforkd"]);
    let line = run.logged(&["exited with status 127"]);
    assert!(line.contains("before it was ready"), "{line}");
    std::fs::remove_file(libraries.join("libc.so.6")).expect("it is there");
    run.status("web 1/1 ready");
    run.stop();
}
