//! Other init systems than systemd: the descriptor of `--ready-fd`, and the samples in conf/.

mod common;

use std::io::Read;
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
