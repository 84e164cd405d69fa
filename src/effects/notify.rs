//! The notify sockets of workers, one per app. The kernel reports the sender of each datagram.
//!
//! They are in a folder of the master, and only the user of the app can write to its socket. So unrelated users cannot send
//! anything, and an app that floods fills only its own queue. Without a writable folder, as in a read-only container, the
//! sockets have abstract addresses (unix(7)), which other users would have to guess or look up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, sockopt};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{Pid, Uid, UnlinkatFlags, fchownat, geteuid, mkdtemp, unlinkat};

use super::paths::{Folder, Trust};
use super::socket_file;
use crate::sys;

/// The maximum length of a message; a longer one is truncated.
const MAX_MESSAGE: usize = 4096;

/// The common prefix of the folders of all masters.
const PREFIX: &str = "preforkd-notify-";

/// A master that starts at the same moment may take a new folder for a leftover.
const ATTEMPTS_AT_FOLDER: u32 = 5;

/// The maximum length of a socket path: unix(7).
const MAX_ADDRESS: usize = 107;

/// The length of a socket's path below the folder's parent: `/preforkd-notify-XXXXXX/0123456789abcdef`.
const ADDRESS_IN_PARENT: usize = 1 + PREFIX.len() + 6 + 1 + 16;

/// How a folder is opened that only serves to resolve names.
const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

struct Bound {
    socket: OwnedFd,
    address: String,
    uid: Option<u32>,
    /// Its name in the folder.
    name: String,
}

/// The folder. Dropping it removes the folder if it is empty.
struct Home {
    parent: Folder,
    /// Locked while its master lives.
    folder: Flock<File>,
    path: PathBuf,
}

/// The master's notify sockets. Dropping it removes them and their folder.
pub struct Notify {
    home: Option<Home>,
    /// The newest last: after a reload an app may have another user.
    apps: BTreeMap<String, Vec<Bound>>,
}

impl Home {
    fn new(path: &Path) -> io::Result<Self> {
        if !path.is_absolute() {
            return Err(io::Error::other("it is a relative path"));
        }
        let shown = path
            .to_str()
            .ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
        if shown.len() + ADDRESS_IN_PARENT > MAX_ADDRESS {
            let most = MAX_ADDRESS - ADDRESS_IN_PARENT;
            let message = format!(
                "its path is too long for a socket in it ({most} bytes at most; choose a shorter path)"
            );
            return Err(io::Error::other(message));
        }
        let parent = Folder::open(path)?;
        if geteuid().is_root() {
            if parent.trust() != Trust::Trusted {
                return Err(io::Error::other("others can change it"));
            }
            if !parent.is_open_to_all {
                return Err(io::Error::other("other users may not go through it"));
            }
        }
        remove_leftovers(&parent);
        for _ in 0..ATTEMPTS_AT_FOLDER {
            let path = mkdtemp(&path.join(format!("{PREFIX}XXXXXX")))?;
            let name = path.file_name().unwrap_or_default();
            let remove = || {
                let _ = unlinkat(&parent, name, UnlinkatFlags::RemoveDir);
            };
            let opened = openat(&parent, name, FOLDER, Mode::empty()).inspect_err(|_| remove());
            let Ok(folder) = lock(opened?.into()) else {
                continue;
            };
            if !leads_to(&parent, name, &folder) {
                continue;
            }
            let mode = Mode::S_IRWXU | Mode::S_IXGRP | Mode::S_IXOTH;
            fchmod(&*folder, mode).inspect_err(|_| remove())?;
            return Ok(Self {
                parent,
                folder,
                path,
            });
        }
        Err(io::Error::other("another process removes each new folder"))
    }

    fn bind(&self, socket: &OwnedFd, name: &str, uid: Option<u32>) -> io::Result<String> {
        let path = self.path.join(name);
        let unusable = || {
            let message = format!("{}: not an address of a socket", path.display());
            io::Error::other(message)
        };
        let address = path.to_str().ok_or_else(unusable)?;
        let unix = UnixAddr::new(address).map_err(|_| unusable())?;
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        // The file gets the mode of the socket, less the umask.
        fchmod(socket, private)?;
        socket::bind(socket.as_raw_fd(), &unix)?;
        fchmodat(
            self.folder.as_fd(),
            name,
            private,
            FchmodatFlags::FollowSymlink,
        )
        .and_then(|()| self.set_owner(name, uid))
        .inspect_err(|_| self.remove(name))?;
        Ok(address.to_owned())
    }

    fn set_owner(&self, name: &str, uid: Option<u32>) -> nix::Result<()> {
        let Some(uid) = uid.map(Uid::from_raw) else {
            return Ok(());
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(self.folder.as_fd(), name, flags, Mode::empty())?;
        fchownat(&file, "", Some(uid), None, AtFlags::AT_EMPTY_PATH)
    }

    fn remove(&self, name: &str) {
        // If it stays, the next master removes it.
        let _ = unlinkat(self.folder.as_fd(), name, UnlinkatFlags::NoRemoveDir);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let name = self.path.file_name().unwrap_or_default();
        let _ = unlinkat(&self.parent, name, UnlinkatFlags::RemoveDir);
    }
}

impl Notify {
    /// Creates the folder in the runtime directory of the service, in /run, or in the folder for temporary files: the first
    /// that other users cannot change and whose path leaves room for that of a socket. Removes leftovers of killed masters of the same user.
    ///
    /// # Errors
    /// None is known; see [`Notify::bind`].
    pub fn new() -> io::Result<Self> {
        Ok(Self::with(first_home(candidates())))
    }

    fn with(home: Option<Home>) -> Self {
        let apps = BTreeMap::new();
        Self { home, apps }
    }

    /// Binds the socket of an app whose workers run as `uid`; `None` is the master's user. If it is bound for another user
    /// already, the app gets a second socket, and running workers keep theirs.
    ///
    /// # Errors
    /// No descriptor is available, or the file system is full.
    pub fn bind(&mut self, app: &str, uid: Option<u32>) -> io::Result<()> {
        let newest = self.apps.get(app).and_then(|all| all.last());
        if newest.is_some_and(|bound| bound.uid == uid) {
            return Ok(());
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        if uid.is_some_and(|uid| uid != geteuid().as_raw()) {
            // Closing a passed descriptor can block for as long as its sender wants: socket(7), SO_LINGER. Linux before 6.16
            // cannot refuse them.
            let _ = sys::refuse_descriptors(socket.as_fd());
        }
        let name = format!("{:016x}", sys::random()?);
        let address = match &self.home {
            Some(home) => home.bind(&socket, &name, uid)?,
            None => {
                let name = format!("preforkd/{name}");
                let address = UnixAddr::new_abstract(name.as_bytes())?;
                socket::bind(socket.as_raw_fd(), &address)?;
                format!("@{name}")
            }
        };
        let bound = Bound {
            socket,
            address,
            uid,
            name,
        };
        self.apps.entry(app.to_owned()).or_default().push(bound);
        Ok(())
    }

    /// Closes the sockets of an app.
    pub fn unbind(&mut self, app: &str) {
        for bound in self.apps.remove(app).into_iter().flatten() {
            if let Some(home) = &self.home {
                home.remove(&bound.name);
            }
        }
    }

    /// The value of `NOTIFY_SOCKET` for a new worker of an app.
    pub fn address(&self, app: &str) -> Option<&str> {
        Some(&self.apps.get(app)?.last()?.address)
    }

    /// The descriptor to poll: the newest socket of an app. Keep polling older ones.
    pub fn fd(&self, app: &str) -> Option<RawFd> {
        Some(self.apps.get(app)?.last()?.socket.as_raw_fd())
    }

    /// Messages of an app's workers with their senders, at most `most`. If there are fewer, the queue is empty.
    pub fn receive(&self, app: &str, most: usize) -> Vec<(Pid, String)> {
        let sockets = self.apps.get(app).into_iter().flatten();
        let messages = sockets.flat_map(|bound| std::iter::from_fn(|| receive(&bound.socket)));
        messages.take(most).collect()
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        for app in self.apps.keys().cloned().collect::<Vec<_>>() {
            self.unbind(&app);
        }
    }
}

/// The folders to try.
fn candidates() -> Vec<PathBuf> {
    // systemd.exec(5): several are separated by colons.
    let runtime = std::env::var("RUNTIME_DIRECTORY").unwrap_or_default();
    let runtime = runtime.split(':').next().filter(|first| !first.is_empty());
    let mut all: Vec<PathBuf> = runtime.map(PathBuf::from).into_iter().collect();
    if geteuid().is_root() {
        all.push("/run".into());
    }
    all.extend([std::env::temp_dir(), "/tmp".into(), "/dev/shm".into()]);
    all.dedup();
    all
}

/// A folder in the first of these that is suitable.
fn first_home(parents: Vec<PathBuf>) -> Option<Home> {
    let homes = parents.into_iter().map(|parent| {
        Home::new(&parent).inspect_err(|reason| {
            let parent = parent.display();
            log::debug!("cannot create a folder for notify sockets in {parent}: {reason}");
        })
    });
    homes.flatten().next()
}

/// Tries to lock a folder. A live master holds the lock of its own.
fn lock(folder: File) -> Result<Flock<File>, Errno> {
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

/// Whether a name still refers to an open folder.
fn leads_to(parent: &Folder, name: &std::ffi::OsStr, folder: &File) -> bool {
    let named = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    let (Ok(named), Ok(open)) = (named, fstat(folder)) else {
        return false;
    };
    (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
}

/// Removes the folders of dead masters of this user.
fn remove_leftovers(parent: &Folder) {
    for name in socket_file::names(parent) {
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A folder that cannot be removed does no harm.
        let _ = remove_leftover(parent, &name);
    }
}

fn remove_leftover(parent: &Folder, name: &std::ffi::OsStr) -> nix::Result<()> {
    let folder = openat(parent, name, FOLDER | OFlag::O_NONBLOCK, Mode::empty())?;
    let stat = fstat(&folder)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(Errno::EPERM);
    }
    let folder = lock(folder.into())?;
    let inside = socket_file::names(&*folder);
    // A lock may be lost while its master lives, for example by an exec.
    if !inside
        .iter()
        .all(|name| socket_file::is_dead(&*folder, name, SockType::Datagram))
    {
        return Err(Errno::EBUSY);
    }
    for name in inside {
        unlinkat(folder.as_fd(), &*name, UnlinkatFlags::NoRemoveDir)?;
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// The kernel may be out of memory for a moment. A message that is not read now would wait for the next one.
const ATTEMPTS: u32 = 3;

/// Receives a message from a socket that passes credentials. Skips messages without; closes passed descriptors.
pub(super) fn receive(socket: &OwnedFd) -> Option<(Pid, String)> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut failures = 0;
    loop {
        let (length, sender) = match sys::receive(socket.as_fd(), &mut bytes) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return None,
            Err(_) => {
                failures += 1;
                if failures == ATTEMPTS {
                    return None;
                }
                continue;
            }
        };
        if length == 0 && sender.is_none_or(|pid| pid.as_raw() == 0) {
            // The peer of a connected socket has closed it.
            return None;
        }
        if let Some(pid) = sender {
            return Some((pid, String::from_utf8_lossy(&bytes[..length]).into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    fn notify() -> (tempfile::TempDir, Notify) {
        let parent = tempfile::tempdir().expect("a folder");
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(parent.path(), mode).expect("ours");
        let notify = notify_in(parent.path());
        (parent, notify)
    }

    fn notify_in(parent: &Path) -> Notify {
        Notify::with(Some(Home::new(parent).expect("room")))
    }

    fn folder(notify: &Notify) -> &Path {
        &notify.home.as_ref().expect("a folder").path
    }

    fn count(folder: &Path) -> usize {
        std::fs::read_dir(folder).expect("ours").count()
    }

    #[test]
    fn each_app_has_a_queue_of_its_own_that_only_its_user_can_fill() {
        let (parent, mut notify) = notify();
        notify.bind("a", None).expect("room");
        notify.bind("b", Some(geteuid().as_raw())).expect("room");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("a socket");
        let of = |app: &str| notify.address(app).expect("it is bound").to_owned();
        while sender.send_to(b"WATCHDOG=1", of("a")).is_ok() {}
        sender.send_to(b"READY=1", of("b")).expect("room");
        let said = notify.receive("b", 10);
        assert_eq!(said, [(Pid::this(), "READY=1".to_owned())]);
        assert_eq!(notify.receive("a", 1).len(), 1);
        assert!(notify.receive("c", 1).is_empty());

        let file = std::fs::metadata(of("a")).expect("it is there");
        assert_eq!(file.mode() & 0o777, 0o600);
        let inside = folder(&notify).metadata().expect("it is there");
        assert_eq!(inside.mode() & 0o777, 0o711);
        notify.unbind("a");
        assert!(notify.address("a").is_none());
        assert_eq!(count(folder(&notify)), 1);
        drop(notify);
        assert_eq!(count(parent.path()), 0);
    }

    #[test]
    fn a_folder_whose_path_is_too_long_for_a_socket_is_passed_over() {
        let (parent, short) = notify();
        drop(short);
        let root = parent.path();
        let sized = |length: usize| {
            let rest = length - root.as_os_str().len() - 1;
            let path = root.join("x".repeat(rest));
            std::fs::create_dir(&path).expect("room");
            let mode = std::fs::Permissions::from_mode(0o711);
            std::fs::set_permissions(&path, mode).expect("ours");
            path
        };
        let longest = MAX_ADDRESS - ADDRESS_IN_PARENT;
        let (fits, long) = (sized(longest), sized(longest + 1));
        let error = Home::new(&long).err().expect("too long").to_string();
        assert!(error.contains("67 bytes at most"), "{error}");
        let home = first_home(vec!["relative".into(), long.clone(), fits.clone()]);
        let mut notify = Notify::with(home);
        notify.bind("a", None).expect("room");
        let address = notify.address("a").expect("it is bound");
        assert_eq!(address.len(), MAX_ADDRESS);
        assert!(address.starts_with(fits.to_str().expect("UTF-8")));
        assert_eq!(count(&long), 0);
    }

    #[test]
    fn without_a_folder_the_addresses_are_abstract() {
        let mut notify = Notify::with(None);
        notify.bind("a", None).expect("room");
        let address = notify.address("a").expect("it is bound");
        let sender = preforkd_worker::notify::Notifier::new(address).expect("an address");
        sender.send("READY=1").expect("room");
        assert_eq!(notify.receive("a", 10).len(), 1);
    }

    #[test]
    fn another_user_gets_another_socket_and_the_old_one_is_still_read() {
        let (_parent, mut notify) = notify();
        notify.bind("a", None).expect("room");
        let old = notify.address("a").expect("bound").to_owned();
        notify.bind("a", None).expect("it is bound already");
        assert_eq!(notify.address("a"), Some(&*old));
        notify.bind("a", Some(geteuid().as_raw())).expect("room");
        let new = notify.address("a").expect("bound").to_owned();
        assert_ne!(new, old);
        let sender = UnixDatagram::unbound().expect("a socket");
        for (text, address) in [("old", &old), ("new", &new)] {
            sender.send_to(text.as_bytes(), address).expect("room");
        }
        let said = notify.receive("a", 10).into_iter().map(|(_, text)| text);
        assert_eq!(said.collect::<Vec<_>>(), ["old", "new"]);
    }

    #[test]
    fn a_long_message_is_truncated_and_passed_descriptors_are_closed() {
        let (_parent, mut notify) = notify();
        notify.bind("a", None).expect("room");
        let sender = UnixDatagram::unbound().expect("a socket");
        let address = notify.address("a").expect("bound");
        sender.send_to(&[b'x'; 10_000], address).expect("room");
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let passed = [write.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&passed)];
        let address = UnixAddr::new(address).expect("short");
        let bytes = [io::IoSlice::new(b"FDSTORE=1")];
        let flags = MsgFlags::empty();
        sendmsg(sender.as_raw_fd(), &bytes, &message, flags, Some(&address)).expect("room");
        let said = notify.receive("a", 10);
        assert_eq!((said[0].1.len(), &*said[1].1), (MAX_MESSAGE, "FDSTORE=1"));
        drop(write);
        // If any process still held the descriptor, this would block.
        assert_eq!(nix::unistd::read(&read, &mut [0]), Ok(0));

        // The kernel does not accept them from another user, if it can refuse them.
        let (_, write) = nix::unistd::pipe().expect("a pipe");
        let socket = &notify.apps["a"][0].socket;
        if sys::refuse_descriptors(socket.as_fd()).is_ok() {
            let passed = [write.as_raw_fd()];
            let message = [ControlMessage::ScmRights(&passed)];
            let sent = sendmsg(sender.as_raw_fd(), &bytes, &message, flags, Some(&address));
            assert_eq!(sent, Err(Errno::EPERM));
        }
    }

    #[test]
    fn leftovers_of_a_killed_master_are_removed_and_folders_in_use_are_not() {
        let (parent, mut live) = notify();
        live.bind("a", None).expect("room");
        let mut dead = notify_in(parent.path());
        dead.bind("a", None).expect("room");
        let foreign = parent.path().join(format!("{PREFIX}notes"));
        std::fs::create_dir(&foreign).expect("room");
        std::fs::write(foreign.join("file"), "precious").expect("room");
        assert_eq!(count(parent.path()), 3);
        // As after a kill: descriptors are closed, files stay.
        let path = folder(&dead).to_owned();
        dead.apps.clear();
        dead.home.as_mut().expect("a folder").path = "nothing".into();
        drop(dead);
        assert_eq!(count(&path), 1);
        let third = notify_in(parent.path());
        assert!(!path.exists());
        assert!(foreign.join("file").exists() && folder(&live).exists() && folder(&third).exists());
    }
}
