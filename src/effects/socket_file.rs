//! The file of a unix socket: made with its owner and mode, changed and removed by what it is and not by its name.
//!
//! In a folder that only root and the master can change, the name of a socket leads to that socket. Elsewhere somebody may
//! put another file under the name at any time. There the socket is bound and given away in a new folder that only the
//! master can enter, and then linked to its name, which replaces nothing.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, linkat, unlinkat};

use super::paths::{Folder, Trust};
use crate::sys;

/// A new socket's name in its private folder.
const DRAFT: &str = "socket";

/// Who may connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// Permission bits; `None` leaves them to the umask.
    pub mode: Option<u32>,
    /// Owner, unless the master's user.
    pub owner: Option<u32>,
    /// Group, unless the master's.
    pub group: Option<u32>,
}

/// The file of a socket that this process has bound; removed when this is dropped, if it is still there.
#[derive(Debug)]
pub struct SocketFile {
    folder: Folder,
    name: OsString,
    /// The file itself, so that its number is not given to another one.
    file: OwnedFd,
}

impl SocketFile {
    /// Binds `socket` to `path`. `listen` is called as soon as it is bound, before anybody can connect where that matters.
    ///
    /// # Errors
    /// What lies there and what to do about it, or the system's reason.
    pub fn bind(
        socket: &OwnedFd,
        path: &Path,
        rights: Rights,
        listen: impl FnOnce() -> nix::Result<()>,
    ) -> Result<Self, String> {
        let (folder, name) = Folder::of(path).map_err(|error| error.to_string())?;
        remove_stale(&folder, &name, rights.owner)?;
        match folder.trust() {
            Trust::Trusted => {
                bind_at(socket, path, rights)?;
                let file = Self::find(folder, name)?;
                file.set(rights)?;
                listen().map_err(explain("listen"))?;
                Ok(file)
            }
            Trust::Owner { .. } => Self::bind_among_others(socket, folder, name, rights, listen),
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
        set(&file, rights)?;
        listen().map_err(explain("listen"))?;
        linkat(&draft.dir, DRAFT, &folder, &*name, AtFlags::empty()).map_err(
            |errno| match errno {
                Errno::EEXIST => "another file was put there meanwhile (remove it)".to_owned(),
                other => explain("link")(other),
            },
        )?;
        drop(draft);
        Ok(Self { folder, name, file })
    }

    /// What was just bound in a folder that nobody else can change.
    fn find(folder: Folder, name: OsString) -> Result<Self, String> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&folder, &*name, flags, Mode::empty()).map_err(|errno| {
            let _ = unlinkat(&folder, &*name, UnlinkatFlags::NoRemoveDir);
            explain("open")(errno)
        })?;
        let stat = fstat(&file).map_err(explain("open"))?;
        if kind(&stat) != SFlag::S_IFSOCK || stat.st_uid != geteuid().as_raw() {
            return Err("another file was put in the place of the socket".into());
        }
        Ok(Self { folder, name, file })
    }

    /// Changes owner and mode of the socket, wherever its name leads by now.
    ///
    /// # Errors
    /// The system's reason.
    pub fn set(&self, rights: Rights) -> Result<(), String> {
        set(&self.file, rights)
    }

    /// Whether the name still leads to the socket.
    pub fn is_in_place(&self) -> bool {
        let named = fstatat(&self.folder, &*self.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let (Ok(named), Ok(ours)) = (named, fstat(&self.file)) else {
            return false;
        };
        (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            // If this fails, the next start takes the stale file over.
            let _ = unlinkat(&self.folder, &*self.name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// A folder in another one that only the master can enter; removed when this is dropped.
struct Draft<'a> {
    parent: &'a Folder,
    name: String,
    dir: OwnedFd,
}

impl<'a> Draft<'a> {
    fn new(parent: &'a Folder) -> Result<Self, String> {
        let explain = explain("making a private folder for it");
        let name = format!(".preforkd-{:016x}", sys::random().map_err(&explain)?);
        mkdirat(parent, &*name, Mode::S_IRWXU).map_err(&explain)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(parent, &*name, flags, Mode::empty());
        let opened = opened.and_then(|dir| Ok((fstat(&dir)?, dir)));
        // Another one of ours would do as well: nobody else can enter it.
        let is_private =
            |stat: &FileStat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o077 == 0;
        match opened {
            Ok((stat, dir)) if is_private(&stat) => Ok(Self { parent, name, dir }),
            Ok(_) => Err("another folder was put in the place of a private one".into()),
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
    let address = UnixAddr::new(path).map_err(explain("address"))?;
    // The mode is right from the first moment on, whatever umask the master was started with.
    let before = rights
        .mode
        .map(|mode| umask(Mode::from_bits_truncate(!mode & 0o777)));
    let bound = socket::bind(socket.as_raw_fd(), &address);
    if let Some(before) = before {
        umask(before);
    }
    bound.map_err(explain("bind"))
}

fn set(file: &OwnedFd, rights: Rights) -> Result<(), String> {
    let (owner, group) = (
        rights.owner.map(Uid::from_raw),
        rights.group.map(Gid::from_raw),
    );
    if owner.is_some() || group.is_some() {
        fchownat(file, "", owner, group, AtFlags::AT_EMPTY_PATH)
            .map_err(explain("changing its owner"))?;
    }
    if let Some(mode) = rights.mode {
        // fchmod(2) does not take a descriptor of this kind.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode)
            .map_err(|error| format!("changing its mode: {error}"))?;
    }
    Ok(())
}

/// Removes the socket file of a process that is gone.
fn remove_stale(folder: &Folder, name: &OsString, owner: Option<u32>) -> Result<(), String> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match openat(folder, &**name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        found => found.map_err(explain("looking what lies there"))?,
    };
    let stat = fstat(&file).map_err(explain("looking what lies there"))?;
    let what = match kind(&stat) {
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFLNK => "a symbolic link of this name",
        SFlag::S_IFDIR => "a folder of this name",
        _ => "a file of this name that is no socket",
    };
    if what != "a socket" {
        return Err(format!(
            "there is {what} (move it away, or configure another path)"
        ));
    }
    if stat.st_uid != geteuid().as_raw() && Some(stat.st_uid) != owner {
        return Err(format!(
            "there is a socket of uid {} (remove it if nobody uses it)",
            stat.st_uid
        ));
    }
    match who_serves(&file) {
        Err(Errno::ECONNREFUSED) => unlinkat(folder, &**name, UnlinkatFlags::NoRemoveDir)
            .map_err(explain("removing the stale socket file")),
        Ok(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            // A process may call itself what it likes.
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            Err(format!(
                "process {pid} ({name}) is serving there (stop it first)"
            ))
        }
        // Its accept queue is full, so it lives.
        Err(Errno::EAGAIN) => Err("another process is serving there (stop it first)".into()),
        Err(errno) => Err(explain("asking who serves there")(errno)),
    }
}

/// Asks without waiting.
fn who_serves(file: &OwnedFd) -> nix::Result<i32> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(&*format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    socket::connect(probe.as_raw_fd(), &address)?;
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

/// A stream socket that is bound to nothing yet.
///
/// # Errors
/// There is no descriptor left.
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
        let file = SocketFile::bind(&socket, path, rights, listen)?;
        Ok((socket, file))
    }

    /// What a file is to be found as.
    fn state(path: &Path) -> (u32, u64) {
        let found = path.symlink_metadata().expect("it is there");
        (found.mode(), found.ino())
    }

    #[test]
    fn it_is_made_with_its_mode_and_removed_with_its_socket() {
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
    fn what_is_not_ours_is_neither_replaced_nor_changed_nor_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let target = folder.path().join("target");
        std::fs::write(&target, "precious").expect("room");
        symlink(&target, folder.path().join("link")).expect("room");
        std::fs::create_dir(folder.path().join("folder")).expect("room");
        for (name, said) in [
            ("target", "a file of this name that is no socket"),
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
        assert!(!file.is_in_place());
        let rights = Rights {
            mode: Some(0o666),
            ..Rights::default()
        };
        file.set(rights).expect("the socket is there still");
        drop(file);
        assert!(path.is_symlink(), "somebody else's");
        assert_eq!(state(&target), before);
    }

    #[test]
    fn a_stale_socket_gives_way_and_a_full_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let live = UnixListener::bind(&path).expect("room");
        let error = bind(&path, Rights::default()).map(drop);
        assert!(error.expect_err("it lives").contains("is serving there"));
        // A queue of one, and one more.
        socket::listen(&live, Backlog::new(0).expect("a length")).expect("a socket");
        let waiting: Vec<_> = std::iter::from_fn(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let caller = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None);
            let caller = caller.expect("a descriptor");
            let address = UnixAddr::new(&path).expect("short");
            socket::connect(caller.as_raw_fd(), &address).ok()?;
            Some(caller)
        })
        .collect();
        let error = bind(&path, Rights::default()).map(drop);
        assert!(error.expect_err("it lives").contains("is serving there"));
        drop((live, waiting));
        bind(&path, Rights::default()).expect("nobody serves there");
    }

    #[test]
    fn among_others_it_is_made_in_private_and_replaces_nothing() {
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
        assert!(error.contains("put there meanwhile"), "{error}");
        assert_eq!(names(), 1, "no draft is left");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_ne!(mode & 0o777, 0o606);
    }
}
