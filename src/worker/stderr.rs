//! Writes to standard error without blocking: a reader that is stopped, gone, or has a full disk must not block the writing
//! process. Lines that cannot be written are counted.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write};

/// A pipe that polls as writable takes this many bytes: pipe(7), PIPE_BUF. Longer lines are truncated.
const MAX_LINE: usize = 4096;

static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes a line, including its newline, in one piece. If lines were lost before, `report` formats a line with their number,
/// which is written first.
pub fn write_line(line: &[u8], report: impl FnOnce(u64) -> String) {
    let lost = LOST.load(Ordering::Relaxed);
    let mut text = if lost > 0 {
        report(lost).into_bytes()
    } else {
        Vec::new()
    };
    text.extend_from_slice(line);
    if text.len() > MAX_LINE {
        text.truncate(MAX_LINE - 1);
        text.push(b'\n');
    }
    if put(io::stderr(), &text) {
        LOST.fetch_sub(lost, Ordering::Relaxed);
    } else {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes a few lines of another process, at most PIPE_BUF bytes, or counts them as lost.
pub fn forward(to: impl AsFd, lines: &[u8]) {
    if !put(to, lines) {
        let number = lines.iter().filter(|&&b| b == b'\n').count();
        LOST.fetch_add(number as u64, Ordering::Relaxed);
    }
}

/// The last reader did not read in time. Do not wait again until a write has succeeded.
static STUCK: AtomicBool = AtomicBool::new(false);

/// The time to wait for a slow reader before lines are lost.
const TIMEOUT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Writes the output of an application. Waits a moment for a slow reader; a reader that is stopped, gone, or has a full disk
/// loses lines.
pub fn write_output(to: impl AsFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let most = &bytes[..bytes.len().min(MAX_LINE)];
        let end = most.iter().rposition(|&b| b == b'\n');
        let (piece, rest) = bytes.split_at(end.map_or(most.len(), |newline| newline + 1));
        bytes = rest;
        let written = put(&to, piece)
            || !STUCK.load(Ordering::Relaxed) && wait_for_room(&to, &TIMEOUT) && put(&to, piece);
        STUCK.store(!written, Ordering::Relaxed);
        if written {
            report_lost(&to);
        } else {
            let lines = piece.iter().filter(|&&b| b == b'\n').count();
            LOST.fetch_add(lines as u64, Ordering::Relaxed);
        }
    }
}

/// What an application writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Stream {
    fn say(self, bytes: &[u8]) {
        match self {
            Self::Output => write_output(io::stdout(), bytes),
            Self::Error => write_output(io::stderr(), bytes),
        }
    }
}

/// The lines that a thread has begun, one for each stream: what other threads say must not get into them.
#[derive(Default)]
struct Unfinished([Vec<u8>; 2]);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for stream in [Stream::Output, Stream::Error] {
            stream.say(&self.0[stream as usize]);
        }
    }
}

thread_local! {
    static UNFINISHED: RefCell<Unfinished> = RefCell::default();
    /// The priority of what the thread is about to say, as a digit; 0 if it has none.
    static PRIORITY: Cell<u8> = const { Cell::new(0) };
}

/// Whether the streams are the journal's.
static ARE_JOURNAL: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// Looks again what standard output and error are. `error` is where standard error leads in the end, if another process forwards
/// it. Returns whether that is the journal.
pub fn look_at_streams(error: impl AsFd) -> bool {
    let is_error = is_journal(error);
    ARE_JOURNAL[Stream::Output as usize].store(is_journal(io::stdout()), Ordering::Relaxed);
    ARE_JOURNAL[Stream::Error as usize].store(is_error, Ordering::Relaxed);
    is_error
}

/// Sets the priority of what this thread says from now on: a level of Python's `logging`, 0 for none. Returns the one before.
pub fn set_level(level: u32) -> u32 {
    let priority = match level {
        0 => 0,
        1..=19 => b'7',
        20..=29 => b'6',
        30..=39 => b'4',
        40..=49 => b'3',
        _ => b'2',
    };
    let before = PRIORITY.replace(priority);
    match before {
        b'7' => 10,
        b'6' => 20,
        b'4' => 30,
        b'3' => 40,
        b'2' => 50,
        _ => 0,
    }
}

/// The lines that are complete with this piece of what a thread says; the rest waits for its end, but not for ever.
pub fn complete_lines(stream: Stream, piece: &[u8]) -> Vec<u8> {
    let priority = PRIORITY.get();
    let is_journal = ARE_JOURNAL[stream as usize].load(Ordering::Relaxed);
    UNFINISHED.with_borrow_mut(|unfinished| {
        let begun = &mut unfinished.0[stream as usize];
        for line in piece.split_inclusive(|&b| b == b'\n') {
            let begins = begun.last().is_none_or(|&b| b == b'\n');
            if begins && priority != 0 && is_journal && !has_priority(line) {
                begun.extend_from_slice(&[b'<', priority, b'>']);
            }
            begun.extend_from_slice(line);
        }
        let end = begun.iter().rposition(|&b| b == b'\n');
        let end = end.map_or(0, |newline| newline + 1);
        match begun.len() - end > MAX_LINE {
            true => std::mem::take(begun),
            false => begun.drain(..end).collect(),
        }
    })
}

/// Whether a line tells its priority itself: sd-daemon(3).
fn has_priority(line: &[u8]) -> bool {
    matches!(line, [b'<', b'0'..=b'7', b'>', ..])
}

/// Writes lines of [`complete_lines`].
pub fn say_lines(stream: Stream, lines: &[u8]) {
    stream.say(lines);
}

/// Takes the line that the thread has begun, to be said as it is.
pub fn begun_line(stream: Stream) -> Vec<u8> {
    UNFINISHED.with_borrow_mut(|unfinished| std::mem::take(&mut unfinished.0[stream as usize]))
}

/// A process that was just forked does not say what its parent had begun to say.
pub fn forget_unfinished_lines() {
    for stream in [Stream::Output, Stream::Error] {
        begun_line(stream);
    }
}

/// Reports the number of lines lost before, if any.
fn report_lost(to: impl AsFd) {
    let lost = LOST.load(Ordering::Relaxed);
    let pid = std::process::id();
    let report = || {
        format!(
            "preforkd: {lost} lines of pid {pid} were lost: the output was not read fast enough\n"
        )
    };
    if lost > 0 && put(to, report().as_bytes()) {
        LOST.fetch_sub(lost, Ordering::Relaxed);
    }
}

/// Whether a stream is systemd's journal, which adds times and wants priorities: lines then begin with a priority
/// instead of a time. `JOURNAL_STREAM` alone is not enough, because the stream may have been redirected since:
/// systemd.exec(5).
pub fn is_journal(stream: impl AsFd) -> bool {
    let Ok(name) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let named = name
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let own = rustix::fs::fstat(stream).map(|file| (file.st_dev, file.st_ino));
    named.is_some() && named == own.ok()
}

/// The start of a log line: a priority for the journal (sd-daemon(3)), else time and level.
pub fn line_start(journal: bool, level: Level) -> String {
    if journal {
        let priority = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        return format!("<{priority}>");
    }
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    format!("{time} {level:5} ")
}

/// Writes at once or not at all. Checking for space is not enough, because other processes write to the same pipe.
fn put(to: impl AsFd, bytes: &[u8]) -> bool {
    if !has_room(&to) {
        return false;
    }
    let here = u64::MAX; // no offset: pwritev2(2)
    match pwritev2(&to, &[IoSlice::new(bytes)], here, ReadWriteFlags::NOWAIT) {
        Ok(_) => true,
        // Writing to a file may wait for the disk, but not for a reader.
        Err(Errno::AGAIN) if is_file(&to) => write(&to, bytes).is_ok(),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write(&to, bytes).is_ok(),
        Err(_) => false,
    }
}

fn is_file(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

fn has_room(file: impl AsFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    wait_for_room(file, &now)
}

fn wait_for_room(file: impl AsFd, most: &Timespec) -> bool {
    let mut fds = [PollFd::new(&file, PollFlags::OUT)];
    loop {
        match poll(&mut fds, Some(most)) {
            // An application may have handlers of its own.
            Err(Errno::INTR) => {}
            // An error is found by the write, too.
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{PipeReader, Read, pipe};

    use super::*;

    #[test]
    fn a_pipe_that_is_not_read_takes_what_fits_and_loses_the_rest_at_once() {
        let (reader, writer) = pipe().expect("a pipe");
        let line = [b'.'; MAX_LINE];
        let written = (0..1000).filter(|_| put(&writer, &line)).count();
        assert!((1..1000).contains(&written), "{written} lines");
        drop(writer);
        assert_eq!(rest(reader).len(), written * MAX_LINE);
    }

    #[test]
    fn an_application_waits_for_a_slow_reader_and_not_for_a_stopped_one() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let line = [&[b'.'; MAX_LINE - 1][..], b"\n"].concat();
        while put(&writer, &line) {}
        let began = std::time::Instant::now();
        for _ in 0..100 {
            write_output(&writer, &line);
        }
        // It waits a tenth of a second once, and then no more.
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
        let mut some = vec![0; 10 * MAX_LINE];
        reader.read_exact(&mut some).expect("it is there");
        write_output(&writer, b"heard\n");
        drop(writer);
        let end = rest(reader);
        let end = String::from_utf8_lossy(&end[end.len() - 100..]).into_owned();
        // Other tests of this process may have lost lines, too.
        let (_, told) = end.split_once("heard\npreforkd: ").expect("both");
        assert!(told.ends_with("was not read fast enough\n"), "{told}");
    }

    #[test]
    fn a_line_is_said_when_it_is_whole_whatever_other_threads_begin() {
        let out = Stream::Output;
        assert_eq!(complete_lines(out, b"one "), b"");
        assert_eq!(complete_lines(Stream::Error, b"other\n"), b"other\n");
        std::thread::spawn(move || {
            assert_eq!(complete_lines(out, b"of a thread\n"), b"of a thread\n");
        })
        .join()
        .expect("as it should");
        assert_eq!(
            complete_lines(out, b"two\nthree\nfour"),
            b"one two\nthree\n"
        );
        assert_eq!(begun_line(out), b"four");
        assert_eq!(begun_line(out), b"");
        let long = [b'.'; MAX_LINE + 1];
        assert_eq!(
            complete_lines(out, &long),
            long,
            "nobody waits for its end for ever"
        );
        assert_eq!(complete_lines(out, b"forgotten"), b"");
        forget_unfinished_lines();
        assert_eq!(complete_lines(out, b"\n"), b"\n");
    }

    #[test]
    fn each_line_has_the_level_of_its_record_under_the_journal_only() {
        let log = |text: &[u8]| complete_lines(Stream::Error, text);
        assert_eq!(set_level(30), 0);
        assert_eq!(log(b"a\n"), b"a\n");
        ARE_JOURNAL[Stream::Error as usize].store(true, Ordering::Relaxed);
        assert_eq!(log(b"a\nTraceback:\n"), b"<4>a\n<4>Traceback:\n");
        assert_eq!(log(b"be"), b"");
        assert_eq!(log(b"gun\n<6>own\n<b>"), b"<4>begun\n<6>own\n");
        assert_eq!(log(b"\n"), b"<4><b>\n");
        for (level, start) in [(50, "<2>"), (40, "<3>"), (20, "<6>"), (10, "<7>"), (0, "")] {
            set_level(level);
            assert_eq!(log(b"x\n"), format!("{start}x\n").as_bytes());
            assert_eq!(set_level(level), level);
        }
        ARE_JOURNAL[Stream::Error as usize].store(false, Ordering::Relaxed);
    }

    #[test]
    fn many_writers_of_one_pipe_never_wait_for_its_reader() {
        let (reader, writer) = pipe().expect("a pipe");
        let line = [b'.'; 1000];
        let all: usize = std::thread::scope(|scope| {
            let write = || (0..10_000).filter(|_| put(&writer, &line)).count();
            let threads = [(); 4].map(|()| scope.spawn(write));
            threads.map(|t| t.join().expect("a count")).iter().sum()
        });
        drop(writer);
        assert_eq!(rest(reader).len(), all * line.len());
    }

    #[test]
    fn files_and_devices_are_written_too() {
        let path = std::env::temp_dir().join(format!("preforkd-stderr-{}", std::process::id()));
        let file = File::create(&path).expect("a file");
        assert!(put(&file, b"one\n") && put(&file, b"two\n"));
        assert_eq!(std::fs::read(&path).expect("its text"), b"one\ntwo\n");
        std::fs::remove_file(&path).expect("removed");
        let full = OpenOptions::new().write(true).open("/dev/full");
        assert!(!put(full.expect("a device"), b"three\n"));
    }

    fn rest(mut reader: PipeReader) -> Vec<u8> {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("the rest");
        text
    }
}
