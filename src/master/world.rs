//! What the master asks of the world: clock, processes, sockets and files. [`super::system`] is the world that is; the tests
//! simulate another one, around the same loop.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};
use preforkd_worker::scoreboard::Snapshot;

use crate::config::Address;
use crate::plan::{self, Launch, Listener, LogFile, Plan};
use crate::release::{Generation, Name};
use crate::supervisor::Slot;
use crate::sys::Progress;

pub use crate::effects::control::CallerId;
pub use crate::effects::signals::Arrived;
pub use crate::effects::tail::Heard;

/// Where something has happened. Each descriptor that the world watches belongs to one of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Signals have arrived.
    Signals,
    /// Workers of an app have sent messages.
    Messages(Name),
    /// A template has replied.
    Template(Pid),
    /// A process has come further on its way to its program.
    Launch(Pid),
    /// A process has written to its standard error, which the master reads while it starts.
    Stderr(Pid),
    /// Somebody connects to the control socket.
    Callers,
    /// A caller's connection is ready.
    Caller(i32),
    /// A connection waits at a listener that the master was told to watch.
    Listener(Address),
    /// Writers have said whether they could open their log files.
    LogFiles,
}

/// What a process is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker, in this slot, with this record of its app's scoreboard.
    Worker(Slot, Option<u32>),
    /// A template.
    Template,
    /// A job.
    Job,
}

/// The listener over which the first worker of a generation is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Private {
    /// It has none.
    None,
    /// It has one, which the probe will use.
    Probed,
    /// It has one that nobody uses, as its program counts on the number.
    Unused,
}

/// A process to be started.
#[derive(Debug)]
pub struct Start<'a> {
    /// Its app.
    pub app: &'a Name,
    /// How the app's processes are started.
    pub plan: &'a plan::App,
    /// The program and what it runs as.
    pub launch: &'a Launch,
    /// What for.
    pub role: Role,
    /// The generation of its configuration.
    pub generation: Generation,
    /// Whether the master reads its standard error while it starts.
    pub heard: bool,
    /// The listener for a check.
    pub private: Private,
}

/// What has become of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has ended, with status 0 or otherwise, and is still to be reaped.
    Ended {
        /// With status 0.
        cleanly: bool,
    },
    /// A signal has stopped it.
    Stopped,
    /// It goes on.
    Continued,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal; whether it left a core file.
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

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The process.
    Process,
    /// All processes of the session that it leads.
    Session,
}

/// What the init system is told: sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Everything that was asked for runs.
    Ready(String),
    /// A reload has begun; `Ready` ends it, also when it has failed.
    Reloading,
    /// The stop has begun.
    Stopping(String),
    /// One line for `systemctl status`.
    Status(String),
    /// The loop goes round.
    Alive,
}

/// The world, as far as the master touches it. Nothing here blocks but [`World::wait`].
pub trait World {
    /// The time.
    fn now(&self) -> Instant;

    /// Waits until something happens, or until the deadline; says where.
    ///
    /// # Errors
    /// The poll is broken beyond repair.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<BTreeSet<Source>>;

    /// Whether somebody looks at the master on a terminal.
    fn has_terminal(&self) -> bool;

    /// The signals that have arrived.
    fn signals(&mut self) -> Vec<Arrived>;

    // Processes.

    /// Starts a process.
    ///
    /// # Errors
    /// The system makes none.
    fn start(&mut self, start: &Start) -> io::Result<Pid>;

    /// Starts the job that checks the configuration.
    ///
    /// # Errors
    /// The system makes no process.
    fn start_check(&mut self) -> io::Result<Pid>;

    /// What the job that checked the configuration has found, after it has ended.
    ///
    /// # Errors
    /// What is wrong with the configuration, in one line.
    fn checked(&mut self, job: Pid) -> Result<Plan, String>;

    /// Starts the job that sends a request to the first worker of an app's candidate.
    ///
    /// # Errors
    /// The system makes no process.
    fn start_probe(&mut self, app: &Name, check: &plan::Check) -> io::Result<Pid>;

    /// Nobody will connect to an app's private listener any more; whether its worker is to learn that.
    fn end_private(&mut self, app: &Name, tell: bool);

    /// How far a process has come on its way to its program.
    fn progress(&mut self, pid: Pid) -> Progress;

    /// Reads what a process has written to its standard error, and passes it on.
    fn read_stderr(&mut self, pid: Pid) -> Heard;

    /// Whether [`Source::Stderr`] is told of a process; what it writes meanwhile waits.
    fn watch_stderr(&mut self, pid: Pid, watch: bool);

    /// Reads and passes on what is left of a process's standard error, and reads no more; the last lines of it.
    fn last_words(&mut self, pid: Pid) -> Option<String>;

    /// Sends a signal to a child that was not reaped.
    fn signal(&mut self, pid: Pid, signal: Signal, whom: Whom);

    /// A child that has changed. One that has ended is told again until it is reaped.
    fn changed(&mut self) -> Option<(Pid, Change)>;

    /// Reaps a child that has ended, after all that its crash left behind in its session was killed.
    fn reap(&mut self, pid: Pid, kill_session: bool) -> Option<Exit>;

    /// Whether a process is a child that was not reaped, so that its number is its own.
    fn is_child(&mut self, pid: Pid) -> bool;

    /// The memory that a process has to itself, in bytes.
    fn memory(&mut self, pid: Pid) -> Option<u64>;

    /// Whether the kernel has killed a process for want of memory since the last time.
    fn out_of_memory(&mut self) -> bool;

    // Messages of workers and templates.

    /// An app comes, or is configured anew: from now on its workers, which run as this user, may send messages.
    ///
    /// # Errors
    /// Its socket or its scoreboard cannot be made.
    fn admit(&mut self, app: &Name, plan: &plan::App) -> io::Result<()>;

    /// An app has gone.
    fn dismiss(&mut self, app: &Name);

    /// The next messages of an app's processes, so many at most, each with its sender.
    fn messages(&mut self, app: &Name, most: usize) -> Vec<(Pid, String)>;

    /// Gives an order to a template; false if it cannot take one now.
    fn order(&mut self, template: Pid, order: &Fork) -> bool;

    /// The next reply of a template or of a worker that it has just forked, with its sender.
    fn reply(&mut self, template: Pid) -> Option<(Pid, Reply)>;

    /// What a template has said before is still to be read; who speaks later ends instead.
    fn shut(&mut self, template: Pid);

    /// A template's socket is not needed any more.
    fn close(&mut self, template: Pid);

    // The scoreboard.

    /// A record for a new worker.
    ///
    /// # Errors
    /// There is none.
    fn allocate(&mut self, app: &Name) -> io::Result<u32>;

    /// The worker was reaped.
    fn release(&mut self, app: &Name, record: u32);

    /// What a worker that was started so long ago has noted: data that may lie, within the bounds of [`Snapshot::decode`].
    fn read(&self, app: &Name, record: u32, age: Duration) -> Option<Snapshot>;

    /// Leaves the mark that makes a worker say when it begins a request.
    ///
    /// # Errors
    /// The memory cannot be written.
    fn mark(&mut self, app: &Name, record: u32) -> io::Result<()>;

    /// Tells a worker, before it is told to end, that others take what waits in the accept queues.
    ///
    /// # Errors
    /// The memory cannot be written.
    fn succeed(&mut self, app: &Name, record: u32) -> io::Result<()>;

    // Listeners.

    /// Opens what is wanted and not open yet; says which those are.
    ///
    /// # Errors
    /// One could not be had; then none is opened.
    fn open_listeners(&mut self, wanted: &[Listener]) -> Result<Vec<Address>, String>;

    /// Closes some listeners.
    fn close_listeners(&mut self, addresses: &[Address]);

    /// Closes all listeners that are not wanted, and changes the others as they are wanted. Says which were closed, and what
    /// could not be done.
    fn keep_listeners(&mut self, wanted: &[Listener]) -> (Vec<Address>, Vec<String>);

    /// How many connections wait to be accepted; none if the listener is not open.
    fn accept_queue(&self, address: &Address) -> Option<u32>;

    /// Whether [`Source::Listener`] is told of a listener.
    fn watch_listener(&mut self, address: &Address, watch: bool);

    // Log files.

    /// Starts to open what is wanted and not open yet; says which those are. [`Source::LogFiles`] tells when one was opened.
    ///
    /// # Errors
    /// The writer of one could not be started; then none is opened.
    fn open_log_files(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, String>;

    /// The log files that were opened, or could not be.
    fn opened_log_files(&mut self) -> Vec<(LogFile, Result<(), String>)>;

    /// Lets go of some log files.
    fn close_log_files(&mut self, files: &[LogFile]);

    /// Lets go of all log files that are not wanted.
    fn keep_log_files(&mut self, wanted: &BTreeSet<LogFile>);

    /// Has all log files opened anew; says how many.
    fn reopen_log_files(&mut self) -> usize;

    /// Whether a process that was reaped was the writer of a log file; the file, if it is still needed.
    fn log_writer_ended(&mut self, pid: Pid) -> Option<Option<LogFile>>;

    /// Replaces the writers that are due; says which could not be started.
    fn replace_log_writers(&mut self, now: Instant) -> Vec<(LogFile, io::Error)>;

    /// When a writer is to be replaced.
    fn log_deadline(&self) -> Option<Instant>;

    /// Whether no writer runs any more.
    fn log_files_are_quiet(&self) -> bool;

    // The init system, and those who call the control socket.

    /// How often the init system wants to hear that the loop goes round.
    fn watchdog(&self) -> Option<std::time::Duration>;

    /// Tells the init system something.
    fn tell_init(&mut self, notice: &Notice);

    /// Those who connect; whether some still wait, as there was no descriptor left for them.
    fn accept_callers(&mut self) -> bool;

    /// A request that a caller has completed.
    fn request(&mut self, caller: i32) -> Option<(CallerId, String)>;

    /// Answers a caller and hangs up.
    fn answer(&mut self, caller: CallerId, answer: &str);
}
