//! Starts a launcher ([`crate::launcher`]), without a fork of the master.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getpid, pipe2};

use crate::launcher::progress::{Attempts, Launching};
use crate::launcher::{COMMAND, Orders};
use crate::sys::{ORDERS_TO_THE_MASTER, Process};

/// The first descriptor of a program after its standard streams.
const FIRST_FD: RawFd = 3;

/// Starts a process.
///
/// It leads a session of its own (so Ctrl-C on the master's terminal reaches only the master), has default signal
/// dispositions (but see [`Process::ignores_orders`]), and gets a signal when the master dies.
///
/// # Errors
/// No memory, process or descriptor is available.
pub fn spawn(process: Process) -> io::Result<(Pid, Launching)> {
    let (report, report_to_master) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let attempts = Attempts::of(&process);
    let streams = [process.stdin, process.stdout, process.stderr];
    let fds: Vec<BorrowedFd> = streams.into_iter().flatten().chain(process.fds).collect();
    let orders = Orders {
        master: getpid().as_raw(),
        on_master_death: process.on_parent_death.map_or(0, |signal| signal as i32),
        user: process
            .user
            .map(|(uid, gid, groups)| (uid, gid, groups.to_vec())),
        rights: process.rights,
        umask: process.umask,
        ignores_orders: process.ignores_orders,
        streams: streams.map(|stream| stream.is_some()),
        program: process.program,
        chdir: process.chdir,
        release: process.release.unwrap_or_default(),
        args: process.args,
        env: process.env,
    };
    let file = memfd_create(c"preforkd orders", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&orders.encode())?;
    let numbers = fds.iter().map(AsRawFd::as_raw_fd);
    let numbers = numbers.chain([file.as_raw_fd(), report_to_master.as_raw_fd()]);
    let numbers: Vec<RawFd> = numbers.collect();
    // Above all of them, and above the numbers that the program expects, so that none is overwritten before it is moved.
    let highest = numbers.iter().copied().max().unwrap_or(0);
    let first = (highest + 1).max(FIRST_FD + numbers.len() as RawFd);
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, goal) in numbers.iter().zip(first..) {
        actions.add_dup2(*number, goal)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    // From its first instruction on, until the launcher ignores them.
    attributes.set_sigmask(&SigSet::from_iter(ORDERS_TO_THE_MASTER))?;
    attributes.set_sigdefault(&SigSet::all())?;
    let arguments = [
        c"preforkd".to_owned(),
        CString::new(COMMAND)?,
        CString::new(first.to_string())?,
        CString::new(fds.len().to_string())?,
    ];
    // This path works even after the file was replaced.
    let own = c"/proc/self/exe";
    // The environment of the program is not for a process that still has the master's privileges, but the launcher needs the
    // path of its libraries.
    let libraries = std::env::var_os("LD_LIBRARY_PATH")
        .map(|folders| CString::new([b"LD_LIBRARY_PATH=", folders.as_bytes()].concat()));
    let environment: Vec<CString> = libraries.transpose()?.into_iter().collect();
    let pid = posix_spawn(own, &actions, &attributes, &arguments, &environment)?;
    Ok((pid, Launching::new(pid, report, attempts)))
}
