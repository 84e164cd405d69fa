//! The number of workers: TTIN and TTOU, and by load.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::{Run, app, preforkd, worker};
use nix::sys::signal::Signal;

#[test]
fn ttin_adds_a_worker_and_ttou_removes_the_last_one() {
    let mut run = Run::start(&app("workers = 2"));
    run.signal(Signal::SIGTTIN);
    run.status("web 3/3 ready");
    run.signal(Signal::SIGTTOU);
    assert_eq!(run.event("term").slot, "2");
    run.status("web 2/2 ready");
    run.stop();
}

#[test]
fn one_worker_is_kept() {
    let mut run = Run::start(&app(""));
    run.signal(Signal::SIGTTOU);
    run.logged(&["SIGTTOU from pid", "app=web: 1 worker wanted"]);
    run.ask("pid");
    run.stop();
}

#[test]
fn an_app_without_listeners_is_not_scaled_by_signals() {
    let mut run = Run::start(&(app("") + &format!("[app.once]\ncommand = ['{}']\n", worker())));
    run.signal(Signal::SIGTTIN);
    run.status("once 1/1 ready; web 2/2 ready");
    run.stop();
}

#[test]
fn programs_that_run_once_or_may_exist_only_once_are_not_scaled_by_signals() {
    let sleep = "command = 'sleep 1000'\nready = 'exec'\n";
    let config = [
        format!("[app.alone]\n{sleep}replace = 'stop-first'\n"),
        format!("[app.once]\n{sleep}restart = 'never'\n"),
        format!("[app.pool]\n{sleep}"),
    ];
    let mut run = Run::start(&config.concat());
    run.signal(Signal::SIGTTIN);
    run.status("alone 1/1 ready; once 1/1 ready; pool 2/2 ready");
    run.stop();
}

#[test]
fn a_program_that_may_exist_only_so_often_gets_no_more_workers_than_configured() {
    let config = "[master]\ncontrol = 'control'\n[app.two]\ncommand = 'sleep 1000'\nready = 'exec'\nreplace = 'stop-first'\nworkers = 2\n";
    let mut run = Run::start(config);
    let scale = |what: &str| {
        let mut command = preforkd();
        command.args(["scale", what, "--socket"]);
        let output = command.arg(run.path("control")).output();
        let output = output.expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    for what in ["two=3", "two=+1"] {
        let (status, said) = scale(what);
        assert_eq!(status, Some(1), "{said}");
        let why = "two would have 3 workers; with replace = \"stop-first\" there are never more than configured, which is 2 (change `workers`, and reload)";
        assert!(said.contains(why), "{said}");
    }
    for (what, expected) in [("two=1", "two 1/1 ready"), ("two=+1", "two 2/2 ready")] {
        let (status, said) = scale(what);
        assert_eq!((status, said.trim()), (Some(0), expected));
    }
    run.stop();
}

#[test]
fn a_number_set_by_signal_survives_a_reload() {
    let mut run = Run::start(&app("workers = 1"));
    run.signal(Signal::SIGTTIN);
    run.status("web 2/2 ready");
    assert!(run.reload().contains("web 2/2 ready"));
    run.write("app.toml", &app("workers = 3"));
    assert!(run.reload().contains("web 3/3 ready"));
    run.stop();
}

#[test]
fn programs_get_more_workers_while_connections_wait_and_fewer_when_none_do() {
    let range = "workers = { min = 1, max = 3, idle_timeout = '300ms' }\n";
    for listen in ["unix:web.sock", "127.0.0.1:0"] {
        let config = app(range).replace("unix:web.sock", listen);
        if listen.ends_with(":0") {
            // A free port, because the test cannot ask the master for the one it got.
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = free.local_addr().expect("an address");
            drop(free);
            let mut run = Run::start(&config.replace(listen, &address.to_string()));
            grow_and_shrink(&mut run, || connect(std::net::TcpStream::connect(address)));
        } else {
            let mut run = Run::start(&config);
            let path = run.path("web.sock");
            grow_and_shrink(&mut run, || connect(UnixStream::connect(&path)));
        }
    }
}

fn connect<S>(stream: std::io::Result<S>) -> S {
    stream.expect("the master listens")
}

fn grow_and_shrink<S: Read + Write>(run: &mut Run, open: impl Fn() -> S) {
    run.event("started");
    // One worker hangs in a request, so the next connection must wait for another.
    let mut first = open();
    first.write_all(b"hang\n").expect("it reads");
    run.event("hangs");
    assert_ne!(common::ask(open(), "pid"), "");
    run.status("web 2/2 ready");
    run.status("web 1/1 ready");
    run.signal(Signal::SIGINT);
    run.ended();
}
