//! What the kernel tells about a process: proc_pid_stat(5), proc_pid_status(5), proc_pid_environ(5).

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::env;

use crate::plan;

/// The flags of a process that ends, dumps core, or was killed by a signal: PF_EXITING, PF_DUMPCORE and PF_SIGNALED of the kernel's
/// include/linux/sched.h, which have not changed since Linux 2.6.
const EXITS: u32 = 0x4 | 0x200 | 0x400;

/// SIGKILL in a set of signals as proc_pid_status(5) shows it.
const KILL: u64 = 1 << (Signal::SIGKILL as u64 - 1);

/// What the kernel calls a master.
const MASTER: &[u8] = b"preforkd";

/// More ancestors than a process has.
const MOST_ANCESTORS: usize = 1000;

/// What the kernel tells about a process in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The name of its program, which it may change.
    pub name: Vec<u8>,
    /// It has not ended.
    pub runs: bool,
    /// It is ending: the kernel is dumping its memory or closing its files.
    pub exits: bool,
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its session.
    pub session: Pid,
    /// When it was started, in ticks of the clock. With the number of the process, that is nobody else's.
    pub started: u64,
}

impl Stat {
    /// Of this process; `None` if there is none.
    pub fn of(pid: Pid) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name may contain anything.
        let from = stat.iter().position(|&byte| byte == b'(')?;
        let to = stat.iter().rposition(|&byte| byte == b')')?;
        let name = stat.get(from + 1..to)?.to_vec();
        let after_name = std::str::from_utf8(stat.get(to + 1..)?).ok()?;
        let mut fields = after_name.split_whitespace();
        let state = fields.next()?;
        let mut number = || Some(Pid::from_raw(fields.next()?.parse().ok()?));
        let (parent, group, session) = (number()?, number()?, number()?);
        // Field 9; the session is field 6.
        let flags: u32 = fields.nth(2)?.parse().ok()?;
        Some(Self {
            name,
            runs: !matches!(state, "Z" | "X"),
            exits: flags & EXITS != 0,
            parent,
            group,
            session,
            // Field 22.
            started: fields.nth(12)?.parse().ok()?,
        })
    }
}

/// Whether a process has ended, or is going to whatever it does: SIGKILL was sent to it.
pub fn is_dying(pid: Pid) -> bool {
    let Some(stat) = Stat::of(pid) else {
        return true;
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut pending = status.lines().filter_map(|line| {
        let set = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    !stat.runs || stat.exits || pending.any(|set| set & KILL != 0)
}

/// The user that owns a process's folder, which is its effective user unless it may not be examined.
pub fn user(pid: Pid) -> Option<u32> {
    let folder = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    Some(folder.uid())
}

/// Whether this is the real, effective, saved and file system user of a process.
pub fn is_of(pid: Pid, uid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let mut users = users.into_iter().flat_map(str::split_whitespace).peekable();
    users.peek().is_some() && users.all(|user| user.parse() == Ok(uid))
}

/// A variable in the environment that a process was started with, as the process shows it: it may have overwritten it.
pub fn variable(pid: Pid, name: &str) -> Option<Vec<u8>> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|&byte| byte == 0);
    let value = variables.find_map(|variable| {
        let value = variable.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })?;
    Some(value.to_vec())
}

/// The app of a preforkd that a process belongs to, as it says itself.
pub fn app(pid: Pid) -> Option<String> {
    let app = String::from_utf8(variable(pid, env::APP)?).ok()?;
    plan::is_app_name(&app).then_some(app)
}

/// Whether a process belongs to an app, as it says itself, and no preforkd is among its ancestors: that was killed together with its guard.
pub fn is_orphan(pid: Pid) -> bool {
    app(pid).is_some() && !ancestors(pid).any(|stat| stat.name == MASTER)
}

fn ancestors(pid: Pid) -> impl Iterator<Item = Stat> {
    let parent = |stat: &Stat| Stat::of(stat.parent).filter(|_| stat.parent.as_raw() > 0);
    // They may change meanwhile.
    std::iter::successors(Stat::of(pid), parent)
        .skip(1)
        .take(MOST_ANCESTORS)
}

/// The numbers of the sockets that a process has, once for each of its descriptors, as far as it may be examined: proc_pid_fd(5).
/// `None` stands for a descriptor of something else.
pub fn sockets(pid: Pid) -> impl Iterator<Item = Option<u64>> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = descriptors.into_iter().flatten().flatten();
    descriptors.map(|descriptor| socket(&descriptor.path().read_link().ok()?))
}

/// The number of a socket, by the link of its descriptor: `socket:[4711]`.
fn socket(link: &Path) -> Option<u64> {
    let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// All processes that this one may see.
pub fn all() -> impl Iterator<Item = (Pid, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
        Some((pid, Stat::of(pid)?))
    })
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getpgrp, getppid, getsid, getuid};

    use super::*;

    #[test]
    fn this_process_is_what_the_system_calls_say() {
        let this = Pid::this();
        let stat = Stat::of(this).expect("it runs");
        assert!(stat.runs);
        assert_eq!(
            (stat.parent, stat.group, Ok(stat.session)),
            (getppid(), getpgrp(), getsid(None))
        );
        assert_eq!(user(this), Some(getuid().as_raw()));
        assert!(is_of(this, getuid().as_raw()) && !is_of(this, 4_000_000));
        assert!(all().any(|(pid, found)| pid == this && found.started == stat.started));
        assert_eq!(Stat::of(Pid::from_raw(i32::MAX)), None);
        assert!(!is_of(Pid::from_raw(i32::MAX), 0));
    }

    #[test]
    fn the_sockets_of_a_process_have_the_numbers_of_the_kernel() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let number = nix::sys::stat::fstat(&one).expect("open").st_ino;
        assert!(sockets(Pid::this()).any(|found| found == Some(number)));
        assert_eq!(sockets(Pid::from_raw(i32::MAX)).next(), None);
    }

    #[test]
    fn a_name_may_contain_anything() {
        let line = "7 (a) (b\n) Z 1 2 3 0 -1 4228364 5 6 7 8 9 10 11 12 13 14 15 16 4711 18\n";
        let stat = Stat::parse(line.as_bytes()).expect("a line");
        assert_eq!(stat.name, b"a) (b\n");
        assert!(!stat.runs && stat.exits);
        let numbers = (stat.parent.as_raw(), stat.group.as_raw());
        assert_eq!((numbers, stat.session.as_raw()), ((1, 2), 3));
        assert_eq!(stat.started, 4711);
        assert_eq!(Stat::parse(b"7 (a) S 1 2"), None);
    }

    #[test]
    fn a_process_is_dying_from_the_moment_that_it_is_killed() {
        let mut child = std::process::Command::new("sleep");
        let mut child = child.arg("100").spawn().expect("there is sleep");
        let pid = Pid::from_raw(child.id() as i32);
        assert!(!is_dying(pid));
        // It is not executed on the way to its end, so what it does cannot hide that.
        child.kill().expect("ours");
        assert!(is_dying(pid));
        child.wait().expect("ours");
        assert!(is_dying(pid));
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let mut child = std::process::Command::new("sleep");
        let child = child.arg("100").env_clear().env("XY", "no").env("Y", "a=b");
        let mut child = child.spawn().expect("there is sleep");
        let pid = Pid::from_raw(child.id() as i32);
        assert_eq!(variable(pid, "Y"), Some(b"a=b".to_vec()));
        assert_eq!(variable(pid, "X"), None);
        child.kill().expect("ours");
        child.wait().expect("ours");
    }
}
