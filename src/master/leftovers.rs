//! Processes that workers have started and left behind.
//!
//! A worker that was told to end has `graceful_timeout`, and so has all of its session, and what has left its session with the
//! environment of the worker: what is left when the worker has ended gets the signal that tells the app to end, and SIGKILL when the
//! time is over, whatever the exit status of the worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::world::{Rest, World};
use crate::release::Name;
use crate::supervisor::Event;

/// How to end what is left of a worker.
pub(super) struct End {
    /// The app of the worker; `None` if they may be anybody's.
    pub(super) app: Option<Name>,
    /// The worker, as the log names it.
    pub(super) tag: String,
    /// The signal that tells its processes to end.
    pub(super) signal: Signal,
    /// The worker's process group has got that signal already, and a program may take a second one for more urgent.
    pub(super) group_knows: bool,
    /// The time that is left. Without any, the processes are killed at once.
    pub(super) grace: Duration,
}

/// What was done about a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing yet.
    Found,
    /// It was told to end.
    Told,
    /// Its time is over.
    Due,
    /// It was killed, and so is whatever it starts until then.
    Killed,
}

struct Left {
    end: End,
    stage: Stage,
}

/// An event about an app that waits until rests have ended.
struct Held {
    rests: Vec<Rest>,
    app: Name,
    event: Event,
}

/// What is left of workers that have ended.
#[derive(Default)]
pub(super) struct Leftovers {
    rests: BTreeMap<Rest, Left>,
    deadlines: Timers<Rest>,
    held: Vec<Held>,
    /// Something has changed since the last look.
    changed: bool,
    /// The master has looked for strangers, as it does once, before it ends.
    looked_for_strangers: bool,
    /// When they must have ended, now that the master stops.
    limit: Option<Instant>,
    /// When the master began to stop.
    stop_began: Option<Instant>,
}

impl Leftovers {
    /// A worker has ended and was reaped: ends what is left of it, if anything.
    pub(super) fn end(&mut self, rest: Rest, end: End) {
        self.add(rest, end, Stage::Found);
    }

    /// The same of one that was killed with its session: what is left of that is about to go.
    pub(super) fn end_killed(&mut self, rest: Rest, end: End) {
        self.add(rest, end, Stage::Killed);
    }

    fn add(&mut self, rest: Rest, end: End, stage: Stage) {
        self.rests.insert(rest, Left { end, stage });
        self.changed = true;
    }

    /// Holds an event back until these rests have ended.
    pub(super) fn hold(&mut self, rests: Vec<Rest>, app: Name, event: Event) {
        self.held.push(Held { rests, app, event });
    }

    /// A process that is neither worker, template nor job was reaped: it may have been the last one of a rest.
    pub(super) fn reaped(&mut self) {
        self.changed |= !self.rests.is_empty();
    }

    /// Ends what is new, kills what did not end in time, and forgets what has ended. One look serves all.
    pub(super) fn act<W: World>(&mut self, turn: &mut Turn<W>, is_known: &dyn Fn(Pid) -> bool) {
        for rest in self.deadlines.take_due(turn.now) {
            if let Some(left) = self.rests.get_mut(&rest) {
                left.stage = Stage::Due;
                self.changed = true;
            }
        }
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let wanted = self.rests.keys().copied().collect();
        let found = turn.world.rest_of(&wanted, is_known);
        let (deadlines, limit) = (&mut self.deadlines, self.limit);
        self.rests.retain(|rest, left| {
            let Some(pids) = found.get(rest) else {
                deadlines.set(*rest, None);
                return false;
            };
            let grace = left.end.grace;
            let grace = limit.map_or(grace, |at| {
                grace.min(at.saturating_duration_since(turn.now))
            });
            if left.act(turn, *rest, pids, grace) {
                deadlines.set(*rest, Some(turn.now + grace));
            }
            true
        });
        let remaining = &self.rests;
        let over = |held: &mut Held| !held.rests.iter().any(|rest| remaining.contains_key(rest));
        for held in self.held.extract_if(.., over) {
            turn.queue_event(&held.app, held.event);
        }
    }

    /// The master begins to stop.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stop_began.get_or_insert(now);
    }

    /// Whether nothing is left of anything, when all workers have ended: a process in a session of its own might still listen. It has
    /// what is left of the `whole` time of the stop.
    pub(super) fn are_gone<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        whole: Duration,
        is_known: &dyn Fn(Pid) -> bool,
    ) -> bool {
        let began = self.stop_began.unwrap_or(turn.now);
        let grace = whole.saturating_sub(turn.now.saturating_duration_since(began));
        if self.rests.is_empty() && !std::mem::replace(&mut self.looked_for_strangers, true) {
            let end = End {
                app: None,
                tag: "workers that have ended".into(),
                signal: Signal::SIGTERM,
                group_knows: false,
                grace,
            };
            self.end(Rest::Strangers, end);
            self.act(turn, is_known);
        }
        self.rests.is_empty()
    }

    /// Whether anything is left of workers of this app.
    pub(super) fn has_of(&self, app: &Name) -> bool {
        let mut rests = self.rests.values();
        rests.any(|left| left.end.app.as_ref() == Some(app))
    }

    /// Limits the remaining time, also of those that are left later.
    pub(super) fn hurry(&mut self, now: Instant, grace: Duration) {
        let latest = now + grace;
        self.limit = Some(latest);
        for rest in self.rests.keys() {
            self.deadlines.bring_forward(rest, latest);
        }
    }

    /// When the next ones are killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

impl Left {
    /// Does what is due to these processes. Returns whether their time begins.
    fn act<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        rest: Rest,
        pids: &[Pid],
        grace: Duration,
    ) -> bool {
        let End { tag, signal, .. } = &self.end;
        let left = report::processes(pids.len());
        let (stage, begins) = match self.stage {
            Stage::Told => return false,
            Stage::Found if grace.is_zero() => {
                warn!("{tag}: left {left} that it had started; sending SIGKILL");
                (Stage::Killed, false)
            }
            Stage::Found => {
                let told = self.tell(turn, rest, pids);
                if told > 0 {
                    let left = report::processes(told);
                    warn!("{tag}: left {left} that it had started; sending {signal}");
                } else {
                    info!(
                        "{tag}: waiting for {left} that it had started (the process group has got {signal})"
                    );
                }
                (Stage::Told, true)
            }
            Stage::Due => {
                warn!(
                    "{tag}: sending SIGKILL to {left} that it had started (still running after graceful_timeout)"
                );
                (Stage::Killed, false)
            }
            Stage::Killed => (Stage::Killed, false),
        };
        self.stage = stage;
        if stage == Stage::Killed {
            for &pid in pids {
                turn.world.signal_rest(pid, Signal::SIGKILL, None);
            }
        }
        begins
    }

    /// Sends the signal that tells these processes to end to those that have not got it. Returns their number.
    fn tell<W: World>(&self, turn: &mut Turn<W>, rest: Rest, pids: &[Pid]) -> usize {
        let spared = match rest {
            Rest::Session(leader) => Some(leader).filter(|_| self.end.group_knows),
            Rest::Background(_) | Rest::Stray(_) | Rest::Strangers => None,
        };
        let signal = self.end.signal;
        let sent = pids
            .iter()
            .filter(|&&pid| turn.world.signal_rest(pid, signal, spared));
        sent.count()
    }
}
