//! Listeners: bound or inherited; and what a worker inherits.

mod common;

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::programs::copy_program;
use common::{Run, app, ask, through_shell, worker};
use nix::sys::signal::Signal;

#[test]
fn a_socket_of_the_init_system_is_adopted_by_name_and_by_address() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    for listen in ["fd:web".to_owned(), address.to_string()] {
        let config = app("").replace("unix:web.sock", &listen);
        let passed = OwnedFd::from(socket.try_clone().expect("a copy"));
        let mut run = Run::begin_with(&config, |command| {
            let script = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\" 3<&0 </dev/null";
            through_shell(command, script);
            command.stdin(Stdio::from(passed));
        });
        run.message("READY=1");
        assert_ne!(
            ask(TcpStream::connect(address).expect("it listens"), "pid"),
            ""
        );
        run.stop();
    }
}

#[test]
fn a_socket_that_was_not_passed_is_an_error_with_its_name() {
    let mut run = Run::begin(&app("").replace("unix:web.sock", "fd:nope"));
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    assert!(
        log.contains("cannot listen on fd:nope: no socket with this name was passed"),
        "{log}"
    );
}

#[test]
fn a_port_in_use_is_an_error_with_its_address_and_who_holds_it() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound").to_string();
    let mut run = Run::begin(&app("").replace("unix:web.sock", &address));
    let (status, log) = run.ended();
    assert_eq!(status, Some(1));
    let said = format!("cannot listen on {address}: the address is in use by ");
    let holder = format!("(pid {}", std::process::id());
    let place = format!("which listens on {address} (stop it, or configure another address)");
    for part in [said, holder, place] {
        assert!(log.contains(&part), "{part}: {log}");
    }
    let message = run.status("the address is in use");
    let errno = format!("ERRNO={}", nix::libc::EADDRINUSE);
    assert!(message.lines().any(|line| line == errno), "{message}");
    run.message("BARRIER=1");
}

#[test]
fn ipv6_and_ipv4_share_a_port() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|s| s.local_addr())
        .expect("a port")
        .port();
    let mut run = Run::start(&app("").replace(
        "'unix:web.sock'",
        &format!("'[::]:{port}', '0.0.0.0:{port}'"),
    ));
    assert_ne!(
        ask(
            TcpStream::connect(("::1", port)).expect("it listens"),
            "pid"
        ),
        ""
    );
    drop(TcpStream::connect(("127.0.0.1", port)).expect("it listens"));
    run.stop();
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.sock");
    let config = app("").replace("unix:web.sock", &format!("unix:{}", path.display()));
    let first = Run::start(&config);
    let (status, log) = Run::begin(&config).ended();
    assert_eq!(status, Some(1));
    assert!(
        log.contains(&format!(
            "process {} (preforkd) is listening there",
            first.pid()
        )),
        "{log}"
    );
    first.signal(Signal::SIGKILL);
    first.all_ended();
    first.close_stored();
    assert!(path.exists(), "nobody was left to remove it");
    Run::start(&config).stop();
}

#[test]
fn a_unix_socket_has_the_configured_mode() {
    let config = app("").replace(
        "'unix:web.sock'",
        "{ address = 'unix:web.sock', mode = '0642' }",
    );
    let mut run = Run::start(&config);
    let mode = run
        .path("web.sock")
        .metadata()
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o642);
    run.stop();
}

#[test]
fn a_socket_file_that_a_program_has_removed_is_made_again_when_it_ends() {
    let mut run = Run::start(&app(""));
    assert_eq!(run.ask("remove web.sock"), "removed");
    assert!(!run.path("web.sock").exists());
    run.reload();
    run.logged(&["web.sock was removed; made it again"]);
    run.event("term");
    // It was there again for the reload; the end of the old worker does no harm either.
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "2");
    let mut stream =
        std::os::unix::net::UnixStream::connect(run.path("web.sock")).expect("it listens");
    std::fs::remove_file(run.path("web.sock")).expect("ours");
    std::io::Write::write_all(&mut stream, b"exit 3\n").expect("it reads");
    run.logged(&["worker=0", "web.sock was removed; made it again"]);
    assert_ne!(run.ask("pid"), "");
    run.stop();
    let left = std::fs::read_dir(run.folder.path())
        .expect("ours")
        .flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("web.sock")),
        "{left:?}"
    );
}

#[test]
fn a_socket_whose_file_and_spare_name_are_gone_is_bound_anew_by_a_reload() {
    let mut run = Run::start(&app(""));
    for name in ["web.sock", ".web.sock.preforkd"] {
        std::fs::remove_file(run.path(name)).expect("it is there");
    }
    assert!(run.reload().contains("STATUS=generation 2"));
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "2");
    // A reload that fails takes its new socket away again, and the next one makes another.
    for name in ["web.sock", ".web.sock.preforkd"] {
        std::fs::remove_file(run.path(name)).expect("it is there");
    }
    run.write("behaviour", "exit 7");
    assert!(run.reload().contains("reload failed"));
    assert!(!run.path("web.sock").exists());
    std::fs::remove_file(run.path("behaviour")).expect("ours");
    run.reload();
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "4");
    run.stop();
}

#[test]
fn a_reload_makes_the_spare_name_of_a_socket_again() {
    let mut run = Run::start(&app(""));
    std::fs::remove_file(run.path(".web.sock.preforkd")).expect("it is there");
    run.reload();
    assert!(run.path(".web.sock.preforkd").exists());
    run.stop();
}

#[test]
fn a_socket_file_that_cannot_be_made_again_is_an_error_of_the_log() {
    let mut run = Run::start(&app(""));
    let mut stream =
        std::os::unix::net::UnixStream::connect(run.path("web.sock")).expect("it listens");
    for name in ["web.sock", ".web.sock.preforkd"] {
        std::fs::remove_file(run.path(name)).expect("it is there");
    }
    std::io::Write::write_all(&mut stream, b"exit 3\n").expect("it reads");
    run.logged(&[
        "ERROR",
        "web.sock was removed and cannot be made again: ",
        "(reload to bind a new socket)",
    ]);
    run.reload();
    assert_ne!(run.ask("pid"), "");
    run.stop();
}

#[test]
fn a_reload_fails_if_a_file_that_is_no_socket_is_in_the_way() {
    let mut run = Run::start(&app(""));
    std::fs::remove_file(run.path("web.sock")).expect("it is there");
    run.write("web.sock", "x");
    assert!(run.reload().contains("reload failed"));
    run.logged(&["no client can connect, and no new socket can be bound: "]);
    std::fs::remove_file(run.path("web.sock")).expect("ours");
    run.reload();
    assert_ne!(run.ask("pid"), "");
    run.stop();
}

#[test]
fn a_mode_that_is_changed_or_taken_out_is_applied_by_a_reload() {
    let config = |mode: &str| {
        let listen = format!("{{ address = 'unix:web.sock'{mode} }}");
        app("").replace("'unix:web.sock'", &listen)
    };
    let mut run = Run::start(&config(""));
    let mode = |run: &Run| {
        let found = run.path("web.sock").metadata().expect("it is there");
        found.permissions().mode() & 0o777
    };
    let default = mode(&run);
    for (key, expected) in [
        (", mode = '0642'", 0o642),
        (", mode = '0604'", 0o604),
        ("", default),
    ] {
        run.write("app.toml", &config(key));
        run.reload();
        assert_eq!(mode(&run), expected, "{key}");
    }
    run.stop();
}

#[test]
fn passed_sockets_of_one_name_all_serve_and_come_back_after_a_reload_without_them() {
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [first, second] = sockets
        .each_ref()
        .map(|socket| socket.local_addr().expect("bound"));
    let both = app("").replace("'unix:web.sock'", "'fd:web', 'unix:web.sock'");
    let mut run = Run::begin_with(&both, |command| {
        let script = "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:web; exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >&2";
        through_shell(command, script);
        let [first, second] = sockets.each_ref().map(|s| s.try_clone().expect("a copy"));
        command
            .stdin(OwnedFd::from(first))
            .stdout(OwnedFd::from(second));
    });
    run.message("READY=1");
    let over_first = |question: &str| ask(TcpStream::connect(first).expect("it listens"), question);
    assert_eq!(over_first("env LISTEN_FDNAMES"), "web:web:web");
    // The numbers of the listeners, which `{fd}` may have in a command, are those of their first sockets.
    assert_eq!(over_first("socket 3"), first.to_string());
    assert!(over_first("socket 4").ends_with("web.sock"));
    assert_eq!(over_first("socket 5"), second.to_string());
    run.write("app.toml", &app(""));
    run.reload();
    assert_eq!(run.ask("env LISTEN_FDNAMES"), "web");
    run.write("app.toml", &both);
    assert!(run.reload().contains("STATUS=generation 3"));
    assert_eq!(over_first("env LISTEN_FDNAMES"), "web:web:web");
    assert_eq!(over_first("socket 5"), second.to_string());
    run.stop();
}

#[test]
fn a_worker_inherits_the_contract_and_nothing_else() {
    let config = app("env = { MINE = 'yes' }\nchdir = 'sub'\numask = '0027'\nlisten = ['unix:web.sock', 'unix:other.sock']")
        .replacen("listen = ['unix:web.sock']\n", "", 1);
    let mut run = Run::begin_with(&config, |command| {
        command.env("WATCHDOG_USEC", "1").env("INHERITED", "too");
        command
            .env("PREFORKD_CONTRACT", "0")
            .env("PREFORKD_KIND", "wsgi");
        // The folder must exist before the master looks for it.
        let toml = command.get_args().nth(1).expect("-c FILE").to_owned();
        std::fs::create_dir(std::path::Path::new(&toml).with_file_name("sub")).expect("room");
    });
    run.message("READY=1");
    // 0 to 2, two listeners, the scoreboard, the connection. Reading the directory takes one more, the stream is open twice,
    // and the worker's signals take four.
    let descriptors = run.ask("descriptors");
    assert!(descriptors.starts_with("0 1 "), "{descriptors}");
    assert!(run.ask("link /proc/self/fd/0").contains("/dev/null"));
    assert!(run.ask("link /proc/self/fd/3").starts_with("socket:"));
    assert!(run.ask("link /proc/self/fd/4").starts_with("socket:"));
    assert!(
        run.ask("link /proc/self/fd/5")
            .contains("preforkd scoreboard web ")
    );
    assert_eq!(run.ask("env LISTEN_FDS"), "2");
    assert_eq!(run.ask("env LISTEN_FDNAMES"), "web:web");
    assert_eq!(
        run.ask("env PREFORKD_CONTRACT"),
        preforkd_worker::contract::VERSION.to_string()
    );
    assert_eq!(run.ask("env PREFORKD_KIND"), "unset");
    assert_eq!(run.ask("env PREFORKD_APP"), "web");
    assert_eq!(run.ask("env PREFORKD_SLOT"), "0");
    assert_eq!(run.ask("env PREFORKD_GENERATION"), "1");
    assert_eq!(run.ask("env PREFORKD_SCOREBOARD_FD"), "5");
    assert_eq!(run.ask("env PREFORKD_SCOREBOARD_RECORD"), "0");
    assert_eq!(run.ask("env MINE"), "yes");
    assert_eq!(run.ask("env INHERITED"), "too");
    assert_eq!(run.ask("env WATCHDOG_USEC"), "unset");
    assert!(run.ask("link /proc/self/cwd").ends_with("/sub"));
    assert!(run.ask("file /proc/self/status").contains("Umask:\t0027"));
    run.stop();
}

#[test]
fn variables_of_the_main_process_do_not_reach_a_worker() {
    let private = [
        "LISTEN_PIDFDID",
        "FDSTORE",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "MAINPID",
        "MANAGERPID",
        "MANAGERPIDFDID",
        "SYSTEMD_EXEC_PID",
        "PIDFILE",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "REMOTE_ADDR",
        "REMOTE_PORT",
    ];
    let of_use = [
        "INVOCATION_ID",
        "CREDENTIALS_DIRECTORY",
        "STATE_DIRECTORY",
        "CACHE_DIRECTORY",
        "LOGS_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
    ];
    let mut run = Run::begin_with(&app("env = { PIDFILE = 'mine' }"), |command| {
        for name in private.iter().chain(&of_use) {
            command.env(name, "4711");
        }
    });
    run.message("READY=1");
    for name in private.iter().filter(|name| **name != "PIDFILE") {
        assert_eq!(run.ask(&format!("env {name}")), "unset", "{name}");
    }
    for name in of_use {
        assert_eq!(run.ask(&format!("env {name}")), "4711", "{name}");
    }
    assert_eq!(run.ask("env PIDFILE"), "mine", "the app's own");
    let init = run.path("init.sock").display().to_string();
    let notify = run.ask("env NOTIFY_SOCKET");
    assert!(notify != "unset" && notify != init, "{notify}");
    run.stop();
}

#[test]
fn a_descriptor_of_the_masters_parent_does_not_reach_a_worker() {
    let config = app("");
    let mut run = Run::begin_with(&config, |command| {
        through_shell(command, "exec \"$0\" \"$@\" 9</dev/zero");
    });
    run.message("READY=1");
    assert!(!run.ask("link /proc/self/fd/9").contains("/dev/zero"));
    run.stop();
}

#[test]
fn descriptor_numbers_are_filled_into_a_command() {
    let config = format!(
        "[app.web]\ncommand = ['{}', '', 'fd={{fd}}', '{{fd:admin}}']\nlisten = ['unix:web.sock', {{ address = 'unix:a.sock', name = 'admin' }}]\n",
        worker()
    );
    let mut run = Run::start(&config);
    assert_eq!(run.ask("arguments").trim(), "fd=3 4");
    assert_eq!(run.ask("env LISTEN_FDNAMES"), "web:admin");
    run.stop();
}

/// As root, tests what only root can do; else tests the error message.
#[test]
fn workers_run_as_the_configured_user_and_group() {
    let config = app("user = '65534'\ngroup = '65533'");
    if !nix::unistd::geteuid().is_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.toml");
        std::fs::write(&file, config).expect("room");
        let output = common::preforkd()
            .arg("-t")
            .arg("-c")
            .arg(&file)
            .output()
            .expect("preforkd runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("only a master that runs as root"), "{said}");
        return;
    }
    let mut run = Run::begin_with(&config, |command| {
        let toml = command.get_args().nth(1).expect("-c FILE").to_owned();
        let folder = std::path::Path::new(&toml)
            .parent()
            .expect("a folder")
            .to_owned();
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("ours");
        // The build may be in a folder that only its owner can enter, so the worker is copied to one that everyone can.
        let copy = std::path::Path::new(&toml).with_file_name("worker");
        copy_program(worker(), &copy);
        let text = std::fs::read_to_string(&toml).expect("it is there");
        std::fs::write(&toml, text.replace(&worker(), &copy.display().to_string())).expect("room");
    });
    run.message("READY=1");
    let status = run.ask("file /proc/self/status");
    assert!(
        status.contains("Uid:\t65534\t65534\t65534\t65534"),
        "{status}"
    );
    assert!(
        status.contains("Gid:\t65533\t65533\t65533\t65533"),
        "{status}"
    );
    run.stop();
}
