//! The file of a unix socket: created with its owner and mode, and changed and removed by its identity, not by its name.
//!
//! In a folder that only root and the master can change, the name always refers to the socket. Elsewhere others may replace the
//! file at any time. There the socket is bound in a new folder that only the master can enter, gets its owner there, and is
//! then linked to its name, which never replaces another file.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, fchownat, geteuid, linkat, unlinkat};

use super::paths::{Folder, Trust};
use crate::sys;

mod kept;
mod left;

pub use left::{is_dead, names, remove_left};

/// The name of a new socket in its private folder.
const DRAFT: &str = "socket";

/// Owner and mode of the socket file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// Permission bits; `None` leaves them to the umask.
    pub mode: Option<u32>,
    /// Owner; the master's user if `None`.
    pub owner: Option<u32>,
    /// Group; the master's if `None`.
    pub group: Option<u32>,
}

/// Why a socket cannot be bound to a path.
#[derive(Debug)]
pub struct NotBound {
    /// What is at the path and what to do about it, or the system's reason.
    pub text: String,
    /// Somebody listens there.
    pub in_use: bool,
    /// The process that has made it listen has ended, and left it to others.
    pub was_left: bool,
}

impl From<String> for NotBound {
    fn from(text: String) -> Self {
        Self {
            text,
            in_use: false,
            was_left: false,
        }
    }
}

impl std::fmt::Display for NotBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for NotBound {}

/// The file of a socket that this process has bound. Dropping it removes the file if it is still the same one.
#[derive(Debug)]
pub struct SocketFile {
    folder: Folder,
    name: OsString,
    /// The file itself, kept open so that its inode number is not reused.
    file: OwnedFd,
    /// What it has where nothing is configured.
    default: Whose,
    /// A second name in the same folder, by which the file survives the loss of the first one.
    spare: Option<OsString>,
    /// Whether the file stays.
    is_left: bool,
}

/// Owner, group and permission bits of a file.
#[derive(Debug, Clone, Copy)]
struct Whose {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl SocketFile {
    /// Binds `socket` to `path`. Calls `listen` as soon as it is bound, and before anyone can connect where that matters.
    ///
    /// # Errors
    /// What is at the path and what to do about it, or the system's reason.
    pub fn bind(
        socket: &OwnedFd,
        path: &Path,
        rights: Rights,
        listen: impl FnOnce() -> nix::Result<()>,
    ) -> Result<Self, NotBound> {
        Self::bind_after(&[], socket, path, rights, listen)
    }

    /// The same, and takes the place of a socket that one of these processes has made listen. They have ended, and whoever has the
    /// socket now is about to end, too.
    ///
    /// # Errors
    /// As for [`SocketFile::bind`].
    pub fn bind_after(
        ended: &[Pid],
        socket: &OwnedFd,
        path: &Path,
        rights: Rights,
        listen: impl FnOnce() -> nix::Result<()>,
    ) -> Result<Self, NotBound> {
        let (folder, name) = Folder::of(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{error} (create the folder first)"),
            _ => error.to_string(),
        })?;
        remove_stale(&folder, &name, rights.owner, ended)?;
        match folder.trust() {
            Trust::Trusted => {
                bind_at(socket, path, rights)?;
                let file = Self::find(folder, name)?;
                set(&file.file, rights)?;
                listen().map_err(explain("listen"))?;
                Ok(file)
            }
            Trust::Owner { .. } => Ok(Self::bind_among_others(
                socket, folder, name, rights, listen,
            )?),
        }
    }

    fn bind_among_others(
        socket: &OwnedFd,
        folder: Folder,
        name: OsString,
        rights: Rights,
        listen: impl FnOnce() -> nix::Result<()>,
    ) -> Result<Self, String> {
        let draft = Draft::new(&folder)?;
        bind_at(socket, &draft.path(), rights)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&draft.dir, DRAFT, flags, Mode::empty()).map_err(explain("open"))?;
        let default = Whose::of_new(&fstat(&file).map_err(explain("open"))?);
        set(&file, rights)?;
        listen().map_err(explain("listen"))?;
        linkat(&draft.dir, DRAFT, &folder, &*name, AtFlags::empty()).map_err(
            |errno| match errno {
                Errno::EEXIST => {
                    "another process has just created a file there (remove it)".to_owned()
                }
                other => explain("link")(other),
            },
        )?;
        drop(draft);
        Ok(Self {
            folder,
            name,
            file,
            default,
            spare: None,
            is_left: false,
        })
    }

    /// Finds the file of a socket that was just bound in a folder that no one else can change.
    fn find(folder: Folder, name: OsString) -> Result<Self, String> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&folder, &*name, flags, Mode::empty()).map_err(|errno| {
            let _ = unlinkat(&folder, &*name, UnlinkatFlags::NoRemoveDir);
            explain("open")(errno)
        })?;
        let stat = fstat(&file).map_err(explain("open"))?;
        if kind(&stat) != SFlag::S_IFSOCK || stat.st_uid != geteuid().as_raw() {
            return Err("another file has replaced the socket".into());
        }
        Ok(Self {
            folder,
            name,
            file,
            default: Whose::of_new(&stat),
            spare: None,
            is_left: false,
        })
    }

    /// Changes owner and mode of the socket, whatever its name refers to now. What is no longer configured returns to the default.
    ///
    /// # Errors
    /// The system's reason.
    pub fn change(&self, before: Rights, now: Rights) -> Result<(), String> {
        let or_default = |now: Option<u32>, before: Option<u32>, default| {
            now.or_else(|| before.map(|_| default))
        };
        let rights = Rights {
            mode: or_default(now.mode, before.mode, self.default.mode),
            owner: or_default(now.owner, before.owner, self.default.uid),
            group: or_default(now.group, before.group, self.default.gid),
        };
        set(&self.file, rights)
    }

    /// Gives the file a second, hidden name. A file without a name cannot get one again, and its socket could not be reached any more.
    ///
    /// # Errors
    /// The system does not allow it, or there is another file with this name.
    pub fn add_spare(&mut self, rights: Rights) -> Result<(), String> {
        let mut spare = OsString::from(".");
        spare.push(&self.name);
        spare.push(".preforkd");
        if self.has(&spare) {
            // The previous master has left it.
            self.spare = Some(spare);
            return Ok(());
        }
        remove_stale(&self.folder, &spare, rights.owner, &[]).map_err(|why| why.text)?;
        self.link(&spare).map_err(explain("link"))?;
        self.spare = Some(spare);
        Ok(())
    }

    /// Gives the file its name again if the name was removed. Returns whether it was. Needs the spare name.
    ///
    /// # Errors
    /// The spare name was removed too, or the system does not allow it.
    pub fn restore(&self) -> Result<bool, String> {
        let named = fstatat(&self.folder, &*self.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if named != Err(Errno::ENOENT) {
            return Ok(false);
        }
        self.link(&self.name).map_err(explain("link"))?;
        Ok(true)
    }

    /// Adds a name. The link is made to the open file, whatever its other names refer to now.
    fn link(&self, name: &OsString) -> nix::Result<()> {
        let ours = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = AtFlags::AT_SYMLINK_FOLLOW;
        linkat(AT_FDCWD, &*ours, &self.folder, &**name, flags)
    }

    /// Whether a path leads to the socket.
    pub fn is_at(&self, path: &Path) -> bool {
        let named = Folder::of(path)
            .and_then(|(folder, name)| Ok(fstatat(&folder, &*name, AtFlags::AT_SYMLINK_NOFOLLOW)?));
        named.is_ok_and(|named| self.is(&named))
    }

    /// Whether a name in its folder refers to the socket.
    fn has(&self, name: &OsString) -> bool {
        let named = fstatat(&self.folder, &**name, AtFlags::AT_SYMLINK_NOFOLLOW);
        named.is_ok_and(|named| self.is(&named))
    }

    fn is(&self, named: &FileStat) -> bool {
        let ours = fstat(&self.file);
        ours.is_ok_and(|ours| (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino))
    }
}

impl Whose {
    /// The defaults, by the state of a file that was just created.
    fn of_new(stat: &FileStat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: 0o777 & !sys::umask().bits(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let names = [Some(&self.name), self.spare.as_ref()];
        for name in names.into_iter().flatten().filter(|name| self.has(name)) {
            // If this fails, the next start removes the stale file.
            let _ = unlinkat(&self.folder, &**name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// A folder that only the master can enter. Dropping it removes the folder.
struct Draft<'a> {
    parent: &'a Folder,
    name: String,
    dir: OwnedFd,
}

impl<'a> Draft<'a> {
    fn new(parent: &'a Folder) -> Result<Self, String> {
        let explain = explain("cannot create a private folder for it");
        let name = format!(".preforkd-{:016x}", sys::random().map_err(&explain)?);
        mkdirat(parent, &*name, Mode::S_IRWXU).map_err(&explain)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(parent, &*name, flags, Mode::empty());
        let opened = opened.and_then(|dir| Ok((fstat(&dir)?, dir)));
        // Another private folder of ours would do as well.
        let is_private =
            |stat: &FileStat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o077 == 0;
        match opened {
            Ok((stat, dir)) if is_private(&stat) => Ok(Self { parent, name, dir }),
            Ok(_) => Err("another folder has replaced the private one".into()),
            Err(errno) => {
                let _ = unlinkat(parent, &*name, UnlinkatFlags::RemoveDir);
                Err(explain(errno))
            }
        }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{DRAFT}", self.dir.as_raw_fd()))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir, DRAFT, UnlinkatFlags::NoRemoveDir);
        let _ = unlinkat(self.parent, &*self.name, UnlinkatFlags::RemoveDir);
    }
}

fn bind_at(socket: &OwnedFd, path: &Path, rights: Rights) -> Result<(), String> {
    let address = UnixAddr::new(path).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => {
            "the path is too long for a socket (107 bytes at most; choose a shorter path)"
                .to_owned()
        }
        other => explain("address")(other),
    })?;
    if let Some(mode) = rights.mode {
        // The file gets the mode of the socket, less the umask. Where that fails, it gets it before anybody can connect.
        let _ = fchmod(socket, Mode::from_bits_truncate(mode));
    }
    socket::bind(socket.as_raw_fd(), &address).map_err(|errno| match errno {
        Errno::EACCES => format!(
            "{} (the user of the master needs permission to write to the folder, or configure another path)",
            errno.desc()
        ),
        other => explain("bind")(other),
    })
}

fn set(file: &OwnedFd, rights: Rights) -> Result<(), String> {
    let (owner, group) = (
        rights.owner.map(Uid::from_raw),
        rights.group.map(Gid::from_raw),
    );
    if owner.is_some() || group.is_some() {
        fchownat(file, "", owner, group, AtFlags::AT_EMPTY_PATH)
            .map_err(|errno| cannot_give(rights, errno))?;
    }
    if let Some(mode) = rights.mode {
        // fchmod(2) does not accept an O_PATH descriptor.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode)
            .map_err(|error| format!("cannot change its mode: {error}"))?;
    }
    Ok(())
}

/// Why the file cannot get its owner and group: chown(2).
fn cannot_give(rights: Rights, errno: Errno) -> String {
    let own = geteuid();
    match (rights.owner, rights.group, errno) {
        (None, Some(group), Errno::EPERM) => format!(
            "cannot change its group to {group}: {} (user {own} is not a member of group {group}; add the user to it, or start preforkd as root)",
            errno.desc()
        ),
        (None, Some(group), _) => {
            format!("cannot change its group to {group}: {}", errno.desc())
        }
        _ => explain("cannot change its owner")(errno),
    }
}

/// Removes the socket file of a dead process, on whose socket nobody listens, or which is one of those that have `ended`.
fn remove_stale(
    folder: &Folder,
    name: &OsString,
    owner: Option<u32>,
    ended: &[Pid],
) -> Result<(), NotBound> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match openat(folder, &**name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        found => found.map_err(explain("cannot examine the existing file"))?,
    };
    let stat = fstat(&file).map_err(explain("cannot examine the existing file"))?;
    let what = match kind(&stat) {
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFLNK => "a symbolic link at this path",
        SFlag::S_IFDIR => "a folder at this path",
        _ => "a file at this path that is not a socket",
    };
    if what != "a socket" {
        return Err(format!("there is {what} (move it away, or configure another path)").into());
    }
    if stat.st_uid != geteuid().as_raw() && Some(stat.st_uid) != owner {
        return Err(format!(
            "there is a socket of uid {} (remove it if it is not in use)",
            stat.st_uid
        )
        .into());
    }
    let in_use = |text| NotBound {
        text,
        in_use: true,
        was_left: false,
    };
    let peer = peer_pid(&file);
    let has_ended = |pid| ended.contains(&Pid::from_raw(pid));
    match peer {
        Err(Errno::ECONNREFUSED) => {}
        Ok(pid) if has_ended(pid) => {}
        Ok(pid) if pid > 0 && !Path::new(&format!("/proc/{pid}")).exists() => {
            return Err(NotBound {
                was_left: true,
                ..in_use(format!(
                    "a process is listening there to which process {pid}, which has ended, has left the socket (stop it first)"
                ))
            });
        }
        Ok(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            // Shown only: a process can have any name.
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            let text = format!("process {pid} ({name}) is listening there (stop it first)");
            return Err(in_use(text));
        }
        // Its accept queue is full, so it is alive.
        Err(Errno::EAGAIN) => {
            let text = "another process is listening there (stop it first)";
            return Err(in_use(text.to_owned()));
        }
        Err(errno) => {
            let explain = explain("cannot test whether a process listens there");
            return Err(explain(errno).into());
        }
    }
    unlinkat(folder, &**name, UnlinkatFlags::NoRemoveDir)
        .map_err(|errno| explain("cannot remove the stale socket file")(errno).into())
}

/// The process that listens on a socket. Never blocks.
fn peer_pid(file: &OwnedFd) -> nix::Result<i32> {
    let probe = left::connect(file, SockType::Stream)?;
    Ok(socket::getsockopt(&probe, sockopt::PeerCredentials)?.pid())
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn explain(doing: &'static str) -> impl Fn(Errno) -> String {
    move |errno| format!("{doing}: {}", errno.desc())
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An unbound stream socket.
///
/// # Errors
/// No descriptor is available.
pub fn stream() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        flags,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::sys::socket::Backlog;

    use super::*;

    fn bind(path: &Path, rights: Rights) -> Result<(OwnedFd, SocketFile), String> {
        let socket = stream().expect("a descriptor");
        let listen = || socket::listen(&socket, Backlog::MAXCONN);
        let file = SocketFile::bind(&socket, path, rights, listen).map_err(|why| why.text)?;
        Ok((socket, file))
    }

    /// The mode and inode number of a file.
    fn state(path: &Path) -> (u32, u64) {
        let found = path.symlink_metadata().expect("it is there");
        (found.mode(), found.ino())
    }

    #[test]
    fn a_group_that_cannot_be_given_is_named_with_the_user() {
        let rights = Rights {
            group: Some(33),
            ..Rights::default()
        };
        let said = cannot_give(rights, Errno::EPERM);
        let own = geteuid();
        let expected = format!(
            "cannot change its group to 33: Operation not permitted (user {own} is not a member of group 33; "
        );
        assert!(said.starts_with(&expected), "{said}");
    }

    #[test]
    fn the_socket_of_a_process_that_has_ended_is_replaced_though_others_have_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let _old = UnixListener::bind(&path).expect("room");
        let after = |ended: &[Pid]| {
            let socket = stream().expect("a descriptor");
            let listen = || socket::listen(&socket, Backlog::MAXCONN);
            SocketFile::bind_after(ended, &socket, &path, Rights::default(), listen)
        };
        let refused = after(&[Pid::from_raw(1)]).expect_err("another one has made it listen");
        assert!(refused.in_use, "{refused}");
        let file = after(&[Pid::this()]).expect("it is replaced");
        assert!(file.is_at(&path));
    }

    #[test]
    fn it_has_its_mode_and_is_removed_with_its_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let rights = Rights {
            mode: Some(0o612),
            ..Rights::default()
        };
        let (_socket, file) = bind(&path, rights).expect("a listener");
        assert_eq!(state(&path).0 & 0o777, 0o612);
        UnixStream::connect(&path).expect("it listens");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn other_files_are_neither_replaced_nor_changed_nor_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let target = folder.path().join("target");
        std::fs::write(&target, "precious").expect("room");
        symlink(&target, folder.path().join("link")).expect("room");
        std::fs::create_dir(folder.path().join("folder")).expect("room");
        for (name, said) in [
            ("target", "a file at this path that is not a socket"),
            ("link", "a symbolic link"),
            ("folder", "a folder"),
        ] {
            let error = bind(&folder.path().join(name), Rights::default()).map(drop);
            let error = error.expect_err("something lies there");
            assert!(error.contains(said), "{name}: {error}");
        }

        let (_socket, file) = bind(&path, Rights::default()).expect("a listener");
        std::fs::remove_file(&path).expect("ours");
        symlink(&target, &path).expect("room");
        let before = state(&target);
        assert!(!file.is_at(&path));
        let rights = Rights {
            mode: Some(0o666),
            ..Rights::default()
        };
        file.change(Rights::default(), rights)
            .expect("the socket is there still");
        drop(file);
        assert!(path.is_symlink(), "somebody else's");
        assert_eq!(state(&target), before);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_full_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let live = UnixListener::bind(&path).expect("room");
        let error = bind(&path, Rights::default()).map(drop);
        assert!(error.expect_err("it lives").contains("is listening there"));
        // A queue of one, and one more connection.
        socket::listen(&live, Backlog::new(0).expect("a length")).expect("a socket");
        let waiting: Vec<_> = std::iter::from_fn(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let client = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None);
            let client = client.expect("a descriptor");
            let address = UnixAddr::new(&path).expect("short");
            socket::connect(client.as_raw_fd(), &address).ok()?;
            Some(client)
        })
        .collect();
        let error = bind(&path, Rights::default()).map(drop);
        assert!(error.expect_err("it lives").contains("is listening there"));
        drop((live, waiting));
        bind(&path, Rights::default()).expect("nobody serves there");
    }

    #[test]
    fn in_an_untrusted_folder_it_is_made_in_private_and_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let among = || {
            let walked = Folder::open(folder.path()).expect("it is there");
            let socket = stream().expect("a descriptor");
            let rights = Rights {
                mode: Some(0o606),
                ..Rights::default()
            };
            let listen = || socket::listen(&socket, Backlog::MAXCONN);
            let file = SocketFile::bind_among_others(&socket, walked, "s".into(), rights, listen)?;
            Ok::<_, String>((socket, file))
        };
        let path = folder.path().join("s");
        let (_socket, file) = among().expect("a listener");
        assert_eq!(state(&path).0 & 0o777, 0o606);
        UnixStream::connect(&path).expect("it listens");
        let names = || std::fs::read_dir(folder.path()).expect("ours").count();
        assert_eq!(names(), 1, "no draft is left");
        drop(file);
        std::fs::write(&path, "precious").expect("room");
        let error = among().map(drop).expect_err("something lies there");
        assert!(error.contains("has just created a file"), "{error}");
        assert_eq!(names(), 1, "no draft is left");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_ne!(mode & 0o777, 0o606);
    }

    #[test]
    fn a_name_that_was_removed_is_given_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let (_socket, mut file) = bind(&path, Rights::default()).expect("a listener");
        file.add_spare(Rights::default()).expect("room");
        assert_eq!(file.restore(), Ok(false), "it is there");
        std::fs::remove_file(&path).expect("ours");
        assert_eq!(file.restore(), Ok(true));
        assert!(file.is_at(&path));
        UnixStream::connect(&path).expect("it listens");
        // Another file is at its place: it stays.
        std::fs::remove_file(&path).expect("ours");
        std::fs::write(&path, "precious").expect("room");
        assert_eq!(file.restore(), Ok(false));
        drop(file);
        let left = std::fs::read_dir(folder.path()).expect("ours").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["s"], "the spare name is gone");
    }

    #[test]
    fn the_spare_name_of_a_dead_process_is_taken_over_and_another_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, spare) = (folder.path().join("s"), folder.path().join(".s.preforkd"));
        drop(UnixListener::bind(&spare).expect("room"));
        let (socket, mut file) = bind(&path, Rights::default()).expect("a listener");
        file.add_spare(Rights::default()).expect("it was stale");
        drop((socket, file));
        std::fs::write(&spare, "precious").expect("room");
        let (_socket, mut file) = bind(&path, Rights::default()).expect("a listener");
        let error = file.add_spare(Rights::default());
        assert!(error.expect_err("it is not ours").contains("not a socket"));
        drop(file);
        assert!(spare.exists());
    }

    #[test]
    fn rights_that_are_no_longer_configured_return_to_their_defaults() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let (_plain, file) = bind(&path, Rights::default()).expect("a listener");
        let default = state(&path).0;
        drop(file);
        let mode = |mode| Rights {
            mode: Some(mode),
            ..Rights::default()
        };
        let (_socket, file) = bind(&path, mode(0o601)).expect("a listener");
        file.change(mode(0o601), mode(0o640)).expect("ours");
        assert_eq!(state(&path).0 & 0o777, 0o640);
        file.change(mode(0o640), Rights::default()).expect("ours");
        assert_eq!(state(&path).0, default);
        // Where nothing was or is configured, what others have set stays.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).expect("ours");
        file.change(Rights::default(), Rights::default())
            .expect("ours");
        assert_eq!(state(&path).0 & 0o777, 0o604);
    }
}
