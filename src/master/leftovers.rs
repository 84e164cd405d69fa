//! Processes that workers have started and left behind: they get SIGTERM when the worker has ended, and SIGKILL after
//! `graceful_timeout`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::warn;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::report;
use super::timers::Timers;
use super::turn::Turn;
use super::world::World;

/// The sessions of workers that have ended, in which processes still run.
#[derive(Default)]
pub(super) struct Leftovers {
    /// The worker of each, as the log names it.
    sessions: BTreeMap<Pid, String>,
    deadlines: Timers<Pid>,
    /// The most that they get now that the master stops.
    limit: Option<Duration>,
}

impl Leftovers {
    /// A worker has ended and was reaped: ends what is left of its session.
    pub(super) fn end<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        leader: Pid,
        tag: String,
        grace: Duration,
    ) {
        let number = turn.world.signal_rest(leader, Some(Signal::SIGTERM));
        if number > 0 {
            let left = report::processes(number);
            warn!("{tag}: left {left} that it had started; sending SIGTERM");
            self.sessions.insert(leader, tag);
            let grace = self.limit.map_or(grace, |limit| limit.min(grace));
            self.deadlines.set(leader, Some(turn.now + grace));
        }
    }

    /// A process that is neither worker, template nor job was reaped: it may have been the last one of a session.
    pub(super) fn reaped<W: World>(&mut self, turn: &mut Turn<W>) {
        let deadlines = &mut self.deadlines;
        self.sessions.retain(|&leader, _| {
            let remains = turn.world.signal_rest(leader, None) > 0;
            if !remains {
                deadlines.set(leader, None);
            }
            remains
        });
    }

    /// Kills what did not end in time.
    pub(super) fn kill_overdue<W: World>(&mut self, turn: &mut Turn<W>) {
        for leader in self.deadlines.take_due(turn.now) {
            let number = turn.world.signal_rest(leader, Some(Signal::SIGKILL));
            if let Some(tag) = self.sessions.get(&leader).filter(|_| number > 0) {
                let left = report::processes(number);
                warn!(
                    "{tag}: sending SIGKILL to {left} that it had started (still running after graceful_timeout)"
                );
            }
        }
    }

    /// Limits the remaining time, also of those that are left later.
    pub(super) fn hurry(&mut self, now: Instant, grace: Duration) {
        self.limit = Some(grace);
        let latest = now + grace;
        for leader in self.sessions.keys() {
            self.deadlines.bring_forward(leader, latest);
        }
    }

    /// When the next ones are killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Whether none are left.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
