//! A master that starts while an earlier one is still being ended waits for that.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, geteuid};

use super::processes;
use super::table::{Files, Identity, Table};
use crate::effects::init::Init;
use crate::effects::process::{self, Stat};
use crate::effects::signals::Signals;
use crate::sys;

/// The time that the init system is asked for at each look.
const MORE_TIME: Duration = Duration::from_secs(5);

/// The name of a guard, and what the kernel calls it until it has named itself: proc_pid_comm(5).
const NAMES: [&[u8]; 2] = [b"preforkd", b"exe"];

/// How often to look what is left: there may be processes that do not matter.
const LOOK: Duration = Duration::from_millis(20);

/// Which processes to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Those that must not run beside those of the next master.
    MustNotOverlap,
    /// All, as an address is in use and any of them may hold it.
    Everything,
}

/// An earlier master, which has died or is dying, and its guard, which ends what is left.
pub struct Earlier {
    master: Pid,
    /// Ready when the master has closed all that it had open; `None` if it has.
    exits: Option<OwnedFd>,
    guard: Pid,
    /// Ready when the guard has ended.
    guard_ends: OwnedFd,
    table: Table,
}

/// What has happened while it was waited for.
struct Seen {
    master_has_exited: bool,
    guard_has_ended: bool,
}

/// Waits for processes that earlier masters of this user with one of these files have left. Returns these masters, and whether
/// there was anything to wait for; `None` if the wait was ended by a signal to end.
pub fn wait(files: &Files, what: What, signals: &mut Signals) -> Option<(Vec<Earlier>, bool)> {
    let mut waited = false;
    let mut all = find(files);
    for earlier in &mut all {
        waited |= earlier.wait(what, signals)?;
    }
    Some((all, waited))
}

impl Earlier {
    fn wait(&mut self, what: What, signals: &mut Signals) -> Option<bool> {
        let (master, guard) = (self.master, self.guard);
        let mut init: Option<Init> = None;
        loop {
            let left = self.table.left().map(|left| match what {
                What::MustNotOverlap => left.awaited,
                What::Everything => left.all,
            });
            if let Some(left @ 1..) = left {
                let init = init.get_or_insert_with(|| {
                    let text = format!(
                        "waiting for {} of the preforkd with pid {master}, which was killed or has crashed",
                        processes(left as usize)
                    );
                    info!("{text} (pid {guard} ends them within their graceful_timeout)");
                    let mut init = Init::find().unwrap_or_else(|_| Init::absent());
                    init.status(&text);
                    init
                });
                init.more_time(MORE_TIME);
            }
            let seen = self.look(signals);
            if seen.master_has_exited {
                self.exits = None;
            }
            if signals.end_this() {
                warn!("stopped while it waited for the processes of an earlier preforkd");
                return None;
            }
            if self.exits.is_none() && (seen.guard_has_ended || left == Some(0)) {
                if init.is_some() {
                    info!("they have ended");
                }
                return Some(init.is_some());
            }
        }
    }

    /// Waits a moment, or until something happens.
    fn look(&self, signals: &Signals) -> Seen {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut sources = vec![readable(self.guard_ends.as_fd()), readable(signals.as_fd())];
        sources.extend(self.exits.as_ref().map(|exits| readable(exits.as_fd())));
        let limit = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        // Interrupted by a signal, it is seen now.
        let _ = poll(&mut sources, limit);
        let is_ready = |at: usize| sources.get(at).and_then(PollFd::any) == Some(true);
        Seen {
            master_has_exited: is_ready(2),
            guard_has_ended: is_ready(0),
        }
    }

    /// Whether it still ends something.
    pub fn has_left(&self) -> bool {
        let mut fds = [PollFd::new(self.guard_ends.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    /// The leader of a run of this app that has not ended, or a process of its session.
    pub fn run_of(&self, app: &str) -> Option<Pid> {
        let records = self.table.records();
        let runs = records.iter().filter(|record| record.is_run_of(app));
        let sessions: Vec<Identity> = runs.filter_map(|record| record.leader).collect();
        if sessions.is_empty() {
            return None;
        }
        let is_its = |stat: &Stat| {
            let mut sessions = sessions.iter();
            // It began with its leader, and the number is not given again as long as it has a process.
            let has =
                sessions.any(|leader| stat.session == leader.pid && stat.started >= leader.started);
            stat.runs && has
        };
        process::all()
            .find(|(_, stat)| is_its(stat))
            .map(|(pid, _)| pid)
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
