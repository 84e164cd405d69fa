//! Files of sockets that killed processes have left.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::{Folder, Trust, kind};

/// A process that has bound a socket listens at once, but not in the same moment. Until then the socket looks dead.
const IS_BEING_MADE: Duration = Duration::from_secs(60);

/// The maximum number of files that are looked at, so that a start does not take long.
const MOST: usize = 1000;

/// Connects to the socket that an open file is. Never blocks.
pub(super) fn connect(file: &OwnedFd, of: SockType) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket::socket(AddressFamily::Unix, of, flags, None)?;
    let address = UnixAddr::new(&*format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    socket::connect(probe.as_raw_fd(), &address)?;
    Ok(probe)
}

/// Whether a file is a socket of this type that no process reads, or listens at.
pub fn is_dead(folder: impl AsFd, name: &OsStr, of: SockType) -> bool {
    find(folder, name).is_ok_and(|(file, _)| connect(&file, of).err() == Some(Errno::ECONNREFUSED))
}

/// The file of a socket.
fn find(folder: impl AsFd, name: &OsStr) -> nix::Result<(OwnedFd, FileStat)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty())?;
    let stat = fstat(&file)?;
    match kind(&stat) {
        SFlag::S_IFSOCK => Ok((file, stat)),
        _ => Err(Errno::ENOTSOCK),
    }
}

/// The names in an open folder.
pub fn names(folder: impl AsFd) -> Vec<OsString> {
    let folder = folder.as_fd().as_raw_fd();
    let entries = std::fs::read_dir(format!("/proc/self/fd/{folder}"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

/// Removes the stream sockets of this user with such names, at which nobody listens and which are not being made now, from a folder that
/// others cannot change. Returns their number. One that cannot be removed does no harm.
pub fn remove_left(folder: &Folder, is_ours: impl Fn(&str) -> bool) -> usize {
    if folder.trust() != Trust::Trusted {
        return 0;
    }
    let names = names(folder).into_iter();
    let names = names.filter(|name| name.to_str().is_some_and(&is_ours));
    let removed = names.take(MOST).filter(|name| remove(folder, name).is_ok());
    removed.count()
}

fn remove(folder: &Folder, name: &OsStr) -> nix::Result<()> {
    let (file, found) = find(folder, name)?;
    if found.st_uid != geteuid().as_raw() || !is_old(&found) {
        return Err(Errno::EPERM);
    }
    match connect(&file, SockType::Stream) {
        Err(Errno::ECONNREFUSED) => {}
        Err(errno) => return Err(errno),
        Ok(_) => return Err(Errno::EADDRINUSE),
    }
    // A master that starts now may have made its own in this place.
    let now = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if (found.st_dev, found.st_ino) != (now.st_dev, now.st_ino) {
        return Err(Errno::ESTALE);
    }
    unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
}

/// Whether a socket was bound so long ago that its process listens, if it lives.
fn is_old(stat: &FileStat) -> bool {
    let bound = u64::try_from(stat.st_mtime).map(Duration::from_secs);
    let bound = bound.map(|since| SystemTime::UNIX_EPOCH + since);
    bound.is_ok_and(|bound| bound.elapsed().is_ok_and(|age| age > IS_BEING_MADE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::path::Path;

    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;

    use super::*;

    /// Makes a socket look as if it had been bound at this time.
    fn date(path: &Path, at: SystemTime) {
        let at = at.duration_since(SystemTime::UNIX_EPOCH).expect("later");
        let at = TimeSpec::from_duration(at);
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(AT_FDCWD, path, &at, &at, flags).expect("ours");
    }

    #[test]
    fn only_old_sockets_of_ours_at_which_nobody_listens_are_removed() {
        let place = tempfile::tempdir().expect("a folder");
        let path = |name: &str| place.path().join(name);
        let old = SystemTime::now() - 2 * IS_BEING_MADE;
        let left = |name: &str, at| {
            drop(UnixListener::bind(path(name)).expect("room"));
            date(&path(name), at);
        };
        left("x-dead", old);
        left("x-dead-too", old);
        left("other", old);
        left("x-young", SystemTime::now());
        left("x-of-tomorrow", SystemTime::now() + 2 * IS_BEING_MADE);
        let _live = UnixListener::bind(path("x-live")).expect("room");
        date(&path("x-live"), old);
        let _datagrams = UnixDatagram::bind(path("x-datagrams")).expect("room");
        date(&path("x-datagrams"), old);
        std::fs::write(path("x-file"), "precious").expect("room");
        date(&path("x-file"), old);
        symlink(path("other"), path("x-link")).expect("room");
        date(&path("x-link"), old);
        let mut stay = vec![
            "other",
            "x-datagrams",
            "x-file",
            "x-link",
            "x-live",
            "x-of-tomorrow",
            "x-young",
        ];
        if geteuid().is_root() {
            left("x-foreign", old);
            chown(path("x-foreign"), Some(7), None).expect("root may");
            stay.insert(3, "x-foreign");
        }
        let folder = Folder::open(place.path()).expect("ours");
        assert_eq!(remove_left(&folder, |name| name.starts_with("x-")), 2);
        let mut names = names(&folder);
        names.sort();
        assert_eq!(names, stay);
    }
}
