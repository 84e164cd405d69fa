//! What is left of workers that have ended: the rest of their sessions, and processes that have left these.
//!
//! The master is a subreaper, so it has become the parent of that rest, or an ancestor. A child that was not reaped keeps its pid, and
//! with it the number of its session. So as long as there is one, no other session has that number.

use std::collections::{BTreeMap, BTreeSet};

use log::debug;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getsid};
use preforkd_worker::env;

use crate::effects::process::{self, Stat};
use crate::master::world::Rest;

/// The running processes of each rest. `is_ours` tells those that the master has started from strangers.
pub(super) fn find(
    wanted: &BTreeSet<Rest>,
    is_ours: impl Fn(Pid) -> bool,
) -> BTreeMap<Rest, Vec<Pid>> {
    twice_if_one_ends(|one_ends| find_once(wanted, &is_ours, one_ends))
}

/// Looks, and looks again if a process ended meanwhile: what it has started became a child of the master before, and may have been
/// missed. Programs that go into the background often do so in two steps.
fn twice_if_one_ends<T>(look: impl Fn(&mut bool) -> T) -> T {
    let mut one_ends = false;
    let found = look(&mut one_ends);
    match one_ends {
        true => look(&mut one_ends),
        false => found,
    }
}

fn find_once(
    wanted: &BTreeSet<Rest>,
    is_ours: impl Fn(Pid) -> bool,
    one_ends: &mut bool,
) -> BTreeMap<Rest, Vec<Pid>> {
    let mut found: BTreeMap<Rest, Vec<Pid>> = BTreeMap::new();
    let own = getsid(None);
    let by_variable = wanted
        .iter()
        .any(|rest| matches!(rest, Rest::Background(_)));
    let mut unseen: Vec<_> = children_of("self").collect();
    let children = unseen.len();
    for at in 0.. {
        let Some(&pid) = unseen.get(at) else { break };
        let is_child = at < children;
        if is_child && is_ours(pid) {
            continue;
        }
        let Ok(session) = getsid(Some(pid)) else {
            continue;
        };
        let mut rest = Some(Rest::Session(session)).filter(|_| session != pid);
        rest = rest.filter(|rest| wanted.contains(rest));
        if rest.is_none() && by_variable {
            let leader = listen_pid(pid).filter(|&leader| leader != pid);
            rest = leader
                .map(Rest::Background)
                .filter(|rest| wanted.contains(rest));
        }
        for stray in [pid, session] {
            rest = rest.or_else(|| Some(Rest::Stray(stray)).filter(|rest| wanted.contains(rest)));
        }
        // What was in the master's session before the master is not its own.
        if rest.is_none() && is_child && Ok(session) != own {
            rest = Some(Rest::Strangers).filter(|rest| wanted.contains(rest));
        }
        let Some(rest) = rest else { continue };
        if !is_running(pid) {
            *one_ends = true;
        } else {
            found.entry(rest).or_default().push(pid);
            // Its children may be in its session, or have left it; those of other processes cannot be in a session whose leader
            // has ended.
            unseen.extend(children_of(&pid.to_string()));
        }
    }
    found
}

/// The children of the master that seem to come from this worker, each with its session: see [`World::strays`].
///
/// [`World::strays`]: crate::master::world::World::strays
pub(super) fn strays(worker: Pid, is_known: impl Fn(Pid) -> bool) -> BTreeMap<Pid, Pid> {
    let Some(of) = Stat::of(worker) else {
        return BTreeMap::new();
    };
    let own = getsid(None);
    let user = process::user(worker);
    let is_its = |pid: Pid, stat: &Stat| {
        let is_like = stat.name == of.name && process::user(pid) == user;
        let is_like = is_like && stat.started >= of.started;
        match listen_pid(pid) {
            _ if stat.session == worker => true,
            Some(leader) => leader == worker,
            None => is_like && Ok(stat.session) != own,
        }
    };
    twice_if_one_ends(|one_ends| {
        let mut found = BTreeMap::new();
        for pid in children_of("self").filter(|&pid| pid != worker && !is_known(pid)) {
            match Stat::of(pid) {
                Some(stat) if stat.runs => {
                    if is_its(pid, &stat) {
                        found.insert(pid, stat.session);
                    }
                }
                _ => *one_ends = true,
            }
        }
        found
    })
}

/// The processes of a session without its leader, which was not reaped.
pub(super) fn below(leader: Pid) -> Vec<Pid> {
    let is_member = |pid: &Pid| *pid != leader && getsid(Some(*pid)) == Ok(leader);
    // Those whose parents have ended are children of the master.
    let mut members: Vec<_> = children_of("self").filter(is_member).collect();
    members.extend(children_of(&leader.to_string()).filter(is_member));
    let mut at = 0;
    while let Some(pid) = members.get(at) {
        let children = children_of(&pid.to_string());
        members.extend(children.filter(is_member));
        at += 1;
    }
    members
}

/// Signals a process of a rest that was just found, unless it is in the process group `spared`: false then.
pub(super) fn signal(pid: Pid, signal: Signal, spared: Option<Pid>) -> bool {
    if spared.is_some() && getpgid(Some(pid)).ok() == spared {
        return false;
    }
    // A process that ends meanwhile is not missed.
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => debug!("cannot send {signal} to pid={pid}: {error}"),
    }
    true
}

/// The children of a process: proc_pid_task_children(5). None if the kernel does not list them.
fn children_of(process: &str) -> impl Iterator<Item = Pid> + use<> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    lists.into_iter().flat_map(|list| {
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.map(Pid::from_raw).collect::<Vec<_>>()
    })
}

/// Whether a process has not ended.
fn is_running(pid: Pid) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.runs)
}

/// The process that the contract was made for, of which this one has inherited its environment. A process that lies about it is
/// signalled itself, and no other.
fn listen_pid(pid: Pid) -> Option<Pid> {
    let value = process::variable(pid, env::LISTEN_PID)?;
    let value = std::str::from_utf8(&value).ok()?;
    value.parse().ok().map(Pid::from_raw)
}
