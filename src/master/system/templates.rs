//! Templates, and the pipes over which their workers are told to stop.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use log::warn;
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};

use super::System;
use crate::effects::stop_orders;

impl System {
    pub(super) fn send_fork_order(&mut self, template: Pid, order: &Fork) -> bool {
        let Some(socket) = self.templates.get(&template) else {
            return false;
        };
        let (ours, theirs) = stop_order(&format_args!("template pid={template}")).unzip();
        let record = order.record;
        let own = record.and_then(|record| self.own_listeners.take(&socket.app, record));
        let (stop, own_fd) = (theirs.as_ref(), own.as_ref());
        let sent = socket.send(order, stop.map(AsFd::as_fd), own_fd.map(AsFd::as_fd));
        let sent = sent.is_ok();
        if let (Some(record), Some(own), false) = (record, own, sent) {
            self.own_listeners.give_back(&socket.app, record, own);
        }
        if let Some(ours) = ours.filter(|_| sent) {
            self.stop_orders.expect(template, order.ticket, ours);
        }
        sent
    }

    pub(super) fn take_reply(&mut self, template: Pid) -> Option<(Pid, Option<Reply>)> {
        let said = self.templates.get(&template)?.receive()?;
        match &said {
            (worker, Some(Reply::Forked { ticket })) => {
                self.guarded.forked(template, *worker);
                self.stop_orders.arrived(template, *ticket, *worker);
            }
            (_, Some(Reply::Failed { ticket, .. })) => {
                self.stop_orders.give_up(template, *ticket);
            }
            (_, Some(Reply::Lost { tickets, .. })) => {
                for ticket in tickets {
                    self.stop_orders.give_up(template, *ticket);
                }
            }
            (_, Some(Reply::Ready) | None) => {}
        }
        Some(said)
    }

    pub(super) fn shut_down_template(&mut self, template: Pid) {
        if let Some(template) = self.templates.get(&template) {
            template.shut_down_read();
        }
    }

    pub(super) fn forget_template(&mut self, template: Pid) {
        if let Some(template) = self.templates.remove(&template) {
            self.watches.remove(template.fd());
            self.stop_orders.close(template.pid);
        }
    }
}

/// The pipe over which a worker is told to stop; `None` if it cannot be created, as a signal does it too.
pub(super) fn stop_order(whose: &dyn fmt::Display) -> Option<(OwnedFd, OwnedFd)> {
    let made = stop_orders::pair();
    made.inspect_err(|error| {
        warn!(
            "{whose}: cannot create a pipe to stop a worker: {error}; it will get SIGTERM instead"
        );
    })
    .ok()
}
