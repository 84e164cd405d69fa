//! After `kill -9` of the master its guard ends what it had started. Of the next master only those apps wait for that of which something
//! is left that must not run beside them.

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Run, app, ask, free_address, preforkd, worker};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What begins the line of the guard.
const KILLED: &str = "was killed or has crashed; ending";

/// A folder in which workers do this.
fn folder(behaviour: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("behaviour"), behaviour).expect("room");
    folder
}

/// Kills the master, and reaps it, as an init system does.
fn kill_master(run: &mut Run) {
    run.signal(Signal::SIGKILL);
    run.master.wait().expect("it is our child");
    run.close_stored();
}

/// The next master, which an init system starts at once. It has no sockets of the last one.
fn restart(run: &mut Run, config: &str) -> Run {
    let folder = std::mem::replace(&mut run.folder, tempfile::tempdir().expect("a folder"));
    std::fs::remove_file(folder.path().join("init.sock")).expect("the previous one");
    Run::begin_in(folder, config, |_| {})
}

fn pid_in(path: PathBuf) -> Pid {
    let text = std::fs::read_to_string(path).expect("it was written");
    Pid::from_raw(text.trim().parse().expect("a pid"))
}

/// Waits for the end of a process that was not reaped when this began.
fn gone(pid: Pid) {
    let Ok(process) = preforkd::sys::watch_process(pid) else {
        return;
    };
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(30_000u16)).expect("a descriptor");
    assert!(!runs(pid));
}

fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !matches!(state.chars().next(), None | Some('Z' | 'X'))
}

/// The guard of a master.
fn guard(run: &Run) -> Pid {
    let master = run.pid();
    let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
    let children = children.expect("it lives");
    let mut children = children.split_whitespace();
    let is_guard = |pid: &&str| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut links = fds.into_iter().flatten().flatten();
        links.any(|fd| {
            let link = fd.path().read_link();
            link.is_ok_and(|to| to == Path::new("/memfd:preforkd guard (deleted)"))
        })
    };
    let guard = children.find(is_guard).expect("a master has a guard");
    Pid::from_raw(guard.parse().expect("a pid"))
}

/// A field of proc_pid_status(5).
fn status(pid: Pid, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field));
    value.expect("a field").trim().to_owned()
}

#[test]
fn a_program_that_ignores_its_signal_is_killed_when_its_time_is_over() {
    let config = app("workers = 2\ngraceful_timeout = '300ms'");
    let mut run = Run::begin_in(folder("ignore-signals"), &config, |_| {});
    run.message("READY=1");
    let workers = [run.event("started").pid, run.event("started").pid];
    let began = std::time::Instant::now();
    kill_master(&mut run);
    // Once, by the kernel.
    run.event("term");
    run.event("term");
    run.logged(&[
        &format!("pid {}", run.pid()),
        KILLED,
        "2 processes",
        "app=web: 2",
    ]);
    run.logged(&[
        "app=web worker=",
        "sending SIGKILL to 1 process (still running after",
    ]);
    run.logged(&["nothing is left of the preforkd with pid"]);
    assert!(began.elapsed().as_millis() >= 300);
    run.all_ended();
    assert!(!workers.into_iter().any(runs));
}

#[test]
fn what_a_wrapper_leaves_is_told_to_end_and_the_port_serves_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = port.local_addr().expect("bound");
    drop(port);
    // The kernel tells only the shell, which dies of it. Its child holds the listener.
    let config = format!(
        "[app.web]\nready = 'exec'\nlisten = '{at}'\ngraceful_timeout = '10s'\n\
         command = ['/bin/sh', '-c', 'export LISTEN_PID=; sh -c \"export LISTEN_PID=\\$\\$; exec {}\"; exit 5']\n",
        worker()
    );
    let mut run = Run::start(&config);
    let child = run.event("started").pid;
    let stream = std::net::TcpStream::connect(at).expect("it serves");
    assert_eq!(ask(stream, "pid"), child.to_string());
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    run.event("term");
    run.logged(&[KILLED, "app=web: "]);
    run.logged(&["app=web worker=0 gen=1: sending SIGTERM to "]);
    next.message("READY=1");
    next.event("started");
    assert!(!runs(child));
    let stream = std::net::TcpStream::connect(at).expect("it serves");
    assert!(!ask(stream, "pid").is_empty());
    next.stop();
}

#[test]
fn a_process_with_a_session_of_its_own_is_ended_whether_its_parent_lives_or_not() {
    // One has the shell as its parent, the other is an orphan.
    let deaf = "trap \"\" TERM; echo $$$$ > $$0; exec sleep 1000";
    let script = format!(
        "setsid sh -c \\'{deaf}\\' child & (setsid sh -c \\'{deaf}\\' orphan &); \
         until test -s child -a -s orphan; do :; done; trap '' TERM; echo 0 1 $$$$ started; exec sleep 1000"
    );
    let script = script.replace("\\'", "'");
    let config = format!(
        "[app.x]\nready = 'exec'\ngraceful_timeout = '200ms'\ncommand = ['/bin/sh', '-c', \"\"\"{script}\"\"\"]\n"
    );
    let mut run = Run::begin(&config);
    run.event("started");
    let both = ["child", "orphan"].map(|name| pid_in(run.path(name)));
    assert!(both.into_iter().all(runs));
    kill_master(&mut run);
    run.logged(&[KILLED, "app=x: 3"]);
    run.logged(&["nothing is left"]);
    run.all_ended();
    assert!(!both.into_iter().any(runs));
}

#[test]
fn an_app_that_may_exist_only_once_is_never_there_twice() {
    let script = "trap '' TERM; exec 9> lock; flock -n 9 || { echo twice > twice; exit 1; }; \
                  echo $PREFORKD_SLOT $PREFORKD_GENERATION $$ started; exec sleep 1000";
    let script = script.replace('$', "$$");
    let config = format!(
        "[app.once]\nready = 'exec'\nreplace = 'stop-first'\ngraceful_timeout = '5s'\n\
         command = ['/bin/sh', '-c', \"{script}\"]\n"
    );
    let mut run = Run::start(&config);
    let first = run.event("started").pid;
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    let killed = format!("the preforkd with pid {}", run.pid());
    next.logged(&["app=once: waiting for what", &killed]);
    kill(first, Signal::SIGKILL).expect("it has time");
    next.logged(&["app=once: waits no longer"]);
    assert!(!runs(first));
    next.event("started");
    next.message("READY=1");
    assert!(!next.path("twice").exists());
    run.logged(&["nothing is left"]);
    next.stop();
}

/// Some programs bind a port of their own without that the configuration says that they exist only once.
#[test]
fn what_fails_beside_its_earlier_run_is_tried_again_after_that_and_ends_nothing() {
    let script = "trap '' TERM; exec 9> lock; flock -n 9 || exit 1; \
                  echo $PREFORKD_SLOT $PREFORKD_GENERATION $$ started; exec sleep 1000";
    let script = script.replace('$', "$$");
    let config = app("")
        + &format!(
            "[app.node]\nready = 'exec'\ngraceful_timeout = '5s'\n\
             command = ['/bin/sh', '-c', \"{script}\"]\n"
        );
    let mut run = Run::start(&config);
    let first = [run.event("started").pid, run.event("started").pid];
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    let web = next.event("started");
    assert!(runs(web.pid) && !first.contains(&web.pid));
    next.logged(&[
        "app=node",
        "exited with status 1",
        "it is tried again when this has ended",
    ]);
    for pid in first {
        // The other one may have ended.
        let _ = kill(pid, Signal::SIGKILL);
    }
    next.logged(&["app=node: waits no longer"]);
    next.event("started");
    next.message("READY=1");
    assert!(first.iter().all(|&pid| !runs(pid)));
    next.stop();
}

#[test]
fn a_program_that_cannot_be_executed_is_not_tried_again_after_its_earlier_run() {
    let config = "[app.node]\nready = 'exec'\ngraceful_timeout = '1h'\ncommand = './node'\n";
    let folder = tempfile::tempdir().expect("a folder");
    let script = "#!/bin/sh\ntrap '' TERM\necho $PREFORKD_SLOT $PREFORKD_GENERATION $$ started\nexec sleep 1000\n";
    let program = folder.path().join("node");
    std::fs::write(&program, script).expect("room");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("ours");
    let mut run = Run::begin_in(folder, config, |_| {});
    run.message("READY=1");
    let first = run.event("started").pid;
    kill_master(&mut run);
    std::fs::write(run.path("node"), "#!/no/such/interpreter\n").expect("room");
    let mut next = restart(&mut run, config);
    let (status, log) = next.ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(
        log.contains("cannot start: app=node: its first worker"),
        "{log}"
    );
    assert!(runs(first), "nobody has waited for it");
    kill(first, Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
}

#[test]
fn what_has_left_its_session_is_waited_for_also_while_its_parent_runs() {
    let script = "trap \"\" TERM; exec 9> lock; flock -n 9 || { echo twice > twice; exit 1; }; \
                  echo $PREFORKD_SLOT $PREFORKD_GENERATION $$ started; exec sleep 1000";
    let script = script.replace('$', "$$");
    let config = format!(
        "[app.kid]\nready = 'exec'\ngraceful_timeout = '5s'\n\
         command = ['/bin/sh', '-c', '''setsid /bin/sh -c '{script}' & wait''']\n"
    );
    let mut run = Run::start(&config);
    let first = run.event("started").pid;
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    next.logged(&["app=kid: waiting for what"]);
    kill(first, Signal::SIGKILL).expect("it has time");
    next.event("started");
    assert!(!runs(first) && !next.path("twice").exists());
    next.message("READY=1");
    next.stop();
}

/// A deaf program that may exist only once, with a long time to end.
fn deaf_once(rest: &str) -> String {
    let script =
        "trap \"\" TERM; echo $$PREFORKD_SLOT $$PREFORKD_GENERATION $$$$ started; exec sleep 1000";
    format!(
        "[app.once]\nready = 'exec'\nreplace = 'stop-first'\ngraceful_timeout = '1h'\n\
         command = ['/bin/sh', '-c', '{script}']\n{rest}\n"
    )
}

fn perform(run: &Run, words: &[&str]) -> std::process::Output {
    let mut command = preforkd();
    let command = command.args(words).arg("-c").arg(run.path("app.toml"));
    command.output().expect("it starts")
}

#[test]
fn only_the_app_waits_of_which_something_is_left() {
    let config = format!(
        "[master]\ncontrol = 'control.sock'\n{}{}",
        app(""),
        deaf_once("")
    );
    let mut run = Run::start(&config);
    let both = [run.event("started"), run.event("started")];
    let deaf = both
        .iter()
        .find(|event| status(event.pid, "Name:") == "sleep");
    let deaf = deaf.expect("one of them").pid;
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    next.logged(&["app=web worker=0", "ready after"]);
    assert_ne!(next.ask("pid"), "");
    let shown = perform(&next, &["status"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let wanted = format!("waiting for what the preforkd with pid {}", run.pid());
    assert!(text.contains(&wanted), "{text}");
    let said = next.status("once 0/1 ready, waiting for what a killed preforkd has left");
    assert!(!said.contains("READY=1"), "{said}");
    // A reload has the same to wait for, and so has a second master.
    next.signal(Signal::SIGHUP);
    next.logged(&["app=once: what was requested meanwhile does not wait for it"]);
    kill_master(&mut next);
    let mut last = restart(&mut next, &config);
    last.logged(&["app=once: waiting for what", &run.pid().to_string()]);
    last.logged(&["app=web worker=0", "ready after"]);
    assert!(runs(deaf));
    last.message("EXTEND_TIMEOUT_USEC=15000000");
    kill(deaf, Signal::SIGKILL).expect("it has time");
    last.logged(&["app=once: waits no longer"]);
    last.message("READY=1");
    last.signal(Signal::SIGTERM);
    last.logged(&["ended (stop)"]);
    last.signal(Signal::SIGINT);
    let (status, log) = last.ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn an_app_that_waits_can_be_stopped() {
    let config = format!("[master]\ncontrol = 'control.sock'\n{}", deaf_once(""));
    let mut run = Run::start(&config);
    let deaf = run.event("started").pid;
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    next.status("once 0/1 ready, waiting for what a killed preforkd has left");
    let stopped = perform(&next, &["stop", "once"]);
    let text = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(
        stopped.status.success() && text.contains("once: stopped"),
        "{text}"
    );
    assert!(runs(deaf), "nobody has waited for it");
    next.message("READY=1");
    next.stop();
    kill(deaf, Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
}

/// A reload ends such an app first too, if it is removed, renamed or disabled.
#[test]
fn an_app_that_may_exist_only_once_waits_for_one_that_is_not_started_any_more() {
    let config = deaf_once("");
    let mut run = Run::start(&config);
    let first = run.event("started").pid;
    kill_master(&mut run);
    let config = config.replace("app.once", "app.renamed") + &app("");
    let mut next = restart(&mut run, &config);
    next.logged(&["app=renamed: waiting for what"]);
    next.logged(&["app=web worker=0", "ready after"]);
    kill(first, Signal::SIGKILL).expect("it has time");
    next.logged(&["app=renamed: waits no longer"]);
    next.message("READY=1");
}

/// A busy worker keeps its listener until its request has ended, and nobody can bind the address until then.
#[test]
fn the_next_master_takes_over_the_port_that_a_busy_worker_still_has() {
    let at = free_address();
    let of = |address: &str, port: u16| {
        format!(
            "[app.tcp]\ncommand = ['{}']\nlisten = '{address}:{port}'\ngraceful_timeout = '1h'\n",
            worker()
        )
    };
    let config = of("127.0.0.1", at.port());
    let mut run = Run::start(&config);
    let busy = run.event("started").pid;
    let mut request = std::net::TcpStream::connect(at).expect("it listens");
    request.write_all(b"hang\n").expect("it reads");
    run.event("hangs");
    let waiting = std::net::TcpStream::connect(at).expect("it listens");
    kill_master(&mut run);
    // In the accept queue since before the next master began, and since after the last one has ended.
    let later = std::net::TcpStream::connect(at).expect("the socket is the same");
    let mut next = restart(&mut run, &config);
    next.logged(&[
        &at.to_string(),
        "took over the socket of the previous master",
    ]);
    next.message("READY=1");
    let successor = next.event("started").pid;
    for client in [waiting, later] {
        assert_eq!(ask(client, "pid"), successor.to_string());
    }
    assert!(runs(busy), "its request goes on");
    // The guard of the second one has it too, and an address that is not wanted any more is free.
    kill_master(&mut next);
    let mut last = restart(&mut next, &of("0.0.0.0", at.port()));
    last.message("READY=1");
    last.event("started");
    assert!(runs(busy), "its request goes on");
    let client = std::net::TcpStream::connect(at).expect("it listens");
    assert_ne!(ask(client, "pid"), busy.to_string());
    let stored = last.stored();
    let port = format!("_{}", at.port());
    assert!(
        stored.iter().any(|name| name.ends_with(&port)),
        "{stored:?}"
    );
    kill(busy, Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
    last.stop();
}

/// Workers that leave their listener when their master dies may go on with requests, and the next master mostly comes soon.
#[test]
fn a_port_that_nobody_has_any_more_is_kept_for_a_while_as_long_as_anything_is_left() {
    let at = free_address();
    let config = format!("[app.tcp]\ncommand = ['{}']\nlisten = '{at}'\n", worker());
    let mut run = Run::start(&deaf_once(&config));
    let started = [run.event("started").pid, run.event("started").pid];
    let connect = || std::net::TcpStream::connect(at).expect("it listens");
    let idle: i32 = ask(connect(), "pid").parse().expect("a number");
    let idle = Pid::from_raw(idle);
    let deaf = started.into_iter().find(|pid| *pid != idle);
    kill_master(&mut run);
    gone(idle);
    let client = connect();
    let mut next = restart(&mut run, &config);
    next.logged(&[
        &at.to_string(),
        "took over the socket of the previous master",
    ]);
    assert_ne!(ask(client, "pid"), idle.to_string());
    next.message("READY=1");
    kill(deaf.expect("the other one"), Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
    next.stop();
}

/// What a program has bound itself is free when the last process has closed it. Whoever has another address need not wait.
#[test]
fn only_the_app_waits_whose_port_is_in_use() {
    let at = free_address();
    let config = format!(
        "[app.tcp]\ncommand = ['{}']\ngraceful_timeout = '1h'\n",
        worker()
    );
    let mut run = Run::begin_in(folder(&format!("bind {at}")), &config, |_| {});
    run.message("READY=1");
    let old = run.event("started").pid;
    kill_master(&mut run);
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    let config = format!("{config}listen = '{at}'\nrequired = false\n{}", app(""));
    let mut next = restart(&mut run, &config);
    next.logged(&["app=tcp: waiting for what the preforkd with pid"]);
    next.logged(&["app=web worker=0", "ready after"]);
    assert_ne!(next.ask("pid"), "");
    kill(old, Signal::SIGKILL).expect("it has time");
    next.logged(&["app=tcp: waits no longer"]);
    next.status("tcp 1/1 ready");
    let stream = std::net::TcpStream::connect(at).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    let log = next.stop();
    assert!(!log.contains("is in use"), "{log}");
}

#[test]
fn an_address_that_a_stranger_has_is_not_waited_for() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = port.local_addr().expect("bound");
    let config = deaf_once("");
    let mut run = Run::start(&config);
    let deaf = run.event("started").pid;
    kill_master(&mut run);
    let web = format!("[app.web]\ncommand = ['{}']\nlisten = '{at}'\n", worker());
    let mut next = restart(&mut run, &deaf_once(&web));
    let (status, log) = next.ended();
    assert_eq!(status, Some(1), "{log}");
    let said = format!("cannot listen on {at}: the address is in use by");
    assert!(log.contains(&said), "{log}");
    kill(deaf, Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
}

/// A migration must not run twice at a time either.
#[test]
fn a_command_waits_for_the_same_one_of_a_killed_master() {
    let script = "trap \"\" TERM; mkdir lock || { echo twice > twice; exit 1; }; \
                  echo 0 1 $$$$ began; test -e quick || sleep 1000; rmdir lock";
    let config = app(&format!(
        "graceful_timeout = '1h'\n[app.web.reload]\nbefore_at_start = true\n\
         before = ['/bin/sh', '-c', '{script}']\n"
    ));
    let mut run = Run::begin(&config);
    let first = run.event("began").pid;
    kill_master(&mut run);
    run.write("quick", "");
    let mut next = restart(&mut run, &config);
    next.logged(&["app=web before: waiting for what the preforkd with pid"]);
    std::fs::remove_dir(next.path("lock")).expect("it is there");
    // With all that it has started.
    kill(Pid::from_raw(-first.as_raw()), Signal::SIGKILL).expect("it has time");
    next.message("READY=1");
    assert!(!next.path("twice").exists());
    next.stop();
}

/// A process that was killed exits some time later, and nothing of it is free until then.
#[test]
fn a_master_that_starts_before_the_killed_one_has_exited_finds_everything_free() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = port.local_addr().expect("bound");
    drop(port);
    let config = format!(
        "[master]\ncontrol = 'control.sock'\n[app.web]\nreplace = 'stop-first'\ngraceful_timeout = '10s'\n\
         command = ['{}']\nlisten = '{at}'\n",
        worker()
    );
    let mut run = Run::start(&config);
    let mut worker = run.event("started").pid;
    for _ in 0..8 {
        run.signal(Signal::SIGKILL);
        run.close_stored();
        let mut next = restart(&mut run, &config);
        let successor = next.event("started").pid;
        assert!(!runs(std::mem::replace(&mut worker, successor)));
        next.message("READY=1");
        let command = ["status", "-c", &next.path("app.toml").display().to_string()];
        let answer = preforkd().args(command).output().expect("it starts");
        let errors = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.success(), "{errors}");
        run.master.wait().expect("it is our child");
        run = next;
    }
    run.stop();
}

/// Only what may exist once is waited for: a queue that needs ten minutes to end does not keep the site down.
#[test]
fn what_may_run_side_by_side_is_not_waited_for() {
    let script =
        "trap \"\" TERM; echo $$PREFORKD_SLOT $$PREFORKD_GENERATION $$$$ started; exec sleep 1000";
    let config = app("")
        + &format!(
            "[app.queue]\nready = 'exec'\ngraceful_timeout = '20s'\n\
         command = ['/bin/sh', '-c', '{script}']\n"
        );
    let mut run = Run::start(&config);
    let first = [run.event("started").pid, run.event("started").pid];
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    next.message("READY=1");
    let second = [next.event("started").pid, next.event("started").pid];
    let deaf = |pid: &Pid| runs(*pid);
    assert!(first.iter().any(deaf));
    next.signal(Signal::SIGTERM);
    for pid in first.into_iter().chain(second).filter(deaf) {
        // That of the other app may end meanwhile.
        let _ = kill(pid, Signal::SIGKILL);
    }
    let (status, log) = next.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("waiting for"), "{log}");
    run.logged(&["nothing is left"]);
}

#[test]
fn a_run_of_a_killed_master_and_one_of_the_next_are_never_there_at_once() {
    let script = "trap \"\" TERM; exec 9> lock; flock -n 9 || { echo twice > twice; exit 1; }; \
                  echo 0 1 $$$$ started; exec sleep 1000";
    let config = app("")
        + &format!(
            "[app.job]\nschedule = '* * * * * *'\ngraceful_timeout = '20s'\n\
         command = ['/bin/sh', '-c', '{script}']\n"
        );
    let mut run = Run::start(&config);
    run.event("started");
    let job = run.event("started").pid;
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    next.message("READY=1");
    assert!(runs(job));
    next.logged(&[
        "left out at",
        &format!("what the preforkd with pid {}", run.pid()),
    ]);
    kill(job, Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
    // That of the app, and the next run.
    next.event("started");
    let last = next.event("started").pid;
    assert!(!next.path("twice").exists());
    next.signal(Signal::SIGTERM);
    kill(last, Signal::SIGKILL).expect("it is deaf");
    assert_eq!(next.ended().0, Some(0));
}

/// A configuration may be copied, or be read over a link that leads elsewhere by now.
#[test]
fn a_master_is_known_by_its_pid_file_too() {
    let script =
        "trap \"\" TERM; echo $$PREFORKD_SLOT $$PREFORKD_GENERATION $$$$ started; exec sleep 1000";
    let config = format!(
        "[master]\npid_file = 'app.pid'\n[app.once]\nready = 'exec'\nreplace = 'stop-first'\ngraceful_timeout = '300ms'\n\
         command = ['/bin/sh', '-c', '{script}']\n"
    );
    let mut run = Run::start(&config);
    let first = run.event("started").pid;
    kill_master(&mut run);
    std::fs::rename(run.path("app.toml"), run.path("other.toml")).expect("ours");
    let mut next = restart(&mut run, &config);
    next.logged(&["app=once: waiting for what the preforkd with pid"]);
    next.status("once 0/1 ready, waiting for what a killed preforkd has left");
    next.event("started");
    assert!(!runs(first));
    next.stop();
}

#[test]
fn a_master_that_waits_can_be_stopped() {
    let config = app("graceful_timeout = '20s'\nreplace = 'stop-first'");
    let mut run = Run::begin_in(folder("ignore-signals"), &config, |_| {});
    run.message("READY=1");
    let first = run.event("started").pid;
    kill_master(&mut run);
    let mut next = restart(&mut run, &config);
    next.logged(&["app=web: waiting for what"]);
    next.signal(Signal::SIGTERM);
    let (status, log) = next.ended();
    assert_eq!(status, Some(0), "{log}");
    kill(first, Signal::SIGKILL).expect("it has time");
    run.logged(&["nothing is left"]);
}

#[test]
fn a_guard_that_dies_is_replaced_and_the_next_one_knows_everything() {
    let config = app("graceful_timeout = '200ms'");
    let mut run = Run::begin_in(folder("ignore-signals"), &config, |command| {
        command.arg("--verbose");
    });
    run.message("READY=1");
    let worker = run.event("started").pid;
    let first = guard(&run);
    kill(first, Signal::SIGKILL).expect("it lives");
    run.logged(&[&format!(
        "the guard pid={first}: killed by SIGKILL; replacing it"
    )]);
    run.logged(&["the guard pid=", ": started"]);
    assert_ne!(guard(&run), first);
    run.signal(Signal::SIGTTIN);
    run.status("web 2/2 ready");
    kill_master(&mut run);
    run.logged(&[KILLED, "2 processes"]);
    run.logged(&["nothing is left"]);
    run.all_ended();
    assert!(!runs(worker));
}

#[test]
fn guard_and_master_killed_together_do_no_harm() {
    let config = app("");
    let mut run = Run::start(&config);
    let worker = run.event("started").pid;
    let guard = guard(&run);
    for pid in [run.pid(), guard] {
        kill(pid, Signal::SIGKILL).expect("it lives");
    }
    run.master.wait().expect("ours");
    run.close_stored();
    // The kernel has told the worker.
    run.event("term");
    gone(worker);
    run.all_ended();
    let mut next = restart(&mut run, &config);
    next.message("READY=1");
    next.stop();
}

#[test]
fn many_workers_end_and_are_counted() {
    let config = app("workers = 64\ngraceful_timeout = '200ms'");
    let mut run = Run::begin_in(folder("ignore-signals"), &config, |_| {});
    run.message("READY=1");
    let workers: Vec<Pid> = (0..64).map(|_| run.event("started").pid).collect();
    kill_master(&mut run);
    run.logged(&[KILLED, "64 processes that it had started (app=web: 64)"]);
    run.logged(&["nothing is left"]);
    run.all_ended();
    assert!(!workers.into_iter().any(runs));
}

#[test]
fn a_guard_holds_no_listener_and_is_woken_by_nothing_but_the_end() {
    let mut run = Run::start(&app(""));
    run.event("started");
    let guard = guard(&run);
    let links = std::fs::read_dir(format!("/proc/{guard}/fd")).expect("it lives");
    let links = links
        .flatten()
        .map(|entry| entry.path().read_link().expect("it lives"));
    let links: Vec<String> = links.map(|link| link.display().to_string()).collect();
    let sockets = links.iter().filter(|link| link.starts_with("socket:"));
    // Only the pair over which it catches signals, and the queue of what is left to it.
    assert!(sockets.count() <= 3, "{links:?}");
    let wakes = || status(guard, "voluntary_ctxt_switches:");
    // It has its title when it begins to wait.
    let title = format!("preforkd: guard of pid {}", run.pid());
    let shown = || std::fs::read_to_string(format!("/proc/{guard}/cmdline")).unwrap_or_default();
    while !(shown().starts_with(&title) && status(guard, "State:").starts_with('S')) {
        run.ask("pid");
    }
    let before = wakes();
    for _ in 0..8 {
        run.signal(Signal::SIGTTIN);
        run.event("started");
    }
    assert_eq!(wakes(), before);
    let log = run.stop();
    assert!(!log.contains("guard"), "{log}");
    assert!(!runs(guard));
}

#[test]
fn a_process_that_was_handed_to_others_is_left_alone() {
    let mut run = Run::start(&app("graceful_timeout = '200ms'"));
    run.event("started");
    let address = run.ask("env NOTIFY_SOCKET");
    // It shows the environment of the app, but another process has started it: as at(1) would.
    let mut other = Command::new("sleep");
    let other = other.arg("1000").env("NOTIFY_SOCKET", address);
    let mut other = other.spawn().expect("there is sleep");
    kill_master(&mut run);
    run.logged(&["nothing is left"]);
    assert!(other.try_wait().expect("ours").is_none());
    other.kill().expect("ours");
    other.wait().expect("ours");
}

#[test]
fn a_port_that_an_orphan_holds_is_waited_for_and_then_said_to_be_its_app_s() {
    let config = format!(
        "[app.web]\ncommand = ['{}']\nlisten = '{}'\ngraceful_timeout = '3s'\n",
        worker(),
        free_address()
    );
    let mut run = Run::begin_in(folder("ignore-signals"), &config, |_| {});
    run.message("READY=1");
    let orphan = run.event("started").pid;
    let guard = guard(&run);
    for pid in [guard, run.pid()] {
        kill(pid, Signal::SIGKILL).expect("it lives");
    }
    run.master.wait().expect("ours");
    run.close_stored();
    let mut next = restart(&mut run, &config);
    let (status, log) = next.ended();
    assert_eq!(status, Some(1), "{log}");
    let said = format!("(pid {orphan}, started by a preforkd for its app web), which listens");
    assert!(log.contains(&said), "{log}");
    let advice = format!("nobody ends it: `kill -9 {orphan}` does");
    assert!(log.contains(&advice), "{log}");
    let waits = format!("(pid {orphan}), which has its address, a worker of a preforkd");
    assert!(log.contains(&waits), "{log}");
    kill(orphan, Signal::SIGKILL).expect("it is deaf");
}

#[test]
fn the_next_master_waits_for_what_has_lost_master_and_guard_and_has_an_address() {
    let tcp = format!("listen = '{}'", free_address());
    for listen in [&*tcp, "listen = 'unix:more.sock'"] {
        let more = format!(
            "[app.more]\ncommand = ['{}', 'ignore-signals']\n{listen}\n",
            worker()
        );
        let config = app("") + &more;
        let mut run = Run::start(&config);
        let both = [run.event("started"), run.event("started")].map(|event| event.pid);
        let command = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let is_deaf = |pid: &Pid| command(pid).is_ok_and(|it| it.contains("ignore-signals"));
        let deaf = both.into_iter().find(is_deaf).expect("one is deaf");
        let guard = guard(&run);
        for pid in [guard, run.pid()] {
            kill(pid, Signal::SIGKILL).expect("it lives");
        }
        run.master.wait().expect("ours");
        run.close_stored();
        // One ends, the other is deaf.
        run.event("term");
        run.event("term");
        let mut next = restart(&mut run, &config);
        next.logged(&[
            "app=more: waiting for",
            "a worker of a preforkd that was killed together with its guard",
        ]);
        next.logged(&["app=web worker=0", "ready after"]);
        kill(deaf, Signal::SIGKILL).expect("it lives");
        next.logged(&["app=more: waits no longer"]);
        next.message("READY=1");
        for pid in [next.event("started"), next.event("started")].map(|event| event.pid) {
            kill(pid, Signal::SIGKILL).expect("it lives");
        }
        next.signal(Signal::SIGINT);
        next.ended();
    }
}

#[test]
fn a_listener_that_only_a_stranger_has_is_kept_for_the_next_master_for_a_while() {
    let at = free_address();
    let leaves = "(setsid env -i sh -c 'echo $$$$ > orphan; exec sleep 1000' &); until test -s orphan; do :; done";
    let config = format!(
        "[app.web]\ngraceful_timeout = '20s'\nlisten = '{at}'\ncommand = ['/bin/sh', '-c', '''{leaves}; exec {}''']\n",
        worker()
    );
    let mut run = Run::start(&config);
    let first = run.event("started").pid;
    let orphan = pid_in(run.path("orphan"));
    kill_master(&mut run);
    run.logged(&[
        &format!("sleep (pid {orphan}) still has a listener of the preforkd with pid"),
        "the next preforkd can take the listener over for",
    ]);
    assert!(!runs(first) && runs(orphan));
    std::fs::remove_file(run.path("orphan")).expect("it was written");
    let mut next = restart(&mut run, &config);
    next.message("READY=1");
    let second = next.event("started").pid;
    let stream = std::net::TcpStream::connect(at).expect("it serves");
    assert_eq!(ask(stream, "pid"), second.to_string());
    run.logged(&["nothing is left of the preforkd with pid"]);
    assert!(runs(orphan), "it may have left its app on purpose");
    kill(orphan, Signal::SIGKILL).expect("it lives");
    next.stop();
}

/// Of the tests themselves: whatever time a program would have.
#[test]
fn a_test_leaves_nothing_behind() {
    let mut run = Run::start(&deaf_once(""));
    let (deaf, guard) = (run.event("started").pid, guard(&run));
    kill_master(&mut run);
    run.logged(&[KILLED]);
    drop(run);
    gone(deaf);
    gone(guard);
}
