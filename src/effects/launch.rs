//! Starting a process with what the worker contract promises it: preforkd-worker(7).

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::unistd::Pid;
use preforkd_worker::{contract, env};

use super::spawn::spawn;
use crate::plan::{self, Launch};
use crate::sys::Process;

/// What a process finds of its master.
pub struct Contract<'a> {
    /// Its app's name.
    pub app: &'a str,
    /// Its number; a template has none.
    pub slot: Option<u32>,
    /// The generation of its configuration.
    pub generation: u64,
    /// Its listeners with their names.
    pub sockets: Vec<(&'a str, BorrowedFd<'a>)>,
    /// Where it says that it is ready.
    pub notify_socket: &'a str,
    /// The scoreboard, and its record there; a template has none.
    pub scoreboard: Option<(BorrowedFd<'a>, Option<u32>)>,
    /// A template's socket to the master.
    pub template: Option<BorrowedFd<'a>>,
    /// A Python worker's listener for probes.
    pub check: Option<BorrowedFd<'a>>,
    /// Where what it says goes.
    pub output: Output<'a>,
}

impl<'a> Contract<'a> {
    /// Adds a listener for probes: known to a Python worker, else one more among the others, with this name.
    pub fn add_private(&mut self, private: Option<BorrowedFd<'a>>, is_known: bool) {
        if is_known {
            self.check = private;
        } else if let Some(private) = private {
            self.sockets.push((plan::CHECK_LISTENER, private));
        }
    }
}

/// Where what a process says goes.
#[derive(Default)]
pub struct Output<'a> {
    /// Standard output, unless the master's.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error, unless the master's.
    pub stderr: Option<BorrowedFd<'a>>,
    /// What a Python worker takes for standard error as soon as it is ready.
    pub stderr_later: Option<BorrowedFd<'a>>,
    /// Where a Python worker notes each request.
    pub access_log: Option<BorrowedFd<'a>>,
}

/// Variables that the init system means for the service's main process alone: systemd.exec(5), sd_listen_fds(3), sd_notify(3),
/// sd_watchdog_enabled(3). Whatever describes the service as a whole (`INVOCATION_ID`, `JOURNAL_STREAM`, `CREDENTIALS_DIRECTORY`,
/// `STATE_DIRECTORY` and the like) is of use to an application and stays.
const PRIVATE: [&str; 17] = [
    // The master's own sockets; a worker is told of its own.
    env::LISTEN_FDS,
    env::LISTEN_PID,
    env::LISTEN_FDNAMES,
    // Compared with the reader's own pidfd: with that of the master, a worker would find no sockets.
    "LISTEN_PIDFDID",
    // A worker that spoke there would speak for the service: READY=1, MAINPID=, STOPPING=1, WATCHDOG=trigger.
    env::NOTIFY_SOCKET,
    "FDSTORE",
    // Of `WatchdogSec=`, which the master answers to; `watchdog` of an app sets its own.
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    // Whose child the master is, and whether it was started by systemd itself: wrong in a child.
    "MAINPID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "SYSTEMD_EXEC_PID",
    // Of `PIDFile=`: an application that writes its own there would become the main process.
    "PIDFILE",
    // One watcher for the whole cgroup, which workers of other users may not write to.
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // Of `Accept=yes`, where a connection is the service's; some frameworks believe them.
    "REMOTE_ADDR",
    "REMOTE_PORT",
];

/// The master's environment without what is private: to it, or to a worker of a master above it.
fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    let is_private = |key: &OsString| PRIVATE.iter().chain(&env::PRIVATE).any(|own| key == own);
    std::env::vars_os().filter(move |(key, _)| !is_private(key))
}

/// Starts a process; the pipe tells how far the child comes ([`crate::sys::progress`]).
///
/// # Errors
/// No process could be made.
pub fn launch(launch: &Launch, contract: &Contract) -> io::Result<(Pid, OwnedFd)> {
    let mut variables: BTreeMap<OsString, OsString> = inherited().collect();
    variables.extend(
        launch
            .env
            .iter()
            .map(|(key, value)| (key.into(), value.into())),
    );
    let mut fds: Vec<BorrowedFd> = contract.sockets.iter().map(|(_, fd)| *fd).collect();
    let mut set = |key: &str, value: String| variables.insert(key.into(), value.into());
    let next = |fds: &Vec<BorrowedFd>| (env::FIRST_LISTENER as usize + fds.len()).to_string();
    let names: Vec<_> = contract.sockets.iter().map(|(name, _)| *name).collect();
    set(env::LISTEN_FDS, fds.len().to_string());
    set(env::LISTEN_FDNAMES, names.join(":"));
    set(env::NOTIFY_SOCKET, contract.notify_socket.to_owned());
    set(env::CONTRACT, contract::VERSION.to_string());
    set(env::APP, contract.app.to_owned());
    set(env::GENERATION, contract.generation.to_string());
    if let Some(slot) = contract.slot {
        set(env::SLOT, slot.to_string());
    }
    if let Some((fd, record)) = contract.scoreboard {
        set(env::SCOREBOARD_FD, next(&fds));
        fds.push(fd);
        if let Some(record) = record {
            set(env::SCOREBOARD_RECORD, record.to_string());
        }
    }
    let output = &contract.output;
    let more = [
        (env::TEMPLATE, contract.template),
        (env::STDERR_FD, output.stderr_later),
        (env::ACCESS_LOG_FD, output.access_log),
        (env::CHECK_FD, contract.check),
    ];
    for (key, fd) in more {
        if let Some(fd) = fd {
            set(key, next(&fds));
            fds.push(fd);
        }
    }
    let user = launch.user.as_ref();
    spawn(Process {
        program: c_string(launch.program.clone().into_os_string())?,
        args: launch
            .args
            .iter()
            .map(|arg| c_string(arg.into()))
            .collect::<io::Result<_>>()?,
        env: variables
            .into_iter()
            .map(assignment)
            .collect::<io::Result<_>>()?,
        chdir: c_string(launch.chdir.clone().into_os_string())?,
        user: user.map(|user| (user.uid, user.gid, &user.groups[..])),
        umask: launch.umask,
        stdout: output.stdout,
        stderr: output.stderr,
        fds,
    })
}

/// Starts this program itself for one of its own tasks, with descriptors from number 3 on.
///
/// # Errors
/// No process could be made.
pub fn own(
    arguments: impl IntoIterator<Item = OsString>,
    stderr: Option<BorrowedFd>,
    fds: Vec<BorrowedFd>,
) -> io::Result<Pid> {
    let args = std::iter::once("preforkd".into()).chain(arguments);
    let (pid, _) = spawn(Process {
        // Also when the file was replaced by another since.
        program: c"/proc/self/exe".to_owned(),
        args: args.map(c_string).collect::<io::Result<_>>()?,
        env: inherited().map(assignment).collect::<io::Result<_>>()?,
        chdir: c"/".to_owned(),
        user: None,
        umask: None,
        stdout: None,
        stderr,
        fds,
    })?;
    Ok(pid)
}

fn assignment((mut key, value): (OsString, OsString)) -> io::Result<CString> {
    key.push("=");
    key.push(value);
    c_string(key)
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}
