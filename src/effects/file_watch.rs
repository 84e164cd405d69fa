//! Tells when other content may be at some paths: inotify(7).
//!
//! What leads to a file may be exchanged instead of the file, as certbot exchanges symbolic links and Kubernetes the folder that they lead
//! through. So each folder in which one of the names on the way stands is watched. Waits for disks: for helper processes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// As many as the kernel follows: path_resolution(7).
const MOST_LINKS: u32 = 40;

/// What happens to the names in a folder, to what they stand for, and to the folder.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Watched paths.
pub struct FileWatch {
    inotify: Inotify,
    names: BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
    trouble: Option<String>,
}

impl FileWatch {
    /// Watches these from now on, as far as there is something on the way to them.
    ///
    /// # Errors
    /// No descriptor is available, or the user has too many of these (fs.inotify.max_user_instances).
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let names = BTreeMap::new();
        let mut watch = Self {
            inotify,
            names,
            trouble: None,
        };
        for path in paths {
            if let Err(error) = watch.add(path) {
                watch.trouble.get_or_insert(error.to_string());
            }
        }
        Ok(watch)
    }

    /// Why not everything is watched: a folder cannot be read, or there are too many watches (fs.inotify.max_user_watches).
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        let mut rest: VecDeque<OsString> = parts(path);
        let (mut folder, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = rest.pop_front() {
            if name == OsStr::new("..") {
                folder.pop();
                continue;
            }
            match self.inotify.add_watch(&folder, CHANGES) {
                Ok(watch) => self.names.entry(watch).or_default().insert(name.clone()),
                // Gone meanwhile, which its own folder tells of.
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
                Err(error) => {
                    let why = format!("{}: {}", folder.display(), error.desc());
                    return Err(io::Error::other(why));
                }
            };
            let path = folder.join(&name);
            match std::fs::read_link(&path) {
                Ok(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Ok(());
                    }
                    if target.is_absolute() {
                        folder = PathBuf::from("/");
                    }
                    parts(&target)
                        .into_iter()
                        .rev()
                        .for_each(|part| rest.push_front(part));
                }
                Err(_) => folder = path,
            }
        }
        Ok(())
    }

    /// Whether anything has happened to what is watched.
    pub fn has_changed(&mut self) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                let names = self.names.get(&event.wd);
                changed |= match &event.name {
                    Some(name) => names.is_some_and(|names| names.contains(name)),
                    None => true,
                };
            }
        }
        changed
    }

    /// Waits until something happens to what is watched, or the time is over. Returns whether something has.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&mut self, most: Option<Duration>) -> io::Result<bool> {
        let until = most.map(|most| Instant::now() + most);
        loop {
            if self.has_changed() {
                return Ok(true);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = match left {
                Some(Duration::ZERO) => return Ok(false),
                Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
                None => PollTimeout::NONE,
            };
            let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The names on a way, and `..`.
fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_are_exchanged_are_noticed_and_neighbours_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["one", "two", "live"] {
            fs::create_dir(at(name)).expect("room");
            fs::write(at(name).join("tls.crt"), name).expect("room");
        }
        // As Kubernetes has it: a link through a link to a folder.
        symlink("one", at("..data")).expect("room");
        symlink("..data/tls.crt", at("tls.crt")).expect("room");
        // As certbot has it.
        symlink("../one/tls.crt", at("live/chain.pem")).expect("room");
        let paths = [at("tls.crt"), at("live/chain.pem")];
        let watch = || FileWatch::new(paths.iter().map(PathBuf::as_path)).expect("a watch");
        for change in [
            &(|| {
                symlink("two", at("..new")).expect("room");
                fs::rename(at("..new"), at("..data")).expect("ours");
            }) as &dyn Fn(),
            &|| {
                fs::remove_file(at("live/chain.pem")).expect("ours");
                symlink("../two/tls.crt", at("live/chain.pem")).expect("room");
            },
            &|| fs::write(at("two/tls.crt"), "three").expect("room"),
            &|| fs::remove_file(at("two/tls.crt")).expect("ours"),
            &|| fs::write(at("two/tls.crt"), "four").expect("room"),
        ] {
            let mut watch = watch();
            fs::write(at("live/other"), "x").expect("room");
            fs::write(at("one/other"), "x").expect("room");
            assert!(!watch.wait(Some(Duration::ZERO)).expect("a poll"));
            change();
            assert!(watch.wait(None).expect("a poll"));
        }
        // Links that lead in a circle end the search.
        symlink("round", at("round")).expect("room");
        assert!(FileWatch::new([at("round").as_path()]).is_ok());
    }
}
