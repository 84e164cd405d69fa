//! Log files: each has a process that writes it ([`crate::log_writer`]) and a pipe that leads there.
//!
//! The workers hold the pipe as their standard output or error, so any program can log to a file that is
//! reopened, and only the writer ever waits for the disk. The master holds both ends: a writer that dies is
//! replaced and nothing is lost. A writer ends when nobody holds the end for writing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::launch;
use crate::plan::LogFile;

/// What a pipe holds while its writer is slow, in bytes: as much as anybody may ask for (pipe(7)).
const ROOM: i32 = 1 << 20;

/// A writer that dies is replaced at once, but not more often than this.
const PACE: Duration = Duration::from_secs(1);

/// Why a log file cannot be written.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

struct Open {
    /// For the workers.
    input: OwnedFd,
    /// For the writer.
    output: OwnedFd,
    writer: Option<Pid>,
    started: Instant,
}

/// All log files of the master.
#[derive(Default)]
pub struct LogFiles {
    open: BTreeMap<LogFile, Open>,
    /// Writers of files that are no longer wanted; they end when their last worker has.
    leaving: BTreeSet<Pid>,
}

impl LogFiles {
    /// Opens what is wanted and not open yet; says which those are.
    ///
    /// # Errors
    /// One cannot be written; then none is opened.
    pub fn open(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, Error> {
        let mut opened = Vec::new();
        for file in wanted {
            if self.open.contains_key(file) {
                continue;
            }
            match open(file) {
                Ok(open) => {
                    self.open.insert(file.clone(), open);
                    opened.push(file.clone());
                }
                Err(error) => {
                    self.close(&opened);
                    let path = file.path.display();
                    return Err(Error(format!("cannot write the log file {path}: {error}")));
                }
            }
        }
        Ok(opened)
    }

    /// Lets go of some.
    pub fn close(&mut self, files: &[LogFile]) {
        for file in files {
            let writer = self.open.remove(file).and_then(|open| open.writer);
            self.leaving.extend(writer);
        }
    }

    /// Lets go of all that are not wanted.
    pub fn keep(&mut self, wanted: &BTreeSet<LogFile>) {
        let surplus = self.open.keys().filter(|file| !wanted.contains(file));
        let surplus: Vec<_> = surplus.cloned().collect();
        self.close(&surplus);
    }

    /// Lets go of all: their writers end when they have written what was said.
    pub fn close_all(&mut self) {
        self.keep(&BTreeSet::new());
    }

    /// The pipe to a file, for a worker.
    pub fn input(&self, file: &LogFile) -> Option<BorrowedFd<'_>> {
        self.open.get(file).map(|open| open.input.as_fd())
    }

    /// Has all files opened anew by their names; says how many those are.
    pub fn reopen(&self) -> usize {
        for writer in self.open.values().filter_map(|open| open.writer) {
            // A writer that is gone opens the file anew when it is replaced.
            let _ = kill(writer, Signal::SIGUSR1);
        }
        self.open.len()
    }

    /// Whether a process that has ended was a writer; the file of one that is needed still.
    pub fn ended(&mut self, pid: Pid) -> Option<Option<LogFile>> {
        if self.leaving.remove(&pid) {
            return Some(None);
        }
        let mut open = self.open.iter_mut();
        let (file, open) = open.find(|(_, open)| open.writer == Some(pid))?;
        open.writer = None;
        Some(Some(file.clone()))
    }

    /// When a writer is to be replaced.
    pub fn deadline(&self) -> Option<Instant> {
        let without = self.open.values().filter(|open| open.writer.is_none());
        without.map(|open| open.started + PACE).min()
    }

    /// Replaces the writers that have died; says which could not be.
    pub fn replace(&mut self, now: Instant) -> Vec<(LogFile, io::Error)> {
        let due = |open: &Open| open.writer.is_none() && open.started + PACE <= now;
        let mut failed = Vec::new();
        for (file, open) in self.open.iter_mut().filter(|(_, open)| due(open)) {
            open.started = now;
            match write_from(&open.output, file) {
                Ok(pid) => open.writer = Some(pid),
                Err(error) => failed.push((file.clone(), error)),
            }
        }
        failed
    }

    /// Whether no writer runs any more.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty() && self.open.values().all(|open| open.writer.is_none())
    }
}

fn open(file: &LogFile) -> io::Result<Open> {
    // The writer opens it itself; this tells now whether it can, without waiting for the reader of a fifo.
    let mut how = OpenOptions::new();
    how.append(true)
        .create(true)
        .custom_flags(OFlag::O_NONBLOCK.bits());
    how.open(&file.path)?;
    let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
    // A smaller pipe does it too: the user may have used up what may be had (pipe(7)).
    let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(ROOM));
    // The writer's end, which it reads until there is nothing more.
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if file.lossy {
        fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let writer = Some(write_from(&output, file)?);
    let started = Instant::now();
    Ok(Open {
        input,
        output,
        writer,
        started,
    })
}

/// Starts a writer: this program itself, with the pipe as descriptor 3.
fn write_from(output: &OwnedFd, file: &LogFile) -> io::Result<Pid> {
    let arguments = ["write-log".into(), file.path.clone().into_os_string()];
    launch::own(arguments, None, output.as_fd())
}
