//! Opens folders by walking their components from `/`, and tells how far they can be trusted.
//!
//! A root master works in folders that other users may change between two system calls. So a path is walked once, a symbolic
//! link is followed only where no one but root can have created it, and all further calls are relative to the descriptor that
//! the walk has opened. Compare CVE-2016-1247: what an application's user owns is data.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::geteuid;

/// The maximum number of symbolic links in a path: path_resolution(7).
const MAX_LINKS: u32 = 40;

/// How a folder is opened for *at() calls and fstat(2) only.
const HANDLE: OFlag = OFlag::O_PATH
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Whether others can change a folder or the path to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Only root and the master's own user can.
    Trusted,
    /// Others can. The first such folder on the path has this owner; user 0 if it is a folder of root that is writable for
    /// its group or for everyone.
    Owner {
        /// User id of that folder.
        uid: u32,
        /// Group id of that folder.
        gid: u32,
    },
}

/// The attributes that decide: owner, group and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl From<&FileStat> for Seen {
    fn from(stat: &FileStat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode,
        }
    }
}

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_SEARCH: u32 = 0o001;

/// Who can change a folder, for a master that runs as `own`. `outsider` is the overflow user id, which stands for all users
/// outside this user namespace, if no process here can have it: user_namespaces(7).
fn judge(folder: Seen, own: u32, outsider: Option<u32>) -> Trust {
    let Seen { uid, gid, mode } = folder;
    let foreign = uid != 0 && uid != own && Some(uid) != outsider;
    // A master that is not root cannot lose more than its user, who has set these permissions.
    let shared = own == 0
        && mode & STICKY == 0
        && (mode & OTHERS_WRITE != 0 || mode & GROUP_WRITES != 0 && gid != 0);
    if foreign || shared {
        Trust::Owner { uid, gid }
    } else {
        Trust::Trusted
    }
}

/// In a container without all users (rootless, bubblewrap), root's folders belong to this user id, which no process can have.
fn outsider() -> Option<u32> {
    let uid = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
    let uid = uid.trim().parse().ok()?;
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    (!is_mapped(uid, &map)).then_some(uid)
}

/// Whether a user id exists in a namespace with this map: user_namespaces(7).
fn is_mapped(uid: u32, map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) => {
                (first..first.saturating_add(count)).contains(&u64::from(uid))
            }
            // An unreadable map is no reason for trust.
            _ => true,
        }
    })
}

/// Whether a symbolic link of `link_owner` may be followed. `trust` is that of its folder and of the path there.
fn may_follow(trust: Trust, folder: Seen, link_owner: u32, own: u32) -> bool {
    // Everyone can create links in /tmp; their owner decides, as with protected_symlinks: proc(5).
    let shared = folder.mode & STICKY != 0 && folder.mode & (GROUP_WRITES | OTHERS_WRITE) != 0;
    let ours = link_owner == 0 || link_owner == own;
    (trust == Trust::Trusted || own != 0) && (ours || !shared)
}

/// A folder at the end of a walk.
#[derive(Debug)]
pub struct Folder {
    dir: OwnedFd,
    trust: Trust,
    /// Everyone may search it and all folders on the path.
    pub is_open_to_all: bool,
    /// Others may create files in it, even if it is trusted: /tmp.
    pub is_shared: bool,
    /// The last trusted folder on the path, and the rest of the path.
    border: Option<Border>,
}

/// The last trusted folder on a path, and the rest of the path. A process that has changed its user id can go on from here.
#[derive(Debug)]
pub struct Border {
    dir: OwnedFd,
    at: PathBuf,
    rest: VecDeque<OsString>,
}

impl Folder {
    /// Walks to a folder.
    ///
    /// # Errors
    /// A component does not exist, is not a folder, or is a link that must not be followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut walk = Walk::from_root(geteuid().as_raw(), components(path))?;
        walk.go(0)?;
        Ok(walk.into_folder())
    }

    /// Walks to the folder of a file. Also returns the file's name there.
    ///
    /// # Errors
    /// As [`Folder::open`]; or the path does not name a file.
    pub fn of(path: &Path) -> io::Result<(Self, OsString)> {
        let name = path.file_name().ok_or_else(no_file_name)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((Self::open(parent)?, name.to_owned()))
    }

    /// How far it can be trusted.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The last trusted folder on the path; `None` if the whole path is trusted, or if it was taken before.
    pub fn take_border(&mut self) -> Option<Border> {
        self.border.take()
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The place of a file that may be reached through a link.
#[derive(Debug)]
pub enum Place {
    /// A folder, and a name in it that is not a link.
    In(Folder, OsString),
    /// A descriptor of this process: `/dev/stdout` and the like.
    Descriptor(i32),
}

impl Place {
    /// Walks to a file, which need not exist. Follows a link at the end of the path if that is allowed.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn find(path: &Path) -> io::Result<Self> {
        Walk::from_root(geteuid().as_raw(), components(path))?.find()
    }

    /// The same from a border on, for a process that was `own` when it got there.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn find_from(border: &Border, own: u32) -> io::Result<Self> {
        Walk::from_border(border, own)?.find()
    }
}

struct Walk {
    own: u32,
    outsider: Option<u32>,
    dir: OwnedFd,
    seen: Seen,
    /// The path so far, for messages.
    at: PathBuf,
    rest: VecDeque<OsString>,
    trust: Trust,
    is_open_to_all: bool,
    border: Option<Border>,
    links: u32,
}

impl Walk {
    fn from_root(own: u32, rest: VecDeque<OsString>) -> io::Result<Self> {
        let dir = open("/", HANDLE | OFlag::O_DIRECTORY, Mode::empty())?;
        Self::from(own, dir, PathBuf::from("/"), rest)
    }

    fn from_border(border: &Border, own: u32) -> io::Result<Self> {
        let dir = border.dir.try_clone()?;
        Self::from(own, dir, border.at.clone(), border.rest.clone())
    }

    fn from(own: u32, dir: OwnedFd, at: PathBuf, rest: VecDeque<OsString>) -> io::Result<Self> {
        let seen = Seen::from(&fstat(&dir)?);
        let outsider = outsider();
        Ok(Self {
            own,
            outsider,
            dir,
            seen,
            at,
            rest,
            trust: judge(seen, own, outsider),
            is_open_to_all: seen.mode & OTHERS_SEARCH != 0,
            border: None,
            links: 0,
        })
    }

    fn into_folder(self) -> Folder {
        Folder {
            dir: self.dir,
            trust: self.trust,
            is_open_to_all: self.is_open_to_all,
            is_shared: self.seen.mode & (GROUP_WRITES | OTHERS_WRITE) != 0,
            border: self.border,
        }
    }

    /// Walks until `left` components are left.
    fn go(&mut self, left: usize) -> io::Result<()> {
        while self.rest.len() > left {
            let Some(name) = self.rest.pop_front() else {
                return Ok(());
            };
            let shown = self.at.join(&name);
            let next = openat(&self.dir, &*name, HANDLE, Mode::empty())
                .map_err(|errno| explain(&shown, errno))?;
            let stat = fstat(&next)?;
            match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFDIR => self.enter(next, &stat, name)?,
                SFlag::S_IFLNK => self.follow(&next, &stat, name)?,
                _ => return Err(explain(&shown, Errno::ENOTDIR)),
            }
        }
        Ok(())
    }

    fn enter(&mut self, next: OwnedFd, stat: &FileStat, name: OsString) -> io::Result<()> {
        let seen = Seen::from(stat);
        let before = std::mem::replace(&mut self.dir, next);
        if self.trust == Trust::Trusted {
            self.trust = judge(seen, self.own, self.outsider);
            if self.trust != Trust::Trusted {
                let mut rest = self.rest.clone();
                rest.push_front(name.clone());
                self.border = Some(Border {
                    dir: before,
                    at: self.at.clone(),
                    rest,
                });
            }
        }
        self.is_open_to_all &= seen.mode & OTHERS_SEARCH != 0;
        self.seen = seen;
        if name == ".." {
            self.at.pop();
        } else {
            self.at.push(name);
        }
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd, stat: &FileStat, name: OsString) -> io::Result<()> {
        let shown = self.at.join(&name);
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(explain(&shown, Errno::ELOOP));
        }
        if !may_follow(self.trust, self.seen, stat.st_uid, self.own) {
            return Err(refuse_link(&shown, self.trust, stat.st_uid));
        }
        if fstatfs(link)?.filesystem_type() == PROC_SUPER_MAGIC && name != "self" {
            // The kernel resolves these links by the object, not by their text: proc(5).
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
            let next = openat(&self.dir, &*name, flags, Mode::empty())
                .map_err(|errno| explain(&shown, errno))?;
            let stat = fstat(&next)?;
            return self.enter(next, &stat, name);
        }
        let target = PathBuf::from(readlinkat(link, "").map_err(|errno| explain(&shown, errno))?);
        if target.is_absolute() {
            self.dir = open("/", HANDLE | OFlag::O_DIRECTORY, Mode::empty())?;
            self.seen = Seen::from(&fstat(&self.dir)?);
            self.at = PathBuf::from("/");
        }
        for component in components(&target).into_iter().rev() {
            self.rest.push_front(component);
        }
        Ok(())
    }

    /// Walks to the folder of the last component, and through the last component if it is a link.
    fn find(mut self) -> io::Result<Place> {
        loop {
            self.go(1)?;
            let name = self.rest.pop_front().ok_or_else(no_file_name)?;
            if name == ".." {
                return Err(no_file_name());
            }
            if let Some(number) = self.own_descriptor(&name) {
                return Ok(Place::Descriptor(number));
            }
            match openat(&self.dir, &*name, HANDLE, Mode::empty()) {
                Ok(found) => {
                    let stat = fstat(&found)?;
                    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
                    if kind != SFlag::S_IFLNK {
                        return Ok(Place::In(self.into_folder(), name));
                    }
                    self.follow(&found, &stat, name)?;
                }
                Err(Errno::ENOENT) => return Ok(Place::In(self.into_folder(), name)),
                Err(errno) => return Err(explain(&self.at.join(&name), errno)),
            }
        }
    }

    fn own_descriptor(&self, name: &OsStr) -> Option<i32> {
        let own = format!("/proc/{}/fd", std::process::id());
        let is_own = self.at == Path::new(&own) && self.trust == Trust::Trusted;
        is_own.then(|| name.to_str()?.parse().ok()).flatten()
    }
}

/// The components of a path, without `.`. The caller decides where it starts.
fn components(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    parts.collect()
}

fn explain(path: &Path, errno: Errno) -> io::Error {
    let kind = io::Error::from(errno).kind();
    io::Error::new(kind, format!("{}: {}", path.display(), errno.desc()))
}

fn no_file_name() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the path does not end in a file name",
    )
}

fn refuse_link(path: &Path, trust: Trust, link_owner: u32) -> io::Error {
    let whose = match trust {
        Trust::Owner { uid, .. } if uid != 0 => {
            format!("in a folder that belongs to uid {uid}")
        }
        Trust::Owner { .. } => "in a folder that users other than root can write to".to_owned(),
        Trust::Trusted => format!("of uid {link_owner} in a folder that everyone can write to"),
    };
    let message = format!(
        "{} is a symbolic link {whose}, so it is not followed (put the file or folder itself there, or configure its path)",
        path.display()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn seen(uid: u32, gid: u32, mode: u32) -> Seen {
        Seen { uid, gid, mode }
    }

    #[test]
    fn a_folder_is_trusted_when_only_root_or_the_master_can_change_it() {
        // (own, owner, group, mode, trusted)
        let table = [
            (0, 0, 0, 0o755, true),
            (0, 0, 0, 0o775, true),    // the group root
            (0, 0, 33, 0o755, true),   // a group that may only read
            (0, 0, 104, 0o775, false), // /var/log of some systems
            (0, 0, 104, 0o1775, true),
            (0, 0, 0, 0o777, false),
            (0, 0, 0, 0o1777, true), // /tmp
            (0, 33, 33, 0o700, false),
            (0, 33, 0, 0o755, false),
            (1000, 0, 0, 0o755, true),
            (1000, 0, 0, 0o777, true),
            (1000, 1000, 1000, 0o775, true),
            (1000, 1000, 100, 0o777, true),
            (1000, 33, 33, 0o755, false),
        ];
        for (own, uid, gid, mode, trusted) in table {
            let expected = match trusted {
                true => Trust::Trusted,
                false => Trust::Owner { uid, gid },
            };
            let judged = judge(seen(uid, gid, mode), own, None);
            assert_eq!(judged, expected, "own {own}: {uid}:{gid} {mode:o}");
        }
    }

    #[test]
    fn a_user_that_does_not_exist_in_this_namespace_changes_nothing() {
        let folder = seen(65534, 65534, 0o755);
        let owner = Trust::Owner {
            uid: 65534,
            gid: 65534,
        };
        assert_eq!(judge(folder, 0, None), owner);
        assert_eq!(judge(folder, 0, Some(65534)), Trust::Trusted);
        let writable = seen(65534, 65534, 0o777);
        assert_eq!(judge(writable, 0, Some(65534)), owner);
        for (map, mapped) in [
            ("         0          0 4294967295\n", true), // the host
            ("0 1000 1\n", false),
            ("0 1000 1\n1 100000 65536\n", true),
            ("0 1000 1\n1 100000 65533\n", false),
            ("nonsense", true),
        ] {
            assert_eq!(is_mapped(65534, map), mapped, "{map}");
        }
    }

    #[test]
    fn a_link_is_followed_where_no_one_else_can_have_created_it() {
        let (root, tmp, theirs) = (seen(0, 0, 0o755), seen(0, 0, 0o1777), seen(33, 33, 0o755));
        let (yes, no) = (Trust::Trusted, Trust::Owner { uid: 33, gid: 33 });
        // (own, trust, folder, owner of the link, followed)
        let table = [
            (0, yes, root, 0, true),
            (0, yes, root, 33, true), // as an archive was unpacked
            (0, yes, tmp, 0, true),
            (0, yes, tmp, 33, false),
            (0, no, theirs, 0, false),
            (0, no, theirs, 33, false),
            (0, no, root, 0, false), // below a folder of theirs
            (1000, yes, root, 33, true),
            (1000, yes, tmp, 1000, true),
            (1000, yes, tmp, 33, false),
            (1000, no, theirs, 33, true), // no more than cat(1) would do
        ];
        for (own, trust, folder, link, followed) in table {
            let may = may_follow(trust, folder, link, own);
            assert_eq!(may, followed, "own {own}, {trust:?}, {folder:?}, {link}");
        }
    }

    #[test]
    fn a_walk_goes_through_links_and_back_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        std::fs::create_dir_all(path.join("a/b")).expect("room");
        symlink("a/../a/b", path.join("relative")).expect("room");
        symlink(path.join("relative"), path.join("absolute")).expect("room");
        std::fs::write(path.join("a/b/file"), "x").expect("room");
        let walked = Folder::open(&path.join("absolute")).expect("it is there");
        let there = Folder::open(&path.join("a/b")).expect("it is there");
        let inode = |folder: &Folder| fstat(folder).expect("open").st_ino;
        assert_eq!(inode(&walked), inode(&there));
        assert_eq!(walked.trust(), Trust::Trusted);

        symlink("b/file", path.join("a/link")).expect("room");
        let Ok(Place::In(found, name)) = Place::find(&path.join("a/link")) else {
            panic!("it is there");
        };
        assert_eq!((inode(&found), name), (inode(&there), "file".into()));
        let new = Place::find(&path.join("a/none"));
        assert!(matches!(new, Ok(Place::In(_, name)) if name == "none"));
    }

    #[test]
    fn an_error_names_the_component() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        std::fs::write(path.join("file"), "x").expect("room");
        symlink("loop", path.join("loop")).expect("room");
        for (name, said) in [
            ("none/x", "none: No such file or directory"),
            ("file/x", "file: Not a directory"),
            ("loop/x", "loop: Too many symbolic links"),
        ] {
            let error = Folder::of(&path.join(name)).expect_err("it cannot be walked");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_standard_stream_is_a_descriptor() {
        for (path, number) in [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/7", 7)] {
            let found = Place::find(Path::new(path));
            assert!(
                matches!(found, Ok(Place::Descriptor(found)) if found == number),
                "{path}: {found:?}"
            );
        }
    }

    #[test]
    fn search_permission_is_that_of_the_whole_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("room");
        for (outer, expected) in [(0o711, true), (0o710, false)] {
            let mode = std::fs::Permissions::from_mode(outer);
            std::fs::set_permissions(folder.path(), mode).expect("ours");
            let walked = Folder::open(&inner).expect("it is there");
            assert_eq!(walked.is_open_to_all, expected);
        }
    }
}
