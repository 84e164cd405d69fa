//! Tells when another file may be at a path, or none: inotify(7).
//!
//! The file itself is watched, and not what others do in its folder, which may be a busy one like /run. Only while there is no file,
//! the nearest folder on the way to it is.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// The maximum number of reads at a time; the kernel's queue is not longer.
const MAX_READS: usize = 256;

/// What happens to a folder itself.
const GOES: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// What happens to a file that loses a name.
const LOSES_NAME: AddWatchFlags = AddWatchFlags::IN_ATTRIB
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_DONT_FOLLOW);

/// What happens to a name in a folder, and to the permissions of the folder.
const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE);

/// A watched path.
pub struct PathWatch {
    inotify: Inotify,
    /// What is watched, and the only name in it that matters, if one does.
    watched: Vec<(WatchDescriptor, Option<OsString>)>,
}

impl PathWatch {
    /// Nothing is watched yet.
    ///
    /// # Errors
    /// No descriptor is available, or the user has too many of these (fs.inotify.max_user_instances).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self {
            inotify,
            watched: Vec::new(),
        })
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }

    /// Watches the file at `path`, and nothing else. It may have been replaced just before.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn watch_file(&mut self, path: &Path) -> io::Result<()> {
        self.clear();
        self.add(path, LOSES_NAME, None)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        self.add(folder, GOES, None)
    }

    /// Watches for a change of what is at `path`, where the file is not, and nothing else. It may have come just before.
    ///
    /// # Errors
    /// No folder on the way to it can be read.
    pub fn watch_for(&mut self, path: &Path) -> io::Result<()> {
        self.clear();
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        let folders = path.ancestors().zip(path.ancestors().skip(1));
        for (next, folder) in folders {
            let name = next.file_name().map(OsString::from);
            match self.add(folder, GOES | NAMES, name) {
                Err(failed) if failed.kind() == io::ErrorKind::NotFound => error = failed,
                done => return done,
            }
        }
        Err(error)
    }

    /// Whether anything has happened to what is watched.
    pub fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for _ in 0..MAX_READS {
            let Ok(events) = self.inotify.read_events() else {
                break;
            };
            changed |= events.iter().any(|event| self.matters(event));
        }
        changed
    }

    fn matters(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        let mut watched = self.watched.iter();
        let watched = watched.find(|(watch, _)| *watch == event.wd);
        watched.is_some_and(|(_, name)| event.name.is_none() || event.name == *name)
    }

    fn add(&mut self, path: &Path, what: AddWatchFlags, name: Option<OsString>) -> io::Result<()> {
        let watch = self.inotify.add_watch(path, what)?;
        self.watched.push((watch, name));
        Ok(())
    }

    fn clear(&mut self) {
        for (watch, _) in self.watched.drain(..) {
            // The kernel forgets the watch of a file that is gone.
            let _ = self.inotify.rm_watch(watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_loses_its_name_is_noticed_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("run");
        let (path, other) = (own.join("a"), own.join("b"));
        for remove in [
            &(|| fs::remove_file(&path)) as &dyn Fn() -> io::Result<()>,
            &|| fs::rename(&other, &path),
            &|| fs::rename(&path, own.join("c")),
            &|| fs::rename(&own, folder.path().join("moved")),
        ] {
            fs::create_dir_all(&own).expect("room");
            fs::write(&path, "").expect("room");
            let mut watch = PathWatch::new().expect("a descriptor");
            watch.watch_file(&path).expect("it is there");
            fs::write(&other, "").expect("room");
            assert!(!watch.has_changed());
            remove().expect("ours");
            assert!(watch.has_changed());
            assert!(!watch.has_changed(), "it is said once");
        }
    }

    #[test]
    fn a_folder_that_comes_back_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("run/own");
        let path = own.join("a");
        let mut watch = PathWatch::new().expect("a descriptor");
        for made in [folder.path().join("run"), own.clone()] {
            watch.watch_for(&path).expect("a folder is there");
            let neighbour = made.with_file_name("other");
            fs::create_dir(&neighbour).expect("room");
            assert!(!watch.has_changed(), "{}", neighbour.display());
            fs::create_dir(&made).expect("room");
            assert!(watch.has_changed(), "{}", made.display());
            fs::remove_dir(&neighbour).expect("ours");
        }
        watch.watch_for(&path).expect("a folder is there");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).expect("ours");
        assert!(watch.has_changed());
        fs::write(&path, "").expect("room");
        assert!(watch.has_changed());
    }
}
