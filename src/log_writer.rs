//! The writer of a log: copies a pipe to a file, to standard output or to syslog until no process holds the write end of the pipe.
//!
//! It is this program, started by the master as `preforkd write-log TARGET` with the pipe as descriptor 3. Only this process
//! waits for the disk, also to open the file. When the disk is full, lines are lost and counted, and no other process waits.
//! USR1 reopens the file. If that fails, the open file is kept, and the attempt is repeated until it succeeds.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use preforkd_worker::title::{self, Room};

use crate::effects::signals::Signals;
use crate::plan::Upkeep;
use crate::plan::log_target::LogTarget;
use crate::sys;

mod lines;
mod opening;
mod syslog;

use lines::Lines;
use opening::{Opening, Output, Rotated};

/// The descriptor of the pipe.
const PIPE: i32 = 3;
/// The descriptor for the report whether the file could be opened.
const REPORT: i32 = 4;
/// The report of success; any other report is the reason of a failure.
pub const OPENED: &str = "opened";

/// Signals that end or stop a process by default and are meant for the master. A writer ends when its pipe does.
const IGNORED: [Signal; 7] = [
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
];

/// How much a pipe takes in one piece: pipe(7).
const PIPE_BUF: usize = 4096;

/// The interval between attempts to open a file that could not be opened.
const RETRY: Duration = Duration::from_secs(1);

/// How long the beginning of a line with a prefix waits for its end: a prompt has none.
const UNFINISHED: Duration = Duration::from_secs(1);

const INPUT: Token = Token(0);
const SIGNALS: Token = Token(1);

/// Writes until the pipe ends. With `is_awaited` the master waits for the report, and the process ends if the file cannot be
/// opened.
///
/// # Errors
/// It was not started by a master, or no descriptor is available.
pub fn run(
    target: &OsStr,
    upkeep: &Upkeep,
    prefix: Option<&str>,
    is_awaited: bool,
) -> io::Result<()> {
    let report = is_awaited.then(|| sys::adopt(REPORT)).transpose()?;
    let report = report.map(File::from);
    let (mut pipe, mut signals) = match prepare(target, prefix) {
        Ok(prepared) => prepared,
        Err(error) => {
            return match report {
                Some(report) => send(report, &format!("its writer cannot start: {error}")),
                None => Err(error),
            };
        }
    };
    let target = LogTarget::parse(target).map_err(io::Error::other)?;
    let mut log = Log::new(target, upkeep.clone());
    if !log.begin(report)? {
        return Ok(());
    }
    let mut poll = Poll::new()?;
    let mut source = SourceFd(&PIPE);
    poll.registry()
        .register(&mut source, INPUT, Interest::READABLE)?;
    signals.register(poll.registry(), SIGNALS)?;
    let mut events = Events::with_capacity(2);
    let mut lines = Lines::new(prefix);
    // When the beginning of a line is written without its end.
    let mut write_at: Option<Instant> = None;
    loop {
        let due = write_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = log.time_to_retry().into_iter().chain(due).min();
        match poll.poll(&mut events, timeout) {
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
            let emptied = match lines.read(&mut pipe) {
                Ok(0) => {
                    log.write(lines.last());
                    log.finish();
                    return Ok(());
                }
                Ok(n) => {
                    let arrived = lines.arrived();
                    if !arrived.is_empty() {
                        write_at = None;
                    }
                    log.write(arrived);
                    until_reopen = until_reopen.map(|left: usize| left.saturating_sub(n));
                    false
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    log.write(lines.waiting());
                    if write_at.is_some_and(|at| at <= Instant::now()) {
                        log.write(lines.last());
                    }
                    true
                }
                Err(error) => return Err(error),
            };
            if until_reopen.is_some_and(|left| left == 0 || emptied) {
                if let Err(error) = log.reopen() {
                    log.keep_trying(&error);
                }
                until_reopen = None;
            }
            if emptied {
                write_at = match lines.has_unfinished() {
                    true => write_at.or_else(|| Some(Instant::now() + UNFINISHED)),
                    false => None,
                };
                break;
            }
        }
    }
}

/// The pipe, and the signals that this process catches. Also sets the title.
fn prepare(target: &OsStr, prefix: Option<&str>) -> io::Result<(File, Signals)> {
    let pipe = File::from(sys::adopt(PIPE)?);
    let caught = IGNORED.iter().chain([&Signal::SIGUSR1]);
    let signals = Signals::catch(caught.map(|&signal| signal as i32))?;
    let room = match sys::move_environment() {
        Ok(()) => Room::Environment,
        Err(_) => Room::Arguments,
    };
    // It was executed as /proc/self/exe, so its name would be `exe`.
    nix::sys::prctl::set_name(c"preforkd")?;
    let whose = prefix.map(|prefix| format!(" {}", prefix.trim_end_matches(": ")));
    let shown = format!(
        "preforkd: log {}{}",
        target.display(),
        whose.unwrap_or_default()
    );
    // The title is not essential.
    let _ = title::set(&shown, room);
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

/// The log.
struct Log {
    opening: Opening,
    output: Option<Output>,
    /// Lines that could not be written.
    lost: u64,
    /// The file ends in an incomplete line.
    unfinished: bool,
    /// When to try again to open the file, if that has failed.
    retry_at: Option<Instant>,
    /// When to try again to rotate the file, if that has failed.
    rotate_at: Option<Instant>,
    /// Of further lines that are lost, nothing is said before.
    tell_at: Option<Instant>,
    /// It is written in pieces that are not mixed with those of other processes.
    in_pieces: bool,
}

impl Log {
    fn new(target: LogTarget, upkeep: Upkeep) -> Self {
        Self {
            opening: Opening::new(target, upkeep),
            output: None,
            lost: 0,
            unfinished: false,
            retry_at: None,
            rotate_at: None,
            tell_at: None,
            in_pieces: false,
        }
    }

    /// Opens the file for the first time, and sends the report. A syslog server may come later, and then nothing waits for it, nor
    /// for a name service. Whether to go on.
    ///
    /// # Errors
    /// Nobody reads the report.
    fn begin(&mut self, mut report: Option<File>) -> io::Result<bool> {
        let is_remote = self.opening.target().is_remote();
        if let Some(report) = report.take_if(|_| is_remote) {
            send(report, OPENED)?;
        }
        let opened = self.reopen();
        let Some(report) = report else {
            if let Err(error) = opened {
                self.keep_trying(&error);
            }
            return Ok(true);
        };
        if let Err(error) = opened {
            let target = self.opening.target();
            if !target.may_come(&error) {
                let hint = target.hint(&error);
                send(report, &format!("{error}{hint}"))?;
                return Ok(false);
            }
            self.keep_trying(&error);
        }
        send(report, OPENED)?;
        Ok(true)
    }

    /// Opens the file by its name. Keeps the open one if that fails.
    fn reopen(&mut self) -> io::Result<()> {
        let mut output = self.opening.open()?;
        if let (Output::Syslog(new), Some(Output::Syslog(old))) = (&mut output, &mut self.output) {
            new.take_over(old);
        }
        self.in_pieces = match &output {
            Output::File(file) => size(file).is_none(),
            Output::Syslog(_) => false,
        };
        self.output = Some(output);
        self.retry_at = None;
        Ok(())
    }

    /// Reports that the file could not be opened, and what becomes of the lines until it can be.
    fn keep_trying(&mut self, error: &io::Error) {
        let target = self.opening.target();
        print(&match self.output {
            Some(_) => {
                format!("cannot reopen {target}: {error}; keeping the open file, retrying")
            }
            None => {
                let hint = target.hint(error);
                format!(
                    "cannot open {target}: {error}{hint}; lines are lost until it can be opened, retrying"
                )
            }
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
        let again = if self.output.is_some() { " again" } else { "" };
        if self.reopen().is_ok() {
            print(&format!("{} is open{again}", self.opening.target()));
        } else {
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.rotate(piece(bytes, 0).len() as u64);
            let (next, later) = bytes.split_at(piece(bytes, self.room()).len());
            self.write_piece(next);
            bytes = later;
        }
    }

    /// How much more the file takes before it is full. A file that cannot be rotated takes everything.
    fn room(&self) -> usize {
        match (&self.output, self.opening.limit(), self.rotate_at) {
            (Some(Output::File(file)), Some(limit), None) => size(file)
                .map_or(usize::MAX, |size| {
                    usize::try_from(limit.saturating_sub(size)).unwrap_or(usize::MAX)
                }),
            _ => usize::MAX,
        }
    }

    fn write_piece(&mut self, mut rest: &[u8]) {
        let mut written = self.try_write(&mut rest);
        // A syslog server that was restarted has a new socket.
        if written.is_err() && matches!(self.output, Some(Output::Syslog(_))) {
            written = match self.reopen() {
                Ok(()) => self.try_write(&mut rest),
                Err(_) => written,
            };
        }
        if let Err(error) = written {
            // That the file is not open was reported.
            if self.lost == 0 && self.output.is_some() {
                print(&format!(
                    "cannot write {}: {error}; lines are lost until it can be written",
                    self.opening.target()
                ));
            }
            self.lost += rest.iter().filter(|&&b| b == b'\n').count().max(1) as u64;
        }
    }

    /// Continues in a new file if there is no room for so many more bytes in this one. No line is split, and none is lost: if
    /// the file cannot be renamed, it grows.
    fn rotate(&mut self, more: u64) {
        let (Some(Output::File(file)), Some(limit)) = (&self.output, self.opening.limit()) else {
            return;
        };
        let Some(size) = size(file) else { return };
        let is_full = size > 0 && size.saturating_add(more) > limit;
        // The end of a line may never come.
        let may_split = size / 2 >= limit;
        if !is_full
            || self.unfinished && !may_split
            || self.rotate_at.is_some_and(|at| at > Instant::now())
        {
            return;
        }
        match self.opening.rotate(file) {
            Ok(Rotated::ByAnother) => {}
            Ok(Rotated::Done) => {
                self.rotate_at = None;
                self.unfinished = false;
                if let Err(error) = self.reopen() {
                    self.keep_trying(&error);
                }
            }
            Err(error) => {
                // One report for each time that it begins to fail.
                if self.rotate_at.is_none() {
                    let target = self.opening.target();
                    print(&format!(
                        "cannot rotate {target}: {error}; the file grows, retrying"
                    ));
                }
                self.rotate_at = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Writes what was kept for the end of its line, and says what was lost.
    fn finish(&mut self) {
        if let Some(Output::Syslog(sender)) = &mut self.output {
            // There is nobody left who could read about a failure.
            let _ = sender.finish();
        }
        self.tell_lost();
    }

    /// Writes `rest`, and removes from it what was written.
    fn try_write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let Some(output) = &mut self.output else {
            return Err(ErrorKind::NotFound.into());
        };
        match output {
            Output::File(file) => {
                if self.lost > 0 && self.unfinished {
                    write_to(file, &mut &b"\n"[..], &mut self.unfinished, false)?;
                }
                write_to(file, rest, &mut self.unfinished, self.in_pieces)?;
            }
            Output::Syslog(sender) => sender.write(rest)?,
        }
        if self.lost > 0 && self.tell_at.is_none_or(|at| at <= Instant::now()) {
            self.tell_lost();
        }
        Ok(())
    }

    /// Says how many lines were lost, now that there is room again. Not in the log itself: its readers expect lines of its own form,
    /// such as JSON.
    fn tell_lost(&mut self) {
        if let Some(told) = self.take_lost() {
            print(&told);
            self.tell_at = Some(Instant::now() + RETRY);
        }
    }

    fn take_lost(&mut self) -> Option<String> {
        let target = self.opening.target();
        match std::mem::take(&mut self.lost) {
            0 => None,
            1 => Some(format!("1 line of {target} was lost")),
            lost => Some(format!("{lost} lines of {target} were lost")),
        }
    }
}

/// Writes `rest`, and removes from it what was written. `unfinished`: whether the file ends in an incomplete line then.
fn write_to(
    file: &mut File,
    rest: &mut &[u8],
    unfinished: &mut bool,
    in_pieces: bool,
) -> io::Result<()> {
    while !rest.is_empty() {
        let next: &[u8] = match in_pieces {
            true => piece(rest, PIPE_BUF),
            false => rest,
        };
        match file.write(next) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => {
                *unfinished = rest[n - 1] != b'\n';
                *rest = &rest[n..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for_room(file)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until a stream takes more that another process has made non-blocking: a socket as standard output is shared with it.
fn wait_for_room(file: &File) -> io::Result<()> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// As many whole lines as have at most so many bytes together. A longer line is a piece of its own.
fn piece(bytes: &[u8], most: usize) -> &[u8] {
    if bytes.len() <= most {
        return bytes;
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let last = bytes[..most].iter().rposition(is_end);
    let end = last.or_else(|| bytes.iter().position(is_end));
    end.map_or(bytes, |end| &bytes[..=end])
}

/// The size of a regular file.
fn size(file: &File) -> Option<u64> {
    let found = file.metadata().ok()?;
    found.is_file().then_some(found.len())
}

/// Writes a line to standard error, which is the master's.
fn print(message: &str) {
    let line = format!("preforkd: {message}\n");
    preforkd_worker::stderr::write_line(line.as_bytes(), |_| String::new());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::fcntl::SealFlag;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn open(path: &Path) -> Log {
        let mut log = Log::new(LogTarget::File(path.into()), Upkeep::default());
        log.reopen().expect("it can be written");
        log
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = open(&path);
        log.write(b"one\n");
        let full = File::options().write(true).open("/dev/full");
        log.output = Some(Output::File(full.expect("it is there")));
        log.write(b"two\nthree\n");
        log.write(b"four");
        assert_eq!(log.lost, 3);
        log.reopen().expect("it can be written");
        log.write(b"five\n");
        let text = std::fs::read_to_string(&path).expect("a log");
        assert_eq!((text.as_str(), log.lost), ("one\nfive\n", 0));
        for (lost, told) in [(1, "1 line of"), (2, "2 lines of")] {
            log.lost = lost;
            let was = if lost == 1 { "was" } else { "were" };
            let expected = format!("{told} the log file {} {was} lost", path.display());
            assert_eq!(log.take_lost(), Some(expected));
        }
        assert_eq!(log.take_lost(), None);
    }

    #[test]
    fn a_line_of_which_only_the_beginning_was_written_ends_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = open(&path);
        log.write(b"on");
        log.lost = 1;
        log.write(b"two\n");
        let text = std::fs::read_to_string(&path).expect("a log");
        assert_eq!((text.as_str(), log.lost), ("on\ntwo\n", 0));
    }

    #[test]
    fn lines_that_were_written_are_not_counted() {
        // A file of two pages that cannot grow.
        let file = memfd_create("full", MFdFlags::MFD_ALLOW_SEALING).expect("memory");
        let file = File::from(file);
        let room = 2 * 4096;
        file.set_len(room).expect("memory");
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).expect("a seal");
        let mut log = Log::new(LogTarget::File("/dev/null".into()), Upkeep::default());
        log.output = Some(Output::File(file));
        let line = [&[b'x'; 63][..], b"\n"].concat();
        log.write(&line.repeat(room as usize / line.len() + 3));
        assert_eq!((log.lost, log.unfinished), (3, false));
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

    /// A log of which two old files are kept, and the texts of its files.
    fn rotated(folder: &Path) -> (Log, impl Fn() -> Vec<String>) {
        let path = folder.join("log");
        let upkeep = Upkeep {
            size: Some(8),
            keep: 2,
            ..Upkeep::default()
        };
        let mut log = Log::new(LogTarget::File(path.clone()), upkeep);
        log.reopen().expect("it can be written");
        let texts = move || {
            let names = ["log", "log.1", "log.2", "log.3"];
            let texts = names.map(|name| std::fs::read_to_string(path.with_file_name(name)));
            texts.into_iter().map_while(Result::ok).collect()
        };
        (log, texts)
    }

    #[test]
    fn a_full_file_is_renamed_between_two_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, texts) = rotated(folder.path());
        log.write(b"one\n");
        log.write(b"two\n");
        assert_eq!(texts(), ["one\ntwo\n"]);
        log.write(b"three\n");
        assert_eq!(texts(), ["three\n", "one\ntwo\n"]);
        log.write(b"four\n");
        log.write(b"fi");
        // No file ends within a line, unless the line never ends.
        log.write(b"ve, very long\n");
        assert_eq!(
            texts(),
            ["four\nfive, very long\n", "three\n", "one\ntwo\n"]
        );
        log.write(b"endless, endless");
        log.write(b", and more");
        assert_eq!(texts()[..2], [", and more", "endless, endless"]);
        assert_eq!(texts().len(), 3);
        // Also between two that were read at once.
        log.write(b"\n1\n2\n3\n4\n5\n6, very long\n7\n");
        assert_eq!(texts(), ["7\n", "6, very long\n", "5\n"]);
        log.reopen().expect("it can be written");
        assert_eq!(log.lost, 0);
    }

    #[test]
    fn two_writers_of_one_file_rotate_it_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let ((mut one, texts), (mut two, _)) = (rotated(folder.path()), rotated(folder.path()));
        one.write(b"one one\n");
        one.write(b"one\n");
        two.write(b"two\n");
        assert_eq!(texts(), ["one\ntwo\n", "one one\n"]);
        // While the other one renames it, its lines go to the file that is renamed.
        let Some(Output::File(file)) = &one.output else {
            panic!("it is open")
        };
        let held = file.try_clone().expect("a descriptor");
        let held = nix::fcntl::Flock::lock(held, nix::fcntl::FlockArg::LockExclusive);
        two.write(b"three\n");
        assert_eq!(texts(), ["one\ntwo\nthree\n", "one one\n"]);
        drop(held);
        two.write(b"four\n");
        assert_eq!(texts(), ["four\n", "one\ntwo\nthree\n", "one one\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_renamed_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, texts) = rotated(folder.path());
        log.write(b"one one\n");
        std::fs::create_dir_all(folder.path().join("log.1/full")).expect("room");
        std::fs::create_dir_all(folder.path().join("log.2/full")).expect("room");
        log.write(b"two\n");
        log.write(b"three\n");
        assert_eq!(texts(), ["one one\ntwo\nthree\n"]);
        std::fs::remove_dir_all(folder.path().join("log.1")).expect("it is there");
        log.write(b"four\n");
        assert_eq!(texts().len(), 1, "not before it is time");
        log.rotate_at = Some(Instant::now());
        log.write(b"five\n");
        assert_eq!(texts(), ["five\n", "one one\ntwo\nthree\nfour\n"]);
        assert_eq!((log.lost, log.rotate_at), (0, None));
    }

    #[test]
    fn what_goes_to_a_pipe_goes_there_in_whole_lines() {
        let line = |length: usize| [&vec![b'x'; length - 1][..], b"\n"].concat();
        let text = [line(3000), line(1000), line(1000), line(9000), line(5)].concat();
        let mut rest = &text[..];
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            let next = piece(rest, PIPE_BUF).len();
            lengths.push(next);
            rest = &rest[next..];
        }
        assert_eq!(lengths, [4000, 1000, 9000, 5]);
        assert_eq!(piece(&[b'x'; 5000], PIPE_BUF).len(), 5000);
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
