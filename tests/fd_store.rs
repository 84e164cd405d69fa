//! Listeners that the init system keeps while no master runs. The test is the init system: sd_notify(3), `FDSTORE`.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use common::{Run, app, ask, free_address};
use nix::sys::signal::Signal;

/// An app that listens on `web.sock` and a TCP address.
fn both(address: SocketAddr) -> String {
    app("").replace("'unix:web.sock'", &format!("'unix:web.sock', '{address}'"))
}

/// As systemd 254 and later say that there is a store.
fn announce(command: &mut Command) {
    command.env("FDSTORE", "16");
}

fn nothing(_: &mut Command) {}

fn kill(run: &mut Run) {
    run.signal(Signal::SIGKILL);
    run.all_ended();
}

/// The test's workers accept on their first listener only.
#[test]
fn the_next_master_has_the_sockets_of_a_killed_one_and_no_connection_is_refused() {
    let address = free_address();
    let swapped = format!("'{address}', 'unix:web.sock'");
    for (config, tcp_is_served) in [
        (both(address), false),
        (app("").replace("'unix:web.sock'", &swapped), true),
    ] {
        let mut first = Run::start(&config);
        let stored = first.stored();
        let named = |part: &str| stored.iter().filter(|name| name.contains(part)).count();
        assert_eq!(stored.len(), 2, "{stored:?}");
        assert_eq!(named("preforkd-tcp-127.0.0.1_"), 1, "{stored:?}");
        assert_eq!(named("/web.sock"), 1, "{stored:?}");
        kill(&mut first);
        let over_tcp = TcpStream::connect(address).expect("the socket is kept");
        let over_unix = UnixStream::connect(first.path("web.sock")).expect("the socket is kept");
        let mut second = first.next_master(&config, nothing);
        second.message("READY=1");
        let answer = match tcp_is_served {
            true => ask(over_tcp, "pid"),
            false => ask(over_unix, "pid"),
        };
        assert_ne!(answer, "");
        assert_eq!(second.stored(), stored, "nothing is stored twice");
        let log = second.stop();
        let taken = log.matches("took back the socket of the previous master");
        assert_eq!(taken.count(), 2, "{log}");
    }
}

#[test]
fn a_master_that_is_restarted_leaves_its_unix_sockets_to_the_next_one() {
    let config = app("");
    let mut first = Run::begin_with(&config, announce);
    first.message("READY=1");
    let inode = first.path("web.sock").metadata().expect("bound").ino();
    first.stop();
    let waiting = UnixStream::connect(first.path("web.sock")).expect("the socket is kept");
    let mut second = first.next_master(&config, announce);
    second.message("READY=1");
    assert_ne!(ask(waiting, "pid"), "");
    assert_eq!(
        second.path("web.sock").metadata().expect("kept").ino(),
        inode
    );
    second.stop();
    assert!(second.path("web.sock").exists());
}

#[test]
fn a_master_that_knows_of_no_store_removes_its_unix_sockets() {
    let mut run = Run::start(&app(""));
    run.stop();
    assert!(!run.path("web.sock").exists());
    let mut run = Run::begin_with(&app(""), |command| {
        command.env("MEMORY_PRESSURE_WATCH", "/dev/null");
    });
    run.message("READY=1");
    assert_eq!(run.stored(), [""; 0], "systemd 254 would have announced it");
    run.stop();
}

#[test]
fn a_reload_has_new_listeners_kept_and_dropped_ones_closed() {
    let (old, new) = (free_address(), free_address());
    let mut run = Run::start(&both(old));
    let stored = |run: &Run, address: SocketAddr| {
        let port = format!("_{}", address.port());
        run.stored().iter().any(|name| name.ends_with(&port))
    };
    assert!(stored(&run, old) && !stored(&run, new));
    run.write("app.toml", &both(new));
    run.reload();
    assert!(
        stored(&run, new) && !stored(&run, old),
        "{:?}",
        run.stored()
    );
    run.write("app.toml", &app("nonsense = 1"));
    run.reload();
    assert_eq!(run.stored().len(), 2, "a refused reload changes nothing");
    run.write("app.toml", &both(new).replace("'unix:web.sock', ", ""));
    run.reload();
    assert_eq!(run.stored().len(), 1, "{:?}", run.stored());
    assert!(!run.path("web.sock").exists());
    run.stop();
    drop(TcpListener::bind(old).expect("nobody has it"));
}

#[test]
fn what_is_no_longer_configured_is_closed_and_removed() {
    let address = free_address();
    let mut first = Run::begin_with(&both(address), announce);
    first.message("READY=1");
    first.stop();
    let other = app("").replace("web.sock", "other.sock");
    let mut second = first.next_master(&other, announce);
    second.message("READY=1");
    let stored = second.stored();
    assert!(
        matches!(&stored[..], [name] if name.ends_with("/other.sock")),
        "{stored:?}"
    );
    assert!(!second.path("web.sock").exists());
    drop(TcpListener::bind(address).expect("nobody has it"));
    second.stop();
}

#[test]
fn a_socket_is_bound_anew_if_its_path_leads_to_another_file() {
    let config = app("");
    let mut first = Run::start(&config);
    let stored = first.stored();
    kill(&mut first);
    std::fs::remove_file(first.path("web.sock")).expect("it was left");
    drop(UnixListener::bind(first.path("web.sock")).expect("room"));
    let mut second = first.next_master(&config, nothing);
    second.message("READY=1");
    assert_ne!(second.ask("pid"), "");
    assert_eq!(second.stored().len(), 1);
    assert_ne!(second.stored(), stored);
    let log = second.stop();
    assert!(log.contains("its path leads to another file"), "{log}");
}

#[test]
fn a_socket_that_was_taken_back_has_the_mode_of_the_configuration() {
    let mode = |run: &Run| {
        let file = run.path("web.sock").metadata().expect("it is there");
        file.permissions().mode() & 0o777
    };
    let open = app("").replace(
        "'unix:web.sock'",
        "{ address = 'unix:web.sock', mode = '0666' }",
    );
    let mut first = Run::start(&open);
    assert_eq!(mode(&first), 0o666);
    kill(&mut first);
    let closed = open.replace("0666", "0600");
    let mut second = first.next_master(&closed, nothing);
    second.message("READY=1");
    assert_eq!(mode(&second), 0o600);
    second.stop();
}

/// A name says nothing about what a socket is.
#[test]
fn a_socket_with_another_address_than_its_name_is_not_taken_back() {
    let address = free_address();
    let config = app("").replace("unix:web.sock", &address.to_string());
    let mut first = Run::start(&config);
    kill(&mut first);
    first.replace_stored(TcpListener::bind("127.0.0.1:0").expect("a port").into());
    let mut second = first.next_master(&config, nothing);
    second.message("READY=1");
    let stream = TcpStream::connect(address).expect("bound anew");
    assert_ne!(ask(stream, "pid"), "");
    second.stop();
}

/// The sockets of the store that no master serves would keep clients waiting.
fn answers_after_kill(mut run: Run, config: &str, address: SocketAddr) -> Run {
    kill(&mut run);
    let waiting = TcpStream::connect(address).expect("the socket is kept, and listens");
    let next = run.next_master(config, announce);
    next.message("READY=1");
    assert_ne!(ask(waiting, "pid"), "");
    next
}

#[test]
fn a_socket_that_was_closed_between_attempts_serves_again_and_is_kept() {
    let address = free_address();
    let config = |rest: &str| {
        app("") + &format!("[app.more]\nrequired = false\nlisten = '{address}'\n{rest}\n")
    };
    let broken = config("command = ['/bin/false']");
    let whole = config(&format!("command = ['{}']", common::worker()));
    let mut first = Run::begin_with(&broken, announce);
    first.logged(&["app=more", "not listening on", "while no worker runs"]);
    first.message("READY=1");
    let stored = |run: &Run| {
        let port = format!("_{}", address.port());
        let all = run.stored();
        all.iter().filter(|name| name.ends_with(&port)).count()
    };
    first.stop();
    let mut second = first.next_master(&broken, announce);
    second.logged(&["app=more", "not listening on", "while no worker runs"]);
    second.message("READY=1");
    second.write("app.toml", &whole);
    second.reload();
    second.logged(&["app=more: all its workers are ready now"]);
    assert_eq!(stored(&second), 1);
    let mut third = answers_after_kill(second, &whole, address);
    assert_eq!(stored(&third), 1);
    third.stop();
}

#[test]
fn a_restart_replaces_a_socket_of_which_the_kind_has_changed() {
    let Ok(socket) = TcpListener::bind("[::]:0") else {
        return eprintln!("left out: there is no IPv6");
    };
    let port = socket.local_addr().expect("bound").port();
    drop(socket);
    let worker = common::worker();
    let all = format!("[app.web]\ncommand = ['{worker}']\nlisten = '[::]:{port}'\n");
    let both = format!("{all}[app.v4]\ncommand = ['{worker}']\nlisten = '0.0.0.0:{port}'\n");
    let mut first = Run::begin_with(&all, announce);
    first.message("READY=1");
    first.write("app.toml", &both);
    first.signal(Signal::SIGHUP);
    first.logged(&["reload failed: cannot listen on 0.0.0.0:"]);
    first.stop();
    let mut second = first.next_master(&both, announce);
    second.logged(&["whether it also accepts IPv4 has changed"]);
    second.message("READY=1");
    assert_eq!(second.stored().len(), 2, "{:?}", second.stored());
    for ip in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{ip}:{port}").parse().expect("an address");
        second = answers_after_kill(second, &both, address);
        assert_eq!(second.stored().len(), 2, "{:?}", second.stored());
    }
    // From all addresses of the port to one.
    second.stop();
    let one = all.replace("[::]", "127.0.0.1");
    let third = second.next_master(&one, announce);
    third.message("READY=1");
    assert_eq!(third.stored().len(), 1, "{:?}", third.stored());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    answers_after_kill(third, &one, address).stop();
}

#[test]
fn an_app_that_was_stopped_and_started_by_name_has_its_sockets_kept() {
    let address = free_address();
    let config = app("")
        + &format!(
            "[app.more]\ncommand = ['{}']\nlisten = ['{address}', 'unix:more.sock']\n",
            common::worker()
        );
    let config = format!("[master]\ncontrol = 'control.sock'\n{config}");
    let run = Run::begin_with(&config, announce);
    run.message("READY=1");
    assert_eq!(run.stored().len(), 3);
    let perform = |run: &Run, words: &[&str]| {
        let mut command = common::preforkd();
        let command = command.args(words).arg("-c").arg(run.path("app.toml"));
        let done = command.output().expect("it starts");
        assert!(done.status.success(), "{done:?}");
    };
    for number in [1, 3] {
        perform(&run, &[if number == 1 { "stop" } else { "start" }, "more"]);
        while run.stored().len() != number {
            run.next_message();
        }
    }
    answers_after_kill(run, &config, address).stop();
}
