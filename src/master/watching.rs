//! Finding workers that hang.
//!
//! A WSGI worker notes in its scoreboard record since when it is in a request. The master looks there when the
//! oldest request would be too old. While a worker is idle nobody looks: the master leaves a mark in the
//! record, and a worker that begins a request and finds the mark takes it away and says so (`BUSY=1`). So a
//! master of a thousand idle workers sleeps, and busy ones cost it one look in each `timeout`. The same look
//! shows whether the worker has grown too large: it only grows by serving.
//!
//! A `command` worker with `watchdog` has to say `WATCHDOG=1` in time: sd_notify(3).

use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::unistd::Pid;

use super::{Master, report};
use crate::plan::Hang;
use crate::supervisor::Event;

/// How often the size of a worker is looked at that has a `max_memory` and does not say when it is busy.
const SIZE_INTERVAL: Duration = Duration::from_secs(10);

/// How often a worker is looked at in which one request hangs and others finish.
const NEIGHBOURS_INTERVAL: Duration = Duration::from_millis(100);

impl Master {
    /// A worker is ready: from now on it is watched.
    pub(super) fn begin_watching(&mut self, pid: Pid) {
        match self.hang(pid) {
            Hang::Unseen => self.look_at_size(pid),
            Hang::Silence(most) => self.look_again(pid, Instant::now() + most),
            Hang::Request(most) => self.look_at_request(pid, most),
        }
    }

    /// A worker of which only its size is of interest.
    fn look_at_size(&mut self, pid: Pid) {
        let child = self.children.get(pid);
        if child.is_some_and(|child| child.recycle.max_memory.is_some()) {
            self.retire_the_large(pid);
            self.look_again(pid, Instant::now() + SIZE_INTERVAL);
        }
    }

    /// The worker has begun a request, after a time without any. Nothing can be wrong with that before `timeout`
    /// has passed; and no new mark before then, lest every request of a quiet site wakes the master.
    pub(super) fn busy(&mut self, pid: Pid) {
        if let Hang::Request(most) = self.hang(pid) {
            self.look_again(pid, Instant::now() + most);
        }
    }

    /// The worker has given a sign of life.
    pub(super) fn alive(&mut self, pid: Pid) {
        if let Hang::Silence(most) = self.hang(pid) {
            self.look_again(pid, Instant::now() + most);
        }
    }

    /// A signal has stopped the worker. It may be taken for a debugger's or an operator's whim for as long as a
    /// request may take; it also answers nothing meanwhile.
    pub(super) fn stopped(&mut self, pid: Pid) {
        let most = match self.hang(pid) {
            Hang::Unseen => None,
            Hang::Silence(most) | Hang::Request(most) => Some(most),
        };
        if let Some(child) = self.children.get_mut(pid) {
            warn!("{}: stopped by a signal", report::Tag(child, pid));
            child.stopped_until = most.map(|most| Instant::now() + most);
        }
    }

    /// The worker goes on.
    pub(super) fn continued(&mut self, pid: Pid) {
        if let Some(child) = self.children.get_mut(pid) {
            info!("{}: goes on", report::Tag(child, pid));
            child.stopped_until = None;
        }
    }

    /// When a worker has to be looked at next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let times = self
            .children
            .iter()
            .flat_map(|(_, child)| [child.look_at, child.stopped_until]);
        times.flatten().min()
    }

    /// Looks at all workers whose time has come.
    pub(super) fn look(&mut self, now: Instant) {
        for pid in self.children.due(now, |child| child.stopped_until) {
            self.found_hanging(pid, "stopped by a signal for longer than it may be silent");
        }
        for pid in self.children.due(now, |child| child.look_at) {
            match self.hang(pid) {
                Hang::Unseen => self.look_at_size(pid),
                Hang::Request(most) => {
                    // It has been busy since the last look, so it may have grown.
                    self.retire_the_large(pid);
                    self.look_at_request(pid, most);
                }
                Hang::Silence(most) => {
                    let said = format!(
                        "silent for {} (watchdog {})",
                        report::short(most),
                        report::short(most)
                    );
                    self.found_hanging(pid, &said);
                }
            }
        }
    }

    fn look_at_request(&mut self, pid: Pid, most: Duration) {
        let child = self.children.get(pid);
        let Some((child, record)) = child.and_then(|child| Some((child, child.record?))) else {
            return;
        };
        let read = |master: &Self| {
            master
                .noted(child)
                .and_then(|seen| Some((seen.busy?, seen)))
        };
        let mut seen = read(self);
        if seen.is_none() {
            if let Some(scoreboard) = self.scoreboards.get(&child.app)
                && let Err(error) = scoreboard.mark(record)
            {
                debug!("cannot mark record {record} of the scoreboard: {error}");
                return;
            }
            // It may have become busy just before the mark was there.
            seen = read(self);
        }
        match seen {
            None => self.stop_looking(pid),
            Some((age, _)) if age < most => self.look_again(pid, Instant::now() + (most - age)),
            Some((age, seen)) => {
                let others = match seen.threads_busy {
                    0 | 1 => String::new(),
                    threads => format!(", {threads} threads busy"),
                };
                let (age, most) = (report::short(age), report::short(most));
                let said = format!("in {} for {age}{others} (timeout {most})", seen.line);
                if seen.threads_busy > 1 {
                    self.found_hanging_in_part(pid, &said);
                } else {
                    self.found_hanging(pid, &said);
                }
            }
        }
    }

    fn found_hanging(&mut self, pid: Pid, said: &str) {
        if let Some(child) = self.children.get_mut(pid) {
            (child.look_at, child.stopped_until) = (None, None);
            error!("{}: hangs: {said}", report::Tag(child, pid));
            self.facts
                .push_back((child.app.clone(), Event::Hung(child.worker)));
        }
    }

    /// One thread hangs and others serve: the worker is told to finish, and looked at until only that one is left.
    fn found_hanging_in_part(&mut self, pid: Pid, said: &str) {
        if let Some(child) = self.children.get_mut(pid) {
            if child.told.is_none() {
                error!(
                    "{}: hangs: {said}; its other requests may finish",
                    report::Tag(child, pid)
                );
                self.facts
                    .push_back((child.app.clone(), Event::HungInPart(child.worker)));
            }
            child.look_at = Some(Instant::now() + NEIGHBOURS_INTERVAL);
        }
    }

    fn hang(&self, pid: Pid) -> Hang {
        self.children
            .get(pid)
            .map_or(Hang::Unseen, |child| child.hang)
    }

    pub(super) fn look_again(&mut self, pid: Pid, at: Instant) {
        if let Some(child) = self.children.get_mut(pid) {
            child.look_at = Some(at);
        }
    }

    fn stop_looking(&mut self, pid: Pid) {
        if let Some(child) = self.children.get_mut(pid) {
            child.look_at = None;
        }
    }
}
