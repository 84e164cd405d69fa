//! From the path of a request to an open file, and never out of the folder.
//!
//! A file is opened with openat2(2) and RESOLVE_BENEATH: the kernel itself refuses every way out of the folder, symbolic links
//! and races with someone who renames included, which no check of a path beforehand can promise.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, open, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::net::descriptors::Own;
use crate::proto::h1::target::{hex, percent_decode};
use crate::serve::timers::Instant;

/// The way to a folder is looked at again after this time, in nanoseconds: a deploy may have changed a link in it.
const LOOK: Instant = 100_000_000;
/// How often a file is tried again that moved while it was looked up.
const ATTEMPTS: usize = 3;

/// Why there is no file.
#[derive(Debug)]
pub(super) enum Miss {
    /// Nothing of that name that is served.
    Nothing,
    /// A folder.
    Folder,
    /// A link leads to this place, which is not in the folder.
    Outside(PathBuf),
    /// The worker may not read it.
    Denied(io::Error),
    /// Something else is wrong.
    Failed(io::Error),
}

impl From<Errno> for Miss {
    fn from(error: Errno) -> Self {
        match error {
            // XDEV: a way out of the folder. NXIO: a socket.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NXIO
            | Errno::NODEV => Self::Nothing,
            Errno::ACCESS | Errno::PERM => Self::Denied(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::Failed(error),
        }
    }
}

// Without NONBLOCK a FIFO in the folder would hold the worker for ever.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A folder whose files are served.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    folder: Own,
    id: (u64, u64),
    looked: Instant,
}

impl Root {
    /// # Errors
    /// It is no folder, or this process may not enter it; the path is in the message.
    pub fn open(path: &Path) -> io::Result<Self> {
        let told = |error: Errno| io::Error::other(format!("{}: {error}", path.display()));
        let (folder, id) = open_folder(path).map_err(told)?;
        Ok(Self {
            path: path.to_owned(),
            folder: folder.into(),
            id,
            looked: 0,
        })
    }

    /// Follows the way to the folder again. Where it leads nowhere, the folder stays as it is.
    pub fn look(&mut self, now: Instant) {
        if now < self.looked.saturating_add(LOOK) {
            return;
        }
        self.looked = now;
        let found = rustix::fs::stat(&self.path);
        if found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.id) {
            return;
        }
        if let Ok((folder, id)) = open_folder(&self.path) {
            self.folder = folder.into();
            self.id = id;
        }
    }

    /// Opens a file below; `name` comes from [`local_name`].
    pub fn file(&self, name: &[u8]) -> Result<(File, Metadata), Miss> {
        match self.beneath(name, ResolveFlags::BENEATH) {
            Err(Errno::XDEV) => regular(self.linked(name)?),
            found => regular(found?),
        }
    }

    /// Where the file is, for the log.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    fn beneath(&self, name: &[u8], resolve: ResolveFlags) -> Result<File, Errno> {
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match openat2(&self.folder, name, FLAGS, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS => {}
                other => return other.map(File::from),
            }
        }
    }

    /// RESOLVE_BENEATH refuses links that are absolute, or lead out of the folder and back. So each step is followed without opening
    /// anything, must end in the folder, and tells where that is; then the file is opened there, without any link. A name that goes
    /// through a folder outside is refused, as the kernel refuses it.
    #[cold]
    fn linked(&self, name: &[u8]) -> Result<File, Miss> {
        let base = place(&self.folder)?;
        let mut at = openat(&self.folder, ".", PATH, Mode::empty())?;
        let mut inside = PathBuf::new();
        for step in name.split(|&b| b == b'/') {
            at = openat(&at, step, PATH, Mode::empty())?;
            let place = place(&at)?;
            inside = match place.strip_prefix(&base) {
                Ok(inside) => inside.to_owned(),
                Err(_) => return Err(Miss::Outside(place)),
            };
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match inside.as_os_str().is_empty() {
            true => Err(Miss::Folder),
            false => Ok(self.beneath(inside.as_os_str().as_bytes(), resolve)?),
        }
    }
}

/// A folder that this process may enter, and its identity.
fn open_folder(path: &Path) -> Result<(OwnedFd, (u64, u64)), Errno> {
    let folder = open(path, PATH | OFlags::DIRECTORY, Mode::empty())?;
    // To open the folder takes no permission for the folder itself; to go on from it does.
    let stat = statat(&folder, "./.", AtFlags::empty())?;
    Ok((folder, (stat.st_dev, stat.st_ino)))
}

/// Where an open file is, as the kernel knows it (proc(5), `/proc/pid/fd`).
fn place(fd: impl AsFd) -> Result<PathBuf, Errno> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let place = readlinkat(rustix::fs::CWD, link, Vec::new())?;
    Ok(std::ffi::OsString::from_vec(place.into_bytes()).into())
}

/// Opens a file that a mapping names itself; its links lead where they lead.
pub(super) fn single(path: &Path) -> Result<(File, Metadata), Miss> {
    let mut options = File::options();
    options.read(true);
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    regular(options.open(path)?)
}

fn regular(file: File) -> Result<(File, Metadata), Miss> {
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false if metadata.is_dir() => Err(Miss::Folder),
        false => Err(Miss::Nothing),
    }
}

/// What follows a prefix in a path that is encoded in any way; none if the path does not begin with it. A slash that is encoded
/// separates nothing, so it is none.
pub(super) fn strip<'a>(raw: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let mut rest = raw;
    for &wanted in prefix {
        let (byte, length) = match rest {
            [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => match high << 4 | low {
                    b'/' => return None,
                    byte => (byte, 3),
                },
                _ => (b'%', 1),
            },
            [byte, ..] => (*byte, 1),
            [] => return None,
        };
        if byte != wanted {
            return None;
        }
        rest = &rest[length..];
    }
    Some(rest)
}

/// The path below the folder, decoded once, in `name`; whether it can name a file or, with a slash at its end or empty, a folder. An encoded
/// slash, NUL, a backslash, and segments that are empty or begin with a dot (`.`, `..`, `.git`, `.env`) name nothing; only
/// `.well-known` (RFC 8615) is meant for everybody.
pub(super) fn local_name(raw: &[u8], name: &mut Vec<u8>) -> bool {
    percent_decode(raw, name);
    if name.len() != raw.len() {
        let slashes = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'/').count();
        if slashes(raw) != slashes(name) {
            return false;
        }
    }
    is_local(name)
}

/// Whether a decoded name can name a file or a folder below another one; see [`local_name`].
pub(super) fn is_local(name: &[u8]) -> bool {
    if name.iter().any(|b| matches!(b, 0 | b'\\')) {
        return false;
    }
    let segments = name.strip_suffix(b"/").unwrap_or(name);
    name.is_empty()
        || segments.split(|&b| b == b'/').all(|segment| {
            !matches!(segment.first(), None | Some(b'.')) || segment == b".well-known"
        })
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for State {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_same_however_it_is_encoded() {
        let prefix = "/mé ~/".as_bytes();
        for raw in [
            "/m%C3%A9%20~/a%20b",
            "/m%c3%a9%20%7E/a%20b",
            "/%6d%C3%A9%20~/a%20b",
        ] {
            assert_eq!(strip(raw.as_bytes(), prefix), Some(&b"a%20b"[..]), "{raw}");
        }
        assert_eq!(strip("/mé ~/".as_bytes(), prefix), Some(&b""[..]));
        for raw in [
            "/m%C3%A9%20~",
            "/m%C3%A9%20~%2Fa",
            "/m%25C3%A9%20~/",
            "%2Fm",
            "",
            "/m%C3",
        ] {
            assert_eq!(strip(raw.as_bytes(), prefix), None, "{raw}");
        }
        assert_eq!(strip(b"/100%/a", b"/100%/"), Some(&b"a"[..]));
        assert_eq!(strip(b"/100%25/a", b"/100%/"), Some(&b"a"[..]));
    }

    #[test]
    fn only_what_is_not_there_is_not_found() {
        let miss = |error: Errno| Miss::from(io::Error::from(error));
        for error in [
            Errno::NOENT,
            Errno::NOTDIR,
            Errno::LOOP,
            Errno::XDEV,
            Errno::NAMETOOLONG,
        ] {
            assert!(matches!(miss(error), Miss::Nothing), "{error}");
        }
        for error in [Errno::ACCESS, Errno::PERM] {
            assert!(matches!(miss(error), Miss::Denied(_)), "{error}");
        }
        for error in [
            Errno::IO,
            Errno::MFILE,
            Errno::NFILE,
            Errno::STALE,
            Errno::NOMEM,
        ] {
            assert!(matches!(miss(error), Miss::Failed(_)), "{error}");
        }
    }

    #[test]
    fn names_are_decoded_once_and_stay_below() {
        let mut name = Vec::new();
        for (raw, decoded) in [
            ("a%20b.css", "a b.css"),
            ("a/b/c", "a/b/c"),
            ("a/", "a/"),
            ("", ""),
            ("%25", "%"),
            ("100%", "100%"),
            (".well-known/security.txt", ".well-known/security.txt"),
            ("a..b", "a..b"),
        ] {
            assert!(local_name(raw.as_bytes(), &mut name), "{raw}");
            assert_eq!(name, decoded.as_bytes(), "{raw}");
        }
        for raw in [
            "/",
            "//",
            "a//b",
            "a//",
            ".",
            "..",
            "../a",
            "a/..",
            "%2e%2e/a",
            "a%2fb",
            "..%2Fa",
            "a\\b",
            "%5c",
            "a%00",
            ".git/config",
            "a/.env",
            ".well-known2",
            "./a",
            "/a",
        ] {
            assert!(!local_name(raw.as_bytes(), &mut name), "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_has_a_step_up(raw in "([a./%25eE\\\\]|%2[eEfF]|%5[cC]|%00|\\PC){0,20}") {
            let mut name = Vec::new();
            if local_name(raw.as_bytes(), &mut name) {
                let steps: Vec<_> = name.split(|&b| b == b'/').collect();
                assert!(!steps.iter().any(|step| *step == b".." || *step == b"."));
                assert!(steps.len() == 1 || !steps[0].is_empty());
                assert!(!name.contains(&0) && !name.contains(&b'\\'));
            }
        }
    }
}
