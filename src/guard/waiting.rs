//! A master that starts while an earlier one is still being ended waits for that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, geteuid};

use super::processes;
use super::table::Table;
use crate::client::find::is_same;
use crate::effects::process::{self, Stat};
use crate::effects::signals::Signals;
use crate::sys;

/// The name of the program: proc_pid_comm(5).
const PROGRAM: &[u8] = b"preforkd";

/// How often to look what is left: there may be processes that do not matter.
const LOOK: Duration = Duration::from_millis(20);

/// Which processes to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Those that must not run beside the next master.
    BesideNone,
    /// All, as an address is in use and any of them may hold it.
    All,
}

/// An earlier master, which has died or is dying, and its guard, which ends what is left.
struct Earlier {
    master: Pid,
    /// Ready when the master has closed all that it had open; `None` if it has.
    exits: Option<OwnedFd>,
    guard: Pid,
    table: Table,
}

/// Waits for the processes that earlier masters of this user with this configuration have left. Returns whether there were any, or `None`
/// if the wait was ended by a signal to end.
pub fn wait(configuration: &Path, what: What, signals: &mut Signals) -> Option<bool> {
    let mut waited = false;
    for earlier in find(configuration) {
        let Ok(guard) = sys::watch_process(earlier.guard) else {
            continue;
        };
        waited |= earlier.wait(what, guard.as_fd(), signals)?;
    }
    Some(waited)
}

impl Earlier {
    fn wait(&self, what: What, guard: BorrowedFd, signals: &mut Signals) -> Option<bool> {
        let Self {
            master, guard: pid, ..
        } = self;
        let mut said = false;
        let mut exits = self.exits.as_ref().map(AsFd::as_fd);
        loop {
            let left = self.table.left().map(|left| match what {
                What::BesideNone => left.awaited,
                What::All => left.all,
            });
            if let Some(left @ 1..) = left
                && !std::mem::replace(&mut said, true)
            {
                info!(
                    "waiting for {} of the preforkd with pid {master}, which was killed or has crashed (pid {pid} ends them within their graceful_timeout)",
                    processes(left as usize)
                );
            }
            let [has_exited, has_ended] = look(exits, guard, signals);
            exits = exits.filter(|_| !has_exited);
            if signals.end_this() {
                warn!("stopped while it waited for the processes of an earlier preforkd");
                return None;
            }
            if exits.is_none() && (has_ended || left == Some(0)) {
                if said {
                    info!("they have ended");
                }
                return Some(said);
            }
        }
    }
}

/// Waits a moment, or until something happens. Returns whether the master has ended, and whether the guard has.
fn look(master: Option<BorrowedFd>, guard: BorrowedFd, signals: &Signals) -> [bool; 2] {
    let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut sources = [readable(guard), readable(signals.as_fd())].to_vec();
    sources.extend(master.map(readable));
    let limit = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    // Interrupted by a signal, it is seen now.
    let _ = poll(&mut sources, limit);
    let is_ready = |at: usize| sources.get(at).and_then(PollFd::any) == Some(true);
    [is_ready(2), is_ready(0)]
}

/// The guards that end what their masters have left. Only processes of this user are believed: others may name anything.
fn find(configuration: &Path) -> Vec<Earlier> {
    let own = geteuid().as_raw();
    let candidates = process::all().filter(|(pid, stat)| {
        stat.name == PROGRAM && *pid != Pid::this() && process::user(*pid) == Some(own)
    });
    let earlier = candidates.filter_map(|(pid, stat)| of(pid, &stat, configuration));
    earlier.collect()
}

fn of(guard: Pid, stat: &Stat, configuration: &Path) -> Option<Earlier> {
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
    is_same(&table.configuration()?, configuration).then_some(Earlier {
        master,
        exits,
        guard,
        table,
    })
}

impl std::fmt::Debug for Earlier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.master, self.guard)
    }
}
