//! A simulated kernel around a supervisor and the real table of processes: forks fail, exits come in any order and
//! their signals merge, messages are late or lost, process ids are used again at once, and the master itself stands
//! still for a while. Whatever happens, the promises hold after every event.
//!
//! A failed history prints its steps, which proptest has made as few as it can; found ones are kept as tests below.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use proptest::prelude::*;

mod kernel;

use super::children::{Child, Children, Name};
use crate::supervisor::{
    Action, Event, Generation, GiveUp, Policy, Readiness, Reason, Supervisor, WorkerId,
};
use kernel::{Code, Due, Kernel, Word};

#[derive(Debug, Clone)]
enum Step {
    /// HUP, with this code on disk.
    Reload(Code, u32),
    Scale(i32),
    Pause,
    /// A process that the number chooses dies by itself.
    Crash(usize),
    /// It says that it ends, and does so later.
    Leaves(usize),
    /// It is found too old, or hanging.
    Recycle(usize),
    Hang(usize),
    /// From now on the next forks fail, so many.
    NoForks(u32),
    /// Messages that are said from now on come so many milliseconds late; `None`: never.
    Mail(Option<u64>),
    /// Time passes while the master takes part.
    Pass(u64),
    /// Time passes while the master stands still.
    Stopped(u64),
}

/// A master of one app.
struct World {
    kernel: Kernel,
    supervisor: Supervisor,
    children: Children,
    name: Name,
    codes: BTreeMap<Generation, Code>,
    current: Generation,
    proposed: Option<Generation>,
    last: Generation,
    /// The next reload, which waits for a free moment: what was on disk last.
    wanted: Option<(Code, u32)>,
    /// How many reloads have begun, and how many have ended one way or the other.
    begun: u32,
    ended: u32,
    exited: bool,
    stopping: bool,
    /// What is to be told to the supervisor, at once.
    facts: Vec<Event>,
    /// As many workers must be ready: what was wanted when it last settled, unless something has gone wrong since, or
    /// another number was asked for.
    floor: Option<u32>,
}

impl World {
    fn new(code: Code, workers: u32) -> Self {
        let kernel = Kernel {
            now: Instant::now(),
            processes: BTreeMap::new(),
            due: BTreeMap::new(),
            ticket: 0,
            mail: VecDeque::new(),
            sigchld: false,
            failing_forks: 0,
            delay: Some(0),
        };
        let mut world = Self {
            kernel,
            supervisor: Supervisor::new(3),
            children: Children::default(),
            name: "web".into(),
            codes: BTreeMap::new(),
            current: 0,
            proposed: None,
            last: 0,
            wanted: Some((code, workers)),
            begun: 0,
            ended: 0,
            exited: false,
            stopping: false,
            facts: Vec::new(),
            floor: None,
        };
        world.turn();
        world
    }

    fn now(&self) -> Instant {
        self.kernel.now
    }

    /// One round of the master's loop: messages, then ends, each after the messages once more, then deadlines.
    fn turn(&mut self) {
        self.read_mail();
        if std::mem::take(&mut self.kernel.sigchld) {
            self.reap();
        }
        if self
            .supervisor
            .deadline()
            .is_some_and(|at| at <= self.now())
        {
            self.facts.push(Event::Deadline);
        }
        self.tell();
        let mut processes = self.kernel.processes.values();
        let quiet = self.kernel.due.is_empty() && processes.all(|process| !process.dead);
        if self.supervisor.is_settled() && quiet {
            self.floor = Some(self.supervisor.counts().wanted);
        }
        self.begin_wanted_reload();
    }

    fn read_mail(&mut self) {
        while let Some((pid, what)) = self.kernel.mail.pop_front() {
            // Its sender may have been reaped, and nobody may have its number.
            let Some(worker) = self.children.get(pid).map(|child| child.worker) else {
                continue;
            };
            self.facts.push(match what {
                Word::Ready => Event::Ready(worker),
                Word::Stopping => Event::Stopping(worker),
            });
        }
    }

    fn reap(&mut self) {
        loop {
            let mut zombies = self
                .kernel
                .processes
                .iter()
                .filter(|(_, process)| process.dead);
            // The kernel tells them in no order that could be relied on.
            let Some((&pid, _)) = (match self.kernel.ticket % 2 {
                0 => zombies.next(),
                _ => zombies.next_back(),
            }) else {
                return;
            };
            self.read_mail();
            self.tell();
            let process = self.kernel.processes.remove(&pid).expect("it is there");
            let child = self.children.remove(pid).expect("every child is known");
            assert_eq!(
                child.worker, process.worker,
                "a process is who the table says"
            );
            self.facts.push(Event::Exited(child.worker));
            self.tell();
        }
    }

    fn begin_wanted_reload(&mut self) {
        let counts = self.supervisor.counts();
        let paused = counts.ready + counts.starting == 0;
        let free = self.supervisor.is_settled() || self.supervisor.is_in_trouble() || paused;
        if self.stopping || self.proposed.is_some() || !(free || self.last == 0) {
            return;
        }
        let Some((code, workers)) = self.wanted.take() else {
            return;
        };
        self.last += 1;
        self.begun += 1;
        self.codes.insert(self.last, code);
        self.proposed = Some(self.last);
        self.facts.push(Event::Propose(self.last, policy(workers)));
        self.tell();
    }

    fn tell(&mut self) {
        while !self.facts.is_empty() {
            let events = std::mem::take(&mut self.facts);
            let waits = self.supervisor.retry_at().filter(|&at| at > self.now());
            let actions = self.supervisor.handle_all(events, self.now());
            // A start that is allowed, or a worker that has stayed up, changes what the others wait for.
            let holds = waits.is_some() && self.supervisor.retry_at() == waits;
            for action in actions {
                if let Action::Spawn { generation, .. } = action {
                    let held_back = holds && generation == self.current;
                    assert!(!held_back, "no fork comes before the backoff allows it");
                }
                self.perform(action);
            }
            self.check();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn {
                worker,
                slot,
                generation,
            } => {
                let code = self.codes[&generation];
                match self.kernel.fork(worker, slot, generation, code) {
                    None => {
                        self.floor = None;
                        self.facts.push(Event::Refused(worker));
                    }
                    Some(pid) => {
                        let mut child = Child::example(worker.0);
                        (child.slot, child.generation) = (slot, generation);
                        self.children.insert(pid, child);
                    }
                }
            }
            Action::Terminate(worker, _) => self.signal(worker, Signal::SIGTERM),
            Action::Abort(worker, _) => self.signal(worker, Signal::SIGABRT),
            Action::Kill(worker, reason) => {
                let forced = !matches!(reason, Reason::Recycled | Reason::ScaledDown);
                assert!(forced, "nobody is killed who need not go now");
                self.signal(worker, Signal::SIGKILL);
            }
            Action::Proven(generation) => {
                assert_eq!(self.proposed, Some(generation));
                (self.proposed, self.current) = (None, generation);
                self.ended += 1;
                self.facts.push(Event::Commit);
            }
            Action::Failed(generation) => {
                if self.proposed == Some(generation) {
                    self.proposed = None;
                    self.ended += 1;
                    self.facts.push(Event::Rollback);
                }
            }
            Action::Exit => {
                assert!(self.stopping, "only a stop ends the master");
                self.exited = true;
            }
            Action::GaveUp(_) | Action::Ready(_) | Action::Retire(_) | Action::Settled => {}
            Action::Check(_) => unreachable!("no policy here has a check"),
        }
    }

    fn signal(&mut self, worker: WorkerId, signal: Signal) {
        // A worker that could not be forked is told to end before that is known.
        if let Some(pid) = self.children.pid(&self.name, worker) {
            let process = &self.kernel.processes[&pid];
            assert_eq!(process.worker, worker, "a signal reaches whom it is for");
            self.kernel.kill(pid, signal);
        }
    }

    fn check(&mut self) {
        let processes = self.kernel.processes.values();
        let seats: BTreeSet<_> = processes.clone().map(|p| (p.generation, p.slot)).collect();
        assert_eq!(
            seats.len(),
            self.kernel.processes.len(),
            "no seat is given twice"
        );
        let counts = self.supervisor.counts();
        let Some(floor) = &mut self.floor else { return };
        *floor = counts.wanted.min(*floor);
        let (floor, ready) = (*floor, counts.ready);
        let untold = processes.filter(|process| !process.told && !process.dead);
        let serving: BTreeSet<_> = untold.map(|process| process.generation).collect();
        assert!(
            serving.len() <= 2,
            "one that serves, one that comes: {serving:?}"
        );
        assert!(
            ready >= floor,
            "a reload never leaves fewer than wanted: {ready} of {floor}"
        );
    }

    /// Time passes. A master that stands still finds all of it afterwards.
    fn pass(&mut self, milliseconds: u64, master_runs: bool) {
        let end = self.now() + Duration::from_millis(milliseconds);
        loop {
            let happens = self.kernel.due.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.supervisor.deadline().filter(|_| master_runs);
            let Some(next) = happens
                .into_iter()
                .chain(deadline)
                .min()
                .filter(|at| *at <= end)
            else {
                break;
            };
            self.kernel.now = self.kernel.now.max(next);
            while let Some(entry) = self.kernel.due.first_entry()
                && entry.key().0 <= self.kernel.now
            {
                let due = entry.remove();
                self.kernel.happen(due);
            }
            if master_runs {
                self.turn();
            }
        }
        self.kernel.now = end;
        if master_runs {
            self.turn();
        }
    }

    fn nth(&self, n: usize) -> Option<(Pid, WorkerId)> {
        let living = self
            .kernel
            .processes
            .iter()
            .filter(|(_, process)| !process.dead);
        living.map(|(&pid, process)| (pid, process.worker)).nth(n)
    }

    fn take(&mut self, step: &Step) {
        // What has happened by now is known before anything that is asked for now.
        if !matches!(step, Step::Stopped(_)) {
            self.read_mail();
        }
        if !matches!(
            step,
            Step::Pass(_) | Step::Reload(Code::Good, _) | Step::Recycle(_)
        ) {
            self.floor = None;
        }
        match *step {
            Step::Reload(code, workers) => self.wanted = Some((code, workers)),
            Step::Scale(by) => self.facts.push(Event::Scale(by)),
            Step::Pause => self.facts.push(Event::Pause),
            Step::Crash(n) => {
                if let Some((pid, _)) = self.nth(n) {
                    self.kernel.die(pid);
                }
            }
            Step::Leaves(n) => {
                if let Some((pid, _)) = self.nth(n) {
                    self.kernel.say_after(0, pid, Word::Stopping);
                    self.kernel.after(300, Due::Dies(pid));
                }
            }
            Step::Recycle(n) => {
                if let Some((_, worker)) = self.nth(n) {
                    self.facts.push(Event::Recycle(worker));
                }
            }
            Step::Hang(n) => {
                if let Some((_, worker)) = self.nth(n) {
                    self.facts.push(Event::Hung(worker));
                }
            }
            Step::NoForks(number) => self.kernel.failing_forks = number,
            Step::Mail(delay) => self.kernel.delay = delay,
            Step::Pass(milliseconds) => self.pass(milliseconds, true),
            Step::Stopped(milliseconds) => self.pass(milliseconds, false),
        }
        // A step may come while the master stands still; it takes notice when it goes on.
        if !matches!(step, Step::Stopped(_)) {
            self.turn();
        }
    }

    /// From now on nothing goes wrong any more.
    fn become_good(&mut self) {
        self.kernel.failing_forks = 0;
        self.kernel.delay = Some(0);
    }
}

fn policy(workers: u32) -> Policy {
    Policy {
        workers,
        range: None,
        readiness: Readiness::Notify,
        announces_end: workers.is_multiple_of(2),
        start_timeout: Duration::from_secs(5),
        graceful_timeout: Duration::from_secs(10),
        abort_grace: Duration::from_secs(2),
        check: false,
        soak: Duration::from_millis(u64::from(workers % 3) * 100),
        surge: None,
        max_draining: 2,
        give_up: (workers == 4).then_some(GiveUp {
            crashes: 6,
            within: Duration::from_secs(60),
            exit: false,
        }),
        backoff: Default::default(),
    }
}

fn code() -> impl Strategy<Value = Code> {
    prop_oneof![
        3 => Just(Code::Good),
        1 => Just(Code::Broken),
        1 => Just(Code::Stuck),
        1 => Just(Code::Deaf),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (code(), 1..6u32).prop_map(|(code, workers)| Step::Reload(code, workers)),
        1 => (-2..3i32).prop_map(Step::Scale),
        1 => Just(Step::Pause),
        3 => (0..8usize).prop_map(Step::Crash),
        1 => (0..8usize).prop_map(Step::Leaves),
        1 => (0..8usize).prop_map(Step::Recycle),
        1 => (0..8usize).prop_map(Step::Hang),
        1 => (0..6u32).prop_map(Step::NoForks),
        1 => prop::option::of(0..500u64).prop_map(Step::Mail),
        4 => (0..400u64).prop_map(Step::Pass),
        2 => (0..20_000u64).prop_map(Step::Pass),
        2 => (0..9000u64).prop_map(Step::Stopped),
    ]
}

/// As many histories as PREFORKD_HISTORIES says, else enough for a quick look.
fn config() -> ProptestConfig {
    let cases = std::env::var("PREFORKD_HISTORIES").ok();
    let cases = cases.and_then(|number| number.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A history, then a good world and a last reload: it must be served by all the workers that it wants.
fn live_and_settle(steps: &[Step]) {
    let mut world = World::new(Code::Good, 2);
    for step in steps {
        world.take(step);
    }
    world.become_good();
    world.take(&Step::Reload(Code::Good, 3));
    world.pass(400_000, true);
    assert!(
        world.wanted.is_none() && world.proposed.is_none(),
        "every reload was begun, and ended"
    );
    assert_eq!(world.begun, world.ended);
    assert!(
        world.supervisor.is_settled(),
        "left alone in a good world it settles"
    );
    assert_eq!(world.current, world.last);
    let wanted = world.supervisor.counts().wanted;
    assert_eq!(world.kernel.processes.len() as u32, wanted);
    assert!(
        world
            .kernel
            .processes
            .values()
            .all(|process| process.generation == world.last)
    );
}

/// A history, then a stop: everything ends, and was reaped.
fn live_and_stop(steps: &[Step], now: bool) {
    let mut world = World::new(Code::Good, 2);
    for step in steps {
        world.take(step);
    }
    (world.stopping, world.floor) = (true, None);
    world
        .facts
        .push(if now { Event::StopNow } else { Event::Stop });
    world.turn();
    world.pass(60_000, true);
    assert!(world.kernel.processes.is_empty() && world.exited);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_of_a_machine_keeps_the_promises_and_settles(steps in prop::collection::vec(step(), 0..30)) {
        live_and_settle(&steps);
    }

    #[test]
    fn a_stop_ends_any_history_of_a_machine(steps in prop::collection::vec(step(), 0..30), now in any::<bool>()) {
        live_and_stop(&steps, now);
    }
}

// Found ones.

#[test]
fn a_worker_that_was_ready_in_time_is_not_too_late_because_the_master_stood_still() {
    live_and_settle(&[Step::Stopped(5000), Step::Scale(0), Step::Stopped(2000)]);
}

#[test]
fn a_first_worker_that_hangs_in_the_moment_it_is_ready_proves_nothing() {
    let reload = Step::Reload(Code::Good, 1);
    live_and_settle(&[
        reload,
        Step::Stopped(200),
        Step::Hang(0),
        Step::Stopped(2000),
    ]);
}
