//! The listeners: who opens, keeps, stores and watches them.

use std::os::fd::AsRawFd;

use log::warn;

use super::System;
use crate::config::Address;
use crate::effects::listen::{Error, Order};
use crate::master::world::{NotOpened, Opened, Source};
use crate::plan::Listener;
use crate::release::Generation;
use crate::sys;

impl System {
    /// Has the init system keep the listeners for the next master, and the guard too.
    pub(super) fn store_listeners(&mut self) {
        self.guarded.leave_sockets(&self.listeners.left_by_death());
        for order in self.listeners.orders() {
            match order {
                Order::Keep(name, socket) => self.init.keep(&name, socket),
                Order::Drop(name) => self.init.forget(&name),
            }
        }
    }

    pub(super) fn open_wanted(
        &mut self,
        wanted: &[Listener],
        generation: Generation,
    ) -> Result<Opened, NotOpened> {
        let opened = self.listeners.open(wanted, generation);
        let (new, missing) = opened.map_err(|error| not_opened(&error))?;
        let missing = missing.into_iter();
        let missing = missing.map(|error| (error.address().clone(), error.to_string()));
        Ok(Opened {
            new,
            missing: missing.collect(),
        })
    }

    pub(super) fn open_missing(
        &mut self,
        address: &Address,
        generation: Generation,
    ) -> Result<bool, NotOpened> {
        let opened = self.listeners.open_missing(address, generation);
        let opened = opened.map_err(|error| not_opened(&error))?;
        if opened {
            self.store_listeners();
        }
        Ok(opened)
    }

    pub(super) fn close_for_now(
        &mut self,
        addresses: &[&Address],
        generation: Generation,
    ) -> Vec<Address> {
        for address in addresses {
            self.wait_for_connections(address, false);
        }
        let closed = self.listeners.close_for_now(addresses, generation);
        if !closed.is_empty() {
            self.store_listeners();
        }
        closed
    }

    pub(super) fn keep_wanted(&mut self, wanted: &[Listener]) -> (Vec<Address>, Vec<String>) {
        let failures = self.listeners.adapt(wanted);
        let closed = self.listeners.keep(wanted);
        self.store_listeners();
        (closed, failures)
    }

    pub(super) fn waiting_at(&self, address: &Address) -> Option<u32> {
        let queues = self.listeners.serving(address);
        queues
            .map(|socket| sys::accept_queue(&socket))
            .reduce(u32::saturating_add)
    }

    pub(super) fn wait_for_connections(&mut self, address: &Address, watch: bool) {
        let source = Source::Listener(address.clone());
        for socket in self.listeners.serving(address) {
            let fd = socket.as_raw_fd();
            if !watch {
                self.watches.remove(fd);
            } else if !self.watches.has(fd, &source)
                && let Err(error) = self.watches.add_readable(fd, source.clone())
            {
                warn!("cannot wait for connections at {address}: {error}");
            }
        }
    }
}

fn not_opened(error: &Error) -> NotOpened {
    NotOpened {
        holders: error.holders().to_vec(),
        address: error.address().clone(),
        why: error.to_string(),
    }
}
