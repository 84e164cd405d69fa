//! A master that starts while the guard of an earlier one still ends what that has left.
//!
//! It waits until the earlier master has closed all that it had open, and its guard has looked what is left: a moment. After that only
//! those apps wait of which something is left that must not run beside them ([`Earlier::left`]).

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use log::{info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, geteuid};

use super::table::{Files, Record, Table};
use super::{ending, handing};
use crate::effects::init::Init;
use crate::effects::process::{self, Stat};
use crate::effects::signals::Signals;
use crate::sys;

/// How often the init system is asked for more time, and for how much.
const EVERY: Duration = Duration::from_secs(5);
const MORE_TIME: Duration = Duration::from_secs(15);

/// The name of a guard, and what the kernel calls it until it has named itself: proc_pid_comm(5).
const NAMES: [&[u8]; 2] = [b"preforkd", b"exe"];

/// How often to ask whether the guard has looked.
const LOOK: Duration = Duration::from_millis(5);

/// An earlier master, which has died or is dying, and its guard, which ends what is left.
pub struct Earlier {
    /// The earlier master.
    pub master: Pid,
    /// Ready when the master has closed all that it had open; `None` if it has.
    exits: Option<OwnedFd>,
    /// Its guard.
    pub guard: Pid,
    /// Ready when the guard has ended.
    guard_ends: OwnedFd,
    table: Table,
}

/// Waits for the end of earlier masters of this user with one of these files, and until their guards know what is left. Returns these
/// masters; `None` if the wait was ended by a signal to end.
pub fn wait(files: &Files, signals: &mut Signals) -> Option<Vec<Earlier>> {
    let mut all = find(files);
    for earlier in &mut all {
        earlier.wait(signals)?;
    }
    Some(all)
}

impl Earlier {
    fn wait(&mut self, signals: &mut Signals) -> Option<()> {
        let mut told = Instant::now();
        while self.exits.is_some() || !self.table.was_looked_at() && self.has_left() {
            self.look(signals);
            if signals.end_this() {
                warn!("stopped while it waited for the end of an earlier preforkd");
                return None;
            }
            // Usually it is a matter of milliseconds.
            if told.elapsed() > EVERY {
                told = Instant::now();
                let text = format!(
                    "waiting for the end of the preforkd with pid {}",
                    self.master
                );
                info!("{text}");
                let mut init = Init::find().unwrap_or_else(|_| Init::absent());
                init.status(&text);
                init.more_time(MORE_TIME);
            }
        }
        Some(())
    }

    /// Waits a moment, or until something happens.
    fn look(&mut self, signals: &Signals) {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut sources = vec![readable(signals.as_fd())];
        sources.extend(self.exits.as_ref().map(|exits| readable(exits.as_fd())));
        let limit = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        // Interrupted by a signal, it is seen now.
        let _ = poll(&mut sources, limit);
        if sources.get(1).and_then(PollFd::any) == Some(true) {
            self.exits = None;
        }
    }

    /// Whether it still ends something.
    pub fn has_left(&self) -> bool {
        let mut fds = [PollFd::new(self.guard_ends.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    /// The listeners that its guard hands over, with the names under which they are kept: those that a process of it still has.
    pub fn sockets(&self) -> Vec<(String, OwnedFd)> {
        let Some(door) = self.table.door().filter(|_| self.has_left()) else {
            return Vec::new();
        };
        match handing::ask(&door, self.guard) {
            Ok(sockets) => sockets,
            // It is ending: so has everything that had them.
            Err(Errno::ECONNREFUSED | Errno::ECONNRESET) => Vec::new(),
            Err(error) => {
                let (master, guard) = (self.master, self.guard);
                warn!(
                    "cannot take over the listeners of the preforkd with pid {master} from its guard, pid {guard}: {error}; binding those that are free"
                );
                Vec::new()
            }
        }
    }

    /// Whether something is left that must not run beside others, of what is meant.
    pub fn left(&self, is_meant: impl Fn(&Record) -> bool) -> bool {
        self.left_any(|record| !record.overlaps && is_meant(record))
    }

    /// Whether one of these processes is of what the master had started, or the leader of a session of it.
    pub fn had_started(&self, processes: &[Pid]) -> bool {
        let records = self.table.records();
        let mut records = records.iter().map(|(_, record)| record);
        records.any(|record| match record.leader {
            Some(leader) => processes.contains(&leader.pid),
            None => processes.iter().any(|pid| ending::is_in_app(*pid, record)),
        })
    }

    /// Whether anything is left of what is meant.
    pub fn left_any(&self, is_meant: impl Fn(&Record) -> bool) -> bool {
        let records = self.table.records();
        let mut records = records.iter().map(|(_, record)| record);
        self.has_left() && records.any(|record| !record.gone && is_meant(record))
    }
}

/// The guards that end what their masters have left. Only processes of this user are believed: others may name anything.
fn find(files: &Files) -> Vec<Earlier> {
    let own = geteuid().as_raw();
    let candidates = process::all().filter(|(pid, stat)| {
        NAMES.contains(&&*stat.name) && *pid != Pid::this() && process::user(*pid) == Some(own)
    });
    let earlier = candidates.filter_map(|(pid, stat)| of(pid, &stat, files));
    earlier.collect()
}

fn of(guard: Pid, stat: &Stat, files: &Files) -> Option<Earlier> {
    let guard_ends = sys::watch_process(guard).ok()?;
    let table = Table::of(guard)?;
    let master = table.master()?;
    // Numbers of another namespace mean other processes.
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let is_here = namespace(&guard.to_string()) == namespace("self");
    // A master has the table too.
    if !is_here || guard == master || table.is_stopped() {
        return None;
    }
    // The guard of a master that runs is its child, and also while the master exits.
    let exits = match stat.parent == master {
        true if !process::is_dying(master) => return None,
        true => sys::watch_process(master).ok(),
        false => None,
    };
    table.files()?.are_of(files).then_some(Earlier {
        master,
        exits,
        guard,
        guard_ends,
        table,
    })
}

impl std::fmt::Debug for Earlier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.master, self.guard)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use nix::sys::signal::{Signal, kill};

    use super::*;

    /// On a busy machine the master may die before its guard has run at all.
    #[test]
    fn a_guard_is_found_before_it_has_named_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let files = Files {
            configuration: path("app.toml"),
            control: None,
            pid_file: None,
        };
        let table = Table::new(&files).expect("a descriptor");
        std::os::unix::fs::symlink("/bin/sleep", path("exe")).expect("ours");
        // Its parent is not the master that the table names.
        let script = format!(
            "{} 1000 3</proc/{}/fd/{} >&- 2>&- & echo $!",
            path("exe").display(),
            Pid::this(),
            table.as_fd().as_raw_fd(),
        );
        let shell = Command::new("sh").args(["-c", &script]).output();
        let shell = shell.expect("it starts");
        let pid = String::from_utf8_lossy(&shell.stdout);
        let pid = Pid::from_raw(pid.trim().parse().expect("a process"));
        let found = || find(&files).iter().any(|earlier| earlier.guard == pid);
        // The shell may have ended before its child is executed.
        while process::all().any(|(other, stat)| other == pid && &*stat.name != b"exe") {
            std::thread::yield_now();
        }
        let is_found = found();
        kill(pid, Signal::SIGKILL).expect("it runs");
        assert!(is_found);
    }
}
