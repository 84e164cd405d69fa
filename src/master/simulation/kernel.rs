//! The kernel of the simulation: processes that start, send messages and end, and the events that the master gets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};

use super::disk::{Code, Disk, End};
use super::keeping::Keeping;
use super::upstreams::Heard;
use crate::config::Address;
use crate::master::world::{Arrived, ClientId, Notice, Sender, Source};
use crate::plan::Plan;
use crate::release::{Generation, Name};
use crate::schedule::appointments::Clock;
use crate::supervisor::Slot;

/// What its clock shows at the beginning: 2026-11-27T01:00:00Z.
const BEGINNING: Timestamp = Timestamp::constant(1_795_741_200, 0);

/// The process ids of this machine: few, so that each is reused often.
const PIDS: std::ops::Range<i32> = 100..180;
/// An earlier master.
pub(super) const EARLIER: Pid = Pid::from_raw(2);

/// The kind of a process.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Worker {
        slot: Slot,
        record: Option<u32>,
    },
    Template,
    /// What a worker has started and left behind. Its session is that of this worker.
    Rest(Pid),
    /// A job that ends like this, on its own or when told to.
    Job(End),
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) app: Name,
    pub(super) generation: Generation,
    pub(super) kind: Kind,
    pub(super) code: Code,
    /// It has ended, with status 0 or not, and was not reaped.
    pub(super) dead: Option<bool>,
    pub(super) signalled: bool,
    /// Another worker may start only when it has ended, with all that it has started.
    pub(super) alone: bool,
    /// It is told to end when no request runs at it.
    pub(super) ends_quiet: bool,
    /// It is the master's child; a worker of a template only after the intermediate process has ended.
    pub(super) adopted: bool,
    /// It will end on its own.
    pub(super) leaves: bool,
    pub(super) killed: bool,
    /// It has reported that it is ready, or counts as ready.
    pub(super) ready: bool,
    /// The start of its oldest request, in nanoseconds.
    pub(super) busy_since: Option<u64>,
    pub(super) marked: bool,
    /// It has executed its program, which the master does not know yet.
    pub(super) executed: bool,
}

/// An event that happens by itself at an instant.
#[derive(Debug, Clone)]
pub(super) enum Due {
    Executes(Pid),
    Sends(Pid, &'static str),
    /// It ends, with status 0 or not.
    Ends(Pid, bool),
    Loads(Pid),
    IsAdopted(Pid),
    Forks(Pid, Fork),
    FrontHears,
    /// The request of this number has its response.
    Answered(u64),
}

pub(super) struct Kernel {
    pub(super) start: Instant,
    pub(super) now: Instant,
    /// How long the machine has slept, and by how much its clock was set.
    pub(super) slept: Duration,
    pub(super) set_by: SignedDuration,
    pub(super) alarm: Option<Timestamp>,
    /// How many runs of the app with a schedule were started.
    pub(super) runs: u32,
    /// How long the master may run.
    pub(super) until: Instant,
    /// Nothing was left to happen until then.
    pub(super) idle: bool,
    /// Turns since time last moved.
    pub(super) spins: u32,
    pub(super) processes: BTreeMap<Pid, Process>,
    due: BTreeMap<(Instant, u64), Due>,
    /// The order of events at one instant.
    pub(super) ticket: u64,
    pub(super) sources: BTreeSet<Source>,
    pub(super) signals: Vec<Arrived>,
    /// Messages in the sockets of the apps.
    pub(super) mail: BTreeMap<Name, VecDeque<(Pid, String)>>,
    /// Replies in the sockets of the templates; `None` once closed.
    pub(super) replies: BTreeMap<Pid, VecDeque<(Pid, Reply)>>,
    pub(super) shut: BTreeSet<Pid>,
    pub(super) failing_forks: u32,
    /// The apps of which an earlier master has left something, and until when.
    pub(super) earlier: BTreeMap<Name, Instant>,
    /// The same, of apps whose workers may run beside each other.
    pub(super) beside: BTreeMap<Name, Instant>,
    /// Listeners that cannot be opened.
    pub(super) refuses_listeners: bool,
    /// Processes that have the addresses then.
    pub(super) holders: Vec<Pid>,
    pub(super) delay: Option<u64>,
    pub(super) disk: Disk,
    /// The result of each configuration check, by its job.
    pub(super) found: BTreeMap<Pid, Result<Plan, String>>,
    /// What becomes of certificates.
    pub(super) keeping: Keeping,
    /// The open listeners, each with the generation that it was opened for.
    pub(super) listeners: BTreeMap<Address, Generation>,
    /// The same of those that are bound and do not listen.
    pub(super) bound: BTreeMap<Address, Generation>,
    /// The candidate that has opened listeners, and those that are open or bound for it only.
    pub(super) candidate: Option<Generation>,
    pub(super) proposed: BTreeSet<Address>,
    pub(super) records: BTreeMap<Name, BTreeSet<u32>>,
    /// What all workers of the front were told.
    pub(super) heard: Heard,
    pub(super) privates: BTreeSet<Name>,
    pub(super) notices: Vec<Notice>,
    pub(super) requests: BTreeMap<i32, (ClientId, String)>,
    /// The number of clients, and the answers they got.
    pub(super) asked: u32,
    pub(super) answers: BTreeMap<i32, String>,
    /// The numbers of the clients that were answered since the last check.
    pub(super) answered: Vec<i32>,
    /// Workers that were started since the last check: app, generation.
    pub(super) started: Vec<(Name, Generation)>,
}

impl Kernel {
    pub(super) fn new(disk: Disk) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            slept: Duration::ZERO,
            set_by: SignedDuration::ZERO,
            alarm: None,
            runs: 0,
            until: now,
            idle: false,
            spins: 0,
            processes: BTreeMap::new(),
            due: BTreeMap::new(),
            ticket: 0,
            sources: BTreeSet::new(),
            signals: Vec::new(),
            mail: BTreeMap::new(),
            replies: BTreeMap::new(),
            shut: BTreeSet::new(),
            failing_forks: 0,
            earlier: BTreeMap::new(),
            beside: BTreeMap::new(),
            refuses_listeners: false,
            holders: Vec::new(),
            delay: Some(0),
            disk,
            found: BTreeMap::new(),
            keeping: Keeping::default(),
            listeners: BTreeMap::new(),
            bound: BTreeMap::new(),
            candidate: None,
            proposed: BTreeSet::new(),
            records: BTreeMap::new(),
            heard: Heard::default(),
            privates: BTreeSet::new(),
            notices: Vec::new(),
            requests: BTreeMap::new(),
            asked: 0,
            answers: BTreeMap::new(),
            answered: Vec::new(),
            started: Vec::new(),
        }
    }

    pub(super) fn after(&mut self, milliseconds: u64, due: Due) {
        self.ticket += 1;
        let at = self.now + Duration::from_millis(milliseconds);
        self.due.insert((at, self.ticket), due);
    }

    pub(super) fn nanoseconds(&self) -> u64 {
        // Never 0, which would mean that no request runs.
        (self.now - self.start).as_nanos() as u64 + 1
    }

    /// The instant of the next event.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.first_key_value().map(|((at, _), _)| *at);
        let wall = self.clock().wall;
        let alarm = self.alarm.map(|at| {
            let rest = Duration::try_from(at.duration_since(wall));
            self.now + rest.unwrap_or_default()
        });
        due.into_iter().chain(alarm).min()
    }

    pub(super) fn clock(&self) -> Clock {
        let uptime = self.now - self.start + self.slept;
        let since = SignedDuration::try_from(uptime).expect("a short history");
        Clock {
            wall: BEGINNING + since + self.set_by,
            uptime,
        }
    }

    /// The alarm ends if its time has come.
    pub(super) fn ring(&mut self) {
        let wall = self.clock().wall;
        if self.alarm.is_some_and(|at| at <= wall) {
            self.alarm = None;
            self.sources.insert(Source::Alarm);
        }
    }

    /// Somebody sets the clock, which ends the alarm.
    pub(super) fn set_clock(&mut self, by: SignedDuration) {
        self.set_by += by;
        if self.alarm.take().is_some() {
            self.sources.insert(Source::Alarm);
        }
    }

    /// Whether no event is pending, nothing waits for the master, and no worker hangs.
    pub(super) fn is_quiet(&self) -> bool {
        let well = |process: &Process| {
            let is_rest = matches!(process.kind, Kind::Rest(_));
            process.dead.is_none() && process.busy_since.is_none() && !is_rest
        };
        self.due.is_empty() && self.processes.values().all(well)
    }

    /// Lets time pass up to an instant, with all events that are due by then.
    pub(super) fn advance(&mut self, to: Instant) {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= to
        {
            let ((at, _), due) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(due);
        }
        self.now = self.now.max(to);
        self.ring();
    }

    /// The process ids that a new process may get: Linux reuses none while it is the id of a session.
    fn free_pids(&self) -> impl Iterator<Item = Pid> {
        let rests = self.processes.values();
        let sessions = rests.filter_map(|process| match process.kind {
            Kind::Rest(leader) => Some(leader),
            _ => None,
        });
        let sessions: BTreeSet<_> = sessions.collect();
        let pids = PIDS.map(Pid::from_raw);
        pids.filter(move |pid| !self.processes.contains_key(pid) && !sessions.contains(pid))
    }

    /// Creates a process, unless forks fail.
    pub(super) fn fork(
        &mut self,
        app: &Name,
        generation: Generation,
        kind: Kind,
        code: Code,
    ) -> Option<Pid> {
        if self.failing_forks > 0 {
            self.failing_forks -= 1;
            return None;
        }
        let pid = self.free_pids().next()?;
        let process = Process {
            app: app.clone(),
            generation,
            kind,
            code,
            dead: None,
            signalled: false,
            alone: false,
            ends_quiet: false,
            adopted: true,
            leaves: false,
            killed: false,
            ready: false,
            busy_since: None,
            marked: false,
            executed: false,
        };
        self.processes.insert(pid, process);
        Some(pid)
    }

    /// The behaviour of a worker after exec, or after it was forked.
    pub(super) fn begin_worker(&mut self, pid: Pid, code: Code) {
        let app = self.processes.get(&pid).map(|process| &process.app);
        let until = app.and_then(|app| self.beside.get(app));
        // They need the same port.
        let code = match until.is_some_and(|until| *until > self.now) {
            true => Code::Broken,
            false => code,
        };
        match code {
            Code::Good | Code::IgnoresSignals => self.send_after(200, pid, "READY=1"),
            Code::Broken => self.after(5, Due::Ends(pid, false)),
            Code::NeverReady => {}
        }
    }

    /// A process sends a message, unless messages are lost.
    pub(super) fn send_after(&mut self, milliseconds: u64, pid: Pid, what: &'static str) {
        if let Some(delay) = self.delay {
            self.after(milliseconds + delay, Due::Sends(pid, what));
        }
    }

    /// A worker was reaped, and has left a process.
    pub(super) fn leave_rest(&mut self, leader: Pid, worker: &Process) {
        let Some(pid) = self.free_pids().find(|pid| *pid != leader) else {
            return;
        };
        let rest = Process {
            app: worker.app.clone(),
            kind: Kind::Rest(leader),
            code: worker.code,
            dead: None,
            signalled: false,
            killed: false,
            ready: false,
            busy_since: None,
            ..*worker
        };
        self.processes.insert(pid, rest);
    }

    /// A signal to what a worker has left.
    pub(super) fn signal_left(&mut self, pid: Pid, signal: Signal) {
        let process = self.processes.get(&pid).expect("it was just found");
        assert!(matches!(process.kind, Kind::Rest(_)), "{process:?}");
        let obeys = process.code != Code::IgnoresSignals;
        if obeys || signal == Signal::SIGKILL {
            self.after(20, Due::Ends(pid, false));
        }
    }

    pub(super) fn signal(&mut self, pid: Pid, signal: Signal) {
        let process = self.processes.get_mut(&pid);
        let process = process.expect("a signal goes to a process that was not reaped");
        assert!(process.adopted, "a signal goes to a child");
        if signal != Signal::SIGCONT {
            self.is_told_after_front(pid);
            self.is_told_when_quiet(pid, signal);
        }
        let process = self.processes.get_mut(&pid).expect("it is there");
        if process.dead.is_some() || signal == Signal::SIGCONT {
            return;
        }
        let again = std::mem::replace(&mut process.signalled, true);
        let kind = process.kind.clone();
        if signal == Signal::SIGKILL {
            let unsignalled = matches!(kind, Kind::Job(_)) && !again;
            assert!(!unsignalled, "a job is told to end before it is killed");
            process.killed = true;
            return self.after(0, Due::Ends(pid, false));
        }
        match (kind, process.code) {
            (Kind::Job(End::IgnoresSignals), _) | (_, Code::IgnoresSignals) => {}
            (Kind::Job(_), _) => self.after(10, Due::Ends(pid, false)),
            (_, Code::NeverReady) => {}
            (Kind::Template, _) => self.after(10, Due::Ends(pid, signal == Signal::SIGTERM)),
            (Kind::Worker { .. }, _) if !again => {
                self.send_after(10, pid, "STOPPING=1");
                self.after(50, Due::Ends(pid, true));
            }
            _ => {}
        }
    }

    pub(super) fn end(&mut self, pid: Pid, cleanly: bool) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if process.dead.is_some() {
            return;
        }
        process.dead = Some(cleanly);
        self.breaks_off(pid);
        let process = self.processes.get_mut(&pid).expect("it is there");
        if let Kind::Job(_) = process.kind
            && let Some(found) = self.found.get_mut(&pid)
            && (process.signalled || !cleanly && found.is_ok())
        {
            *found = Err(String::new());
        }
        if process.adopted {
            self.child_has_changed();
        }
        // It sends nothing more; its pid may soon be reused.
        self.due.retain(|_, due| match due {
            Due::Executes(who)
            | Due::Sends(who, _)
            | Due::Ends(who, _)
            | Due::Loads(who)
            | Due::Forks(who, _) => *who != pid,
            Due::IsAdopted(_) | Due::FrontHears | Due::Answered(_) => true,
        });
    }

    fn child_has_changed(&mut self) {
        let number = Signal::SIGCHLD as i32;
        self.signals.push(Arrived {
            number,
            sender: Sender::Unknown,
        });
        self.sources.insert(Source::Signals);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Executes(pid) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.executed = true;
                    self.sources.insert(Source::Launch(pid));
                }
            }
            Due::Sends(pid, what) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.ready |= what == "READY=1";
                    let app = process.app.clone();
                    self.send_message(&app, pid, what);
                }
            }
            Due::Ends(pid, cleanly) => self.end(pid, cleanly),
            Due::Loads(pid) => self.reply(pid, pid, Reply::Ready),
            Due::IsAdopted(pid) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.adopted = true;
                    if process.dead.is_some() {
                        self.child_has_changed();
                    }
                }
            }
            Due::Forks(pid, order) => self.fork_from(pid, &order),
            Due::FrontHears => self.front_hears(),
            Due::Answered(request) => self.is_answered(request),
        }
    }

    pub(super) fn send_message(&mut self, app: &Name, pid: Pid, what: &str) {
        if let Some(mail) = self.mail.get_mut(app) {
            mail.push_back((pid, what.to_owned()));
            self.sources.insert(Source::Messages(app.clone()));
        }
    }

    pub(super) fn reply(&mut self, template: Pid, sender: Pid, reply: Reply) {
        if !self.shut.contains(&template)
            && let Some(replies) = self.replies.get_mut(&template)
        {
            replies.push_back((sender, reply));
            self.sources.insert(Source::Template(template));
        }
    }

    fn fork_from(&mut self, template: Pid, order: &Fork) {
        let Some(process) = self.processes.get(&template) else {
            return;
        };
        let (app, generation, code) = (process.app.clone(), process.generation, process.code);
        // A worker that cannot introduce itself any more ends.
        if self.shut.contains(&template) || !self.replies.contains_key(&template) {
            return;
        }
        let kind = Kind::Worker {
            slot: order.slot,
            record: order.record,
        };
        match self.fork(&app, generation, kind, code) {
            Some(pid) => {
                let process = self.processes.get_mut(&pid);
                process.expect("it was just made").adopted = false;
                self.after(3, Due::IsAdopted(pid));
                self.reply(
                    template,
                    pid,
                    Reply::Forked {
                        ticket: order.ticket,
                    },
                );
                self.begin_worker(pid, code);
            }
            None => {
                let reason = "Resource temporarily unavailable".to_owned();
                self.reply(
                    template,
                    template,
                    Reply::Failed {
                        ticket: order.ticket,
                        reason,
                    },
                );
            }
        }
    }
}
