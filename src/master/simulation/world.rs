//! The simulated world as the master sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::counters::CLASSES;
use preforkd_worker::messages::{Fork, Reply};
use preforkd_worker::metrics::orders::Orders;
use preforkd_worker::scoreboard::{LATENCY_BUCKETS, Snapshot, State};

use super::disk::{Code, End, code, end};
use super::keeping::Keeps;
use super::kernel::{Due, EARLIER, Kernel, Kind};
use crate::config::Address;
use crate::launcher::progress::Progress;
use crate::master::world::{
    Arrived, ClientId, Exit, Killed, Left, NotOpened, Notice, Opened, Private, ReadState, Rest,
    Role, Sender, Source, Start, Target, World,
};
use crate::plan::{self, Acme, Extent, Listener, LogFile, Plan, Secret};
use crate::release::{Generation, Name};
use crate::schedule::appointments::Clock;
use crate::supervisor::Replace;

/// A loop that turns this often while no time passes does not wait.
const MAX_SPINS: u32 = 2000;

/// Records of each scoreboard: fewer than there may be workers, so that some have none.
const RECORDS: u32 = 12;

impl Kernel {
    fn job(&mut self, app: &Name, end: End, takes: u64) -> io::Result<Pid> {
        let made = self.fork(app, 0, Kind::Job(end), Code::Good);
        let pid = made.ok_or_else(|| io::Error::other("no process"))?;
        match end {
            End::Well => self.after(takes, Due::Ends(pid, true)),
            End::Badly => self.after(takes, Due::Ends(pid, false)),
            End::Hangs | End::IgnoresSignals => {}
        }
        Ok(pid)
    }
}

impl World for Kernel {
    fn now(&self) -> Instant {
        self.now
    }

    fn clock(&self) -> Clock {
        Self::clock(self)
    }

    fn set_alarm(&mut self, at: Option<Timestamp>) {
        self.alarm = at;
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<BTreeSet<Source>> {
        self.check_upstreams();
        self.spins += 1;
        self.idle = false;
        assert!(
            self.spins < MAX_SPINS,
            "the loop waits if there is nothing to do"
        );
        if self.sources.is_empty() {
            let next = self.next().into_iter().chain(deadline).min();
            let to = next.filter(|at| *at <= self.until);
            self.idle = to.is_none();
            let to = to.unwrap_or(self.until);
            if to > self.now {
                self.spins = 0;
            }
            self.advance(to);
        }
        Ok(std::mem::take(&mut self.sources))
    }

    fn has_terminal(&self) -> bool {
        false
    }

    fn configuration(&self) -> String {
        "/etc/app.toml".into()
    }

    fn has_hung_up(&self, signal: &Arrived) -> bool {
        signal.number == Signal::SIGHUP as i32 && signal.sender == Sender::Kernel
    }

    fn outlives_terminal(&self) -> bool {
        false
    }

    fn signals(&mut self) -> Vec<Arrived> {
        std::mem::take(&mut self.signals)
    }

    fn start(&mut self, start: &Start) -> io::Result<Pid> {
        let argument = start.launch.args.first().map_or("", String::as_str);
        let pid = match start.role {
            Role::Job | Role::Check(_) => self.job(start.app, end(argument), 100)?,
            Role::Run => {
                let mut processes = self.processes.values();
                let goes_on = processes.any(|process| process.app == *start.app);
                assert!(!goes_on, "one run at a time");
                self.runs += 1;
                self.job(start.app, end(argument), 100)?
            }
            Role::Template | Role::Worker(..) => {
                let kind = match start.role {
                    Role::Worker(slot, record) => Kind::Worker { slot, record },
                    _ => Kind::Template,
                };
                let is_template = kind == Kind::Template;
                let code = code(argument);
                let made = self.fork(start.app, start.generation, kind, code);
                let pid = made.ok_or_else(|| io::Error::other("no process"))?;
                if is_template {
                    self.replies.insert(pid, VecDeque::new());
                    match code {
                        Code::Broken => self.after(5, Due::Ends(pid, false)),
                        Code::NeverReady => {}
                        Code::Good | Code::IgnoresSignals => self.after(300, Due::Loads(pid)),
                    }
                } else {
                    for (_, address) in &start.plan.sockets {
                        let since = self.listeners.get(address);
                        assert!(
                            since.is_some_and(|since| *since <= start.generation),
                            "a worker gets all its listeners"
                        );
                    }
                    let process = self.processes.get_mut(&pid).expect("it was just made");
                    process.ends_quiet = start.plan.policy.ends_quiet;
                    process.alone = start.plan.policy.replace == Replace::StopFirst;
                    self.started.push((start.app.clone(), start.generation));
                    *self.starts.entry(start.app.clone()).or_default() += 1;
                    self.begin_worker(pid, code);
                }
                pid
            }
        };
        if start.private == Private::Probed {
            self.privates.insert(start.app.clone());
        }
        self.after(1, Due::Executes(pid));
        Ok(pid)
    }

    fn start_check(&mut self, _extent: &Extent) -> io::Result<Pid> {
        let mut found = self.disk.plan();
        if let Ok(plan) = &mut found
            && let Some(app) = plan.apps.values_mut().next()
        {
            app.acme = self.keeping.wanted.clone();
        }
        let end = if found.is_ok() { End::Well } else { End::Badly };
        let pid = self.job(&"".into(), end, 20)?;
        self.found.insert(pid, found);
        Ok(pid)
    }

    fn checked(&mut self, job: Pid) -> Result<Plan, String> {
        self.found.remove(&job).expect("it was a check")
    }

    fn start_probe(&mut self, app: &Name, check: &plan::Check) -> io::Result<Pid> {
        assert!(
            self.privates.contains(app),
            "a probe goes to a private listener"
        );
        self.job(app, asked(check), 50)
    }

    fn start_probe_at(
        &mut self,
        check: &plan::Check,
        _attempts: u32,
        address: &OsStr,
    ) -> io::Result<Pid> {
        let address = address.to_string_lossy();
        let name = address.trim_start_matches("unix:/").split('-').next();
        self.job(&name.unwrap_or_default().into(), asked(check), 50)
    }

    fn start_certificate_watch(&mut self, _front: &Path, _running: &Secret) -> io::Result<Pid> {
        Err(io::Error::other("no app has certificates"))
    }

    fn found_certificates(&mut self, _job: Pid) -> io::Result<Option<Secret>> {
        Ok(None)
    }

    fn hand_certificates(&mut self, _worker: Pid, _certificates: &Secret) -> io::Result<()> {
        Ok(())
    }

    fn start_certificate_keeper(
        &mut self,
        wanted: &Acme,
        told: Option<&Secret>,
    ) -> io::Result<Pid> {
        assert_eq!(self.keeping.wanted.as_ref(), Some(wanted));
        let told = told.map(|told| told.0.clone());
        self.keeping.started.push((self.now, told));
        let (end, found) = match self.keeping.script.pop_front() {
            None => (End::Hangs, None),
            Some(Keeps::Finds(text)) => (End::Well, Some(Secret(text))),
            Some(Keeps::Ends(true)) => (End::Well, None),
            Some(Keeps::Ends(false)) => (End::Badly, None),
            Some(Keeps::Cannot) => return Err(io::Error::other("no process")),
        };
        let pid = self.job(&"".into(), end, 1000)?;
        self.keeping.finds.insert(pid, found);
        Ok(pid)
    }

    fn found_challenges(&mut self, job: Pid) -> io::Result<Option<Secret>> {
        let found = self.keeping.finds.remove(&job);
        Ok(found.expect("it was such a job, and is asked once"))
    }

    fn tell_challenges(&mut self, challenges: &Secret) -> io::Result<()> {
        self.keeping.told.push(challenges.0.clone());
        Ok(())
    }

    fn end_private(&mut self, app: &Name, _tell: bool) {
        self.privates.remove(app);
    }

    fn progress(&mut self, pid: Pid) -> Progress {
        let process = self.processes.get_mut(&pid);
        match process.is_some_and(|process| std::mem::take(&mut process.executed)) {
            true => Progress::Executed,
            false => Progress::Pending,
        }
    }

    fn read_stderr(&mut self, _pid: Pid) -> ReadState {
        ReadState::All
    }

    fn flush_stderr(&mut self, _pid: Pid) {}

    // The simulated processes send less than the limits.
    fn pause(&mut self, _source: &Source) {}

    fn resume(&mut self, _source: &Source) {}

    fn rest(&mut self) {}

    fn last_output(&mut self, _pid: Pid) -> Option<String> {
        None
    }

    fn signal(&mut self, pid: Pid, signal: Signal, _target: Target) {
        Self::signal(self, pid, signal);
    }

    fn rest_of(
        &mut self,
        wanted: &BTreeSet<Rest>,
        is_known: &dyn Fn(Pid) -> bool,
    ) -> BTreeMap<Rest, Vec<Pid>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (pid, process) in &self.processes {
            let Kind::Rest(leader) = process.kind else {
                continue;
            };
            // Some have left its session.
            let rest = match pid.as_raw() % 2 {
                0 => Rest::Session(leader),
                _ => Rest::Background(leader),
            };
            if wanted.contains(&rest) && process.dead.is_none() {
                assert!(!is_known(*pid), "it was started by a worker");
                found.entry(rest).or_default().push(*pid);
            }
        }
        found
    }

    fn strays(&mut self, _worker: Pid, _is_known: &dyn Fn(Pid) -> bool) -> BTreeMap<Pid, Pid> {
        BTreeMap::new()
    }

    fn signal_rest(&mut self, pid: Pid, signal: Signal, _spared: Option<Pid>) -> bool {
        self.signal_left(pid, signal);
        true
    }

    fn order_stop(&mut self, pid: Pid) -> bool {
        // Some kinds of worker have a descriptor for it, to which their processes react like to the signal.
        let has_one = pid.as_raw() % 2 == 0;
        if has_one {
            Self::signal(self, pid, Signal::SIGTERM);
        }
        has_one
    }

    fn stopped(&mut self) -> Option<(Pid, bool)> {
        None
    }

    fn ended(&mut self) -> Option<(Pid, bool)> {
        let processes = self.processes.iter();
        let children = processes.filter(|(_, process)| process.adopted);
        let mut zombies = children.filter_map(|(pid, process)| Some((*pid, process.dead?)));
        // The kernel reports them in no particular order.
        match self.ticket % 2 {
            0 => zombies.next(),
            _ => zombies.next_back(),
        }
    }

    fn reap(&mut self, pid: Pid, _kill_session: bool) -> Option<Exit> {
        let process = self
            .processes
            .remove(&pid)
            .expect("it was not reaped before");
        let cleanly = process.dead.expect("it has ended");
        let is_worker = matches!(process.kind, Kind::Worker { .. });
        if process.alone && is_worker && self.ticket.is_multiple_of(3) {
            self.leave_rest(pid, &process);
        }
        Some(match (cleanly, process.killed) {
            (true, _) => Exit::Status(0),
            (false, true) => Exit::Signal(Signal::SIGKILL, false),
            (false, false) => Exit::Status(1),
        })
    }

    fn own_address(&self, _pid: Pid) -> Option<SocketAddr> {
        None
    }

    fn open_own_listener(
        &mut self,
        app: &Name,
        record: u32,
        wanted: &plan::OwnListener,
    ) -> io::Result<PathBuf> {
        let records = self.records.get(app).expect("the app was admitted");
        assert!(records.contains(&record), "the record is that of a worker");
        Ok(format!("{}.{record}", wanted.prefix.display()).into())
    }

    fn requests_at(&self, _app: &Name, address: &str) -> Option<u64> {
        Self::requests_at(self, address)
    }

    fn tell_fronts(&mut self, app: &Name, state: Option<&str>) {
        self.front_is_told(app, state);
    }

    fn is_child(&mut self, pid: Pid) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|process| process.adopted)
    }

    fn memory(&mut self, pid: Pid) -> Option<u64> {
        assert!(
            self.processes.contains_key(&pid),
            "a reaped process is not examined"
        );
        // Some are too large from the beginning.
        Some(if pid.as_raw() % 8 == 0 {
            1 << 30
        } else {
            1 << 10
        })
    }

    fn out_of_memory(&mut self) -> bool {
        false
    }

    fn add_app(&mut self, app: &Name, _plan: &plan::App) -> io::Result<()> {
        self.mail.entry(app.clone()).or_default();
        self.records.entry(app.clone()).or_default();
        Ok(())
    }

    fn remove_app(&mut self, app: &Name) {
        let living = self
            .processes
            .values()
            .filter(|process| process.app == *app);
        let workers = living.filter(|process| matches!(process.kind, Kind::Worker { .. }));
        assert_eq!(workers.count(), 0, "an app goes after its last worker");
        self.mail.remove(app);
        let records = self.records.remove(app);
        assert_eq!(records, Some(BTreeSet::new()), "every record was released");
    }

    fn messages(&mut self, app: &Name, most: usize) -> Vec<(Pid, String)> {
        let mail = self.mail.get_mut(app);
        let mail = mail.map(|mail| mail.drain(..mail.len().min(most)).collect());
        mail.unwrap_or_default()
    }

    fn request_fork(&mut self, template: Pid, order: &Fork) -> bool {
        self.after(5, Due::Forks(template, *order));
        true
    }

    fn reply(&mut self, template: Pid) -> Option<(Pid, Option<Reply>)> {
        let (sender, reply) = self.replies.get_mut(&template)?.pop_front()?;
        Some((sender, Some(reply)))
    }

    fn shut_down(&mut self, template: Pid) {
        self.shut.insert(template);
    }

    fn close(&mut self, template: Pid) {
        self.shut.remove(&template);
        let replies = self.replies.remove(&template);
        assert_eq!(
            replies.map(|replies| replies.len()),
            Some(0),
            "everything was read"
        );
    }

    fn allocate(&mut self, app: &Name) -> io::Result<u32> {
        let records = self.records.get_mut(app).expect("the app was admitted");
        let free = (0..RECORDS).find(|record| !records.contains(record));
        let free = free.ok_or_else(|| io::Error::other("no record is left"))?;
        records.insert(free);
        Ok(free)
    }

    fn release(&mut self, app: &Name, record: u32) {
        let records = self.records.get_mut(app).expect("the app was admitted");
        assert!(records.remove(&record), "a record is released once");
    }

    fn read(&self, app: &Name, record: u32, age: Duration) -> Option<Snapshot> {
        let mut processes = self.processes.values();
        let is_it =
            |kind: &Kind| matches!(kind, Kind::Worker { record: Some(own), .. } if *own == record);
        let process = processes.find(|process| process.app == *app && is_it(&process.kind))?;
        Some(Snapshot {
            pid: 1,
            state: State::Idle,
            requests: 0,
            errors: 0,
            bytes_out: 0,
            connections: 0,
            busy: process.busy_since.map(|since| {
                Duration::from_nanos(self.nanoseconds().saturating_sub(since)).min(age)
            }),
            threads_busy: process.busy_since.map_or(0, |_| 1),
            line: "GET /".into(),
            latency: [0; LATENCY_BUCKETS],
            responses: [0; CLASSES],
            time: 0,
        })
    }

    fn write_census(&mut self, _size: u64, _changes: &[(u64, Vec<u64>)]) -> io::Result<()> {
        Ok(())
    }

    fn start_metrics(
        &mut self,
        _wanted: &plan::Metrics,
        _orders: &Orders,
        _generation: Generation,
    ) -> io::Result<Pid> {
        self.job(&"".into(), End::Hangs, 1000)
    }

    fn cpu(&self, pid: Pid) -> Option<u64> {
        assert!(
            self.processes.contains_key(&pid),
            "a reaped process is not examined"
        );
        Some(1)
    }

    fn counters(&self, _app: &Name, keys: &[u64]) -> Vec<Vec<u64>> {
        vec![Vec::new(); keys.len()]
    }

    fn purge(&self, _app: &Name, _places: &[u64]) -> io::Result<()> {
        Ok(())
    }

    fn gauges(&self, _app: &Name, _record: u32) -> Vec<u64> {
        Vec::new()
    }

    fn mark(&mut self, app: &Name, record: u32) -> io::Result<()> {
        let is_it =
            |kind: &Kind| matches!(kind, Kind::Worker { record: Some(own), .. } if *own == record);
        let mut processes = self.processes.values_mut();
        if let Some(process) = processes.find(|process| process.app == *app && is_it(&process.kind))
        {
            process.marked = true;
        }
        Ok(())
    }

    fn succeed(&mut self, _app: &Name, _record: u32) -> io::Result<()> {
        Ok(())
    }

    fn earlier_left(&mut self, left: &Left) -> Option<Killed> {
        let now = self.now;
        let mut left_of = self.earlier.iter().filter(|(_, until)| **until > now);
        let is_left = match left {
            Left::Anything => {
                left_of.next().is_some() || self.beside.values().any(|until| *until > now)
            }
            Left::Holding(holders) => {
                let known = holders.is_empty() || holders.contains(&EARLIER);
                known && left_of.next().is_some()
            }
            Left::Of(app) | Left::Alone(app, _) => left_of.any(|(name, _)| name == *app),
            Left::Whole(app) => {
                let mut beside = self.beside.iter();
                beside.any(|(name, until)| name == *app && *until > now)
            }
            Left::CommandOf(_) => false,
        };
        is_left.then_some(Killed::Guarded {
            master: EARLIER,
            guard: Pid::from_raw(3),
        })
    }

    fn open_listeners(
        &mut self,
        wanted: &[Listener],
        generation: Generation,
    ) -> Result<Opened, NotOpened> {
        // Those of the first start serve as soon as they are open.
        self.candidate = Some(generation).filter(|generation| *generation > 0);
        let why = "the address is in use".to_owned();
        let (mut new, mut missing) = (Vec::new(), Vec::new());
        for listener in wanted {
            let address = &listener.address;
            if self.listeners.contains_key(address) {
                continue;
            }
            if let Some(since) = self.bound.get(address).copied() {
                if listener.stays_open {
                    self.bound.remove(address);
                    self.listeners.insert(address.clone(), since);
                }
                continue;
            }
            if self.refuses_listeners && listener.required {
                self.close_listeners();
                return Err(NotOpened {
                    why,
                    address: address.clone(),
                    holders: Vec::new(),
                });
            }
            if self.refuses_listeners {
                missing.push((address.clone(), why.clone()));
                continue;
            }
            match address {
                _ if listener.stays_open => self.listeners.insert(address.clone(), generation),
                Address::Unix(_) => continue,
                _ => self.bound.insert(address.clone(), generation),
            };
            if self.candidate.is_some() {
                self.proposed.insert(address.clone());
            }
            new.push(address.clone());
        }
        Ok(Opened { new, missing })
    }

    fn open_missing_listener(
        &mut self,
        address: &Address,
        generation: Generation,
    ) -> Result<bool, NotOpened> {
        if let Some(since) = self.listeners.get_mut(address) {
            if generation < *since {
                *since = generation;
                self.proposed.remove(address);
            }
            return Ok(false);
        }
        let since = match self.bound.remove(address) {
            Some(since) if generation < since => {
                self.proposed.remove(address);
                generation
            }
            Some(since) => since,
            None if self.refuses_listeners => {
                return Err(NotOpened {
                    why: "the address is in use".into(),
                    address: address.clone(),
                    holders: self.holders.clone(),
                });
            }
            None => {
                if self.candidate == Some(generation) {
                    self.proposed.insert(address.clone());
                }
                generation
            }
        };
        self.listeners.insert(address.clone(), since);
        Ok(true)
    }

    fn close_for_now(&mut self, addresses: &[&Address], generation: Generation) -> Vec<Address> {
        let mut closed = Vec::new();
        for address in addresses {
            let Some(since) = self.listeners.get(*address).copied() else {
                continue;
            };
            if since > generation {
                continue;
            }
            self.listeners.remove(*address);
            match address {
                Address::Tcp(_) => drop(self.bound.insert((*address).clone(), since)),
                _ => drop(self.proposed.remove(*address)),
            }
            closed.push((*address).clone());
        }
        closed
    }

    fn close_listeners(&mut self) {
        self.candidate = None;
        for address in std::mem::take(&mut self.proposed) {
            self.listeners.remove(&address);
            self.bound.remove(&address);
        }
    }

    fn keep_listeners(&mut self, wanted: &[Listener]) -> (Vec<Address>, Vec<String>) {
        self.candidate = None;
        self.proposed.clear();
        let mut closed = Vec::new();
        self.listeners.retain(|address, _| {
            let is_wanted = wanted.iter().any(|listener| listener.address == *address);
            if !is_wanted {
                closed.push(address.clone());
            }
            is_wanted
        });
        self.bound
            .retain(|address, _| wanted.iter().any(|listener| listener.address == *address));
        let mut required = wanted.iter().filter(|listener| listener.required);
        assert!(
            required.all(|listener| self.listeners.contains_key(&listener.address)),
            "every required listener is open"
        );
        (closed, Vec::new())
    }

    fn accept_queue(&self, address: &Address) -> Option<u32> {
        self.listeners.contains_key(address).then_some(0)
    }

    fn keep_master_files(&mut self, _plan: &Plan) {}

    fn restore_listener(&mut self, _address: &Address) -> Result<bool, String> {
        Ok(false)
    }

    fn has_successors(&self, address: &Address, _generation: Generation) -> bool {
        self.listeners.contains_key(address)
    }

    fn watch_listener(&mut self, _address: &Address, _watch: bool) {}

    fn open_log_files(&mut self, _wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, String> {
        Ok(Vec::new())
    }

    fn opened_log_files(&mut self) -> Vec<(LogFile, Result<(), String>)> {
        Vec::new()
    }

    fn close_log_files(&mut self, _files: &[LogFile]) {}

    fn keep_log_files(&mut self, _wanted: &BTreeSet<LogFile>) {}

    fn reopen_log_files(&mut self) -> usize {
        0
    }

    fn log_writer_ended(&mut self, _pid: Pid) -> Option<Option<LogFile>> {
        None
    }

    fn replace_log_writers(&mut self, _now: Instant) -> Vec<(LogFile, io::Error)> {
        Vec::new()
    }

    fn log_deadline(&self) -> Option<Instant> {
        None
    }

    fn log_files_are_quiet(&self) -> bool {
        true
    }

    fn watchdog(&self) -> Option<Duration> {
        None
    }

    fn notify_init(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
    }

    fn accept_clients(&mut self) -> bool {
        false
    }

    fn request(&mut self, client: i32) -> Option<(ClientId, String)> {
        self.requests.remove(&client)
    }

    fn send(&mut self, _client: ClientId, _part: &str) -> bool {
        true
    }

    fn answer(&mut self, client: ClientId, answer: &str) {
        let before = self.answers.insert(client.number(), answer.to_owned());
        assert_eq!(before, None, "a client is answered once");
        self.answered.push(client.number());
    }
}

/// What becomes of a check.
fn asked(check: &plan::Check) -> End {
    match &check.ask {
        plan::Ask::Page { path, .. } => end(path),
        other => panic!("{other:?} is none of the simulated checks"),
    }
}
