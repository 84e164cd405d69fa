//! Opens what a log is written to. A file is opened relative to the folder that a walk has opened, and as the owner of the folder, never as root, if others
//! can change it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, Flock, FlockArg, OFlag, fcntl, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{
    Gid, Uid, User, fchown, getegid, geteuid, getgrouplist, setgid, setgroups, setuid,
};

use crate::effects::paths::{Border, Folder, Place, Trust};
use crate::log_writer::syslog::Sender;
use crate::plan::Upkeep;
use crate::plan::log_target::{LogTarget, SyslogSocket};

/// For appending. O_NONBLOCK so as not to wait for the reader of a fifo.
const FLAGS: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// What lines are written to.
pub enum Output {
    File(File),
    Syslog(Sender),
}

/// The result of a rotation.
pub enum Rotated {
    /// The open file has another name now.
    Done,
    /// Another writer of the same file is about to rename it, or it cannot be renamed at all.
    ByAnother,
}

/// The end of the way to a file.
enum Entered {
    Descriptor(i32),
    Folder(Folder, OsString, Trust),
}

/// Opens a log, also again.
pub struct Opening {
    target: LogTarget,
    upkeep: Upkeep,
    /// The user id at the start of this process.
    own: u32,
    /// Where the next walk starts when this process has changed its user id and may not search all folders from `/`.
    border: Option<Border>,
}

impl Opening {
    pub fn new(target: LogTarget, upkeep: Upkeep) -> Self {
        let own = geteuid().as_raw();
        Self {
            target,
            upkeep,
            own,
            border: None,
        }
    }

    pub fn target(&self) -> &LogTarget {
        &self.target
    }

    /// Opens the target by its name. If others can change its folder, a root process becomes the owner of the folder permanently.
    ///
    /// # Errors
    /// What is wrong with the folder, the file or the socket.
    pub fn open(&mut self) -> io::Result<Output> {
        match self.target.clone() {
            LogTarget::File(path) => self.open_file(&path).map(Output::File),
            LogTarget::Stdout => standard(1).map(Output::File),
            LogTarget::Syslog(syslog) => match &syslog.socket {
                SyslogSocket::Unix(path) => {
                    let (folder, name, trust) = match self.enter(Path::new(path))? {
                        Entered::Descriptor(_) => return Err(error("it is not a socket")),
                        Entered::Folder(folder, name, trust) => (folder, name, trust),
                    };
                    let fd = folder.as_fd().as_raw_fd();
                    let path = Path::new("/proc/self/fd").join(fd.to_string()).join(name);
                    Sender::unix(&path, &syslog).map_err(|error| self.explain(error, trust))
                }
                SyslogSocket::Udp(host, port) => Sender::udp(host, *port, &syslog),
            }
            .map(Output::Syslog),
        }
    }

    fn open_file(&mut self, path: &Path) -> io::Result<File> {
        let (folder, name, trust) = match self.enter(path)? {
            Entered::Descriptor(number) => return standard(number),
            Entered::Folder(folder, name, trust) => (folder, name, trust),
        };
        let strict = trust != Trust::Trusted || folder.is_shared;
        open_in(&folder, &name, strict, &self.upkeep).map_err(|error| self.explain(error, trust))
    }

    /// The size that the file may have, if it is to be rotated.
    pub fn limit(&self) -> Option<u64> {
        match self.target {
            LogTarget::File(_) => self.upkeep.size,
            _ => None,
        }
    }

    /// Renames the file that is open: to NAME.1, after NAME.1 to NAME.2 and so on. Two writers may have opened it: it is renamed
    /// by the one that locks it, and only while its name still stands for it.
    ///
    /// # Errors
    /// A file cannot be renamed; then the open one has its name.
    pub fn rotate(&mut self, open: &File) -> io::Result<Rotated> {
        let LogTarget::File(path) = self.target.clone() else {
            return Ok(Rotated::ByAnother);
        };
        let _lock = match Flock::lock(open.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(Rotated::ByAnother),
            Err((_, errno)) => return Err(errno.into()),
        };
        let Entered::Folder(folder, name, _) = self.enter(&path)? else {
            return Ok(Rotated::ByAnother);
        };
        let is_same = |a: &FileStat, b: &FileStat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let named = fstatat(&folder, &*name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if !named.is_ok_and(|named| fstat(open).is_ok_and(|open| is_same(&named, &open))) {
            // It was renamed or removed.
            return Ok(Rotated::Done);
        }
        let numbered = |number: u32| match number {
            0 => name.clone(),
            number => {
                let mut name = name.clone();
                name.push(format!(".{number}"));
                name
            }
        };
        for number in (0..self.upkeep.keep).rev() {
            let (from, to) = (numbered(number), numbered(number + 1));
            match renameat(&folder, &*from, &folder, &*to) {
                Ok(()) => {}
                Err(Errno::ENOENT) if number > 0 => {}
                Err(errno) => {
                    return Err(error(&format!(
                        "cannot rename {} to {}: {}",
                        from.display(),
                        to.display(),
                        errno.desc()
                    )));
                }
            }
        }
        Ok(Rotated::Done)
    }

    /// Walks to the folder, and becomes its owner if others can change it.
    fn enter(&mut self, path: &Path) -> io::Result<Entered> {
        let place = match &self.border {
            Some(border) => Place::find_from(border, self.own)?,
            None => Place::find(path)?,
        };
        let (mut folder, name) = match place {
            Place::Descriptor(number) => return Ok(Entered::Descriptor(number)),
            Place::In(folder, name) => (folder, name),
        };
        let trust = folder.trust();
        if let Trust::Owner { uid, gid } = trust
            && uid != 0
            && geteuid().is_root()
        {
            self.border = folder.take_border();
            become_user(uid, gid)
                .map_err(|errno| error(&format!("cannot become uid {uid}: {}", errno.desc())))?;
        }
        Ok(Entered::Folder(folder, name, trust))
    }

    fn explain(&self, error: io::Error, trust: Trust) -> io::Error {
        match trust {
            Trust::Owner { uid, .. }
                if error.kind() == io::ErrorKind::PermissionDenied && self.own == 0 =>
            {
                let message = format!(
                    "{error} (opened as uid {uid}, who can change the folder or the path to it: make this user the owner of the folder and the file, or root the owner of all folders on the path)"
                );
                io::Error::new(error.kind(), message)
            }
            _ => error,
        }
    }
}

/// Becomes a user with its groups, as at login, and gives up all privileges of root.
fn become_user(uid: u32, folder_gid: u32) -> nix::Result<()> {
    // This process may wait for a name service.
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let (gid, groups) = match user {
        Some(user) => {
            let name = std::ffi::CString::new(user.name).map_err(|_| Errno::EINVAL)?;
            let groups = getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
            (user.gid, groups)
        }
        None => {
            let gid = Gid::from_raw(if folder_gid == 0 { uid } else { folder_gid });
            (gid, vec![gid])
        }
    };
    setgroups(&groups)?;
    setgid(gid)?;
    setuid(Uid::from_raw(uid))?;
    // All three ids are set, so the change is permanent: setuid(2).
    let done = geteuid().as_raw() == uid && getegid() == gid && setuid(Uid::from_raw(0)).is_err();
    if done { Ok(()) } else { Err(Errno::EPERM) }
}

/// Opens a file in a folder. If others can change the folder or create files in it (`strict`), they may have put the file there,
/// to read the log or to block its writer, or may have linked another file there.
fn open_in(folder: &Folder, name: &OsStr, strict: bool, upkeep: &Upkeep) -> io::Result<File> {
    let flags = FLAGS | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    // Nobody may open a new file in the moment before its permissions are as they should be.
    let mode = Mode::from_bits_truncate(0o666 & upkeep.mode.unwrap_or(0o666));
    let file = openat(folder, name, flags, mode).map_err(|errno| match errno {
        Errno::ELOOP => error("it is a symbolic link (put the file itself there)"),
        Errno::ENXIO => error("it is a socket, or a fifo without a reader"),
        // The kernel may refuse such a file itself: protected_regular and protected_fifos in proc(5).
        Errno::EACCES if strict => {
            let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
            let refused = stat
                .ok()
                .and_then(|stat| check_owner(&stat, folder, upkeep).err());
            refused.unwrap_or_else(|| errno.into())
        }
        other => other.into(),
    })?;
    let stat = fstat(&file)?;
    if strict {
        check_owner(&stat, folder, upkeep)?;
    }
    match kind(&stat) {
        SFlag::S_IFREG if strict && stat.st_nlink > 1 => {
            return Err(error(
                "the file has several hard links, so it may be another user's file (remove it; preforkd will create a new one)",
            ));
        }
        SFlag::S_IFREG => give(&file, &stat, upkeep)?,
        SFlag::S_IFIFO | SFlag::S_IFCHR => {}
        _ => {
            return Err(error(
                "it is not a regular file, a fifo or a character device",
            ));
        }
    }
    Ok(blocking(file)?)
}

/// Sets the owner and the permissions that a regular file should have.
fn give(file: &OwnedFd, stat: &FileStat, upkeep: &Upkeep) -> io::Result<()> {
    let Upkeep {
        mode, owner, group, ..
    } = *upkeep;
    let failed = |what: String, errno: Errno| error(&format!("cannot {what}: {}", errno.desc()));
    let new = |wanted: Option<u32>, found: u32| wanted.filter(|wanted| *wanted != found);
    let (owner, group) = (new(owner, stat.st_uid), new(group, stat.st_gid));
    if let Some(owner) = owner {
        fchown(file, Some(Uid::from_raw(owner)), None)
            .map_err(|errno| failed(format!("make uid {owner} its owner"), errno))?;
    }
    if let Some(group) = group {
        fchown(file, None, Some(Gid::from_raw(group)))
            .map_err(|errno| failed(format!("give it to the group {group}"), errno))?;
    }
    if let Some(mode) = new(mode, stat.st_mode & 0o7777) {
        fchmod(file, Mode::from_bits_truncate(mode))
            .map_err(|errno| failed(format!("set its mode to {mode:04o}"), errno))?;
    }
    Ok(())
}

/// Checks that a file belongs to root, to this process's user, to the user that is to own it, or to the owner of the folder, who can
/// replace it anyway.
fn check_owner(stat: &FileStat, folder: &Folder, upkeep: &Upkeep) -> io::Result<()> {
    let own = geteuid().as_raw();
    let owner = stat.st_uid;
    if [0, own, fstat(folder)?.st_uid].contains(&owner) || upkeep.owner == Some(owner) {
        return Ok(());
    }
    let message = format!(
        "the file belongs to uid {owner}, and other users can create files in its folder (remove it, or make uid {own} its owner)"
    );
    Err(error(&message))
}

/// Standard output or error of this process, which are the master's.
fn standard(number: i32) -> io::Result<File> {
    let stream = match number {
        1 => io::stdout().as_fd().try_clone_to_owned()?,
        2 => io::stderr().as_fd().try_clone_to_owned()?,
        _ => return Err(error("it is neither standard output nor standard error")),
    };
    // A pipe is reopened if possible, so that blocking mode is not shared with other processes. A socket cannot be reopened,
    // and a file must keep the offset that it shares with other processes.
    if kind(&fstat(&stream)?) == SFlag::S_IFIFO {
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        if let Ok(reopened) = open(path.as_str(), FLAGS, Mode::empty()) {
            return Ok(blocking(reopened)?);
        }
    }
    Ok(stream.into())
}

/// Switches to blocking mode: this process may wait.
fn blocking(file: OwnedFd) -> nix::Result<File> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file.into())
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn error(message: &str) -> io::Error {
    io::Error::other(message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_files_to_append_to_are_opened_and_in_an_untrusted_folder_none_with_a_second_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let walked = Folder::open(path).expect("it is there");
        std::fs::write(path.join("file"), "one\n").expect("room");
        std::fs::hard_link(path.join("file"), path.join("twin")).expect("room");
        std::os::unix::fs::symlink("file", path.join("link")).expect("room");
        mkfifo(&path.join("fifo"), Mode::S_IRWXU).expect("room");
        let _socket = UnixListener::bind(path.join("socket")).expect("room");
        for (name, strict, reason) in [
            ("new", true, None),
            ("twin", false, None),
            ("twin", true, Some("several hard links")),
            ("link", false, Some("a symbolic link")),
            ("fifo", false, Some("without a reader")),
            ("socket", false, Some("a socket")),
        ] {
            let opened = open_in(&walked, OsStr::new(name), strict, &Upkeep::default());
            let said = opened.err().map(|error| error.to_string());
            match (&said, reason) {
                (None, None) => {}
                (Some(said), Some(reason)) => assert!(said.contains(reason), "{name}: {said}"),
                _ => panic!("{name}, {strict}: {said:?}"),
            }
        }
        let mut file =
            open_in(&walked, OsStr::new("file"), false, &Upkeep::default()).expect("it is there");
        file.write_all(b"two\n").expect("room");
        let text = std::fs::read_to_string(path.join("file"));
        assert_eq!(text.expect("it is there"), "one\ntwo\n");
    }

    #[test]
    fn standard_output_and_error_can_be_log_files_and_other_descriptors_cannot() {
        for path in ["/dev/stdout", "/dev/stderr"] {
            let target = LogTarget::File(path.into());
            Opening::new(target, Upkeep::default())
                .open()
                .expect("it is open");
        }
        let error = Opening::new(LogTarget::File("/dev/fd/3".into()), Upkeep::default()).open();
        let error = error.err().expect("not a log file").to_string();
        assert!(error.contains("neither"), "{error}");
    }
}
