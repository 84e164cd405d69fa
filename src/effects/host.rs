//! The host that a plan is checked against: users, folders and programs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{self, Gid, Group, Uid};

use super::interpreter;
use crate::plan::{Host, Launch, User};

/// The file name of the extension module.
const EXTENSION: &str = "libpreforkd_python.so";

/// The host of this process.
pub struct ThisHost;

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
