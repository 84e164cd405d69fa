//! The real world: the poll, and all [`crate::effects`] behind one map from descriptors to event sources.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, Stderr};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{error, warn};
use mio::Interest;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};
use preforkd_worker::metrics::orders::Orders;
use preforkd_worker::metrics::processes;
use preforkd_worker::scoreboard::Snapshot;

use super::world::{
    Exit, Killed, Left, NotOpened, Notice, Opened, Rest, Source, Start, Target, World,
};
use crate::config::Address;
use crate::effects::addresses::Addresses;
use crate::effects::alarm::{self, Alarm};
use crate::effects::beacon::Beacon;
use crate::effects::census::Census;
use crate::effects::certificate_keeper::CertificateKeeper;
use crate::effects::certificate_watch::CertificateWatch;
use crate::effects::config_check::{ConfigCheck, Configuration};
use crate::effects::control::{ClientId, Control};
use crate::effects::init::Init;
use crate::effects::listen::Listeners;
use crate::effects::log_files::LogFiles;
use crate::effects::memory::{self, OomKills};
use crate::effects::notify::Notify;
use crate::effects::own_listeners::OwnListeners;
use crate::effects::pid_file::PidFile;
use crate::effects::private;
use crate::effects::ready_fd::ReadyFd;
use crate::effects::scoreboard::Scoreboard;
use crate::effects::signals::{Arrived, Signals};
use crate::effects::stop_orders::StopOrders;
use crate::effects::tail::{ReadState, Tail};
use crate::effects::template::Template;
use crate::effects::terminal::Terminal;
use crate::effects::updates::Updates;
use crate::guard::orphans::Orphans;
use crate::guard::table::Files;
use crate::guard::waiting::Earlier;
use crate::launcher::progress::{Launching, Progress};
use crate::plan::{self, Acme, Extent, Listener, LogFile, Plan, Secret};
use crate::release::{Generation, Name};
use crate::schedule::appointments::Clock;

mod checks;
mod children;
mod control_file;
mod guarded;
mod listeners;
mod logs;
mod metrics;
mod notices;
mod pid_file;
mod sessions;
mod start;
mod templates;
mod tickets;
mod updates;
mod watches;

use control_file::ControlKeeper;
use guarded::Guarded;
use start::forward;
use tickets::TicketKeys;
use watches::{RETRY, Watches};

/// How long the master rests before a turn, when events come too fast.
const REST: Duration = Duration::from_millis(1);

/// The kernel, as the master uses it.
pub(super) struct System {
    configuration: Configuration,
    watches: Watches,
    signals: Signals,
    init: Init,
    /// Not yet told that the first generation is ready.
    ready_fd: Option<ReadyFd>,
    control: Control,
    /// By which commands find the control socket; `None` if there was no descriptor for it.
    keeper: ControlKeeper,
    beacon: Option<Beacon>,
    listeners: Listeners,
    log_files: LogFiles,
    /// The log files of processes that have writers of their own.
    own_output: BTreeMap<Pid, Vec<LogFile>>,
    /// How many processes were started for apps.
    started: u64,
    tickets: TicketKeys,
    updates: Updates,
    /// The workers of the front: the app and the record of each.
    fronts: BTreeMap<Pid, (Name, u32)>,
    certificate_watch: Option<CertificateWatch>,
    certificate_keeper: Option<CertificateKeeper>,
    /// The challenges that workers of the front answer, for those that start.
    challenges: Option<Rc<OwnedFd>>,
    notify: Notify,
    scoreboards: BTreeMap<Name, Scoreboard>,
    /// What the process that answers `/metrics` reads, once there has been one.
    census: Option<Census>,
    /// The private listeners over which first workers are checked.
    privates: BTreeMap<Name, private::Private>,
    templates: HashMap<Pid, Template>,
    stop_orders: StopOrders,
    addresses: Addresses,
    own_listeners: OwnListeners,
    /// Where the workers of each app are, for workers of the front that start.
    upstreams: BTreeMap<Name, Rc<OwnedFd>>,
    checks: HashMap<Pid, ConfigCheck>,
    /// Pipes of processes that have not executed their program yet.
    launching: HashMap<Pid, Launching>,
    /// Pipes from which the master reads the standard error of a process.
    tails: HashMap<Pid, Tail>,
    /// The master's own standard error.
    errors: Stderr,
    alarm: Alarm,
    terminal: Terminal,
    oom_kills: OomKills,
    pid_file: Option<PidFile>,
    guarded: Guarded,
}

impl System {
    /// Everything that a master with this configuration needs. Something may be left of `earlier` masters.
    ///
    /// # Errors
    /// Descriptors or memory are missing, or the pid file cannot be written.
    pub(super) fn new(
        configuration: Configuration,
        plan: &Plan,
        listeners: Listeners,
        mut signals: Signals,
        ready_fd: Option<ReadyFd>,
        (earlier, orphans): (Vec<Earlier>, Orphans),
    ) -> io::Result<Self> {
        let mut watches = Watches::new()?;
        let fd = signals.fd();
        watches.register(fd, Source::Signals, |registry, token| {
            signals.register(registry, token)
        })?;
        let init = Init::find().unwrap_or_else(|error| {
            warn!("cannot reach the init system at NOTIFY_SOCKET: {error}; it will not be told that preforkd is ready");
            Init::absent()
        });
        // A worker that its template has forked twice becomes our child: prctl(2).
        nix::sys::prctl::set_child_subreaper(true)?;
        for name in listeners.unused() {
            warn!("no app uses the inherited socket {name}");
        }
        let files = Files::of(&configuration.file, plan);
        let mut system = Self {
            configuration,
            watches,
            signals,
            init,
            ready_fd,
            control: Control::default(),
            keeper: ControlKeeper::default(),
            beacon: Beacon::new().ok(),
            listeners,
            log_files: LogFiles::default(),
            own_output: BTreeMap::new(),
            started: 0,
            notify: Notify::new()?,
            tickets: TicketKeys::default(),
            updates: Updates::default(),
            fronts: BTreeMap::new(),
            certificate_watch: None,
            certificate_keeper: None,
            challenges: None,
            scoreboards: BTreeMap::new(),
            census: None,
            privates: BTreeMap::new(),
            templates: HashMap::new(),
            stop_orders: StopOrders::default(),
            addresses: Addresses::default(),
            own_listeners: OwnListeners::default(),
            upstreams: BTreeMap::new(),
            checks: HashMap::new(),
            launching: HashMap::new(),
            tails: HashMap::new(),
            errors: io::stderr(),
            alarm: Alarm::new()?,
            terminal: Terminal::of_now(),
            oom_kills: OomKills::from_now(),
            pid_file: None,
            guarded: Guarded::new(&files, earlier, orphans),
        };
        if let Some(fd) = system.init.fd() {
            system.watches.add(fd, None, Interest::WRITABLE)?;
        }
        let alarm = system.alarm.fd();
        system.watches.add_readable(alarm, Source::Alarm)?;
        // Before anything that may fail or take time, so that a killed master leaves its sockets.
        system.store_listeners();
        system.keep_control(plan);
        let pid_file = plan.pid_file.as_deref().map(pid_file::write_pid_file);
        match pid_file.transpose() {
            Ok(written) => system.pid_file = written,
            Err(error) => {
                system.leave();
                return Err(error);
            }
        }
        Ok(system)
    }

    /// The helper processes that are no jobs.
    fn helpers(&self) -> BTreeSet<Pid> {
        let mut helpers = self.log_files.writers();
        helpers.extend(self.guarded.guard_process());
        helpers
    }

    /// The master ends in good order.
    pub(super) fn leave(self) {
        // The next master must find the addresses free, however long the guard takes to end.
        drop(self.listeners);
        self.guarded.leave();
    }

    fn board(&self, app: &Name) -> io::Result<&Scoreboard> {
        let board = self.scoreboards.get(app);
        board.ok_or_else(|| io::Error::other("there is no scoreboard"))
    }
}

impl World for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn clock(&self) -> Clock {
        alarm::clock()
    }

    fn set_alarm(&mut self, at: Option<Timestamp>) {
        self.alarm.clear();
        if let Err(error) = self.alarm.set(at) {
            error!("cannot set the timer of the schedules: {error}; runs will be late or missed");
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<BTreeSet<Source>> {
        let short = self.init.is_short_of_memory().then_some(RETRY);
        let now = Instant::now();
        let guarded = self.guarded.keep(now);
        let updated = self.keep_updates(now);
        let deadlines = [deadline, self.keeper.deadline(), guarded, updated];
        let until = deadlines.into_iter().flatten().min();
        let until = until.map(|at| at.saturating_duration_since(now));
        let mut sources = self.watches.wait(until.into_iter().chain(short).min())?;
        let has_event = sources.remove(&Source::ControlFile);
        self.look_at_control(has_event);
        self.init.flush();
        Ok(sources)
    }

    fn has_terminal(&self) -> bool {
        self.terminal.exists()
    }

    fn has_hung_up(&self, signal: &Arrived) -> bool {
        self.terminal.has_hung_up(signal)
    }

    fn outlives_terminal(&self) -> bool {
        self.signals.ignored_hang_up
    }

    fn configuration(&self) -> String {
        self.configuration.file.display().to_string()
    }

    fn signals(&mut self) -> Vec<Arrived> {
        self.signals.arrived()
    }

    fn start(&mut self, start: &Start) -> io::Result<Pid> {
        self.start_process(start)
    }

    fn start_check(&mut self, extent: &Extent) -> io::Result<Pid> {
        self.start_config_check(extent)
    }

    fn checked(&mut self, job: Pid) -> Result<Plan, String> {
        self.found_plan(job)
    }

    fn start_certificate_watch(&mut self, front: &Path, running: &Secret) -> io::Result<Pid> {
        self.watch_certificates(front, running)
    }

    fn found_certificates(&mut self, job: Pid) -> io::Result<Option<Secret>> {
        self.certificates_of_watch(job)
    }

    fn hand_certificates(&mut self, worker: Pid, certificates: &Secret) -> io::Result<()> {
        self.send_certificates(worker, certificates)
    }

    fn start_certificate_keeper(
        &mut self,
        wanted: &Acme,
        told: Option<&Secret>,
    ) -> io::Result<Pid> {
        self.keep_certificates(wanted, told)
    }

    fn found_challenges(&mut self, job: Pid) -> io::Result<Option<Secret>> {
        self.challenges_of_keeper(job)
    }

    fn tell_challenges(&mut self, challenges: &Secret) -> io::Result<()> {
        self.send_challenges(challenges)
    }

    fn start_probe(&mut self, app: &Name, check: &plan::Check) -> io::Result<Pid> {
        self.probe_private(app, check)
    }

    fn start_probe_at(
        &mut self,
        check: &plan::Check,
        attempts: u32,
        address: &OsStr,
    ) -> io::Result<Pid> {
        self.probe_address(check, attempts, address)
    }

    fn end_private(&mut self, app: &Name, tell: bool) {
        self.forget_private(app, tell);
    }

    fn progress(&mut self, pid: Pid) -> Progress {
        let Some(launching) = self.launching.get_mut(&pid) else {
            return Progress::Pending;
        };
        let progress = launching.progress();
        if !matches!(progress, Progress::Pending) {
            self.watches.remove(launching.as_raw_fd());
            self.launching.remove(&pid);
        }
        progress
    }

    fn read_stderr(&mut self, pid: Pid) -> ReadState {
        self.read_tail(pid, Tail::read)
    }

    fn flush_stderr(&mut self, pid: Pid) {
        if let Some(tail) = self.tails.get_mut(&pid) {
            let to = tail.to.clone();
            tail.flush(&mut |bytes| forward(&self.log_files, &to, bytes));
        }
    }

    fn last_output(&mut self, pid: Pid) -> Option<String> {
        self.read_tail(pid, Tail::read_rest);
        let tail = self.tails.remove(&pid);
        let said = tail.and_then(|mut tail| {
            self.watches.remove(tail.fd());
            let to = tail.to.clone();
            tail.finish(&mut |bytes| forward(&self.log_files, &to, bytes));
            tail.last_output()
        });
        // What it has left may still write.
        if let Some(files) = self.own_output.remove(&pid) {
            self.log_files.close(&files);
        }
        said
    }

    fn signal(&mut self, pid: Pid, signal: Signal, target: Target) {
        children::signal(pid, signal, target);
    }

    fn rest_of(
        &mut self,
        wanted: &BTreeSet<Rest>,
        is_known: &dyn Fn(Pid) -> bool,
    ) -> BTreeMap<Rest, Vec<Pid>> {
        let helpers = self.helpers();
        let found = sessions::find(wanted, |pid| is_known(pid) || helpers.contains(&pid));
        self.guarded.looked(wanted, &found);
        found
    }

    fn strays(&mut self, worker: Pid, is_known: &dyn Fn(Pid) -> bool) -> BTreeMap<Pid, Pid> {
        let helpers = self.helpers();
        sessions::strays(worker, |pid| is_known(pid) || helpers.contains(&pid))
    }

    fn signal_rest(&mut self, pid: Pid, signal: Signal, spared: Option<Pid>) -> bool {
        sessions::signal(pid, signal, spared)
    }

    fn order_stop(&mut self, pid: Pid) -> bool {
        self.stop_orders.give(pid)
    }

    fn ended(&mut self) -> Option<(Pid, bool)> {
        children::ended()
    }

    fn stopped(&mut self) -> Option<(Pid, bool)> {
        children::stopped()
    }

    fn pause(&mut self, source: &Source) {
        self.watches.pause(source);
    }

    fn resume(&mut self, source: &Source) {
        if let Err(error) = self.watches.resume(source) {
            warn!("cannot watch {source:?} again: {error}");
        }
    }

    fn rest(&mut self) {
        // Nothing waits longer for it than for a busy processor.
        std::thread::sleep(REST);
    }

    fn reap(&mut self, pid: Pid, kill_session: bool) -> Option<Exit> {
        let exit = children::reap(pid, kill_session);
        self.guarded.reaped(pid, exit);
        self.stop_orders.remove(pid);
        self.forget_updates(pid);
        self.addresses.release(pid);
        if let Some(launching) = self.launching.remove(&pid) {
            self.watches.remove(launching.as_raw_fd());
        }
        exit
    }

    fn own_address(&self, pid: Pid) -> Option<SocketAddr> {
        self.addresses.of(pid)
    }

    fn open_own_listener(
        &mut self,
        app: &Name,
        record: u32,
        wanted: &plan::OwnListener,
    ) -> io::Result<PathBuf> {
        self.own_listeners.open(app, record, wanted)
    }

    fn tell_fronts(&mut self, app: &Name, state: Option<&str>) {
        self.send_upstream(app, state);
    }

    fn requests_at(&self, app: &Name, address: &str) -> Option<u64> {
        self.noted_requests(app, address)
    }

    fn is_child(&mut self, pid: Pid) -> bool {
        let is_child = children::is_child(pid);
        if is_child {
            self.guarded.adopted(pid);
        }
        is_child
    }

    fn memory(&mut self, pid: Pid) -> Option<u64> {
        let own = memory::share(pid)?;
        let others = sessions::below(pid).into_iter().filter_map(memory::share);
        Some(others.fold(own, u64::saturating_add))
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
        if let Some(address) = self.notify.address(app) {
            self.guarded.app(app, plan, address);
        }
        let fd = self.notify.fd(app);
        let fd = fd.filter(|fd| !self.watches.has(*fd, &Source::Messages(app.clone())));
        fd.map_or(Ok(()), |fd| {
            self.watches.add_readable(fd, Source::Messages(app.clone()))
        })
    }

    fn remove_app(&mut self, app: &Name) {
        self.guarded.remove_app(app);
        self.notify.unbind(app);
        self.watches.forget(&Source::Messages(app.clone()));
        self.scoreboards.remove(app);
        self.privates.remove(app);
    }

    fn messages(&mut self, app: &Name, most: usize) -> Vec<(Pid, String)> {
        self.notify.receive(app, most)
    }

    fn request_fork(&mut self, template: Pid, order: &Fork) -> bool {
        self.send_fork_order(template, order)
    }

    fn reply(&mut self, template: Pid) -> Option<(Pid, Option<Reply>)> {
        self.take_reply(template)
    }

    fn shut_down(&mut self, template: Pid) {
        self.shut_down_template(template);
    }

    fn close(&mut self, template: Pid) {
        self.forget_template(template);
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
        self.own_listeners.release(app, record);
    }

    fn read(&self, app: &Name, record: u32, age: Duration) -> Option<Snapshot> {
        self.scoreboards.get(app)?.read(record, age)
    }

    fn counters(&self, app: &Name, keys: &[u64]) -> Vec<Vec<u64>> {
        let board = self.scoreboards.get(app);
        board.map(|board| board.counters(keys)).unwrap_or_default()
    }

    fn purge(&self, app: &Name, places: &[u64]) -> io::Result<()> {
        let board = self.scoreboards.get(app);
        places
            .iter()
            .try_for_each(|place| board.map_or(Ok(()), |board| board.purge(*place)))
    }

    fn gauges(&self, app: &Name, record: u32) -> Vec<u64> {
        let board = self.scoreboards.get(app);
        board.map(|board| board.gauges(record)).unwrap_or_default()
    }

    fn write_census(&mut self, size: u64, changes: &[(u64, Vec<u64>)]) -> io::Result<()> {
        self.census()?.write(size, changes)
    }

    fn start_metrics(
        &mut self,
        wanted: &plan::Metrics,
        orders: &Orders,
        generation: Generation,
    ) -> io::Result<Pid> {
        self.start_exporter(wanted, orders, generation)
    }

    fn cpu(&self, pid: Pid) -> Option<u64> {
        processes::cpu(u32::try_from(pid.as_raw()).ok()?)
    }

    fn mark(&mut self, app: &Name, record: u32) -> io::Result<()> {
        self.board(app)?.mark(record)
    }

    fn succeed(&mut self, app: &Name, record: u32) -> io::Result<()> {
        self.board(app)?.succeed(record)
    }

    fn earlier_left(&mut self, left: &Left) -> Option<Killed> {
        self.guarded.earlier_left(left)
    }

    fn open_listeners(
        &mut self,
        wanted: &[Listener],
        generation: Generation,
    ) -> Result<Opened, NotOpened> {
        self.open_wanted(wanted, generation)
    }

    fn close_for_now(&mut self, addresses: &[&Address], generation: Generation) -> Vec<Address> {
        self.close_for_now(addresses, generation)
    }

    fn open_missing_listener(
        &mut self,
        address: &Address,
        generation: Generation,
    ) -> Result<bool, NotOpened> {
        self.open_missing(address, generation)
    }

    fn close_listeners(&mut self) {
        self.listeners.close_proposed();
    }

    fn keep_listeners(&mut self, wanted: &[Listener]) -> (Vec<Address>, Vec<String>) {
        self.keep_wanted(wanted)
    }

    fn keep_master_files(&mut self, plan: &Plan) {
        self.guarded
            .name(&Files::of(&self.configuration.file, plan));
        self.guarded
            .name(&Files::of(&self.configuration.file, plan));
        self.keep_control(plan);
        self.keep_pid_file(plan);
    }

    fn accept_queue(&self, address: &Address) -> Option<u32> {
        self.waiting_at(address)
    }

    fn restore_listener(&mut self, address: &Address) -> Result<bool, String> {
        self.listeners.restore(address)
    }

    fn has_successors(&self, address: &Address, generation: Generation) -> bool {
        self.listeners.has_successors(address, generation)
    }

    fn watch_listener(&mut self, address: &Address, watch: bool) {
        self.wait_for_connections(address, watch);
    }

    fn open_log_files(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, String> {
        self.open_logs(wanted)
    }

    fn opened_log_files(&mut self) -> Vec<(LogFile, Result<(), String>)> {
        self.opened_logs()
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
        self.tell_init(notice);
    }

    fn accept_clients(&mut self) -> bool {
        let (clients, more) = self.control.accept();
        let both = Interest::READABLE | Interest::WRITABLE;
        // A closed connection may have left its number to a later one.
        for fd in clients.into_iter().collect::<BTreeSet<_>>() {
            let source = Some(Source::Client(fd));
            if let Err(error) = self.watches.add(fd, source, both) {
                warn!("cannot watch a client of the control socket: {error}");
                self.control.close_client(fd);
            }
        }
        more
    }

    fn request(&mut self, client: i32) -> Option<(ClientId, String)> {
        self.control.ready(client)
    }

    fn send(&mut self, client: ClientId, part: &str) -> bool {
        self.control.send(client, part)
    }

    fn answer(&mut self, client: ClientId, answer: &str) {
        self.control.answer(client, answer);
    }
}
