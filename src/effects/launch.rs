//! Starts a process with everything that the worker contract promises: preforkd-worker(7).

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::{contract, env, version};

use super::installed;
use super::spawn::spawn;
use crate::launcher::progress::Launching;
use crate::plan::{self, Launch, Rights, variables};
use crate::sys::Process;

/// The parts of the worker contract for one process.
pub struct Contract<'a> {
    /// The name of its app.
    pub app: &'a str,
    /// Its slot; `None` for a template.
    pub slot: Option<u32>,
    /// The generation of its configuration.
    pub generation: u64,
    /// Its listeners and their names.
    pub sockets: Vec<(&'a str, BorrowedFd<'a>)>,
    /// The address for its notify messages; empty if nobody waits for them.
    pub notify_socket: &'a str,
    /// The scoreboard, and the worker's record in it; no record for a template.
    pub scoreboard: Option<(BorrowedFd<'a>, Option<u32>)>,
    /// A template's socket to the master.
    pub template: Option<BorrowedFd<'a>>,
    /// A Python worker's private listener for checks.
    pub check: Option<BorrowedFd<'a>>,
    /// A pipe that ends when a Python worker is to stop.
    pub stop: Option<BorrowedFd<'a>>,
    /// The settings of a front worker.
    pub front: Option<BorrowedFd<'a>>,
    /// A listener that only it has.
    pub own: Option<BorrowedFd<'a>>,
    /// The socket of its updates.
    pub updates: Option<BorrowedFd<'a>>,
    /// By which workers of the front wake each other.
    pub wake: Option<BorrowedFd<'a>>,
    /// The signal that it gets when the master dies.
    pub on_master_death: Signal,
    /// Whether it is a worker or template of ours, and not a program of the user.
    pub is_ours: bool,
    /// Its standard input; /dev/null if `None`.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Its output.
    pub output: Output<'a>,
}

impl<'a> Contract<'a> {
    /// Adds a private listener for checks: as `check` for a Python worker, else as one more socket with a name of its own.
    pub fn add_private(&mut self, private: Option<BorrowedFd<'a>>, is_known: bool) {
        if is_known {
            self.check = private;
        } else if let Some(private) = private {
            self.sockets.push((plan::CHECK_LISTENER, private));
        }
    }
}

/// Where the output of a process goes.
#[derive(Default)]
pub struct Output<'a> {
    /// Standard output; the master's if `None`.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error; the master's if `None`.
    pub stderr: Option<BorrowedFd<'a>>,
    /// The standard error that a Python worker switches to when it is ready.
    pub stderr_later: Option<BorrowedFd<'a>>,
    /// The access log of a Python worker.
    pub access_log: Option<BorrowedFd<'a>>,
}

/// A variable: its name, and the assignment to pass on.
type Variable = (OsString, CString);

thread_local! {
    /// The master's environment, without private variables: its own, and those of a master that runs it as a worker. It does not
    /// change while the master runs, and each start needs it.
    static INHERITED: Vec<Variable> = inherited();
}

fn inherited() -> Vec<Variable> {
    let variables = std::env::vars_os().filter(|(key, _)| !variables::is_private(key));
    // They come from the system, so they contain no NUL.
    let passed =
        variables.filter_map(|(key, value)| Some((key.clone(), assignment(key, value).ok()?)));
    passed.collect()
}

/// The version of this program, and its path.
fn master() -> String {
    static MASTER: OnceLock<String> = OnceLock::new();
    let master = MASTER.get_or_init(|| {
        let own = installed::own().unwrap_or_default();
        format!("{} {}", version::own(), own.display())
    });
    master.clone()
}

/// Starts a process.
///
/// # Errors
/// The process cannot be created.
pub fn launch(launch: &Launch, contract: &Contract) -> io::Result<(Pid, Launching)> {
    let own = launch.env.iter();
    let mut variables: BTreeMap<OsString, OsString> =
        own.map(|(key, value)| (key.into(), value.into())).collect();
    // A shell or program that heeds it finds the next release behind a link as well.
    let pwd = variables.entry("PWD".into());
    pwd.or_insert_with(|| launch.chdir.clone().into_os_string());
    let mut fds: Vec<BorrowedFd> = contract.sockets.iter().map(|(_, fd)| *fd).collect();
    let mut set = |key: &str, value: String| variables.insert(key.into(), value.into());
    let next = |fds: &Vec<BorrowedFd>| (env::FIRST_LISTENER as usize + fds.len()).to_string();
    let names: Vec<_> = contract.sockets.iter().map(|(name, _)| *name).collect();
    set(env::LISTEN_FDS, fds.len().to_string());
    set(env::LISTEN_FDNAMES, names.join(":"));
    if !contract.notify_socket.is_empty() {
        set(env::NOTIFY_SOCKET, contract.notify_socket.to_owned());
    }
    set(env::CONTRACT, contract::VERSION.to_string());
    if contract.is_ours {
        set(env::MASTER, master());
    }
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
        (env::STOP_FD, contract.stop),
        (env::FRONT_FD, contract.front),
        (env::OWN_FD, contract.own),
        (env::UPDATES_FD, contract.updates),
        (env::WAKE_FD, contract.wake),
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
        env: environment(variables, launch.env_clear)?,
        chdir: c_string(launch.chdir.clone().into_os_string())?,
        release: match launch.release == launch.chdir {
            true => None,
            false => Some(c_string(launch.release.clone().into_os_string())?),
        },
        user: user.map(|user| (user.uid, user.gid, &user.groups[..])),
        rights: launch.rights.clone(),
        umask: launch.umask,
        on_parent_death: Some(contract.on_master_death),
        ignores_orders: contract.is_ours,
        stdin: contract.stdin,
        stdout: output.stdout,
        stderr: output.stderr,
        fds,
    })
}

/// Starts this program for one of its helper processes, with descriptors from number 3 on.
///
/// # Errors
/// The process cannot be created.
pub fn own(
    arguments: impl IntoIterator<Item = OsString>,
    stderr: Option<BorrowedFd>,
    fds: Vec<BorrowedFd>,
) -> io::Result<Pid> {
    helper(arguments, stderr, fds, Some(Signal::SIGTERM))
}

/// The same, for one that outlives the master.
///
/// # Errors
/// The process cannot be created.
pub fn own_that_outlives(
    arguments: impl IntoIterator<Item = OsString>,
    fds: Vec<BorrowedFd>,
) -> io::Result<Pid> {
    helper(arguments, None, fds, None)
}

fn helper(
    arguments: impl IntoIterator<Item = OsString>,
    stderr: Option<BorrowedFd>,
    fds: Vec<BorrowedFd>,
    on_parent_death: Option<Signal>,
) -> io::Result<Pid> {
    let args = std::iter::once("preforkd".into()).chain(arguments);
    let (pid, _) = spawn(Process {
        // This path works even after the file was replaced.
        program: c"/proc/self/exe".to_owned(),
        args: args.map(c_string).collect::<io::Result<_>>()?,
        env: environment(BTreeMap::new(), false)?,
        chdir: c"/".to_owned(),
        release: None,
        user: None,
        rights: Rights::default(),
        umask: None,
        on_parent_death,
        ignores_orders: true,
        stdin: None,
        stdout: None,
        stderr,
        fds,
    })?;
    Ok(pid)
}

/// These variables, and those of the master that are not among them, or the few of them that a process needs in any case.
fn environment(
    variables: BTreeMap<OsString, OsString>,
    only_few: bool,
) -> io::Result<Vec<CString>> {
    let mut all: Vec<CString> = INHERITED.with(|inherited| {
        let others = inherited.iter().filter(|(key, _)| {
            !variables.contains_key(key) && (!only_few || variables::is_always_passed(key))
        });
        others.map(|(_, passed)| passed.clone()).collect()
    });
    for (key, value) in variables {
        all.push(assignment(key, value)?);
    }
    Ok(all)
}

fn assignment(mut key: OsString, value: OsString) -> io::Result<CString> {
    key.push("=");
    key.push(value);
    c_string(key)
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}
