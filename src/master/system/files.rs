//! The files of the master itself: its control socket and its pid file. Both are looked at again at each reload.

use std::io;
use std::path::Path;

use log::{info, warn};

use super::System;
use crate::effects::pid_file::PidFile;
use crate::master::world::Source;
use crate::plan::Plan;

/// What does not work without a control socket.
const CONSEQUENCE: &str = "status, reload, scale, stop and reopen will not work";

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
    /// Listens for commands where the plan says, also if the file of the socket was removed or replaced.
    pub(super) fn keep_control(&mut self, plan: &Plan) {
        self.listen_for_commands(plan);
        let shown = self
            .beacon
            .as_ref()
            .map(|beacon| beacon.show(self.control.path()));
        if let Some(Err(error)) = shown {
            warn!(
                "cannot tell where the control socket is: {error}; commands search for it by the configuration only"
            );
        }
    }

    fn listen_for_commands(&mut self, plan: &Plan) {
        let (mode, group) = (plan.control_mode, plan.control_group);
        let before = self.control.fd();
        let Some(path) = &plan.control else {
            before.into_iter().for_each(|fd| self.watches.remove(fd));
            return self.control.stop_listening();
        };
        let shown = path.display();
        if self.control.is_at(path) {
            if let Err(reason) = self.control.change(mode, group) {
                warn!("cannot change the control socket {shown}: {reason}");
            }
            return;
        }
        match self.control.listen(path, mode, group) {
            Ok(None) => {}
            Ok(Some(replaced)) => {
                before.into_iter().for_each(|fd| self.watches.remove(fd));
                drop(replaced);
                info!("the control socket is now {shown}");
            }
            Err(reason) if before.is_none() => {
                return warn!("no control socket at {shown}: {reason}; {CONSEQUENCE}");
            }
            Err(reason) => {
                return warn!(
                    "no control socket at {shown}: {reason}; commands reach the master where they did before"
                );
            }
        }
        let watched = self
            .control
            .fd()
            .map(|fd| self.watches.add_readable(fd, Source::Clients));
        if let Some(Err(error)) = watched {
            warn!("cannot watch the control socket {shown}: {error}; {CONSEQUENCE}");
        }
    }

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
