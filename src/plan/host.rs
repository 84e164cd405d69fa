//! What a plan needs to know about the host.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use preforkd_worker::acme::Seen;
use preforkd_worker::inspection::Inspection;
use serde::{Deserialize, Serialize};

use super::{Credentials, Launch, Privileges, lossless};
use crate::schedule::Zone;

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
    /// Home directory.
    pub home: String,
}

/// What tells whether there is another file, or another content of it, behind a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// The path without symbolic links.
    #[serde(with = "lossless")]
    pub path: PathBuf,
    /// Its device and inode.
    pub identity: (u64, u64),
    /// The time of the last change of a file's content; when a folder was made, as far as the file system knows.
    pub time: Option<SystemTime>,
}

/// Answers questions about the host. Tests use an invented one.
pub trait Host {
    /// User and group ids of the master.
    fn own_ids(&self) -> (u32, u32);
    /// A user by name or number.
    fn user(&self, name: &str) -> Option<User>;
    /// A group's id by name or number.
    fn group(&self, name: &str) -> Option<u32>;
    /// Whether this is an existing folder.
    fn is_folder(&self, path: &Path) -> bool;
    /// Whether this is an existing regular file.
    fn is_file(&self, path: &Path) -> bool;
    /// The file or folder behind a path; `None` if it cannot be known.
    fn file_state(&self, path: &Path) -> Option<FileState>;
    /// The folder on the way to `path`, or `path` itself, that this user may not enter, as far as permission bits tell; the user of
    /// the master if there is none.
    fn closed_to(&self, path: &Path, user: Option<&Credentials>) -> Option<PathBuf>;
    /// Whether this is a file that someone can execute.
    fn is_executable(&self, path: &Path) -> bool;
    /// The absolute form of a path. A relative one begins at the working directory, by the name under which this process was
    /// started there, which may go through symbolic links.
    fn absolute(&self, path: &Path) -> PathBuf;
    /// The text of a small file of an app, which is data. Where others than the user of the master can change the file or the
    /// path to it, it is read with the rights of `user` (the user of the app).
    ///
    /// # Errors
    /// It cannot be read, is not a regular file, is larger than `limit` bytes or is not UTF-8.
    fn data(&self, path: &Path, user: Option<&Credentials>, limit: u64) -> Result<String, String>;
    /// The files that match a pattern with wildcards below `folder`, sorted.
    ///
    /// # Errors
    /// The pattern is none, or a folder cannot be read.
    fn matching(&self, folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String>;
    /// The text of a file of the configuration that another one includes. If only the user of the master can change `first`, the
    /// first file of the configuration, nobody else may be able to change this one.
    ///
    /// # Errors
    /// It cannot be read or trusted, is not a regular file, is larger than `limit` bytes or is not UTF-8.
    fn included(&self, path: &Path, first: &Path, limit: u64) -> Result<String, String>;
    /// A variable of the master's environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// The data of the time zone with this name, or of the one of the machine.
    ///
    /// # Errors
    /// There is none, or its data cannot be read.
    fn time_zone(&self, name: Option<&str>) -> Result<Zone, String>;
    /// What the master may give to its workers, as far as this process has the same rights.
    fn privileges(&self) -> Privileges;
    /// The version of Landlock of the kernel; 0 if it has none.
    fn landlock(&self) -> u32;
    /// The number of CPUs that this process may use.
    fn cpus(&self) -> u32;
    /// The interpreter behind `path`, which may be a wrapper script. The script runs as the user of `launch`, in its folder and
    /// with its environment, for a few seconds at most.
    ///
    /// # Errors
    /// The script cannot be run, its answer is not usable, or the interpreter is of another C library than this preforkd.
    fn interpreter(&self, path: &Path, launch: &Launch) -> Result<PathBuf, String>;
    /// What the process of this launch, which loads an application, tells of it. It runs as the user of the launch, for this time at most.
    ///
    /// # Errors
    /// The application cannot be loaded, or its answer cannot be read.
    fn inspect(&self, app: &str, launch: &Launch, limit: Duration) -> Result<Inspection, String>;
    /// The virtual environment that this preforkd is installed in.
    fn own_environment(&self) -> Option<PathBuf>;
    /// The path of the extension module of this preforkd.
    ///
    /// # Errors
    /// It is missing, or of another release; with the paths.
    fn extension(&self) -> Result<PathBuf, String>;
    /// The path of the program `preforkd-front` of this preforkd.
    ///
    /// # Errors
    /// It is missing, or of another release; with the paths.
    fn front(&self) -> Result<PathBuf, String>;
    /// What that program says of the certificates in its settings, a line for each flaw: `error` or `warning`, the site and the reason, with
    /// tabs between them.
    ///
    /// # Errors
    /// It cannot be asked.
    fn certificate_flaws(&self, program: &Path, settings: &str) -> Result<String, String>;
    /// What that program says is in a file with a key, a certificate and its chain, in PEM.
    ///
    /// # Errors
    /// It cannot be used, or the program cannot be asked.
    fn look(&self, program: &Path, text: &str) -> Result<Seen, String>;
    /// A key and a certificate for these hosts that stands for itself, in PEM, made by that program.
    ///
    /// # Errors
    /// It cannot make one.
    fn self_signed(&self, program: &Path, hosts: &[String]) -> Result<String, String>;
}

/// Finds a program like a shell: by path (relative to `folder`) or in the folders of `path`.
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
