//! What has no safe form: adopting descriptors, mapping the scoreboard, signal handlers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use preforkd_worker::scoreboard::{RECORD_BYTES, RECORD_WORDS};
use pyo3::prelude::*;

/// Takes over a descriptor that the master passed; it is not inherited any further.
///
/// # Errors
/// There is no such descriptor.
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD touches no memory.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as the call before showed, and the contract gives it to this function alone: each number
    // is adopted once, at the start of the process, and nobody else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

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

/// Maps record `index` of the scoreboard. The mapping stays for the rest of the process.
///
/// # Errors
/// The memory is too small, or cannot be mapped.
pub(crate) fn map_record(memory: &OwnedFd, index: u32) -> io::Result<&'static [AtomicU64]> {
    let offset = index as usize * RECORD_BYTES;
    let length = rustix::fs::fstat(memory)?.st_size;
    if length < (offset + RECORD_BYTES) as i64 {
        return Err(io::Error::other(format!(
            "the scoreboard has {length} bytes and no record {index}"
        )));
    }
    let page = rustix::param::page_size();
    let start = offset / page * page;
    // SAFETY: a new shared mapping at a place that the kernel chooses; no existing memory is touched.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            memory.as_raw_fd(),
            start as libc::off_t,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the record lies within the mapped page, since a page is a multiple of a record, and within the file, whose size
    // was checked and which the master never shrinks. It is never unmapped, hence 'static. It is aligned to 8 bytes, and
    // AtomicU64 is valid for all bits and for memory that other processes read.
    Ok(unsafe {
        std::slice::from_raw_parts(
            address.byte_add(offset - start).cast::<AtomicU64>(),
            RECORD_WORDS,
        )
    })
}

/// Where the handler reports a request to stop: an eventfd.
static STOP: AtomicI32 = AtomicI32::new(-1);
/// The process that the handler works for; a forked child is not it until it says so.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// A request to stop has come.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// Seconds after which a process that was asked to stop is ended by SIGALRM; 0 for never.
static LAST_RESORT: AtomicU32 = AtomicU32::new(0);
/// Its group ends with it then.
static TAKES_GROUP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_stop(_signal: libc::c_int) {
    // SAFETY: only calls that signal-safety(7) lists, on atomics and a local, and errno is put back as it was.
    unsafe {
        let errno = *libc::__errno_location();
        STOPPED.store(true, Ordering::SeqCst);
        if libc::getpid() == OWNER.load(Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            libc::write(STOP.load(Ordering::SeqCst), one.as_ptr().cast(), one.len());
            let seconds = LAST_RESORT.load(Ordering::SeqCst);
            if seconds > 0 {
                // The application may have taken SIGALRM for itself.
                let last = match TAKES_GROUP.load(Ordering::SeqCst) {
                    true => on_last_resort as extern "C" fn(libc::c_int) as libc::sighandler_t,
                    false => libc::SIG_DFL,
                };
                libc::signal(libc::SIGALRM, last);
                libc::alarm(seconds);
            }
        }
        *libc::__errno_location() = errno;
    }
}

extern "C" fn on_last_resort(_signal: libc::c_int) {
    end_group();
}

/// Kills the group of the calling process, itself included; in a signal handler too.
pub(crate) fn end_group() {
    // SAFETY: kill touches no memory, and signal-safety(7) lists it.
    unsafe { libc::kill(0, libc::SIGKILL) };
}

/// From now on SIGTERM and SIGINT make `stop` readable instead of what the application or the interpreter had arranged; also if
/// one came while the process was being forked. `last_resort` seconds later SIGALRM ends the process, if it is not 0, and the rest of
/// its group if it `takes_group`.
///
/// # Errors
/// The kernel refuses the handler.
pub(crate) fn stop_on_signal(
    stop: &OwnedFd,
    last_resort: u32,
    takes_group: bool,
) -> io::Result<()> {
    let copy = stop.try_clone()?;
    let fd = copy.as_raw_fd();
    // The handler may run until the end of the process, so its descriptor is never closed.
    std::mem::forget(copy);
    STOP.store(fd, Ordering::SeqCst);
    LAST_RESORT.store(last_resort, Ordering::SeqCst);
    TAKES_GROUP.store(takes_group, Ordering::SeqCst);
    OWNER.store(std::process::id().cast_signed(), Ordering::SeqCst);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: zero is a valid sigaction; the handler is a function of the right type that only does what a handler may.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_stop as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    if STOPPED.load(Ordering::SeqCst) {
        rustix::io::write(stop, &1u64.to_ne_bytes())?;
    }
    Ok(())
}
