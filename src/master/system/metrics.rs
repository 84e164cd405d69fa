//! The process that answers `/metrics`, and the census that it reads.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use log::warn;
use nix::unistd::Pid;
use preforkd_worker::metrics::orders::Orders;

use super::System;
use crate::effects::census::{self, Census};
use crate::effects::metrics;
use crate::effects::sealed::sealed;
use crate::master::world::Source;
use crate::plan::Metrics;
use crate::release::Generation;

impl System {
    /// The census, which is created when it is first written.
    ///
    /// # Errors
    /// There is no descriptor or no memory left.
    pub(super) fn census(&mut self) -> io::Result<&mut Census> {
        match &mut self.census {
            Some(census) => Ok(census),
            none => Ok(none.insert(Census::new()?)),
        }
    }

    /// Starts the process, which can read what it is passed and write to none of it.
    ///
    /// # Errors
    /// The process cannot be created, or an app has no scoreboard.
    pub(super) fn start_exporter(
        &mut self,
        wanted: &Metrics,
        orders: &Orders,
        generation: Generation,
    ) -> io::Result<Pid> {
        let told = sealed(&serde_json::to_string(orders)?)?;
        let census = self.census()?.reader()?;
        let boards = orders.apps.iter().map(|app| {
            let board = self.board(&app.name.as_str().into())?;
            census::reader(board.fd())
        });
        let boards: Vec<File> = boards.collect::<io::Result<_>>()?;
        let listeners = wanted.listeners.iter();
        let listeners = listeners.filter_map(|at| self.listeners.sockets(at, generation).next());
        let listeners: Vec<BorrowedFd> = listeners.collect();
        if listeners.len() != wanted.listeners.len() {
            return Err(io::Error::other("it has no listener"));
        }
        let mut fds = vec![told.as_fd(), census.as_fd()];
        fds.extend(listeners);
        fds.extend(boards.iter().map(AsFd::as_fd));
        let (pid, launching) = metrics::start(wanted, fds)?;
        let fd = launching.as_raw_fd();
        if let Err(error) = self.watches.add_readable(fd, Source::Launch(pid)) {
            warn!("cannot watch the start of pid={pid}: {error}");
        }
        self.launching.insert(pid, launching);
        Ok(pid)
    }
}
