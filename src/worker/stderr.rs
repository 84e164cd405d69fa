//! Writes to standard error without blocking: a reader that is stopped, gone, or has a full disk must not block the writing
//! process. Lines that cannot be written are counted.

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

/// Whether standard error is systemd's journal, which adds times and wants priorities: lines then begin with a priority
/// instead of a time. `JOURNAL_STREAM` alone is not enough, because standard error may have been redirected since:
/// systemd.exec(5).
pub fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let named = stream
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let own = rustix::fs::fstat(io::stderr()).map(|file| (file.st_dev, file.st_ino));
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
    // The write reports the error, too.
    poll(&mut fds, Some(most)).is_ok_and(|ready| ready > 0)
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
