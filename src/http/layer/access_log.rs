//! The access log: a line for each response and each refusal.
//!
//! It leads to a pipe that is never waited for: lines that find no room are counted and told.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use preforkd_worker::access_format::Format;

use super::{Ended, Layer, Stages};
use crate::net::descriptors::Own;
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
}

impl Lines {
    fn new(options: Options) -> Self {
        Self {
            pipe: options.pipe.into(),
            format: Compiled::new(options.format, &options.worker),
            buffer: Vec::with_capacity(2 * LINE),
            lines: 0,
            lost: 0,
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
        if self.lost > 0 {
            let told = format!(
                "preforkd: {} access log lines were lost: the file was not written fast enough\n",
                self.lost
            );
            if rustix::io::write(&self.pipe, told.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        if rustix::io::write(&self.pipe, &self.buffer[..length]).is_err() {
            self.lost += self.lines;
        }
        self.buffer.drain(..length);
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::message::request::Origin;

    #[test]
    fn lines_without_room_are_counted_and_told() {
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
        let lost = log.lost;
        log.note(&entry);
        log.flush();
        let n = read.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8(text).unwrap();
        let told = format!(
            "preforkd: {lost} access log lines were lost: the file was not written fast enough\n"
        );
        assert!(text.contains(&told), "{text}");
        assert_eq!(
            text.matches("\"-\" 400 0 \"-\" \"-\" 0.000\n").count() as u64 + lost,
            noted + 1
        );
    }
}
