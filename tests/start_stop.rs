//! Starting, readiness, and every way to stop.

mod common;

use common::programs::write_script;
use common::{Run, app, worker};
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};

#[test]
fn ready_is_sent_when_all_workers_of_all_apps_are_ready() {
    let config =
        app("workers = 3") + &format!("[app.queue]\ncommand = ['{}']\nworkers = 2", worker());
    let mut run = Run::begin(&config);
    let message = run.message("READY=1");
    assert!(
        message.contains("STATUS=generation 1: queue 2/2 ready; web 3/3 ready"),
        "{message}"
    );
    let pids: std::collections::BTreeSet<_> = (0..5).map(|_| run.event("started").pid).collect();
    assert_eq!(pids.len(), 5);
    run.stop();
}

#[test]
fn the_first_worker_proves_the_configuration_before_others_start() {
    let mut run = Run::begin(
        &app("workers = 3\nenv = { X = 'y' }").replace("']\nlisten", "', 'exit 3']\nlisten"),
    );
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    assert!(log.contains("app=web worker=0 gen=1"), "{log}");
    assert!(
        log.contains(
            "cannot start: app=web: its first worker exited with status 3, before it was ready"
        ),
        "{log}"
    );
    assert_eq!(
        log.matches("exited with status 3").count(),
        2,
        "one worker only:\n{log}"
    );
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_aborted() {
    let mut run =
        Run::begin(&app("start_timeout = '100ms'").replace("']\nlisten", "', 'mute']\nlisten"));
    assert_eq!(run.next_event().name, "started");
    assert_eq!(run.next_event().name, "abrt");
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    assert!(
        log.contains("SIGABRT (not ready within start_timeout)"),
        "{log}"
    );
}

#[test]
fn silent_programs_are_ready_when_executed_or_after_a_time() {
    for ready in ["exec", "50ms"] {
        let config = app(&format!("ready = '{ready}'")).replace("']\nlisten", "', 'mute']\nlisten");
        Run::start(&config).stop();
    }
}

#[test]
fn the_error_of_a_program_that_cannot_be_executed_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    write_script(&script, "#!/no/such/interpreter\n");
    let mut run = Run::begin(&format!("[app.x]\ncommand = ['{}']", script.display()));
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    let why = format!(
        "(its start failed: cannot execute {} as the master's user: No such file or directory (it, the program that its first line names, or its loader is missing))",
        script.display()
    );
    assert!(log.contains(&why), "{log}");
}

#[test]
fn term_lets_workers_finish_and_ends_with_status_0() {
    let mut run = Run::start(&app("workers = 2"));
    run.signal(Signal::SIGTERM);
    assert!(run.message("STOPPING=1").contains("STATUS="));
    assert_eq!(run.event("term").name, "term");
    run.event("term");
    let (status, log) = run.ended();
    assert_eq!(status, Some(0));
    assert!(log.contains("ended (stop)"), "{log}");
    assert!(!run.path("web.sock").exists(), "the socket file is removed");
}

#[test]
fn a_worker_that_does_not_finish_is_killed_at_graceful_timeout() {
    let mut run = Run::start(
        &app("graceful_timeout = '100ms'").replace("']\nlisten", "', 'ignore-signals']\nlisten"),
    );
    let log = run.stop();
    assert!(
        log.contains("SIGKILL (still running after graceful_timeout)"),
        "{log}"
    );
}

#[test]
fn a_second_term_kills_at_once() {
    let mut run = Run::start(
        &app("graceful_timeout = '1h'").replace("']\nlisten", "', 'ignore-signals']\nlisten"),
    );
    run.signal(Signal::SIGTERM);
    run.message("STOPPING=1");
    run.signal_from_another(Signal::SIGTERM);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("stopping now"), "{log}");
}

#[test]
fn int_gives_a_second_and_then_kills() {
    let mut run = Run::start(
        &app("graceful_timeout = '1h'").replace("']\nlisten", "', 'ignore-signals']\nlisten"),
    );
    run.signal(Signal::SIGINT);
    assert_eq!(run.event("term").name, "term");
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("SIGKILL (stop)"), "{log}");
}

#[test]
fn workers_do_not_outlive_a_killed_master() {
    let mut run = Run::start(&app("workers = 2"));
    let pids = [run.event("started").pid, run.event("started").pid];
    run.signal(Signal::SIGKILL);
    let mut ended = [run.event("term").pid, run.event("term").pid];
    ended.sort();
    let mut pids = pids.to_vec();
    pids.sort();
    assert_eq!(ended[..], pids[..]);
    run.ended();
}

#[test]
fn a_master_that_stops_while_starting_ends_at_once() {
    let mut run =
        Run::begin(&app("start_timeout = '1h'").replace("']\nlisten", "', 'mute']\nlisten"));
    run.event("started");
    run.stop();
}

#[test]
fn ps_shows_which_process_is_the_master() {
    let mut run = Run::start(&app(""));
    let title = std::fs::read(format!("/proc/{}/cmdline", run.pid())).expect("it lives");
    let title = String::from_utf8_lossy(&title);
    assert_eq!(title.trim_end_matches('\0'), "preforkd: master app.toml");
    run.stop();
}

#[test]
fn the_pid_file_is_written_and_removed() {
    let mut run = Run::start(&("[master]\npid_file = 'x.pid'\n".to_owned() + &app("")));
    let pid = std::fs::read_to_string(run.path("x.pid")).expect("it is there");
    assert_eq!(pid, format!("{}\n", run.pid()));
    let second = format!("[master]\npid_file = '{}'\n", run.path("x.pid").display()) + &app("");
    let (status, log) = Run::begin(&second).ended();
    assert_eq!(status, Some(1));
    assert!(
        log.contains(&format!("another preforkd, pid {}, is running", run.pid())),
        "{log}"
    );
    run.stop();
    assert!(!run.path("x.pid").exists());
}

/// A master on a terminal of its own, with another command in front. Dropping the file closes the terminal.
fn on_a_terminal(before: &[&str]) -> (Run, PtyMaster) {
    // No process may inherit it, or the terminal would stay open.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let terminal = posix_openpt(flags).expect("a terminal");
    grantpt(&terminal).expect("it is new");
    unlockpt(&terminal).expect("it is new");
    let name = ptsname_r(&terminal).expect("it has a name");
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, OFlag::O_NOCTTY.bits());
    let input = options.read(true).write(true).open(name);
    let input = input.expect("it is there");
    let run = Run::begin_with(&app(""), |command| {
        // Whoever runs the tests may ignore SIGHUP, as with nohup(1).
        let mut outer = std::process::Command::new("env");
        outer.args(["--default-signal=HUP", "setsid", "--ctty"]);
        outer.args(before).arg(command.get_program());
        outer.args(command.get_args());
        for (variable, value) in command.get_envs() {
            outer.env(variable, value.unwrap_or_default());
        }
        outer.stdin(input);
        outer
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        *command = outer;
    });
    run.message("READY=1");
    (run, terminal)
}

#[test]
fn a_terminal_that_closes_ends_the_master_and_another_hup_reloads_it() {
    let (mut run, terminal) = on_a_terminal(&[]);
    assert!(run.reload().contains("STATUS=generation 2"));
    drop(terminal);
    run.logged(&["SIGHUP, because the terminal was closed: stopping"]);
    assert_eq!(run.ended().0, Some(0));
    run.all_ended();
}

#[test]
fn a_master_that_was_started_with_nohup_outlives_its_terminal() {
    let (mut run, terminal) = on_a_terminal(&["nohup"]);
    drop(terminal);
    run.logged(&["SIGHUP: the terminal was closed; going on"]);
    assert!(run.reload().contains("STATUS=generation 2"));
    run.stop();
}

#[test]
fn a_reload_writes_a_pid_file_again_and_moves_it() {
    let config = |path: &str| format!("[master]\npid_file = '{path}'\n") + &app("");
    let mut run = Run::start(&config("x.pid"));
    let pid = format!("{}\n", run.pid());
    let read = |run: &Run, name: &str| std::fs::read_to_string(run.path(name)).ok();
    std::fs::remove_file(run.path("x.pid")).expect("ours");
    run.reload();
    assert_eq!(read(&run, "x.pid"), Some(pid.clone()));
    run.write("app.toml", &config("y.pid"));
    run.reload();
    assert_eq!(read(&run, "y.pid"), Some(pid.clone()));
    assert_eq!(read(&run, "x.pid"), None);
    // Another file stays as it is, and so does the pid file.
    run.write("notes", "precious");
    run.write("app.toml", &config("notes"));
    run.reload();
    run.logged(&["WARN", "cannot write the pid file", "not a pid file"]);
    assert_eq!(read(&run, "notes").as_deref(), Some("precious"));
    assert_eq!(read(&run, "y.pid"), Some(pid));
    run.stop();
    assert_eq!(read(&run, "y.pid"), None);
}

#[test]
fn a_log_that_is_not_read_stops_nothing_and_lost_lines_are_counted() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("it is a pipe");
    let mut run = Run::begin_with(&app(""), |command| {
        command.stderr(writer);
    });
    run.message("READY=1");
    for _ in 0..60 {
        run.reload();
    }
    // When it is read again, the master goes on and reports how many lines were lost.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    let mut next = || lines.next().expect("the master lives").expect("text");
    while !next().contains("starts, pid") {}
    run.signal(Signal::SIGTTIN);
    while !next().contains("log lines were lost: standard error was not read") {
        // The pipe has room only after a whole page of it was read.
        run.signal(Signal::SIGTTIN);
    }
    drop(lines);
    run.ask("pid");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.master.wait().expect("it is ours").code(), Some(0));
}

#[test]
fn only_stop_signals_end_the_master() {
    let mut run = Run::start(&app(""));
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGCHLD,
    ] {
        kill(run.pid(), signal).expect("the master lives");
    }
    run.reload();
    run.stop();
}

#[test]
fn the_init_system_gets_the_reason_why_the_start_failed() {
    let run = Run::begin(&app("").replace("']\nlisten", "', 'exit 3']\nlisten"));
    let message = run.message("STOPPING=1");
    assert!(
        message.contains("STATUS=cannot start: app=web: its first worker exited with status 3"),
        "{message}"
    );
    let run = Run::begin("[app.web]\nwrokers = 1\n");
    run.status("app.toml:2:1: unknown key `wrokers`");
    let run = Run::begin(&app("").replace("unix:web.sock", "fd:nope"));
    run.status("cannot listen on fd:nope");
}

#[test]
fn the_init_system_gets_keep_alive_messages() {
    let mut run = Run::begin_with(&app(""), |command| {
        command.env("WATCHDOG_USEC", "100000");
    });
    for _ in 0..5 {
        run.message("WATCHDOG=1");
    }
    run.stop();
}

#[test]
fn messages_to_the_init_system_are_short_enough_even_with_many_apps() {
    let app = |n| {
        format!(
            "[app.customer-portal-{n:03}-production]\ncommand = ['/bin/sleep', '1000']\nready = 'exec'\n"
        )
    };
    let config: String = (0..200).map(app).collect();
    let mut run = Run::begin(&config);
    let mut message = String::new();
    while !message.contains("READY=1") {
        message = run.next_message();
        // systemd ignores longer ones: sd_notify(3).
        assert!(message.len() <= 4096, "{} bytes", message.len());
    }
    assert!(message.contains("200 apps 200/200 ready"), "{message}");
    run.stop();
}

#[test]
fn a_script_in_front_of_an_interpreter_ends_with_the_master() {
    use std::io::{BufRead, BufReader, Read};
    let mut run = Run::start(&app(""));
    // It ignores SIGTERM, and so does its child. Both hold the fifo open.
    write_script(
        run.path("python"),
        "#!/bin/sh\ntrap '' TERM\nexec 3>fifo\necho started >&3\nsleep 60\n",
    );
    let fifo = run.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("room");
    let python = "[app.py]\nwsgi = 'a:b'\npython = './python'\nlisten = ['unix:py.sock']\n";
    run.write("app.toml", &(app("") + python));
    run.signal(Signal::SIGHUP);
    let mut output = BufReader::new(std::fs::File::open(fifo).expect("the script opens it too"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the script is running");
    assert_eq!(line, "started\n");
    let began = std::time::Instant::now();
    run.stop();
    output.read_to_string(&mut line).expect("a fifo");
    // Without a signal they end after 60 seconds.
    assert!(began.elapsed() < std::time::Duration::from_secs(50));
}

#[test]
fn a_start_a_reload_and_a_stop_that_take_long_ask_for_more_time() {
    const MORE: &str = "EXTEND_TIMEOUT_USEC=15000000";
    let slow = app("ready = '1500ms'").replace("']\nlisten", "', 'mute']\nlisten");
    let run = Run::begin(&slow);
    run.message(MORE);
    run.message("READY=1");
    run.write("app.toml", &slow.replace("ready", "umask = '0077'\nready"));
    run.signal(Signal::SIGHUP);
    run.message("RELOADING=1");
    run.message(MORE);
    run.message("READY=1");
    drop(run);
    let stubborn = app("graceful_timeout = '1h'");
    let run = Run::start(&stubborn.replace("']\nlisten", "', 'ignore-signals']\nlisten"));
    run.signal(Signal::SIGTERM);
    run.message("STOPPING=1");
    run.message(MORE);
}
