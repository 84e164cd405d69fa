//! Log files: each has a writer process ([`crate::log_writer`]) at the end of a pipe.
//!
//! The writer also opens the file, because the master never waits for a disk, and reports the result over a second pipe. Until
//! then the file is pending: workers may already write to it.
//!
//! Workers have the pipe as their standard output or error, so any program can log to a file that is reopened, and only the
//! writer waits for the disk. The master holds both ends: a writer that dies is replaced, and only
//! what it had read and not written yet is lost. A writer ends
//! when no process holds the write end any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};

use super::launch;
use crate::log_writer::OPENED;
use crate::plan::LogFile;

/// The capacity of a pipe, in bytes: the default limit of pipe(7).
const PIPE_SIZE: i32 = 1 << 20;

/// The minimum interval between two starts of a writer.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum length of a report.
const MAX_REPORT: usize = 4096;

/// Why a log file cannot be written.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(file: &LogFile, reason: impl fmt::Display) -> Self {
        Self(format!("cannot write {}: {reason}", file.target))
    }
}

/// The part of a writer's report that was read so far.
struct Report {
    pipe: OwnedFd,
    writer: Pid,
    text: Vec<u8>,
    /// Reopen the file when the report is complete: the writer may not handle the signal before.
    reopen: bool,
}

struct Open {
    /// The end for the workers.
    input: OwnedFd,
    /// The end for the writer.
    output: OwnedFd,
    writer: Option<Pid>,
    started: Instant,
    /// The writer has not reported yet.
    pending: Option<Report>,
}

/// All log files of the master.
#[derive(Default)]
pub struct LogFiles {
    open: BTreeMap<LogFile, Open>,
    /// Writers of files that are no longer wanted. Each ends when no process can write to it any more.
    leaving: BTreeSet<Pid>,
}

impl LogFiles {
    /// Starts writers for the wanted files that are not open yet, and returns these files. They are pending until
    /// [`LogFiles::reports`] returns their result.
    ///
    /// # Errors
    /// A writer cannot be started; then no file is opened.
    pub fn open(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, Error> {
        let mut opened = Vec::new();
        for file in wanted {
            if self.open.contains_key(file) {
                continue;
            }
            match open(file, true) {
                Ok(open) => {
                    self.open.insert(file.clone(), open);
                    opened.push(file.clone());
                }
                Err(error) => {
                    self.close(&opened);
                    return Err(Error::new(file, error));
                }
            }
        }
        Ok(opened)
    }

    /// Starts a writer for the lines of one process, unless it is there. That the file can be opened was reported for those of
    /// its app.
    ///
    /// # Errors
    /// The writer cannot be started.
    pub fn open_for_process(&mut self, file: &LogFile) -> Result<(), Error> {
        if !self.open.contains_key(file) {
            let open = open(file, false).map_err(|error| Error::new(file, error))?;
            self.open.insert(file.clone(), open);
        }
        Ok(())
    }

    /// The descriptor to poll for [`LogFiles::reports`]; only for a pending file.
    pub fn report_fd(&self, file: &LogFile) -> Option<RawFd> {
        let pending = self.open.get(file)?.pending.as_ref()?;
        Some(pending.pipe.as_raw_fd())
    }

    /// The reports that are complete. Never blocks. A file that could not be opened is already closed.
    pub fn reports(&mut self) -> Vec<(LogFile, Result<(), Error>)> {
        let mut reports = Vec::new();
        for (file, open) in &mut self.open {
            let Some(result) = open.pending.as_mut().and_then(Report::read) else {
                continue;
            };
            let pending = open.pending.take();
            if pending.is_some_and(|pending| pending.reopen) {
                open.reopen();
            }
            let result = result.map_err(|reason| Error::new(file, reason));
            reports.push((file.clone(), result));
        }
        for (file, _) in reports.iter().filter(|(_, result)| result.is_err()) {
            self.close(std::slice::from_ref(file));
        }
        reports
    }

    /// Closes these files.
    pub fn close(&mut self, files: &[LogFile]) {
        for file in files {
            let writer = self.open.remove(file).and_then(|open| open.writer);
            self.leaving.extend(writer);
        }
    }

    /// Closes all other files. Those of processes belong to those of their apps.
    pub fn keep(&mut self, wanted: &BTreeSet<LogFile>) {
        let surplus = self.open.keys();
        let surplus = surplus.filter(|file| !wanted.contains(&file.of_app()));
        let surplus: Vec<_> = surplus.cloned().collect();
        self.close(&surplus);
    }

    /// The pipe of a file, for a worker.
    pub fn input(&self, file: &LogFile) -> Option<BorrowedFd<'_>> {
        self.open.get(file).map(|open| open.input.as_fd())
    }

    /// Reopens all files by their names, and returns their number. What a worker has left may still write to its own.
    pub fn reopen(&mut self) -> usize {
        for &writer in &self.leaving {
            reopen(writer);
        }
        for open in self.open.values_mut() {
            match &mut open.pending {
                Some(pending) => pending.reopen = true,
                None => open.reopen(),
            }
        }
        self.open.len()
    }

    /// Whether a process that has ended was a writer; and its file if a new writer is needed.
    pub fn ended(&mut self, pid: Pid) -> Option<Option<LogFile>> {
        if self.leaving.remove(&pid) {
            return Some(None);
        }
        let mut open = self.open.iter_mut();
        let (file, open) = open.find(|(_, open)| open.writer == Some(pid))?;
        open.writer = None;
        // The result of a pending file is its report.
        Some(open.pending.is_none().then(|| file.clone()))
    }

    /// The processes that are writers.
    pub fn writers(&self) -> BTreeSet<Pid> {
        let open = self.open.values().filter_map(|open| open.writer);
        open.chain(self.leaving.iter().copied()).collect()
    }

    /// When the next writer is to be replaced.
    pub fn deadline(&self) -> Option<Instant> {
        let without = self.open.values().filter(|open| open.needs_writer());
        without.map(|open| open.started + MIN_INTERVAL).min()
    }

    /// Replaces dead writers. Returns those that cannot be started.
    pub fn replace(&mut self, now: Instant) -> Vec<(LogFile, io::Error)> {
        let due = |open: &Open| open.needs_writer() && open.started + MIN_INTERVAL <= now;
        let mut failed = Vec::new();
        for (file, open) in self.open.iter_mut().filter(|(_, open)| due(open)) {
            open.started = now;
            match write_from(&open.output, None, file) {
                Ok(pid) => open.writer = Some(pid),
                Err(error) => failed.push((file.clone(), error)),
            }
        }
        failed
    }

    /// Whether no writer is running.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty() && self.open.values().all(|open| open.writer.is_none())
    }
}

impl Open {
    fn reopen(&self) {
        if let Some(writer) = self.writer {
            reopen(writer);
        }
    }

    /// Whether the file is open and its writer is dead. For a pending file the report decides.
    fn needs_writer(&self) -> bool {
        self.writer.is_none() && self.pending.is_none()
    }
}

/// Tells a writer to open its file again.
fn reopen(writer: Pid) {
    // A dead writer's replacement opens the file again anyway.
    let _ = kill(writer, Signal::SIGUSR1);
}

impl Report {
    /// Reads more of the report. Returns it when it is complete.
    fn read(&mut self) -> Option<Result<(), String>> {
        let mut bytes = [0; 512];
        loop {
            match nix::unistd::read(&self.pipe, &mut bytes) {
                Ok(n @ 1..) => self.text.extend_from_slice(&bytes[..n]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Ok(0) | Err(_) => break,
            }
            if self.text.ends_with(b"\n") || self.text.len() >= MAX_REPORT {
                break;
            }
        }
        let text = String::from_utf8_lossy(&self.text);
        let text: String = text
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        Some(match text.as_str() {
            OPENED => Ok(()),
            "" => Err(format!(
                "its writer ended before it had opened the file{}",
                how_it_ended(self.writer)
            )),
            _ => Err(text),
        })
    }
}

/// How a writer has ended, if it is known and the process was not reaped yet. Does not reap it.
fn how_it_ended(writer: Pid) -> String {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(writer), flags) {
        Ok(WaitStatus::Exited(_, status)) => format!(": exit status {status}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!(": killed by {signal}"),
        _ => String::new(),
    }
}

fn open(file: &LogFile, is_awaited: bool) -> io::Result<Open> {
    let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
    // A smaller pipe also works: the user may have reached its limit (pipe(7)).
    let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    // The writer's end, which it reads until it is empty.
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if file.lossy {
        fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let (writer, pending) = if is_awaited {
        let (pipe, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let writer = write_from(&output, Some(&theirs), file)?;
        let report = Report {
            pipe,
            writer,
            text: Vec::new(),
            reopen: false,
        };
        (writer, Some(report))
    } else {
        (write_from(&output, None, file)?, None)
    };
    Ok(Open {
        input,
        output,
        writer: Some(writer),
        started: Instant::now(),
        pending,
    })
}

/// Starts a writer: this program, with the pipe as descriptor 3, and the report pipe, if any, as 4.
fn write_from(output: &OwnedFd, report: Option<&OwnedFd>, file: &LogFile) -> io::Result<Pid> {
    let mut arguments: Vec<OsString> = vec!["write-log".into()];
    let mut fds = vec![output.as_fd()];
    if let Some(report) = report {
        arguments.push("--report".into());
        fds.push(report.as_fd());
    }
    arguments.extend(file.upkeep.arguments().map(OsString::from));
    if let Some(prefix) = &file.prefix {
        arguments.push(format!("--prefix={prefix}").into());
    }
    arguments.extend(["--".into(), file.target.argument()]);
    launch::own(arguments, None, fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read after each of these pieces, and then at the end of the pipe.
    fn read_all(pieces: &[&str]) -> Vec<Option<Result<(), String>>> {
        let (pipe, theirs) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let mut report = Report {
            pipe,
            writer: Pid::this(),
            text: Vec::new(),
            reopen: false,
        };
        let mut reports = vec![report.read()];
        for piece in pieces {
            nix::unistd::write(&theirs, piece.as_bytes()).expect("room");
            reports.push(report.read());
        }
        drop(theirs);
        reports.push(report.read());
        reports
    }

    #[test]
    fn a_report_is_one_line_or_an_early_end() {
        assert_eq!(read_all(&["open", "ed\n"])[..3], [None, None, Some(Ok(()))]);
        let reason = Some(Err("no\u{fffd} room".to_owned()));
        assert_eq!(read_all(&["no\u{fffd}\x1b room\n"])[1], reason);
        let early = read_all(&[]);
        assert_eq!(early[0], None);
        assert!(matches!(&early[1], Some(Err(reason)) if reason.contains("ended before")));
    }

    #[test]
    fn an_early_end_names_its_cause() {
        for (script, cause) in [
            ("exit 3", "before it had opened the file: exit status 3"),
            (
                "kill -KILL $$",
                "before it had opened the file: killed by SIGKILL",
            ),
        ] {
            let mut child = std::process::Command::new("/bin/sh");
            let mut child = child.args(["-c", script]).spawn().expect("a shell");
            let writer = Pid::from_raw(child.id() as i32);
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(writer), flags).expect("our child");
            let (pipe, theirs) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
            drop(theirs);
            let mut report = Report {
                pipe,
                writer,
                text: Vec::new(),
                reopen: false,
            };
            let reason = report.read().expect("it has ended").expect_err("no report");
            assert!(reason.ends_with(cause), "{reason}");
            child.wait().expect("it is still to be reaped");
        }
    }
}
