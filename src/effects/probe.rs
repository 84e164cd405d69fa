//! Starts a probe ([`crate::probe`]): a process that requests a page from a worker.

use std::io;
use std::os::fd::BorrowedFd;

use nix::unistd::Pid;

use super::launch;
use crate::plan::Check;

/// Starts a probe that connects to the worker over `listener` and reports a failure on `stderr`.
///
/// # Errors
/// The process cannot be created.
pub fn start(check: &Check, listener: BorrowedFd, stderr: BorrowedFd) -> io::Result<Pid> {
    let number = |name: &str, number: u128| format!("--{name}={number}").into();
    let arguments = [
        "probe".into(),
        format!("--path={}", check.path).into(),
        format!("--host={}", check.host).into(),
        number("expect", check.expect.into()),
        number("timeout", check.timeout.as_millis()),
        number("attempts", check.attempts.into()),
    ];
    launch::own(arguments, Some(stderr), vec![listener])
}
