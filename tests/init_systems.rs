//! Other init systems than systemd: the descriptor of `--ready-fd`, and the samples in conf/.

mod common;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Run, app};
use nix::sys::signal::Signal;

/// A `preforkd` that the shell starts with these redirections.
fn redirected(redirections: &str, arguments: &str) -> impl FnOnce(&mut Command) + use<> {
    let line = format!("exec \"$0\" \"$@\" {arguments} {redirections}");
    move |command| common::through_shell(command, &line)
}

#[test]
fn a_descriptor_hears_of_the_first_generation_only_and_no_child_has_it() {
    let config = app("workers = 2");
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("room");
    let to_fifo = redirected(&format!("3> {}", fifo.display()), "--ready-fd 3");
    let mut run = Run::begin_in(folder, &config, to_fifo);
    let mut fifo = std::fs::File::open(fifo).expect("it opens with the writer");
    let mut read = String::new();
    // The master and its workers live on: the text ends only when none of them has the descriptor.
    fifo.read_to_string(&mut read).expect("a text");
    assert_eq!(read, "\n");
    assert!(run.message("READY=1").contains("web 2/2 ready"));
    run.signal(Signal::SIGHUP);
    assert!(run.message("READY=1").contains("generation 2"));
    run.stop();
}

#[test]
fn a_descriptor_that_cannot_be_used_is_an_error_of_usage() {
    for (redirections, arguments, why) in [
        (
            "",
            "--ready-fd 9",
            "--ready-fd: descriptor 9 is not open (let the init system pass it: for s6, write 9 into",
        ),
        (
            "",
            "--ready-fd 1",
            "--ready-fd: descriptor 1 was not passed: it is a standard stream (use 3 or a higher number)",
        ),
        (
            "5< /dev/null",
            "--ready-fd 5",
            "--ready-fd: descriptor 5 is not open for writing",
        ),
        (
            "5> /dev/null",
            "--ready-fd 5 status",
            "--ready-fd is for the master",
        ),
        ("", "--ready-fd three", "invalid value 'three'"),
    ] {
        let mut run = Run::begin_with(&app(""), redirected(redirections, arguments));
        let (status, log) = run.ended();
        assert_eq!(status, Some(2), "{arguments}: {log}");
        assert!(log.contains(why), "{arguments}: {log}");
    }
    // Nothing is announced by a check of the configuration.
    let mut run = Run::begin_with(&app(""), redirected("", "--ready-fd 9 -t"));
    assert_eq!(run.ended().0, Some(0));
}

/// The files of the samples, by their paths below conf/.
const SAMPLES: [&str; 7] = [
    "s6/run",
    "s6/finish",
    "s6/notification-fd",
    "s6/timeout-kill",
    "runit/run",
    "runit/check",
    "openrc/preforkd",
];

fn sample(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("conf")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("it is there");
    (path, text)
}

#[test]
fn the_scripts_among_the_samples_are_executable_and_are_valid_shell() {
    let mut scripts = 0;
    for name in SAMPLES {
        let (path, text) = sample(name);
        if !text.starts_with("#!") {
            let number: u32 = text.trim().parse().expect("a number");
            assert!(number > 0, "{name}");
            continue;
        }
        let mode = std::fs::metadata(&path).expect("it is there");
        assert_ne!(mode.permissions().mode() & 0o100, 0, "{name}");
        let checked = Command::new("/bin/sh").arg("-n").arg(&path).output();
        let checked = checked.expect("a shell");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success() && said.is_empty(), "{said}");
        scripts += 1;
    }
    assert_eq!(scripts, 5);
}

/// Runs a sample with this build and this configuration in place of the installed ones.
fn run_sample(run: &Run, name: &str, after: &str) -> std::process::Output {
    let here = run.path("app.toml").display().to_string();
    let (_, text) = sample(name);
    let script = text
        .replace("/usr/local/bin/preforkd", env!("CARGO_BIN_EXE_preforkd"))
        .replace("/etc/preforkd/app.toml", &here);
    assert_ne!(script, text, "{name}");
    run.write("script", &(script + after));
    let mut shell = Command::new("/bin/sh");
    let output = shell.arg(run.path("script")).env_remove("NOTIFY_SOCKET");
    output.output().expect("a shell")
}

#[test]
fn the_check_for_runit_tells_whether_everything_is_ready() {
    let config = "[master]\ncontrol = 'control.sock'\n".to_owned() + &app("");
    let mut run = Run::start(&config);
    let ready = run_sample(&run, "runit/check", "");
    assert_eq!((ready.status.code(), &*ready.stdout), (Some(0), &b""[..]));
    run.signal(Signal::SIGWINCH);
    run.status("web 0/1");
    let paused = run_sample(&run, "runit/check", "");
    assert_eq!(paused.status.code(), Some(4));
    run.stop();
    let stopped = run_sample(&run, "runit/check", "");
    assert_eq!(stopped.status.code(), Some(1));
}

#[test]
fn the_reload_for_openrc_fails_if_it_was_refused() {
    let config = "[master]\ncontrol = 'control.sock'\n".to_owned() + &app("");
    let mut run = Run::start(&config);
    let functions = "\nebegin() { :; }\neend() { return \"$1\"; }\ncheckpath() { :; }\n";
    let reload = run_sample(&run, "openrc/preforkd", &format!("{functions}reload"));
    assert_eq!(reload.status.code(), Some(0));
    run.write("app.toml", &config.replace("listen", "lissen"));
    let refused = run_sample(&run, "openrc/preforkd", &format!("{functions}reload"));
    assert_eq!(refused.status.code(), Some(1));
    let start = run_sample(&run, "openrc/preforkd", &format!("{functions}start_pre"));
    assert_eq!(start.status.code(), Some(2));
    run.stop();
}
