//! What a plan has to know of the host.

use std::path::{Path, PathBuf};

use super::Launch;

/// A user of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All group ids.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

/// Answers about the host; the tests' are invented.
pub trait Host {
    /// User and group id of the master itself.
    fn own_ids(&self) -> (u32, u32);
    /// A user by name or number.
    fn user(&self, name: &str) -> Option<User>;
    /// A group's id by name or number.
    fn group(&self, name: &str) -> Option<u32>;
    /// Whether there is such a folder.
    fn is_folder(&self, path: &Path) -> bool;
    /// Whether there is such a file, executable by somebody.
    fn is_executable(&self, path: &Path) -> bool;
    /// A variable of the master's environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// How many CPUs this process may use.
    fn cpus(&self) -> u32;
    /// The interpreter behind `path`, which may be a wrapper script. That is asked as the user of `launch`, in its folder and
    /// with its environment, which takes a few seconds at most.
    ///
    /// # Errors
    /// Why it cannot be asked, or what is wrong with its answer.
    fn interpreter(&self, path: &Path, launch: &Launch) -> Result<PathBuf, String>;
    /// The extension module that belongs to this preforkd.
    ///
    /// # Errors
    /// Where it was looked for in vain.
    fn extension(&self) -> Result<PathBuf, String>;
}

/// Finds a program as a shell would: by path (relative to `folder`) or in the folders of `path`.
pub(super) fn find_program(
    name: &str,
    folder: &Path,
    path: &str,
    host: &dyn Host,
) -> Option<PathBuf> {
    if name.contains('/') {
        let file = folder.join(name);
        return host.is_executable(&file).then_some(file);
    }
    std::env::split_paths(path)
        .map(|entry| folder.join(entry).join(name))
        .find(|file| host.is_executable(file))
}
