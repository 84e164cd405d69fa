//! The process title that ps(1) shows.

use preforkd_worker::env::Environment;
use preforkd_worker::title::{self, Room};

/// Names the process: `preforkd: web/3 gen 2` and `web/3`, or `preforkd: web template gen 2`. A process that may not write its own
/// memory keeps the old title; nothing depends on it.
pub(crate) fn set(environment: &Environment) {
    let (app, generation) = (&environment.app, environment.generation);
    let (long, short) = match environment.slot {
        Some(slot) => (
            format!("preforkd: {app}/{slot} gen {generation}"),
            format!("{app}/{slot}"),
        ),
        None => (
            format!("preforkd: {app} template gen {generation}"),
            format!("{app} template"),
        ),
    };
    if let Ok(name) = std::ffi::CString::new(short) {
        let _ = rustix::thread::set_name(&name);
    }
    // The program text of `python -c` stands among the arguments and leaves room enough.
    let _ = title::set(&long, Room::Arguments);
}
