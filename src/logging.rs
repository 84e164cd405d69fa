//! The log: one line each, on standard error.

use std::io::{self, Write};

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter};
use preforkd_worker::stderr;

/// Starts logging; in the form of the journal where that reads standard error.
pub fn begin(verbose: bool) {
    let journal = stderr::is_journal();
    let level = if verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    Builder::new()
        .filter_level(level)
        .write_style(WriteStyle::Never)
        .target(Target::Pipe(Box::new(Lines { journal })))
        .format(move |line, record| {
            writeln!(line, "{}{}", start(journal, record.level()), record.args())
        })
        .init();
}

/// Shows an error of several lines, before or without a log.
pub fn complain(message: &str) {
    let start = if stderr::is_journal() {
        stderr::priority(priority(Level::Error))
    } else {
        String::new()
    };
    for line in format!("preforkd: {message}").lines() {
        eprintln!("{start}{line}");
    }
}

fn start(journal: bool, level: Level) -> String {
    if journal {
        return stderr::priority(priority(level));
    }
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    format!("{time} {level:5} ")
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Takes whole lines; never blocks and never fails.
struct Lines {
    journal: bool,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr::write_line(line, |lost| {
            let start = start(self.journal, Level::Warn);
            format!("{start}{lost} log lines found no reader and are lost\n")
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
