//! Starting a probe ([`crate::probe`]): a process that asks a worker for a page.

use std::io;
use std::os::fd::BorrowedFd;

use nix::unistd::Pid;

use super::launch;
use crate::plan::Check;

/// Starts one that reaches the worker over `listener` and says what is wrong on `stderr`.
///
/// # Errors
/// No process could be made.
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
