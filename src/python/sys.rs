//! What has no safe form: adopting descriptors, mapping the scoreboard, signal handlers. libc only where rustix has nothing.
//!
//! Other files are safe code, so each function here sees to its preconditions itself.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use preforkd_worker::scoreboard::{RECORD_BYTES, RECORD_WORDS};
use pyo3::prelude::*;
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Signal, getpid, kill_current_process_group};

/// The descriptors that were taken over.
static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over a descriptor that the master passed; it is not inherited any further.
///
/// # Errors
/// There is no such descriptor, or it is a standard stream or was taken over before.
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    let mut adopted = ADOPTED.lock().map_err(|_| io::ErrorKind::Other)?;
    if fd <= libc::STDERR_FILENO || !adopted.insert(fd) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is not -1, and the borrow lasts for this call only, which fails if nothing is open there.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, as the call before showed. It is no standard stream, and is given out once, as the set
    // shows. The contract says that it is there for this process, whose other code has not run yet and cannot own it.
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
/// The memory is not sealed or too small, or cannot be mapped.
pub(crate) fn map_record(memory: &OwnedFd, index: u32) -> io::Result<&'static [AtomicU64]> {
    // Without the seals another process could cut the memory off under the mapping, and an access would be SIGBUS.
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    if !fcntl_get_seals(memory)?.contains(sealed) {
        return Err(io::Error::other(
            "its size is not sealed (F_SEAL_SHRINK and F_SEAL_GROW)",
        ));
    }
    let offset = u64::from(index) * RECORD_BYTES as u64;
    let length = fstat(memory)?.st_size;
    if u64::try_from(length).unwrap_or(0) < offset + RECORD_BYTES as u64 {
        return Err(io::Error::other(format!(
            "the scoreboard has {length} bytes and no record {index}"
        )));
    }
    let page = rustix::param::page_size();
    let start = offset / page as u64 * page as u64;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let anywhere = ptr::null_mut();
    // SAFETY: a new shared mapping at a place that the kernel chooses; no existing memory is touched.
    let address = unsafe { mmap(anywhere, page, protection, MapFlags::SHARED, memory, start) }?;
    // SAFETY: the record lies within the mapped page, since a page is a multiple of a record, and within the file, whose size
    // was checked and is sealed. It is never unmapped, hence 'static. It is aligned to 8 bytes, and AtomicU64 is valid
    // for all bits and for memory that other processes read and write.
    Ok(unsafe {
        std::slice::from_raw_parts(
            address
                .byte_add((offset - start) as usize)
                .cast::<AtomicU64>(),
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
    // SAFETY: only calls that signal-safety(7) lists, on atomics and a local, and errno is put back as it was. The descriptor
    // is set before the owner, and never closed.
    unsafe {
        let errno = *libc::__errno_location();
        STOPPED.store(true, Ordering::SeqCst);
        if getpid().as_raw_pid() == OWNER.load(Ordering::SeqCst) {
            let stop = BorrowedFd::borrow_raw(STOP.load(Ordering::SeqCst));
            // Full: it is readable already.
            let _ = rustix::io::write(stop, &1u64.to_ne_bytes());
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
    // It cannot fail: the caller is one of the group.
    let _ = kill_current_process_group(Signal::KILL);
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
    OWNER.store(getpid().as_raw_pid(), Ordering::SeqCst);
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
