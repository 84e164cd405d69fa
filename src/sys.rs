//! The only unsafe code of the manager: fork and exec, adopting inherited descriptors, moving the environment, the length
//! of an accept queue, message credentials, descriptors in messages, process descriptors, locks, and random numbers.
//!
//! A process that executes a program is set up in two ways. The master starts launchers, which call [`become_process`]; it does
//! not fork. The process that checks the configuration calls [`spawn`]: between its fork and exec it makes only async-signal-safe
//! calls on memory that was allocated before the fork, so the child never waits for a lock that another thread held:
//! signal-safety(7). Only the rules of `landlock` are made there, as their descriptor would be overwritten; that process has no other
//! thread.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid, getuid, pipe2};

use crate::launcher::rights::Preparation;
use crate::plan::{Resource, Rights};

/// The number of the first inherited descriptor in a child, as with systemd: sd_listen_fds(3).
const FIRST_FD: RawFd = 3;

/// The variable with the process id, which is known only in the child, with space for the number.
const LISTEN_PID: &[u8; 23] = b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0";
/// The offset of the number.
const LISTEN_PID_AT: usize = 11;

/// What an administrator sends to the master, and to its whole service with `systemctl kill`. The default dispositions end or stop a
/// process: signal(7). (SIGWINCH does neither.)
pub const ORDERS_TO_THE_MASTER: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Everything that a child needs. All memory is allocated before the fork.
pub struct Process<'a> {
    /// The file to execute.
    pub program: CString,
    /// Its arguments, starting with its own name.
    pub args: Vec<CString>,
    /// Its complete environment, except `LISTEN_PID`.
    pub env: Vec<CString>,
    /// Its working directory.
    pub chdir: CString,
    /// The folder behind that when the configuration was read, if its path is another one. It runs in this one while that is there.
    pub release: Option<CString>,
    /// User id, group id and supplementary groups; the master's if `None`.
    pub user: Option<(u32, u32, &'a [u32])>,
    /// What it may do, and how much.
    pub rights: Rights,
    /// File mode creation mask; the master's if `None`.
    pub umask: Option<u32>,
    /// The signal that it gets when its parent dies; `None` for a process that outlives it.
    pub on_parent_death: Option<Signal>,
    /// Whether it is executed with [`ORDERS_TO_THE_MASTER`] ignored: a process of ours, which has its own handlers later, if any. A
    /// program of the user gets the default dispositions, because its children would inherit others.
    pub ignores_orders: bool,
    /// Standard input; /dev/null if `None`.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Standard output; the master's if `None`.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error; the master's if `None`.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Descriptors that the child gets as 3 and up. It inherits no others except its standard streams.
    pub fds: Vec<BorrowedFd<'a>>,
}

/// The step at which a child failed before it executed its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// setsid, signal dispositions.
    Session,
    /// Moving its descriptors.
    Descriptors,
    /// setgroups, setgid.
    Group,
    /// setuid.
    User,
    /// Writing oom_score_adj.
    OomScore,
    /// setpriority.
    Nice,
    /// sched_setaffinity.
    Cpus,
    /// setrlimit, with the resource as its detail.
    Limit,
    /// capset, prctl.
    Capabilities,
    /// prctl.
    NoNewPrivs,
    /// landlock_create_ruleset, landlock_add_rule, landlock_restrict_self.
    Landlock,
    /// chdir.
    Chdir,
    /// execve.
    Exec,
    /// execve of a script whose first line ends with a carriage return.
    WindowsScript,
}

impl Stage {
    /// The stage of a report.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            Self::Session,
            Self::Descriptors,
            Self::Group,
            Self::User,
            Self::OomScore,
            Self::Nice,
            Self::Cpus,
            Self::Limit,
            Self::Capabilities,
            Self::NoNewPrivs,
            Self::Landlock,
            Self::Chdir,
            Self::Exec,
            Self::WindowsScript,
        ];
        all.into_iter().find(|stage| *stage as u8 == byte)
    }
}

/// The byte that a process writes to its pipe just before it executes its program, which closes the pipe.
pub const EXECUTING: u8 = 0xff;

/// What a process could not do before it executed its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub stage: Stage,
    /// Which of several like things it was; 0 if there is one.
    pub detail: u8,
    /// Why.
    pub errno: Errno,
}

/// The length of the report of a failure: the stage, its detail, and errno.
pub const REPORT_SIZE: usize = 6;

impl Failure {
    /// A failure without a detail.
    pub fn new(stage: Stage, errno: Errno) -> Self {
        Self {
            stage,
            detail: 0,
            errno,
        }
    }

    /// The failure of the last system call.
    fn last(stage: Stage) -> Self {
        Self::new(stage, Errno::last())
    }

    /// The report of it.
    pub fn encode(self) -> [u8; REPORT_SIZE] {
        let [a, b, c, d] = (self.errno as i32).to_ne_bytes();
        [self.stage as u8, self.detail, a, b, c, d]
    }

    /// The failure in a report; `None` if it is none.
    pub fn decode(report: &[u8]) -> Option<Self> {
        let &[stage, detail, a, b, c, d] = report else {
            return None;
        };
        Some(Self {
            stage: Stage::from_byte(stage)?,
            detail,
            errno: Errno::from_raw(i32::from_ne_bytes([a, b, c, d])),
        })
    }

    /// The limit that it is about.
    pub fn resource(self) -> Option<Resource> {
        let mut all = Resource::ALL.into_iter();
        all.find(|resource| *resource as u8 == self.detail)
    }
}

/// Forks and executes. Read the returned pipe with [`crate::launcher::progress::Launching`].
///
/// The child leads a session of its own (so Ctrl-C on the master's terminal reaches only the master), has default signal
/// dispositions (but see [`Process::ignores_orders`]) and standard input from /dev/null, and gets a signal when the calling thread
/// ends.
///
/// # Errors
/// No memory, process or descriptor is available.
pub fn spawn(process: &Process) -> io::Result<(Pid, OwnedFd)> {
    let (report, report_to_master) = pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let child = Child::new(process, report_to_master.as_raw_fd(), getpid());

    // A signal that arrives between fork and exec must not run the master's handlers in the child, where exec would
    // lose it. It stays pending and meets the disposition that the child sets.
    let mut before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    // SAFETY: the child only makes async-signal-safe calls on memory prepared above, and ends in execve or _exit.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
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

/// Executes the program of a process that the master has started. Reports a failure to the master through `report`.
pub fn become_process(process: &Process, report: &OwnedFd, master: Pid) -> ! {
    Child::new(process, report.as_raw_fd(), master).run()
}

/// Reports a failure before [`become_process`] to the master, and ends this process.
pub fn report_failure(report: &OwnedFd, failure: Failure) -> ! {
    fail(report.as_raw_fd(), failure)
}

/// Reports a failure and ends the process, without the master's exit handlers.
fn fail(report: RawFd, failure: Failure) -> ! {
    tell(report, &failure.encode());
    // SAFETY: plain number.
    unsafe { libc::_exit(127) }
}

/// Writes to the master's pipe, which takes so few bytes at once. The master may not read it: that must not end the process.
fn tell(report: RawFd, bytes: &[u8]) {
    // SAFETY: plain numbers; the pointer and the length are of one slice. A program expects the default disposition.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::write(report, bytes.as_ptr().cast(), bytes.len());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Writes a positive number in decimal and a NUL byte, without allocating.
fn write_decimal(to: &mut [u8], mut number: i32) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    to[digits] = 0;
    for digit in to[..digits].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A process before it executes its program.
struct Child<'a> {
    process: &'a Process<'a>,
    rights: Preparation,
    args: Vec<*const libc::c_char>,
    /// With space for `LISTEN_PID`, before the null pointer.
    env: Vec<*const libc::c_char>,
    listen_pid: [u8; LISTEN_PID.len()],
    /// Space for the temporary numbers of the descriptors.
    moved: Vec<RawFd>,
    report: RawFd,
    /// The process that must be its parent.
    master: Pid,
}

impl<'a> Child<'a> {
    /// Allocates all memory that the process needs.
    fn new(process: &'a Process<'a>, report: RawFd, master: Pid) -> Self {
        let pointers = |strings: &[CString], more: usize| {
            let own = strings.iter().map(|string| string.as_ptr());
            own.chain(std::iter::repeat_n(ptr::null(), more)).collect()
        };
        Self {
            process,
            rights: Preparation::new(&process.rights),
            args: pointers(&process.args, 1),
            env: pointers(&process.env, 2),
            listen_pid: *LISTEN_PID,
            moved: vec![-1; process.fds.len()],
            report,
            master,
        }
    }

    fn run(mut self) -> ! {
        write_decimal(&mut self.listen_pid[LISTEN_PID_AT..], getpid().as_raw());
        self.env[self.process.env.len()] = self.listen_pid.as_ptr().cast();
        let failure = match self.prepare() {
            Err(failure) => failure,
            Ok(()) => {
                tell(self.report, &[EXECUTING]);
                if !self.process.ignores_orders {
                    set_dispositions(
                        ORDERS_TO_THE_MASTER.map(|signal| signal as i32),
                        libc::SIG_DFL,
                    );
                }
                // SAFETY: all pointers are NUL-terminated strings in arrays that end with a null pointer,
                // and they outlive the call.
                unsafe {
                    libc::execve(
                        self.process.program.as_ptr(),
                        self.args.as_ptr(),
                        self.env.as_ptr(),
                    )
                };
                Failure::last(Stage::Exec)
            }
        };
        let stage = match (failure.stage, failure.errno) {
            (Stage::Exec, Errno::ENOENT) if self.is_windows_script() => Stage::WindowsScript,
            (stage, _) => stage,
        };
        fail(self.report, Failure { stage, ..failure })
    }

    /// Whether the program is a script whose first line ends with a carriage return: the kernel takes that for a part of the name of
    /// the interpreter.
    fn is_windows_script(&self) -> bool {
        let mut line = [0_u8; 256];
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: a NUL-terminated string; the pointer and the length are of one buffer. Both calls are async-signal-safe. The process
        // ends soon, so the file needs not be closed.
        let length = unsafe {
            let file = libc::open(self.process.program.as_ptr(), flags);
            libc::read(file, line.as_mut_ptr().cast(), line.len())
        };
        let line = line.get(..length.max(0) as usize).unwrap_or_default();
        let mut lines = line.split(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        first.starts_with(b"#!") && first.ends_with(b"\r")
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        self.session()?;
        self.descriptors()?;
        self.rights.open()?;
        let uid = self.process.user.map(|(uid, ..)| uid);
        self.rights
            .as_master(uid.unwrap_or_else(|| getuid().as_raw()))?;
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
        self.rights.as_user()?;
        if let Some(signal) = self.process.on_parent_death {
            // After setuid, which clears it: prctl(2). If the master has already died, the signal would never come.
            nix::sys::prctl::set_pdeathsig(signal)
                .map_err(|error| Failure::new(Stage::Session, error))?;
            if nix::unistd::getppid() != self.master {
                // SAFETY: plain number. No exit handler of the master runs.
                unsafe { libc::_exit(127) };
            }
        }
        self.rights.last()
    }

    fn session(&self) -> Result<(), Failure> {
        // SAFETY: no arguments.
        check(Stage::Session, unsafe { libc::setsid() })?;
        // Ambient capabilities let the master bind a low port; the application must not inherit them: capabilities(7). On a
        // kernel without them there is nothing to clear.
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
        // An order that has arrived is discarded. So are all until the program is executed, as this process waits for disks.
        let orders = ORDERS_TO_THE_MASTER.map(|signal| signal as i32);
        set_dispositions(orders, libc::SIG_IGN);
        let others = (1..=libc::SIGRTMAX()).filter(|signal| !orders.contains(signal));
        set_dispositions(others, libc::SIG_DFL);
        SigSet::empty()
            .thread_set_mask()
            .map_err(|error| Failure::new(Stage::Session, error))
    }

    /// Moves each descriptor to the number that the program expects, and marks all others as close-on-exec.
    fn descriptors(&mut self) -> Result<(), Failure> {
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
        // First duplicate all to high numbers, so that none is overwritten before it is moved.
        for (fd, moved) in fds.iter().zip(&mut self.moved) {
            // SAFETY: plain numbers.
            *moved = check(at, unsafe {
                libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, free)
            })?;
        }
        let streams = [
            (self.process.stdin, libc::STDIN_FILENO),
            (self.process.stdout, libc::STDOUT_FILENO),
            (self.process.stderr, libc::STDERR_FILENO),
        ];
        for (fd, goal) in streams {
            if let Some(fd) = fd {
                // SAFETY: plain numbers.
                check(at, unsafe { libc::dup2(fd.as_raw_fd(), goal) })?;
            }
        }
        for (moved, goal) in self.moved.iter().zip(FIRST_FD..) {
            // SAFETY: plain numbers.
            check(at, unsafe { libc::dup2(*moved, goal) })?;
        }
        // Descriptors that the master has inherited must not reach a worker. Linux before 5.11 cannot mark them all in one
        // call; the master's own descriptors are close-on-exec anyway.
        // SAFETY: plain numbers.
        unsafe { libc::close_range(free as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
        Ok(())
    }
}

/// Sets a disposition that runs no code: SIG_DFL or SIG_IGN. KILL and STOP stay as they are.
fn set_dispositions(
    signals: impl IntoIterator<Item = libc::c_int>,
    disposition: libc::sighandler_t,
) {
    for signal in signals {
        // SAFETY: no function is called, as only the two constants are passed.
        unsafe { libc::signal(signal, disposition) };
    }
}

/// The version of Landlock that the kernel has; 0 if it has none: landlock_create_ruleset(2).
pub fn landlock_version() -> u32 {
    let only_version = 1;
    // SAFETY: plain numbers; the call takes no rules with this flag.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0,
            only_version,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Sets the nice value of this process.
///
/// # Errors
/// It may not have this one.
pub fn set_nice(nice: i32) -> nix::Result<()> {
    // SAFETY: plain numbers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    Errno::result(result).map(drop)
}

/// The nice value of this process.
pub fn nice() -> i32 {
    // It cannot fail for this process.
    // SAFETY: plain numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Capabilities of a process, as sets of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Those that count.
    pub effective: u64,
    /// Those that it may let count.
    pub permitted: u64,
    /// Those that it may pass on to the program that it executes.
    pub inheritable: u64,
}

/// The head of capset(2) and capget(2): the version of the form that has two words for each set, and this process.
const CAPABILITIES_OF_SELF: [u32; 2] = [0x2008_0522, 0];

/// The capabilities of this process.
///
/// # Errors
/// The kernel is older than this form.
pub fn capabilities() -> nix::Result<CapabilitySets> {
    let (mut head, mut words) = (CAPABILITIES_OF_SELF, [0_u32; 6]);
    // SAFETY: the kernel writes the head, and two times three words.
    let result = unsafe { libc::syscall(libc::SYS_capget, head.as_mut_ptr(), words.as_mut_ptr()) };
    Errno::result(result)?;
    let set = |at: usize| u64::from(words[at]) | u64::from(words[at + 3]) << 32;
    Ok(CapabilitySets {
        effective: set(0),
        permitted: set(1),
        inheritable: set(2),
    })
}

/// Sets the capabilities of this process.
///
/// # Errors
/// It has not all of them.
pub fn set_capabilities(sets: CapabilitySets) -> nix::Result<()> {
    let all = [sets.effective, sets.permitted, sets.inheritable];
    let low = all.map(|set| set as u32);
    let high = all.map(|set| (set >> 32) as u32);
    let (mut head, words) = (CAPABILITIES_OF_SELF, [low, high]);
    // SAFETY: the kernel reads the head, and two times three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, head.as_mut_ptr(), words.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Whether a program that this process executes can get this capability; `None` if the kernel does not know it.
pub fn is_in_bounding_set(capability: u32) -> Option<bool> {
    match prctl(libc::PR_CAPBSET_READ, capability.into(), 0) {
        Ok(found) => Some(found == 1),
        Err(_) => None,
    }
}

/// Keeps this capability from all programs that this process executes.
///
/// # Errors
/// It takes CAP_SETPCAP.
pub fn drop_from_bounding_set(capability: u32) -> nix::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Passes this capability on to the programs that this process executes.
///
/// # Errors
/// It is not permitted and inheritable.
pub fn raise_ambient(capability: u32) -> nix::Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    prctl(libc::PR_CAP_AMBIENT, raise, capability.into()).map(drop)
}

/// An operation on this process with two numbers.
fn prctl(
    operation: libc::c_int,
    first: libc::c_ulong,
    second: libc::c_ulong,
) -> nix::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: plain numbers, for operations that take no pointer.
    Errno::result(unsafe { libc::prctl(operation, first, second, none, none) })
}

/// Ignores [`ORDERS_TO_THE_MASTER`] from now on.
pub fn ignore_orders() {
    set_dispositions(
        ORDERS_TO_THE_MASTER.map(|signal| signal as i32),
        libc::SIG_IGN,
    );
}

fn check(stage: Stage, result: i32) -> Result<i32, Failure> {
    if result < 0 {
        Err(Failure::last(stage))
    } else {
        Ok(result)
    }
}

/// The number of connections that wait in the accept queue of a listener: tcp(7), `TCP_INFO`, where `tcpi_unacked` of a
/// listener counts them. For a unix socket 1 if any wait, else 0: poll(2).
pub fn accept_queue(listener: &BorrowedFd) -> u32 {
    // SAFETY: the structure consists of integers, for which zero is valid.
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

/// Receives a message and its sender's pid, if the socket passes credentials: unix(7). The control buffer has no room for
/// passed descriptors, so the kernel closes them. Never blocks.
///
/// # Errors
/// No message is queued (EAGAIN), or the kernel is out of memory.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> nix::Result<(usize, Option<Pid>)> {
    /// A control buffer for one header with credentials, aligned as a header must be.
    #[repr(C)]
    struct Room {
        header: libc::cmsghdr,
        credentials: libc::ucred,
        padding: u32,
    }
    // SAFETY: the structures consist of integers and pointers, for which zero is valid.
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
    let length = Errno::result(length)?;
    let has_credentials = message.msg_controllen > 0
        && room.header.cmsg_level == libc::SOL_SOCKET
        && room.header.cmsg_type == libc::SCM_CREDENTIALS;
    let sender = has_credentials.then(|| Pid::from_raw(room.credentials.pid));
    Ok((length as usize, sender))
}

/// Receives a packet and the descriptors that came with it: unix(7), `SCM_RIGHTS`. A packet without a byte is the end. Never blocks.
///
/// # Errors
/// No packet is queued (EAGAIN), or the kernel has no descriptor or memory left.
pub fn receive_descriptors(
    socket: BorrowedFd,
    bytes: &mut [u8],
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [io::IoSliceMut::new(bytes)];
    let mut room = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let packet = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut found = Vec::new();
    for message in packet.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            // SAFETY: the kernel has just made these descriptors, and nothing else knows them.
            found.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((packet.bytes, found))
}

/// From `asm-generic/socket.h`, since Linux 6.16. The libc crate does not define it yet.
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PASSRIGHTS: libc::c_int = 83;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_PASSRIGHTS: libc::c_int = 0x5c;

/// Refuses descriptors that are passed over a unix socket: the sender gets EPERM.
///
/// # Errors
/// The kernel is older than Linux 6.16.
pub fn refuse_descriptors(socket: BorrowedFd) -> nix::Result<()> {
    let no: libc::c_int = 0;
    // SAFETY: the kernel reads the size of one integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            ptr::from_ref(&no).cast(),
            size_of_val(&no) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// A descriptor that becomes readable when a child ends: pidfd_open(2).
///
/// # Errors
/// No descriptor is available, or the kernel is older than Linux 5.3.
pub fn watch_process(child: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just opened it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process of a descriptor, which is no other by then: pidfd_send_signal(2).
///
/// # Errors
/// It has ended, or this process may not signal it.
pub fn signal_process(process: BorrowedFd, signal: Signal) -> nix::Result<()> {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: plain numbers, and no information.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            none,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// The umask of this process. It is read without setting it, which umask(2) cannot: another thread may create a file meanwhile.
pub fn umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("Umask:"));
    match mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()) {
        Some(mask) => Mode::from_bits_truncate(mask),
        // The kernel is older than 4.7, or there is no /proc.
        None => {
            let mask = nix::sys::stat::umask(Mode::empty());
            nix::sys::stat::umask(mask);
            mask
        }
    }
}

/// An unpredictable random number: getrandom(2).
///
/// # Errors
/// The kernel's generator is not initialised yet, early at boot.
pub fn random() -> nix::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes at most the length of the array.
    let length =
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    // A read of up to 256 bytes is never partial: random(4).
    Errno::result(length)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// 256 random bits, in hexadecimal digits.
///
/// # Errors
/// See [`random`].
pub fn random_text() -> nix::Result<String> {
    let parts = (0..4).map(|_| Ok(format!("{:016x}", random()?)));
    parts.collect()
}

/// The range of a lock on a whole file: fcntl(2).
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Locks a file for as long as its description is open: fcntl(2), "Open file description locks".
///
/// # Errors
/// Another process has a lock, or the file is not open for writing.
pub fn write_lock(file: &impl AsFd) -> nix::Result<()> {
    let lock = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

/// Whether another process has locked a file with [`write_lock`].
///
/// # Errors
/// The file system has no locks.
pub fn is_write_locked(file: &impl AsFd) -> nix::Result<bool> {
    // Only a lock for writing conflicts with this one.
    let mut lock = whole_file(libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// The descriptors that were adopted.
static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Adopts a descriptor that was inherited from the parent process, and marks it as close-on-exec.
///
/// # Errors
/// It was not inherited: it is closed, is a standard stream, was adopted before, or was opened by this program. The last is
/// known by its close-on-exec flag, which the standard library and nix set on everything that they open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    let not_passed = |why: &str| io::Error::other(format!("descriptor {fd} was not passed: {why}"));
    if fd < FIRST_FD {
        return Err(not_passed("it is a standard stream"));
    }
    let mut taken = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&fd) {
        return Err(not_passed("it was adopted before"));
    }
    // SAFETY: plain numbers.
    let flags = Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(not_passed("it was opened by this program"));
    }
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    taken.insert(fd);
    // SAFETY: it is open, this program has not opened it, and nothing else in this program adopts it again.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

unsafe extern "C" {
    static mut environ: *const *const libc::c_char;
}

/// Copies the environment to the heap, permanently, to make room for a process title.
///
/// # Errors
/// This process has other threads, which might read the environment at the same time; or their number is unknown (proc(5)).
pub fn move_environment() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there is more than one thread"));
    }
    // SAFETY: the process has one thread, so nothing else reads or changes the environment at the same time. The list ends
    // with a null pointer and its entries are NUL-terminated strings; the copies are never freed.
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
    fn a_descriptor_is_adopted_once_and_only_if_it_was_inherited() {
        let own = pipe2(OFlag::O_CLOEXEC).expect("a pipe").0;
        let error = adopt(own.as_raw_fd()).expect_err("it is ours");
        assert!(
            error.to_string().contains("opened by this program"),
            "{error}"
        );
        assert!(adopt(2).is_err());
        assert!(adopt(1_000_000).is_err());
        let passed = std::os::fd::IntoRawFd::into_raw_fd(pipe2(OFlag::empty()).expect("a pipe").0);
        let taken = adopt(passed).expect("it looks inherited");
        assert!(adopt(taken.as_raw_fd()).is_err(), "once only");
    }
}
