//! Reads small files that belong to an app: data, which the app's user may have put there.
//!
//! A root master that read such a file by its name would read any file for that user: a link to another user's secrets would do. So
//! where others can change the path, the file is read with the rights of the app's user, who may then follow any links. What only
//! root can change is read as root, as systemd does: a file of mode 0600 in /etc need not be readable for the app's user.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;

use super::paths::{Place, Trust};
use super::rights::as_user;
use crate::plan::Credentials;

/// Opens nothing: not the other end of a fifo, nor a device.
const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// Reads a file, with the rights of `user` where others than this process's user can change the file or the path to it.
///
/// # Errors
/// It cannot be read, is not a regular file, is larger than `limit` bytes or is not UTF-8.
pub fn read(path: &Path, user: Option<&Credentials>, limit: u64) -> Result<String, String> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{error} (create it first)"),
        _ => error.to_string(),
    };
    let bytes = match user.filter(|user| geteuid().is_root() && user.uid != 0) {
        None => read_handle(open(path, HANDLE, Mode::empty()).map_err(io::Error::from), limit),
        Some(user) => match trusted(path) {
            Some(handle) => read_handle(Ok(handle), limit),
            None => as_user(user, || {
                read_handle(open(path, HANDLE, Mode::empty()).map_err(io::Error::from), limit)
            })
            .map_err(|errno| format!("cannot take the rights of uid {}: {}", user.uid, errno.desc()))?
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => io::Error::other(format!(
                    "{error} (others than root can change it or a folder on its path, so it is read as uid {}, the user of the app: give that user the permission to read it, or root all of them)",
                    user.uid
                )),
                _ => error,
            }),
        },
    };
    String::from_utf8(bytes.map_err(explain)?).map_err(|_| "it is not UTF-8".to_owned())
}

/// Reads a file that must be as trustworthy as another one: if only root can change `other`, only root may be able to change this
/// one.
///
/// # Errors
/// It is not, or it cannot be read, is not a regular file, is larger than `limit` bytes or is not UTF-8.
pub fn read_as_trusted_as(other: &Path, path: &Path, limit: u64) -> Result<String, String> {
    let other = std::path::absolute(other).map_err(|error| error.to_string())?;
    let handle = match geteuid().is_root() && trusted(&other).is_some() {
        false => open(path, HANDLE, Mode::empty()).map_err(io::Error::from),
        // Of a file that is not there, and of links that lead nowhere, that is said.
        true => std::fs::metadata(path).and_then(|_| {
            trusted(path).ok_or_else(|| {
                io::Error::other("others than root can change it or a folder on its path, and could run any program as root (make root the owner of all of them, with permissions for root alone to write)")
            })
        }),
    };
    let explain = |error: io::Error| match dangling(path) {
        Some(to) => format!(
            "it is a symbolic link to {}, which does not exist",
            to.display()
        ),
        None => error.to_string(),
    };
    let bytes = read_handle(handle, limit).map_err(explain)?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Where a symbolic link leads that leads nowhere.
fn dangling(path: &Path) -> Option<PathBuf> {
    let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    let to = path.read_link().ok()?;
    path.metadata().is_err_and(is_missing).then_some(to)
}

/// The file, if only root can change it and the path to it.
fn trusted(path: &Path) -> Option<OwnedFd> {
    let Ok(Place::In(folder, name)) = Place::find(path) else {
        return None;
    };
    if folder.trust() != Trust::Trusted || folder.is_shared {
        return None;
    }
    let handle = openat(&folder, &*name, HANDLE | OFlag::O_NOFOLLOW, Mode::empty()).ok()?;
    let stat = fstat(&handle).ok()?;
    let is_writable = stat.st_mode & 0o022 != 0;
    (stat.st_uid == 0 && !is_writable).then_some(handle)
}

fn read_handle(handle: io::Result<OwnedFd>, limit: u64) -> io::Result<Vec<u8>> {
    let handle = handle?;
    let stat = fstat(&handle)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(io::Error::other("it is not a regular file"));
    }
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let file = open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut bytes = Vec::new();
    File::from(file).take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!(
            "it is larger than {} KiB",
            limit / 1024
        ))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use nix::unistd::{mkfifo, setfsuid};

    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "A=1\n").expect("room");
        std::fs::write(path("bytes"), b"\xff").expect("room");
        symlink("file", path("link")).expect("room");
        symlink("/dev/zero", path("zero")).expect("room");
        mkfifo(&path("fifo"), Mode::S_IRWXU).expect("room");
        for (name, limit, expected) in [
            ("file", 4, Ok("A=1\n")),
            ("file", 3, Err("larger than")),
            ("link", 4, Ok("A=1\n")),
            ("bytes", 4, Err("not UTF-8")),
            ("none", 4, Err("No such file")),
            ("fifo", 4, Err("not a regular file")),
            ("zero", 4, Err("not a regular file")),
            (".", 4, Err("not a regular file")),
        ] {
            match (read(&path(name), None, limit), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{name}"),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{name}: {said}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn where_others_can_change_the_path_root_reads_as_the_user_of_the_app() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        let path = |name: &str| folder.path().join(name);
        let user = |uid| Credentials {
            uid,
            gid: uid,
            groups: vec![uid],
        };
        std::fs::create_dir(path("theirs")).expect("room");
        std::fs::create_dir(path("ours")).expect("room");
        for (name, owner, mode) in [
            ("ours/secret", 0, 0o600),
            ("ours/open", 0, 0o666),
            ("theirs/own", 65534, 0o600),
            ("theirs/other", 1, 0o600),
            ("theirs/all", 1, 0o644),
        ] {
            std::fs::write(path(name), name).expect("room");
            std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).expect("ours");
            chown(path(name), Some(owner), Some(owner)).expect("root may");
        }
        symlink(path("ours/secret"), path("theirs/link")).expect("room");
        symlink("own", path("theirs/own-link")).expect("room");
        symlink("secret", path("ours/link")).expect("room");
        chown(path("theirs"), Some(65534), Some(65534)).expect("root may");
        for (name, may) in [
            ("ours/secret", true),
            ("ours/link", true),
            ("ours/open", true),
            ("theirs/own", true),
            ("theirs/own-link", true),
            ("theirs/all", true),
            ("theirs/other", false),
            ("theirs/link", false),
        ] {
            let found = read(&path(name), Some(&user(65534)), 100);
            assert_eq!(found.is_ok(), may, "{name}: {found:?}");
            if let Err(said) = found {
                assert!(said.contains("read as uid 65534"), "{said}");
            }
            // All rights are back.
            assert!(read(&path(name), None, 100).is_ok(), "{name}");
            assert_eq!(setfsuid(geteuid()), geteuid());
        }
        assert!(read(&path("theirs/own"), Some(&user(1)), 100).is_err());
    }

    #[test]
    fn of_links_that_lead_nowhere_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        symlink("circle", path("circle")).expect("room");
        symlink("none", path("dangling")).expect("room");
        for (name, expected) in [
            ("circle", "Too many levels of symbolic links"),
            ("dangling", "it is a symbolic link to"),
            ("absent", "No such file"),
        ] {
            let other = Path::new("/etc/passwd");
            let said = read_as_trusted_as(other, &path(name), 100).expect_err(name);
            assert!(said.contains(expected), "{name}: {said}");
        }
    }
}
