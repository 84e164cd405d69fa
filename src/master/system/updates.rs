//! What the workers of the front are handed at their start and while they run.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use log::error;
use mio::Interest;
use nix::unistd::Pid;
use preforkd_worker::updates::Kind;
use zeroize::Zeroizing;

use super::System;
use crate::effects::sealed::sealed;
use crate::effects::updates::Channel;
use crate::sys;

impl System {
    /// A channel for a worker of the front that is about to start, with all that it needs; and the worker's end.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub(super) fn first_updates(&mut self) -> io::Result<(Channel, OwnedFd)> {
        let now = Instant::now();
        self.tickets.renew(now, sys::random_text)?;
        let (mut channel, theirs) = Channel::new()?;
        channel.send(Kind::Tickets.name(), &self.ticket_update(now)?);
        Ok((channel, theirs))
    }

    /// A worker of the front was started that has the other end.
    pub(super) fn follow_updates(&mut self, worker: Pid, channel: Channel) {
        // An event only ends the wait.
        if let Err(error) = self.watches.add(channel.fd(), None, Interest::WRITABLE) {
            log::warn!("pid={worker}: cannot watch the socket for its updates: {error}");
        }
        self.updates.insert(worker, channel);
    }

    /// A worker was reaped.
    pub(super) fn forget_updates(&mut self, worker: Pid) {
        if let Some(channel) = self.updates.remove(worker) {
            self.watches.remove(channel.fd());
        }
    }

    /// Sends what waits, and new keys of session tickets if it is time. Returns when to come back.
    pub(super) fn keep_updates(&mut self, now: Instant) -> Option<Instant> {
        if self.updates.is_empty() {
            return None;
        }
        self.updates.flush();
        let renewed = self.tickets.renew(now, sys::random_text);
        let sent = renewed.map_err(io::Error::from).and_then(|renewed| {
            if renewed {
                let update = self.ticket_update(now)?;
                self.updates.send_all(Kind::Tickets.name(), &update);
            }
            Ok(())
        });
        if let Err(error) = sent {
            error!("cannot make a new key for session tickets: {error}; the old one stays");
        }
        self.tickets.deadline()
    }

    fn ticket_update(&self, now: Instant) -> io::Result<Rc<OwnedFd>> {
        let text = serde_json::to_string(&self.tickets.update(now)).map_err(io::Error::from)?;
        sealed(&Zeroizing::new(text)).map(Rc::new)
    }
}
