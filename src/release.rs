//! A release: the transaction that brings a generation in, over all apps. Pure: no system call, no clock, no I/O.
//!
//! A request is *prepared* (the configuration is checked, listeners and log files are opened, the commands `before` run), then *proven* (one
//! worker of each app becomes ready), then *rolled out* (the other workers follow). Until every app has proven the
//! generation, nothing of the running one is touched; whatever fails before takes everything back and says why.
//!
//! The master reports [`Fact`]s and performs [`Action`]s. [`Release::handle`] is the whole table: each state with each
//! fact. A request that comes while a release is under way is remembered: any number of them become one more
//! release, which takes what is on disk by then.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

#[cfg(test)]
mod tests;

/// An app's name.
pub type Name = Rc<str>;

/// Counts accepted configurations; never reused.
pub type Generation = u64;

/// How far the release is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// None is under way.
    Idle,
    /// The configuration is checked, files are opened, commands run.
    Preparing,
    /// The first worker of each app has to become ready.
    Proving {
        /// The candidate.
        generation: Generation,
        /// Its apps.
        apps: BTreeSet<Name>,
        /// Those that have not proven it yet.
        unproven: BTreeSet<Name>,
        /// What is known of why an app's first worker fails.
        reasons: BTreeMap<Name, String>,
    },
    /// The generation is committed; workers of older ones are being replaced.
    RollingOut {
        /// The generation.
        generation: Generation,
    },
    /// The master stops: nothing is released any more.
    Stopped,
}

/// What the release is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Somebody asks for a reload.
    Requested,
    /// Everything that comes before the first worker has succeeded; these are the apps of the new configuration.
    Prepared(BTreeSet<Name>),
    /// Something of it has failed.
    NotPrepared(String),
    /// Why an app's first worker of a generation fails; [`Fact::Failed`] follows.
    Reason(Name, Generation, String),
    /// An app's first worker of this generation is ready, and has passed its check.
    Proven(Name, Generation),
    /// It has ended, or failed its check.
    Failed(Name, Generation),
    /// All apps are served by the committed generation alone.
    RolledOut,
    /// They will not be for now: crashes hold replacements back, or all workers are paused.
    Stuck,
    /// The master stops.
    Stopping,
}

/// What the master has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin the preparation.
    Prepare,
    /// End the preparation that is under way; nobody waits for it.
    Abandon,
    /// Start one worker of each app of the candidate.
    Propose(Generation, BTreeSet<Name>),
    /// Let an app take the candidate.
    Commit(Name),
    /// Let an app's workers finish what they serve and end.
    Remove(Name),
    /// Let an app forget the candidate; resumes it if it was paused.
    RollBack(Name),
    /// The candidate is the running configuration now: let go of what only the old one needed.
    TakeOver(Generation),
    /// Let go of what was opened for the candidate only.
    Discard,
    /// The release is complete.
    Done(Generation),
    /// The release has failed for this reason; the running generation, if there is one, is kept.
    RolledBack(String),
    /// The first generation could not start, for this reason: stop.
    CannotStart(String),
}

/// How the last release ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is complete.
    Done(Generation),
    /// It has failed for this reason.
    RolledBack(String),
}

/// The release and what it builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    state: State,
    /// The committed generation and its apps.
    current: Option<(Generation, BTreeSet<Name>)>,
    /// The number given last.
    last: Generation,
    /// Another release was asked for meanwhile.
    again: bool,
    outcome: Option<Outcome>,
}

impl Default for Release {
    fn default() -> Self {
        Self::new()
    }
}

impl Release {
    /// A master that runs nothing yet; its first release is under preparation.
    pub fn new() -> Self {
        Self {
            state: State::Preparing,
            current: None,
            last: 0,
            again: false,
            outcome: None,
        }
    }

    /// How far it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The committed generation.
    pub fn current(&self) -> Option<Generation> {
        self.current.as_ref().map(|(generation, _)| *generation)
    }

    /// The number that the next candidate will have.
    pub fn next(&self) -> Generation {
        self.last + 1
    }

    /// The generation that is being proven.
    pub fn candidate(&self) -> Option<Generation> {
        match self.state {
            State::Proving { generation, .. } => Some(generation),
            _ => None,
        }
    }

    /// Whether another release begins as soon as this one is over.
    pub fn is_wanted(&self) -> bool {
        self.again
    }

    /// How the last release ended, if one has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Takes a fact; says what has to be done, in this order.
    #[must_use]
    pub fn handle(&mut self, fact: Fact) -> Vec<Action> {
        match (&mut self.state, fact) {
            (State::Stopped, Fact::Prepared(_) | Fact::NotPrepared(_)) => vec![Action::Discard],
            (State::Stopped, _) => Vec::new(),
            (state, Fact::Stopping) => {
                let action = match state {
                    State::Preparing => Some(Action::Abandon),
                    State::Proving { .. } => Some(Action::Discard),
                    _ => None,
                };
                *state = State::Stopped;
                self.again = false;
                action.into_iter().collect()
            }

            (State::Idle, Fact::Requested) => self.prepare(),
            (
                State::Preparing | State::Proving { .. } | State::RollingOut { .. },
                Fact::Requested,
            ) => {
                self.again = true;
                Vec::new()
            }

            (State::Preparing, Fact::Prepared(apps)) => self.propose(apps),
            (State::Preparing, Fact::NotPrepared(reason)) => {
                let mut actions = vec![Action::Discard];
                actions.extend(self.keep_current(reason));
                actions
            }
            // Nothing was being prepared: what comes now belongs to nothing.
            (_, Fact::Prepared(_) | Fact::NotPrepared(_)) => vec![Action::Discard],

            (
                State::Proving {
                    generation,
                    reasons,
                    ..
                },
                Fact::Reason(app, of, reason),
            ) if *generation == of => {
                reasons.insert(app, reason);
                Vec::new()
            }
            (
                State::Proving {
                    generation,
                    unproven,
                    ..
                },
                Fact::Proven(app, of),
            ) if *generation == of => {
                let is_first = self.current.is_none();
                let all = unproven.remove(&app) && unproven.is_empty();
                // At the first start there is nothing to keep: each app goes on at once.
                let mut actions: Vec<_> = is_first
                    .then_some(Action::Commit(app))
                    .into_iter()
                    .collect();
                if all {
                    actions.extend(self.commit());
                }
                actions
            }
            (
                State::Proving {
                    generation,
                    reasons,
                    ..
                },
                Fact::Failed(app, of),
            ) if *generation == of => {
                let reason = reasons.remove(&app);
                let reason =
                    reason.unwrap_or_else(|| "its first worker could not be started".into());
                self.roll_back(format!("app={app}: {reason}"))
            }
            // Of another generation, or of one that is decided.
            (_, Fact::Reason(..) | Fact::Proven(..) | Fact::Failed(..)) => Vec::new(),

            (&mut State::RollingOut { generation }, Fact::RolledOut) => {
                self.outcome = Some(Outcome::Done(generation));
                let mut actions = vec![Action::Done(generation)];
                actions.extend(self.end());
                actions
            }
            // The release that waits may be what ends the trouble.
            (State::RollingOut { .. }, Fact::Stuck) if self.again => self.prepare(),
            (_, Fact::RolledOut | Fact::Stuck) => Vec::new(),
        }
    }

    fn prepare(&mut self) -> Vec<Action> {
        self.again = false;
        self.state = State::Preparing;
        vec![Action::Prepare]
    }

    /// The release is over, whichever way: the next one begins if it is wanted.
    fn end(&mut self) -> Vec<Action> {
        self.state = State::Idle;
        if self.again {
            self.prepare()
        } else {
            Vec::new()
        }
    }

    fn propose(&mut self, apps: BTreeSet<Name>) -> Vec<Action> {
        self.last += 1;
        self.state = State::Proving {
            generation: self.last,
            apps: apps.clone(),
            unproven: apps.clone(),
            reasons: BTreeMap::new(),
        };
        vec![Action::Propose(self.last, apps)]
    }

    fn commit(&mut self) -> Vec<Action> {
        let State::Proving {
            generation, apps, ..
        } = std::mem::replace(&mut self.state, State::Idle)
        else {
            return Vec::new();
        };
        self.state = State::RollingOut { generation };
        let old = self.current.replace((generation, apps.clone()));
        let is_first = old.is_none();
        let old = old.map(|(_, apps)| apps).unwrap_or_default();
        let commits = apps.iter().filter(|_| !is_first).cloned();
        let mut actions: Vec<_> = commits.map(Action::Commit).collect();
        actions.extend(old.difference(&apps).cloned().map(Action::Remove));
        actions.push(Action::TakeOver(generation));
        actions
    }

    /// Takes the candidate back.
    fn roll_back(&mut self, reason: String) -> Vec<Action> {
        let State::Proving { apps, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return Vec::new();
        };
        let old = self.current.iter().flat_map(|(_, apps)| apps.iter());
        let old: BTreeSet<_> = old.cloned().collect();
        let mut actions: Vec<_> = match self.current.is_some() {
            true => apps.difference(&old).cloned().map(Action::Remove).collect(),
            false => Vec::new(),
        };
        actions.push(Action::Discard);
        actions.extend(self.keep_current(reason));
        actions
    }

    /// The candidate is gone: what runs is kept, and says so; a first start has nothing to keep.
    fn keep_current(&mut self, reason: String) -> Vec<Action> {
        self.outcome = Some(Outcome::RolledBack(reason.clone()));
        let Some((_, apps)) = &self.current else {
            self.state = State::Stopped;
            self.again = false;
            return vec![Action::CannotStart(reason)];
        };
        let mut actions: Vec<_> = apps.iter().cloned().map(Action::RollBack).collect();
        actions.push(Action::RolledBack(reason));
        actions.extend(self.end());
        actions
    }
}
