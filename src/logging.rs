//! The log: one line per message, on standard error.

use std::io::{self, Write};

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter};
use preforkd_worker::stderr;

pub mod recent;

/// Starts logging, with priorities if standard error is the journal.
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
            let text = record.args().to_string();
            recent::note(record.level(), &text);
            let start = stderr::line_start(journal, record.level());
            writeln!(line, "{start}{text}")
        })
        .init();
}

/// Prints an error, which may have several lines, when logging has not started.
pub fn print_error(message: &str) {
    // The journal needs a priority on each line; on a terminal the message suffices.
    let start = match stderr::is_journal(std::io::stderr()) {
        true => stderr::line_start(true, Level::Error),
        false => String::new(),
    };
    for line in format!("preforkd: {message}").lines() {
        print_line(&format!("{start}{line}"));
    }
}

/// Prints a line to standard error. If nobody can read it, nobody can be told so.
pub fn print_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes whole lines. Never blocks and never fails.
struct Lines {
    journal: bool,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr::write_line(line, |lost| {
            let start = stderr::line_start(self.journal, Level::Warn);
            format!("{start}{lost} log lines were lost: standard error was not read fast enough\n")
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
