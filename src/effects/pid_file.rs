//! The file with the master's process id, for tools that read it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use super::paths::{Folder, Trust};
use crate::sys;

/// The maximum length of a process id and a newline.
const MAX_LENGTH: u64 = 32;

/// How often to try again when another process has changed the file meanwhile.
const ATTEMPTS: u32 = 3;

/// The pid file. Dropping it removes the file if it is still the same one.
#[derive(Debug)]
pub struct PidFile {
    folder: Folder,
    name: OsString,
    /// Kept open for its lock, and so that its inode number is not reused.
    file: File,
}

impl PidFile {
    /// Writes the pid file, completely or not at all, and locks it while this process runs.
    ///
    /// # Errors
    /// The folder does not exist or is not writable; the master is root and others could replace the file; the path is another file,
    /// which is not touched; or another master that runs has written and locked it.
    pub fn write(path: &Path) -> io::Result<Self> {
        let (folder, name) = Folder::of(path)?;
        if geteuid().is_root() {
            check_trust(folder.trust())?;
        }
        for _ in 0..ATTEMPTS {
            let left = left_by_another(&folder, &name)?;
            let (draft, file) = draft(&folder, &name)?;
            // Of two masters that start at the same time, one does not get the lock, or finds the name taken.
            let rename = || renameat(&folder, &*draft, &folder, &*name);
            let placed = match &left {
                Some(left) if is_named(&folder, &name, left) => rename(),
                Some(_) => Err(Errno::EEXIST),
                None => match linkat(&folder, &*draft, &folder, &*name, AtFlags::empty()) {
                    // The file system has no hard links, so a name that was taken just now is not seen.
                    Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => rename(),
                    linked => linked,
                },
            };
            // It is gone if it was renamed.
            let _ = unlinkat(&folder, &*draft, UnlinkatFlags::NoRemoveDir);
            match placed {
                Ok(()) => return Ok(Self { folder, name, file }),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(taken("a file that other processes keep replacing"))
    }

    /// Whether this path leads to the file.
    pub fn is_at(&self, path: &Path) -> bool {
        Folder::of(path).is_ok_and(|(folder, name)| is_named(&folder, &name, &self.file))
    }
}

/// A complete file under another name, locked by this process.
fn draft(folder: &Folder, name: &OsString) -> io::Result<(OsString, File)> {
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{:016x}", sys::random()?));
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // Others may read it, and so lock it, only after the master.
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file = File::from(openat(folder, &*draft, flags, mode)?);
    let readable = Mode::from_bits_truncate(0o644 & !sys::umask().bits());
    let written = sys::write_lock(&file)
        .map_err(io::Error::from)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .and_then(|()| Ok(fchmod(&file, readable)?));
    if let Err(error) = written {
        let _ = unlinkat(folder, &*draft, UnlinkatFlags::NoRemoveDir);
        return Err(error);
    }
    Ok((draft, file))
}

/// Whether a name refers to an open file.
fn is_named(folder: &Folder, name: &OsString, file: &File) -> bool {
    let named = fstatat(folder, &**name, AtFlags::AT_SYMLINK_NOFOLLOW);
    matches!((named, fstat(file)), (Ok(named), Ok(file))
        if (named.st_dev, named.st_ino) == (file.st_dev, file.st_ino))
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

/// The pid file of a master that has ended, locked by this process; an error if its master runs, or if the path is another kind of
/// file.
fn left_by_another(folder: &Folder, name: &OsString) -> io::Result<Option<File>> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // What it is comes first: to open another file for writing could have an effect.
    let look = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = match openat(folder, &**name, look, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        found => found?,
    };
    let stat = fstat(&found)?;
    match kind(&stat) {
        SFlag::S_IFREG => {}
        SFlag::S_IFLNK => return Err(taken("a symbolic link")),
        _ => return Err(taken("a file that is not a pid file")),
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(taken(&format!("a file of uid {}", stat.st_uid)));
    }
    let mut file = match openat(folder, &**name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        opened => File::from(opened?),
    };
    let mut text = String::new();
    let read = (&mut file).take(MAX_LENGTH).read_to_string(&mut text);
    let text = text.trim();
    // A full disk may have left an empty file.
    if read.is_err() || !text.is_empty() && text.parse::<u32>().is_err() {
        return Err(taken("a file that is not a pid file"));
    }
    // Its master may write to it; those who may only read it cannot take such a lock.
    if sys::is_write_locked(&file)? {
        let message = format!("another preforkd, pid {text}, is running and has locked it");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // Somebody who reads it may hold another lock, which does not matter.
    let _ = sys::write_lock(&file);
    Ok(Some(file))
}

fn taken(what: &str) -> io::Error {
    let message = format!("there is {what} at this path (move it away, or configure another path)");
    io::Error::new(io::ErrorKind::AlreadyExists, message)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_named(&self.folder, &self.name, &self.file) {
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

    #[test]
    fn a_lock_tells_whether_its_master_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        let file = PidFile::write(&path).expect("room");
        let error = PidFile::write(&path).expect_err("its master runs");
        let said = format!("another preforkd, pid {}, is running", std::process::id());
        assert!(error.to_string().contains(&said), "{error}");
        assert_eq!(names(folder.path()), 1, "no draft is left");
        assert!(file.is_at(&path));

        // A file that was removed does not keep others from writing theirs.
        std::fs::remove_file(&path).expect("ours");
        assert!(!file.is_at(&path));
        let second = PidFile::write(&path).expect("room");
        drop(file);
        assert!(second.is_at(&path));
        drop(second);

        // The pid of a running process, which is not a master.
        std::fs::write(&path, format!("{}\n", std::process::id())).expect("room");
        PidFile::write(&path).expect("it is stale");
    }
}
