//! Log lines on standard error, in the form that the master's have.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use preforkd_worker::env::Environment;

struct Logger;

static WHO: OnceLock<(String, u64)> = OnceLock::new();
/// The worker's slot; -1 in a template. A template's children each have their own.
static SLOT: AtomicI64 = AtomicI64::new(-1);

/// Sends log lines to standard error from now on.
pub(crate) fn init(environment: &Environment) {
    let _ = WHO.set((environment.app.clone(), environment.generation));
    set_slot(environment.slot);
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// The slot that lines name.
pub(crate) fn set_slot(slot: Option<u32>) {
    SLOT.store(slot.map_or(-1, i64::from), Ordering::Relaxed);
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (app, generation) = WHO
            .get()
            .map_or(("", 0), |(app, generation)| (app.as_str(), *generation));
        let slot = match SLOT.load(Ordering::Relaxed) {
            -1 => "template".to_owned(),
            slot => slot.to_string(),
        };
        // Under systemd's journal, which has a clock and levels of its own, the priority: sd-daemon(3).
        let start = match std::env::var_os("JOURNAL_STREAM") {
            Some(_) => format!("<{}>", priority(record.level())),
            None => {
                let now = humantime::format_rfc3339_millis(std::time::SystemTime::now());
                format!("{now} {:5} ", record.level())
            }
        };
        let line = format!(
            "{start}app={app} worker={slot} gen={generation} pid={}: {}\n",
            std::process::id(),
            record.args()
        );
        // One write, so that lines of several workers do not mix. When it fails there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
