//! The process that answers /metrics, /healthz and /readyz.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Run, app, build_front};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preforkd::effects::process;

fn config(master: &str, answer: &str) -> String {
    build_front();
    format!(
        "[master]\ncontrol = 'control'\nmetrics = 'unix:metrics.sock'\n{master}\n[front]\nworkers = 1\n{}\n\
        [site.shop]\nlisten = 'unix:site.sock'\nroutes = [{{ path = '/', answer = {{ text = '{answer}' }} }}]\n",
        app(""),
    )
}

/// The status and the body of an answer.
fn get(run: &Run, socket: &str, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(run.path(socket)).expect("it listens");
    let request = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), body.to_owned())
}

fn ask(run: &Run, path: &str) -> (u16, String) {
    get(run, "metrics.sock", &format!("GET {path}"))
}

/// Waits until something is so: a worker counts a request after it has answered it, and the master notes what it does at the end of a turn.
fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < GUARD, "it is not so");
    }
}

fn until_value(run: &Run, name: &str, expected: f64) {
    until(|| find(run, name).is_some_and(|value| value >= expected));
    assert_eq!(value(run, name), expected, "{name}");
}

/// The value of a metric; none if there is no such metric.
fn find(run: &Run, name: &str) -> Option<f64> {
    let (status, text) = ask(run, "/metrics");
    assert_eq!(status, 200, "{text}");
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().parse().expect("a number"))
}

fn value(run: &Run, name: &str) -> f64 {
    find(run, name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// The process that answers, once it does.
fn exporter(run: &Run) -> Pid {
    ask(run, "/healthz");
    let mut all = process::all().filter(|(_, stat)| stat.parent == run.pid() && stat.runs);
    let title = |pid: Pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let found =
        all.find(|(pid, _)| title(*pid).is_ok_and(|it| it.starts_with("preforkd: metrics")));
    found.expect("it runs").0
}

/// The time limit of a wait, after which the test fails.
const GUARD: Duration = Duration::from_secs(30);
const ANSWERED: &str = "preforkd_app_requests_total{app=\"front\",status=\"2xx\"}";

#[test]
fn sums_outlast_the_workers_and_the_process_that_tells_them() {
    let mut run = Run::start(&config("", "one"));
    for _ in 0..3 {
        assert_eq!(get(&run, "site.sock", "GET /"), (200, "one".into()));
    }
    until_value(&run, ANSWERED, 3.0);
    until_value(
        &run,
        "preforkd_site_requests_total{site=\"shop\",route=\"/\",status=\"2xx\"}",
        3.0,
    );
    let cpu = "preforkd_app_cpu_seconds_total{app=\"front\"}";
    let before = value(&run, cpu);
    run.write("app.toml", &config("", "two"));
    run.reload();
    assert_eq!(get(&run, "site.sock", "GET /"), (200, "two".into()));
    until_value(&run, ANSWERED, 4.0);
    assert!(value(&run, cpu) >= before);
    let replaced = "preforkd_app_worker_ends_total{app=\"front\",cause=\"replaced\"}";
    run.logged(&["app=front", "gen=1", "ended ("]);
    until_value(&run, replaced, 1.0);
    let first = exporter(&run);
    kill(first, Signal::SIGKILL).expect("it is ours");
    // Who asks meanwhile waits for the next one.
    until_value(&run, ANSWERED, 4.0);
    assert_ne!(exporter(&run), first);
    until_value(&run, replaced, 1.0);
    run.stop();
}

#[test]
fn a_new_app_is_counted_and_the_listener_stays_open() {
    let mut run = Run::start(&config("", "one"));
    until_value(
        &run,
        "preforkd_app_workers{app=\"web\",state=\"idle\"}",
        1.0,
    );
    let waiting = UnixStream::connect(run.path("metrics.sock")).expect("it listens");
    let more = "\n[app.more]\ncommand = ['sleep', '1000']\nready = 'exec'\nworkers = 2\n";
    run.write("app.toml", &(config("", "one") + more));
    run.reload();
    until_value(&run, "preforkd_app_workers_wanted{app=\"more\"}", 2.0);
    until_value(&run, "preforkd_generation", 2.0);
    assert!(
        !ask(&run, "/metrics")
            .1
            .contains("queue_length{app=\"more\"}"),
        "it has no listener"
    );
    until_value(&run, "preforkd_app_accept_queue_length{app=\"web\"}", 0.0);
    drop(waiting);
    run.stop();
}

#[test]
fn ready_is_what_serves_and_goes_on() {
    let mut run = Run::start(&config("", "one"));
    assert_eq!(ask(&run, "/readyz"), (200, "ready\n".into()));
    run.signal(Signal::SIGWINCH);
    run.logged(&["pausing: all workers end"]);
    until(|| ask(&run, "/readyz").0 == 503);
    let (status, why) = ask(&run, "/readyz");
    assert_eq!((status, &*why), (503, "no worker serves: front, web\n"));
    until_value(&run, "preforkd_ready", 0.0);
    run.reload();
    until(|| ask(&run, "/readyz").0 == 200);
    kill(run.pid(), Signal::SIGSTOP).expect("it is ours");
    until(|| ask(&run, "/healthz").0 == 503);
    assert_eq!(value(&run, "preforkd_ready"), 1.0, "it needs no master");
    kill(run.pid(), Signal::SIGCONT).expect("it is ours");
    run.stop();
}

#[test]
fn a_lame_duck_serves_and_says_that_nobody_should_come() {
    let mut run = Run::start(&config("lame_duck = '1h'", "one"));
    run.signal(Signal::SIGTERM);
    run.message("STOPPING=1");
    assert_eq!(ask(&run, "/readyz"), (503, "stopping\n".into()));
    assert_eq!(ask(&run, "/healthz").0, 200);
    assert_eq!(get(&run, "site.sock", "GET /"), (200, "one".into()));
    run.signal(Signal::SIGHUP);
    run.logged(&["not reloading: the master is stopping"]);
    run.signal_from_another(Signal::SIGTERM);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn a_lame_duck_ends_by_itself() {
    let mut run = Run::start(&config("lame_duck = '100ms'", "one"));
    run.signal(Signal::SIGTERM);
    run.logged(&["stopping in 100ms (lame_duck)"]);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("left a process"), "{log}");
}

#[test]
fn the_process_has_no_rights_and_answers_nothing_else() {
    let mut run = Run::start(&config("", "one"));
    let pid = exporter(&run);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a field")
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(field("Uid:"), ["65534"; 4]);
        assert_eq!(field("Groups:"), Vec::<String>::new());
    }
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    for descriptor in folder.flatten().map(|entry| entry.path()) {
        let target = descriptor.read_link().unwrap_or_default();
        if !target.to_string_lossy().contains("memfd:preforkd s") {
            continue;
        }
        let number = descriptor
            .file_name()
            .expect("a number")
            .to_string_lossy()
            .into_owned();
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).expect("open");
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .expect("flags");
        assert!(
            flags.trim().ends_with('0'),
            "{target:?} can be written: {flags}"
        );
    }
    assert_eq!(ask(&run, "/").0, 404);
    assert_eq!(get(&run, "metrics.sock", "POST /metrics").0, 405);
    assert_eq!(
        get(&run, "metrics.sock", "HEAD /readyz"),
        (200, String::new())
    );
    run.stop();
}
