//! The control socket and the commands that use it.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use common::{Run, app, preforkd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use preforkd::sys::ORDERS_TO_THE_MASTER;

fn config(rest: &str) -> String {
    "[master]\ncontrol = 'control.sock'\n".to_owned() + &app(rest)
}

/// Runs a command against the master; returns its status, output and error output.
fn command(run: &Run, words: &[&str]) -> (Option<i32>, String, String) {
    let file = run.path("app.toml").display().to_string();
    output(&[words, &["-c", &file]].concat())
}

/// Runs the program with these arguments.
fn output(words: &[&str]) -> (Option<i32>, String, String) {
    let output = preforkd().args(words).output().expect("preforkd runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn what_is_meant_for_the_master_does_not_end_the_command_of_a_unit() {
    let mut run = Run::start(&config("[app.web.reload]\nbefore = ['cat', 'gate']"));
    nix::unistd::mkfifo(&run.path("gate"), nix::sys::stat::Mode::S_IRWXU).expect("room");
    // A session without a terminal, as with an init system.
    let mut client = std::process::Command::new("setsid");
    client.arg(preforkd().get_program()).arg("reload").arg("-c");
    client.arg(run.path("app.toml")).stdout(Stdio::piped());
    let client = client.spawn().expect("util-linux is there");
    let pid = Pid::from_raw(client.id() as i32);
    run.message("RELOADING=1");
    for order in ORDERS_TO_THE_MASTER {
        kill(pid, order).expect("it waits");
    }
    std::fs::write(run.path("gate"), "").expect("`before` reads it");
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("generation 2: web 1/1 ready"), "{said}");
    run.stop();
}

#[test]
fn a_command_says_that_the_master_was_killed_before_it_answered() {
    let mut run = Run::start(&config("[app.web.reload]\nbefore = ['cat', 'gate']"));
    nix::unistd::mkfifo(&run.path("gate"), nix::sys::stat::Mode::S_IRWXU).expect("room");
    let mut client = preforkd();
    client.arg("reload").arg("-c").arg(run.path("app.toml"));
    let client = client.stderr(Stdio::piped()).spawn().expect("it starts");
    run.message("RELOADING=1");
    run.logged(&["before pid=", "running"]);
    run.signal(Signal::SIGKILL);
    let output = client.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = format!(
        "the master, pid {}, has ended before it answered",
        run.pid()
    );
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn reload_waits_for_the_end_and_prints_the_result() {
    let mut run = Run::start(&config("workers = 2"));
    let (status, said, _) = command(&run, &["reload"]);
    assert_eq!(status, Some(0));
    assert!(said.starts_with("generation 2: web 2/2 ready"), "{said}");
    run.write("behaviour", "exit 7");
    let (status, _, error) = command(&run, &["reload"]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains("app=web: its first worker exited with status 7"),
        "{error}"
    );
    assert!(error.contains("keeping generation 2"), "{error}");
    run.write("app.toml", &config("wrokers = 2"));
    let (status, _, error) = command(&run, &["reload"]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains("app.toml:6:1: unknown key `wrokers`"),
        "{error}"
    );
    run.stop();
}

#[test]
fn reloads_at_the_same_time_all_get_an_answer() {
    let mut run = Run::start(&config(""));
    let file = run.path("app.toml");
    let reload = || {
        preforkd()
            .arg("reload")
            .arg("-c")
            .arg(&file)
            .spawn()
            .expect("preforkd runs")
    };
    let all: Vec<_> = (0..6).map(|_| reload()).collect();
    for mut one in all {
        assert!(one.wait().expect("it is ours").success());
    }
    run.stop();
}

#[test]
fn status_shows_every_worker_as_a_table_and_as_json() {
    let mut run = Run::start(&config("workers = 2"));
    let first = run.event("started");
    let (status, table, _) = command(&run, &["status"]);
    assert_eq!(status, Some(0));
    assert!(
        table.contains("ready, generation 1\n") && table.contains("web: 2/2 ready"),
        "{table}"
    );
    assert!(
        table
            .lines()
            .any(|line| line.contains(&first.pid.to_string()) && line.ends_with("ready")),
        "{table}"
    );
    let (_, json, _) = command(&run, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["apps"][0]["workers"][0]["pid"], first.pid.as_raw());
    assert_eq!(json["apps"][0]["wanted"], 2);
    assert_eq!(
        (&json["is_ready"], &json["phase"]),
        (&true.into(), &"ready".into())
    );
    assert_eq!(json["apps"][0]["generation"], 1);
    assert_eq!(json["apps"][0]["queue"], 0);
    assert_eq!(json["apps"][0]["ends"]["killed"], 0);
    assert!(json["apps"][0]["workers"][0]["cpu"].is_number(), "{json}");
    kill(first.pid, Signal::SIGKILL).expect("it runs");
    run.event("started");
    run.event("started");
    let (_, json, _) = command(&run, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["apps"][0]["ends"]["killed"], 1);
    run.stop();
}

#[test]
fn events_are_kept_over_reloads_with_their_causes_and_can_be_followed() {
    let mut run = Run::start(&config(""));
    let first = run.event("started");
    kill(first.pid, Signal::SIGKILL).expect("it runs");
    run.logged(&["killed by SIGKILL, not by preforkd"]);
    run.reload();
    let (status, text, _) = command(&run, &["events"]);
    assert_eq!(status, Some(0));
    let pid = format!(
        "app=web worker=0 gen=1 pid={}: killed by SIGKILL, not by preforkd",
        first.pid
    );
    assert!(
        text.contains(&pid) && text.contains("generation 2 is ready"),
        "{text}"
    );
    let mut client = preforkd();
    client.args(["events", "--follow", "--json", "-c"]);
    client.arg(run.path("app.toml")).stdout(Stdio::piped());
    let mut client = client.spawn().expect("it starts");
    let output = client.stdout.take().expect("a pipe");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let mut events = lines.map(|line| {
        let line = line.expect("it is read");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")
    });
    let mut until = |text: &str| {
        let is_it =
            |event: &serde_json::Value| event["text"].as_str().is_some_and(|it| it.contains(text));
        events.find(is_it).expect("it happens")
    };
    let death = until("killed by SIGKILL");
    assert_eq!(
        (&death["app"], &death["worker"]),
        (&"web".into(), &0.into())
    );
    assert_eq!(death["pid"], first.pid.as_raw());
    until("generation 2 is ready");
    run.reload();
    let third = until("generation 3 is ready");
    assert!(third["number"].as_u64() > death["number"].as_u64());
    run.stop();
    let last = events.last().expect("the stop");
    assert_eq!(last["text"], "stopped");
    assert_eq!(
        client.wait().expect("it is ours").code(),
        Some(1),
        "there is no master"
    );
}

#[test]
fn status_shows_that_an_app_is_paused() {
    let mut run = Run::start(&config(""));
    run.signal(Signal::SIGWINCH);
    run.status("web 0/1 ready");
    let (status, table, _) = command(&run, &["status"]);
    assert_eq!(status, Some(4), "not everything is ready");
    assert!(
        table.contains("web: 0/1 ready, paused until the next reload"),
        "{table}"
    );
    let (status, json, _) = command(&run, &["status", "--json"]);
    assert_eq!(status, Some(4), "{json}");
    run.reload();
    assert_eq!(command(&run, &["status"]).0, Some(0));
    run.stop();
}

#[test]
fn status_shows_why_the_last_reload_failed() {
    let mut run = Run::start(&config(""));
    run.write("behaviour", "exit 7");
    run.reload();
    let (_, table, _) = command(&run, &["status"]);
    assert!(
        table.contains("reload failed: app=web: its first worker exited with status 7"),
        "{table}"
    );
    // The init system's status shows it too.
    run.signal(Signal::SIGTTIN);
    run.stop();
}

#[test]
fn scale_does_not_wait_for_workers_that_keep_failing() {
    let run = Run::start(&config(""));
    run.write("behaviour", "exit 5");
    let (status, _, error) = command(&run, &["scale", "web=3"]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains("web 1/3 ready: its workers fail, see the log"),
        "{error}"
    );
}

#[test]
fn scale_names_the_app_and_what_is_wrong() {
    let mut run = Run::start(&config(""));
    for (what, ready) in [("web=3", "3/3"), ("web=+1", "4/4"), ("web=-2", "2/2")] {
        let (status, answer, _) = command(&run, &["scale", what]);
        assert_eq!(
            (status, answer.trim()),
            (Some(0), format!("web {ready} ready").as_str())
        );
    }
    for (what, expected, why) in [
        ("web", 2, "the number of workers is missing (such as web=4"),
        ("web=", 2, "the number of workers is missing (such as web=4"),
        ("=4", 2, "the name of the app is missing (such as web=4"),
        ("web=x", 2, "\"x\" is not a number"),
        ("a b=2", 2, "not the name of an app"),
        ("api=2", 1, "there is no app \"api\" (configured: web)"),
        ("web=0", 1, "must be between 1 and 10000"),
    ] {
        let (status, _, error) = command(&run, &["scale", what]);
        assert_eq!(status, Some(expected), "{error}");
        assert!(error.contains(why), "{error}");
    }
    run.stop();
}

#[test]
fn stop_waits_until_everything_has_ended() {
    let mut run = Run::start(&config("workers = 2"));
    assert_eq!(
        command(&run, &["stop"]),
        (Some(0), "stopped\n".into(), String::new())
    );
    let ended = run.master.try_wait().expect("it is our child");
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    assert!(!run.path("control.sock").exists());
    let (status, _, error) = command(&run, &["status"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("cannot reach a master at"), "{error}");
}

#[test]
fn a_control_socket_that_another_process_has_is_made_when_that_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = UnixListener::bind(folder.path().join("control.sock")).expect("a socket");
    let mut run = Run::begin_in(folder, &config(""), |_| {});
    run.logged(&["no control socket at", "is listening there"]);
    run.message("READY=1");
    // As if it was killed: the file stays.
    drop(other);
    run.logged(&["the control socket is now", "control.sock"]);
    let (status, _, error) = command(&run, &["status"]);
    assert_eq!(status, Some(0), "{error}");
    run.stop();
}

#[test]
fn only_its_user_can_connect_and_the_master_runs_without_it() {
    let mut run = Run::start(&config(""));
    let mode = run
        .path("control.sock")
        .metadata()
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    run.stop();

    let mut run = Run::start(&config("").replace("control.sock", "no/such/folder/control.sock"));
    run.logged(&["WARN", "no control socket at"]);
    run.stop();

    let long = format!("{}.sock", "x".repeat(103));
    let mut run = Run::start(&config("").replace("control.sock", &long));
    run.logged(&[
        "no control socket at",
        "the path is too long for a socket (107 bytes at most; choose a shorter path)",
        "status, metrics, reload, scale, stop and reopen will not work",
    ]);
    run.stop();
}

#[test]
fn a_master_that_nobody_told_where_has_a_control_socket_all_the_same() {
    let mut run = Run::start(&app(""));
    let (status, said, error) = command(&run, &["status"]);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("web: 1/1 ready"), "{said}");
    let reloaded = command(&run, &["reload"]);
    assert_eq!(reloaded.0, Some(0), "{reloaded:?}");

    if nix::unistd::geteuid().is_root() {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(run.folder.path(), open).expect("ours");
        let status_as_other = || {
            let mut command = preforkd();
            command.args(["status", "-c"]).arg(run.path("app.toml"));
            let command = command.uid(61_235).gid(61_235);
            let output = command.env_remove("XDG_RUNTIME_DIR").output();
            output.expect("preforkd runs")
        };
        let of_other = status_as_other();
        let error = String::from_utf8_lossy(&of_other.stderr);
        assert_eq!(of_other.status.code(), Some(1), "{error}");
        assert!(
            error.contains("belongs to the user with the number 0 (run this as that user"),
            "{error}"
        );
        // The file says another place by now, and the master does not know.
        let edited = format!("[master]\ncontrol = 'other.sock'\n{}", app(""));
        run.write("app.toml", &edited);
        let of_other = status_as_other();
        let error = String::from_utf8_lossy(&of_other.stderr);
        for part in [
            "other.sock: No such file",
            "belongs to the user with the number 0 (run this as that user",
        ] {
            assert!(error.contains(part), "{error}");
        }
        run.write("app.toml", &app(""));
    }
    run.stop();
    let (status, _, error) = command(&run, &["status"]);
    assert_eq!(status, Some(1));
    let nobody = format!("no master runs with {}", run.path("app.toml").display());
    assert!(error.contains(&nobody), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let mut in_empty = preforkd();
    let output = in_empty.arg("status").current_dir(&folder).output();
    let error = output.expect("preforkd runs").stderr;
    let error = String::from_utf8_lossy(&error);
    let folder = folder.path().canonicalize().expect("it is there");
    let nobody = "no master runs with an application named on the command line in";
    let nobody = format!("{nobody} {} (start it", folder.display());
    assert!(error.contains(&nobody), "{error}");
}

#[test]
fn a_second_master_of_a_configuration_says_that_there_is_another_one() {
    let mut run = Run::begin(ASLEEP);
    run.message("READY=1");
    let mut second = preforkd()
        .arg("-c")
        .arg(run.path("app.toml"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("preforkd runs");
    let said = BufReader::new(second.stderr.take().expect("a pipe"));
    let mut lines = said.lines().map(|line| line.expect("text"));
    let warning = lines.find(|line| line.contains("WARN"));
    let warning = warning.expect("it warns");
    let pid = format!("process {} (preforkd) is listening there", run.pid());
    for part in [&pid, "another master may run with this configuration"] {
        assert!(warning.contains(part), "{warning}");
    }
    let second_pid = i32::try_from(second.id()).expect("a pid");
    kill(Pid::from_raw(second_pid), Signal::SIGTERM).expect("it runs");
    let _ = lines.last();
    assert!(second.wait().expect("it ends").success());
    run.stop();
}

#[test]
fn a_master_without_a_control_socket_is_told_from_none() {
    let mut run = Run::start(&config("").replace("control.sock", "no/such/folder/control.sock"));
    run.logged(&["WARN", "no control socket at"]);
    let (file, config) = (run.path("master-without.toml"), run.path("app.toml"));
    std::fs::rename(&config, &file).expect("ours");
    run.write("app.toml", &app(""));
    let (status, _, error) = command(&run, &["status"]);
    assert_eq!(status, Some(1));
    let pid = format!("the one with pid {}, which may do so, has none", run.pid());
    assert!(
        error.contains("no master that has a control socket runs with") && error.contains(&pid),
        "{error}"
    );
    run.stop();
}

/// A program that everybody may execute.
const ASLEEP: &str = "[app.web]\ncommand = ['sleep', 'infinity']\nready = '1ms'\n";

fn folder_of(user: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).expect("root may");
    folder
}

/// A master that runs as this user.
fn begin_as(user: u32, folder: tempfile::TempDir, config: &str) -> Run {
    Run::begin_in(folder, config, |command| {
        command.uid(user).gid(user).env_remove("XDG_RUNTIME_DIR");
    })
}

/// Only root has a folder that others look into.
#[test]
fn a_member_of_control_group_finds_the_socket_of_root_where_nothing_says_its_place() {
    const USER: u32 = 61_238;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("ours");
    let config = format!("[master]\ncontrol_group = '{USER}'\n{ASLEEP}");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let status_of = |group: u32| {
        let mut command = preforkd();
        command.args(["status", "-c"]).arg(run.path("app.toml"));
        let output = command.uid(USER).gid(group).output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(status_of(USER), (Some(0), String::new()));
    assert_eq!(status_of(USER + 1).0, Some(1));
    run.stop();
}

/// Only root can run a master as another user.
#[test]
fn a_master_of_another_user_is_named_and_not_asked() {
    const USER: u32 = 61_236;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("ours");
    let mut run = begin_as(USER, folder, ASLEEP);
    run.logged(&["generation 1 is ready"]);
    let own = std::path::PathBuf::from(format!("/tmp/preforkd-{USER}"));
    let mut inside = std::fs::read_dir(&own).expect("it is made");
    let socket = inside.next().expect("a socket").expect("ours").path();
    for word in ["status", "reload", "stop"] {
        let (status, said, error) = command(&run, &[word]);
        assert_eq!((status, said.as_str()), (Some(1), ""), "{error}");
        let named = format!(
            "the one with pid {}, which may do so, belongs to the user with the number {USER} (run this as that user; if you trust that user, --socket {} reaches it)",
            run.pid(),
            socket.display()
        );
        assert!(error.contains(&named), "{error}");
    }
    let path = socket.display().to_string();
    let (status, said, error) = output(&["status", "--socket", &path]);
    assert_eq!(status, Some(0), "{said}{error}");
    let log = run.stop();
    assert!(!log.contains("generation 2"), "{log}");
    std::fs::remove_dir(&own).expect("it is empty");
}

/// Only root can run a master as a user whose folder no other test uses.
#[test]
fn a_master_removes_the_control_sockets_of_killed_ones() {
    const USER: u32 = 61_238;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let own = std::path::PathBuf::from(format!("/tmp/preforkd-{USER}"));
    let sockets = || {
        let all = std::fs::read_dir(&own).expect("it is made");
        all.map(|entry| entry.expect("ours").path())
            .collect::<Vec<_>>()
    };
    let start = || {
        let mut run = begin_as(USER, folder_of(USER), ASLEEP);
        run.logged(&["generation 1 is ready"]);
        run
    };
    let mut live = start();
    let of_live = sockets();
    let mut dead = start();
    let of_dead = sockets().into_iter().find(|path| !of_live.contains(path));
    let of_dead = of_dead.expect("it has one too");
    dead.signal(Signal::SIGKILL);
    dead.ended();
    for path in [&of_live[0], &of_dead] {
        let hour = nix::sys::time::TimeSpec::new(3600, 0);
        let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &hour, &hour, flags).expect("ours");
    }
    let mut third = start();
    assert!(!of_dead.exists());
    assert_eq!(sockets().len(), 2);
    let (status, _, error) = output(&["status", "--socket", &of_live[0].display().to_string()]);
    assert_eq!(status, Some(0), "{error}");
    live.stop();
    third.stop();
    std::fs::remove_dir(&own).expect("it is empty");
}

/// Only root can run a master as a user whose folder no other test uses.
#[test]
fn the_folder_that_the_master_has_made_comes_back_with_its_socket() {
    const USER: u32 = 61_237;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut run = begin_as(USER, folder_of(USER), ASLEEP);
    run.logged(&["generation 1 is ready"]);
    let own = std::path::PathBuf::from(format!("/tmp/preforkd-{USER}"));
    std::fs::remove_dir_all(&own).expect("it is made");
    // The owner of the file is trusted, so root finds it too.
    std::os::unix::fs::chown(run.path("app.toml"), Some(USER), None).expect("root may");
    for user in [USER, 0] {
        let status = preforkd()
            .args(["status", "-c"])
            .arg(run.path("app.toml"))
            .uid(user)
            .gid(user)
            .env_remove("XDG_RUNTIME_DIR")
            .output()
            .expect("preforkd runs");
        let error = String::from_utf8_lossy(&status.stderr);
        assert_eq!(status.status.code(), Some(0), "{user}: {error}");
    }
    run.logged(&["was removed; made it again"]);
    let made = own.metadata().expect("it is there").permissions().mode();
    assert_eq!(made & 0o777, 0o700);

    // Another user is quicker.
    let other = own.with_extension("other");
    std::fs::create_dir(&other).expect("room");
    std::fs::remove_dir_all(&own).expect("it is there");
    std::fs::rename(&other, &own).expect("it is free for a moment");
    run.logged(&[
        "was removed and cannot be made again: its folder cannot be used: it belongs to another user",
    ]);
    assert_eq!(std::fs::read_dir(&own).expect("ours").count(), 0);
    std::fs::remove_dir(&own).expect("it is empty");
    run.logged(&["the control socket", "was removed; made it again"]);
    run.stop();
    std::fs::remove_dir(&own).expect("it is empty");
}

/// Only root can run a master as a user for whom there is no folder.
#[test]
fn where_no_folder_can_be_used_one_line_says_so_and_nothing_is_wrong() {
    const USER: u32 = 61_234;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let taken = std::path::PathBuf::from(format!("/tmp/preforkd-{USER}"));
    std::fs::write(&taken, "").expect("room");
    let mut run = begin_as(USER, folder_of(USER), &app(""));
    run.logged(&[
        "INFO",
        "no control socket, as no folder for it can be used",
        "it is no folder",
    ]);
    run.logged(&["generation 1 is ready"]);
    run.signal(Signal::SIGTERM);
    let (status, log) = run.ended();
    std::fs::remove_file(&taken).expect("ours");
    assert_eq!(status, Some(0), "{log}");
    assert!(
        !log.contains("WARN") || log.contains("NOTIFY_SOCKET"),
        "{log}"
    );
}

#[test]
fn a_command_finds_the_socket_wherever_the_master_has_put_it() {
    let mut run = Run::start(&("[master]\npid_file = 'x.pid'\n".to_owned() + &app("")));
    // An edit that the master does not know yet, and one with an error.
    for edited in [
        "[master]\npid_file = 'y.pid'\n",
        "[master]\ncontrol = 'y'\n",
        "",
        "[nonsense",
    ] {
        run.write("app.toml", &(edited.to_owned() + &app("")));
        let (status, said, error) = command(&run, &["status"]);
        assert_eq!((status, error.as_str()), (Some(0), ""), "{edited}: {said}");
    }
    std::fs::remove_file(run.path("app.toml")).expect("ours");
    assert_eq!(command(&run, &["status"]).0, Some(0), "the file is gone");
    let socket = run.path("x.sock").display().to_string();
    let (status, said, _) = output(&["status", "--socket", &socket]);
    assert_eq!(status, Some(0), "{said}");
    run.stop();

    let mut run = Run::begin_with(&app(""), |command| {
        let folder = command.get_args().nth(1).expect("-c FILE").to_owned();
        let folder = std::path::PathBuf::from(folder).with_file_name("service");
        std::fs::create_dir(&folder).expect("room");
        command.env("RUNTIME_DIRECTORY", folder);
    });
    run.message("READY=1");
    assert!(run.path("service/preforkd.sock").exists());
    assert_eq!(command(&run, &["status"]).0, Some(0));
    // Another configuration has no master, whatever runs here.
    run.write("other.toml", &app(""));
    let other = run.path("other.toml").display().to_string();
    let (status, _, error) = output(&["stop", "-c", &other]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains(&format!("no master runs with {other}")),
        "{error}"
    );
    let runs = run.path("app.toml").display().to_string();
    let said = format!("a master runs with {runs}");
    assert!(error.contains(&said), "{error}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = elsewhere.path().join("app.toml");
    std::fs::write(&other, app("")).expect("room");
    let other = other.display().to_string();
    let (status, _, error) = output(&["stop", "-c", &other]);
    assert_eq!(status, Some(1));
    assert!(!error.contains("a master runs with"), "{error}");
    let service = run.path("service");
    std::fs::remove_dir_all(&service).expect("ours");
    let (status, _, error) = command(&run, &["reload"]);
    assert_eq!(status, Some(1));
    let said = format!(
        "of the master with pid {} was removed and does not come back (create {})",
        run.pid(),
        service.display()
    );
    assert!(error.contains(&said), "{error}");
    run.stop();
}

#[test]
fn a_socket_whose_folder_was_removed_is_named_once() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("run")).expect("room");
    let config = "[master]\ncontrol = 'run/control'\n".to_owned() + &app("");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    std::fs::remove_dir_all(run.path("run")).expect("ours");
    let (status, _, error) = command(&run, &["status"]);
    assert_eq!(status, Some(1));
    let said = format!(
        "was removed and does not come back (create {})",
        run.path("run").display()
    );
    assert_eq!(error.matches(&said).count(), 1, "{error}");
    run.stop();
}

#[test]
fn what_is_no_control_socket_is_named_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("room");
    let datagrams = folder.path().join("datagrams");
    let _bound = std::os::unix::net::UnixDatagram::bind(&datagrams).expect("room");
    for path in [file, datagrams] {
        let path = path.display().to_string();
        let (status, _, error) = output(&["status", "--socket", &path]);
        assert_eq!(status, Some(1));
        assert!(
            error.contains("(it is no control socket of preforkd)"),
            "{error}"
        );
    }
    let other = folder.path().join("other");
    let listener = std::os::unix::net::UnixListener::bind(&other).expect("room");
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 7];
        stream.read_exact(&mut request).expect("a request");
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("room");
    });
    let (status, _, error) = output(&["status", "--socket", &other.display().to_string()]);
    answers.join().expect("it has answered");
    assert_eq!(status, Some(1));
    assert!(
        error.contains("or no control socket of preforkd"),
        "{error}"
    );
}

#[test]
fn a_control_socket_that_was_removed_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("run");
    std::fs::create_dir(&own).expect("room");
    let config = config("").replace("control.sock", "run/control.sock");
    let mut run = Run::begin_in(folder, &config, |_| {});
    run.message("READY=1");
    let socket = own.join("control.sock");
    let by_path = socket.display().to_string();
    let works = |run: &Run| {
        let (status, _, error) = command(run, &["status"]);
        assert_eq!(status, Some(0), "{error}");
    };
    for _ in 0..2 {
        std::fs::remove_file(&socket).expect("it is there again");
        works(&run);
    }
    std::fs::rename(&socket, own.join("moved")).expect("ours");
    let (status, _, error) = output(&["status", "--socket", &by_path]);
    assert_eq!(status, Some(0), "{error}");
    run.logged(&["run/control.sock was removed; made it again"]);

    // The whole folder.
    std::fs::remove_dir_all(&own).expect("ours");
    run.logged(&["run/control.sock was removed and cannot be made again: "]);
    std::fs::create_dir(&own).expect("room");
    works(&run);
    std::fs::rename(&own, run.path("moved")).expect("ours");
    run.logged(&["run/control.sock was removed and cannot be made again: "]);
    std::fs::create_dir(&own).expect("room");
    works(&run);

    // What somebody else has put there is not touched.
    std::fs::remove_file(&socket).expect("ours");
    let other = UnixListener::bind(&socket).expect("it is free for a moment");
    run.logged(&["run/control.sock was removed and cannot be made again: "]);
    drop(other);
    std::fs::remove_file(&socket).expect("it is still the other one");
    works(&run);
    run.stop();
    assert!(!socket.exists());
}

#[test]
fn a_command_whose_output_nobody_reads_ends_quietly_and_one_on_a_full_disk_says_so() {
    let mut run = Run::start(&config(""));
    let file = run.path("app.toml").display().to_string();
    for words in [&["status"][..], &["status", "--json"], &["reopen"], &["-t"]] {
        let with = |output: std::process::Stdio| {
            let mut command = preforkd();
            command.args(words).args(["-c", &file]).stdout(output);
            let done = command.stderr(std::process::Stdio::piped()).output();
            let done = done.expect("preforkd runs");
            (
                done.status.code(),
                String::from_utf8_lossy(&done.stderr).into_owned(),
            )
        };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(with(writer.into()), (Some(0), String::new()), "{words:?}");
        let full = std::fs::File::options().write(true).open("/dev/full");
        let (status, said) = with(full.expect("it is there").into());
        assert_eq!(status, Some(1), "{words:?}");
        assert!(
            said.contains("cannot write to standard output: No space"),
            "{said}"
        );
    }
    // Nor does it matter if standard error is full.
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("it is there")
    };
    let mut command = preforkd();
    command.arg("reload").stdout(full()).stderr(full());
    assert_eq!(command.status().expect("preforkd runs").code(), Some(2));
    run.stop();
}

#[test]
fn a_reload_makes_the_control_socket_again_moves_it_and_applies_its_rights() {
    let mut run = Run::start(&config(""));
    std::fs::remove_file(run.path("control.sock")).expect("ours");
    run.reload();
    assert_eq!(command(&run, &["status"]).0, Some(0));

    let moved = config("").replace("control.sock'", "other.sock'\ncontrol_mode = '0622'");
    let before = run.path("app.toml");
    run.write("app.toml", &moved);
    run.reload();
    assert!(!run.path("control.sock").exists());
    let mode = |run: &Run| {
        let found = run.path("other.sock").metadata().expect("it is there");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(&run), 0o622);
    assert_eq!(command(&run, &["status"]).0, Some(0));
    // The client that has asked for the reload gets its answer, although the socket moves.
    std::fs::write(before, config("")).expect("room");
    let mut client = UnixStream::connect(run.path("other.sock")).expect("it listens");
    client.write_all(b"reload\n").expect("it reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("ok\ngeneration 4"), "{answer}");
    assert!(!run.path("other.sock").exists());
    let metadata = run.path("control.sock").metadata();
    let mode = metadata.expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the default");
    run.stop();
}

#[test]
fn a_silent_client_and_an_invalid_request_have_no_effect() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let mut run = Run::start(&config(""));
    let silent: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(run.path("control.sock")).expect("it listens"))
        .collect();
    drop(silent);
    let mut client = UnixStream::connect(run.path("control.sock")).expect("it listens");
    client.write_all(b"dan").expect("it reads");
    client.write_all(b"ce\n").expect("it reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it answers");
    assert_eq!(answer, "error unknown request \"dance\"\n");
    let mut client = UnixStream::connect(run.path("control.sock")).expect("it listens");
    // A line that is too long is not a request. The master may close before all of it is written.
    let _ = client.write_all(&[b'x'; 100_000]);
    assert!(client.read_to_string(&mut answer).is_err() || answer.ends_with("dance\"\n"));
    assert_eq!(command(&run, &["status"]).0, Some(0));
    run.stop();
}

#[test]
fn clients_that_have_closed_their_connection_do_not_keep_others_out() {
    let mut run = Run::start(&config(""));
    // The reload waits for a worker that never becomes ready.
    run.write("behaviour", "mute");
    for _ in 0..40 {
        let mut client = UnixStream::connect(run.path("control.sock")).expect("it listens");
        client.write_all(b"reload\n").expect("it reads");
    }
    // A client that has only ended its request still reads the answer.
    let mut client = UnixStream::connect(run.path("control.sock")).expect("it listens");
    client.write_all(b"status\n").expect("it reads");
    client.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("ok\n"), "{answer}");
    run.stop();
}
