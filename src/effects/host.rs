//! The host that a plan is checked against: users, folders and programs.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{self, AccessFlags, Gid, Group, Uid};

use super::{data_file, inspect, installed, interpreter, loader, privileges, time_zone};
use preforkd_worker::acme::Seen;
use preforkd_worker::inspection::Inspection;

use crate::parts::{self, Part};
use crate::plan::{Credentials, FileState, Host, Launch, Privileges, User};
use crate::schedule::Zone;
use crate::sys;

/// The most time that an application has to tell what it is: less than the check of a configuration may take as a whole.
const INSPECTION: Duration = Duration::from_secs(40);

/// The host of this process.
pub struct ThisHost;

/// The file that a path leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = path.metadata().ok()?;
    Some((found.dev(), found.ino()))
}

/// A relative path by way of this name of the working directory. `None` if it leaves the directory with `..`, and the kernel, for which
/// that is the parent of what a link refers to, finds another file.
fn through(folder: &Path, path: &Path) -> Option<PathBuf> {
    if !path.components().any(|part| part == Component::ParentDir) {
        return Some(folder.join(path));
    }
    let mut logical = folder.to_owned();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(logical.pop()),
            other => logical.push(other),
        }
    }
    let found = identity(&logical)?;
    (Some(found) == identity(path)).then_some(logical)
}

/// Whether a value of `PWD` names the working directory, by the rules of pwd(1p).
fn names_working_directory(folder: &Path) -> bool {
    let mut parts = folder.as_os_str().as_bytes().split(|&byte| byte == b'/');
    folder.is_absolute()
        && !parts.any(|part| part == b"." || part == b"..")
        && identity(folder).is_some_and(|found| Some(found) == identity(Path::new(".")))
}

/// Whether the permission bits of a folder let this user in, or this process if there is none. What the bits do not tell (an access
/// control list) is not looked at. A path that is no folder stops nobody.
fn may_enter(folder: &Path, user: Option<&Credentials>) -> bool {
    let Some(user) = user else {
        return unistd::access(folder, AccessFlags::X_OK) != Err(Errno::EACCES);
    };
    let Ok(metadata) = folder.metadata() else {
        return true;
    };
    let is_member = user.gid == metadata.gid() || user.groups.contains(&metadata.gid());
    let bit = match (user.uid, is_member) {
        (0, _) => return true,
        (uid, _) if uid == metadata.uid() => 0o100,
        (_, true) => 0o010,
        (_, false) => 0o001,
    };
    metadata.mode() & bit != 0
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

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn file_state(&self, path: &Path) -> Option<FileState> {
        let path = path.canonicalize().ok()?;
        let found = path.metadata().ok()?;
        let time = match found.is_dir() {
            true => found.created(),
            false => found.modified(),
        };
        Some(FileState {
            identity: (found.dev(), found.ino()),
            time: time.ok(),
            path,
        })
    }

    fn closed_to(&self, path: &Path, user: Option<&Credentials>) -> Option<PathBuf> {
        // Both ways lead through folders: as it is written, and as its links have it.
        let real = path.canonicalize().ok()?;
        let folders = [path, &real].map(|path| path.ancestors().collect::<Vec<_>>());
        let mut folders: Vec<&Path> = folders.into_iter().flatten().collect();
        folders.sort_unstable();
        let closed = folders.into_iter().find(|folder| !may_enter(folder, user));
        closed.map(Path::to_owned)
    }

    fn is_executable(&self, path: &Path) -> bool {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    /// `current -> releases/42` must stay a link: a reload then finds the next release. So `$PWD` counts before getcwd(2).
    fn absolute(&self, path: &Path) -> PathBuf {
        let folder = std::env::var_os("PWD").map(PathBuf::from);
        let folder = folder.filter(|folder| names_working_directory(folder));
        let logical = folder.and_then(|folder| through(&folder, path));
        let path = logical.unwrap_or_else(|| path.to_owned());
        std::path::absolute(&path).unwrap_or(path)
    }

    fn data(&self, path: &Path, user: Option<&Credentials>, limit: u64) -> Result<String, String> {
        data_file::read(path, user, limit)
            .map_err(|why| format!("cannot read {}: {why}", path.display()))
    }

    fn matching(&self, folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let fixed = pattern.split(['*', '?', '[']).next().unwrap_or_default();
        let fixed = fixed.rsplit_once('/').map_or("", |(fixed, _)| fixed);
        let start = folder.join(fixed);
        if !fixed.is_empty() && !start.is_dir() {
            return match start.exists() {
                true => Err(format!("{} is not a folder", start.display())),
                false => Ok(Vec::new()),
            };
        }
        let wrong = |why: &dyn fmt::Display| format!("{pattern:?} cannot be used: {why}");
        // The characters of the folder are no wildcards.
        let folder = folder
            .to_str()
            .ok_or_else(|| wrong(&"its folder is not UTF-8"))?;
        let full = Path::new(&glob::Pattern::escape(folder)).join(pattern);
        let options = glob::MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..Default::default()
        };
        let found = glob::glob_with(&full.to_string_lossy(), options);
        let mut found = found
            .map_err(|error| wrong(&error))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&error))?;
        found.sort();
        Ok(found)
    }

    fn included(&self, path: &Path, first: &Path, limit: u64) -> Result<String, String> {
        data_file::read_as_trusted_as(first, path, limit)
            .map_err(|why| format!("cannot read {}: {why}", path.display()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn time_zone(&self, name: Option<&str>) -> Result<Zone, String> {
        time_zone::find(name)
    }

    fn privileges(&self) -> Privileges {
        privileges::own()
    }

    fn landlock(&self) -> u32 {
        sys::landlock_version()
    }

    fn cpus(&self) -> u32 {
        // Honours the affinity and the quota of the cgroup.
        std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32)
    }

    /// Some installations put scripts (pyenv) in front of the real interpreter. A worker must not be the child of such a
    /// script, nor run it at every start.
    fn interpreter(&self, path: &Path, launch: &Launch) -> Result<PathBuf, String> {
        let found = match interpreter::is_script(path) {
            true => interpreter::ask(path, launch)?,
            false => path.to_owned(),
        };
        match loader::refusal(&found, &installed::own()?) {
            Some(refusal) => Err(refusal),
            None => Ok(found),
        }
    }

    fn inspect(&self, app: &str, launch: &Launch, limit: Duration) -> Result<Inspection, String> {
        inspect::inspect(app, launch, limit.min(INSPECTION), &mut |_| ())
    }

    fn own_environment(&self) -> Option<PathBuf> {
        let own = installed::own().ok()?;
        parts::environment(&own, |file| file.is_file())
    }

    fn extension(&self) -> Result<PathBuf, String> {
        installed::find(Part::Extension)
    }

    fn front(&self) -> Result<PathBuf, String> {
        installed::find(Part::Front)
    }

    fn certificate_flaws(&self, program: &Path, certificates: &str) -> Result<String, String> {
        ask(program, &["check".into()], certificates)
    }

    fn look(&self, program: &Path, text: &str) -> Result<Seen, String> {
        let answer = ask(program, &["look".into()], text)?;
        serde_json::from_str(&answer).unwrap_or_else(|error| Err(error.to_string()))
    }

    fn self_signed(&self, program: &Path, hosts: &[String]) -> Result<String, String> {
        let command = "self-signed".to_owned();
        let arguments: Vec<_> = [command].into_iter().chain(hosts.to_vec()).collect();
        ask(program, &arguments, "")
    }
}

/// What the program of the front says about certificates.
fn ask(program: &Path, arguments: &[String], input: &str) -> Result<String, String> {
    let asked = || {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(io::Error::other(output.status.to_string())),
        }
    };
    asked().map_err(|error: io::Error| {
        format!(
            "cannot check certificates with {}: {error} (install preforkd and preforkd-front from the same release)",
            program.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_in_a_folder_that_is_missing_matches_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = ThisHost.matching(folder.path(), "conf.d/*.toml");
        assert_eq!(found, Ok(vec![]));
        std::fs::write(folder.path().join("conf.d"), "").expect("room");
        let error = ThisHost.matching(folder.path(), "conf.d/*.toml");
        assert!(error.expect_err("a file").contains("is not a folder"));
    }

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

        let name = own.file_name().expect("not the root");
        let (inside, back) = (Path::new("Cargo.toml"), Path::new("..").join(name));
        assert_eq!(through(&link, inside), Some(link.join("Cargo.toml")));
        assert_eq!(through(&own, &back.join(inside)), Some(own.join(inside)));
        // Beside the link there is no such file.
        assert_eq!(through(&link, &back.join(inside)), None);
    }

    #[test]
    fn a_folder_that_is_closed_to_the_user_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
        };
        let (outer, inner) = (dir.path().join("outer"), dir.path().join("outer/inner"));
        std::fs::create_dir_all(&inner).expect("folders");
        let metadata = inner.metadata().expect("it is there");
        let user = |uid, gid| Credentials {
            uid,
            gid,
            groups: vec![gid],
        };
        let (owner, other) = (metadata.uid(), metadata.uid() + 7);
        let (own, foreign) = (metadata.gid(), metadata.gid() + 7);
        mode(dir.path(), 0o755);
        mode(&outer, 0o755);
        for (bits, uid, gid, open) in [
            (0o755, other, foreign, true),
            (0o754, other, foreign, false),
            (0o750, other, own, true),
            (0o705, other, own, false),
            (0o711, other, foreign, true),
        ] {
            mode(&inner, bits);
            let closed = ThisHost.closed_to(&inner, Some(&user(uid, gid)));
            assert_eq!(closed.is_none(), open, "{bits:o} {uid} {gid}: {closed:?}");
        }
        mode(&inner, 0o700);
        let closed = ThisHost.closed_to(&inner, Some(&user(owner, foreign)));
        assert_eq!(closed, None);
        mode(&inner, 0o755);
        mode(&outer, 0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).expect("a link");
        for path in [&inner, &link] {
            let closed = ThisHost.closed_to(path, Some(&user(other, foreign)));
            let closed = closed.expect("the outer folder is closed");
            assert_eq!(closed.file_name(), outer.file_name());
        }
        assert_eq!(ThisHost.closed_to(&inner, None), None);
    }
}
