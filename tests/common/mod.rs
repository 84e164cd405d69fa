//! A master under test. The test is its init system: it binds the notify socket and waits for the master's messages, never
//! for time. One time limit ends a test that hangs.
#![allow(dead_code, reason = "every test file uses other parts of it")]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use preforkd::effects::process::{self, Stat};
use preforkd::guard::table::Table;

pub mod kept;
pub mod programs;

/// The time limit of a wait, after which the test fails.
const GUARD: Duration = Duration::from_secs(30);

/// A folder with an app.toml, and the master that runs it.
pub struct Run {
    pub folder: tempfile::TempDir,
    pub master: Child,
    init: UnixDatagram,
    /// What the master has had kept: sd_notify(3), `FDSTORE`. In order of arrival.
    store: RefCell<Vec<(String, OwnedFd)>>,
    events: Receiver<String>,
    log: Receiver<String>,
    seen: Vec<String>,
    workers: Vec<Pid>,
}

/// An event that a worker has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerEvent {
    pub slot: String,
    pub generation: String,
    pub pid: Pid,
    pub name: String,
}

/// The program under test.
pub fn preforkd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_preforkd"));
    for variable in [
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "JOURNAL_STREAM",
    ] {
        command.env_remove(variable);
    }
    command
}

/// The program that its workers run.
pub fn worker() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_preforkd"));
    let worker = program.parent().expect("a folder").join("examples/worker");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/worker.rs");
    let changed = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    assert!(
        changed(&worker) >= changed(&source),
        "{} is missing or older than its source: `cargo test` builds it, and so does `cargo build --examples`; `cargo test --test NAME` does not",
        worker.display()
    );
    worker.display().to_string()
}

/// An app of test workers that listens on `web.sock`. `rest` is added to its table.
pub fn app(rest: &str) -> String {
    format!(
        "[app.web]\ncommand = ['{}']\nlisten = ['unix:web.sock']\n{rest}\n",
        worker()
    )
}

impl Run {
    /// Starts the master, without waiting until it is ready.
    pub fn begin(config: &str) -> Self {
        Self::begin_with(config, |_| {})
    }

    /// The same, with a change to the command.
    pub fn begin_with(config: &str, change: impl FnOnce(&mut Command)) -> Self {
        Self::begin_in(tempfile::tempdir().expect("a folder"), config, change)
    }

    /// The same, in a folder that may have files already.
    pub fn begin_in(
        folder: tempfile::TempDir,
        config: &str,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        std::fs::write(folder.path().join("app.toml"), config).expect("room");
        let init_path = folder.path().join("init.sock");
        let init = UnixDatagram::bind(&init_path).expect("a socket");
        init.set_read_timeout(Some(GUARD)).expect("a timeout");
        let mut command = preforkd();
        command
            .arg("-c")
            .arg(folder.path().join("app.toml"))
            .env("NOTIFY_SOCKET", &init_path);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut master = command.spawn().expect("preforkd starts");
        let (events, log) = (lines(master.stdout.take()), lines(master.stderr.take()));
        Self {
            folder,
            master,
            init,
            store: RefCell::default(),
            events,
            log,
            seen: Vec::new(),
            workers: Vec::new(),
        }
    }

    /// Starts the master and waits until it is ready.
    pub fn start(config: &str) -> Self {
        let run = Self::begin(config);
        run.message("READY=1");
        run
    }

    /// Waits until the master is ready; false if it ends instead.
    pub fn starts(&self) -> bool {
        let (master, init) = (self.pid(), self.path("init.sock"));
        // A message that stands for the end of the master, which is reaped elsewhere.
        std::thread::spawn(move || {
            let _ = waitid(Id::Pid(master), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let sender = UnixDatagram::unbound().expect("a socket");
            let _ = sender.send_to(b"ENDED=1", init);
        });
        loop {
            let message = self.receive("neither ready nor ended");
            if message.lines().any(|line| line == "READY=1") {
                return true;
            }
            if message == "ENDED=1" {
                return false;
            }
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("room");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.master.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the master lives");
    }

    /// Sends a signal from a process of its own. To the master it is not the last one once more, however soon it comes.
    pub fn signal_from_another(&self, signal: Signal) {
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!("kill -s {name} {}", self.pid());
        let status = Command::new("/bin/sh").args(["-c", &script]).status();
        assert!(status.expect("it is there").success());
    }

    /// The next message to the init system, whatever its length.
    pub fn next_message(&self) -> String {
        self.receive("no message")
    }

    /// The next message that is not about the store, which is brought up to date.
    fn receive(&self, without: &str) -> String {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (message, sockets) = self
                .receive_once(&mut buffer)
                .unwrap_or_else(|e| self.fail(&format!("{without}: {e}")));
            let name = message
                .lines()
                .find_map(|line| line.strip_prefix("FDNAME="));
            let mut store = self.store.borrow_mut();
            match (message.lines().next(), name) {
                (Some("FDSTORE=1"), Some(name)) => {
                    let found = sockets.into_iter().map(|socket| (name.to_owned(), socket));
                    store.extend(found);
                }
                (Some("FDSTOREREMOVE=1"), Some(name)) => store.retain(|(kept, _)| kept != name),
                _ => return message,
            }
        }
    }

    fn receive_once(&self, buffer: &mut [u8]) -> nix::Result<(String, Vec<OwnedFd>)> {
        let mut room = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received =
            recvmsg::<UnixAddr>(self.init.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
        let mut sockets = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                // SAFETY: the kernel has just made them for this process.
                sockets.extend(
                    fds.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        let length = received.bytes;
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Ok((message, sockets))
    }

    /// What the master has had kept, by name.
    pub fn stored(&self) -> Vec<String> {
        self.store
            .borrow()
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Closes what the master has had kept.
    pub fn close_stored(&self) {
        self.store.take();
    }

    /// Puts another socket in the place of the kept one.
    pub fn replace_stored(&self, socket: OwnedFd) {
        let mut store = self.store.borrow_mut();
        let (_, kept) = store.first_mut().expect("one is kept");
        *kept = socket;
    }

    /// Starts the next master in the same folder, with everything that this one has had kept.
    pub fn next_master(&mut self, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let store = self.store.take();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        std::fs::remove_file(folder.path().join("init.sock")).expect("the previous one");
        let names: Vec<_> = store.iter().map(|(name, _)| name.clone()).collect();
        let (count, names) = (store.len().to_string(), names.join(":"));
        let copy = |(name, socket): &(String, OwnedFd)| {
            (name.clone(), socket.try_clone().expect("a copy"))
        };
        let copies = store.iter().map(copy).collect();
        let next = Self::begin_in(folder, config, |command| {
            through_shell(command, "export LISTEN_PID=$$; exec \"$0\" \"$@\"");
            command
                .env("LISTEN_FDS", count)
                .env("LISTEN_FDNAMES", names);
            let numbered = store.into_iter().zip(3..);
            let passed = numbered.map(|((_, socket), number)| FdMapping {
                parent_fd: socket,
                child_fd: number,
            });
            command
                .fd_mappings(passed.collect())
                .expect("different numbers");
            change(command);
        });
        next.store.replace(copies);
        next
    }

    /// Waits for a message to the init system with this line; returns the whole message.
    pub fn message(&self, line: &str) -> String {
        loop {
            let message = self.receive(&format!("no message {line}"));
            if message
                .lines()
                .any(|found| found == line || found.contains(line) && line.len() > 20)
            {
                return message;
            }
        }
    }

    /// Waits for a `STATUS=` that contains `text`.
    pub fn status(&self, text: &str) -> String {
        loop {
            let message = self.receive(&format!("no status {text}"));
            let mut statuses = message
                .lines()
                .filter_map(|line| line.strip_prefix("STATUS="));
            if statuses.any(|status| status.contains(text)) {
                return message;
            }
        }
    }

    /// Reloads and waits for the end; returns the last message to the init system.
    pub fn reload(&self) -> String {
        self.signal(Signal::SIGHUP);
        self.message("RELOADING=1");
        self.message("READY=1")
    }

    /// Waits for the next line on standard output.
    pub fn next_line(&self) -> String {
        let line = self.events.recv_timeout(GUARD);
        line.unwrap_or_else(|e| self.fail(&format!("no line: {e}")))
    }

    /// Waits for the next event of any worker.
    pub fn next_event(&mut self) -> WorkerEvent {
        let line = self
            .events
            .recv_timeout(GUARD)
            .unwrap_or_else(|e| self.fail(&format!("no event from a worker: {e}")));
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let mut next = || words.next().expect("four words");
        let event = WorkerEvent {
            slot: next(),
            generation: next(),
            pid: Pid::from_raw(next().parse().expect("a pid")),
            name: next(),
        };
        self.workers.push(event.pid);
        event
    }

    /// Waits for a given event of any worker.
    pub fn event(&mut self, name: &str) -> WorkerEvent {
        loop {
            let event = self.next_event();
            if event.name == name {
                return event;
            }
        }
    }

    /// Waits for a log line that contains all of `parts`.
    pub fn logged(&mut self, parts: &[&str]) -> String {
        loop {
            let line = self
                .log
                .recv_timeout(GUARD)
                .unwrap_or_else(|e| self.fail(&format!("never logged {parts:?}: {e}")));
            self.seen.push(line.clone());
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }

    /// Sends a line to a worker over `web.sock` and returns its answer; empty if the worker died.
    pub fn ask(&self, question: &str) -> String {
        ask(
            UnixStream::connect(self.path("web.sock")).expect("the socket is open"),
            question,
        )
    }

    /// Waits for the end of the master; returns its exit status and the complete log.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let status = self.master.wait().expect("it is our child");
        while let Ok(line) = self.log.recv_timeout(GUARD) {
            self.seen.push(line);
        }
        (status.code(), self.seen.join("\n"))
    }

    /// Waits until neither the master nor any worker is left.
    pub fn all_ended(&self) {
        loop {
            match self.events.recv_timeout(GUARD) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.fail("a process is still running"),
            }
        }
    }

    /// Stops the master, which must succeed: gracefully, unless it was told to before.
    pub fn stop(&mut self) -> String {
        self.signal_from_another(Signal::SIGTERM);
        let (status, log) = self.ended();
        assert_eq!(status, Some(0), "{log}");
        log
    }

    pub fn fail(&self, why: &str) -> ! {
        let log: Vec<_> = self
            .seen
            .iter()
            .cloned()
            .chain(self.log.try_iter())
            .collect();
        panic!("{why}; the log:\n{}", log.join("\n"))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for pid in self.workers.iter().copied().chain([self.pid()]) {
            if descends_from(pid, self.pid()) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        let ended = self.master.wait();
        // One that has ended of itself, with a status of the manual, leaves nothing.
        let of_itself = |status: std::process::ExitStatus| matches!(status.code(), Some(0..=3));
        if !ended.is_ok_and(of_itself) {
            kill_left(self.pid());
        }
    }
}

/// Kills what a guard would end later: the sessions that a master has left, and the guard itself.
fn kill_left(master: Pid) {
    let all: Vec<(Pid, Stat)> = process::all().collect();
    let may_be = |stat: &Stat| [&b"preforkd"[..], b"exe"].contains(&&*stat.name);
    let guards = all.iter().filter(|(_, stat)| may_be(stat));
    let guards = guards.filter_map(|(pid, _)| {
        // The next master holds the table too, until nothing is left.
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is_guard = title.windows(5).any(|part| part == b"guard");
        let table = Table::of(*pid).filter(|_| is_guard)?;
        (table.master() == Some(master)).then_some((*pid, table))
    });
    for (guard, table) in guards {
        let records = table.records().into_iter();
        let leaders: Vec<_> = records.filter_map(|(_, record)| record.leader).collect();
        let is_left = |stat: &Stat| {
            let mut leaders = leaders.iter();
            leaders.any(|leader| stat.session == leader.pid && stat.started >= leader.started)
        };
        for (pid, _) in all.iter().filter(|(_, stat)| is_left(stat)) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let _ = kill(guard, Signal::SIGKILL);
    }
}

/// Whether a process is the master or its child. The pid may have been reused.
fn descends_from(pid: Pid, master: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(1));
    pid == master || parent.and_then(|p| p.parse().ok()) == Some(master.as_raw())
}

/// An address that is free, unless somebody else takes it.
pub fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound")
}

/// Sends a line and reads the answer.
pub fn ask(mut stream: impl Read + Write, question: &str) -> String {
    stream
        .write_all(format!("{question}\n").as_bytes())
        .expect("the worker reads");
    let mut answer = String::new();
    // A worker that dies during the request resets the connection: no answer.
    let _ = stream.read_to_string(&mut answer);
    answer.trim_end().to_owned()
}

/// The lines of a pipe as they arrive.
fn lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver): (Sender<String>, _) = channel();
    let Some(pipe) = pipe.map(BufReader::new) else {
        return receiver;
    };
    std::thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Starts a command through a shell script, which has its arguments in `$0` and `$@`.
pub fn through_shell(command: &mut Command, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(variable, value),
            None => shell.env_remove(variable),
        };
    }
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    *command = shell;
}

/// Builds the program that serves sites, beside the one under test: cargo builds only the programs of the package whose tests it runs.
pub fn build_front() {
    static BUILT: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_preforkd"));
        let folder = folder.parent().expect("a folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "preforkd-front"]);
        cargo.arg("--target-dir").arg(folder.parent().expect("one"));
        cargo.args((folder.file_name() == Some("release".as_ref())).then_some("--release"));
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.expect("cargo runs").success());
    });
}
