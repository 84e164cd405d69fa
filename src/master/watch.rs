//! Finds workers that hang, have grown too large or are too old.
//!
//! A WSGI worker notes the start of its oldest request in its scoreboard record. The master reads the record when that request
//! would be too old. While a worker is idle there are no reads: the master sets a mark in the record, and a worker that begins a
//! request and finds the mark clears it and sends `BUSY=1`. So a master of a thousand idle workers sleeps, and each busy worker
//! costs one read per `timeout`. Its size is checked then, too, because it grows only by serving, and once after its start,
//! which tells a `max_memory` that no worker can keep from one that a worker has outgrown.
//!
//! A `command` worker with `watchdog` must send `WATCHDOG=1` in time: sd_notify(3).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::unistd::Pid;

use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::workers::children::{Child, Children};
use super::world::World;
use crate::plan::Hang;
use crate::release::{Generation, Name};
use crate::supervisor::Event;

/// The interval of size checks for a worker that has a `max_memory` and does not report when it is busy.
const SIZE_INTERVAL: Duration = Duration::from_secs(10);

/// The interval of checks for a worker in which one request hangs and others finish.
const NEIGHBOURS_INTERVAL: Duration = Duration::from_millis(100);

/// The time a worker serves at least before another replaces it at its own request or for its size: the replacement of workers
/// that all ask for it at once would take all the machine's time.
const MIN_AGE: Duration = Duration::from_secs(1);

/// A worker that is too large when it has served for less than this is no better than a fresh one.
const SOON: Duration = Duration::from_secs(60);

/// The reason of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// Its oldest request, or its silence.
    Hang,
    /// A signal has stopped it.
    Stopped,
    /// It is too old.
    Age,
    /// It is to be replaced.
    Recycle,
}

/// When each worker is checked next.
#[derive(Default)]
pub(super) struct Watch {
    looks: Timers<(Pid, Look)>,
    /// Reading a size takes the kernel time in proportion to it, so only one is read per turn.
    sizes: Timers<Pid>,
    /// The generation of each app for which it was said that `max_memory` is too small.
    too_small: BTreeMap<Name, Generation>,
}

impl Watch {
    /// A worker is ready: watches it from now on.
    pub(super) fn begin<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &mut Children,
        pid: Pid,
    ) {
        let Some(child) = children.get(pid) else {
            return;
        };
        let recycle = child.plan.recycle;
        if let Some(age) = recycle.max_age {
            // Up to a tenth less, at random, so that workers that were started together do not end together.
            let at = turn.now + age.mul_f64(1.0 - fastrand::f64() / 10.0);
            self.looks.set((pid, Look::Age), Some(at));
        }
        let hang = child.plan.hang;
        if recycle.max_memory.is_some() {
            // Later than at once, because some need more memory to start than to serve.
            self.sizes.set(pid, Some(turn.now + MIN_AGE));
        }
        match hang {
            Hang::Unseen => {}
            Hang::Silence(most) => self.look_again(pid, turn.now + most),
            Hang::Request(most) => self.look_at_request(turn, children, pid, most),
        }
    }

    /// A worker was reaped.
    pub(super) fn end(&mut self, pid: Pid) {
        for look in [Look::Hang, Look::Stopped, Look::Age, Look::Recycle] {
            self.looks.set((pid, look), None);
        }
        self.sizes.set(pid, None);
    }

    /// The worker has begun a request after an idle time. Nothing can be wrong with it before `timeout` has passed. There is
    /// no new mark before then, so that not every request of a quiet site wakes the master.
    pub(super) fn busy(&mut self, now: Instant, pid: Pid, child: &Child) {
        if let Hang::Request(most) = child.plan.hang {
            self.look_again(pid, now + most);
        }
    }

    /// The worker has sent WATCHDOG=1.
    pub(super) fn alive(&mut self, now: Instant, pid: Pid, child: &Child) {
        if let Hang::Silence(most) = child.plan.hang
            && child.ready_at.is_some()
        {
            self.look_again(pid, now + most);
        }
    }

    /// A signal has stopped the worker. A debugger or an operator may have sent it, so it is tolerated for as long as a request
    /// may take.
    pub(super) fn stopped(&mut self, now: Instant, pid: Pid, child: &Child, logged: bool) {
        if logged {
            warn!("{}: stopped by a signal", report::Tag(child, pid));
        }
        if let Hang::Silence(most) | Hang::Request(most) = child.plan.hang {
            self.looks.set((pid, Look::Stopped), Some(now + most));
        }
    }

    /// The worker was continued.
    pub(super) fn continued(&mut self, pid: Pid, child: &Child, logged: bool) {
        if logged {
            info!("{}: continued", report::Tag(child, pid));
        }
        self.looks.set((pid, Look::Stopped), None);
    }

    /// When the next check is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looks.next().into_iter().chain(self.sizes.next()).min()
    }

    /// Checks all workers that are due, but reads the size of only one.
    pub(super) fn look<W: World>(&mut self, turn: &mut Turn<W>, children: &mut Children) {
        for (pid, look) in self.looks.take_due(turn.now) {
            let Some(child) = children.get(pid) else {
                continue;
            };
            match (look, child.plan.hang) {
                (Look::Age, _) => self.retire(turn, children, pid, "it has reached max_age"),
                (Look::Recycle, _) => turn.queue_event(&child.app, Event::Recycle(child.worker)),
                (Look::Stopped, _) => {
                    self.hangs(
                        turn,
                        child,
                        pid,
                        "stopped by a signal for longer than its time limit",
                    );
                }
                (Look::Hang, Hang::Request(most)) => {
                    if child.plan.recycle.max_memory.is_some() {
                        // It has been busy since the last check, so it may have grown.
                        self.sizes.set(pid, Some(turn.now));
                    }
                    self.look_at_request(turn, children, pid, most);
                }
                (Look::Hang, Hang::Silence(most)) => {
                    let most = report::short(most);
                    let said = format!("no WATCHDOG=1 for {most} (watchdog)");
                    self.hangs(turn, child, pid, &said);
                }
                (Look::Hang, Hang::Unseen) => {}
            }
        }
        if let Some(pid) = self.sizes.take_one_due(turn.now) {
            self.look_at_size(turn, children, pid);
        }
    }

    fn look_at_size<W: World>(&mut self, turn: &mut Turn<W>, children: &mut Children, pid: Pid) {
        let is_ours = |child: &&Child| !child.retired && child.adopted;
        let Some(child) = children.get(pid).filter(is_ours) else {
            return;
        };
        let Some(most) = child.plan.recycle.max_memory else {
            return;
        };
        if !matches!(child.plan.hang, Hang::Request(_)) {
            self.sizes.set(pid, Some(turn.now + SIZE_INTERVAL));
        }
        let Some(share) = turn.world.memory(pid).filter(|&share| share > most) else {
            return;
        };
        let (share, most) = (bytesize::ByteSize(share), bytesize::ByteSize(most));
        let reason = format!("its share of memory is {share} (max_memory {most})");
        let served = child.ready_at.unwrap_or(turn.now);
        let served = turn.now.saturating_duration_since(served);
        if served >= SOON {
            return self.retire(turn, children, pid, &reason);
        }
        let told = self.too_small.insert(child.app.clone(), child.generation);
        let tag = report::Tag(child, pid);
        match told == Some(child.generation) {
            true => info!("{tag}: to be replaced: {reason}"),
            false => warn!(
                "{tag}: to be replaced: {reason}, {} after it was ready; max_memory is less than a fresh worker needs (raise it); such workers are replaced at growing intervals",
                report::short(served)
            ),
        }
        turn.queue_event(&child.app, Event::Outgrown(child.worker));
        if let Some(child) = children.get_mut(pid) {
            child.retired = true;
        }
    }

    /// Has a worker replaced, once.
    pub(super) fn retire<W>(
        &mut self,
        turn: &mut Turn<W>,
        children: &mut Children,
        pid: Pid,
        reason: &str,
    ) {
        if let Some(child) = children.get_mut(pid)
            && !std::mem::replace(&mut child.retired, true)
        {
            info!("{}: to be replaced: {reason}", report::Tag(child, pid));
            let at = child.ready_at.unwrap_or(turn.now) + MIN_AGE;
            self.looks.set((pid, Look::Recycle), Some(at));
        }
    }

    fn look_at_request<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        children: &Children,
        pid: Pid,
        most: Duration,
    ) {
        let Some(child) = children.get(pid) else {
            return;
        };
        let Some(record) = child.record else { return };
        let served = turn.now.saturating_duration_since(child.asked_for);
        let read = |turn: &Turn<W>| {
            let seen = turn.world.read(&child.app, record, served)?;
            Some((seen.busy?, seen))
        };
        let mut seen = read(turn);
        if seen.is_none() {
            if let Err(error) = turn.world.mark(&child.app, record) {
                debug!(
                    "{}: cannot mark its scoreboard record: {error}",
                    report::Tag(child, pid)
                );
                return;
            }
            // It may have become busy just before the mark was set.
            seen = read(turn);
        }
        match seen {
            None => {}
            Some((age, _)) if age < most => self.look_again(pid, turn.now + (most - age)),
            Some((age, seen)) => {
                let others = match seen.threads_busy {
                    0 | 1 => String::new(),
                    threads => format!(", {threads} threads busy"),
                };
                let (age, most) = (report::short(age), report::short(most));
                let said = format!("in {} for {age}{others} (timeout {most})", seen.line);
                if seen.threads_busy > 1 {
                    self.hangs_in_part(turn, child, pid, &said);
                } else {
                    self.hangs(turn, child, pid, &said);
                }
            }
        }
    }

    pub(super) fn hangs<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        child: &Child,
        pid: Pid,
        said: &str,
    ) {
        self.looks.set((pid, Look::Hang), None);
        self.looks.set((pid, Look::Stopped), None);
        error!("{}: hangs: {said}", report::Tag(child, pid));
        turn.queue_event(&child.app, Event::Hung(child.worker));
    }

    /// One thread hangs and others serve: tells the worker to finish, and checks it until only that one is left.
    fn hangs_in_part<W: World>(&mut self, turn: &mut Turn<W>, child: &Child, pid: Pid, said: &str) {
        if child.signalled.is_none() {
            error!(
                "{}: hangs: {said}; its other requests may finish",
                report::Tag(child, pid)
            );
            turn.queue_event(&child.app, Event::HungInPart(child.worker));
        }
        self.look_again(pid, turn.now + NEIGHBOURS_INTERVAL);
    }

    fn look_again(&mut self, pid: Pid, at: Instant) {
        self.looks.set((pid, Look::Hang), Some(at));
    }
}
