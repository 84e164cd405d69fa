//! What the master needs of the world: clock, processes, sockets and files. [`super::system`] is the real one; the tests simulate
//! another one around the same loop.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};
use preforkd_worker::metrics::orders::Orders;
use preforkd_worker::scoreboard::Snapshot;

use crate::config::Address;
use crate::launcher::progress::Progress;
use crate::plan::{self, Acme, Extent, Launch, Listener, LogFile, Plan, Secret};
use crate::release::{Generation, Name};
use crate::schedule::appointments::Clock;
use crate::supervisor::Slot;

pub use crate::effects::control::ClientId;
pub use crate::effects::signals::{Arrived, Sender};
pub use crate::effects::tail::ReadState;

/// The source of an event. Each polled descriptor belongs to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Signals have arrived.
    Signals,
    /// Workers of an app have sent messages.
    Messages(Name),
    /// A template has replied.
    Template(Pid),
    /// A process before exec has made progress.
    Launch(Pid),
    /// A process has written to its standard error, which the master reads while it starts.
    Stderr(Pid),
    /// A client connects to the control socket.
    Clients,
    /// The connection of a client is ready.
    Client(i32),
    /// A connection waits at a watched listener.
    Listener(Address),
    /// Writers have reported whether they could open their log files.
    LogFiles,
    /// Something has happened to the file of the control socket. [`World::wait`] handles it.
    ControlFile,
    /// The alarm has ended, or the clock was set.
    Alarm,
}

/// What became of the listeners of a candidate.
#[derive(Debug, Default)]
pub struct Opened {
    /// Those that have a new socket.
    pub new: Vec<Address>,
    /// Those that are not required and cannot be opened, and why.
    pub missing: Vec<(Address, String)>,
}

/// Why a required listener cannot be opened.
#[derive(Debug)]
pub struct NotOpened {
    /// For people.
    pub why: String,
    /// Its address.
    pub address: Address,
    /// The processes that have its address and the leaders of their sessions, as far as they are known.
    pub holders: Vec<Pid>,
}

/// The purpose of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker, in this slot, with this record of its app's scoreboard.
    Worker(Slot, Option<u32>),
    /// A template.
    Template,
    /// A job.
    Job,
    /// The program of a check, for a worker in this slot.
    Check(Slot),
    /// A run of an app with a schedule.
    Run,
}

impl Role {
    /// The slot of a worker.
    pub fn slot(self) -> Option<Slot> {
        match self {
            Self::Worker(slot, _) => Some(slot),
            Self::Template | Self::Job | Self::Check(_) | Self::Run => None,
        }
    }
}

/// The private listener over which the first worker of a generation is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Private {
    /// It has none.
    None,
    /// It has one, which the probe will use.
    Probed,
    /// It has one that is not used, because its program counts on the number.
    Unused,
}

/// A process to be started.
#[derive(Debug)]
pub struct Start<'a> {
    /// Its app.
    pub app: &'a Name,
    /// How the app's processes are started.
    pub plan: &'a plan::App,
    /// The program, and how to run it.
    pub launch: &'a Launch,
    /// Its purpose.
    pub role: Role,
    /// The generation of its configuration.
    pub generation: Generation,
    /// Whether the master reads its standard error while it starts.
    pub captured: bool,
    /// The private listener.
    pub private: Private,
}

impl std::fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (app, generation) = (self.app, self.generation);
        match self.role {
            Role::Worker(slot, _) => write!(f, "app={app} worker={slot} gen={generation}"),
            Role::Template => write!(f, "app={app} template gen={generation}"),
            Role::Job => write!(f, "app={app} before gen={generation}"),
            Role::Check(_) => write!(f, "app={app} check gen={generation}"),
            Role::Run => write!(f, "app={app} run gen={generation}"),
        }
    }
}

/// What an earlier master may have left.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// Any process.
    Anything,
    /// One of these processes, which have an address; any process if none of them is known.
    Holding(&'a [Pid]),
    /// Processes of this app beside which no other one of it may run.
    Of(&'a Name),
    /// The same, for an app that may exist only once. It may have had another name then, which this plan does not run.
    Alone(&'a Name, &'a Plan),
    /// Any process of this app.
    Whole(&'a Name),
    /// The command `before` of this app.
    CommandOf(&'a Name),
}

/// An earlier master, which was killed or has crashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Killed {
    /// Its guard ends what is left.
    Guarded {
        /// Its process.
        master: Pid,
        /// Its guard.
        guard: Pid,
    },
    /// Its guard was killed too.
    Alone {
        /// One of its workers.
        worker: Pid,
        /// The name of that.
        name: String,
    },
}

impl std::fmt::Display for Killed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Guarded { master, guard } => write!(
                f,
                "what the preforkd with pid {master}, which was killed or has crashed, has left (pid {guard} ends it within its graceful_timeout)"
            ),
            Self::Alone { worker, name } => write!(
                f,
                "{name} (pid {worker}), which has its address, a worker of a preforkd that was killed together with its guard (it ends when its requests are answered; `kill -9 {worker}` ends it now)"
            ),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal; whether it dumped core.
    Signal(Signal, bool),
}

impl Exit {
    /// Whether it ended with status 0.
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal, core) => {
                let core = if *core { " (core dumped)" } else { "" };
                write!(f, "killed by {signal}{core}")
            }
        }
    }
}

/// The target of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The process.
    Process,
    /// The process group that it leads.
    Group,
    /// All processes of the session that it leads, if necessary one after another.
    Session,
}

/// Processes that go on after a worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rest {
    /// Those of the session of this worker, which was reaped.
    Session(Pid),
    /// Those that have left the session of this worker, which was reaped, and have kept its environment.
    Background(Pid),
    /// This process and the session that it leads, or the session that had this leader: [`World::strays`].
    Stray(Pid),
    /// All that are left when the master has ended everything that it knows.
    Strangers,
}

/// A message to the init system: sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// All apps run.
    Ready(String),
    /// A reload has begun. `Ready` ends it, also if it failed.
    Reloading,
    /// The stop has begun.
    Stopping(String),
    /// One line for `systemctl status`.
    Status(String),
    /// The loop is alive.
    Alive,
    /// What is going on may take this long from now on.
    MoreTime(std::time::Duration),
}

/// The world, as far as the master touches it. Only [`World::wait`] blocks.
pub trait World {
    /// The time.
    fn now(&self) -> Instant;

    /// What the clocks of the machine show.
    fn clock(&self) -> Clock;

    /// Reports [`Source::Alarm`] at this time of day, and whenever the clock is set before; `None` clears it.
    fn set_alarm(&mut self, at: Option<Timestamp>);

    /// Waits for events, or until the deadline. Returns the sources.
    ///
    /// # Errors
    /// The poll fails permanently.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<BTreeSet<Source>>;

    /// Whether the master runs on a terminal.
    fn has_terminal(&self) -> bool;

    /// Whether a signal means that the terminal of the master was closed.
    fn has_hung_up(&self, signal: &Arrived) -> bool;

    /// Whether the master was started so that the end of its terminal does not end it: nohup(1).
    fn outlives_terminal(&self) -> bool;

    /// The signals that have arrived.
    fn signals(&mut self) -> Vec<Arrived>;

    /// The path of the configuration file.
    fn configuration(&self) -> String;

    // Processes.

    /// Starts a process.
    ///
    /// # Errors
    /// The system refuses.
    fn start(&mut self, start: &Start) -> io::Result<Pid>;

    /// Starts the job that checks the configuration for a release of this extent.
    ///
    /// # Errors
    /// The system refuses.
    fn start_check(&mut self, extent: &Extent) -> io::Result<Pid>;

    /// The result of the job that checked the configuration, after it has ended.
    ///
    /// # Errors
    /// What is wrong with the configuration, in one line.
    fn checked(&mut self, job: Pid) -> Result<Plan, String>;

    /// Starts the job that watches the certificates of sites, given the program of the front and those that run.
    ///
    /// # Errors
    /// The system refuses.
    fn start_certificate_watch(&mut self, front: &Path, running: &Secret) -> io::Result<Pid>;

    /// The certificates that the job has found, after it has ended.
    ///
    /// # Errors
    /// They cannot be read.
    fn found_certificates(&mut self, job: Pid) -> io::Result<Option<Secret>>;

    /// Hands certificates to a worker of the front.
    ///
    /// # Errors
    /// There is no memory for them.
    fn hand_certificates(&mut self, worker: Pid, certificates: &Secret) -> io::Result<()>;

    /// Starts the job that has certificates issued, given the challenges that the workers of the front have been told.
    ///
    /// # Errors
    /// The system refuses.
    fn start_certificate_keeper(&mut self, wanted: &Acme, told: Option<&Secret>)
    -> io::Result<Pid>;

    /// The challenges that the job wants told, after it has ended.
    ///
    /// # Errors
    /// They cannot be read.
    fn found_challenges(&mut self, job: Pid) -> io::Result<Option<Secret>>;

    /// Tells all workers of the front, and later ones, which challenges to answer.
    ///
    /// # Errors
    /// There is no memory for them.
    fn tell_challenges(&mut self, challenges: &Secret) -> io::Result<()>;

    /// Starts the job that sends a request to the first worker of an app's candidate.
    ///
    /// # Errors
    /// The system refuses.
    fn start_probe(&mut self, app: &Name, check: &plan::Check) -> io::Result<Pid>;

    /// Starts the job that sends requests to an address at which workers serve, or connects to it.
    ///
    /// # Errors
    /// The system refuses.
    fn start_probe_at(
        &mut self,
        check: &plan::Check,
        attempts: u32,
        address: &OsStr,
    ) -> io::Result<Pid>;

    /// Closes an app's private listener; `tell` shuts it down for the worker too.
    fn end_private(&mut self, app: &Name, tell: bool);

    /// The progress of a process before exec.
    fn progress(&mut self, pid: Pid) -> Progress;

    /// Reads what a process has written to its standard error, and forwards it.
    fn read_stderr(&mut self, pid: Pid) -> ReadState;

    /// Forwards the beginning of a line that was read and has no end.
    fn flush_stderr(&mut self, pid: Pid);

    /// Does not report a source until [`World::resume`]: what is sent there waits, and then its senders.
    fn pause(&mut self, source: &Source);

    /// Reports a source again.
    fn resume(&mut self, source: &Source);

    /// Lets a moment pass, as events come too fast.
    fn rest(&mut self);

    /// A process has ended or writes to its own log files from now on: reads and forwards the rest of its standard error, and stops
    /// reading. Returns the last lines of it.
    fn last_output(&mut self, pid: Pid) -> Option<String>;

    /// Sends a signal to a child that was not reaped.
    fn signal(&mut self, pid: Pid, signal: Signal, target: Target);

    /// The processes that run, of each of these. One look at all children of the master, except those that it has started itself.
    fn rest_of(
        &mut self,
        wanted: &BTreeSet<Rest>,
        is_known: &dyn Fn(Pid) -> bool,
    ) -> BTreeMap<Rest, Vec<Pid>>;

    /// The processes that seem to come from a worker that has ended and was not reaped, each with its session. They are children of
    /// the master, and may have left the worker's session and overwritten their environment, as nginx does: they were started in its
    /// time, by the same user, and have its name. `is_known` tells processes that the master has started.
    fn strays(&mut self, worker: Pid, is_known: &dyn Fn(Pid) -> bool) -> BTreeMap<Pid, Pid>;

    /// Sends a signal to a process that [`World::rest_of`] has just returned, unless it is in the process group `spared`: false then.
    fn signal_rest(&mut self, pid: Pid, signal: Signal, spared: Option<Pid>) -> bool;

    /// Tells a worker to stop by ending the pipe that it holds for that; false if it has none.
    fn order_stop(&mut self, pid: Pid) -> bool;

    /// A child that has ended, and whether with status 0. It is returned again until it is reaped.
    fn ended(&mut self) -> Option<(Pid, bool)>;

    /// A child that a signal has stopped (true) or continued (false) since it was last returned.
    fn stopped(&mut self) -> Option<(Pid, bool)>;

    /// Reaps a child that has ended; kills the rest of its session before, if asked to.
    fn reap(&mut self, pid: Pid, kill_session: bool) -> Option<Exit>;

    /// The address that a worker was told to listen on.
    fn own_address(&self, pid: Pid) -> Option<SocketAddr>;

    /// Opens a listener that only the worker with this record will have. It is closed when the record is released.
    ///
    /// # Errors
    /// It cannot be bound.
    fn open_own_listener(
        &mut self,
        app: &Name,
        record: u32,
        wanted: &plan::OwnListener,
    ) -> io::Result<PathBuf>;

    /// Tells all workers of the front where the workers of an app are, and those that start later. What was told is in order with what
    /// other processes are told. Without a state, later ones are not told any more.
    fn tell_fronts(&mut self, app: &Name, state: Option<&str>);

    /// The requests that workers of the front have at an address of a worker of this app, as they have noted; those that have changed to
    /// another protocol do not count. `None` if one of them has not taken in yet all that it was told.
    fn requests_at(&self, app: &Name, address: &str) -> Option<u64>;

    /// Whether a process is a child that was not reaped, so that its pid cannot be reused.
    fn is_child(&mut self, pid: Pid) -> bool;

    /// The memory of a process and of all others in its session, in bytes: [`crate::effects::memory::share`].
    fn memory(&mut self, pid: Pid) -> Option<u64>;

    /// Whether the kernel has killed a process because memory ran out since the last call.
    fn out_of_memory(&mut self) -> bool;

    // Messages of workers and templates.

    /// Adds an app, or updates it: from now on its workers, which run as this user, may send messages.
    ///
    /// # Errors
    /// Its socket or its scoreboard cannot be created.
    fn add_app(&mut self, app: &Name, plan: &plan::App) -> io::Result<()>;

    /// Removes an app.
    fn remove_app(&mut self, app: &Name);

    /// The next messages of an app's processes, at most `most`, each with its sender.
    fn messages(&mut self, app: &Name, most: usize) -> Vec<(Pid, String)>;

    /// Sends a request to a template. Returns false if its queue is full.
    fn request_fork(&mut self, template: Pid, order: &Fork) -> bool;

    /// The next message of a template or of a worker that it has just forked, with its sender; without a reply if it is none.
    fn reply(&mut self, template: Pid) -> Option<(Pid, Option<Reply>)>;

    /// Stops a template from sending. Earlier messages can still be read; a process that would send later ends.
    fn shut_down(&mut self, template: Pid);

    /// Closes a template's socket.
    fn close(&mut self, template: Pid);

    // The scoreboard.

    /// A record for a new worker.
    ///
    /// # Errors
    /// No record is free, or the memory cannot be written.
    fn allocate(&mut self, app: &Name) -> io::Result<u32>;

    /// Releases the record of a worker that was reaped.
    fn release(&mut self, app: &Name, record: u32);

    /// The record of a worker of this age. It is not trusted beyond the bounds of [`Snapshot::decode`].
    fn read(&self, app: &Name, record: u32, age: Duration) -> Option<Snapshot>;

    /// What the workers of the app have counted under these keys, as far as they have.
    fn counters(&self, app: &Name, keys: &[u64]) -> Vec<Vec<u64>>;

    /// What the workers of the app have stored at these places of [`preforkd_worker::purges`] counts no more.
    ///
    /// # Errors
    /// The memory cannot be written.
    fn purge(&self, app: &Name, places: &[u64]) -> io::Result<()>;

    /// What the worker with this record says of its upstreams.
    fn gauges(&self, app: &Name, record: u32) -> Vec<u64>;

    /// Sets the mark that makes a worker report the beginning of its next request.
    ///
    /// # Errors
    /// The memory cannot be written.
    fn mark(&mut self, app: &Name, record: u32) -> io::Result<()>;

    /// Tells a worker, before its stop signal, that others take the connections in the accept queues.
    ///
    /// # Errors
    /// The memory cannot be written.
    fn succeed(&mut self, app: &Name, record: u32) -> io::Result<()>;

    /// Makes these changes in the census, at places in bytes. It is to have this size.
    ///
    /// # Errors
    /// There is no memory for them.
    fn write_census(&mut self, size: u64, changes: &[(u64, Vec<u64>)]) -> io::Result<()>;

    /// Starts the job that answers `/metrics`, with the listeners of this generation.
    ///
    /// # Errors
    /// The system refuses, or an app has no scoreboard.
    fn start_metrics(
        &mut self,
        wanted: &plan::Metrics,
        orders: &Orders,
        generation: Generation,
    ) -> io::Result<Pid>;

    /// The processor time of a process that was not reaped, in microseconds.
    fn cpu(&self, pid: Pid) -> Option<u64>;

    // Listeners.

    /// An earlier master that has left this, if its guard has not ended it.
    fn earlier_left(&mut self, left: &Left) -> Option<Killed>;

    /// Opens the wanted listeners that are not open yet, or have lost their path, for a candidate of this generation. Returns their
    /// addresses. Of those that do not stay open while their app has no worker, this is only tried.
    ///
    /// # Errors
    /// One of them that is required cannot be opened; then none is.
    fn open_listeners(
        &mut self,
        wanted: &[Listener],
        generation: Generation,
    ) -> Result<Opened, NotOpened>;

    /// Opens a listener that could not be opened with its configuration, or is closed for now, for workers of this generation. It may have
    /// been opened for the candidate. Returns whether it did not listen yet.
    ///
    /// # Errors
    /// It still cannot be opened.
    fn open_missing_listener(
        &mut self,
        address: &Address,
        generation: Generation,
    ) -> Result<bool, NotOpened>;

    /// Closes these listeners, which no worker of this generation serves for now, as far as they can be opened again, and watches them
    /// no more. Returns those that were closed.
    fn close_for_now(&mut self, addresses: &[&Address], generation: Generation) -> Vec<Address>;

    /// Closes what was opened for the candidate only.
    fn close_listeners(&mut self);

    /// Closes all other listeners, and applies changed settings to the wanted ones. Returns the closed addresses, and
    /// what failed.
    fn keep_listeners(&mut self, wanted: &[Listener]) -> (Vec<Address>, Vec<String>);

    /// Moves the control socket and the pid file to where this plan has them, applies their rights, and makes again what was removed.
    fn keep_master_files(&mut self, plan: &Plan);

    /// The number of connections in the accept queue; `None` if the listener is not open.
    fn accept_queue(&self, address: &Address) -> Option<u32>;

    /// Makes the file of a unix socket again if a program has removed it. Returns whether it had.
    ///
    /// # Errors
    /// The file cannot be made again.
    fn restore_listener(&mut self, address: &Address) -> Result<bool, String>;

    /// Whether later workers accept from the same sockets of a listener as those of this generation.
    fn has_successors(&self, address: &Address, generation: Generation) -> bool;

    /// Whether to report [`Source::Listener`] of a listener.
    fn watch_listener(&mut self, address: &Address, watch: bool);

    // Log files.

    /// Starts to open the wanted log files that are not open yet, and returns them. [`Source::LogFiles`] reports results.
    ///
    /// # Errors
    /// A writer cannot be started; then no file is opened.
    fn open_log_files(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, String>;

    /// The log files that were opened, or could not be.
    fn opened_log_files(&mut self) -> Vec<(LogFile, Result<(), String>)>;

    /// Closes these log files.
    fn close_log_files(&mut self, files: &[LogFile]);

    /// Closes all other log files.
    fn keep_log_files(&mut self, wanted: &BTreeSet<LogFile>);

    /// Reopens all log files, and returns their number.
    fn reopen_log_files(&mut self) -> usize;

    /// Whether a process that was reaped was the writer of a log file; and its file if a new writer is needed.
    fn log_writer_ended(&mut self, pid: Pid) -> Option<Option<LogFile>>;

    /// Replaces dead writers. Returns those that cannot be started.
    fn replace_log_writers(&mut self, now: Instant) -> Vec<(LogFile, io::Error)>;

    /// When the next writer is to be replaced.
    fn log_deadline(&self) -> Option<Instant>;

    /// Whether no writer is running.
    fn log_files_are_quiet(&self) -> bool;

    // The init system, and clients of the control socket.

    /// The interval of keep-alive messages to the init system.
    fn watchdog(&self) -> Option<std::time::Duration>;

    /// Sends a message to the init system.
    fn notify_init(&mut self, notice: &Notice);

    /// Accepts clients. Returns whether some still wait because no descriptor was available.
    fn accept_clients(&mut self) -> bool;

    /// The complete request of a client, if any.
    fn request(&mut self, client: i32) -> Option<(ClientId, String)>;

    /// Sends a part of an answer that has no end. Returns whether the client is still there.
    fn send(&mut self, client: ClientId, part: &str) -> bool;

    /// Answers a client and closes the connection.
    fn answer(&mut self, client: ClientId, answer: &str);
}
