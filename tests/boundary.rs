//! The privilege boundary: attacks by the user of an application on a root master, on its files, and on another app. Each test
//! makes one attack as that user. The tests need root, and print a line if they are skipped.

mod common;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::programs::{copy_program, write_script};
use common::{Run, worker};
use nix::sys::signal::Signal;

/// The user and group of the application.
const USER: u32 = 65534;
/// The user of another application: daemon, which exists on every host.
const OTHER: u32 = 1;
/// A user of no application.
const UNRELATED: u32 = 65533;

/// Whether this is root. Otherwise reports that the test is skipped, past the harness, which hides the output of tests that pass.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "{test}: skipped, as it needs root");
    }
    root
}

macro_rules! needs_root {
    () => {
        if !is_root(std::thread::current().name().unwrap_or_default()) {
            return;
        }
    };
}

/// A root-owned folder that everyone can enter, with a worker, root's file `precious` (writable for everyone, so that only the
/// master's care protects it), and a folder `theirs` of the application's user.
fn stage() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("ours");
    copy_program(worker(), path.join("worker"));
    std::fs::write(path.join("precious"), "precious").expect("room");
    std::fs::set_permissions(path.join("precious"), PermissionsExt::from_mode(0o666))
        .expect("ours");
    std::fs::create_dir(path.join("theirs")).expect("room");
    chown(path.join("theirs"), Some(USER), Some(USER)).expect("root may");
    folder
}

/// An app of the application's user; `rest` is added to its table.
fn app(folder: &Path, rest: &str) -> String {
    let worker = folder.join("worker");
    format!(
        "[app.web]\ncommand = ['{}']\nuser = '{USER}'\ngroup = '{USER}'\nlisten = ['unix:web.sock']\n{rest}\n",
        worker.display()
    )
}

fn begin(folder: tempfile::TempDir, config: &str) -> Run {
    Run::begin_in(folder, config, |_| {})
}

fn start(folder: tempfile::TempDir, config: &str) -> Run {
    let run = begin(folder, config);
    run.message("READY=1");
    run
}

/// Runs a script as the application's user.
fn attack(run: &Run, script: &str) {
    let done = command(USER, run.folder.path(), script);
    assert!(done.status.success(), "{script}: {done:?}");
}

fn command(user: u32, folder: &Path, script: &str) -> Output {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).current_dir(folder);
    shell
        .uid(user)
        .gid(user)
        .output()
        .expect("there is a shell")
}

/// Contents, mode and owner of root's file.
fn precious(folder: &Path) -> (String, u32, u32) {
    let path = folder.join("precious");
    let found = path.symlink_metadata().expect("it is there");
    let text = std::fs::read_to_string(&path).expect("it is there");
    (text, found.mode() & 0o7777, found.uid())
}

fn untouched() -> (String, u32, u32) {
    ("precious".into(), 0o666, 0)
}

/// A master that cannot start, and part of its log.
fn refused(folder: tempfile::TempDir, config: &str, reason: &str) -> Run {
    let mut run = begin(folder, config);
    assert!(!run.starts(), "it starts: {reason}");
    let (status, log) = run.ended();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains(reason), "{reason}: {log}");
    assert_eq!(precious(run.folder.path()), untouched());
    run
}

/// The ids of the process that writes a log file.
fn writer_ids(run: &Run) -> String {
    let master = run.pid();
    let children = format!("/proc/{master}/task/{master}/children");
    let children = std::fs::read_to_string(children).expect("the master lives");
    let status = |pid: &str| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        command.starts_with("preforkd: log").then_some(status)
    };
    let status = children.split_whitespace().find_map(status);
    let status = status.expect("there is a writer");
    let lines = status.lines().filter(|line| {
        line.starts_with("Uid:") || line.starts_with("Gid:") || line.starts_with("CapEff:")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_log_file_becomes_a_link_before_it_is_reopened() {
    needs_root!();
    let folder = stage();
    let config = app(folder.path(), "stdout = 'theirs/out'");
    let mut run = start(folder, &config);
    let ids = writer_ids(&run);
    let expected = format!(
        "Uid:\t{USER}\t{USER}\t{USER}\t{USER}\nGid:\t{USER}\t{USER}\t{USER}\t{USER}\nCapEff:\t0000000000000000"
    );
    assert_eq!(ids, expected);
    attack(
        &run,
        "mv theirs/out theirs/old && ln -s ../precious theirs/out",
    );
    run.signal(Signal::SIGUSR1);
    run.logged(&["cannot reopen the log file", "is a symbolic link"]);
    run.ask("say attacker");
    attack(
        &run,
        "ln -s ../new theirs/link && mv -T theirs/link theirs/out && mv theirs/old theirs/older",
    );
    run.signal(Signal::SIGUSR1);
    run.logged(&["cannot reopen the log file", "is a symbolic link"]);
    run.ask("say again");
    attack(&run, "rm theirs/out");
    run.signal(Signal::SIGUSR1);
    // The writer handles the signal later.
    while !run.path("theirs/out").exists() {
        run.ask("say after");
    }
    // Everything is written before the master ends.
    run.stop();
    assert_eq!(precious(run.folder.path()), untouched());
    assert!(!run.path("new").exists());
    let older = std::fs::read_to_string(run.path("theirs/older")).expect("it was open");
    assert!(
        older.contains("attacker") && older.contains("again"),
        "{older}"
    );
    let reopened = run.path("theirs/out").metadata().expect("it was made");
    assert_eq!(reopened.uid(), USER);
}

#[test]
fn a_log_file_is_a_link_or_has_a_second_name_or_is_behind_a_link_from_the_start() {
    needs_root!();
    for (attack, log, said) in [
        (
            "ln -s ../precious theirs/out",
            "theirs/out",
            "theirs/out is a symbolic link in a folder that belongs to uid 65534",
        ),
        (
            "ln -s .. theirs/logs",
            "theirs/logs/out",
            "theirs/logs is a symbolic link in a folder that belongs to uid 65534",
        ),
        (
            "ln precious theirs/out",
            "theirs/out",
            "the file has several hard links",
        ),
    ] {
        let folder = stage();
        // As root, because the kernel may forbid it to the user.
        let done = command(0, folder.path(), attack);
        assert!(done.status.success(), "{done:?}");
        let config = app(folder.path(), &format!("stderr = '{log}'"));
        let run = refused(folder, &config, said);
        assert!(!run.path("out").exists());
    }
}

#[test]
fn the_socket_of_a_syslog_server_is_reached_as_the_owner_of_its_folder() {
    needs_root!();
    let folder = stage();
    let path = folder.path();
    // Only root may send there.
    let secret = UnixDatagram::bind(path.join("secret")).expect("room");
    std::fs::set_permissions(path.join("secret"), PermissionsExt::from_mode(0o600)).expect("ours");
    let theirs = UnixDatagram::bind(path.join("theirs/log")).expect("room");
    chown(path.join("theirs/log"), Some(USER), None).expect("root may");
    symlink("../secret", path.join("theirs/link")).expect("room");
    std::fs::hard_link(path.join("secret"), path.join("theirs/twin")).expect("room");
    let write = |name: &str| {
        let target = format!("syslog:{}/theirs/{name}", path.display());
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" write-log -- \"$1\" 3<&0"])
            .args([env!("CARGO_BIN_EXE_preforkd"), &target])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut input = writer.stdin.take().expect("a pipe");
        input.write_all(b"line\n").expect("room");
        (writer, input)
    };
    let (mut writer, input) = write("log");
    let mut message = [0; 100];
    let length = theirs.recv(&mut message).expect("a message");
    assert!(message[..length].ends_with(b": line"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", writer.id()));
    let uids = format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n");
    assert!(status.expect("it lives").contains(&uids));
    drop(input);
    writer.wait().expect("it ends");
    for (name, reason) in [
        ("link", "is a symbolic link in a folder"),
        ("twin", "Permission denied"),
    ] {
        let (writer, input) = write(name);
        drop(input);
        let output = writer.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(reason), "{name}: {said}");
    }
    secret.set_nonblocking(true).expect("a socket");
    assert!(secret.recv(&mut message).is_err(), "nothing was sent there");
}

#[test]
fn another_user_has_put_a_file_or_fifo_at_the_path_of_a_log_file_in_a_shared_folder() {
    needs_root!();
    let shared = |folder: &Path, mode: u32| {
        let path = folder.join("shared");
        std::fs::create_dir(&path).expect("room");
        chown(&path, Some(0), Some(USER)).expect("root may");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("ours");
    };
    // As /tmp, and as /var/log where a group may write to it.
    for mode in [0o1777, 0o775] {
        for file in ["mkfifo -m 666 shared/out", "umask 0; > shared/out"] {
            let folder = stage();
            shared(folder.path(), mode);
            let done = command(USER, folder.path(), file);
            assert!(done.status.success(), "{done:?}");
            // A fifo can be opened while it has a reader.
            let fifo = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(folder.path().join("shared/out"));
            let config = app(folder.path(), "stdout = 'shared/out'");
            let run = refused(folder, &config, "the file belongs to uid 65534");
            drop(fifo);
            let kept = run.path("shared/out").symlink_metadata();
            assert_eq!(kept.expect("it stays").uid(), USER);
        }
        let folder = stage();
        shared(folder.path(), mode);
        let config = app(folder.path(), "stdout = 'shared/out'");
        let mut run = start(folder, &config);
        let made = run.path("shared/out").metadata();
        assert_eq!(made.expect("it was made").uid(), 0);
        run.stop();
    }
}

#[test]
fn a_folder_of_root_below_one_of_the_application_is_written_as_its_user_or_not_at_all() {
    needs_root!();
    let stage = || {
        let folder = stage();
        std::fs::create_dir(folder.path().join("theirs/logs")).expect("room");
        let config = app(folder.path(), "stdout = 'theirs/logs/out'");
        (folder, config)
    };
    let (folder, config) = stage();
    let said = "opened as uid 65534, who can change the folder";
    refused(folder, &config, said);

    let (folder, config) = stage();
    chown(folder.path().join("theirs/logs"), Some(USER), None).expect("root may");
    let mut run = start(folder, &config);
    let made = run.path("theirs/logs/out").metadata();
    assert_eq!(made.expect("it was made").uid(), USER);
    run.stop();
}

#[test]
fn a_folder_of_root_that_is_writable_for_the_group_of_the_application_is_not_trusted() {
    needs_root!();
    let folder = stage();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).expect("room");
    chown(&shared, Some(0), Some(USER)).expect("root may");
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o775)).expect("ours");
    let done = command(USER, folder.path(), "ln -s ../precious shared/out");
    assert!(done.status.success(), "{done:?}");
    let config = app(folder.path(), "stdout = 'shared/out'");
    refused(
        folder,
        &config,
        "in a folder that users other than root can write to",
    );
}

#[test]
fn the_file_of_a_listener_becomes_a_link_before_its_mode_changes() {
    needs_root!();
    let folder = stage();
    let config = |mode: &str| {
        let second = format!("{{ address = 'unix:theirs/s', mode = '{mode}', owner = '{USER}' }}");
        app(folder.path(), "").replace("'unix:web.sock'", &format!("'unix:web.sock', {second}"))
    };
    let (before, after) = (config("0600"), config("0642"));
    let mut run = start(folder, &before);
    let made = run.path("theirs/s").metadata().expect("it was bound");
    assert_eq!((made.uid(), made.mode() & 0o777), (USER, 0o600));
    let inside = std::fs::read_dir(run.path("theirs")).expect("it is there");
    let inside = inside.flatten().map(|entry| entry.file_name());
    let inside: std::collections::BTreeSet<_> = inside.collect();
    assert_eq!(
        inside.iter().collect::<Vec<_>>(),
        [".s.preforkd", "s"],
        "no draft is left"
    );
    attack(&run, "rm theirs/s && ln -s ../precious theirs/s");
    run.write("app.toml", &after);
    run.reload();
    run.logged(&["theirs/s: its socket file was removed or replaced"]);
    assert_eq!(precious(run.folder.path()), untouched());
    run.stop();
    assert!(run.path("theirs/s").is_symlink(), "it is not the master's");
    assert_eq!(precious(run.folder.path()), untouched());
}

#[test]
fn another_file_is_at_the_path_of_a_listener() {
    needs_root!();
    for (attack, said) in [
        (
            "ln -s ../precious theirs/s",
            "there is a symbolic link at this path",
        ),
        (
            "echo mine > theirs/s",
            "there is a file at this path that is not a socket",
        ),
        ("mkdir theirs/s", "there is a folder at this path"),
    ] {
        let folder = stage();
        let done = command(USER, folder.path(), attack);
        assert!(done.status.success(), "{done:?}");
        let config = app(folder.path(), "").replace("unix:web.sock", "unix:theirs/s");
        let run = refused(folder, &config, said);
        let still = run.path("theirs/s").symlink_metadata();
        assert_eq!(still.expect("it stays").uid(), USER);
    }
}

#[test]
fn another_file_at_the_path_of_control_is_not_touched() {
    needs_root!();
    let folder = stage();
    let socket = folder.path().join("theirs/control");
    let _theirs = UnixListener::bind(&socket).expect("room");
    chown(&socket, Some(USER), Some(USER)).expect("root may");
    for (path, said) in [
        (
            "precious",
            "there is a file at this path that is not a socket",
        ),
        ("theirs/control", "there is a socket of uid 65534"),
    ] {
        let folder = stage();
        let path = match path {
            "precious" => folder.path().join(path),
            _ => socket.clone(),
        };
        let control = format!("[master]\ncontrol = '{}'\n", path.display());
        let config = app(folder.path(), "") + &control;
        let mut run = begin(folder, &config);
        run.logged(&["no control socket at", said]);
        run.message("READY=1");
        run.stop();
        assert_eq!(precious(run.folder.path()), untouched());
    }
    assert!(socket.exists());
}

#[test]
fn only_the_group_of_the_control_socket_may_use_it() {
    needs_root!();
    let folder = stage();
    let control = format!("[master]\ncontrol = 'control'\ncontrol_group = '{USER}'\n");
    let config = app(folder.path(), "") + &control;
    let mut run = start(folder, &config);
    let made = run.path("control").metadata().expect("it was bound");
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o777),
        (0, USER, 0o660)
    );
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.sendall(b'status\\n')\nprint(s.makefile().readline())";
    let ask = |user| {
        let call = format!(
            "python3 -c \"{script}\" '{}'",
            run.path("control").display()
        );
        let done = command(user, run.folder.path(), &call);
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    assert_eq!(ask(USER), "ok");
    assert_eq!(ask(OTHER), "");
    let program = run.path("preforkd");
    copy_program(env!("CARGO_BIN_EXE_preforkd"), &program);
    let status = |user| {
        command(
            user,
            run.folder.path(),
            "./preforkd status --socket control",
        )
    };
    assert_eq!(status(USER).status.code(), Some(0));
    let refused = status(OTHER);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("Permission denied (os error 13) (run this as"),
        "{said}"
    );
    // By default the user is refused, although nothing else has changed.
    run.write(
        "app.toml",
        &config.replace(&format!("control_group = '{USER}'"), ""),
    );
    run.reload();
    assert_eq!(ask(USER), "");
    run.stop();
}

#[test]
fn the_pid_file_is_in_a_folder_where_others_can_replace_it() {
    needs_root!();
    let pid_file =
        |folder: &Path, path: &str| app(folder, "") + &format!("[master]\npid_file = '{path}'\n");
    let folder = stage();
    let config = pid_file(folder.path(), "theirs/pid");
    let said = "its folder or one above it belongs to uid 65534, who could replace the file";
    let run = refused(folder, &config, said);
    assert!(!run.path("theirs/pid").exists());

    let folder = stage();
    std::fs::create_dir(folder.path().join("theirs/run")).expect("room");
    let config = pid_file(folder.path(), "theirs/run/pid");
    refused(folder, &config, said);

    let folder = stage();
    let path = folder.path().join("shared");
    std::fs::create_dir(&path).expect("room");
    chown(&path, Some(0), Some(USER)).expect("root may");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o775)).expect("ours");
    let config = pid_file(folder.path(), "shared/pid");
    let said = "users other than root can write to its folder or one above it";
    refused(folder, &config, said);
}

#[test]
fn the_pid_file_is_a_link_or_file_of_another_user_in_a_shared_folder() {
    needs_root!();
    for (attack, said) in [
        (
            "ln -s ../precious shared/pid",
            "there is a symbolic link at this path",
        ),
        (
            "echo 1 > shared/pid",
            "there is a file of uid 65534 at this path",
        ),
    ] {
        let folder = stage();
        let path = folder.path().join("shared");
        std::fs::create_dir(&path).expect("room");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o1777)).expect("ours");
        let done = command(USER, folder.path(), attack);
        assert!(done.status.success(), "{done:?}");
        let config = app(folder.path(), "") + "[master]\npid_file = 'shared/pid'\n";
        refused(folder, &config, said);
    }
}

#[test]
fn an_unrelated_user_cannot_send_messages_and_a_flood_does_not_delay_another_app() {
    needs_root!();
    let folder = stage();
    let worker = folder.path().join("worker").display().to_string();
    let loud =
        format!("[app.loud]\ncommand = ['{worker}', 'loud']\nuser = '{USER}'\ngroup = '{USER}'\n");
    let other = app(folder.path(), "").replace(&USER.to_string(), &OTHER.to_string());
    let mut run = start(folder, &(loud + &other));
    let address = run.ask("env NOTIFY_SOCKET");
    let shout = |user, address: &str| {
        let script = format!("'{worker}' 'shout {address}'");
        let done = command(user, Path::new("/"), &script);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        said.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(
        shout(USER, &address),
        "PermissionDenied",
        "the other app's user"
    );
    assert_eq!(
        shout(UNRELATED, &address),
        "PermissionDenied",
        "an unrelated user"
    );
    assert_eq!(shout(OTHER, &address), "sent", "its own");
    let listed = command(OTHER, Path::new("/"), &format!("ls $(dirname {address})"));
    assert!(!listed.status.success(), "the folder cannot be listed");
    // The flood continues. No more than 512 messages are read in 100 ms, and some wait in the socket.
    let line = run.logged(&["4096 messages took"]);
    let words: Vec<_> = line.split(' ').collect();
    let took: u32 = words[words.len() - 2].parse().expect("a number");
    assert!(took >= 500, "{line}");
    let message = run.reload();
    assert!(message.contains("generation 2"), "{message}");
    assert_ne!(run.ask("pid"), "");
    run.stop();
    assert!(
        !Path::new(&address).exists(),
        "sockets and folder are removed"
    );
    assert!(!Path::new(&address).parent().expect("a folder").exists());
}

#[test]
fn the_interpreter_is_a_script_of_the_application() {
    needs_root!();
    let folder = stage();
    let path = folder.path();
    let script = "#!/bin/sh\nid -u >> theirs/who; id -G >> theirs/who\necho /usr/bin/python3\n";
    write_script(path.join("theirs/python"), script);
    chown(path.join("theirs/python"), Some(USER), Some(USER)).expect("root may");
    let config = format!(
        "[app.web]\nwsgi = 'app:application'\npython = 'theirs/python'\nuser = '{USER}'\ngroup = '{USER}'\nlisten = ['unix:web.sock']\n"
    );
    std::fs::write(path.join("app.toml"), config).expect("room");
    let checked = common::preforkd()
        .arg("-t")
        .arg("-c")
        .arg(path.join("app.toml"))
        .output()
        .expect("preforkd runs");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    // The extension module may not be built.
    assert!(
        checked.status.success() || said.contains("extension module"),
        "{said}"
    );
    let who = std::fs::read_to_string(path.join("theirs/who")).expect("it was asked");
    assert_eq!(who, format!("{USER}\n{USER}\n"));
}

#[test]
fn links_of_root_are_still_followed() {
    needs_root!();
    let folder = stage();
    let path = folder.path();
    std::fs::create_dir(path.join("release")).expect("room");
    symlink("release", path.join("current")).expect("room");
    symlink("release/real.log", path.join("out")).expect("room");
    let config = app(path, "stdout = 'out'\nstderr = '/dev/null'")
        .replace("unix:web.sock", "unix:current/web.sock")
        + "[master]\npid_file = 'current/pid'\ncontrol = 'current/control'\n";
    let mut run = start(folder, &config);
    for name in ["web.sock", "pid", "control", "real.log"] {
        let made = run.path("release").join(name).symlink_metadata();
        assert_eq!(made.expect(name).uid(), 0);
    }
    run.stop();
}

#[test]
fn a_file_of_variables_is_a_link_to_a_secret_of_root() {
    needs_root!();
    let folder = stage();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "A=secret\n").expect("room");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("ours");
    std::fs::write(folder.path().join("theirs/.env"), "A=theirs\n").expect("room");
    let config = app(folder.path(), "env_file = ['secret', 'theirs/.env']");
    let mut run = start(folder, &config);
    // A file that root has put there is read as root; a later one overrides it.
    assert_eq!(run.ask("env A"), "theirs");
    attack(&run, "ln -sf ../secret theirs/.env");
    let message = run.reload();
    assert!(
        message.contains("theirs/.env: Permission denied"),
        "{message}"
    );
    assert_eq!(run.ask("env A"), "theirs");
    let secrets = app(run.folder.path(), "secrets = { A = 'file:theirs/.env' }");
    run.write("app.toml", &secrets);
    let message = run.reload();
    let reason = "secrets.A: cannot read";
    assert!(
        message.contains(reason) && message.contains("Permission denied"),
        "{message}"
    );
    run.write("app.toml", &config);
    attack(&run, "rm theirs/.env; mkfifo theirs/.env");
    let message = run.reload();
    assert!(
        message.contains("theirs/.env: it is not a regular file"),
        "{message}"
    );
    attack(&run, "rm theirs/.env; truncate -s 2G theirs/.env");
    let message = run.reload();
    assert!(
        message.contains("theirs/.env: it is larger than 1024 KiB"),
        "{message}"
    );
    run.stop();
}

#[test]
fn a_file_of_the_configuration_that_a_pattern_finds_is_of_the_application_s_user() {
    needs_root!();
    let folder = stage();
    let config = format!("include = '*/*.toml'\n{}", app(folder.path(), ""));
    let mut run = start(folder, &config);
    let root = "[app.root]\\ncommand = \"sleep 60\"";
    attack(&run, &format!("printf '{root}' > theirs/x.toml"));
    for attempt in ["true", "rm theirs/x.toml; ln -s ../app.toml theirs/x.toml"] {
        attack(&run, attempt);
        let message = run.reload();
        let reason = "theirs/x.toml: others than root can change it";
        assert!(message.contains(reason), "{message}");
    }
    assert_eq!(precious(run.folder.path()), untouched());
    run.stop();
}

#[test]
fn old_log_files_become_links_before_the_log_is_rotated() {
    needs_root!();
    let folder = stage();
    let rest = "stdout = 'theirs/out'\nlog_rotate = { size = '64B', keep = 2 }";
    let config = app(folder.path(), rest);
    let mut run = start(folder, &config);
    attack(
        &run,
        "ln -s ../precious theirs/out.1; ln precious theirs/out.2 || ln -s ../precious theirs/out.2",
    );
    for _ in 0..20 {
        assert_eq!(run.ask("say more"), "said");
    }
    run.stop();
    // The link was replaced by a full file.
    let old = run.path("theirs/out.1").symlink_metadata();
    assert!(old.is_ok_and(|old| old.is_file()));
    assert_eq!(precious(run.folder.path()), untouched());
}

#[test]
fn log_files_get_their_owner_also_where_others_may_create_files() {
    needs_root!();
    let folder = stage();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).expect("room");
    chown(&shared, Some(0), Some(OTHER)).expect("root may");
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o775)).expect("ours");
    let keys = format!("log_owner = '{USER}'\nlog_group = '{OTHER}'\nlog_mode = '0640'");
    let config = app(
        folder.path(),
        &format!("stdout = 'shared/out'\nstderr = 'error'\n{keys}"),
    );
    let mut run = start(folder, &config);
    // Also when they are opened again.
    assert!(run.reload().contains("generation 2"));
    for name in ["shared/out", "error"] {
        let found = std::fs::metadata(run.path(name)).expect("it is there");
        let found = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(found, (USER, OTHER, 0o640), "{name}");
    }
    run.stop();
    // In their folder, the log writer is their user.
    let folder = stage();
    let config = app(
        folder.path(),
        &format!("stdout = 'theirs/out'\nlog_owner = '{OTHER}'"),
    );
    refused(
        folder,
        &config,
        "cannot make uid 1 its owner: Operation not permitted",
    );
}

/// Starts a process of a user that shows this variable in its environment and has lost its parent.
fn orphan(user: u32, folder: &Path, variable: &str) -> nix::unistd::Pid {
    let script = format!("{variable} sleep 1000 > /dev/null 2>&1 & echo $!");
    let done = command(user, folder, &script);
    let pid = String::from_utf8_lossy(&done.stdout).trim().parse();
    nix::unistd::Pid::from_raw(pid.expect("a pid"))
}

#[test]
fn the_guard_of_a_root_master_ends_nothing_of_other_users_whatever_they_show() {
    needs_root!();
    let folder = stage();
    let config = app(folder.path(), "graceful_timeout = '200ms'");
    let mut run = start(folder, &config);
    run.event("started");
    let address = run.ask("env NOTIFY_SOCKET");
    let shown = [
        format!("NOTIFY_SOCKET='{address}'"),
        "PREFORKD_APP=web".into(),
    ];
    let start =
        |user| [0, 1].map(|variable: usize| orphan(user, run.folder.path(), &shown[variable]));
    let (theirs, others) = (start(USER), [start(OTHER), start(0)].concat());
    run.signal(Signal::SIGKILL);
    run.master.wait().expect("ours");
    run.logged(&["was killed or has crashed; ending"]);
    run.logged(&["nothing is left"]);
    let ends = |pid| nix::sys::signal::kill(pid, Signal::SIGKILL);
    for pid in others {
        ends(pid).expect("it was left alone");
    }
    // A lie harms the one who tells it. Whoever is its parent now may not have reaped it yet.
    for pid in theirs {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(stat.is_ok_and(|stat| stat.contains(") Z ")) || ends(pid).is_err());
    }
}
