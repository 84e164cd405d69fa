//! Log lines on standard error that never block: a log reader that is frozen, gone, or has a full disk must
//! not stop the process that has something to say. Lines that find no room are counted.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A pipe that is writable has room for so much: pipe(7), PIPE_BUF. Longer lines are cut.
const LONGEST: usize = 4096;

static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes one line, which ends with a newline, in one piece. If lines were lost before, `tell` makes a line of
/// their number, which goes first.
pub fn write_line(line: &[u8], tell: impl FnOnce(u64) -> String) {
    let lost = LOST.load(Ordering::Relaxed);
    let mut text = if lost > 0 {
        tell(lost).into_bytes()
    } else {
        Vec::new()
    };
    text.extend_from_slice(line);
    if text.len() > LONGEST {
        text.truncate(LONGEST - 1);
        text.push(b'\n');
    }
    if has_room(io::stderr()) && io::stderr().write_all(&text).is_ok() {
        LOST.fetch_sub(lost, Ordering::Relaxed);
    } else {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes a few lines of others, at most as many bytes as a pipe takes at once, or counts them as lost.
pub fn pass_on(to: impl AsFd, lines: &[u8]) {
    if !(has_room(&to) && rustix::io::write(&to, lines).is_ok()) {
        let number = lines.iter().filter(|&&b| b == b'\n').count();
        LOST.fetch_add(number as u64, Ordering::Relaxed);
    }
}

/// Whether standard error is systemd's journal, which has a clock and levels of its own: a line then begins
/// with its priority instead of a time. `JOURNAL_STREAM` alone does not tell, as standard error may
/// have been redirected since: systemd.exec(5).
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

/// How a log line begins: with its priority for the journal (sd-daemon(3)), else with time and level.
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

fn has_room(file: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&file, PollFlags::OUT)];
    // An error is found by the write, too.
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .is_ok_and(|ready| ready > 0)
}
