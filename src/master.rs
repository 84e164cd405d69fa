//! The master: waits for events, tells them to the supervisors, performs what they say. It has the only clock,
//! one thread, and no word with any client.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, Stderr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::effects::control::Control;
use crate::effects::init::Init;
use crate::effects::listen::Listeners;
use crate::effects::log_files::LogFiles;
use crate::effects::memory::OomKills;
use crate::effects::notify::Notify;
use crate::effects::pid_file::PidFile;
use crate::effects::scoreboard::Scoreboard;
use crate::effects::signals::Signals;
use crate::effects::tail::Tail;
use crate::effects::template::Template;
use crate::plan::{self, Plan};
use crate::signals;
use crate::supervisor::{Event, Generation, Supervisor};

mod checking;
mod children;
mod controlling;
mod ending;
mod hearing;
mod load;
mod obeying;
mod outputs;
mod performing;
mod preparing;
mod recycling;
mod reload;
mod report;
#[cfg(test)]
mod simulation;
mod starting;
mod templates;
mod watching;

use checking::Checking;
use children::{Children, Name};
use controlling::Waiting;
use load::Looks;
use preparing::Preparation;
use reload::{Opened, Reload};

/// The tokens of the poll; descriptors that come and go have `FIRST_FD` and their number.
const SIGNALS: Token = Token(0);
const NOTIFY: Token = Token(1);
const INIT: Token = Token(2);
const CONTROL: Token = Token(3);
const FIRST_FD: usize = 4;

/// How often what has failed for want of memory is tried again.
const POLL_RETRY: Duration = Duration::from_millis(100);

/// How the master ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped as asked.
    Stopped,
    /// The first generation could not start.
    CouldNotStart,
    /// An app was given up that says `then = "exit"`.
    GaveUp,
}

/// One app: its workers, and how to start those of each generation.
struct App {
    supervisor: Supervisor,
    plans: BTreeMap<Generation, Rc<plan::App>>,
    /// It is no longer configured: forget it when its last worker has ended.
    removed: bool,
    ended: bool,
    looks: Looks,
}

/// What the init system was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// The master process.
pub struct Master {
    file: PathBuf,
    poll: Poll,
    signals: Signals,
    notify: Notify,
    /// Not all messages were read.
    more_messages: bool,
    init: Init,
    control: Option<Control>,
    waiting: Waiting,
    /// When those who call are to be taken in, as that has failed.
    callers_at: Option<Instant>,
    scoreboard: Scoreboard,
    oom_kills: OomKills,
    listeners: Listeners,
    log_files: LogFiles,
    /// Standard error.
    errors: Stderr,
    /// What is heard on standard error of processes that start.
    tails: HashMap<Pid, Tail>,
    checks: HashMap<Pid, Checking>,
    apps: BTreeMap<Name, App>,
    children: Children,
    templates: HashMap<(Name, Generation), Template>,
    /// Templates that were told to end, and when they have to have.
    leaving_templates: BTreeMap<Pid, Instant>,
    /// Pipes of processes whose program is not executed yet.
    launching: HashMap<Pid, OwnedFd>,
    /// Facts that are to be told to a supervisor.
    facts: VecDeque<(Name, Event)>,
    /// The committed configuration and its generation.
    current: Option<(Generation, Plan)>,
    last_generation: Generation,
    reload: Option<Reload>,
    preparation: Option<Preparation>,
    reload_wanted: bool,
    /// Why the last reload failed; told until one succeeds.
    refused: Option<String>,
    /// When the init system wants to hear that the loop goes round.
    sign_of_life: Option<Instant>,
    /// Everything has ended; how long what was said may still be written.
    last_words_until: Option<Instant>,
    phase: Phase,
    status: String,
    outcome: Outcome,
    _pid_file: Option<PidFile>,
}

/// Catches what the master listens to. To be called first of all: a reload that is asked for while the program
/// still reads its configuration must not end it.
///
/// # Errors
/// There is no descriptor left.
pub fn catch_signals() -> io::Result<Signals> {
    let numbers = signals::TABLE.iter().map(|(signal, _)| *signal as i32);
    Signals::catch(numbers.chain([Signal::SIGCHLD as i32]))
}

impl Master {
    /// A master that serves the checked configuration in `file` through `listeners`.
    ///
    /// # Errors
    /// The process lacks something it needs: descriptors, memory, the folder of the pid file.
    pub fn new(
        file: PathBuf,
        plan: Plan,
        listeners: Listeners,
        mut signals: Signals,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let notify = Notify::new()?;
        signals.register(poll.registry(), SIGNALS)?;
        let init = Init::find().unwrap_or_else(|error| {
            warn!("cannot reach the init system at NOTIFY_SOCKET: {error} (it will not learn that preforkd is ready)");
            Init::absent()
        });
        let sign_of_life = init.watchdog().map(|_| Instant::now());
        if let Some(fd) = init.fd() {
            poll.registry()
                .register(&mut SourceFd(&fd), INIT, Interest::WRITABLE)?;
        }
        let control = plan.control.as_deref().and_then(|path| {
            let bound = Control::bind(path);
            bound
                .inspect_err(|error| warn!("no control socket at {}: {error}", path.display()))
                .ok()
        });
        if let Some(control) = &control {
            poll.registry()
                .register(&mut SourceFd(&control.fd()), CONTROL, Interest::READABLE)?;
        }
        // A worker forked twice by its template becomes our child: prctl(2).
        nix::sys::prctl::set_child_subreaper(true)?;
        let pid_file = plan.pid_file.clone().map(|path| {
            let shown = path.display().to_string();
            PidFile::write(&path).map_err(|e| {
                io::Error::new(e.kind(), format!("cannot write the pid file {shown}: {e}"))
            })
        });
        let mut master = Self {
            file,
            poll,
            signals,
            notify,
            more_messages: false,
            init,
            control,
            waiting: Waiting::default(),
            callers_at: None,
            scoreboard: Scoreboard::new()?,
            oom_kills: OomKills::from_now(),
            listeners,
            log_files: LogFiles::default(),
            errors: io::stderr(),
            tails: HashMap::new(),
            checks: HashMap::new(),
            apps: BTreeMap::new(),
            children: Children::default(),
            templates: HashMap::new(),
            leaving_templates: BTreeMap::new(),
            launching: HashMap::new(),
            facts: VecDeque::new(),
            current: None,
            last_generation: 0,
            reload: None,
            preparation: None,
            reload_wanted: false,
            refused: None,
            sign_of_life,
            last_words_until: None,
            phase: Phase::Starting,
            status: String::new(),
            outcome: Outcome::Stopped,
            _pid_file: pid_file.transpose()?,
        };
        for name in master.listeners.unused() {
            warn!("the inherited socket {name} is used by no app");
        }
        let log_files = master.log_files.open_and_wait(&plan.log_files());
        log_files.map_err(io::Error::other)?;
        master.hear_apps_of(&plan)?;
        master.propose(plan, Opened::default());
        Ok(master)
    }

    /// Runs until everything has ended after a stop.
    ///
    /// # Errors
    /// The poll is broken beyond repair.
    pub fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(256);
        loop {
            self.tell_supervisors();
            self.follow_up();
            if self.phase == Phase::Stopping
                && self.apps.values().all(|app| app.ended)
                && self.no_templates()
                && self.preparation.is_none()
                && self.logs_are_written()
            {
                self.stop_ends();
                info!("stopped");
                return Ok(self.outcome);
            }
            let wait = self
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = if std::mem::take(&mut self.more_messages) {
                Some(Duration::ZERO)
            } else {
                wait
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                // By a signal, which counts even if the handler found no memory to wake the poll with.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    warn!("cannot wait for events: {error} (trying again)");
                    let _ = self.poll.poll(&mut events, Some(POLL_RETRY));
                }
                Err(error) => return Err(error),
            }
            self.take(&events);
        }
    }

    /// Turns what the poll found into facts.
    fn take(&mut self, events: &Events) {
        self.init.flush();
        self.read_messages();
        for event in events {
            if event.token() == CONTROL {
                self.accept_callers();
            }
            if let Some(fd) = event.token().0.checked_sub(FIRST_FD) {
                self.read_launch(fd as RawFd);
                self.read_tail(fd as RawFd);
                self.connection_waits(fd as RawFd);
                self.hear_caller(fd as RawFd);
            }
        }
        for arrived in self.signals.arrived() {
            if let Some((signal, request)) = signals::request(arrived.number) {
                let sender = arrived
                    .sender
                    .map_or(String::new(), |pid| format!(" from pid {pid}"));
                self.obey(&format!("{signal}{sender}"), request);
            }
        }
        self.reap();
        let now = Instant::now();
        if self.sign_of_life.is_some_and(|at| at <= now) {
            self.init.alive();
            self.sign_of_life = self.init.watchdog().map(|every| now + every);
        }
        if self.callers_at.is_some_and(|at| at <= now) {
            self.accept_callers();
        }
        self.end_overdue_step(now);
        self.kill_overdue_templates(now);
        self.replace_log_writers(now);
        self.look(now);
        self.look_at_loads(now);
        self.retire_the_old(now);
        for (name, app) in &self.apps {
            if app.supervisor.deadline().is_some_and(|at| at <= now) {
                self.facts.push_back((name.clone(), Event::Deadline));
            }
        }
    }

    /// Tells the supervisors all facts, also those that follow from what they say.
    fn tell_supervisors(&mut self) {
        while let Some((name, _)) = self.facts.front() {
            let name = name.clone();
            let facts = std::mem::take(&mut self.facts).into_iter();
            let (mine, others): (Vec<_>, Vec<_>) = facts.partition(|(app, _)| *app == name);
            self.facts = others.into();
            let Some(app) = self.apps.get_mut(&name) else {
                continue;
            };
            let by_load = |event: &Event| matches!(event, Event::Load(_) | Event::Deadline);
            let by_load = mine.iter().all(|(_, event)| by_load(event));
            let before = app.supervisor.counts().wanted;
            let events = mine.into_iter().map(|(_, event)| event);
            let actions = app.supervisor.handle_all(events, Instant::now());
            let wanted = app.supervisor.counts().wanted;
            if by_load && wanted != before {
                info!("app={name}: {wanted} workers wanted, by its load");
            }
            for action in actions {
                self.perform(&name, action);
            }
        }
    }

    /// What has become due by all that happened.
    fn follow_up(&mut self) {
        let notify = &mut self.notify;
        self.apps.retain(|name, app| {
            let stays = !(app.removed && app.supervisor.is_empty());
            if !stays {
                notify.unbind(name);
            }
            stays
        });
        self.start_wanted_reload();
        self.answer_scaled();
        let counts = self.apps.iter().map(|(name, app)| {
            (
                &**name,
                app.supervisor.counts(),
                app.supervisor.is_given_up(),
            )
        });
        let status = report::status(counts);
        let changed = status != self.status;
        self.status = status;
        if !self.announce_readiness() && changed {
            let line = self.status_line();
            self.init.status(&line);
        }
    }

    fn status_line(&self) -> String {
        let running = match (&self.current, self.phase) {
            (_, Phase::Stopping) if self.outcome != Outcome::Stopped => {
                return self.refused.clone().unwrap_or_default();
            }
            (_, Phase::Stopping) => return format!("stopping: {}", self.status),
            (None, _) => return format!("starting: {}", self.status),
            (Some((generation, _)), _) => format!("generation {generation}: {}", self.status),
        };
        match &self.refused {
            Some(refused) => format!("{refused}; {running}"),
            None => running,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let supervisors = self
            .apps
            .values()
            .filter_map(|app| app.supervisor.deadline());
        supervisors
            .chain(self.sign_of_life)
            .chain(self.step_deadline())
            .chain(self.log_deadline())
            .chain(self.callers_at)
            .chain(
                self.init
                    .is_short_of_memory()
                    .then(|| Instant::now() + POLL_RETRY),
            )
            .chain(self.next_look())
            .chain(self.next_look_at_load())
            .chain(self.next_retirement())
            .chain(self.leaving_deadline())
            .min()
    }

    fn watch(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        let token = Token(FIRST_FD + fd as usize);
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Watches for reading and writing.
    fn watch_both(&self, fd: RawFd) -> io::Result<()> {
        let token = Token(FIRST_FD + fd as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), token, interest)
    }

    fn unwatch(&self, fd: &impl AsRawFd) {
        // Closing would do the same, but for a child between fork and exec that still holds a copy.
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&fd.as_raw_fd()));
    }
}
