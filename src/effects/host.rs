//! The host that a plan is checked against: users, folders and programs.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{self, Gid, Group, Uid};

use super::interpreter;
use crate::plan::{Host, Launch, User};

/// The file name of the extension module.
const EXTENSION: &str = "libpreforkd_python.so";

/// The host of this process.
pub struct ThisHost;

/// Whether a value of `PWD` names the working directory, by the rules of pwd(1p).
fn names_working_directory(folder: &Path) -> bool {
    let identity = |path: &Path| {
        let found = path.metadata().ok()?;
        Some((found.dev(), found.ino()))
    };
    let mut parts = folder.as_os_str().as_bytes().split(|&byte| byte == b'/');
    folder.is_absolute()
        && !parts.any(|part| part == b"." || part == b"..")
        && identity(folder).is_some_and(|found| Some(found) == identity(Path::new(".")))
}

impl Host for ThisHost {
    fn own_ids(&self) -> (u32, u32) {
        (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
    }

    fn user(&self, name: &str) -> Option<User> {
        let number = name.parse().ok().map(Uid::from_raw);
        let found = unistd::User::from_name(name).ok().flatten();
        let user = found.or_else(|| unistd::User::from_uid(number?).ok().flatten())?;
        let c_name = std::ffi::CString::new(user.name.clone()).ok()?;
        let groups = unistd::getgrouplist(&c_name, user.gid).unwrap_or_else(|_| vec![user.gid]);
        Some(User {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            home: user.dir.to_string_lossy().into_owned(),
            name: user.name,
        })
    }

    fn group(&self, name: &str) -> Option<u32> {
        let found = Group::from_name(name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw());
        found.or_else(|| name.parse().ok())
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn is_executable(&self, path: &Path) -> bool {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    /// `current -> releases/42` must stay a link: a reload then finds the next release. So `$PWD` counts before getcwd(2).
    fn absolute(&self, path: &Path) -> PathBuf {
        let folder = std::env::var_os("PWD").map(PathBuf::from);
        let folder = folder.filter(|folder| names_working_directory(folder));
        let path = folder.map_or_else(|| path.to_owned(), |folder| folder.join(path));
        std::path::absolute(&path).unwrap_or(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn cpus(&self) -> u32 {
        // Honours the affinity and the quota of the cgroup.
        std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32)
    }

    /// Some installations put scripts (pyenv) in front of the real interpreter. A worker must not be the child of such a
    /// script, nor run it at every start.
    fn interpreter(&self, path: &Path, launch: &Launch) -> Result<PathBuf, String> {
        if interpreter::is_script(path) {
            interpreter::ask(path, launch)
        } else {
            Ok(path.to_owned())
        }
    }

    fn extension(&self) -> Result<PathBuf, String> {
        let own = std::env::current_exe()
            .map_err(|error| format!("cannot find the path of this program: {error}"))?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        let beside = folder.join(EXTENSION);
        let installed = folder.join("../lib/preforkd").join(EXTENSION);
        let places = [beside, installed];
        places
            .iter()
            .find(|file| file.is_file())
            .cloned()
            .ok_or_else(|| {
                let places: Vec<_> = places
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect();
                format!(
                    "the Python extension module is missing (expected at {})",
                    places.join(" and ")
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_path_of_the_working_directory_counts() {
        let own = std::env::current_dir().expect("it is there");
        assert!(names_working_directory(&own));
        assert!(!names_working_directory(&own.join("src/..")));
        assert!(!names_working_directory(&own.join(".")));
        assert!(!names_working_directory(Path::new(".")));
        assert!(!names_working_directory(Path::new("/")));
        assert!(!names_working_directory(Path::new("/no/such/folder")));
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("current");
        std::os::unix::fs::symlink(&own, &link).expect("room");
        assert!(names_working_directory(&link));
    }
}
