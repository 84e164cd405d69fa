//! The real world: the poll, and all [`crate::effects`] behind one map from descriptors to event sources.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IsTerminal, Stderr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{debug, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};
use preforkd_worker::scoreboard::Snapshot;
use preforkd_worker::stderr;

use super::world::{Change, Exit, Notice, Private, Role, Source, Start, Target, World};
use crate::config::Address;
use crate::effects::config_check::ConfigCheck;
use crate::effects::control::{ClientId, Control};
use crate::effects::init::Init;
use crate::effects::launch::{Contract, Output, launch};
use crate::effects::listen::Listeners;
use crate::effects::log_files::LogFiles;
use crate::effects::memory::{self, OomKills};
use crate::effects::notify::Notify;
use crate::effects::pid_file::PidFile;
use crate::effects::private;
use crate::effects::probe;
use crate::effects::scoreboard::Scoreboard;
use crate::effects::signals::{Arrived, Signals};
use crate::effects::tail::{Destination, ReadState, Tail};
use crate::effects::template::Template;
use crate::plan::{self, Listener, LogFile, Plan};
use crate::release::Name;
use crate::sys::{self, Progress};

/// The retry interval of a poll that has failed for lack of memory.
const POLL_RETRY: Duration = Duration::from_millis(100);

/// The maximum number of events read at a time.
const MAX_EVENTS: usize = 256;

/// The owner of a polled descriptor.
enum Watched {
    /// An event for the master.
    Master(Source),
    /// The socket to the init system.
    Init,
}

/// The kernel, as the master uses it.
pub(super) struct System {
    file: PathBuf,
    poll: Poll,
    events: Events,
    /// The owners of polled descriptors. A token is the number of its descriptor.
    watched: HashMap<RawFd, Watched>,
    signals: Signals,
    init: Init,
    control: Option<Control>,
    listeners: Listeners,
    log_files: LogFiles,
    notify: Notify,
    scoreboards: BTreeMap<Name, Scoreboard>,
    /// The private listeners over which first workers are checked.
    privates: BTreeMap<Name, private::Private>,
    templates: HashMap<Pid, Template>,
    checks: HashMap<Pid, ConfigCheck>,
    /// Pipes of processes that have not executed their program yet.
    launching: HashMap<Pid, OwnedFd>,
    /// Pipes from which the master reads the standard error of a process.
    tails: HashMap<Pid, Tail>,
    /// The master's own standard error.
    errors: Stderr,
    oom_kills: OomKills,
    _pid_file: Option<PidFile>,
}

impl System {
    /// Everything that a master with this configuration needs.
    ///
    /// # Errors
    /// Descriptors or memory are missing, or the pid file cannot be written.
    pub(super) fn new(
        file: PathBuf,
        plan: &Plan,
        listeners: Listeners,
        mut signals: Signals,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut watched = HashMap::new();
        let fd = signals.fd();
        signals.register(poll.registry(), Token(fd as usize))?;
        watched.insert(fd, Watched::Master(Source::Signals));
        let init = Init::find().unwrap_or_else(|error| {
            warn!("cannot reach the init system at NOTIFY_SOCKET: {error}; it will not be told that preforkd is ready");
            Init::absent()
        });
        let control = plan.control.as_deref().and_then(|path| {
            let bound = Control::bind(path);
            bound
                .inspect_err(|error| {
                    warn!("no control socket at {}: {error}", path.display());
                })
                .ok()
        });
        // A worker that its template has forked twice becomes our child: prctl(2).
        nix::sys::prctl::set_child_subreaper(true)?;
        let pid_file = plan.pid_file.clone().map(|path| {
            let shown = path.display().to_string();
            PidFile::write(&path).map_err(|e| {
                io::Error::new(e.kind(), format!("cannot write the pid file {shown}: {e}"))
            })
        });
        for name in listeners.unused() {
            warn!("no app uses the inherited socket {name}");
        }
        let mut system = Self {
            file,
            poll,
            events: Events::with_capacity(MAX_EVENTS),
            watched,
            signals,
            init,
            control,
            listeners,
            log_files: LogFiles::default(),
            notify: Notify::new()?,
            scoreboards: BTreeMap::new(),
            privates: BTreeMap::new(),
            templates: HashMap::new(),
            checks: HashMap::new(),
            launching: HashMap::new(),
            tails: HashMap::new(),
            errors: io::stderr(),
            oom_kills: OomKills::from_now(),
            _pid_file: pid_file.transpose()?,
        };
        if let Some(fd) = system.init.fd() {
            system.watch(fd, Watched::Init, Interest::WRITABLE)?;
        }
        if let Some(fd) = system.control.as_ref().map(Control::fd) {
            system.watch_for(fd, Source::Clients)?;
        }
        Ok(system)
    }

    fn watch(&mut self, fd: RawFd, what: Watched, interest: Interest) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), Token(fd as usize), interest)?;
        self.watched.insert(fd, what);
        Ok(())
    }

    fn watch_for(&mut self, fd: RawFd, source: Source) -> io::Result<()> {
        self.watch(fd, Watched::Master(source), Interest::READABLE)
    }

    fn unwatch(&mut self, fd: RawFd) {
        self.watched.remove(&fd);
        // Closing is not enough while a child between fork and exec still holds a copy.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
    }

    fn is_watched_for(&self, fd: RawFd, source: &Source) -> bool {
        matches!(self.watched.get(&fd), Some(Watched::Master(known)) if known == source)
    }

    /// Polls the pipes of a process that was started: its progress and its output.
    fn follow(&mut self, pid: Pid, pipe: OwnedFd, tail: Option<Tail>) {
        if let Err(error) = self.watch_for(pipe.as_raw_fd(), Source::Launch(pid)) {
            // A failure is then seen when the process is reaped.
            warn!("cannot watch the start of pid={pid}: {error}");
        }
        self.launching.insert(pid, pipe);
        if let Some(tail) = tail {
            self.tails.insert(pid, tail);
            self.watch_stderr(pid, true);
        }
    }

    /// The private listener of a process; it is kept if it will be probed.
    fn private(&mut self, start: &Start) -> Option<OwnedFd> {
        if start.private == Private::None {
            return None;
        }
        let made = private::Private::new().and_then(|private| {
            let theirs = private.socket().try_clone_to_owned()?;
            Ok((private, theirs))
        });
        let (private, theirs) = made
            .inspect_err(|error| warn!("{start}: cannot create a listener for its check: {error}"))
            .ok()?;
        // An unused one is dropped, so no one can connect to it.
        if start.private == Private::Probed {
            self.privates.insert(start.app.clone(), private);
        }
        Some(theirs)
    }

    /// The output of a process. One whose output is read while it starts switches to that of the others when it is ready.
    fn output<'a>(&'a self, plan: &plan::App, theirs: Option<&'a OwnedFd>) -> Output<'a> {
        let file =
            |file: &Option<LogFile>| file.as_ref().and_then(|file| self.log_files.input(file));
        let stderr: Option<BorrowedFd> = file(&plan.output.stderr);
        let theirs = theirs.map(AsFd::as_fd);
        Output {
            stdout: file(&plan.output.stdout),
            stderr: theirs.or(stderr),
            stderr_later: theirs
                .filter(|_| plan.output.taken_over)
                .map(|_| stderr.unwrap_or(self.errors.as_fd())),
            access_log: file(&plan.output.access_log),
        }
    }

    fn contract<'a>(
        &'a self,
        start: &Start<'a>,
        private: Option<&'a OwnedFd>,
        theirs: Option<&'a OwnedFd>,
    ) -> Contract<'a> {
        let sockets = start.plan.sockets.iter();
        let sockets =
            sockets.filter_map(|(name, at)| Some((name.as_str(), self.listeners.socket(at)?)));
        let board = self.scoreboards.get(start.app);
        let is_job = start.role == Role::Job;
        let (slot, record) = match start.role {
            Role::Worker(slot, record) => (Some(slot), record),
            Role::Template | Role::Job => (None, None),
        };
        let has_record = record.is_some() || start.role == Role::Template;
        let mut contract = Contract {
            app: start.app,
            slot,
            generation: start.generation,
            sockets: sockets.filter(|_| !is_job).collect(),
            notify_socket: self.notify.address(start.app).unwrap_or_default(),
            scoreboard: board
                .filter(|_| has_record)
                .map(|board| (board.fd(), record)),
            template: None,
            check: None,
            output: self.output(start.plan, theirs),
        };
        let known = start.plan.output.taken_over;
        contract.add_private(private.map(AsFd::as_fd), known);
        contract
    }

    /// A pipe for the standard error of a process that is about to start; `None` if it cannot be created.
    fn tail(start: &Start) -> Option<(Tail, OwnedFd)> {
        let tail = Tail::new(start.plan.output.stderr.clone());
        tail.inspect_err(|error| {
            warn!("{start}: cannot read its output while it starts: {error}");
        })
        .ok()
    }

    fn read_tail(
        &mut self,
        pid: Pid,
        read: impl FnOnce(&mut Tail, &mut dyn FnMut(&[u8])) -> ReadState,
    ) -> ReadState {
        let Some(tail) = self.tails.get_mut(&pid) else {
            return ReadState::End;
        };
        let to = tail.to.clone();
        read(tail, &mut |bytes| forward(&self.log_files, &to, bytes))
    }

    fn board(&self, app: &Name) -> io::Result<&Scoreboard> {
        let board = self.scoreboards.get(app);
        board.ok_or_else(|| io::Error::other("there is no scoreboard"))
    }
}

fn forward(files: &LogFiles, to: &Destination, bytes: &[u8]) {
    let file = match to {
        Destination::Nowhere => return,
        Destination::Stderr => None,
        Destination::File(file) => files.input(file),
    };
    match file {
        Some(pipe) => stderr::forward(pipe, bytes),
        None => stderr::forward(io::stderr(), bytes),
    }
}

impl World for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<BTreeSet<Source>> {
        let short = self.init.is_short_of_memory().then_some(POLL_RETRY);
        let until = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = until.into_iter().chain(short).min();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // By a signal, which counts even if its handler could not queue an event.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                warn!("cannot wait for events: {error}; retrying");
                let _ = self.poll.poll(&mut self.events, Some(POLL_RETRY));
            }
            Err(error) => return Err(error),
        }
        let mut sources = BTreeSet::new();
        for event in &self.events {
            let fd = event.token().0 as RawFd;
            if let Some(Watched::Master(source)) = self.watched.get(&fd) {
                sources.insert(source.clone());
            }
        }
        self.init.flush();
        Ok(sources)
    }

    fn has_terminal(&self) -> bool {
        io::stdin().is_terminal() || self.errors.is_terminal()
    }

    fn signals(&mut self) -> Vec<Arrived> {
        self.signals.arrived()
    }

    fn start(&mut self, start: &Start) -> io::Result<Pid> {
        let private = self.private(start);
        let (tail, theirs) = start.captured.then(|| Self::tail(start)).flatten().unzip();
        let contract = self.contract(start, private.as_ref(), theirs.as_ref());
        let (pid, pipe, template) = match start.role {
            Role::Template => {
                let (template, pipe) = Template::start(start.launch, contract)?;
                (template.pid, pipe, Some(template))
            }
            Role::Worker(..) | Role::Job => {
                let (pid, pipe) = launch(start.launch, &contract)?;
                (pid, pipe, None)
            }
        };
        if let Some(template) = template {
            if let Err(error) = self.watch_for(template.fd(), Source::Template(pid)) {
                warn!("{start} pid={pid}: cannot watch its socket: {error}");
            }
            self.templates.insert(pid, template);
        }
        self.follow(pid, pipe, tail);
        Ok(pid)
    }

    fn start_check(&mut self) -> io::Result<Pid> {
        let check = ConfigCheck::start(&self.file)?;
        let pid = check.pid;
        self.checks.insert(pid, check);
        Ok(pid)
    }

    fn checked(&mut self, job: Pid) -> Result<Plan, String> {
        let check = self.checks.remove(&job);
        check.map_or_else(|| Err(String::new()), ConfigCheck::found)
    }

    fn start_probe(&mut self, app: &Name, check: &plan::Check) -> io::Result<Pid> {
        let private = self.privates.get(app);
        let private = private.ok_or_else(|| io::Error::other("it has no listener for it"))?;
        let (tail, theirs) = Tail::quoted_only()?;
        let pid = probe::start(check, private.socket(), theirs.as_fd())?;
        self.tails.insert(pid, tail);
        Ok(pid)
    }

    fn end_private(&mut self, app: &Name, tell: bool) {
        let shut = self.privates.remove(app);
        if let Some(Err(error)) = shut.filter(|_| tell).map(|private| private.shut_down()) {
            warn!("app={app}: cannot shut down the listener for the check of a worker: {error}");
        }
    }

    fn progress(&mut self, pid: Pid) -> Progress {
        let Some(pipe) = self.launching.get(&pid) else {
            return Progress::Pending;
        };
        let progress = sys::progress(pipe);
        if !matches!(progress, Progress::Pending) {
            self.unwatch(pipe.as_raw_fd());
            self.launching.remove(&pid);
        }
        progress
    }

    fn read_stderr(&mut self, pid: Pid) -> ReadState {
        self.read_tail(pid, Tail::read)
    }

    fn watch_stderr(&mut self, pid: Pid, watch: bool) {
        let Some(fd) = self.tails.get(&pid).map(Tail::fd) else {
            return;
        };
        if !watch {
            self.unwatch(fd);
        } else if let Err(error) = self.watch_for(fd, Source::Stderr(pid)) {
            warn!("cannot watch the output of pid={pid}: {error}");
        }
    }

    fn last_output(&mut self, pid: Pid) -> Option<String> {
        self.read_tail(pid, Tail::read_rest);
        let mut tail = self.tails.remove(&pid)?;
        self.unwatch(tail.fd());
        let to = tail.to.clone();
        tail.finish(&mut |bytes| forward(&self.log_files, &to, bytes));
        tail.last_output()
    }

    fn signal(&mut self, pid: Pid, signal: Signal, target: Target) {
        if target == Target::Session {
            // It may not lead its process group yet.
            let _ = killpg(pid, signal);
        }
        if let Err(error) = kill(pid, signal) {
            warn!("cannot send {signal} to pid={pid}: {error}");
        }
    }

    fn changed(&mut self) -> Option<(Pid, Change)> {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let (stopped, continued) = (WaitPidFlag::WSTOPPED, WaitPidFlag::WCONTINUED);
        let take = |pid, flag| {
            let _ = waitid(Id::Pid(pid), flag | WaitPidFlag::WNOHANG);
        };
        loop {
            return match waitid(Id::All, ended | stopped | continued) {
                Ok(WaitStatus::Exited(pid, status)) => {
                    let cleanly = status == 0;
                    Some((pid, Change::Ended { cleanly }))
                }
                Ok(WaitStatus::Signaled(pid, ..)) => Some((pid, Change::Ended { cleanly: false })),
                Ok(WaitStatus::Stopped(pid, _)) => {
                    take(pid, stopped);
                    Some((pid, Change::Stopped))
                }
                Ok(WaitStatus::Continued(pid)) => {
                    take(pid, continued);
                    Some((pid, Change::Continued))
                }
                Err(Errno::EINTR) => continue,
                _ => None,
            };
        }
    }

    fn reap(&mut self, pid: Pid, kill_session: bool) -> Option<Exit> {
        if kill_session {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let status = loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        if let Some(pipe) = self.launching.remove(&pid) {
            self.unwatch(pipe.as_raw_fd());
        }
        match status {
            Ok(WaitStatus::Exited(_, code)) => Some(Exit::Status(code)),
            Ok(WaitStatus::Signaled(_, signal, core)) => Some(Exit::Signal(signal, core)),
            Ok(other) => {
                debug!("pid={pid} has not ended: {other:?}");
                None
            }
            Err(error) => {
                warn!("cannot reap pid={pid}: {error}");
                None
            }
        }
    }

    fn is_child(&mut self, pid: Pid) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(pid), flags) {
                Err(Errno::EINTR) => {}
                other => return other != Err(Errno::ECHILD),
            }
        }
    }

    fn memory(&mut self, pid: Pid) -> Option<u64> {
        memory::share(pid)
    }

    fn out_of_memory(&mut self) -> bool {
        self.oom_kills.happened()
    }

    fn add_app(&mut self, app: &Name, plan: &plan::App) -> io::Result<()> {
        if !self.scoreboards.contains_key(app) {
            self.scoreboards.insert(app.clone(), Scoreboard::new(app)?);
        }
        let user = plan.launch.user.as_ref();
        self.notify.bind(app, user.map(|user| user.uid))?;
        let fd = self.notify.fd(app);
        let fd = fd.filter(|fd| !self.is_watched_for(*fd, &Source::Messages(app.clone())));
        fd.map_or(Ok(()), |fd| {
            self.watch_for(fd, Source::Messages(app.clone()))
        })
    }

    fn remove_app(&mut self, app: &Name) {
        self.notify.unbind(app);
        let was_its =
            |what: &Watched| matches!(what, Watched::Master(Source::Messages(name)) if name == app);
        self.watched.retain(|_, what| !was_its(what));
        self.scoreboards.remove(app);
        self.privates.remove(app);
    }

    fn messages(&mut self, app: &Name, most: usize) -> Vec<(Pid, String)> {
        self.notify.receive(app, most)
    }

    fn request_fork(&mut self, template: Pid, order: &Fork) -> bool {
        let template = self.templates.get(&template);
        template.is_some_and(|template| template.send(order).is_ok())
    }

    fn reply(&mut self, template: Pid) -> Option<(Pid, Reply)> {
        self.templates.get(&template)?.receive()
    }

    fn shut_down(&mut self, template: Pid) {
        if let Some(template) = self.templates.get(&template) {
            template.shut_down_read();
        }
    }

    fn close(&mut self, template: Pid) {
        if let Some(template) = self.templates.remove(&template) {
            self.unwatch(template.fd());
        }
    }

    fn allocate(&mut self, app: &Name) -> io::Result<u32> {
        let board = self.scoreboards.get_mut(app);
        board
            .ok_or_else(|| io::Error::other("there is no scoreboard"))?
            .allocate()
    }

    fn release(&mut self, app: &Name, record: u32) {
        if let Some(board) = self.scoreboards.get_mut(app) {
            board.release(record);
        }
    }

    fn read(&self, app: &Name, record: u32, age: Duration) -> Option<Snapshot> {
        self.scoreboards.get(app)?.read(record, age)
    }

    fn mark(&mut self, app: &Name, record: u32) -> io::Result<()> {
        self.board(app)?.mark(record)
    }

    fn succeed(&mut self, app: &Name, record: u32) -> io::Result<()> {
        self.board(app)?.succeed(record)
    }

    fn open_listeners(&mut self, wanted: &[Listener]) -> Result<Vec<Address>, String> {
        let opened = self.listeners.open(wanted);
        opened.map_err(|error| error.to_string())
    }

    fn close_listeners(&mut self, addresses: &[Address]) {
        self.listeners.close(addresses);
    }

    fn keep_listeners(&mut self, wanted: &[Listener]) -> (Vec<Address>, Vec<String>) {
        let failures = self.listeners.adapt(wanted);
        (self.listeners.keep(wanted), failures)
    }

    fn accept_queue(&self, address: &Address) -> Option<u32> {
        let socket = self.listeners.socket(address)?;
        Some(sys::accept_queue(&socket))
    }

    fn watch_listener(&mut self, address: &Address, watch: bool) {
        let Some(fd) = self.listeners.socket(address).map(|fd| fd.as_raw_fd()) else {
            return;
        };
        if !watch {
            self.unwatch(fd);
        } else if !self.watched.contains_key(&fd)
            && let Err(error) = self.watch_for(fd, Source::Listener(address.clone()))
        {
            warn!("cannot wait for connections at {address}: {error}");
        }
    }

    fn open_log_files(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, String> {
        let opened = self.log_files.open(wanted);
        let opened = opened.map_err(|error| error.to_string())?;
        for file in &opened {
            let fd = self.log_files.report_fd(file);
            let watched = fd.map_or(Ok(()), |fd| self.watch_for(fd, Source::LogFiles));
            if let Err(error) = watched {
                self.log_files.close(&opened);
                let path = file.path.display();
                return Err(format!(
                    "cannot watch the opening of the log file {path}: {error}"
                ));
            }
        }
        Ok(opened)
    }

    fn opened_log_files(&mut self) -> Vec<(LogFile, Result<(), String>)> {
        let reports = self.log_files.reports().into_iter();
        let reports = reports.map(|(file, result)| (file, result.map_err(|e| e.to_string())));
        reports.collect()
    }

    fn close_log_files(&mut self, files: &[LogFile]) {
        self.log_files.close(files);
    }

    fn keep_log_files(&mut self, wanted: &BTreeSet<LogFile>) {
        self.log_files.keep(wanted);
    }

    fn reopen_log_files(&mut self) -> usize {
        self.log_files.reopen()
    }

    fn log_writer_ended(&mut self, pid: Pid) -> Option<Option<LogFile>> {
        self.log_files.ended(pid)
    }

    fn replace_log_writers(&mut self, now: Instant) -> Vec<(LogFile, io::Error)> {
        self.log_files.replace(now)
    }

    fn log_deadline(&self) -> Option<Instant> {
        self.log_files.deadline()
    }

    fn log_files_are_quiet(&self) -> bool {
        self.log_files.is_quiet()
    }

    fn watchdog(&self) -> Option<Duration> {
        self.init.watchdog()
    }

    fn notify_init(&mut self, notice: &Notice) {
        match notice {
            Notice::Ready(status) => self.init.ready(status),
            Notice::Reloading => self.init.reloading(),
            Notice::Stopping(status) => self.init.stopping(status),
            Notice::Status(status) => self.init.status(status),
            Notice::Alive => self.init.alive(),
        }
    }

    fn accept_clients(&mut self) -> bool {
        let Some(control) = &mut self.control else {
            return false;
        };
        let (clients, more) = control.accept();
        let both = Interest::READABLE | Interest::WRITABLE;
        // A closed connection may have left its number to a later one.
        for fd in clients.into_iter().collect::<BTreeSet<_>>() {
            let source = Watched::Master(Source::Client(fd));
            if let Err(error) = self.watch(fd, source, both)
                && let Some(control) = &mut self.control
            {
                warn!("cannot watch a client of the control socket: {error}");
                control.close_client(fd);
            }
        }
        more
    }

    fn request(&mut self, client: i32) -> Option<(ClientId, String)> {
        self.control.as_mut()?.ready(client)
    }

    fn answer(&mut self, client: ClientId, answer: &str) {
        if let Some(control) = &mut self.control {
            control.answer(client, answer);
        }
    }
}
