//! An app that is not required and lacks something keeps no other one down, and comes up when that is there.

mod common;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use common::programs::write_script;
use common::{Run, app, ask, preforkd, through_shell, worker};

/// The required app `web`, and `more`, which is not.
fn with_optional(more: &str) -> String {
    format!(
        "[master]\ncontrol = 'control'\n{}[app.more]\nrequired = false\n{more}\n",
        app("")
    )
}

fn status(run: &Run) -> (Option<i32>, String) {
    let file = run.path("app.toml").display().to_string();
    let output = preforkd().args(["status", "-c", &file]).output();
    let output = output.expect("preforkd runs");
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text)
}

/// Waits until `web` serves, and nothing else.
fn only_web_is_ready(config: &str) -> Run {
    let run = Run::begin(config);
    let message = run.message("READY=1");
    assert!(message.contains("more 0/1 ready"), "{message}");
    assert!(!run.ask("pid").is_empty());
    run
}

#[test]
fn an_app_waits_for_a_port_that_another_process_has() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let worker = worker();
    let more = format!("command = '{worker}'\nlisten = '{address}'");
    let mut run = only_web_is_ready(&with_optional(&more));
    let said = format!("cannot listen on {address}: the address is in use by ");
    run.logged(&["ERROR", "app=more", &said, "retrying"]);
    let (code, text) = status(&run);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("more: 0/1 ready, failing"), "{text}");
    assert!(text.contains(&said), "{text}");

    drop(taken);
    run.logged(&["app=more", "could be opened now"]);
    run.logged(&["app=more: all its workers are ready now"]);
    let stream = std::net::TcpStream::connect(address).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    let (code, text) = status(&run);
    assert_eq!(code, Some(0), "{text}");
    let log = run.stop();
    assert_eq!(log.matches(&said).count(), 1, "one line a cause: {log}");
}

#[test]
fn clients_of_an_app_that_does_not_start_are_refused_until_it_does() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    for missing in ["exit 3", "exec ./nowhere"] {
        let script = format!("test -e cured || {missing}; exec {}", worker());
        let more = format!(
            "command = ['/bin/sh', '-c', '{script}']\nlisten = ['{address}', 'unix:more.sock']"
        );
        let mut run = only_web_is_ready(&with_optional(&more));
        run.logged(&["app=more gen=1: not listening on ", &address.to_string()]);
        // An attempt to start it may just be made.
        let refused = || loop {
            match TcpStream::connect(address).and_then(|mut stream| {
                stream.write_all(b"pid\n")?;
                stream.read(&mut [0])
            }) {
                Ok(_) => {}
                Err(error) => return error.kind(),
            }
        };
        let kinds = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&refused()));
        run.write("cured", "");
        run.logged(&["app=more: all its workers are ready now"]);
        for _ in 0..2 {
            assert!(!ask(TcpStream::connect(address).expect("it listens"), "pid").is_empty());
            UnixStream::connect(run.path("more.sock")).expect("it listens");
            run.reload();
        }
        run.stop();
    }
}

/// Waits until clients at both listeners are refused. An attempt to start a worker may just be made; a client that it lets in at the port
/// is cut off. (What the init system keeps of a unix socket is this test's.)
fn are_refused(run: &Run, address: SocketAddr) {
    let tcp = || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"pid\n")?;
        stream.read(&mut [0])
    };
    let unix = || UnixStream::connect(run.path("more.sock"));
    let refused = loop {
        if let Err(error) = tcp() {
            break error.kind();
        }
    };
    let kinds = [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
    ];
    assert!(kinds.contains(&refused), "{refused}");
    let refused = loop {
        if let Err(error) = unix() {
            break error.kind();
        }
    };
    assert_eq!(refused, ErrorKind::NotFound);
}

/// The worker of these tests accepts from its first listener only.
fn both_listen(run: &Run, address: SocketAddr) {
    let stream = TcpStream::connect(address).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    UnixStream::connect(run.path("more.sock")).expect("it listens");
}

/// A worker of another app reads from a pipe before it is ready.
#[test]
fn an_app_that_is_not_required_refuses_and_serves_also_while_others_start_or_are_replaced() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    for reloads in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        mkfifo(&folder.path().join("gate"), Mode::S_IRWXU).expect("room");
        let hold = folder.path().join("hold");
        if !reloads {
            std::fs::write(&hold, "").expect("room");
        }
        let worker = worker();
        let script = format!("test -e cured || exit 3; exec {worker}");
        let more = format!(
            "command = ['/bin/sh', '-c', '{script}']\nlisten = ['{address}', 'unix:more.sock']"
        );
        let script = format!("test -e hold && cat gate; exec {worker}");
        let slow = format!("[app.slow]\ncommand = ['/bin/sh', '-c', '{script}']\n");
        let mut run = Run::begin_in(folder, &(with_optional(&more) + &slow), |_| {});
        if reloads {
            run.message("READY=1");
            std::fs::write(&hold, "").expect("room");
            run.signal(Signal::SIGHUP);
        }
        // It is opened when it is read.
        let gate = OpenOptions::new().write(true).open(run.path("gate"));
        let gate = gate.expect("it is there");
        run.logged(&["app=more gen=1: not listening on ", &address.to_string()]);
        for _ in 0..3 {
            run.logged(&["app=more worker=0 gen=1", "exited with status 3"]);
            are_refused(&run, address);
        }
        run.write("cured", "");
        run.logged(&["app=more worker=0 gen=1", "ready after"]);
        both_listen(&run, address);
        let (_, text) = status(&run);
        let phase = if reloads { "reloading" } else { "starting" };
        assert!(text.contains(phase), "{text}");
        drop(gate);
        run.message("READY=1");
        both_listen(&run, address);
        run.stop();
    }
}

#[test]
fn a_socket_of_the_init_system_stays_open_while_its_app_does_not_start() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let script = format!("test -e cured || exit 3; exec {}", worker());
    let more = format!("command = ['/bin/sh', '-c', '{script}']\nlisten = '{address}'");
    let passed = OwnedFd::from(socket);
    let mut run = Run::begin_with(&with_optional(&more), |command| {
        let script = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=more; exec \"$0\" \"$@\" 3<&0 </dev/null";
        through_shell(command, script);
        command.stdin(Stdio::from(passed));
    });
    run.logged(&["app=more", "exited with status 3", "retrying in "]);
    let stream = TcpStream::connect(address).expect("it waits in the queue");
    run.write("cured", "");
    assert!(!ask(stream, "pid").is_empty());
    run.stop();
}

#[test]
fn an_app_waits_for_its_folder_and_its_program() {
    let more = "command = ['./later/run']\nchdir = 'there'\nlisten = 'unix:sockets/more'";
    let mut run = only_web_is_ready(&with_optional(more));
    run.logged(&[
        "WARN",
        "app=more ",
        "/app.toml:10:9: chdir: there is no folder",
        "it is tried again",
    ]);
    std::fs::create_dir(run.path("sockets")).expect("room");
    run.logged(&[
        "app=more",
        "its start failed: cannot change to the directory",
        "there",
    ]);
    std::fs::create_dir_all(run.path("there/later")).expect("room");
    let program = run.path("there/later/new");
    write_script(&program, &format!("#!/bin/sh\nexec {}\n", worker()));
    std::fs::rename(&program, run.path("there/later/run")).expect("one file system");
    run.logged(&["app=more: all its workers are ready now"]);
    let stream = UnixStream::connect(run.path("sockets/more")).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    run.stop();
}

/// What is said to be tried again is, and what is refused is not.
#[test]
fn a_reload_that_fails_tries_nothing_again() {
    let mut run = Run::start(&app(""));
    let more = "command = 'sleep 1000'\nchdir = 'nowhere'";
    run.write("app.toml", &with_optional(more));
    run.write("behaviour", "exit 7");
    assert!(run.reload().contains("reload failed"));
    run.write("behaviour", "");
    run.reload();
    let said = "chdir: there is no folder";
    run.logged(&["WARN", "app=more ", said, "it is tried again"]);
    let log = run.stop();
    let lines = log.lines().filter(|line| line.contains("WARN"));
    let lines = lines.filter(|line| line.contains(said));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_tried_again_and_the_log_says_when() {
    let more = "command = 'sleep 1000'\nstart_timeout = '100ms'";
    let mut run = only_web_is_ready(&with_optional(more));
    let late = "SIGABRT (not ready within start_timeout)";
    run.logged(&["WARN", "app=more", late, "; starting a replacement"]);
    run.logged(&["WARN", "app=more", late, "; retrying in "]);
    run.stop();
}

#[test]
fn its_command_before_keeps_no_other_app_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    mkfifo(&folder.path().join("gate"), Mode::S_IRWXU).expect("room");
    let more = format!(
        "command = '{}'\nlisten = 'unix:more.sock'\n[app.more.reload]\nbefore = ['cat', 'gate']\nbefore_at_start = true",
        worker()
    );
    let mut run = Run::begin_in(folder, &with_optional(&more), |_| {});
    for generation in 1..4 {
        // The command of an earlier generation has ended before that of the next one begins.
        match generation {
            1 => drop(run.message("READY=1")),
            _ => drop(run.reload()),
        }
        run.logged(&["app=more before pid=", "running cat gate"]);
        let (code, text) = status(&run);
        assert_eq!(code, Some(4), "{text}");
        let runs = "more: 0/1 ready, waiting for its command `before` or its task";
        assert!(text.contains(runs), "{text}");
        let refused = UnixStream::connect(run.path("more.sock"));
        assert!(refused.is_err(), "nobody would answer");
    }
    std::fs::write(run.path("gate"), "").expect("`before` reads it");
    run.logged(&["app=more: all its workers are ready now"]);
    let stream = UnixStream::connect(run.path("more.sock")).expect("it listens");
    assert!(!ask(stream, "pid").is_empty());
    let log = run.stop();
    assert!(log.contains("app=more worker=0 gen=3"), "{log}");
}

#[test]
fn a_user_that_is_missing_is_looked_for_at_the_next_reload() {
    let worker = worker();
    let listens = "listen = 'unix:more.sock'";
    let bad = format!(
        "command = '{worker}'\nuser = 'no-such-user'\n{listens}\n[app.more.reload]\nbefore = ['touch', 'ran']\nbefore_at_start = true"
    );
    let mut run = only_web_is_ready(&with_optional(&bad));
    let why = "user: there is no user \"no-such-user\" on this host";
    run.logged(&[
        "ERROR",
        "app=more",
        why,
        "not started until the next reload",
    ]);
    let (code, text) = status(&run);
    assert_eq!(code, Some(4), "{text}");
    assert!(
        text.contains(
            "more: 0/1 ready, not started until the next reload or `preforkd start more`"
        ),
        "{text}"
    );
    assert!(text.contains(why), "{text}");
    assert!(
        !run.path("ran").exists(),
        "its command must not run as root"
    );

    let good = format!("command = '{worker}'\n{listens}");
    run.write("app.toml", &with_optional(&good));
    run.reload();
    run.logged(&["app=more: all its workers are ready now"]);
    let pid = || {
        ask(
            UnixStream::connect(run.path("more.sock")).expect("it listens"),
            "pid",
        )
    };
    let before = pid();

    // It serves now, so that the reload is refused.
    run.write("app.toml", &with_optional(&bad));
    let message = run.reload();
    assert!(
        message.contains("reload failed: ") && message.contains(why),
        "{message}"
    );
    assert_eq!(pid(), before);
    run.stop();
}

/// The lines of `more` with the file `name` and its key, and the reasons with which they are refused.
fn lacking() -> [(&'static str, &'static str); 4] {
    [
        ("env_file = 'more.env'", "env_file: cannot read "),
        (
            "secrets = { KEY = 'file:more.key' }",
            "secrets.KEY: cannot read ",
        ),
        ("stderr = 'log/more.log'", "stderr: there is no folder "),
        // It leads to itself, so that its log writer cannot open it.
        ("stdout = 'loop'", "cannot write "),
    ]
}

fn repair(run: &Run) {
    for file in ["more.env", "more.key"] {
        run.write(file, "A=1\n");
    }
    std::fs::create_dir(run.path("log")).expect("room");
    std::fs::remove_file(run.path("loop")).expect("it is there");
}

/// Takes away what `repair` has made, apart from a log file that may be open.
fn break_again(run: &Run) {
    for file in ["more.env", "more.key"] {
        std::fs::remove_file(run.path(file)).expect("it is there");
    }
    std::fs::remove_dir_all(run.path("log")).expect("it is there");
}

fn folder_with_loop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink("loop", folder.path().join("loop")).expect("room");
    folder
}

#[test]
fn a_file_that_cannot_be_used_is_looked_for_at_the_next_reload() {
    for (key, why) in lacking() {
        let more = format!("command = '{}'\nlisten = 'unix:more.sock'\n{key}", worker());
        let config = with_optional(&more);
        let mut run = Run::begin_in(folder_with_loop(), &config, |_| {});
        let message = run.message("READY=1");
        assert!(message.contains("more 0/1 ready, not started"), "{message}");
        assert!(!run.ask("pid").is_empty());
        run.logged(&["ERROR app=more", why, "; not started until the next reload"]);
        let (code, text) = status(&run);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains(why), "{text}");

        repair(&run);
        run.reload();
        run.logged(&["app=more: all its workers are ready now"]);
        let pid = |run: &Run| {
            let stream = UnixStream::connect(run.path("more.sock"));
            ask(stream.expect("it listens"), "pid")
        };
        let before = pid(&run);
        assert_eq!(status(&run).0, Some(0));

        break_again(&run);
        let message = run.reload();
        if key.starts_with("stdout") {
            assert!(message.contains("more 1/1 ready"), "{message}");
        } else {
            // It serves now, so that the reload is refused.
            assert!(
                message.contains("reload failed: ") && message.contains(why),
                "{message}"
            );
            assert_eq!(pid(&run), before);
        }
        run.stop();
    }
}

#[test]
fn a_reason_is_forgotten_when_a_reload_finds_what_was_missing() {
    for (key, why) in lacking() {
        let more = format!("command = 'sleep 1000'\n{key}");
        let mut run = Run::begin_in(folder_with_loop(), &with_optional(&more), |_| {});
        run.message("READY=1");
        run.logged(&["ERROR app=more", why]);
        assert!(status(&run).1.contains(why));
        repair(&run);
        run.reload();
        // It starts, and is not ready.
        run.status("generation 2: more 0/1 ready (1 starting)");
        let (_, text) = status(&run);
        assert!(text.contains("more: 0/1 ready\n"), "{text}");
        let log = run.stop();
        assert_eq!(log.matches(why).count(), 1, "one line a cause: {log}");
    }
}

#[test]
fn a_log_file_that_a_required_app_shares_refuses_the_start() {
    let more = format!("command = '{}'\nstdout = 'loop'", worker());
    let config = with_optional(&more).replace("[app.web]", "[app.web]\nstdout = 'loop'");
    let mut run = Run::begin_in(folder_with_loop(), &config, |_| {});
    let (code, log) = run.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("cannot start: cannot write "), "{log}");
}

#[test]
fn an_app_that_serves_and_whose_new_log_file_cannot_be_opened_refuses_the_reload() {
    let more = format!("command = '{}'\nlisten = 'unix:more.sock'", worker());
    let mut run = Run::begin_in(folder_with_loop(), &with_optional(&more), |_| {});
    run.logged(&["app=more worker=0 gen=1", "ready after"]);
    run.message("READY=1");
    let before = ask(
        UnixStream::connect(run.path("more.sock")).expect("it listens"),
        "pid",
    );
    run.write(
        "app.toml",
        &with_optional(&format!("{more}\nstdout = 'loop'")),
    );
    let message = run.reload();
    assert!(
        message.contains("reload failed: cannot write "),
        "{message}"
    );
    let stream = UnixStream::connect(run.path("more.sock")).expect("it listens");
    assert_eq!(ask(stream, "pid"), before);
    run.stop();
}

#[test]
fn an_app_with_a_schedule_that_lacks_a_file_is_not_run_until_a_reload_finds_it() {
    for (key, why) in lacking() {
        let more = format!(
            "command = ['/bin/sh', '-c', 'echo 0 0 0 ran >&2']\nschedule = '* * * * * *'\n{key}"
        );
        let mut run = Run::begin_in(folder_with_loop(), &with_optional(&more), |_| {});
        let message = run.message("READY=1");
        assert!(
            message.contains("1 app with a schedule, not run: more"),
            "{message}"
        );
        run.logged(&[
            "ERROR app=more gen=1: ",
            why,
            "; it is not run until the next reload",
        ]);
        let (code, text) = status(&run);
        assert_eq!(code, Some(4), "{text}");
        assert!(
            text.contains("next run: none, not run until the next reload: ") && text.contains(why),
            "{text}"
        );

        repair(&run);
        run.reload();
        run.logged(&["app=more run gen=2 pid=", ": succeeded after "]);
        assert_eq!(status(&run).0, Some(0));
        run.stop();
    }
}

#[test]
fn a_program_that_ends_at_once_was_never_ready_in_any_attempt() {
    let script = "test -e cured || exit 3; echo $$$$ > pid; mv pid runs; exec sleep 1000";
    let more = format!(
        "command = ['/bin/sh', '-c', '{script}']\nready = 'exec'\nlisten = 'unix:more.sock'"
    );
    let mut run = only_web_is_ready(&with_optional(&more));
    let fails = |run: &mut Run| {
        let ended = ["app=more worker=0", "exited with status 3"];
        for _ in 0..6 {
            let line = run.logged(&ended);
            assert!(line.contains("before it was ready"), "{line}");
        }
        let (code, text) = status(run);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains("more: 0/1 ready"), "{text}");
    };
    run.logged(&["app=more gen=1: not listening on ", "more.sock"]);
    fails(&mut run);
    run.write("cured", "");
    let line = run.logged(&["app=more worker=0", "ready after"]);
    assert!(line.contains("ready after 1"), "{line}");
    run.logged(&["app=more: all its workers are ready now"]);
    UnixStream::connect(run.path("more.sock")).expect("it listens");

    // A worker that crashes is replaced at once, by one that ends at once.
    run.reload();
    let pid = std::fs::read_to_string(run.path("runs")).expect("it has written that");
    std::fs::remove_file(run.path("cured")).expect("it is there");
    let pid = Pid::from_raw(pid.trim().parse().expect("a number"));
    kill(pid, Signal::SIGKILL).expect("it runs");
    let line = run.logged(&["app=more worker=0", "SIGKILL"]);
    assert!(line.contains("starting a replacement"), "{line}");
    fails(&mut run);
    UnixStream::connect(run.path("more.sock")).expect("it has served");
    let log = run.stop();
    let ready = log.lines().filter(|line| line.contains("app=more worker"));
    let ready = ready.filter(|line| line.contains("ready after"));
    assert_eq!(ready.count(), 2, "one of each generation: {log}");
}
