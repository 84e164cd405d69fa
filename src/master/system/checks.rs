//! Processes of our own that check: the configuration, and first workers and those that serve.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use log::warn;
use nix::unistd::Pid;

use super::System;
use crate::effects::config_check::ConfigCheck;
use crate::effects::probe;
use crate::effects::tail::Tail;
use crate::plan::{self, Extent, Plan};
use crate::release::Name;

impl System {
    pub(super) fn start_config_check(&mut self, extent: &Extent) -> io::Result<Pid> {
        let check = ConfigCheck::start(&self.configuration, extent)?;
        let pid = check.pid;
        self.checks.insert(pid, check);
        Ok(pid)
    }

    pub(super) fn found_plan(&mut self, job: Pid) -> Result<Plan, String> {
        let check = self.checks.remove(&job);
        check.map_or_else(|| Err(String::new()), ConfigCheck::found)
    }

    pub(super) fn probe_private(&mut self, app: &Name, check: &plan::Check) -> io::Result<Pid> {
        let private = self.privates.get(app);
        let private = private.ok_or_else(|| io::Error::other("it has no listener for it"))?;
        let (tail, theirs) = Tail::quoted_only()?;
        let pid = probe::start(check, private.socket(), theirs.as_fd())?;
        self.tails.insert(pid, tail);
        Ok(pid)
    }

    pub(super) fn probe_address(
        &mut self,
        check: &plan::Check,
        attempts: u32,
        address: &OsStr,
    ) -> io::Result<Pid> {
        let (tail, theirs) = Tail::quoted_only()?;
        let pid = probe::start_at(check, attempts, address, theirs.as_fd())?;
        self.tails.insert(pid, tail);
        Ok(pid)
    }

    pub(super) fn forget_private(&mut self, app: &Name, tell: bool) {
        let shut = self.privates.remove(app);
        if let Some(Err(error)) = shut.filter(|_| tell).map(|private| private.shut_down()) {
            warn!("app={app}: cannot shut down the listener for the check of a worker: {error}");
        }
    }
}
