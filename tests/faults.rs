//! System calls of the master fail, one at a time: for every n the n-th fork, pipe, accept and so on. Either the master cannot
//! start and reports why, or it goes on: it replaces a killed worker, reloads, and stops in order.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{Run, app};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

/// The library that makes calls fail, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/faults.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(&library)
            .arg(&source);
        let done = compiler
            .args(["-ldl"])
            .status()
            .expect("there is a C compiler");
        assert!(done.success(), "{} cannot be compiled", source.display());
        library
    })
}

/// The result of a run in which a call failed.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The run makes fewer such calls.
    NotReached,
    /// The master could not start, and reported it.
    NotStarted,
    /// The master did everything it should.
    Survived,
}

fn live_through(function: &str, n: u32, errno: Errno) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("failed");
    // Left behind by a dead master.
    std::fs::write(folder.path().join("pid"), "4194305\n").expect("room");
    let fault = format!("{function}:{n}:{}:{}", errno as i32, mark.display());
    let config = app("workers = 2") + "[master]\ncontrol = 'control.sock'\npid_file = 'pid'\n";
    let mut run = Run::begin_in(folder, &config, |command| {
        command.env("LD_PRELOAD", library()).env("FAULT", &fault);
    });
    if !run.starts() {
        let (status, log) = run.ended();
        assert!(matches!(status, Some(1 | 2)), "{fault}: {log}");
        assert!(log.contains("cannot"), "{fault}: {log}");
        run.all_ended();
        return Outcome::NotStarted;
    }
    let first = run.event("started").pid;
    run.event("started");
    kill(first, Signal::SIGKILL).expect("it lives");
    run.event("started");
    let mut preforkd = common::preforkd();
    let status = preforkd
        .arg("status")
        .arg("-c")
        .arg(run.path("app.toml"))
        .output();
    let _ = status.expect("it runs: whether it is answered is not the question");
    let message = run.reload();
    let good =
        message.contains("generation 2: web 2/2 ready") || message.contains("keeping generation 1");
    assert!(good, "{fault}: {message}");
    assert_ne!(run.ask("pid"), "", "{fault}");
    let reached = mark.exists();
    run.stop();
    run.all_ended();
    match reached || mark.exists() {
        true => Outcome::Survived,
        false => Outcome::NotReached,
    }
}

fn each_call(function: &str, errno: Errno) {
    let mut n = 1;
    while live_through(function, n, errno) != Outcome::NotReached {
        n += 1;
    }
    assert!(n > 1, "no {function} was reached");
}

/// One test per function, so that they run in parallel.
macro_rules! each_call {
    ($($function:ident: $errno:ident),* $(,)?) => {
        $(
            #[test]
            fn $function() {
                each_call(stringify!($function), Errno::$errno);
            }
        )*
    };
}

each_call! {
    posix_spawn: EAGAIN,
    memfd_create: EMFILE,
    pipe2: EMFILE,
    accept4: EMFILE,
    epoll_ctl: ENOMEM,
    epoll_wait: EINTR,
    send: ENOBUFS,
    recvmsg: ENOMEM,
    recv: ENOMEM,
    read: EIO,
    write: ENOBUFS,
    pread64: EIO,
    pwrite64: ENOSPC,
    waitid: EINTR,
    waitpid: EINTR,
    poll: EINTR,
    open64: EMFILE,
    openat: EMFILE,
    bind: ENOSPC,
    linkat: ENOSPC,
    renameat: ENOSPC,
    listen: EADDRINUSE,
    socketpair: EMFILE,
    timerfd_create: EMFILE,
    timerfd_settime: EINVAL,
}

/// The clock is set in the moment before the n-th time that the timer of the schedules is.
#[test]
fn a_clock_that_is_set_just_before_the_timer_loses_no_run() {
    let script = "echo 0 1 $$$$ ran";
    let config =
        format!("[app.tick]\ncommand = ['/bin/sh', '-c', '{script}']\nschedule = '* * * * * *'\n");
    for n in 1..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = folder.path().join("failed");
        let errno = Errno::ECANCELED as i32;
        let fault = format!("timerfd_settime:{n}:{errno}:{}", mark.display());
        let mut run = Run::begin_in(folder, &config, |command| {
            command.env("LD_PRELOAD", library()).env("FAULT", &fault);
        });
        for _ in 0..3 {
            run.event("ran");
        }
        assert!(mark.exists(), "the timer is set {n} times");
        run.stop();
    }
}
