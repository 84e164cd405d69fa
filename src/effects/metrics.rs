//! Starts the process that answers `/metrics`: `preforkd-front metrics`.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::metrics::orders::COMMAND;

use super::spawn::spawn;
use crate::launcher::progress::Launching;
use crate::plan::{Metrics, Rights};
use crate::sys::Process;

/// Starts it with these descriptors. It has no environment, and ends with the master.
///
/// # Errors
/// The process cannot be created.
pub fn start(wanted: &Metrics, fds: Vec<BorrowedFd>) -> io::Result<(Pid, Launching)> {
    let user = wanted.user.as_ref();
    spawn(Process {
        program: CString::new(wanted.program.as_os_str().as_bytes())?,
        args: vec![c"preforkd-front".to_owned(), CString::new(COMMAND)?],
        env: Vec::new(),
        chdir: c"/".to_owned(),
        release: None,
        user: user.map(|user| (user.uid, user.gid, &user.groups[..])),
        rights: Rights::default(),
        umask: None,
        on_parent_death: Some(Signal::SIGTERM),
        ignores_orders: true,
        stdin: None,
        stdout: None,
        stderr: None,
        fds,
    })
}
