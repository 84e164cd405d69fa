//! Limits for what workers and templates can make the master do. Whatever sends more than a limit allows is not read until the next
//! window, so that it waits, and costs a small share of the master's time.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::limit::Limit;
use super::timers::Timers;
use super::turn::Turn;
use super::world::{Source, World};
use crate::release::Name;

/// The window of all limits but those of log lines.
const WINDOW: Duration = Duration::from_millis(100);
/// The maximum number of messages of an app per window.
const MAX_MESSAGES: u32 = 512;
/// The maximum number of replies of a template per window.
const MAX_REPLIES: u32 = 512;
/// The maximum number of turns per window that events cause; before each further one the master rests.
const MAX_TURNS: u32 = 100;

/// The window of log lines.
const LOG_WINDOW: Duration = Duration::from_secs(60);
/// The maximum number of log lines about unknown senders of an app.
const MAX_UNKNOWN_SENDERS: u32 = 3;
/// The maximum number of log lines about workers of an app that signals have stopped or continued.
const MAX_STOPS: u32 = 20;

/// What was sent lately, and what is not read for a while.
pub(super) struct Floods {
    messages: Limit<Name>,
    replies: Limit<Pid>,
    turns: Limit<()>,
    unknown_senders: Limit<Name>,
    stops: Limit<Name>,
    paused: Timers<Source>,
}

impl Default for Floods {
    fn default() -> Self {
        Self {
            messages: Limit::new(MAX_MESSAGES, WINDOW),
            replies: Limit::new(MAX_REPLIES, WINDOW),
            turns: Limit::new(MAX_TURNS, WINDOW),
            unknown_senders: Limit::new(MAX_UNKNOWN_SENDERS, LOG_WINDOW),
            stops: Limit::new(MAX_STOPS, LOG_WINDOW),
            paused: Timers::default(),
        }
    }
}

impl Floods {
    /// Counts messages of an app; false if no more are to be read for now.
    pub(super) fn messages<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        app: &Name,
        number: usize,
    ) -> bool {
        let within = self.messages.add(app, number, turn.now);
        self.pause(turn, within, || Source::Messages(app.clone()))
    }

    /// Counts replies of a template; false if no more are to be read for now.
    pub(super) fn replies<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        template: Pid,
        number: usize,
    ) -> bool {
        let within = self.replies.add(&template, number, turn.now);
        self.pause(turn, within, || Source::Template(template))
    }

    fn pause<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        within: Result<(), Instant>,
        source: impl FnOnce() -> Source,
    ) -> bool {
        let Err(until) = within else { return true };
        let source = source();
        turn.world.pause(&source);
        self.paused.set(source, Some(until));
        false
    }

    /// Reads again what was paused.
    pub(super) fn resume<W: World>(&mut self, turn: &mut Turn<W>) {
        for source in self.paused.take_due(turn.now) {
            turn.world.resume(&source);
        }
    }

    /// When something is read again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.paused.next()
    }

    /// Counts a turn that events have caused; whether the master is to rest for a moment.
    pub(super) fn is_turning_too_often(&mut self, now: Instant) -> bool {
        self.turns.add(&(), 1, now).is_err()
    }

    /// Whether the log may tell of one more unknown sender.
    pub(super) fn may_log_unknown_sender(&mut self, app: &Name, now: Instant) -> bool {
        self.unknown_senders.add(app, 1, now).is_ok()
    }

    /// Whether the log may tell of one more worker that a signal has stopped or continued.
    pub(super) fn may_log_stop(&mut self, app: &Name, now: Instant) -> bool {
        self.stops.add(app, 1, now).is_ok()
    }

    /// A template has ended.
    pub(super) fn forget_template(&mut self, template: Pid) {
        self.replies.forget(&template);
        self.paused.set(Source::Template(template), None);
    }

    /// An app was removed.
    pub(super) fn forget(&mut self, app: &Name) {
        self.messages.forget(app);
        self.unknown_senders.forget(app);
        self.stops.forget(app);
        self.paused.set(Source::Messages(app.clone()), None);
    }
}
