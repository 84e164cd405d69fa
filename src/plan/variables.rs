//! The variables of the master's environment: which of them are passed on to other processes, and may be used in the configuration.

use std::ffi::OsStr;

use preforkd_worker::env;

use super::Host;
use crate::config;

/// Variables that the init system sets for the main process of the service only: systemd.exec(5), sd_listen_fds(3),
/// sd_notify(3), sd_watchdog_enabled(3). Variables that describe the service as a whole (`INVOCATION_ID`, `JOURNAL_STREAM`,
/// `CREDENTIALS_DIRECTORY`, `STATE_DIRECTORY` and the like) are useful to an application and are passed on.
const PRIVATE: [&str; 17] = [
    // The master's own sockets. A worker gets values of its own.
    env::LISTEN_FDS,
    env::LISTEN_PID,
    env::LISTEN_FDNAMES,
    // Compared with the pidfd of the process that reads it. With the master's value a worker would find no sockets.
    "LISTEN_PIDFDID",
    // A worker that wrote there would act for the service: READY=1, MAINPID=, STOPPING=1, WATCHDOG=trigger.
    env::NOTIFY_SOCKET,
    "FDSTORE",
    // Of `WatchdogSec=`, which the master answers. The key `watchdog` of an app sets its own values.
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    // The main process and its manager: wrong in a child.
    "MAINPID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "SYSTEMD_EXEC_PID",
    // Of `PIDFile=`: an application that wrote its own pid there would become the main process.
    "PIDFILE",
    // One watcher for the whole cgroup, which workers of other users cannot write to.
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // Of `Accept=yes`, where one connection is the service. Some frameworks trust them.
    "REMOTE_ADDR",
    "REMOTE_PORT",
];

/// Whether a variable is of the master alone: its own, and those of a master that runs it as a worker.
pub fn is_private(name: &OsStr) -> bool {
    PRIVATE.iter().chain(&env::PRIVATE).any(|own| name == *own)
}

/// The variables that a process gets of the master also if it gets no others: what it cannot do without, and how it writes to people.
const ALWAYS: [&str; 4] = ["PATH", "LANG", "LANGUAGE", "TZ"];

/// Whether a process gets this variable of the master in any case.
pub fn is_always_passed(name: &OsStr) -> bool {
    ALWAYS.iter().any(|known| name == *known) || name.as_encoded_bytes().starts_with(b"LC_")
}

/// A variable of the environment in which the master was started, for a reference in the configuration. A reload finds the same
/// values as the start, so what is not passed on to the process that checks the configuration cannot be used at all.
pub(super) fn look_up(host: &dyn Host, name: &str) -> Result<Option<String>, String> {
    match is_private(OsStr::new(name)) {
        true => Err(format!(
            "the variable {name} is meant for the master alone and cannot be used here (use another one)"
        )),
        false => Ok(host.variable(name)),
    }
}

/// A string of the configuration with its references replaced; `None` if that is not possible.
pub(super) fn expanded(text: &str, host: &dyn Host) -> Option<String> {
    config::expand(text, &|name| look_up(host, name))
}
