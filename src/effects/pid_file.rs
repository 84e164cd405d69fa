//! The master's process id in a file, for tools that look for it there.

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

use super::paths::Folder;
use crate::sys;

/// A process id and the end of its line are not longer.
const LONGEST: u64 = 32;

/// The file; removed when this is dropped, if it is still there.
#[derive(Debug)]
pub struct PidFile {
    folder: Folder,
    name: OsString,
    /// Kept open, so that its number is not given to another file.
    file: File,
}

impl PidFile {
    /// Writes it: whole or not at all.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written; something else lies there, which stays as it is; or the file names
    /// another master that runs.
    pub fn write(path: &Path) -> io::Result<Self> {
        let (folder, name) = Folder::of(path)?;
        if let Some(pid) = left_by(&folder, &name)?
            && is_other_master(pid)
        {
            let message = format!("it names another preforkd that runs, pid {pid}");
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

/// Who has left a pid file there; an error if something else lies there.
fn left_by(folder: &Folder, name: &OsString) -> io::Result<Option<u32>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let found = match openat(folder, &**name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP) => return Err(taken("a symbolic link")),
        Err(Errno::ENXIO) => return Err(taken("a file that is no pid file")),
        found => found?,
    };
    let stat = fstat(&found)?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(taken("a file that is no pid file"));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(taken(&format!("a file of uid {}", stat.st_uid)));
    }
    let mut text = String::new();
    let read = File::from(found).take(LONGEST).read_to_string(&mut text);
    match (read, text.trim()) {
        // A full disk may have left an empty one.
        (Ok(_), "") => Ok(None),
        (Ok(_), pid) if pid.parse::<u32>().is_ok() => Ok(pid.parse().ok()),
        _ => Err(taken("a file that is no pid file")),
    }
}

fn taken(what: &str) -> io::Error {
    let message = format!("there is {what} of this name (move it away, or configure another path)");
    io::Error::new(io::ErrorKind::AlreadyExists, message)
}

/// Whether a process is a master of this user. What a crashed one has left behind is nobody's, and a process of another user
/// may call itself what it likes.
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
            // If it cannot be removed, it names a dead process: no harm.
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
    fn it_names_this_process_and_goes_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        // Left behind by a process that is gone.
        std::fs::write(&path, "4194305\n").expect("room");
        let file = PidFile::write(&path).expect("room");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(file);
        assert_eq!(names(folder.path()), 0);
    }

    #[test]
    fn what_else_lies_there_stays_as_it_is() {
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
            (&notes, "no pid file"),
            (&link, "a symbolic link"),
            (&fifo, "no pid file"),
        ] {
            let error = PidFile::write(path).expect_err("something lies there");
            assert!(error.to_string().contains(said), "{error}");
        }
        let kept = std::fs::read(&notes).expect("it is there");
        assert_eq!(kept, b"\xffprecious");
        assert!(link.is_symlink());
        assert_eq!(names(folder.path()), 3, "no draft is left");
    }

    #[test]
    fn a_file_that_has_taken_its_place_is_not_removed() {
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
