//! The beacon of a running master: a memory file by which commands find its control socket.
//!
//! It is no file on a disk, so it cannot be stale. Commands see it in the list of the master's descriptors, which only its user and root
//! may read.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

/// The name of the memory file, and what it looks like in /proc: memfd_create(2).
const NAME: &std::ffi::CStr = c"preforkd control";
const SHOWN: &str = "/memfd:preforkd control (deleted)";

/// The name of the program: proc_pid_comm(5).
const PROGRAM: &str = "preforkd";

/// The longest path: limits.h(0p).
const MAX_PATH: u64 = 4096;

/// A beacon; it ends with the process.
pub struct Beacon {
    file: File,
}

impl Beacon {
    /// A beacon that names no socket yet.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn new() -> io::Result<Self> {
        let file = memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?.into();
        Ok(Self { file })
    }

    /// Names the control socket, by its absolute path.
    ///
    /// # Errors
    /// No memory is available.
    pub fn show(&self, socket: Option<&Path>) -> io::Result<()> {
        let path = socket.map_or(&[][..], |path| path.as_os_str().as_bytes());
        self.file.set_len(0)?;
        self.file.write_all_at(path, 0)
    }
}

/// What the beacon of a process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Where the master listens.
    Socket(PathBuf),
    /// The master has no control socket.
    NoSocket,
    /// It may not be read: the process is another user's.
    Hidden,
}

/// The process ids and control sockets of the masters that run now, and whose user is one of these. Other processes may name anything.
pub fn find(is_trusted: impl Fn(u32) -> bool) -> Vec<(u32, PathBuf)> {
    let found = running().into_iter().filter(|(_, uid, _)| is_trusted(*uid));
    let found = found.filter_map(|(pid, _, shown)| match shown {
        Shown::Socket(socket) => Some((pid, socket)),
        Shown::NoSocket | Shown::Hidden => None,
    });
    found.collect()
}

/// The processes of this program that run now, with their users: masters, and those that may be some.
pub fn running() -> Vec<(u32, u32, Shown)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.map(|entry| entry.path());
    let found = processes.filter_map(|process| {
        let name = std::fs::read_to_string(process.join("comm")).ok()?;
        let uid = process.metadata().ok()?.uid();
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        let shown = (name.trim_end() == PROGRAM).then(|| look(&process))??;
        Some((pid, uid, shown))
    });
    found.collect()
}

/// What the beacon of a process says; none if it has none.
fn look(process: &Path) -> Option<Shown> {
    match read(process) {
        Ok(Some(path)) => Some(Shown::Socket(path)),
        Ok(None) => Some(Shown::NoSocket),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Shown::Hidden),
        Err(_) => None,
    }
}

/// The socket that the beacon of a process names, if it names one.
///
/// # Errors
/// There is no beacon, or it may not be read.
fn read(process: &Path) -> io::Result<Option<PathBuf>> {
    let none = || io::Error::from(io::ErrorKind::NotFound);
    let descriptors = std::fs::read_dir(process.join("fd"))?.flatten();
    let mut paths = descriptors.map(|entry| entry.path());
    let beacon = paths.find(|path| path.read_link().is_ok_and(|to| to == Path::new(SHOWN)));
    // It may be something else by now, whose opening would wait or have an effect: this does not open it yet.
    let mut options = OpenOptions::new();
    let handle = options.read(true).custom_flags(OFlag::O_PATH.bits());
    let handle = handle.open(beacon.ok_or_else(none)?)?;
    let is_memory = fstatfs(&handle).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    let file = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    if !is_memory || file.read_link()? != Path::new(SHOWN) {
        return Err(none());
    }
    let mut path = Vec::new();
    let file = File::open(file)?;
    file.take(MAX_PATH).read_to_end(&mut path)?;
    let path = Path::new(OsStr::from_bytes(&path));
    Ok(path.is_absolute().then(|| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_names_the_socket_of_its_process() {
        let own = Path::new("/proc/self");
        let beacon = Beacon::new().expect("a descriptor");
        assert_eq!(look(own), Some(Shown::NoSocket));
        for path in ["/run/a/long/path", "/run/b"] {
            beacon.show(Some(Path::new(path))).expect("room");
            assert_eq!(look(own), Some(Shown::Socket(path.into())));
        }
        beacon.show(None).expect("room");
        assert_eq!(look(own), Some(Shown::NoSocket));
        drop(beacon);
        assert_eq!(look(own), None);
    }
}
