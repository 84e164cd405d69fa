//! The host that a plan is checked against: its users, folders and programs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{self, Gid, Group, Pid, Uid};

use crate::plan::{Host, User};

/// The file name of the extension module.
const EXTENSION: &str = "libpreforkd_python.so";

/// A script that has not led to an interpreter in this time will not.
const PATIENCE: u16 = 3000;

thread_local! {
    /// Scripts that were asked, with the time of their last change: each reload asks again, and the master must
    /// not wait for an answer that it knows.
    static INTERPRETERS: RefCell<HashMap<PathBuf, (PathBuf, Option<SystemTime>)>> = RefCell::default();
}

/// Asks a script which interpreter it leads to; for [`PATIENCE`] milliseconds at most.
fn ask_interpreter(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let mut child = Command::new(path)
        .args(["-c", "import sys; print(sys.executable)"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let mut answer = String::new();
    let answered = child.stdout.take().is_some_and(|mut stdout| {
        let ready = poll(
            &mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)],
            PATIENCE,
        ) == Ok(1);
        let mut line = [0; 4096];
        // One line from one print: it comes in one piece.
        let length = if ready {
            stdout.read(&mut line).unwrap_or(0)
        } else {
            0
        };
        answer = String::from_utf8_lossy(&line[..length]).trim().to_owned();
        ready
    });
    // It has printed what was asked for, or never will.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
    match answered {
        true if answer.starts_with('/') => Ok(answer.into()),
        true => Err(format!(
            "{shown} is a script that leads to no interpreter (try `{shown} -c 'import sys'`)"
        )),
        false => Err(format!(
            "{shown} is a script that has not led to an interpreter within {}s",
            PATIENCE / 1000
        )),
    }
}

/// The host that this process runs on.
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

    /// Some installations put scripts (pyenv) in front of the real interpreter; a worker must not be the
    /// child of a script, nor pay for it at every start.
    fn interpreter(&self, path: &Path) -> Result<PathBuf, String> {
        let mut start = [0; 2];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
        if read.is_err() || start != *b"#!" {
            return Ok(path.to_owned());
        }
        INTERPRETERS.with_borrow_mut(|known| {
            let changed = path.metadata().and_then(|file| file.modified()).ok();
            if let Some((executable, then)) = known.get(path)
                && *then == changed
            {
                return Ok(executable.clone());
            }
            let executable = ask_interpreter(path)?;
            known.insert(path.to_owned(), (executable.clone(), changed));
            Ok(executable)
        })
    }

    fn extension(&self) -> Result<PathBuf, String> {
        let own = std::env::current_exe()
            .map_err(|error| format!("cannot find this program's own file: {error}"))?;
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
                    "the extension module for Python is missing (looked for {})",
                    places.join(" and ")
                )
            })
    }
}
