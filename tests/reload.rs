//! HUP: a transaction that brings a generation in if it works, and changes nothing otherwise.

mod common;

use common::programs::write_script;
use common::{Run, app, worker};
use nix::sys::signal::{Signal, kill};

#[test]
fn a_reload_replaces_all_workers_by_those_of_the_next_generation() {
    let mut run = Run::start(&app("workers = 3"));
    let old: Vec<_> = (0..3).map(|_| run.event("started").pid).collect();
    assert!(run.reload().contains("STATUS=generation 2: web 3/3 ready"));
    let mut ended = Vec::new();
    let mut begun = 0;
    while ended.len() < 3 || begun < 3 {
        let event = run.next_event();
        match event.name.as_str() {
            "started" => {
                assert_eq!(event.generation, "2");
                begun += 1;
            }
            _ => ended.push(event.pid),
        }
    }
    assert!(old.iter().all(|pid| ended.contains(pid)));
    run.stop();
}

#[test]
fn the_init_system_learns_when_a_reload_began() {
    let mut run = Run::start(&app(""));
    run.signal(Signal::SIGHUP);
    let message = run.message("RELOADING=1");
    let began = message
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .expect("a time");
    assert!(
        began
            .parse::<u64>()
            .is_ok_and(|microseconds| microseconds > 0),
        "{message}"
    );
    run.message("READY=1");
    run.stop();
}

#[test]
fn a_folder_whose_name_is_not_utf8_can_be_reloaded() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    let folder = tempfile::Builder::new().prefix(name).tempdir();
    let mut run = Run::begin_in(folder.expect("a folder"), &app(""), |_| {});
    run.message("READY=1");
    let message = run.reload();
    assert!(message.contains("generation 2: web 1/1 ready"), "{message}");
    run.stop();
}

#[test]
fn an_invalid_file_changes_nothing_and_the_error_is_reported() {
    let mut run = Run::start(&app(""));
    let pid = run.ask("pid");
    run.write("app.toml", "[app.web]\nwrokers = 2\n");
    let message = run.reload();
    assert!(
        message.contains(
            "app.toml:2:1: unknown key `wrokers`; did you mean `workers`?; keeping generation 1"
        ),
        "{message}"
    );
    assert_eq!(run.ask("pid"), pid);
    run.stop();
}

#[test]
fn a_generation_that_cannot_start_is_rolled_back_and_the_next_good_one_is_brought_in() {
    let mut run = Run::start(&app("workers = 2"));
    run.write("behaviour", "exit 7");
    let message = run.reload();
    assert!(
        message.contains("exited with status 7, before it was ready"),
        "{message}"
    );
    assert!(
        message.contains("(its last output: settings are missing); keeping generation 1"),
        "{message}"
    );
    run.logged(&["settings are missing"]);
    assert!(message.contains("keeping generation 1"), "{message}");
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    let message = run.reload();
    assert!(message.contains("generation 3: web 2/2 ready"), "{message}");
    run.stop();
}

#[test]
fn one_app_that_cannot_start_rolls_all_back() {
    let mut run = Run::start(&app(""));
    let pid = run.ask("pid");
    run.write(
        "app.toml",
        &(app("") + "[app.queue]\ncommand = ['/bin/false']\n"),
    );
    let message = run.reload();
    assert!(
        message.contains("reload failed: app=queue: its first worker exited with status 1"),
        "{message}"
    );
    assert!(message.contains("keeping generation 1"), "{message}");
    run.logged(&["app=web", "gen=2", "ended (its generation was rolled back)"]);
    assert_eq!(run.ask("pid"), pid);
    run.stop();
}

#[test]
fn a_program_that_cannot_be_executed_proves_nothing_and_the_reason_is_reported() {
    let mut run = Run::start(&app(""));
    let script = run.path("script");
    write_script(&script, "#!/no/such/interpreter\n");
    let queue = format!(
        "[app.queue]\nready = 'exec'\ncommand = ['{}']\n",
        script.display()
    );
    run.write("app.toml", &(app("") + &queue));
    let message = run.reload();
    let why = format!(
        "app=queue: its first worker exited with status 127 (its start failed: cannot execute {} as the master's user: No such file or directory (it, the program that its first line names, or its loader is missing)), before it was ready",
        script.display()
    );
    assert!(message.contains(&why), "{message}");
    assert!(message.contains("keeping generation 1"), "{message}");
    run.stop();
}

#[test]
fn many_reloads_at_once_become_few_and_the_last_counts() {
    let mut run = Run::start(&app("workers = 2"));
    run.write("app.toml", &app("workers = 3"));
    for _ in 0..50 {
        run.signal(Signal::SIGHUP);
    }
    run.status("web 3/3 ready");
    let log = run.stop();
    let generations = log.matches("takes over").count();
    assert!(
        (1..10).contains(&generations),
        "{generations} generations for 50 signals"
    );
}

#[test]
fn apps_and_listeners_are_added_and_removed_by_a_reload() {
    let mut run = Run::start(&app(""));
    let pid = run.ask("pid");
    let two = app("")
        + &format!(
            "[app.api]\ncommand = ['{}']\nlisten = ['unix:api.sock']\n",
            worker()
        );
    run.write("app.toml", &two);
    let message = run.reload();
    assert!(
        message.contains("api 1/1 ready; web 1/1 ready"),
        "{message}"
    );
    assert_ne!(run.ask("pid"), pid);
    assert!(run.path("api.sock").exists());
    run.write("app.toml", &app(""));
    run.reload();
    run.logged(&["app=api: no longer configured"]);
    run.logged(&["no longer listening on unix:"]);
    assert!(!run.path("api.sock").exists());
    run.ask("pid");
    run.stop();
}

#[test]
fn an_open_listener_gets_a_new_mode() {
    use std::os::unix::fs::PermissionsExt;
    let with = |mode| {
        app("").replace(
            "'unix:web.sock'",
            &format!("{{ address = 'unix:web.sock', mode = '{mode}' }}"),
        )
    };
    let mut run = Run::start(&with("0600"));
    run.write("app.toml", &with("0640"));
    run.reload();
    let mode = run
        .path("web.sock")
        .metadata()
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    run.ask("pid");
    run.stop();
}

#[test]
fn a_removed_app_can_return_while_its_old_workers_still_drain() {
    let two = app("")
        + &format!(
            "[app.slow]\ngraceful_timeout = '1h'\ncommand = ['{}', 'ignore-signals']\n",
            worker()
        );
    let mut run = Run::start(&two);
    run.write("app.toml", &app(""));
    run.reload();
    run.event("term");
    run.write("app.toml", &two);
    assert!(
        run.reload()
            .contains("slow 1/1 ready (1 leaving); web 1/1 ready")
    );
    // The same after a rollback: a new app is removed again, and the next attempt adds it.
    let three = two.clone()
        + &format!(
            "[app.third]\ngraceful_timeout = '1h'\ncommand = ['{}', 'ignore-signals']\n",
            worker()
        );
    run.write(
        "app.toml",
        &three.replace(
            "[app.third]",
            "[app.bad]\ncommand = ['/bin/false']\n[app.third]",
        ),
    );
    assert!(run.reload().contains("reload failed: app=bad"));
    run.write("app.toml", &three);
    assert!(run.reload().contains("third 1/1 ready"));
    run.signal(Signal::SIGTERM);
    run.message("STOPPING=1");
    run.stop();
}

#[test]
fn a_command_before_a_reload_decides_whether_it_goes_on() {
    let with = |command: &str| {
        app("") + &format!("[app.web.reload]\nbefore = ['/bin/sh', '-c', '{command}']\n")
    };
    let mut run = Run::start(&with("echo $PREFORKD_APP > before; exit 0"));
    let pid = run.ask("pid");
    assert!(!run.path("before").exists(), "not at the first start");
    run.reload();
    assert_eq!(
        std::fs::read_to_string(run.path("before")).expect("it ran"),
        "web\n"
    );
    assert_ne!(run.ask("pid"), pid);
    let pid = run.ask("pid");
    run.write("app.toml", &with("echo not migrated >&2; exit 4"));
    let message = run.reload();
    assert!(
        message.contains("app=web: its command `before` exited with status 4")
            && message.contains("(its last output: not migrated); keeping"),
        "{message}"
    );
    assert_eq!(run.ask("pid"), pid);
    run.write(
        "app.toml",
        &with("kill -STOP $$$$").replace(
            "[app.web.reload]",
            "start_timeout = '200ms'\n[app.web.reload]",
        ),
    );
    assert!(
        run.reload()
            .contains("did not end within 200ms and was terminated")
    );
    let both = "start_timeout = '200ms'\ngraceful_timeout = '200ms'\n[app.web.reload]";
    let ignores = with("trap \"\" TERM; while :; do sleep 1000; done");
    run.write("app.toml", &ignores.replace("[app.web.reload]", both));
    let message = run.reload();
    assert!(
        message.contains("was terminated: killed by SIGKILL"),
        "SIGKILL comes after SIGTERM: {message}"
    );
    run.write("app.toml", &with("exec sleep 1000"));
    run.signal(Signal::SIGHUP);
    run.logged(&["before pid=", "sleep 1000"]);
    run.stop();
}

#[test]
fn a_command_may_run_before_the_first_start_too() {
    let with = |end: &str| {
        let script = format!("echo $PREFORKD_APP $PREFORKD_GENERATION >> before; {end}");
        app("")
            + &format!(
                "[app.web.reload]\nbefore = ['/bin/sh', '-c', '{script}']\nbefore_at_start = true\n"
            )
    };
    let mut run = Run::start(&with("exit 0"));
    let written = || std::fs::read_to_string(run.path("before")).expect("it ran");
    assert_eq!(written(), "web 1\n");
    run.reload();
    assert_eq!(written(), "web 1\nweb 2\n");
    run.stop();

    let mut run = Run::begin(&with("echo not migrated >&2; exit 4"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    let reason = "cannot start: app=web: its command `before` exited with status 4";
    assert!(
        log.contains(reason) && log.contains("(its last output: not migrated)"),
        "{log}"
    );
    assert!(!log.contains("ready after"), "no worker is started:\n{log}");

    // A stop ends the command.
    let mut run = Run::begin(&with("exec sleep 1000"));
    run.logged(&["before pid=", "sleep 1000"]);
    run.stop();
}

#[test]
fn the_first_new_worker_must_live_for_the_soak() {
    let soaking = app("[app.web.reload]\nsoak = '300ms'\nsurge = 4");
    let mut run = Run::start(&soaking);
    run.signal(Signal::SIGHUP);
    run.message("RELOADING=1");
    run.event("started");
    let canary = run.event("started");
    assert_eq!(canary.generation, "2");
    run.logged(&["gen=2", "ready after"]);
    kill(canary.pid, Signal::SIGKILL).expect("it lives");
    assert!(
        run.message("READY=1")
            .contains("reload failed: app=web: its first worker was killed by SIGKILL")
    );
    assert!(run.reload().contains("generation 3: web 1/1 ready"));
    run.stop();
}

#[test]
fn the_first_new_worker_must_pass_its_check() {
    let check = "check = { path = '/health', attempts = 2, timeout = '20s' }";
    let mut run = Run::start(&app(&format!("[app.web.reload]\n{check}")));
    let pid = run.ask("pid");
    assert_eq!(run.ask("env LISTEN_FDNAMES"), "web:check");
    let message = run.reload();
    let why = "app=web: its first worker failed its check: GET /health answered \"HTTP/1.1 503 Service Unavailable\", not 200";
    assert!(message.contains(why), "{message}");
    // A program also accepts at its other listener, until it is told to end.
    run.event("term");
    assert_eq!(run.ask("pid"), pid);
    run.write("healthy", "");
    assert!(run.reload().contains("generation 3: web 1/1 ready"));
    assert_ne!(run.ask("pid"), pid);
    run.stop();
}

#[test]
fn a_listener_that_cannot_be_opened_fails_the_reload() {
    let mut run = Run::start(&app(""));
    run.write("file", "");
    run.write(
        "app.toml",
        &app("").replace(
            "['unix:web.sock']",
            "['unix:web.sock', 'unix:new.sock', 'unix:file']",
        ),
    );
    let message = run.reload();
    assert!(
        message.contains("/file: there is a file at this path that is not a socket"),
        "{message}"
    );
    assert!(!run.path("new.sock").exists());
    run.ask("pid");
    run.stop();
}

#[test]
fn a_worker_that_does_not_drain_is_killed() {
    let mut run = Run::start(
        &app("graceful_timeout = '50ms'").replace("']\nlisten", "', 'ignore-signals']\nlisten"),
    );
    run.reload();
    run.logged(&["gen=1", "SIGKILL (still running after graceful_timeout)"]);
    run.stop();
}

#[test]
fn winch_pauses_and_hup_resumes() {
    let mut run = Run::start(&app("workers = 2"));
    run.signal(Signal::SIGWINCH);
    run.status("web 0/2 ready");
    // The listener stays: a connection waits in its queue for the workers to return.
    let waiting =
        std::os::unix::net::UnixStream::connect(run.path("web.sock")).expect("the queue is open");
    run.signal(Signal::SIGHUP);
    assert_ne!(common::ask(waiting, "pid"), "");
    run.status("web 2/2 ready");
    run.stop();
}
