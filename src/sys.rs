//! The only unsafe code of the manager: fork and exec, taking over descriptors, moving the environment, asking
//! for the length of an accept queue and for random numbers.
//!
//! What [`spawn`] does between fork and exec is async-signal-safe and works on memory that was prepared before, so that the
//! child meets no lock that another thread held: signal-safety(7). (The master has one thread anyway.)

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::{Pid, getpid, pipe2};

/// The first descriptor that a child finds its own at, as with systemd: sd_listen_fds(3).
const FIRST_FD: RawFd = 3;

/// The variable with the process id that the child has only then, and room for that.
const LISTEN_PID: &[u8; 23] = b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0";
/// Where the number begins.
const LISTEN_PID_AT: usize = 11;

/// Everything that a child needs; all memory is allocated before the fork.
pub struct Process<'a> {
    /// The file to execute.
    pub program: CString,
    /// Its arguments, its own name first.
    pub args: Vec<CString>,
    /// Its whole environment, without `LISTEN_PID`.
    pub env: Vec<CString>,
    /// Where it starts.
    pub chdir: CString,
    /// User id, group id and supplementary groups, unless the master's.
    pub user: Option<(u32, u32, &'a [u32])>,
    /// File mode creation mask, unless the master's.
    pub umask: Option<u32>,
    /// Standard output, unless the master's.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error, unless the master's.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Descriptors that the child finds from 3 on; no others are inherited but standard output and error.
    pub fds: Vec<BorrowedFd<'a>>,
}

/// What a child was doing when it failed, before its program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// setsid, signals.
    Session,
    /// Placing its descriptors.
    Descriptors,
    /// setgroups, setgid.
    Group,
    /// setuid.
    User,
    /// chdir.
    Chdir,
    /// execve.
    Exec,
}

const STAGES: [Stage; 6] = [
    Stage::Session,
    Stage::Descriptors,
    Stage::Group,
    Stage::User,
    Stage::Chdir,
    Stage::Exec,
];

/// How far a child has come, as read from its pipe.
#[derive(Debug)]
pub enum Progress {
    /// Its program is not running yet.
    Pending,
    /// Its program was executed, or it died before.
    Executed,
    /// It failed.
    Failed(Stage, io::Error),
}

/// Reads what a child reports through the pipe that [`spawn`] returned; never blocks.
pub fn progress(pipe: &OwnedFd) -> Progress {
    let mut report = [0; 5];
    match nix::unistd::read(pipe, &mut report) {
        Ok(5) => {
            let stage = STAGES.get(usize::from(report[0])).copied();
            let errno = i32::from_ne_bytes([report[1], report[2], report[3], report[4]]);
            Progress::Failed(
                stage.unwrap_or(Stage::Exec),
                io::Error::from_raw_os_error(errno),
            )
        }
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => Progress::Pending,
        _ => Progress::Executed,
    }
}

/// Forks and executes. The pipe tells how far the child comes: [`progress`].
///
/// The child is in a session of its own (so Ctrl-C on the master's terminal reaches the master only), has
/// default signal dispositions, standard input from /dev/null, and gets SIGTERM when the master dies.
///
/// # Errors
/// There is no memory, process or descriptor left.
pub fn spawn(process: &Process) -> io::Result<(Pid, OwnedFd)> {
    let (report, report_to_master) = pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let mut listen_pid = *LISTEN_PID;
    let mut args = pointers(&process.args);
    args.push(ptr::null());
    let mut env = pointers(&process.env);
    env.push(listen_pid.as_ptr().cast());
    env.push(ptr::null());
    let child = Child {
        process,
        args: &args,
        env: &env,
        moved: vec![-1; process.fds.len()],
        report: report_to_master.as_raw_fd(),
        master: getpid(),
    };

    // A signal that arrives between fork and exec must not run the master's handlers in the child, where it
    // would be forgotten by exec: it waits, and meets the default disposition.
    let mut before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    // SAFETY: the child only makes async-signal-safe calls on memory prepared above, and ends in execve or _exit.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        write_decimal(&mut listen_pid[LISTEN_PID_AT..], getpid().as_raw());
        child.run();
    }
    let error = io::Error::last_os_error();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    if forked < 0 {
        Err(error)
    } else {
        Ok((Pid::from_raw(forked), report))
    }
}

/// Turns this process, which the master has started, into another one; tells the master through `report` if that fails.
pub fn become_process(process: &Process, report: &OwnedFd, master: Pid) -> ! {
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let mut listen_pid = *LISTEN_PID;
    write_decimal(&mut listen_pid[LISTEN_PID_AT..], getpid().as_raw());
    let mut args = pointers(&process.args);
    args.push(ptr::null());
    let mut env = pointers(&process.env);
    env.push(listen_pid.as_ptr().cast());
    env.push(ptr::null());
    let child = Child {
        process,
        args: &args,
        env: &env,
        moved: vec![-1; process.fds.len()],
        report: report.as_raw_fd(),
        master,
    };
    child.run()
}

/// Writes a positive number and a NUL; the child cannot allocate.
fn write_decimal(to: &mut [u8], mut number: i32) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    to[digits] = 0;
    for digit in to[..digits].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The child between fork and exec.
struct Child<'a> {
    process: &'a Process<'a>,
    args: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    /// Room for the descriptors on their way.
    moved: Vec<RawFd>,
    report: RawFd,
    master: Pid,
}

impl Child<'_> {
    fn run(mut self) -> ! {
        let stage = match self.prepare() {
            Err(stage) => stage,
            Ok(()) => {
                // SAFETY: all pointers are NUL-terminated strings in arrays that end with a null pointer,
                // and they outlive the call.
                unsafe {
                    libc::execve(
                        self.process.program.as_ptr(),
                        self.args.as_ptr(),
                        self.env.as_ptr(),
                    )
                };
                Stage::Exec
            }
        };
        let errno = nix::errno::Errno::last_raw().to_ne_bytes();
        let report = [stage as u8, errno[0], errno[1], errno[2], errno[3]];
        // SAFETY: five bytes of a local array; a pipe takes them at once. _exit runs no handler of the master.
        unsafe {
            libc::write(self.report, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    }

    fn prepare(&mut self) -> Result<(), Stage> {
        self.session()?;
        self.descriptors()?;
        if let Some((uid, gid, groups)) = self.process.user {
            // SAFETY: the pointer and the length are of one slice.
            check(Stage::Group, unsafe {
                libc::setgroups(groups.len(), groups.as_ptr())
            })?;
            // SAFETY: plain numbers.
            check(Stage::Group, unsafe { libc::setgid(gid) })?;
            // SAFETY: plain number.
            check(Stage::User, unsafe { libc::setuid(uid) })?;
        }
        if let Some(umask) = self.process.umask {
            // SAFETY: plain number; cannot fail.
            unsafe { libc::umask(umask) };
        }
        // SAFETY: a NUL-terminated string.
        check(Stage::Chdir, unsafe {
            libc::chdir(self.process.chdir.as_ptr())
        })?;
        // After setuid, which clears it: prctl(2). If the master has died meanwhile, nobody would tell.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGTERM).map_err(|_| Stage::Session)?;
        if nix::unistd::getppid() != self.master {
            // SAFETY: see `run`.
            unsafe { libc::_exit(127) };
        }
        Ok(())
    }

    fn session(&self) -> Result<(), Stage> {
        // SAFETY: no arguments.
        check(Stage::Session, unsafe { libc::setsid() })?;
        // What the master was given to bind a low port is not for the application: capabilities(7). Where there are
        // no ambient capabilities there is nothing to take.
        // SAFETY: plain numbers.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            )
        };
        for signal in 1..=libc::SIGRTMAX() {
            // SAFETY: the default disposition runs no code of ours; what cannot be set (KILL, STOP) stays.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        SigSet::empty()
            .thread_set_mask()
            .map_err(|_| Stage::Session)
    }

    /// Puts every descriptor where the program expects it, and lets go of all others.
    fn descriptors(&mut self) -> Result<(), Stage> {
        let at = Stage::Descriptors;
        let fds = &self.process.fds;
        let free = FIRST_FD + fds.len() as RawFd;
        // SAFETY: plain numbers. Here and below every descriptor that is overwritten is this child's own.
        self.report = check(at, unsafe {
            libc::fcntl(self.report, libc::F_DUPFD_CLOEXEC, free)
        })?;
        // SAFETY: a NUL-terminated string.
        let null = check(at, unsafe {
            libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)
        })?;
        // SAFETY: plain numbers.
        check(at, unsafe { libc::dup2(null, libc::STDIN_FILENO) })?;
        // First all out of the way, lest one is overwritten before its turn.
        for (fd, moved) in fds.iter().zip(&mut self.moved) {
            // SAFETY: plain numbers.
            *moved = check(at, unsafe {
                libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, free)
            })?;
        }
        let output = [
            (self.process.stdout, libc::STDOUT_FILENO),
            (self.process.stderr, libc::STDERR_FILENO),
        ];
        for (fd, goal) in output {
            if let Some(fd) = fd {
                // SAFETY: plain numbers.
                check(at, unsafe { libc::dup2(fd.as_raw_fd(), goal) })?;
            }
        }
        for (moved, goal) in self.moved.iter().zip(FIRST_FD..) {
            // SAFETY: plain numbers.
            check(at, unsafe { libc::dup2(*moved, goal) })?;
        }
        // What whoever started the master left open is none of the worker's business. Linux before 5.11 cannot
        // do this at one stroke; the master's own descriptors are close-on-exec anyway.
        // SAFETY: plain numbers.
        unsafe { libc::close_range(free as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
        Ok(())
    }
}

fn check(stage: Stage, result: i32) -> Result<i32, Stage> {
    if result < 0 { Err(stage) } else { Ok(result) }
}

/// How many connections wait at a listener to be accepted: tcp(7), `TCP_INFO`, where `tcpi_unacked` of a listener counts
/// them. Of a unix socket, only whether there are any: poll(2).
pub fn accept_queue(listener: &BorrowedFd) -> u32 {
    // SAFETY: the structure consists of numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, and `info` has as many.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    if result == 0 {
        return info.tcpi_unacked;
    }
    let mut look = [PollFd::new(*listener, PollFlags::POLLIN)];
    u32::from(poll(&mut look, PollTimeout::ZERO).is_ok_and(|number| number > 0))
}

/// Receives a message and who sent it, if the socket passes credentials: unix(7). There is no room for descriptors that come
/// along, so the kernel closes them. Never blocks.
///
/// # Errors
/// There is no message (EAGAIN), or the kernel has no memory.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> nix::Result<(usize, Option<Pid>)> {
    /// Room for one header with credentials and nothing else, aligned as a header has to be.
    #[repr(C)]
    struct Room {
        header: libc::cmsghdr,
        credentials: libc::ucred,
        padding: u32,
    }
    // SAFETY: the structures consist of numbers and pointers, for which zero is a value.
    let (mut room, mut message): (Room, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(&mut room).cast();
    message.msg_controllen = size_of::<Room>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes at most `iov_len` bytes to `bytes` and `msg_controllen` bytes to `room`.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    let length = nix::errno::Errno::result(length)?;
    let has_credentials = message.msg_controllen > 0
        && room.header.cmsg_level == libc::SOL_SOCKET
        && room.header.cmsg_type == libc::SCM_CREDENTIALS;
    let sender = has_credentials.then(|| Pid::from_raw(room.credentials.pid));
    Ok((length as usize, sender))
}

/// From `asm-generic/socket.h`, since Linux 6.16; the libc crate has no name for it yet.
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PASSRIGHTS: libc::c_int = 83;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_PASSRIGHTS: libc::c_int = 0x5c;

/// Refuses descriptors that are passed over a unix socket: who tries to pass one gets EPERM.
///
/// # Errors
/// The kernel is older than Linux 6.16.
pub fn refuse_descriptors(socket: BorrowedFd) -> nix::Result<()> {
    let no: libc::c_int = 0;
    // SAFETY: the kernel reads as many bytes as the number has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            ptr::from_ref(&no).cast(),
            size_of_val(&no) as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(result).map(drop)
}

/// A descriptor that can be read as soon as a child has ended: pidfd_open(2).
///
/// # Errors
/// There is no descriptor left, or the kernel is older than Linux 5.3.
pub fn watch_process(child: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = nix::errno::Errno::result(result)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A number that nobody can guess: getrandom(2).
///
/// # Errors
/// The kernel has none yet, early at boot.
pub fn random() -> nix::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes at most as many bytes as the array has.
    let length =
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    // So few are never cut short: random(4).
    nix::errno::Errno::result(length)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Descriptors that were taken over.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over a descriptor that was passed to this program by whoever started it; from then on it is closed on exec.
///
/// # Errors
/// It was not passed: it is not open, it is a standard stream, it was taken over before, or this program has opened it itself,
/// which shows by its being closed on exec, as all are that the standard library and nix open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    let not_passed = |why: &str| io::Error::other(format!("descriptor {fd} was not passed: {why}"));
    if fd < FIRST_FD {
        return Err(not_passed("it is a standard stream"));
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&fd) {
        return Err(not_passed("it was taken over before"));
    }
    // SAFETY: plain numbers.
    let flags = nix::errno::Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(not_passed("it was opened by this program"));
    }
    // SAFETY: plain numbers.
    nix::errno::Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    taken.insert(fd);
    // SAFETY: it is open, nothing in this program has opened it, and nothing else here gets it again.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

unsafe extern "C" {
    static mut environ: *const *const libc::c_char;
}

/// Copies the environment to the heap, for good, so that a process title may take its place.
///
/// # Errors
/// This process has other threads, which may read the environment meanwhile; or that cannot be seen (proc(5)).
pub fn move_environment() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there is more than one thread"));
    }
    // SAFETY: the process has one thread, so nobody changes or reads the environment meanwhile. The list ends
    // with a null pointer and its entries are NUL-terminated strings; the copies live for ever.
    unsafe {
        let mut copies = Vec::new();
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            copies.push(CStr::from_ptr(*entry).to_owned().into_raw().cast_const());
            entry = entry.add(1);
        }
        copies.push(ptr::null());
        environ = copies.leak().as_ptr();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_written_in_decimal() {
        for pid in [1, 9, 10, 4711, i32::MAX] {
            let mut text = [b'x'; 12];
            write_decimal(&mut text, pid);
            let text = CStr::from_bytes_until_nul(&text).expect("a NUL");
            assert_eq!(text.to_str(), Ok(pid.to_string().as_str()));
        }
    }

    #[test]
    fn a_descriptor_is_taken_over_once_and_only_if_it_was_passed() {
        let own = pipe2(OFlag::O_CLOEXEC).expect("a pipe").0;
        let error = adopt(own.as_raw_fd()).expect_err("it is ours");
        assert!(
            error.to_string().contains("opened by this program"),
            "{error}"
        );
        assert!(adopt(2).is_err());
        assert!(adopt(1_000_000).is_err());
        let passed = std::os::fd::IntoRawFd::into_raw_fd(pipe2(OFlag::empty()).expect("a pipe").0);
        let taken = adopt(passed).expect("it looks as if it was passed");
        assert!(adopt(taken.as_raw_fd()).is_err(), "once only");
    }
}
