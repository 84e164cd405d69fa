//! Apps with `command`: programs that know nothing of preforkd, with all that they start.

mod common;

use std::os::fd::{AsFd, OwnedFd};

use common::{Run, app, worker};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd::sys::watch_process;

/// Whether a process ends within this time.
fn ends(process: &OwnedFd, within: PollTimeout) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, within).expect("a process") == 1
}

const GUARD: u16 = 30_000;

#[test]
fn a_process_that_has_left_the_process_group_has_as_long_as_its_worker_and_is_killed_then() {
    let mut run = Run::start(&app("graceful_timeout = '200ms'"));
    run.ask("start group");
    run.signal(Signal::SIGTERM);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("left a process that it had started; sending SIGTERM"),
        "{log}"
    );
    assert!(
        log.contains("sending SIGKILL to a process that it had started"),
        "{log}"
    );
    run.all_ended();
}

#[test]
fn what_a_killed_worker_leaves_is_killed_at_once() {
    let mut run = Run::start(&app("graceful_timeout = '200ms'\nreload.surge = 1"));
    run.write("behaviour", "ignore-signals");
    run.reload();
    run.ask("start group");
    run.signal(Signal::SIGTERM);
    let (_, log) = run.ended();
    let killed = log.contains("that it had started; sending SIGKILL");
    assert!(killed, "{log}");
    run.all_ended();
}

#[test]
fn after_a_stop_nothing_is_left_even_in_a_session_of_its_own() {
    let mut run = Run::start(&app("graceful_timeout = '200ms'"));
    run.ask("start stranger");
    run.signal(Signal::SIGTERM);
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("workers that have ended: left "), "{log}");
    run.all_ended();
}

#[test]
fn a_worker_that_is_replaced_leaves_nothing_in_a_session_of_its_own_that_can_be_told() {
    let mut run = Run::start(&app("graceful_timeout = '200ms'\nreload.surge = 1"));
    let [own, stranger] = ["session", "stranger"].map(|how| {
        let pid = run.ask(&format!("start {how}")).parse().expect("a pid");
        watch_process(Pid::from_raw(pid)).expect("it lives")
    });
    assert!(run.reload().contains("web 1/1 ready"));
    let left = "left a process that it had started; sending SIGTERM";
    run.logged(&["gen=1", left]);
    run.logged(&["gen=1", "sending SIGKILL to a process that it had started"]);
    assert!(ends(&own, PollTimeout::from(GUARD)));
    let lives = !ends(&stranger, PollTimeout::ZERO);
    assert!(lives, "it may have been started on purpose");
    run.stop();
    assert!(ends(&stranger, PollTimeout::ZERO));
}

#[test]
fn what_has_left_the_session_of_a_worker_below_a_shell_ends_with_it() {
    // The shell in between stays in the session, and is the parent.
    let script = r#"sh -c "setsid sleep 1000 & echo \$!; wait" & exec sleep 1000"#;
    let config = format!("[app.x]\nready = 'exec'\ncommand = ['/bin/sh', '-c', '''{script}''']\n");
    let mut run = Run::start(&config);
    let pid = run.next_line().parse().expect("a pid");
    let process = watch_process(Pid::from_raw(pid)).expect("it lives");
    run.reload();
    assert!(ends(&process, PollTimeout::from(GUARD)));
    run.stop();
}

#[test]
fn a_program_is_told_to_end_by_the_signal_that_it_wants() {
    let script = r#"trap "exit 0" QUIT; trap "" TERM; sleep 1000 & echo "0 1 $$$$ started"; while :; do wait; done"#;
    let config = format!(
        "[app.x]\nready = 'exec'\nstop_signal = 'QUIT'\ngraceful_timeout = '200ms'\ncommand = ['/bin/sh', '-c', '{script}']\n"
    );
    let mut run = Run::begin(&config);
    run.event("started");
    let log = run.stop();
    assert!(log.contains("app=x worker=0 gen=1"), "{log}");
    assert!(log.contains("ended (stop)"), "{log}");
    // It is a program that expects this signal, so the rest of its session gets it too.
    assert!(log.contains("sending SIGQUIT"), "{log}");
    run.all_ended();
}

#[test]
fn a_program_below_a_shell_is_told_to_end_by_a_signal_to_the_group() {
    // A shell with a trap does not handle the signal before the program that it waits for has ended.
    let script = r#"trap : TERM; "$0"; exit 0"#;
    let config = format!(
        "[app.x]\nready = 'exec'\nstop_group = true\ncommand = ['/bin/sh', '-c', '{script}', '{}']\n",
        worker()
    );
    let mut run = Run::begin(&config);
    run.event("started");
    run.signal(Signal::SIGTERM);
    run.event("term");
    let (status, log) = run.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("SIGKILL"), "{log}");
}

#[test]
fn standard_input_may_be_the_listener() {
    let mut run = Run::start(&app("stdin = 'listener'"));
    let (zero, three) = (
        run.ask("link /proc/self/fd/0"),
        run.ask("link /proc/self/fd/3"),
    );
    assert!(zero.starts_with("socket:["), "{zero}");
    assert_eq!(zero, three);
    run.stop();
}

#[test]
fn connections_of_a_tcp_listener_have_no_delay() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let mut run = Run::start(&app("").replace("unix:web.sock", &address.to_string()));
    let stream = std::net::TcpStream::connect(address).expect("it listens");
    assert_eq!(common::ask(stream, "no-delay"), "Ok(true)");
    run.stop();
}

#[test]
fn each_worker_gets_an_address_of_its_own() {
    let config = app("workers = 2\nenv = { HERE = 'at {address}' }")
        .replace("worker']", "worker', 'serve', '{port}']");
    let mut run = Run::start(&config);
    let first = run.logged(&["ready after", ", at 127.0.0.1:"]);
    let second = run.logged(&["ready after", ", at 127.0.0.1:"]);
    let port = |line: &str| line.rsplit(':').next().map(str::to_owned);
    assert_ne!(port(&first), port(&second));
    let address = run.ask("env HERE");
    let own = run.ask("arguments");
    let ports = [port(&first), port(&second)].map(|port| port.expect("a port"));
    assert!(
        ports
            .iter()
            .any(|port| address == format!("at 127.0.0.1:{port}")),
        "{address}"
    );
    assert!(
        ports.iter().any(|port| own == format!("serve {port}")),
        "{own}"
    );
    run.stop();
}

#[test]
fn a_program_that_puts_itself_into_the_background_fails_and_is_ended() {
    // The last one is known by its name only, like one that overwrites its environment with a title.
    for leaves in [
        "sleep 1000 &",
        "setsid sleep 1000 &",
        r#"env -i setsid sh -c ": >gone; sleep 1000; :" & until [ -e gone ]; do :; done;"#,
    ] {
        let script = format!("{leaves} kill -0 $!; exit 0");
        let config = format!("[app.x]\nready = '5s'\ncommand = ['/bin/sh', '-c', '{script}']\n");
        let mut run = Run::begin(&config);
        let (status, log) = run.ended();
        assert_eq!(status, Some(1), "{log}");
        let said = "while a process of it goes on: it puts itself into the background (start it in the foreground";
        assert!(log.contains(said), "{log}");
        assert_eq!(
            log.matches(said).count(),
            2,
            "once, and as the reason: {log}"
        );
        run.all_ended();
    }
}

#[test]
fn a_program_that_counted_as_ready_before_it_went_into_the_background_is_given_up() {
    let mut run = Run::start(&app("ready = 'exec'"));
    run.event("started");
    run.write("behaviour", "background");
    run.ask("exit 1");
    let line = run.logged(&["it puts itself into the background"]);
    assert!(
        line.contains("its app is given up until the next reload"),
        "{line}"
    );
    run.logged(&["left a process that it had started"]);
    run.status("web 0/1 ready, given up");
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    assert!(run.reload().contains("web 1/1 ready"));
    run.stop();
}

#[test]
fn the_memory_of_all_processes_of_the_session_counts() {
    // The pipe is full, so that the program in the middle holds it all.
    let script = "head -c 60000000 /dev/zero | tail -c 60000000 | sleep 1000";
    let config = format!(
        "[app.x]\nready = '1s'\nmax_memory = '40MiB'\ncommand = ['/bin/sh', '-c', '{script}']\n"
    );
    let mut run = Run::start(&config);
    run.logged(&["its share of memory is", "(max_memory 40.0 MiB)"]);
    run.stop();
}

#[test]
fn the_log_says_that_a_program_never_sent_ready() {
    let mut run = Run::begin("[app.x]\nstart_timeout = '200ms'\ncommand = ['sleep', '1000']\n");
    let (status, log) = run.ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("it never sent READY=1 (see `ready`"), "{log}");
}

#[test]
fn a_program_that_ignores_its_listener_is_warned_of() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let config =
        format!("[app.x]\nready = 'exec'\nlisten = ['{address}']\ncommand = ['sleep', '1000']\n");
    let mut run = Run::start(&config);
    let _waits = std::net::TcpStream::connect(address).expect("the master listens");
    run.logged(&["app=x: connections wait at", "ignores its listener"]);
    run.stop();
}

#[test]
fn a_program_has_the_default_dispositions_and_no_signal_is_blocked() {
    let mut run = Run::begin(&app(""));
    run.message("READY=1");
    let status = run.ask("file /proc/self/status");
    let mask = |name: &str| {
        let line = status.split(';').find_map(|line| line.strip_prefix(name));
        let mask = u64::from_str_radix(line.expect("proc_pid_status(5)").trim(), 16);
        // The next two signals are those of the C library, which lets nobody change them: signal(7).
        mask.expect("a mask") & ((1 << 31) - 1)
    };
    // A Rust program ignores SIGPIPE itself.
    let own = 1 << (Signal::SIGPIPE as u64 - 1);
    assert_eq!((mask("SigBlk:"), mask("SigIgn:")), (0, own), "{status}");
    run.stop();
}

/// A worker that ignores TERM, with a process in a session of its own.
const STUBBORN: &str = r#"
import os, signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
    os._exit(0)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))
time.sleep(1000)
"#;

#[test]
fn a_stop_gives_processes_in_sessions_of_their_own_no_second_time() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let program = format!("command = ['python3', '-c', '''{STUBBORN}''']");
        let config = format!("[app.own]\n{program}\ngraceful_timeout = '1s'\n");
        let mut run = Run::begin(&config);
        run.message("READY=1");
        run.signal(signal);
        run.logged(&["app=own", "sending SIGKILL"]);
        let line = run.logged(&["left a process that it had started"]);
        assert!(line.ends_with("; sending SIGKILL"), "{line}");
        assert_eq!(run.ended().0, Some(0));
    }
}
