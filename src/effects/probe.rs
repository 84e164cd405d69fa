//! Starts a probe ([`crate::probe`]): a process that requests a page from a worker.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;

use nix::unistd::Pid;

use super::launch;
use crate::plan::{Ask, Check};

/// Starts a probe that connects to the worker over `listener` and reports a failure on `stderr`.
///
/// # Errors
/// The process cannot be created.
pub fn start(check: &Check, listener: BorrowedFd, stderr: BorrowedFd) -> io::Result<Pid> {
    let arguments = arguments(check, check.attempts);
    launch::own(arguments, Some(stderr), vec![listener])
}

/// Starts a probe that asks at an address: an IP address with a port, or `unix:` with a path.
///
/// # Errors
/// The process cannot be created.
pub fn start_at(
    check: &Check,
    attempts: u32,
    address: &OsStr,
    stderr: BorrowedFd,
) -> io::Result<Pid> {
    let mut place = OsString::from("--address=");
    place.push(address);
    let arguments = arguments(check, attempts).into_iter().chain([place]);
    launch::own(arguments, Some(stderr), Vec::new())
}

fn arguments(check: &Check, attempts: u32) -> Vec<OsString> {
    let number = |name: &str, number: u128| format!("--{name}={number}").into();
    let mut all: Vec<OsString> = vec![
        "probe".into(),
        number("timeout", check.timeout.as_millis()),
        number("attempts", attempts.into()),
    ];
    if let Ask::Page { path, host, expect } = &check.ask {
        all.push(format!("--path={path}").into());
        all.push(format!("--host={host}").into());
        all.push(number("expect", (*expect).into()));
    }
    all
}
