//! What the init system, and who waits at `--ready-fd`, are told.

use log::warn;

use super::System;
use crate::effects::ready_fd::ReadyFd;
use crate::master::world::Notice;

impl System {
    pub(super) fn tell_init(&mut self, notice: &Notice) {
        match notice {
            Notice::Ready(status) => {
                self.init.ready(status);
                if let Some(Err(error)) = self.ready_fd.take().map(ReadyFd::announce) {
                    warn!(
                        "cannot write to the descriptor of --ready-fd: {error}; who waits there does not learn that preforkd is ready"
                    );
                }
            }
            Notice::Reloading => self.init.reloading(),
            Notice::Stopping(status) => self.init.stopping(status),
            Notice::Status(status) => self.init.status(status),
            Notice::Alive => self.init.alive(),
            Notice::MoreTime(time) => self.init.more_time(*time),
        }
    }
}
