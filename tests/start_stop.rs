//! Starting, readiness, and every way to stop.

mod common;

use common::{Run, app, worker};
use nix::sys::signal::{Signal, kill};

#[test]
fn ready_is_said_when_all_workers_of_all_apps_are() {
    let config =
        app("workers = 3") + &format!("[app.queue]\ncommand = ['{}']\nworkers = 2", worker());
    let mut run = Run::begin(&config);
    let heard = run.hear("READY=1");
    assert!(
        heard.contains("STATUS=generation 1: queue 2/2 ready; web 3/3 ready"),
        "{heard}"
    );
    let pids: std::collections::BTreeSet<_> = (0..5).map(|_| run.told_of("started").pid).collect();
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
    assert_eq!(run.told().event, "started");
    assert_eq!(run.told().event, "abrt");
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    assert!(
        log.contains("SIGABRT (not ready within start_timeout)"),
        "{log}"
    );
}

#[test]
fn programs_that_never_speak_are_ready_when_executed_or_after_a_time() {
    for ready in ["exec", "50ms"] {
        let config = app(&format!("ready = '{ready}'")).replace("']\nlisten", "', 'mute']\nlisten");
        Run::start(&config).stop();
    }
}

#[test]
fn a_program_that_cannot_be_executed_says_at_which_stage() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("room");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    let mut run = Run::begin(&format!("[app.x]\ncommand = ['{}']", script.display()));
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    assert!(
        log.contains("failed at executing the program: No such file or directory"),
        "{log}"
    );
}

#[test]
fn term_lets_workers_finish_and_ends_with_status_0() {
    let mut run = Run::start(&app("workers = 2"));
    run.signal(Signal::SIGTERM);
    assert!(run.hear("STOPPING=1").contains("STATUS="));
    assert_eq!(run.told_of("term").event, "term");
    run.told_of("term");
    let (status, log) = run.ended();
    assert_eq!(status, Some(0));
    assert!(log.contains("ended (stop)"), "{log}");
    assert!(!run.path("web.sock").exists(), "the socket file is removed");
}

#[test]
fn a_worker_that_does_not_finish_is_killed_at_graceful_timeout() {
    let mut run =
        Run::start(&app("graceful_timeout = '100ms'").replace("']\nlisten", "', 'deaf']\nlisten"));
    let log = run.stop();
    assert!(
        log.contains("SIGKILL (still running after graceful_timeout)"),
        "{log}"
    );
}

#[test]
fn a_second_term_kills_at_once() {
    let mut run =
        Run::start(&app("graceful_timeout = '1h'").replace("']\nlisten", "', 'deaf']\nlisten"));
    run.signal(Signal::SIGTERM);
    run.hear("STOPPING=1");
    let log = run.stop();
    assert!(log.contains("stopping now"), "{log}");
}

#[test]
fn int_gives_a_second_then_kills() {
    let mut run =
        Run::start(&app("graceful_timeout = '1h'").replace("']\nlisten", "', 'deaf']\nlisten"));
    run.signal(Signal::SIGINT);
    assert_eq!(run.told_of("term").event, "term");
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("SIGKILL (stop)"), "{log}");
}

#[test]
fn workers_do_not_outlive_a_killed_master() {
    let mut run = Run::start(&app("workers = 2"));
    let pids = [run.told_of("started").pid, run.told_of("started").pid];
    run.signal(Signal::SIGKILL);
    let mut ended = [run.told_of("term").pid, run.told_of("term").pid];
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
    run.told_of("started");
    run.stop();
}

#[test]
fn ps_shows_who_is_the_master() {
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
        log.contains(&format!(
            "it names another preforkd that runs, pid {}",
            run.pid()
        )),
        "{log}"
    );
    run.stop();
    assert!(!run.path("x.pid").exists());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_lost_lines_are_counted() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("it is a pipe");
    let mut run = Run::begin_with(&app(""), |command| {
        command.stderr(writer);
    });
    run.hear("READY=1");
    for _ in 0..60 {
        run.reload();
    }
    // Read again, it goes on and says how much is missing.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    let mut next = || lines.next().expect("the master lives").expect("text");
    while !next().contains("starts, pid") {}
    run.signal(Signal::SIGTTIN);
    while !next().contains("log lines found no reader and are lost") {
        // Some room is there only when a page of the pipe has been read.
        run.signal(Signal::SIGTTIN);
    }
    drop(lines);
    run.ask("pid");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.master.wait().expect("it is ours").code(), Some(0));
}

#[test]
fn no_signal_of_the_table_but_the_stopping_ones_ends_the_master() {
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
fn the_init_system_hears_why_nothing_could_be_started() {
    let run = Run::begin(&app("").replace("']\nlisten", "', 'exit 3']\nlisten"));
    let heard = run.hear("STOPPING=1");
    assert!(
        heard.contains("STATUS=cannot start: app=web: its first worker exited with status 3"),
        "{heard}"
    );
    let run = Run::begin("[app.web]\nwrokers = 1\n");
    run.status("app.toml:2:1: unknown key `wrokers`");
    let run = Run::begin(&app("").replace("unix:web.sock", "fd:nope"));
    run.status("cannot listen on fd:nope");
}

#[test]
fn the_init_system_gets_the_signs_of_life_that_it_wants() {
    let mut run = Run::begin_with(&app(""), |command| {
        command.env("WATCHDOG_USEC", "100000");
    });
    for _ in 0..5 {
        run.hear("WATCHDOG=1");
    }
    run.stop();
}

#[test]
fn the_init_system_gets_messages_that_it_takes_also_of_many_apps() {
    let app = |n| {
        format!(
            "[app.customer-portal-{n:03}-production]\ncommand = ['/bin/sleep', '1000']\nready = 'exec'\n"
        )
    };
    let config: String = (0..200).map(app).collect();
    let mut run = Run::begin(&config);
    let mut heard = String::new();
    while !heard.contains("READY=1") {
        heard = run.heard();
        // systemd ignores longer ones: sd_notify(3).
        assert!(heard.len() <= 4096, "{} bytes", heard.len());
    }
    assert!(heard.contains("200 apps 200/200 ready"), "{heard}");
    run.stop();
}
