//! Log lines of a worker on standard error, in the form that the master's have.

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::env::Environment;
use crate::stderr;
use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

static WHO: OnceLock<(String, u64)> = OnceLock::new();
static JOURNAL: AtomicBool = AtomicBool::new(false);
/// The worker's slot; -1 in a template. A template's children each have their own.
static SLOT: AtomicI64 = AtomicI64::new(-1);

/// Sends log lines to standard error from now on.
pub fn init() {
    look_at_stderr(std::io::stderr());
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// From now on lines name the process.
pub fn set_process(environment: &Environment) {
    let _ = WHO.set((environment.app.clone(), environment.generation));
    set_slot(environment.slot);
}

/// Looks again what standard error is, or where it leads in the end: the master forwards it during a start.
pub fn look_at_stderr(end: impl AsFd) {
    JOURNAL.store(stderr::look_at_streams(end), Ordering::Relaxed);
}

/// The slot that lines name.
pub fn set_slot(slot: Option<u32>) {
    SLOT.store(slot.map_or(-1, i64::from), Ordering::Relaxed);
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let slot = match SLOT.load(Ordering::Relaxed) {
            -1 => "template".to_owned(),
            slot => slot.to_string(),
        };
        let who = WHO.get().map_or(String::new(), |(app, generation)| {
            format!("app={app} worker={slot} gen={generation} ")
        });
        let start = stderr::line_start(JOURNAL.load(Ordering::Relaxed), record.level());
        let pid = std::process::id();
        let line = format!("{start}{who}pid={pid}: {}\n", record.args());
        stderr::write_line(line.as_bytes(), |lost| {
            format!(
                "{start}{who}pid={pid}: {lost} log lines were lost: standard error was not read fast enough\n"
            )
        });
    }

    fn flush(&self) {}
}
