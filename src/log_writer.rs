//! The writer of a log file: copies a pipe to the file until no process holds the write end of the pipe.
//!
//! It is this program, started by the master as `preforkd write-log FILE` with the pipe as descriptor 3. Only this process
//! waits for the disk, also to open the file. When the disk is full, lines are lost and counted, and no other process waits.
//! USR1 reopens the file. If that fails, the open file is kept, and the attempt is repeated until it succeeds.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use preforkd_worker::title::{self, Room};

use crate::effects::signals::Signals;
use crate::sys;

mod opening;

use opening::Opening;

/// The descriptor of the pipe.
const PIPE: i32 = 3;
/// The descriptor for the report whether the file could be opened.
const REPORT: i32 = 4;
/// The report of success; any other report is the reason of a failure.
pub const OPENED: &str = "opened";

/// Signals that end a process by default and are meant for the master. A writer ends when its pipe does.
const IGNORED: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
];

/// How much is read before it is written. If the writer is killed in between, this much is lost. A larger one is hardly faster.
const BUFFER: usize = 16 * 1024;

/// The interval between attempts to open a file that could not be opened.
const RETRY: Duration = Duration::from_secs(1);

const INPUT: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Writes until the pipe ends. With `is_awaited` the master waits for the report, and the process ends if the file cannot be
/// opened.
///
/// # Errors
/// It was not started by a master, or no descriptor is available.
pub fn run(path: &Path, is_awaited: bool) -> io::Result<()> {
    let report = is_awaited.then(|| sys::adopt(REPORT)).transpose()?;
    let report = report.map(File::from);
    let (mut pipe, mut signals) = match prepare(path) {
        Ok(prepared) => prepared,
        Err(error) => {
            return match report {
                Some(report) => send(report, &format!("its writer cannot start: {error}")),
                None => Err(error),
            };
        }
    };
    let mut log = Log::new(path);
    let opened = log.reopen();
    if let Some(report) = report {
        if let Err(error) = opened {
            return send(report, &error.to_string());
        }
        send(report, OPENED)?;
    } else if let Err(error) = opened {
        log.keep_trying(&error);
    }
    let mut poll = Poll::new()?;
    let mut source = SourceFd(&PIPE);
    poll.registry()
        .register(&mut source, INPUT, Interest::READABLE)?;
    signals.register(poll.registry(), SIGNALS)?;
    let mut events = Events::with_capacity(2);
    let mut buffer = [0; BUFFER];
    loop {
        match poll.poll(&mut events, log.time_to_retry()) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        // Bytes to write before the file is reopened: output from before it was renamed belongs to it. That is at most the
        // capacity of the pipe, even if the pipe never becomes empty.
        let mut until_reopen = None;
        loop {
            let mut arrived = signals.arrived().into_iter();
            if arrived.any(|signal| signal.number == Signal::SIGUSR1 as i32) {
                until_reopen = Some(fcntl(&pipe, FcntlArg::F_GETPIPE_SZ)? as usize);
            }
            log.retry();
            let emptied = match pipe.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    log.write(&buffer[..n]);
                    until_reopen = until_reopen.map(|left: usize| left.saturating_sub(n));
                    false
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                Err(error) => return Err(error),
            };
            if until_reopen.is_some_and(|left| left == 0 || emptied) {
                if let Err(error) = log.reopen() {
                    log.keep_trying(&error);
                }
                until_reopen = None;
            }
            if emptied {
                break;
            }
        }
    }
}

/// The pipe, and the signals that this process catches. Also sets the title.
fn prepare(path: &Path) -> io::Result<(File, Signals)> {
    let pipe = File::from(sys::adopt(PIPE)?);
    let caught = IGNORED.iter().chain([&Signal::SIGUSR1]);
    let signals = Signals::catch(caught.map(|&signal| signal as i32))?;
    let room = match sys::move_environment() {
        Ok(()) => Room::Environment,
        Err(_) => Room::Arguments,
    };
    // It was executed as /proc/self/exe, so its name would be `exe`.
    nix::sys::prctl::set_name(c"preforkd")?;
    // The title is not essential.
    let _ = title::set(&format!("preforkd: log {}", path.display()), room);
    Ok((pipe, signals))
}

/// Sends the report, as one line.
fn send(mut report: File, text: &str) -> io::Result<()> {
    let line: String = text
        .chars()
        .map(|c| if c == '\n' { ' ' } else { c })
        .collect();
    report.write_all(format!("{line}\n").as_bytes())
}

/// The log file.
struct Log {
    opening: Opening,
    file: Option<File>,
    /// Lines that could not be written.
    lost: u64,
    /// The file ends in an incomplete line.
    unfinished: bool,
    /// When to try again to open the file, if that has failed.
    retry_at: Option<Instant>,
}

impl Log {
    fn new(path: &Path) -> Self {
        Self {
            opening: Opening::new(path),
            file: None,
            lost: 0,
            unfinished: false,
            retry_at: None,
        }
    }

    /// Opens the file by its name. Keeps the open one if that fails.
    fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(self.opening.open()?);
        self.retry_at = None;
        Ok(())
    }

    /// Reports that the file could not be opened, and what becomes of the lines until it can be.
    fn keep_trying(&mut self, error: &io::Error) {
        let path = self.opening.path().display();
        print(&match self.file {
            Some(_) => {
                format!(
                    "cannot reopen the log file {path}: {error}; keeping the open file, retrying"
                )
            }
            None => format!(
                "cannot open the log file {path}: {error}; lines are lost until it can be opened, retrying"
            ),
        });
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// The time until [`Log::retry`] has something to do.
    fn time_to_retry(&self) -> Option<Duration> {
        let at = self.retry_at?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Tries again to open the file when it is time. Reports success only.
    fn retry(&mut self) {
        if self.time_to_retry() != Some(Duration::ZERO) {
            return;
        }
        if self.reopen().is_ok() {
            let path = self.opening.path().display();
            print(&format!("the log file {path} is open again"));
        } else {
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Err(error) = self.try_write(&mut rest) {
            // That the file is not open was reported.
            if self.lost == 0 && self.file.is_some() {
                let path = self.opening.path().display();
                print(&format!(
                    "cannot write the log file {path}: {error}; lines are lost until it can be written"
                ));
            }
            self.lost += rest.iter().filter(|&&b| b == b'\n').count().max(1) as u64;
        }
    }

    /// Writes `rest`, and removes from it what was written.
    fn try_write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(ErrorKind::NotFound.into());
        };
        if self.lost > 0 {
            let end = if self.unfinished { "\n" } else { "" };
            writeln!(
                file,
                "{end}preforkd: {} log lines were lost: the file could not be written",
                self.lost
            )?;
            self.lost = 0;
        }
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.unfinished = rest[n - 1] != b'\n';
                    *rest = &rest[n..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes a line to standard error, which is the master's.
fn print(message: &str) {
    let line = format!("preforkd: {message}\n");
    preforkd_worker::stderr::write_line(line.as_bytes(), |_| String::new());
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::fcntl::OFlag;

    use super::*;

    fn open(path: &Path) -> Log {
        let mut log = Log::new(path);
        log.reopen().expect("it can be written");
        log
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = open(&path);
        log.write(b"one\n");
        log.file = Some(
            File::options()
                .write(true)
                .open("/dev/full")
                .expect("it is there"),
        );
        log.write(b"two\nthree\n");
        log.write(b"four");
        log.reopen().expect("it can be written");
        log.write(b"five\n");
        let text = std::fs::read_to_string(&path).expect("a log");
        assert_eq!(
            text,
            "one\npreforkd: 3 log lines were lost: the file could not be written\nfive\n"
        );
    }

    #[test]
    fn lines_that_were_written_are_not_counted() {
        let (file, theirs) = io::pipe().expect("a pipe");
        let room = fcntl(&theirs, FcntlArg::F_GETPIPE_SZ).expect("a pipe") as usize;
        fcntl(&theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
        let mut log = Log::new(Path::new("/dev/null"));
        log.file = Some(File::from(OwnedFd::from(theirs)));
        let line = [&[b'x'; 63][..], b"\n"].concat();
        log.write(&line.repeat(room / line.len() + 3));
        assert_eq!((log.lost, log.unfinished), (3, false));
        drop(file);
    }

    #[test]
    fn a_file_that_cannot_be_reopened_is_kept_until_it_can_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut log = open(&path);
        std::fs::rename(&path, &moved).expect("a move");
        std::fs::create_dir(&path).expect("room");
        let error = log.reopen().expect_err("a folder is there");
        log.keep_trying(&error);
        log.write(b"one\n");
        let wait = log.time_to_retry().expect("it will retry");
        assert!(wait <= RETRY);
        log.retry_at = Some(Instant::now());
        log.retry();
        assert!(log.retry_at.is_some(), "the folder is still there");
        log.write(b"two\n");
        std::fs::remove_dir(&path).expect("empty");
        log.retry();
        assert!(!path.exists(), "not before it is time");
        log.retry_at = Some(Instant::now());
        log.retry();
        assert_eq!(log.time_to_retry(), None);
        log.write(b"three\n");
        let read = |path| std::fs::read_to_string(path).expect("a log");
        assert_eq!(
            (read(&moved), read(&path)),
            ("one\ntwo\n".into(), "three\n".into())
        );
        assert_eq!(log.lost, 0);
    }

    #[test]
    fn a_renamed_file_is_replaced_by_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut log = open(&path);
        log.write(b"one\n");
        std::fs::rename(&path, &moved).expect("a move");
        log.write(b"two\n");
        log.reopen().expect("it can be written");
        log.write(b"three\n");
        let read = |path| std::fs::read_to_string(path).expect("a log");
        assert_eq!(
            (read(&moved), read(&path)),
            ("one\ntwo\n".into(), "three\n".into())
        );
    }
}
