//! The log: one line each, on standard error.

use std::io::{self, Write};

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter};
use preforkd_worker::stderr;

/// Starts logging; in the form of the journal where that reads standard error.
pub fn begin(verbose: bool) {
    let journal = stderr::is_journal(std::io::stderr());
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
            writeln!(
                line,
                "{}{}",
                stderr::line_start(journal, record.level()),
                record.args()
            )
        })
        .init();
}

/// Shows an error of several lines, before or without a log.
pub fn complain(message: &str) {
    // For people on a terminal the message alone; the journal wants a priority for each line.
    let start = match stderr::is_journal(std::io::stderr()) {
        true => stderr::line_start(true, Level::Error),
        false => String::new(),
    };
    for line in format!("preforkd: {message}").lines() {
        eprintln!("{start}{line}");
    }
}

/// Takes whole lines; never blocks and never fails.
struct Lines {
    journal: bool,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr::write_line(line, |lost| {
            let start = stderr::line_start(self.journal, Level::Warn);
            format!("{start}{lost} log lines found no reader and are lost\n")
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
