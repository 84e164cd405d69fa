//! The pid file of the master, which is looked at again at each reload.

use std::io;
use std::path::Path;

use log::{info, warn};

use super::System;
use crate::effects::pid_file::PidFile;
use crate::plan::Plan;

/// Writes a pid file.
///
/// # Errors
/// The reason, with the path.
pub(super) fn write_pid_file(path: &Path) -> io::Result<PidFile> {
    PidFile::write(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => " (create the folder first)",
            io::ErrorKind::PermissionDenied => {
                " (the user of the master needs permission to write to the folder, or configure another path)"
            }
            _ => "",
        };
        let shown = path.display();
        let message = format!("cannot write the pid file {shown}: {error}{hint}");
        io::Error::new(error.kind(), message)
    })
}

impl System {
    /// Writes the pid file where the plan says, also if it was removed or replaced.
    pub(super) fn keep_pid_file(&mut self, plan: &Plan) {
        let Some(path) = &plan.pid_file else {
            self.pid_file = None;
            return;
        };
        if self.pid_file.as_ref().is_some_and(|file| file.is_at(path)) {
            return;
        }
        match write_pid_file(path) {
            Ok(file) => {
                self.pid_file = Some(file);
                info!("the pid file is now {}", path.display());
            }
            Err(error) => warn!("{error}"),
        }
    }
}
