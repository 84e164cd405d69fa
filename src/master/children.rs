//! Who is who among the processes. Pure: a table from pid to worker and back.
//!
//! A template's worker is *expected* from the moment it is asked for until its own first message tells its
//! pid. A pid leaves the table in the moment it is reaped, and signals are sent to pids of this table only:
//! so none ever reaches a stranger that got the number later.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::config::Address;
use crate::plan::{Hang, Recycle};
use crate::supervisor::{Generation, Reason, Slot, WorkerId};

/// An app's name.
pub type Name = Rc<str>;

/// One worker's process.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its app.
    pub app: Name,
    /// Its name at the supervisor.
    pub worker: WorkerId,
    /// Its number within the app.
    pub slot: Slot,
    /// Its configuration.
    pub generation: Generation,
    /// Its record in the scoreboard.
    pub record: Option<u32>,
    /// What it listens on.
    pub listens_on: Vec<Address>,
    /// When it was asked for.
    pub asked_for: Instant,
    /// Whether it has said that it is ready.
    pub ready: bool,
    /// How it is seen that it hangs.
    pub hang: Hang,
    /// When it makes room for a fresh one.
    pub recycle: Recycle,
    /// When it is too old.
    pub retire_at: Option<Instant>,
    /// When it has to be looked at for hanging or growing.
    pub look_at: Option<Instant>,
    /// It was stopped by a signal: when that has lasted too long.
    pub stopped_until: Option<Instant>,
    /// Its own words for what it does.
    pub said: Option<String>,
    /// The last signal that we sent, and why.
    pub told: Option<(Signal, Reason)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Children {
    by_pid: HashMap<Pid, Child>,
    pids: BTreeMap<(Name, WorkerId), Pid>,
    expected: BTreeMap<(Name, WorkerId), Child>,
}

impl Children {
    /// A process was started for a worker.
    pub fn insert(&mut self, pid: Pid, child: Child) {
        self.pids.insert((child.app.clone(), child.worker), pid);
        self.by_pid.insert(pid, child);
    }

    /// A template was asked for a worker.
    pub fn expect(&mut self, child: Child) {
        self.expected
            .insert((child.app.clone(), child.worker), child);
    }

    /// An expected worker has said who it is; says which signal it missed.
    pub fn arrived(&mut self, app: &Name, worker: WorkerId, pid: Pid) -> Option<Signal> {
        let child = self.expected.remove(&(app.clone(), worker))?;
        let missed = child.told.map(|(signal, _)| signal);
        self.insert(pid, child);
        missed
    }

    /// An expected worker will not come.
    pub fn give_up(&mut self, app: &Name, worker: WorkerId) -> Option<Child> {
        self.expected.remove(&(app.clone(), worker))
    }

    /// A process was reaped.
    pub fn remove(&mut self, pid: Pid) -> Option<Child> {
        let child = self.by_pid.remove(&pid)?;
        self.pids.remove(&(child.app.clone(), child.worker));
        Some(child)
    }

    /// The worker that a process is.
    pub fn get(&self, pid: Pid) -> Option<&Child> {
        self.by_pid.get(&pid)
    }

    /// The same, to note something.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut Child> {
        self.by_pid.get_mut(&pid)
    }

    /// All workers that have a process.
    pub fn iter(&self) -> impl Iterator<Item = (Pid, &Child)> {
        self.by_pid.iter().map(|(&pid, child)| (pid, child))
    }

    /// The workers for which the time that `when` says has come.
    pub fn due(&self, now: Instant, when: impl Fn(&Child) -> Option<Instant>) -> Vec<Pid> {
        let due = self
            .iter()
            .filter(|(_, child)| when(child).is_some_and(|at| at <= now));
        due.map(|(pid, _)| pid).collect()
    }

    /// The process of a worker.
    pub fn pid(&self, app: &Name, worker: WorkerId) -> Option<Pid> {
        self.pids.get(&(app.clone(), worker)).copied()
    }

    /// A worker that is expected.
    pub fn expected(&mut self, app: &Name, worker: WorkerId) -> Option<&mut Child> {
        self.expected.get_mut(&(app.clone(), worker))
    }
}

#[cfg(test)]
impl Child {
    /// A worker for tests: just asked for, slot 0 of generation 1.
    pub fn example(worker: u64) -> Self {
        Self {
            app: "web".into(),
            worker: WorkerId(worker),
            slot: 0,
            generation: 1,
            record: None,
            listens_on: Vec::new(),
            asked_for: Instant::now(),
            ready: false,
            hang: Hang::Unseen,
            recycle: Recycle {
                max_age: None,
                max_memory: None,
            },
            retire_at: None,
            look_at: None,
            stopped_until: None,
            said: None,
            told: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaped_pid_is_nobody() {
        let (mut children, pid, web) = (Children::default(), Pid::from_raw(7), Name::from("web"));
        children.insert(pid, Child::example(1));
        assert_eq!(children.pid(&web, WorkerId(1)), Some(pid));
        assert_eq!(
            children.remove(pid).map(|child| child.worker),
            Some(WorkerId(1))
        );
        assert_eq!(children.pid(&web, WorkerId(1)), None);
        assert!(children.get(pid).is_none());
    }

    #[test]
    fn a_reused_pid_is_the_new_worker_only() {
        let (mut children, pid, web) = (Children::default(), Pid::from_raw(7), Name::from("web"));
        children.insert(pid, Child::example(1));
        children.remove(pid);
        children.insert(pid, Child::example(2));
        assert_eq!(children.pid(&web, WorkerId(1)), None);
        assert_eq!(children.pid(&web, WorkerId(2)), Some(pid));
    }

    #[test]
    fn an_expected_worker_learns_on_arrival_what_it_was_told() {
        let (mut children, pid, web) = (Children::default(), Pid::from_raw(7), Name::from("web"));
        children.expect(Child::example(1));
        assert_eq!(children.pid(&web, WorkerId(1)), None);
        let expected = children
            .expected(&web, WorkerId(1))
            .expect("it is expected");
        expected.told = Some((Signal::SIGTERM, Reason::Stop));
        assert_eq!(
            children.arrived(&web, WorkerId(1), pid),
            Some(Signal::SIGTERM)
        );
        assert_eq!(children.pid(&web, WorkerId(1)), Some(pid));
        assert!(children.expected(&web, WorkerId(1)).is_none());
    }
}
