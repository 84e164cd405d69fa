//! Log files of apps: `stdout`, `stderr`, reopening, a dead writer, files that cannot be written.

mod common;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Run, app};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// A log file whose lines can be waited for: a fifo, open in both directions, so that it never ends.
fn fifo(path: &Path) -> BufReader<File> {
    mkfifo(path, Mode::S_IRWXU).expect("a new name");
    let both = OpenOptions::new().read(true).write(true).open(path);
    BufReader::new(both.expect("a fifo"))
}

/// A master whose log file `out` is a fifo.
fn start_with_fifo(config: &str) -> (Run, BufReader<File>) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = fifo(&folder.path().join("out"));
    let run = Run::begin_in(folder, config, |_| {});
    run.message("READY=1");
    (run, log)
}

/// The next event in a worker's output.
fn next_event(log: &mut impl BufRead) -> String {
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    line.trim_end()
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The process that writes a log file.
fn writer(run: &Run, file: &str) -> Pid {
    let master = run.pid();
    let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
    let children = children.expect("the master lives");
    let mut children = children
        .split_whitespace()
        .map(|pid| pid.parse().expect("a pid"));
    let writes = |pid: &i32| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains(file) && !command.contains("-c")
    };
    Pid::from_raw(children.find(writes).expect("there is a writer"))
}

#[test]
fn the_output_of_workers_goes_to_their_file_which_is_reopened_on_request() {
    for how in ["signal", "command", "reload"] {
        let config = app("stdout = 'out'") + "[master]\ncontrol = 'control.sock'\n";
        let (mut run, mut log) = start_with_fifo(&config);
        assert_eq!(next_event(&mut log), "started");
        std::fs::rename(run.path("out"), run.path("out.1")).expect("a move");
        run.ask("say moved");
        assert_eq!(
            next_event(&mut log),
            "moved",
            "the open file is written, whatever its name"
        );

        let mut reopened = fifo(&run.path("out"));
        match how {
            "signal" => run.signal(Signal::SIGUSR1),
            "command" => {
                let file = run.path("app.toml");
                let done = common::preforkd().args(["reopen", "-c"]).arg(file).output();
                assert!(done.expect("it runs").status.success());
            }
            _ => assert!(run.reload().contains("generation 2: ")),
        }
        if how != "reload" {
            run.logged(&["reopening 1 log file"]);
        }
        // The writer handles the signal later.
        let both = std::thread::spawn(move || {
            let mut event = next_event(&mut reopened);
            // What the reload makes the workers say.
            while event == "started" || event == "term" {
                event = next_event(&mut reopened);
            }
            (reopened, event)
        });
        while !both.is_finished() {
            run.ask("say again");
        }
        let (mut reopened, again) = both.join().expect("no panic");
        assert_eq!(again, "again");
        run.stop();
        while next_event(&mut reopened) != "term" {}
    }
}

#[test]
fn a_dead_writer_is_replaced_and_what_waits_in_the_pipe_is_written() {
    let (mut run, mut log) = start_with_fifo(&app("stdout = 'out'"));
    assert_eq!(next_event(&mut log), "started");
    for round in ["one", "two"] {
        kill(writer(&run, "out"), Signal::SIGKILL).expect("it lives");
        run.logged(&[
            "the writer of",
            "out",
            "killed by SIGKILL; replacing it (lines that it had read but not written are lost)",
        ]);
        run.ask(&format!("say {round}"));
        assert_eq!(next_event(&mut log), round);
    }
    run.stop();
}

#[test]
fn a_file_that_cannot_be_reopened_is_kept_until_it_can_be() {
    let (mut run, mut log) = start_with_fifo(&app("stdout = 'out'"));
    assert_eq!(next_event(&mut log), "started");
    std::fs::rename(run.path("out"), run.path("out.1")).expect("a move");
    std::fs::create_dir(run.path("out")).expect("room");
    run.signal(Signal::SIGUSR1);
    run.logged(&[
        "cannot reopen the log file",
        "Is a directory",
        "keeping the open file, retrying",
    ]);
    run.ask("say kept");
    assert_eq!(next_event(&mut log), "kept");
    std::fs::remove_dir(run.path("out")).expect("empty");
    run.logged(&["the log file", "out is open again"]);
    run.ask("say new");
    run.stop();
    let text = std::fs::read_to_string(run.path("out")).expect("it was made");
    assert!(text.contains("new"), "{text}");
}

#[test]
fn everything_is_written_before_the_master_ends_and_files_change_with_reloads() {
    let config = |files: &str| app(&format!("workers = 2\n{files}"));
    let mut run = Run::start(&config("stdout = 'a.log'\nstderr = 'a.log'"));
    run.write("app.toml", &config("stdout = 'b.log'"));
    run.reload();
    run.write("app.toml", &config("stdout = 'missing/c.log'"));
    let message = run.reload();
    assert!(message.contains("stdout: there is no folder"), "{message}");
    run.write("app.toml", &config("stdout = 'c.log'\nstderr = 'web.sock'"));
    let message = run.reload();
    assert!(message.contains("cannot write the log file "), "{message}");
    run.stop();
    for name in ["a.log", "b.log"] {
        let text = std::fs::read_to_string(run.path(name)).expect("it was made");
        for event in ["started", "term"] {
            assert_eq!(text.matches(event).count(), 2, "{name}: {text}");
        }
    }
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let mut run = Run::start(&app("stdout = '/dev/full'"));
    run.logged(&[
        "cannot write the log file /dev/full: No space left on device",
        "lines are lost",
    ]);
    assert_ne!(run.ask("pid"), "");
    run.stop();
}

#[test]
fn a_flood_on_standard_error_does_not_hold_up_the_master() {
    let config = app("stderr = '/dev/null'\nstart_timeout = '1s'\nabort_grace = '100ms'");
    let mut run = Run::start(&config);
    run.write("behaviour", "flood");
    run.signal(Signal::SIGHUP);
    run.message("RELOADING=1");
    // The first worker of generation 2 floods its standard error. It still fails in time, and is quoted.
    let status = run.message("READY=1");
    assert!(status.contains("settings are missing"), "{status}");
    run.stop();
}

/// CPU time of the master so far: /proc/PID/schedstat.
fn cpu(run: &Run) -> Duration {
    let times = std::fs::read_to_string(format!("/proc/{}/schedstat", run.pid()));
    let times = times.expect("the master lives");
    let first = times.split_whitespace().next().expect("three numbers");
    Duration::from_nanos(first.parse().expect("a number"))
}

#[test]
fn a_worker_that_floods_standard_error_takes_a_small_share_of_the_master() {
    let config = app("start_timeout = '2s'\nabort_grace = '100ms'\nstderr = 'out'");
    let mut run = Run::start(&config);
    let flood = "command = ['/bin/sh', '-c', 'exec yes >&2']\n";
    let lines = config.lines().filter(|line| !line.starts_with("command"));
    let rest: Vec<_> = lines.map(|line| format!("{line}\n")).collect();
    run.write("app.toml", &(rest.concat() + flood));
    let (before, began) = (cpu(&run), Instant::now());
    run.signal(Signal::SIGHUP);
    run.logged(&["gen=2", "SIGABRT (not ready within start_timeout)"]);
    let (took, time) = (cpu(&run) - before, began.elapsed());
    assert!(took < time / 5, "{took:?} of CPU time in {time:?}");
    run.stop();
}

/// A log writer for `target`, as the master starts it, and the way to it.
fn write_log(target: &str, stdout: impl Into<Stdio>) -> (Child, ChildStdin) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" write-log -- \"$1\" 3<&0"])
        .args([env!("CARGO_BIN_EXE_preforkd"), target])
        .stdin(Stdio::piped())
        .stdout(stdout)
        .spawn()
        .expect("it can be started");
    let input = writer.stdin.take().expect("a pipe");
    (writer, input)
}

#[test]
fn standard_output_can_be_a_socket() {
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    let (mut writer, mut input) = write_log("-", OwnedFd::from(theirs));
    input.write_all(b"one\ntwo").expect("room");
    drop(input);
    let mut text = String::new();
    ours.read_to_string(&mut text).expect("it ends");
    assert_eq!(text, "one\ntwo");
    assert!(writer.wait().expect("it ends").success());
}

#[test]
fn standard_output_that_another_process_has_made_non_blocking_loses_nothing() {
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    let shared = theirs.try_clone().expect("a descriptor");
    let (mut writer, mut input) = write_log("-", OwnedFd::from(theirs));
    let line = [&[b'x'; 99][..], b"\n"].concat();
    // More than the socket holds.
    let text = line.repeat(50_000);
    let sent = text.clone();
    let sender = std::thread::spawn(move || input.write_all(&sent).expect("it is read"));
    let has_room = || {
        let mut fds = [PollFd::new(shared.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).expect("a socket") > 0
    };
    while has_room() {
        std::thread::yield_now();
    }
    drop(shared);
    let mut read = Vec::new();
    ours.read_to_end(&mut read).expect("it ends");
    sender.join().expect("no panic");
    assert!(read == text, "{} of {} bytes", read.len(), text.len());
    assert!(writer.wait().expect("it ends").success());
}

#[test]
fn a_syslog_server_gets_each_line_as_a_message_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let server = UnixDatagram::bind(&path).expect("room");
    let target = format!("syslog:{},facility=user,tag=shop", path.display());
    let (mut writer, mut input) = write_log(&target, Stdio::null());
    let next = |server: &UnixDatagram| {
        let mut message = [0; 1000];
        let length = server.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let pid = writer.id();
    input.write_all(b"one\ntwo\n").expect("room");
    for line in ["one", "two"] {
        let message = next(&server);
        assert!(message.starts_with("<14>"), "{message}");
        assert!(
            message.ends_with(&format!(" shop[{pid}]: {line}")),
            "{message}"
        );
    }
    drop(server);
    std::fs::remove_file(&path).expect("it is there");
    let server = UnixDatagram::bind(&path).expect("room");
    input.write_all(b"three\n").expect("room");
    assert!(next(&server).ends_with(": three"));
    drop(input);
    assert!(writer.wait().expect("it ends").success());
}

type Texts<T> = std::io::Lines<BufReader<T>>;

/// A log writer that the master waits for, with the way to it, its report and what it says.
fn awaited(target: &str) -> (Child, File, Texts<ChildStdout>, Texts<ChildStderr>) {
    let (pipe, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
    let mut writer = Command::new("/bin/sh")
        .args([
            "-c",
            "exec \"$0\" write-log --report -- \"$1\" 3<&0 4>&1",
            env!("CARGO_BIN_EXE_preforkd"),
            target,
        ])
        .stdin(pipe)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let report = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
    let told = BufReader::new(writer.stderr.take().expect("a pipe")).lines();
    (writer, input.into(), report, told)
}

#[test]
fn a_syslog_server_may_come_after_the_log_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let target = format!("syslog:{}", path.display());
    let (mut writer, mut input, mut report, mut told) = awaited(&target);
    let mut next = || told.next().expect("a line").expect("text");
    assert_eq!(report.next().expect("a report").expect("text"), "opened");
    let log = format!("the log {target},facility=local7,tag=preforkd");
    assert_eq!(
        next(),
        format!(
            "preforkd: cannot open {log}: No such file or directory (os error 2) (no syslog server listens there); \
             lines are lost until it can be opened, retrying"
        )
    );
    input.write_all(b"lost\n").expect("room");
    // It is read, as the pipe has no room for more.
    input.write_all(&b"\n".repeat(1 << 17)).expect("room");
    let server = UnixDatagram::bind(&path).expect("room");
    assert_eq!(next(), format!("preforkd: {log} is open"));
    input.write_all(b"kept\n").expect("room");
    let mut message = [0; 1000];
    let length = server.recv(&mut message).expect("a message");
    assert!(message[..length].ends_with(b": kept"));
    let lost = next();
    assert!(
        lost.starts_with("preforkd: ") && lost.ends_with(&format!(" lines of {log} were lost")),
        "{lost}"
    );
    drop(input);
    assert!(writer.wait().expect("it ends").success());
}

#[test]
fn nobody_waits_for_the_name_of_a_syslog_server() {
    let (mut writer, input, mut report, mut told) = awaited("syslog:no-such-host.invalid");
    assert_eq!(report.next().expect("a report").expect("text"), "opened");
    let told = told.next().expect("a line").expect("text");
    assert!(told.contains("cannot open the log syslog:no-such-host.invalid:514,"));
    assert!(
        told.contains("lookup") && told.ends_with("retrying"),
        "{told}"
    );
    drop(input);
    assert!(writer.wait().expect("it ends").success());
}

#[test]
fn udp_carries_the_form_of_rfc_5424() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("bound").port();
    let (mut writer, mut input) = write_log(&format!("syslog:127.0.0.1:{port}"), Stdio::null());
    input.write_all(b"one\n").expect("room");
    let mut message = [0; 1000];
    let length = server.recv(&mut message).expect("a message");
    let message = String::from_utf8_lossy(&message[..length]);
    assert!(message.starts_with("<190>1 20"), "{message}");
    let rest = format!(" preforkd {} - - one", writer.id());
    assert!(message.ends_with(&rest), "{message}");
    drop(input);
    assert!(writer.wait().expect("it ends").success());
}

#[test]
fn a_log_file_is_rotated_by_size_and_loses_no_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = app(
        "stdout = 'out'\nlog_mode = '0640'\nlog_rotate = { size = '1KiB', keep = 40 }\nworkers = 2",
    );
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let number = 300;
    for line in 0..number {
        assert_eq!(run.ask(&format!("say line-{line}-of-many")), "said");
    }
    run.stop();
    let mut said = Vec::new();
    let mut files = 0;
    for number in 0..40 {
        let name = match number {
            0 => "out".to_owned(),
            number => format!("out.{number}"),
        };
        let path = run.path(&name);
        let Ok(text) = std::fs::read_to_string(&path) else {
            break;
        };
        let found = std::fs::metadata(&path).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o7777, 0o640, "{name}");
        assert!(
            found.len() <= 1024 && text.ends_with('\n'),
            "{name}: {text}"
        );
        files += 1;
        let lines = text.lines().rev().filter(|line| line.contains("of-many"));
        said.extend(lines.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()));
    }
    assert!(files > 2, "{files}");
    said.reverse();
    // The two workers write in turn, but each line is there once.
    said.sort_by_key(|word| word.split('-').nth(1).and_then(|n| n.parse::<u32>().ok()));
    let expected: Vec<_> = (0..number).map(|n| format!("line-{n}-of-many")).collect();
    assert_eq!(said, expected);
}

#[test]
fn the_lines_of_a_program_begin_with_its_app_and_its_slot() {
    let config = app("prefix_output = true\nworkers = 2");
    let folder = tempfile::tempdir().expect("a folder");
    let file = app("prefix_output = true\nstdout = 'out'\nstderr = 'out'");
    let mut run = Run::begin_in(folder, &config, |command| {
        command.env_remove("JOURNAL_STREAM");
    });
    run.message("READY=1");
    // The events of workers are lines of their standard output.
    let mut prefixes = [run.next_line(), run.next_line()].map(|line| {
        let (prefix, event) = line.split_once(": ").expect("a prefix");
        assert!(event.ends_with(" started"), "{line}");
        prefix.to_owned()
    });
    prefixes.sort();
    assert_eq!(prefixes, ["web/0", "web/1"]);
    // A program's standard error too, which the master reads first.
    run.write("behaviour", "exit 7");
    let message = run.reload();
    assert!(message.contains("settings are missing"), "{message}");
    run.logged(&["web/0: settings are missing"]);
    std::fs::remove_file(run.path("behaviour")).expect("it is there");
    run.write("app.toml", &file);
    assert!(run.reload().contains("generation 3: web 1/1 ready"));
    assert_eq!(run.ask("say something"), "said");
    run.stop();
    let text = std::fs::read_to_string(run.path("out")).expect("a log");
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines.iter().all(|line| line.starts_with("web/0: 0 3 ")),
        "{text}"
    );
    assert_eq!(lines.len(), 3, "started, something, term: {text}");
}

#[test]
fn a_prompt_with_a_prefix_does_not_wait_for_the_end_of_its_line() {
    let config = "[app.q]\ncommand = ['sh', '-c', 'printf half; exec sleep 1000']\nready = 'exec'\nprefix_output = true";
    let mut run = Run::begin_in(tempfile::tempdir().expect("a folder"), config, |command| {
        command.env_remove("JOURNAL_STREAM");
    });
    assert_eq!(run.next_line(), "q/0: half");
    run.stop();
}

#[test]
fn a_prompt_on_standard_error_does_not_wait_for_the_end_of_its_line() {
    for prefix in [true, false] {
        // The master reads what the first worker of a generation writes, and not the second one.
        let config = format!(
            "[app.q]\ncommand = ['sh', '-c', 'printf half$PREFORKD_SLOT >&2; exec sleep 1000']\nready = 'exec'\nworkers = 2\n\
             stderr = 'err'\nprefix_output = {prefix}"
        );
        let folder = tempfile::tempdir().expect("a folder");
        mkfifo(&folder.path().join("err"), Mode::S_IRWXU).expect("room");
        // Open in both directions, so that it has a writer whatever the log writer does.
        let mut options = std::fs::File::options();
        let pipe = options.read(true).write(true);
        let mut pipe = pipe.open(folder.path().join("err")).expect("it is there");
        let mut run = Run::begin_in(folder, &config, |_| {});
        let mut said = String::new();
        while !(said.contains("half0") && said.contains("half1")) {
            let mut some = [0; 64];
            let n = pipe.read(&mut some).expect("they write");
            said += std::str::from_utf8(&some[..n]).expect("text");
        }
        assert_eq!(said.contains("q/0: half0\n"), prefix, "{said}");
        run.stop();
    }
}

#[test]
fn no_worker_continues_the_last_line_of_another_one() {
    let script = r#"
        trap 'i=0; while [ $i -lt 300 ]; do echo $$$$ $i; i=$((i+1)); done; printf "$$$$ rest"; exit 0' TERM
        echo $$$$ begins
        while :; do sleep 1000 & wait; done"#;
    let config = format!(
        "[app.q]\ncommand = ['sh', '-c', '''{script}''']\nworkers = 64\nready = 'exec'\nreplace = 'stop-first'\nprefix_output = true"
    );
    let mut run = Run::begin_in(tempfile::tempdir().expect("a folder"), &config, |command| {
        command.env_remove("JOURNAL_STREAM");
    });
    let mut said: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut take = |run: &Run, lines: usize| {
        for _ in 0..lines {
            let line = run.next_line();
            let (prefix, line) = line.split_once(": ").expect("a prefix");
            let (pid, word) = line.split_once(' ').expect("two words");
            let whose = (prefix.to_owned(), pid.to_owned());
            said.entry(whose).or_default().push(word.to_owned());
        }
    };
    take(&run, 64);
    run.message("READY=1");
    run.signal(Signal::SIGHUP);
    take(&run, 64 * (300 + 1 + 1));
    run.stop();
    assert_eq!(said.len(), 128, "{:?}", said.keys());
    let all: Vec<_> = ["begins".to_owned()]
        .into_iter()
        .chain((0..300).map(|i: u32| i.to_string()))
        .chain(["rest".to_owned()])
        .collect();
    let (old, new): (Vec<_>, Vec<_>) = said.values().partition(|words| words.len() > 1);
    assert_eq!((old.len(), new.len()), (64, 64));
    assert!(old.into_iter().all(|words| *words == all));
    assert!(new.into_iter().all(|words| words == &["begins"]));
}

#[test]
fn what_a_worker_has_left_writes_lines_of_its_own() {
    // What it starts has nothing of the worker, so it goes on.
    let script = r#"
        trap 'echo whole' USR1
        [ -e late ] || { : > late; env -u LISTEN_PID setsid sh -c "read pid < go; printf late; kill -USR1 \$pid; exec sleep 1000" & }
        echo $$$$
        while :; do sleep 1000 & wait; done"#;
    let config = format!(
        "[app.q]\ncommand = ['sh', '-c', '''{script}''']\nready = 'exec'\nprefix_output = true"
    );
    let folder = tempfile::tempdir().expect("a folder");
    mkfifo(&folder.path().join("go"), Mode::S_IRWXU).expect("room");
    let mut run = Run::begin_in(folder, &config, |command| {
        command.env_remove("JOURNAL_STREAM");
    });
    run.next_line();
    run.message("READY=1");
    run.reload();
    let line = run.next_line();
    let new = line.strip_prefix("q/0: ").expect("the prefix");
    run.logged(&["ended (replaced by a newer generation)"]);
    run.write("go", &format!("{new}\n"));
    let mut both = [run.next_line(), run.next_line()];
    both.sort();
    assert_eq!(both, ["q/0: late", "q/0: whole"]);
    run.stop();
}

#[test]
fn a_dead_writer_of_a_worker_is_replaced() {
    let (mut run, mut log) = start_with_fifo(&app("prefix_output = true\nstdout = 'out'"));
    assert_eq!(next_event(&mut log), "started");
    let command = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let master = run.pid();
    let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
    let children = children.expect("the master lives");
    let writers: Vec<_> = children
        .split_whitespace()
        .filter(|pid| command(pid).is_ok_and(|command| command.contains("/out")))
        .collect();
    // That of the app, and that of the worker.
    assert_eq!(writers.len(), 2, "{children}");
    for pid in writers {
        let pid = Pid::from_raw(pid.parse().expect("a pid"));
        kill(pid, Signal::SIGKILL).expect("it lives");
        run.logged(&["the writer of the log file", "killed by SIGKILL"]);
    }
    assert_eq!(run.ask("say again"), "said");
    assert_eq!(next_event(&mut log), "again");
    run.stop();
}
