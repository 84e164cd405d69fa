//! HUP: a transaction that takes in what works and leaves everything alone otherwise.

mod common;

use common::{Run, app, worker};
use nix::sys::signal::{Signal, kill};

#[test]
fn a_reload_replaces_all_workers_by_ones_of_the_next_generation() {
    let mut run = Run::start(&app("workers = 3"));
    let old: Vec<_> = (0..3).map(|_| run.told_of("started").pid).collect();
    assert!(run.reload().contains("STATUS=generation 2: web 3/3 ready"));
    let mut ended = Vec::new();
    let mut begun = 0;
    while ended.len() < 3 || begun < 3 {
        let told = run.told();
        match told.event.as_str() {
            "started" => {
                assert_eq!(told.generation, "2");
                begun += 1;
            }
            _ => ended.push(told.pid),
        }
    }
    assert!(old.iter().all(|pid| ended.contains(pid)));
    run.stop();
}

#[test]
fn the_init_system_learns_when_a_reload_began() {
    let mut run = Run::start(&app(""));
    run.signal(Signal::SIGHUP);
    let heard = run.hear("RELOADING=1");
    let began = heard
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .expect("a time");
    assert!(
        began
            .parse::<u64>()
            .is_ok_and(|microseconds| microseconds > 0),
        "{heard}"
    );
    run.hear("READY=1");
    run.stop();
}

#[test]
fn a_broken_file_keeps_everything_and_says_what_is_wrong() {
    let mut run = Run::start(&app(""));
    let pid = run.ask("pid");
    run.write("app.toml", "[app.web]\nwrokers = 2\n");
    let heard = run.reload();
    assert!(
        heard.contains(
            "app.toml:2:1: unknown key `wrokers`; did you mean `workers`?; keeping generation 1"
        ),
        "{heard}"
    );
    assert_eq!(run.ask("pid"), pid);
    run.stop();
}

#[test]
fn a_generation_that_cannot_start_is_rolled_back_and_the_next_good_one_is_taken() {
    let mut run = Run::start(&app("workers = 2"));
    run.write("behaviour", "exit 7");
    let heard = run.reload();
    assert!(
        heard.contains("exited with status 7, before it was ready"),
        "{heard}"
    );
    assert!(
        heard.contains("(its last output: settings are missing); keeping generation 1"),
        "{heard}"
    );
    run.logged(&["settings are missing"]);
    assert!(heard.contains("keeping generation 1"), "{heard}");
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    let heard = run.reload();
    assert!(heard.contains("generation 3: web 2/2 ready"), "{heard}");
    run.stop();
}

#[test]
fn one_app_that_cannot_start_takes_all_back() {
    let mut run = Run::start(&app(""));
    let pid = run.ask("pid");
    run.write(
        "app.toml",
        &(app("") + "[app.queue]\ncommand = ['/bin/false']\n"),
    );
    let heard = run.reload();
    assert!(
        heard.contains("reload failed: app=queue: its first worker exited with status 1"),
        "{heard}"
    );
    assert!(heard.contains("keeping generation 1"), "{heard}");
    run.logged(&["app=web", "gen=2", "ended (its generation was rolled back)"]);
    assert_eq!(run.ask("pid"), pid);
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
fn apps_and_listeners_come_and_go_with_a_reload() {
    let mut run = Run::start(&app(""));
    let pid = run.ask("pid");
    let two = app("")
        + &format!(
            "[app.api]\ncommand = ['{}']\nlisten = ['unix:api.sock']\n",
            worker()
        );
    run.write("app.toml", &two);
    let heard = run.reload();
    assert!(heard.contains("api 1/1 ready; web 1/1 ready"), "{heard}");
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
fn a_listener_that_stays_takes_a_new_mode() {
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
fn an_app_that_is_removed_can_come_back_while_its_old_workers_still_drain() {
    let two = app("")
        + &format!(
            "[app.slow]\ngraceful_timeout = '1h'\ncommand = ['{}', 'deaf']\n",
            worker()
        );
    let mut run = Run::start(&two);
    run.write("app.toml", &app(""));
    run.reload();
    run.told_of("term");
    run.write("app.toml", &two);
    assert!(
        run.reload()
            .contains("slow 1/1 ready (1 leaving); web 1/1 ready")
    );
    // The same after a rollback: an app that was new is gone again, and the next try brings it.
    let three = two.clone()
        + &format!(
            "[app.third]\ngraceful_timeout = '1h'\ncommand = ['{}', 'deaf']\n",
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
    run.hear("STOPPING=1");
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
    let heard = run.reload();
    assert!(
        heard.contains("app=web: its command `before` exited with status 4")
            && heard.contains("(its last output: not migrated); keeping"),
        "{heard}"
    );
    assert_eq!(run.ask("pid"), pid);
    run.write(
        "app.toml",
        &with("kill -STOP $$").replace(
            "[app.web.reload]",
            "start_timeout = '200ms'\n[app.web.reload]",
        ),
    );
    assert!(
        run.reload()
            .contains("did not end within 200ms and was told to")
    );
    let both = "start_timeout = '200ms'\ngraceful_timeout = '200ms'\n[app.web.reload]";
    let ignores = with("trap \"\" TERM; while :; do sleep 1000; done");
    run.write("app.toml", &ignores.replace("[app.web.reload]", both));
    let heard = run.reload();
    assert!(
        heard.contains("was told to: killed by SIGKILL"),
        "SIGKILL comes after SIGTERM: {heard}"
    );
    run.write("app.toml", &with("exec sleep 1000"));
    run.signal(Signal::SIGHUP);
    run.logged(&["before pid=", "sleep 1000"]);
    run.stop();
}

#[test]
fn the_first_new_worker_must_live_for_the_soak() {
    let soaking = app("[app.web.reload]\nsoak = '300ms'\nsurge = 4");
    let mut run = Run::start(&soaking);
    run.signal(Signal::SIGHUP);
    run.hear("RELOADING=1");
    run.told_of("started");
    let canary = run.told_of("started");
    assert_eq!(canary.generation, "2");
    run.logged(&["gen=2", "ready after"]);
    kill(canary.pid, Signal::SIGKILL).expect("it lives");
    assert!(
        run.hear("READY=1")
            .contains("reload failed: app=web: its first worker killed by SIGKILL")
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
    let heard = run.reload();
    let why = "app=web: its first worker failed its check: GET /health answered \"HTTP/1.1 503 Service Unavailable\", not 200";
    assert!(heard.contains(why), "{heard}");
    // A program accepts at its other listener too, until it is told to end.
    run.told_of("term");
    assert_eq!(run.ask("pid"), pid);
    run.write("healthy", "");
    assert!(run.reload().contains("generation 3: web 1/1 ready"));
    assert_ne!(run.ask("pid"), pid);
    run.stop();
}

#[test]
fn a_listener_that_cannot_be_had_ends_the_reload() {
    let mut run = Run::start(&app(""));
    run.write("file", "");
    run.write(
        "app.toml",
        &app("").replace(
            "['unix:web.sock']",
            "['unix:web.sock', 'unix:new.sock', 'unix:file']",
        ),
    );
    let heard = run.reload();
    assert!(
        heard.contains("/file: there is a file of this name that is no socket"),
        "{heard}"
    );
    assert!(!run.path("new.sock").exists());
    run.ask("pid");
    run.stop();
}

#[test]
fn a_worker_is_killed_that_does_not_drain() {
    let mut run =
        Run::start(&app("graceful_timeout = '50ms'").replace("']\nlisten", "', 'deaf']\nlisten"));
    run.reload();
    run.logged(&["gen=1", "SIGKILL (still running after graceful_timeout)"]);
    run.stop();
}

#[test]
fn winch_pauses_and_hup_resumes() {
    let mut run = Run::start(&app("workers = 2"));
    run.signal(Signal::SIGWINCH);
    run.status("web 0/2 ready");
    // The listener stays: a connection waits for the workers to come back.
    let waiting =
        std::os::unix::net::UnixStream::connect(run.path("web.sock")).expect("the queue is open");
    run.signal(Signal::SIGHUP);
    assert_ne!(common::ask(waiting, "pid"), "");
    run.status("web 2/2 ready");
    run.stop();
}
