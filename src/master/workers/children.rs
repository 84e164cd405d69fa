//! The table of processes, from pid to worker and back. Pure.
//!
//! A worker of a template is *expected* from its request until its own first message gives its pid. A pid is removed from the table
//! when it is reaped, and only pids of the table are signalled, so a signal never reaches an unknown process with a reused pid.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::plan;
use crate::release::{Generation, Name};
use crate::supervisor::{Reason, Slot, WorkerId};

/// One worker's process.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its app.
    pub app: Name,
    /// Its id at the supervisor.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// Its generation.
    pub generation: Generation,
    /// The plan of its app.
    pub plan: Rc<plan::App>,
    /// Its record in the scoreboard.
    pub record: Option<u32>,
    /// Where the front reaches it and only it.
    pub address: Option<Box<str>>,
    /// It has to pass a check before it gets requests.
    pub on_trial: bool,
    /// It was told to end, or is about to be.
    pub leaves: bool,
    /// It is the master's child, so its pid cannot be reused. A worker that was forked by a template becomes one when the
    /// intermediate process has ended.
    pub adopted: bool,
    /// When it was requested.
    pub asked_for: Instant,
    /// When it became ready.
    pub ready_at: Option<Instant>,
    /// It has reported that it ends.
    pub stopping: bool,
    /// It is to be replaced, which is reported once.
    pub retired: bool,
    /// Its status text.
    pub status_text: Option<Box<str>>,
    /// Why the last check of what serves here has failed.
    pub check_failed: Option<Box<str>>,
    /// Why its program could not be executed.
    pub not_executed: Option<Box<str>>,
    /// The last signal that we sent, and the reason.
    pub signalled: Option<(Signal, Reason)>,
    /// When it was told to end.
    pub told_at: Option<Instant>,
    /// Processes that seem to come from it, each with its session. They are known when it has ended.
    pub strays: BTreeMap<Pid, Pid>,
}

/// All worker processes.
#[derive(Debug, Default)]
pub struct Children {
    by_pid: HashMap<Pid, Child>,
    pids: BTreeMap<(Name, WorkerId), Pid>,
    expected: BTreeMap<(Name, WorkerId), Child>,
    /// Workers of which something may have changed since they were asked for.
    touched: BTreeSet<Pid>,
}

impl Children {
    /// A process was started for a worker.
    pub fn insert(&mut self, pid: Pid, child: Child) {
        self.pids.insert((child.app.clone(), child.worker), pid);
        self.by_pid.insert(pid, child);
        self.touched.insert(pid);
    }

    /// A worker was requested from a template.
    pub fn expect(&mut self, child: Child) {
        self.expected
            .insert((child.app.clone(), child.worker), child);
    }

    /// An expected worker has introduced itself. Returns the signal that it missed.
    pub fn arrived(&mut self, app: &Name, worker: WorkerId, pid: Pid) -> Option<Signal> {
        let child = self.expected.remove(&(app.clone(), worker))?;
        let missed = child.signalled.map(|(signal, _)| signal);
        self.insert(pid, child);
        missed
    }

    /// An expected worker will not arrive.
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

    /// The same, for changes.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut Child> {
        let child = self.by_pid.get_mut(&pid)?;
        self.touched.insert(pid);
        Some(child)
    }

    /// The workers of which something may have changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<Pid> {
        std::mem::take(&mut self.touched)
    }

    /// Counts all workers as changed.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.by_pid.keys());
    }

    /// The workers of an app that have a process, oldest first.
    pub fn of<'a>(&'a self, app: &Name) -> impl Iterator<Item = (Pid, &'a Child)> + use<'a> {
        let (first, last) = (WorkerId(0), WorkerId(u64::MAX));
        let pids = self.pids.range((app.clone(), first)..=(app.clone(), last));
        pids.filter_map(|(_, &pid)| Some((pid, self.by_pid.get(&pid)?)))
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
    /// A worker for tests: just requested, slot 0 of generation 1.
    pub fn example(worker: u64) -> Self {
        Self {
            app: "web".into(),
            worker: WorkerId(worker),
            slot: 0,
            generation: 1,
            plan: Rc::new(plan::App::example(1)),
            record: None,
            address: None,
            on_trial: false,
            leaves: false,
            adopted: true,
            asked_for: Instant::now(),
            ready_at: None,
            stopping: false,
            retired: false,
            status_text: None,
            check_failed: None,
            not_executed: None,
            signalled: None,
            told_at: None,
            strays: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaped_pid_is_unknown() {
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
    fn the_workers_of_an_app_are_told_from_those_of_others() {
        let (mut children, web) = (Children::default(), Name::from("web"));
        for (pid, app) in [(7, "web"), (8, "api"), (9, "web"), (10, "webs")] {
            let child = Child {
                app: app.into(),
                ..Child::example(pid)
            };
            children.insert(Pid::from_raw(pid as i32), child);
        }
        let pids: Vec<_> = children.of(&web).map(|(pid, _)| pid.as_raw()).collect();
        assert_eq!(pids, [7, 9]);
    }

    #[test]
    fn an_expected_worker_gets_on_arrival_the_signal_it_missed() {
        let (mut children, pid, web) = (Children::default(), Pid::from_raw(7), Name::from("web"));
        children.expect(Child::example(1));
        assert_eq!(children.pid(&web, WorkerId(1)), None);
        let expected = children
            .expected(&web, WorkerId(1))
            .expect("it is expected");
        expected.signalled = Some((Signal::SIGTERM, Reason::Stop));
        assert_eq!(
            children.arrived(&web, WorkerId(1), pid),
            Some(Signal::SIGTERM)
        );
        assert_eq!(children.pid(&web, WorkerId(1)), Some(pid));
        assert!(children.expected(&web, WorkerId(1)).is_none());
    }
}
