//! Log files: each has a process that writes it ([`crate::log_writer`]) and a pipe that leads there.
//!
//! The writer also opens the file, as the master waits for no disk, and tells over a second pipe whether it could. Until then
//! the file is pending: workers may write to it already.
//!
//! The workers hold the pipe as their standard output or error, so any program can log to a file that is
//! reopened, and only the writer ever waits for the disk. The master holds both ends: a writer that dies is
//! replaced and nothing is lost. A writer ends when nobody holds the end for writing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::launch;
use crate::log_writer::OPENED;
use crate::plan::LogFile;

/// What a pipe holds while its writer is slow, in bytes: as much as anybody may ask for (pipe(7)).
const ROOM: i32 = 1 << 20;

/// A writer that dies is replaced at once, but not more often than this.
const PACE: Duration = Duration::from_secs(1);

/// A report is not longer.
const LONGEST_REPORT: usize = 4096;

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
        let path = file.path.display();
        Self(format!("cannot write the log file {path}: {reason}"))
    }
}

/// What a writer has said so far about opening its file.
struct Report {
    pipe: OwnedFd,
    text: Vec<u8>,
    /// The file is to be opened anew as soon as it is open: until then the writer may not know the signal yet.
    reopen: bool,
}

struct Open {
    /// For the workers.
    input: OwnedFd,
    /// For the writer.
    output: OwnedFd,
    writer: Option<Pid>,
    started: Instant,
    /// The writer has not said yet whether it could open the file.
    pending: Option<Report>,
}

/// All log files of the master.
#[derive(Default)]
pub struct LogFiles {
    open: BTreeMap<LogFile, Open>,
    /// Writers of files that are no longer wanted; they end when their last worker has.
    leaving: BTreeSet<Pid>,
}

impl LogFiles {
    /// Starts the writers of what is wanted and not open yet; says which those are. They are pending until
    /// [`LogFiles::reports`] says what became of them.
    ///
    /// # Errors
    /// One cannot be started; then none is opened.
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
                    return Err(Error::new(file, error));
                }
            }
        }
        Ok(opened)
    }

    /// Whether the writer of a file has not said yet that it could open it.
    pub fn pending(&self, file: &LogFile) -> bool {
        self.report_fd(file).is_some()
    }

    /// For the poll: readable when there is something for [`LogFiles::reports`]. Only of a pending file.
    pub fn report_fd(&self, file: &LogFile) -> Option<RawFd> {
        let pending = self.open.get(file)?.pending.as_ref()?;
        Some(pending.pipe.as_raw_fd())
    }

    /// What became of pending files since; never blocks. One that could not be opened is closed already.
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
    pub fn reopen(&mut self) -> usize {
        for open in self.open.values_mut() {
            match &mut open.pending {
                Some(pending) => pending.reopen = true,
                None => open.reopen(),
            }
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
        // Of a pending file it is its report that tells.
        Some(open.pending.is_none().then(|| file.clone()))
    }

    /// When a writer is to be replaced.
    pub fn deadline(&self) -> Option<Instant> {
        let without = self.open.values().filter(|open| open.needs_writer());
        without.map(|open| open.started + PACE).min()
    }

    /// Replaces the writers that have died; says which could not be.
    pub fn replace(&mut self, now: Instant) -> Vec<(LogFile, io::Error)> {
        let due = |open: &Open| open.needs_writer() && open.started + PACE <= now;
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

    /// Whether no writer runs any more.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty() && self.open.values().all(|open| open.writer.is_none())
    }
}

impl Open {
    fn reopen(&self) {
        if let Some(writer) = self.writer {
            // A writer that is gone opens the file anew when it is replaced.
            let _ = kill(writer, Signal::SIGUSR1);
        }
    }

    /// It is open, and its writer has died. A pending one that dies is told by its report.
    fn needs_writer(&self) -> bool {
        self.writer.is_none() && self.pending.is_none()
    }
}

impl Report {
    /// Reads on; what was said when that is complete.
    fn read(&mut self) -> Option<Result<(), String>> {
        let mut bytes = [0; 512];
        loop {
            match nix::unistd::read(&self.pipe, &mut bytes) {
                Ok(n @ 1..) => self.text.extend_from_slice(&bytes[..n]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Ok(0) | Err(_) => break,
            }
            if self.text.ends_with(b"\n") || self.text.len() >= LONGEST_REPORT {
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
            "" => Err("its writer has ended before the file was open".to_owned()),
            _ => Err(text),
        })
    }
}

fn open(file: &LogFile) -> io::Result<Open> {
    let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
    // A smaller pipe does it too: the user may have used up what may be had (pipe(7)).
    let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(ROOM));
    // The writer's end, which it reads until there is nothing more.
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    if file.lossy {
        fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let (report, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let writer = Some(write_from(&output, Some(&theirs), file)?);
    Ok(Open {
        input,
        output,
        writer,
        started: Instant::now(),
        pending: Some(Report {
            pipe: report,
            text: Vec::new(),
            reopen: false,
        }),
    })
}

/// Starts a writer: this program itself, with the pipe as descriptor 3, and 4 for its report if that is awaited.
fn write_from(output: &OwnedFd, report: Option<&OwnedFd>, file: &LogFile) -> io::Result<Pid> {
    let mut arguments = vec!["write-log".into()];
    let mut fds = vec![output.as_fd()];
    if let Some(report) = report {
        arguments.push("--report".into());
        fds.push(report.as_fd());
    }
    arguments.extend(["--".into(), file.path.clone().into_os_string()]);
    launch::own(arguments, None, fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard after each of these pieces, and at last at the end.
    fn heard(pieces: &[&str]) -> Vec<Option<Result<(), String>>> {
        let (pipe, theirs) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let mut report = Report {
            pipe,
            text: Vec::new(),
            reopen: false,
        };
        let mut heard = vec![report.read()];
        for piece in pieces {
            nix::unistd::write(&theirs, piece.as_bytes()).expect("room");
            heard.push(report.read());
        }
        drop(theirs);
        heard.push(report.read());
        heard
    }

    #[test]
    fn a_report_is_one_line_or_an_early_end() {
        assert_eq!(heard(&["open", "ed\n"])[..3], [None, None, Some(Ok(()))]);
        let reason = Some(Err("no\u{fffd} room".to_owned()));
        assert_eq!(heard(&["no\u{fffd}\x1b room\n"])[1], reason);
        let early = heard(&[]);
        assert_eq!(early[0], None);
        assert!(matches!(&early[1], Some(Err(reason)) if reason.contains("has ended")));
    }
}
