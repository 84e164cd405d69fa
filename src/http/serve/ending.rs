//! The end of a drain: responses that would outlive it are broken off while there is still time for their `close()`, and for the hooks of
//! the worker.

use std::time::Duration;

use super::core::Core;
use crate::net::transport::Transport;
use crate::serve::client::Task;
use crate::serve::handler::Observer;
use crate::serve::timers::NEVER;

/// The most time that is kept for the end.
const MARGIN: Duration = Duration::from_secs(1);

impl<O: Observer, T: Transport> Core<O, T> {
    /// The stop order has come.
    pub(super) fn note_stop(&mut self) {
        if self.breaks_off == NEVER {
            let all = self.limits.drain_timeout;
            self.breaks_off = self.after(all - MARGIN.min(all / 10));
        }
    }

    /// Whether responses that have not ended are to be broken off.
    pub(super) fn breaks_off(&self) -> bool {
        self.breaks_off <= self.now
    }

    /// Breaks off responses that threads of a pool make, if it is time; their handlers learn it at the next piece.
    #[inline(always)]
    pub(super) fn break_off(&mut self) {
        if self.breaks_off() {
            self.break_off_running();
        }
    }

    #[cold]
    fn break_off_running(&mut self) {
        for key in self.clients.keys() {
            if let Some(client) = self.clients.lend(key) {
                match client.link.task {
                    Task::Running => self.close(key, client),
                    _ => self.clients.give_back(key, client),
                }
            }
        }
    }
}
