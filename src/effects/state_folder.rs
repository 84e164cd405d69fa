//! Small files that outlast a restart, in a folder that only the user of the master can enter. Waits for disks: for helper processes.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::paths::{Folder, Trust};

/// The largest file, in bytes.
const MOST: u64 = 1 << 20;

const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
const PRIVATE_FOLDER: Mode = Mode::S_IRWXU;

/// Reads a name only where it stands.
const FLAGS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

/// A folder, which no other process uses at the same time.
#[derive(Debug)]
pub struct StateFolder {
    folder: Folder,
    _lock: Flock<File>,
}

impl StateFolder {
    /// Opens the folder of this name in `state`, and makes both if they do not exist. Waits until no other process has it.
    ///
    /// # Errors
    /// It cannot be made or opened; or the user of this process is root, and others could change it.
    pub fn open(state: &Path, name: &str) -> io::Result<Self> {
        make(state)?;
        let path = state.join(name);
        make(&path)?;
        let folder = Folder::open(&path)?;
        if geteuid().is_root() && folder.trust() != Trust::Trusted {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "others than root can change it or a folder above it (choose one that only root can change)",
            ));
        }
        let flags = FLAGS | OFlag::O_RDWR | OFlag::O_CREAT;
        let lock = File::from(openat(&folder, "lock", flags, PRIVATE)?);
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// The text of a file; none if there is none.
    ///
    /// # Errors
    /// It cannot be read, is too large or not UTF-8.
    pub fn read(&self, name: &str) -> io::Result<Option<String>> {
        let flags = FLAGS | OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(about(name, errno.into())),
        };
        let mut text = String::new();
        let read = file.take(MOST).read_to_string(&mut text);
        read.map_err(|error| about(name, error))?;
        Ok(Some(text))
    }

    /// Replaces a file as a whole: whenever the power fails, it is the old one or the new one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = format!(".{name}");
        let written = self.place(&draft, name, text);
        if written.is_err() {
            let _ = unlinkat(&self.folder, draft.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written.map_err(|error| about(name, error))
    }

    fn place(&self, draft: &str, name: &str, text: &str) -> io::Result<()> {
        let flags = FLAGS | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let mut file = File::from(openat(&self.folder, draft, flags, PRIVATE)?);
        fchmod(&file, PRIVATE)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        renameat(&self.folder, draft, &self.folder, name)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        File::from(openat(&self.folder, ".", flags, Mode::empty())?).sync_all()
    }
}

fn about(name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Makes a folder, unless there is one.
fn make(path: &Path) -> io::Result<()> {
    let (above, name) = Folder::of(path)?;
    match mkdirat(&above, name.as_os_str(), PRIVATE_FOLDER) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(about(&path.display().to_string(), errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_replaced_as_a_whole_and_are_private() {
        let place = tempfile::tempdir().expect("a folder");
        let state = place.path().join("state");
        let folder = StateFolder::open(&state, "acme").expect("it is made");
        assert_eq!(folder.read("a").expect("no error"), None);
        folder.write("a", "one").expect("room");
        folder.write("a", "two").expect("room");
        assert_eq!(
            folder.read("a").expect("it is there").as_deref(),
            Some("two")
        );
        let path = state.join("acme");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path.join("a")), 0o600);
        assert_eq!(mode(&path), 0o700);
        let names = std::fs::read_dir(&path).expect("ours").count();
        assert_eq!(names, 2, "the file and the lock");
        // A link is not followed.
        std::os::unix::fs::symlink("a", path.join("b")).expect("room");
        assert!(folder.read("b").is_err());
        drop(folder);
        let again = StateFolder::open(&state, "acme").expect("nobody has it");
        assert_eq!(
            again.read("a").expect("it is there").as_deref(),
            Some("two")
        );
    }
}
