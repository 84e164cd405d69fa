//! What has no safe form: duplicating descriptors, signal handlers. libc only where rustix has nothing.
//!
//! Other files are safe code, so each function here sees to its preconditions itself.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering,
};

use preforkd_http::descriptors;
use preforkd_http::standing::{self, Standing};
use pyo3::prelude::*;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::process::{Signal, getpid, kill_current_process_group};

/// Another descriptor for the same open file.
///
/// # Errors
/// There is no such descriptor, or no number is left.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow lasts for this call only and the number is not -1; a descriptor that is not open makes
    // the call fail with EBADF.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

/// Whether the caller holds the only reference to an object.
pub(crate) fn is_only_reference(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive and the interpreter's lock is held, as a Bound proves; the count is only read.
    unsafe { pyo3::ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// Where a request to stop is reported: an eventfd.
static STOP: AtomicI32 = AtomicI32::new(-1);
/// The process that the handlers work for; a forked child is not it until it says so.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// A request to stop has come.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// Seconds after which a process that was asked to stop is ended; 0 for never.
static LAST_RESORT: AtomicU32 = AtomicU32::new(0);
/// The timer for that, null as long as there is none. Not alarm(2), which an application may use for itself.
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
/// There is such a timer, of this process; its identity may be null.
static HAS_TIMER: AtomicBool = AtomicBool::new(false);
/// Its group ends with it then.
static TAKES_GROUP: AtomicBool = AtomicBool::new(false);

/// What the kernel sends when the master dies, and when the last resort is due. Nobody else uses these numbers, so that handlers
/// of the application are not in the way.
fn private_signals() -> [(libc::c_int, extern "C" fn(libc::c_int)); 2] {
    [
        (orphan_signal(), on_stop),
        (libc::SIGRTMAX() - 2, on_last_resort),
    ]
}

fn orphan_signal() -> libc::c_int {
    libc::SIGRTMAX() - 3
}

/// The handler of SIGABRT that was there before [`on_abort`], with its flags.
static BEFORE_ABORT: (AtomicUsize, AtomicI32) = (AtomicUsize::new(0), AtomicI32::new(0));

/// What a client gets whose request will not be served by this process (RFC 9110 section 15.6.4).
const UNSERVED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// Bytes that are dropped of what one client has sent. What is left resets its connection.
const DROPPED: usize = 4 * 1024 * 1024;
/// How long clients must have sent nothing until a worker that is aborted dies, in milliseconds: what is on its way takes a round trip.
const QUIET: libc::c_int = 100;
/// How long it waits for that at most.
const NOISY: libc::c_int = 500;
/// How often it looks.
const LOOK: libc::c_int = 10;

/// From now on a worker that is aborted, because it hangs or by itself, first ends its connections in good order. The handler that is
/// there by then, Python's own, shows the stacks and ends it.
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn end_connections_at_abort() -> io::Result<()> {
    // SAFETY: zero is a valid sigaction, and the kernel writes a local.
    let before = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGABRT, ptr::null(), &raw mut before);
        before
    };
    if before.sa_sigaction != on_abort as *const () as usize {
        BEFORE_ABORT.0.store(before.sa_sigaction, Ordering::SeqCst);
        BEFORE_ABORT.1.store(before.sa_flags, Ordering::SeqCst);
    }
    handle(libc::SIGABRT, on_abort)
}

extern "C" fn on_abort(signal: libc::c_int) {
    if getpid().as_raw_pid() == OWNER.load(Ordering::SeqCst) {
        end_connections();
    }
    // SAFETY: only calls that signal-safety(7) lists, on a local. The handler with these flags was installed by whoever it belongs
    // to. The signal is blocked until this handler returns, and comes to that one then.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        before.sa_sigaction = BEFORE_ABORT.0.load(Ordering::SeqCst);
        before.sa_flags = BEFORE_ABORT.1.load(Ordering::SeqCst);
        libc::sigaction(signal, &raw const before, ptr::null_mut());
        libc::raise(signal);
    }
}

/// Answers the requests that nobody has begun to serve, and ends all connections. The kernel resets a connection in whose socket something
/// is unread when the process dies, so what clients have sent is read. In a signal handler: the thread of the loop may be stuck.
///
/// It may also go on ([`HeldSignals::abort`]): it may have read a request and not noted yet that one waits. A connection that seems idle
/// is therefore looked at again and again, and ended last.
fn end_connections() {
    let (mut quiet, mut passed) = (0, 0);
    loop {
        let dropped: usize = standing::connections()
            .map(|(fd, standing)| refuse_what_waits(fd, standing))
            .sum();
        quiet = if dropped == 0 { quiet + LOOK } else { 0 };
        if quiet > QUIET || passed >= NOISY {
            break;
        }
        // SAFETY: no descriptors are passed. poll(2) is one of the calls that signal-safety(7) lists.
        unsafe { libc::poll(ptr::null_mut(), 0, LOOK) };
        passed += LOOK;
    }
    for (fd, standing) in standing::connections() {
        if standing != Standing::Served {
            // SAFETY: as in `refuse_what_waits`.
            let _ = shutdown(unsafe { BorrowedFd::borrow_raw(fd) }, Shutdown::Write);
        }
    }
}

/// Answers one connection's request that nobody has begun to serve, and ends it; the number of bytes that were dropped.
fn refuse_what_waits(fd: RawFd, standing: Standing) -> usize {
    // SAFETY: the server has the descriptor open. Should its loop run on another thread and close it meanwhile, calls fail.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let dropped = drop_input(socket);
    let waits = match standing {
        Standing::Served => false,
        Standing::Idle => dropped > 0,
        Standing::Waiting => true,
    };
    // The second time it fails, as nothing more can be sent; also if the client is gone.
    if waits && send(socket, UNSERVED, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok() {
        let _ = shutdown(socket, Shutdown::Write);
    }
    dropped
}

/// Reads what is there, without waiting; the number of bytes.
fn drop_input(socket: BorrowedFd<'_>) -> usize {
    let mut dropped = 0;
    let mut buffer = [0u8; 4096];
    while dropped < DROPPED {
        match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((n @ 1.., _)) => dropped += n,
            _ => break,
        }
    }
    dropped
}

extern "C" fn on_stop(_signal: libc::c_int) {
    // SAFETY: errno is the thread's own, and is put back as it was.
    let errno = unsafe { *libc::__errno_location() };
    request_stop();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Reports a request to stop, and sees to it that the process ends some time; in a signal handler too. A process that was forked from
/// the one that the request is for only notes it.
pub(crate) fn request_stop() {
    STOPPED.store(true, Ordering::SeqCst);
    if getpid().as_raw_pid() != OWNER.load(Ordering::SeqCst) {
        return;
    }
    // SAFETY: the descriptor is set before the owner, and never closed.
    let stop = unsafe { BorrowedFd::borrow_raw(STOP.load(Ordering::SeqCst)) };
    // Full: it is readable already.
    let _ = rustix::io::write(stop, &1u64.to_ne_bytes());
    arm_last_resort();
}

/// From now on it is only a matter of time until the process ends, whatever the application does; in a signal handler too.
pub(crate) fn arm_last_resort() {
    let seconds = LAST_RESORT.load(Ordering::SeqCst);
    if seconds > 0 && HAS_TIMER.load(Ordering::SeqCst) {
        // SAFETY: zero is a valid value of all fields; the timer is this process's and never deleted. The call is one of those
        // that signal-safety(7) lists.
        unsafe {
            let mut when: libc::itimerspec = std::mem::zeroed();
            when.it_value.tv_sec = seconds.into();
            libc::timer_settime(
                TIMER.load(Ordering::SeqCst),
                0,
                &raw const when,
                ptr::null_mut(),
            );
        }
    }
}

extern "C" fn on_last_resort(_signal: libc::c_int) {
    if TAKES_GROUP.load(Ordering::SeqCst) {
        end_group();
    }
    // SAFETY: only calls that signal-safety(7) lists, on a local. The default disposition runs no code.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const alarm, ptr::null_mut());
        libc::raise(libc::SIGALRM);
    }
}

/// Kills the group of the calling process, itself included; in a signal handler too.
pub(crate) fn end_group() {
    // It cannot fail: the caller is one of the group.
    let _ = kill_current_process_group(Signal::KILL);
}

/// From now on [`request_stop`] makes `stop` readable; also if a request came while the process was being forked. `last_resort` seconds
/// later the process is ended by SIGALRM, if it is not 0, or the whole of its group if it `takes_group`.
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn begin_to_listen(
    stop: &OwnedFd,
    last_resort: u32,
    takes_group: bool,
) -> io::Result<()> {
    let copy = stop.try_clone()?;
    let fd = copy.as_raw_fd();
    descriptors::own(&copy);
    // A handler may run until the end of the process, so its descriptor is never closed.
    std::mem::forget(copy);
    STOP.store(fd, Ordering::SeqCst);
    LAST_RESORT.store(last_resort, Ordering::SeqCst);
    TAKES_GROUP.store(takes_group, Ordering::SeqCst);
    for (signal, handler) in private_signals() {
        handle(signal, handler)?;
    }
    HAS_TIMER.store(make_timer(), Ordering::SeqCst);
    OWNER.store(getpid().as_raw_pid(), Ordering::SeqCst);
    if STOPPED.load(Ordering::SeqCst) {
        request_stop();
    }
    Ok(())
}

/// From now on SIGTERM and SIGINT are requests to stop, whatever the application or the interpreter had arranged.
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn stop_on_signals() -> io::Result<()> {
    STOP_SIGNALS
        .iter()
        .try_for_each(|&signal| handle(signal, on_stop))
}

/// What an administrator sends to the master, and to its whole service with `systemctl kill`. The default dispositions end or stop a process.
const ORDERS_TO_THE_MASTER: [libc::c_int; 5] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Keeps signals from this thread while it lives.
pub(crate) struct HeldSignals(libc::sigset_t);

impl HeldSignals {
    /// Holds [`ORDERS_TO_THE_MASTER`].
    pub(crate) fn orders() -> Self {
        Self::new(&ORDERS_TO_THE_MASTER)
    }

    /// Holds SIGABRT for the process: another thread takes it, so that this one can end what it is about to note. abort(3) of this thread
    /// itself works all the same.
    pub(crate) fn abort() -> Self {
        Self::new(&[libc::SIGABRT])
    }

    fn new(signals: &[libc::c_int]) -> Self {
        // SAFETY: an empty set is all zero; the sets are locals. The call cannot fail, as its first argument is valid.
        unsafe {
            let (mut held, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
            for &signal in signals {
                libc::sigaddset(&raw mut held, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const held, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Which of [`ORDERS_TO_THE_MASTER`] are ignored.
pub(crate) fn ignored_orders() -> impl Iterator<Item = libc::c_int> {
    let all = ORDERS_TO_THE_MASTER.into_iter();
    all.filter(|&signal| disposition(signal) == libc::SIG_IGN)
}

/// From now on a signal that is meant for the master does nothing here, unless it is handled or ignored already.
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn disregard_orders_to_the_master() -> io::Result<()> {
    for signal in ORDERS_TO_THE_MASTER {
        if disposition(signal) == libc::SIG_DFL {
            handle(signal, on_order)?;
        }
    }
    Ok(())
}

extern "C" fn on_order(_signal: libc::c_int) {}

fn disposition(signal: libc::c_int) -> usize {
    // SAFETY: zero is a valid sigaction, which the kernel fills.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action);
        action.sa_sigaction
    }
}

/// From now on the death of the master is a request to stop, and no SIGTERM, which an application may have taken for itself.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn stop_when_orphaned() -> io::Result<()> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, orphan_signal(), 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: zero is a valid sigaction; the handler is a function of the right type that only does what a handler may.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes the timer of the last resort; false if there is none to be had, so that only the master ends a process that is stuck.
fn make_timer() -> bool {
    let [_, (signal, _)] = private_signals();
    // SAFETY: zero is a valid sigevent, and the kernel writes the timer's identity into a local.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer: libc::timer_t = ptr::null_mut();
        let made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0;
        TIMER.store(timer, Ordering::SeqCst);
        made
    }
}

/// What ends a process, by default or in Python.
const STOP_SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];
/// This process was forked by the application, from the worker.
static IS_FORKED: AtomicBool = AtomicBool::new(false);
/// Which of [`STOP_SIGNALS`] were blocked before the fork that is under way.
static BLOCKED: AtomicU8 = AtomicU8::new(0);
/// [`let_go_in_children`] was called.
static LETS_GO: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked by the application, from the worker.
pub(crate) fn is_forked() -> bool {
    IS_FORKED.load(Ordering::Relaxed)
}

/// From now on what is forked from this process, by Python or any library, has the default dispositions of the signals that stop a
/// worker, and /dev/null in place of each descriptor that is the server's own. In place, so that server code that should run there all
/// the same reaches nobody, and no file that is opened later.
///
/// # Errors
/// There is no memory left.
pub(crate) fn let_go_in_children() -> io::Result<()> {
    if LETS_GO.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    // SAFETY: the handlers only make calls that signal-safety(7) lists, on atomics and locals, as the child of a process with
    // threads must. glibc and musl let no two forks run them at the same time.
    match unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Until its dispositions are the default ones, a signal to the child waits.
extern "C" fn before_fork() {
    if is_forked() {
        return;
    }
    // SAFETY: an empty set is all zero; the sets are locals.
    unsafe {
        let (mut set, mut old): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        for signal in STOP_SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut old);
        let blocked = STOP_SIGNALS.iter().enumerate().map(|(bit, &signal)| {
            let is_blocked = libc::sigismember(&raw const old, signal) == 1;
            u8::from(is_blocked) << bit
        });
        BLOCKED.store(blocked.sum(), Ordering::SeqCst);
    }
}

extern "C" fn after_fork() {
    if is_forked() {
        return;
    }
    let blocked = BLOCKED.load(Ordering::SeqCst);
    // SAFETY: an empty set is all zero; the set is a local.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        for (bit, &signal) in STOP_SIGNALS.iter().enumerate() {
            if blocked >> bit & 1 == 0 {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

extern "C" fn in_child() {
    if is_forked() {
        return;
    }
    let private = private_signals().map(|(signal, _)| signal);
    for signal in STOP_SIGNALS.into_iter().chain(private) {
        // What is ignored stays so, as in any child.
        if disposition(signal) != libc::SIG_IGN {
            // SAFETY: the default disposition runs no code.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    for signal in ORDERS_TO_THE_MASTER {
        if disposition(signal) == on_order as extern "C" fn(libc::c_int) as usize {
            // SAFETY: as above.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: a NUL-terminated string. The descriptors that are replaced are the server's, whose code does not go on here.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for fd in descriptors::owned() {
            if null < 0 || libc::dup3(null, fd, libc::O_CLOEXEC) < 0 {
                libc::close(fd);
            }
        }
        if null >= 0 {
            libc::close(null);
        }
    }
    after_fork();
    // From here on a process like any other: what it forks has nothing to let go of.
    IS_FORKED.store(true, Ordering::SeqCst);
}
