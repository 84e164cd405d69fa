//! The log: one line each, on standard error.

use std::io::Write;

use env_logger::{Builder, WriteStyle};
use log::{Level, LevelFilter};

/// Starts logging. Under systemd's journal, which has a clock and levels of its own, a line begins with its
/// priority (sd-daemon(3)) instead of a time.
pub fn begin(verbose: bool) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let level = if verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    Builder::new()
        .filter_level(level)
        .write_style(WriteStyle::Never)
        .format(move |line, record| {
            if journal {
                return writeln!(line, "<{}>{}", priority(record.level()), record.args());
            }
            let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
            writeln!(line, "{time} {:5} {}", record.level(), record.args())
        })
        .init();
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
