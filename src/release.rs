//! A release: the transaction over all apps that brings a generation in. Pure: no system call, no clock, no I/O.
//!
//! A request is *prepared* (the configuration is checked, listeners and log files are opened, the commands `before` run), then
//! *proven* (one worker of each app becomes ready), then *rolled out* (the other workers follow). Until every app has proven the
//! generation, nothing of the running one is touched; a failure before that rolls everything back and gives its reason. An app's
//! [`Part`] says whether it takes part at all, which apps come before it, and whether it ends before others start.
//!
//! The master reports [`Fact`]s and performs [`Action`]s. [`Release::handle`] is the whole table: each state with each
//! fact. A request during a release is remembered: any number of them become one more release, which reads what is on disk
//! then.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

mod last;
#[cfg(test)]
mod tests;

pub use last::{displace_before, propose_last};

/// The name of an app.
pub type Name = Rc<str>;

/// Counts accepted configurations. Never reused.
pub type Generation = u64;

/// What a release does with an app of the new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Its first worker must become ready. It is started when all of these apps that have to prove the generation have done so.
    Prove {
        /// The apps that come before it. They must not wait for it in turn.
        after: BTreeSet<Name>,
    },
    /// It takes over the generation without proof, together with the other apps: its failure must not hold them up.
    Install,
    /// It continues with the generation that it runs.
    Keep,
    /// It is not in the new configuration, and others may need what its workers hold. These end when all of these apps have proven the
    /// generation, and are started again if it is rolled back.
    Displace {
        /// The apps that come before it. They must not wait for it in turn.
        after: BTreeSet<Name>,
    },
}

impl Part {
    /// An app that is proven at once.
    pub fn prove() -> Self {
        Self::Prove {
            after: BTreeSet::new(),
        }
    }

    /// The apps that come before one that has to prove the generation, or to end.
    pub fn after(&self) -> Option<&BTreeSet<Name>> {
        match self {
            Self::Prove { after } | Self::Displace { after } => Some(after),
            Self::Install | Self::Keep => None,
        }
    }

    /// Whether the app is in the new configuration.
    fn is_configured(&self) -> bool {
        !matches!(self, Self::Displace { .. })
    }
}

/// The apps of a new configuration, and those that end before it takes over.
pub type Parts = BTreeMap<Name, Part>;

/// The state of the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No release is under way.
    Idle,
    /// The configuration is checked, files are opened, commands run.
    Preparing,
    /// The first worker of each app must become ready.
    Proving {
        /// The candidate.
        generation: Generation,
        /// Its apps.
        parts: Parts,
        /// The apps whose first worker was started, and that have not proven it yet, and those that have not ended yet.
        unproven: BTreeSet<Name>,
        /// The apps that wait for others.
        waiting: BTreeSet<Name>,
        /// Known reasons why an app's first worker fails.
        reasons: BTreeMap<Name, String>,
    },
    /// The generation is committed; workers of older ones are being replaced.
    RollingOut {
        /// The generation.
        generation: Generation,
    },
    /// The master stops. There are no further releases.
    Stopped,
}

/// A fact that the master reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A reload is requested.
    Requested,
    /// The preparation has succeeded; these are the apps of the new configuration.
    Prepared(Parts),
    /// The preparation has failed, for this reason.
    NotPrepared(String),
    /// Why an app's first worker of a generation fails. [`Fact::Failed`] follows.
    Reason(Name, Generation, String),
    /// An app's first worker of this generation is ready, and has passed its check. Of an app that is displaced: nothing of its workers
    /// is left.
    Proven(Name, Generation),
    /// An app's first worker of this generation has ended, or failed its check.
    Failed(Name, Generation),
    /// The app's first worker of this generation, the first one, cannot be started for now, and another release is not to wait for it.
    Postponed(Name, Generation),
    /// The committed generation alone serves all apps.
    RolledOut,
    /// The rollout will not complete for now: crashes delay replacements, or all workers are paused.
    Stuck,
    /// The master stops.
    Stopping,
}

/// What the master has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin the preparation.
    Prepare,
    /// Abandon the preparation that is under way.
    Abandon,
    /// Start one worker of each of these apps of the candidate.
    Propose(Generation, BTreeSet<Name>),
    /// End the workers of an app that this candidate does not have.
    Displace(Generation, Name),
    /// Make the candidate the current generation of an app.
    Commit(Name),
    /// Make the candidate the current generation of an app that has not proven it.
    Install(Generation, Name),
    /// The same, as another release is not to wait until it is proven.
    Postpone(Generation, Name),
    /// Drain the workers of an app that is no longer configured.
    Remove(Name),
    /// Make an app drop the candidate; resumes it if it was paused.
    RollBack(Name),
    /// The candidate is the running configuration now: close what only the old one needed.
    TakeOver(Generation),
    /// Close what was opened for the candidate only.
    Discard,
    /// The release is complete.
    Done(Generation),
    /// The release has failed for this reason. The running generation, if any, is kept.
    RolledBack(String),
    /// The first generation could not start, for this reason: stop.
    CannotStart(String),
}

/// The result of the last release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is complete.
    Done(Generation),
    /// It has failed for this reason.
    RolledBack(String),
}

/// The release, and the generation it builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    state: State,
    /// The committed generation and its apps.
    current: Option<(Generation, BTreeSet<Name>)>,
    /// The last generation number used.
    last: Generation,
    /// Another release was requested meanwhile.
    again: bool,
    outcome: Option<Outcome>,
}

impl Default for Release {
    fn default() -> Self {
        Self::new()
    }
}

impl Release {
    /// A master that runs nothing yet. Its first release is being prepared.
    pub fn new() -> Self {
        Self {
            state: State::Preparing,
            current: None,
            last: 0,
            again: false,
            outcome: None,
        }
    }

    /// The state of the release.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The committed generation.
    pub fn current(&self) -> Option<Generation> {
        self.current.as_ref().map(|(generation, _)| *generation)
    }

    /// The number of the next candidate.
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

    /// Whether another release begins when this one is over.
    pub fn is_wanted(&self) -> bool {
        self.again
    }

    /// The result of the last release, if any.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Records a fact and returns what to do, in this order.
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

            (State::Preparing, Fact::Prepared(parts)) => self.propose(parts),
            (State::Preparing, Fact::NotPrepared(reason)) => {
                let mut actions = vec![Action::Discard];
                actions.extend(self.keep_current(reason));
                actions
            }
            // Nothing is being prepared: this result belongs to no release.
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
                // At the first start there is nothing to protect: each app continues at once.
                let continues = unproven.remove(&app) && self.current.is_none();
                let mut actions: Vec<_> = continues
                    .then_some(Action::Commit(app))
                    .into_iter()
                    .collect();
                actions.extend(self.proceed());
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
            (
                State::Proving {
                    generation,
                    parts,
                    unproven,
                    waiting,
                    ..
                },
                Fact::Postponed(app, of),
            ) if *generation == of && self.current.is_none() && self.again => {
                let mut after = waiting.iter().filter_map(|name| parts.get(name)?.after());
                if after.any(|after| after.contains(&app)) || !unproven.remove(&app) {
                    return Vec::new();
                }
                let mut actions = vec![Action::Postpone(of, app)];
                actions.extend(self.proceed());
                actions
            }
            // About another generation, or about one that is decided.
            (_, Fact::Reason(..) | Fact::Proven(..) | Fact::Failed(..) | Fact::Postponed(..)) => {
                Vec::new()
            }

            (&mut State::RollingOut { generation }, Fact::RolledOut) => {
                self.outcome = Some(Outcome::Done(generation));
                let mut actions = vec![Action::Done(generation)];
                actions.extend(self.end());
                actions
            }
            // The waiting release may be what ends the trouble.
            (State::RollingOut { .. }, Fact::Stuck) if self.again => self.prepare(),
            (_, Fact::RolledOut | Fact::Stuck) => Vec::new(),
        }
    }

    fn prepare(&mut self) -> Vec<Action> {
        self.again = false;
        self.state = State::Preparing;
        vec![Action::Prepare]
    }

    /// The release is over: begins the next one if it is wanted.
    fn end(&mut self) -> Vec<Action> {
        self.state = State::Idle;
        if self.again {
            self.prepare()
        } else {
            Vec::new()
        }
    }

    fn propose(&mut self, parts: Parts) -> Vec<Action> {
        self.last += 1;
        let generation = self.last;
        let named = |wanted: fn(&Part) -> bool| {
            let parts = parts.iter().filter(move |(_, part)| wanted(part));
            parts.map(|(name, _)| name.clone())
        };
        let mut actions = Vec::new();
        if self.current.is_none() {
            let installed = named(|part| *part == Part::Install);
            actions.extend(installed.map(|name| Action::Install(generation, name)));
        }
        let waiting = named(|part| part.after().is_some()).collect();
        self.state = State::Proving {
            generation,
            parts,
            unproven: BTreeSet::new(),
            waiting,
            reasons: BTreeMap::new(),
        };
        actions.extend(self.proceed());
        actions
    }

    /// Starts the first workers of the apps that wait for none any more, and commits when all apps have proven the candidate.
    fn proceed(&mut self) -> Vec<Action> {
        let State::Proving {
            generation,
            parts,
            unproven,
            waiting,
            ..
        } = &mut self.state
        else {
            return Vec::new();
        };
        if unproven.is_empty() && waiting.is_empty() {
            return self.commit();
        }
        let free = |name: &Name| {
            let after = parts.get(name).and_then(Part::after);
            after.is_none_or(|after| after.is_disjoint(unproven) && after.is_disjoint(waiting))
        };
        let next: BTreeSet<_> = waiting.iter().filter(|name| free(name)).cloned().collect();
        if next.is_empty() {
            return Vec::new();
        }
        waiting.retain(|name| !next.contains(name));
        unproven.extend(next.iter().cloned());
        let (proposed, displaced): (BTreeSet<_>, BTreeSet<_>) = next
            .into_iter()
            .partition(|name| parts.get(name).is_none_or(Part::is_configured));
        let displaced = displaced.into_iter();
        let displaced = displaced.map(|name| Action::Displace(*generation, name));
        let proposed = (!proposed.is_empty()).then_some(Action::Propose(*generation, proposed));
        displaced.chain(proposed).collect()
    }

    fn commit(&mut self) -> Vec<Action> {
        let State::Proving {
            generation, parts, ..
        } = std::mem::replace(&mut self.state, State::Idle)
        else {
            return Vec::new();
        };
        self.state = State::RollingOut { generation };
        let apps = configured(&parts);
        let old = self.current.replace((generation, apps.clone()));
        let is_first = old.is_none();
        let old = old.map(|(_, apps)| apps).unwrap_or_default();
        let takes_over = |(name, part)| match part {
            _ if is_first => None,
            Part::Prove { .. } => Some(Action::Commit(name)),
            Part::Install => Some(Action::Install(generation, name)),
            Part::Keep | Part::Displace { .. } => None,
        };
        let mut actions: Vec<_> = parts.into_iter().filter_map(takes_over).collect();
        actions.extend(old.difference(&apps).cloned().map(Action::Remove));
        actions.push(Action::TakeOver(generation));
        actions
    }

    /// Rolls the candidate back.
    fn roll_back(&mut self, reason: String) -> Vec<Action> {
        let State::Proving { parts, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return Vec::new();
        };
        let apps = configured(&parts);
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

    /// The candidate is dropped: reports that the running generation is kept; a first start has nothing to keep.
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

/// The apps of a new configuration.
fn configured(parts: &Parts) -> BTreeSet<Name> {
    let configured = parts.iter().filter(|(_, part)| part.is_configured());
    configured.map(|(name, _)| name.clone()).collect()
}
