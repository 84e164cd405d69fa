//! The file with the master's process id, for tools that read it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::paths::{Folder, Trust};
use crate::sys;

/// The maximum length of a process id and a newline.
const MAX_LENGTH: u64 = 32;

/// The pid file. Dropping it removes the file if it is still the same one.
#[derive(Debug)]
pub struct PidFile {
    folder: Folder,
    name: OsString,
    /// Kept open, so that its inode number is not reused.
    file: File,
}

impl PidFile {
    /// Writes the pid file, completely or not at all.
    ///
    /// # Errors
    /// The folder does not exist or is not writable; the master is root and others could replace the file; the path is another file, which is not touched; or the file names another
    /// master that runs.
    pub fn write(path: &Path) -> io::Result<Self> {
        let (folder, name) = Folder::of(path)?;
        if geteuid().is_root() {
            check_trust(folder.trust())?;
        }
        if let Some(pid) = left_by(&folder, &name)?
            && is_other_master(pid)
        {
            let message = format!("it names another running preforkd, pid {pid}");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let mut draft = OsString::from(".");
        draft.push(&name);
        draft.push(format!(".{:016x}", sys::random()?));
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let mut file = File::from(openat(&folder, &*draft, flags, mode)?);
        let written = file
            .write_all(format!("{}\n", std::process::id()).as_bytes())
            .and_then(|()| Ok(renameat(&folder, &*draft, &folder, &*name)?));
        if let Err(error) = written {
            let _ = unlinkat(&folder, &*draft, UnlinkatFlags::NoRemoveDir);
            return Err(error);
        }
        Ok(Self { folder, name, file })
    }
}

/// Checks that no other user can replace the file of a root master.
fn check_trust(trust: Trust) -> io::Result<()> {
    let who = match trust {
        Trust::Trusted => return Ok(()),
        Trust::Owner { uid: 0, .. } => {
            "users other than root can write to its folder or one above it, and".to_owned()
        }
        Trust::Owner { uid, .. } => {
            format!("its folder or one above it belongs to uid {uid}, who")
        }
    };
    let message = format!(
        "{who} could replace the file, so that root signals another process (choose a folder that only root can change, such as /run)"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// The process id in an existing pid file; an error if the path is another kind of file.
fn left_by(folder: &Folder, name: &OsString) -> io::Result<Option<u32>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let found = match openat(folder, &**name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP) => return Err(taken("a symbolic link")),
        Err(Errno::ENXIO) => return Err(taken("a file that is not a pid file")),
        found => found?,
    };
    let stat = fstat(&found)?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(taken("a file that is not a pid file"));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(taken(&format!("a file of uid {}", stat.st_uid)));
    }
    let mut text = String::new();
    let read = File::from(found).take(MAX_LENGTH).read_to_string(&mut text);
    match (read, text.trim()) {
        // A full disk may have left an empty file.
        (Ok(_), "") => Ok(None),
        (Ok(_), pid) if pid.parse::<u32>().is_ok() => Ok(pid.parse().ok()),
        _ => Err(taken("a file that is not a pid file")),
    }
}

fn taken(what: &str) -> io::Error {
    let message = format!("there is {what} at this path (move it away, or configure another path)");
    io::Error::new(io::ErrorKind::AlreadyExists, message)
}

/// Whether a process is a master of this user. A stale pid may belong to any process now, and a process of another user can
/// have any name.
fn is_other_master(pid: u32) -> bool {
    let owner = std::fs::metadata(format!("/proc/{pid}")).map(|process| process.uid());
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    owner.is_ok_and(|owner| owner == geteuid().as_raw())
        && command.is_ok_and(|command| command.trim() == "preforkd")
        && pid != std::process::id()
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let named = fstatat(&self.folder, &*self.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if let (Ok(named), Ok(ours)) = (named, fstat(self.file.as_fd()))
            && (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)
        {
            // A file that cannot be removed names a dead process, which does no harm.
            let _ = unlinkat(&self.folder, &*self.name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> usize {
        std::fs::read_dir(folder).expect("ours").count()
    }

    #[test]
    fn it_names_this_process_and_is_removed_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        // Left behind by a dead process.
        std::fs::write(&path, "4194305\n").expect("room");
        let file = PidFile::write(&path).expect("room");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(file);
        assert_eq!(names(folder.path()), 0);
    }

    #[test]
    fn another_file_at_the_path_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let (notes, link, fifo) = (
            folder.path().join("notes"),
            folder.path().join("link"),
            folder.path().join("fifo"),
        );
        std::fs::write(&notes, b"\xffprecious").expect("room");
        symlink("notes", &link).expect("room");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).expect("room");
        for (path, said) in [
            (&notes, "not a pid file"),
            (&link, "a symbolic link"),
            (&fifo, "not a pid file"),
        ] {
            let error = PidFile::write(path).expect_err("another file is there");
            assert!(error.to_string().contains(said), "{error}");
        }
        let kept = std::fs::read(&notes).expect("it is there");
        assert_eq!(kept, b"\xffprecious");
        assert!(link.is_symlink());
        assert_eq!(names(folder.path()), 3, "no draft is left");
    }

    #[test]
    fn a_file_that_has_replaced_it_is_not_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        let file = PidFile::write(&path).expect("room");
        let text = std::fs::read_to_string(&path).expect("it is there");
        std::fs::remove_file(&path).expect("ours");
        std::fs::write(&path, text).expect("room");
        drop(file);
        assert!(path.exists());
    }
}
