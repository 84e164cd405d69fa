//! The access log: a line for each response and each refusal.
//!
//! It leads to a pipe that is never waited for: lines that find no room are counted, and their number is logged. Not in the access log
//! itself, whose readers expect lines of its own form, such as JSON.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use preforkd_worker::access_format::Format;

use super::{Ended, Layer, Stages};
use crate::net::descriptors::Own;
use crate::rate::{Rate, SECOND};
use crate::serve::timers::{Instant, now};
use format::Compiled;

pub(crate) mod escape;
mod format;

/// A pipe takes so many bytes at once or none: pipe(7), PIPE_BUF. So no line may be longer.
const LINE: usize = 4096;

/// What the access log is made of.
#[derive(Debug)]
pub struct Options {
    /// A pipe with O_NONBLOCK.
    pub pipe: OwnedFd,
    /// The form of a line.
    pub format: Format,
    /// The worker that lines name.
    pub worker: Worker,
}

/// What lines tell of their worker.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The name of its app.
    pub app: String,
    /// Its slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u64,
}

/// The access log as a layer. Only the loop's thread uses it, so nothing ever waits for the lock.
pub(super) struct AccessLog(Mutex<Lines>);

impl AccessLog {
    pub fn layer(options: Options) -> Arc<dyn Layer> {
        Arc::new(Self(Mutex::new(Lines::new(options))))
    }

    fn with(&self, act: impl FnOnce(&mut Lines)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Layer for AccessLog {
    fn stages(&self) -> Stages {
        Stages {
            ended: true,
            exact: true,
            ..Stages::default()
        }
    }

    fn ended(&self, ended: &Ended<'_>) {
        self.with(|lines| lines.note(ended));
    }

    fn flush(&self) {
        self.with(Lines::flush);
    }
}

/// Collects lines, and writes them when the loop has time.
struct Lines {
    pipe: Own,
    format: Compiled,
    buffer: Vec<u8>,
    lines: u64,
    lost: u64,
    told: Rate,
}

impl Lines {
    fn new(options: Options) -> Self {
        Self {
            pipe: options.pipe.into(),
            format: Compiled::new(options.format, &options.worker),
            buffer: Vec::with_capacity(2 * LINE),
            lines: 0,
            lost: 0,
            told: Rate::new(1, 10 * SECOND),
        }
    }

    fn note(&mut self, entry: &Ended<'_>) {
        let before = self.buffer.len();
        self.format.write(&mut self.buffer, entry);
        if self.buffer.len() > LINE {
            self.write(before);
        }
        self.lines += 1;
    }

    /// Hands the lines over, or counts them as lost.
    fn flush(&mut self) {
        self.write(self.buffer.len());
    }

    /// The same for those that take so many bytes.
    fn write(&mut self, length: usize) {
        if self.lines == 0 {
            return;
        }
        match rustix::io::write(&self.pipe, &self.buffer[..length]) {
            Err(_) => self.lost += self.lines,
            Ok(_) if self.lost > 0 => self.tell(now()),
            Ok(_) => {}
        }
        self.buffer.drain(..length);
        self.lines = 0;
    }

    /// Says that lines were lost, unless that was said just now.
    #[cold]
    fn tell(&mut self, now: Instant) {
        if self.told.is_free(now) {
            self.told.take(now);
            let lines = std::mem::take(&mut self.lost);
            log::warn!("{}", lost(lines));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if self.lost > 0 {
            log::warn!("{}", lost(self.lost));
        }
    }
}

/// The words for the log.
fn lost(lines: u64) -> String {
    let were = match lines {
        1 => "line of the access log was",
        _ => "lines of the access log were",
    };
    format!("{lines} {were} lost: its writer did not take them in time")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::message::request::Origin;

    #[test]
    fn lines_without_room_are_counted_and_said_elsewhere() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let mut log = Lines::new(Options {
            pipe: write,
            format: Format::parse("combined").unwrap(),
            worker: Worker {
                app: "app".into(),
                slot: 0,
                generation: 1,
            },
        });
        let entry = Ended {
            origin: &Origin {
                listener: 0,
                peer: None,
                relayed: None,
            },
            request: None,
            line: None,
            status: 400,
            bytes: 0,
            microseconds: 0,
            waited: 0,
        };
        let mut noted = 0;
        while log.lost == 0 {
            log.note(&entry);
            noted += 1;
        }
        let mut read = std::fs::File::from(read);
        let mut buffer = [0; LINE];
        let mut text = Vec::new();
        while let Ok(n @ 1..) = read.read(&mut buffer) {
            text.extend_from_slice(&buffer[..n]);
        }
        let before = log.lost;
        assert!(before > 0);
        log.note(&entry);
        log.flush();
        let n = read.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8(text).unwrap();
        // Said, and nothing of it in the access log.
        assert_eq!(log.lost, 0);
        let line = "\"-\" 400 0 \"-\" \"-\" 0.000";
        assert!(text.lines().all(|read| read.ends_with(line)), "{text}");
        assert_eq!(text.lines().count() as u64 + before, noted + 1);
        // Further ones are counted until it is time.
        log.lost = 2;
        log.tell(now());
        assert_eq!(log.lost, 2);
        log.tell(now() + 11 * SECOND);
        assert_eq!(log.lost, 0);
        assert!(lost(1).starts_with("1 line of the access log was lost"));
        assert!(lost(2).starts_with("2 lines of the access log were lost"));
    }
}
