//! The process that checks the configuration.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::unistd::Pid;

use crate::effects::host::ThisHost;
use crate::effects::launch;
use crate::plan::Plan;

/// Starts it.
pub fn start(file: &Path) -> io::Result<Pid> {
    let arguments = [
        "check-config".into(),
        "-c".into(),
        file.as_os_str().to_owned(),
    ];
    launch::own(arguments, None, io::stderr().as_fd())
}

/// Reads and checks a configuration file.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn read(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Plan::parse(&text, file, &ThisHost).map_err(|error| error.one_line())
}
