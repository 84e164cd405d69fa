//! Templates: processes that have loaded an application and fork its workers. Which run, what each was asked for, and which
//! were told to end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use preforkd_worker::messages::{Fork, Reply};

use super::timers::Timers;
use super::turn::Turn;
use super::workers::send;
use super::world::{Exit, Private, Role, Start, World};
use crate::plan;
use crate::release::{Generation, Name};

/// How long a template that was told to end may take for its exit handlers.
const GRACE: Duration = Duration::from_secs(10);

/// An app's template of a generation.
pub(super) type Key = (Name, Generation);

/// What a template, or a worker just forked from it, has said.
pub(super) enum Said {
    /// The application is loaded; the template's process.
    Loaded(Pid),
    /// A worker runs: its ticket and its process.
    Forked(u64, Pid),
    /// The system would not have a worker forked.
    Failed(u64, String),
    /// The process that was to fork these workers ended badly.
    Lost(Vec<u64>, String),
}

struct Template {
    pid: Pid,
    loaded: bool,
    /// Orders that were not sent yet, by ticket: tickets grow.
    waiting: BTreeMap<u64, Fork>,
    /// Tickets of orders that were sent and not answered.
    asked: BTreeSet<u64>,
}

/// All templates.
#[derive(Default)]
pub(super) struct Templates {
    running: BTreeMap<Key, Template>,
    keys: HashMap<Pid, Key>,
    /// Those that were told to end and were not reaped yet.
    ending: BTreeSet<Pid>,
    /// When they have to have ended.
    deadlines: Timers<Pid>,
}

impl Templates {
    /// Starts a template unless it runs.
    pub(super) fn ensure<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        key: &Key,
        plan: &plan::App,
        private: Private,
    ) -> io::Result<()> {
        if self.running.contains_key(key) {
            return Ok(());
        }
        let pid = turn.world.start(&Start {
            app: &key.0,
            plan,
            launch: &plan.launch,
            role: Role::Template,
            generation: key.1,
            heard: true,
            private,
        })?;
        self.keys.insert(pid, key.clone());
        self.running.insert(
            key.clone(),
            Template {
                pid,
                loaded: false,
                waiting: BTreeMap::new(),
                asked: BTreeSet::new(),
            },
        );
        info!("{}: loading the application", self.tag(key));
        Ok(())
    }

    /// Orders a worker, now or as soon as the application is loaded.
    pub(super) fn want<W: World>(&mut self, turn: &mut Turn<W>, key: &Key, order: Fork) {
        if let Some(template) = self.running.get_mut(key) {
            template.waiting.insert(order.ticket, order);
            template.send(turn);
        }
    }

    /// Takes an order back that was not sent yet; says whether that was so.
    pub(super) fn cancel(&mut self, key: &Key, ticket: u64) -> bool {
        let template = self.running.get_mut(key);
        template.is_some_and(|template| template.waiting.remove(&ticket).is_some())
    }

    /// What was said next, until there is nothing more.
    pub(super) fn receive<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) -> Option<Said> {
        let template = self.running.get_mut(key)?;
        loop {
            match turn.world.reply(template.pid)? {
                (_, Reply::Ready) if !template.loaded => {
                    template.loaded = true;
                    template.send(turn);
                    return Some(Said::Loaded(template.pid));
                }
                (sender, Reply::Forked { ticket }) if sender != template.pid => {
                    template.asked.remove(&ticket);
                    template.send(turn);
                    return Some(Said::Forked(ticket, sender));
                }
                (_, Reply::Failed { ticket, reason }) if template.asked.remove(&ticket) => {
                    template.send(turn);
                    return Some(Said::Failed(ticket, reason));
                }
                (
                    _,
                    Reply::Lost {
                        mut tickets,
                        reason,
                    },
                ) => {
                    // Some of its workers may be there.
                    tickets.retain(|ticket| template.asked.remove(ticket));
                    template.send(turn);
                    if !tickets.is_empty() {
                        return Some(Said::Lost(tickets, reason));
                    }
                }
                // It lies, or answers what was given up.
                _ => {}
            }
        }
    }

    /// What it has said before is still to be received; a worker that has not said yet who it is ends instead.
    pub(super) fn shut<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) {
        if let Some(template) = self.running.get(key) {
            turn.world.shut(template.pid);
        }
    }

    /// A template has ended, or is to end: the tickets that it leaves unanswered.
    pub(super) fn remove<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) -> Vec<u64> {
        let Some(template) = self.running.remove(key) else {
            return Vec::new();
        };
        self.keys.remove(&template.pid);
        turn.world.close(template.pid);
        let tickets = template.asked.into_iter();
        tickets.chain(template.waiting.into_keys()).collect()
    }

    /// Tells a template to end: the tickets that it leaves unanswered.
    pub(super) fn end<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) -> Vec<u64> {
        let Some(template) = self.running.get(key) else {
            return Vec::new();
        };
        let pid = template.pid;
        // One that still imports may be deaf to TERM, and has nothing to lose. One that still forks may hang in it, as may
        // what it has forked, which leads no session of its own yet and ends with it.
        let signal = match template.loaded && template.is_idle() {
            true => Signal::SIGTERM,
            false => Signal::SIGKILL,
        };
        self.ending.insert(pid);
        self.deadlines.set(pid, Some(turn.now + GRACE));
        let unanswered = self.remove(turn, key);
        send(turn, pid, signal);
        unanswered
    }

    /// Whether a process that was reaped was a template that had been told to end.
    pub(super) fn ended_as_told(&mut self, pid: Pid, exit: Exit) -> bool {
        let told = self.ending.remove(&pid);
        if told {
            self.deadlines.set(pid, None);
            debug!("template pid={pid}: {exit}");
        }
        told
    }

    /// Leaves templates that were told to end no more than so long.
    pub(super) fn hurry(&mut self, now: Instant, grace: Duration) {
        let latest = now + grace;
        for &pid in &self.ending {
            if self.deadlines.get(&pid).is_some_and(|at| at > latest) {
                self.deadlines.set(pid, Some(latest));
            }
        }
    }

    /// Kills templates that were told to end and have not: a thread or an exit handler of the application keeps them.
    pub(super) fn kill_overdue<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.deadlines.take_due(turn.now) {
            warn!("template pid={pid}: sending SIGKILL (it did not end when told to)");
            send(turn, pid, Signal::SIGKILL);
        }
    }

    /// When a template that was told to end has to have.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The template that a process is.
    pub(super) fn key(&self, pid: Pid) -> Option<&Key> {
        self.keys.get(&pid)
    }

    /// All that run.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.running.keys().cloned().collect()
    }

    /// Those of an app that run.
    pub(super) fn of(&self, app: &Name) -> Vec<Key> {
        let range = (app.clone(), 0)..=(app.clone(), Generation::MAX);
        self.running
            .range(range)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whether a process is a template, also one that was told to end.
    pub(super) fn is_template(&self, pid: Pid) -> bool {
        self.keys.contains_key(&pid) || self.ending.contains(&pid)
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ending.is_empty()
    }

    /// Its process, if it runs.
    pub(super) fn pid(&self, key: &Key) -> Option<Pid> {
        self.running.get(key).map(|template| template.pid)
    }

    /// Whether it has loaded the application.
    pub(super) fn is_loaded(&self, key: &Key) -> bool {
        self.running
            .get(key)
            .is_some_and(|template| template.loaded)
    }

    /// Whether nobody waits for a worker of it.
    pub(super) fn is_idle(&self, key: &Key) -> bool {
        self.running.get(key).is_none_or(Template::is_idle)
    }

    /// `app=web template gen=2 pid=4711`
    pub(super) fn tag(&self, key: &Key) -> impl fmt::Display + use<> {
        let pid = self.pid(key).map_or(0, Pid::as_raw);
        format!("app={} template gen={} pid={pid}", key.0, key.1)
    }
}

impl Template {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }

    fn send<W: World>(&mut self, turn: &mut Turn<W>) {
        while self.loaded
            && let Some((&ticket, order)) = self.waiting.first_key_value()
        {
            // Full: goes on when the template has answered. Closed: its death is told by the kernel.
            if !turn.world.order(self.pid, order) {
                return;
            }
            self.asked.insert(ticket);
            self.waiting.remove(&ticket);
        }
    }
}
