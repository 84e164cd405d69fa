//! What the workers of the front are handed at their start and while they run.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use log::error;
use mio::Interest;
use nix::unistd::Pid;
use preforkd_worker::acme::Challenges;
use preforkd_worker::running::has_part;
use preforkd_worker::updates::Kind;
use zeroize::Zeroizing;

use super::System;
use crate::effects::certificate_keeper::CertificateKeeper;
use crate::effects::certificate_watch::CertificateWatch;
use crate::effects::sealed::sealed;
use crate::effects::updates::Channel;
use crate::plan::{Acme, Secret};
use crate::release::Name;
use crate::sys;

impl System {
    /// A channel for a worker of the front that is about to start, with all that it needs; and the worker's end.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub(super) fn first_updates(
        &mut self,
        certificates: Option<&Secret>,
    ) -> io::Result<(Channel, OwnedFd)> {
        let now = Instant::now();
        self.tickets.renew(now, sys::random_text)?;
        let (mut channel, theirs) = Channel::new()?;
        channel.send(Kind::Tickets.name(), &self.ticket_update(now)?);
        for (app, state) in &self.upstreams {
            channel.send(&about(app), state);
        }
        if let Some(certificates) = certificates {
            let update = sealed(&certificates.0).map(Rc::new)?;
            channel.send(Kind::Certificates.name(), &update);
        }
        if let Some(challenges) = &self.challenges {
            channel.send(Kind::Challenges.name(), challenges);
        }
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

    /// Hands certificates to a worker that runs.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn send_certificates(&mut self, worker: Pid, all: &Secret) -> io::Result<()> {
        let update = sealed(&all.0).map(Rc::new)?;
        self.updates
            .send(worker, Kind::Certificates.name(), &update);
        Ok(())
    }

    /// Starts the process that watches certificates. There is one at most.
    ///
    /// # Errors
    /// The process cannot be created.
    pub(super) fn watch_certificates(&mut self, front: &Path, running: &Secret) -> io::Result<Pid> {
        let watch = CertificateWatch::start(front, sealed(&running.0)?.as_fd())?;
        let pid = watch.pid;
        self.certificate_watch = Some(watch);
        Ok(pid)
    }

    /// What it has found, when it has ended. One that was replaced meanwhile has found nothing.
    ///
    /// # Errors
    /// That cannot be read.
    pub(super) fn certificates_of_watch(&mut self, job: Pid) -> io::Result<Option<Secret>> {
        let watch = self.certificate_watch.take_if(|watch| watch.pid == job);
        watch.map_or(Ok(None), CertificateWatch::found)
    }

    /// Starts the process that keeps certificates. There is one at most.
    ///
    /// # Errors
    /// The process cannot be created.
    pub(super) fn keep_certificates(
        &mut self,
        wanted: &Acme,
        told: Option<&Secret>,
    ) -> io::Result<Pid> {
        let orders = sealed(&serde_json::to_string(wanted)?)?;
        let told = match told {
            Some(told) => sealed(&told.0)?,
            None => sealed(&Challenges::default().encode()?)?,
        };
        let keeper = CertificateKeeper::start(orders.as_fd(), told.as_fd())?;
        let pid = keeper.pid;
        self.certificate_keeper = Some(keeper);
        Ok(pid)
    }

    /// The challenges that it wants told, when it has ended. One that was replaced meanwhile wants none.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn challenges_of_keeper(&mut self, job: Pid) -> io::Result<Option<Secret>> {
        let keeper = self.certificate_keeper.take_if(|keeper| keeper.pid == job);
        keeper.map_or(Ok(None), CertificateKeeper::found)
    }

    /// Tells all workers of the front, and later ones, which challenges to answer.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn send_challenges(&mut self, challenges: &Secret) -> io::Result<()> {
        let update = sealed(&challenges.0).map(Rc::new)?;
        self.updates.send_all(Kind::Challenges.name(), &update);
        self.challenges = Some(update);
        Ok(())
    }

    /// A worker was reaped.
    pub(super) fn forget_updates(&mut self, worker: Pid) {
        self.fronts.remove(&worker);
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

    /// Tells all workers of the front, and later ones, where the workers of an app are. Without a state later ones are not told.
    pub(super) fn send_upstream(&mut self, app: &Name, state: Option<&str>) {
        let Some(state) = state else {
            self.upstreams.remove(app);
            return;
        };
        match sealed(state) {
            Ok(state) => {
                let state = Rc::new(state);
                self.updates.send_all(&about(app), &state);
                self.upstreams.insert(app.clone(), state);
            }
            Err(error) => error!(
                "app={app}: cannot tell the front where its workers are: {error}; it goes on with those that it knows"
            ),
        }
    }

    /// The requests that workers of the front have at an address of a worker; none if one has not taken in all updates.
    pub(super) fn noted_requests(&self, app: &Name, address: &str) -> Option<u64> {
        // The front calls it by this name.
        let upstream = format!("app={app}");
        let mut all = 0_u64;
        for (&pid, (front, record)) in &self.fronts {
            let Some(board) = self.scoreboards.get(front).filter(|_| has_part(*record)) else {
                continue;
            };
            let noted = board.noted(*record, pid.as_raw().unsigned_abs(), &upstream, address)?;
            if !self.updates.has_taken(pid, noted.taken) {
                return None;
            }
            all = all.saturating_add(noted.requests);
        }
        Some(all)
    }

    fn ticket_update(&self, now: Instant) -> io::Result<Rc<OwnedFd>> {
        let text = serde_json::to_string(&self.tickets.update(now)).map_err(io::Error::from)?;
        sealed(&Zeroizing::new(text)).map(Rc::new)
    }
}

/// The packet of an update about where the workers of an app are.
fn about(app: &Name) -> String {
    format!("{} {app}", Kind::Upstream.name())
}
