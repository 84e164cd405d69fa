//! Templates: processes that have loaded an application and fork its workers. Which ones run, the requests to each, and which
//! ones were told to end.

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

/// The time a template has for its exit handlers.
const GRACE: Duration = Duration::from_secs(10);

/// An app's template of a generation.
pub(super) type Key = (Name, Generation);

/// A message from a template, or from a worker just forked from it.
pub(super) enum TemplateMessage {
    /// Nothing that counts.
    Nothing,
    /// The application is loaded; with the template's process.
    Loaded(Pid),
    /// A worker runs: its ticket and its process.
    Forked(u64, Pid),
    /// A process claims to be a worker that this template was not asked for.
    Uninvited(Pid),
    /// The system refused to fork a worker.
    Failed(u64, String),
    /// The intermediate process that was to fork these workers failed.
    Lost(Vec<u64>, String),
}

struct Template {
    pid: Pid,
    loaded: bool,
    /// Why its program could not be executed.
    not_executed: Option<String>,
    /// Requests that were not sent yet, by ticket. Tickets grow.
    waiting: BTreeMap<u64, Fork>,
    /// Tickets of requests that were sent and not answered.
    asked: BTreeSet<u64>,
}

/// All templates.
#[derive(Default)]
pub(super) struct Templates {
    running: BTreeMap<Key, Template>,
    keys: HashMap<Pid, Key>,
    /// Templates that were told to end and were not reaped yet.
    ending: BTreeMap<Pid, Key>,
    /// When they must have ended.
    deadlines: Timers<Pid>,
}

impl Templates {
    /// Starts a template unless it is running.
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
            captured: true,
            private,
        })?;
        self.keys.insert(pid, key.clone());
        self.running.insert(
            key.clone(),
            Template {
                pid,
                loaded: false,
                not_executed: None,
                waiting: BTreeMap::new(),
                asked: BTreeSet::new(),
            },
        );
        info!("{}: loading the application", self.tag(key));
        Ok(())
    }

    /// Whether a template of this app is running.
    pub(super) fn has_of(&self, app: &Name) -> bool {
        let mut keys = self.running.keys().chain(self.ending.values());
        keys.any(|(name, _)| name == app)
    }

    /// Requests a worker, now or as soon as the application is loaded.
    pub(super) fn request<W: World>(&mut self, turn: &mut Turn<W>, key: &Key, order: Fork) {
        if let Some(template) = self.running.get_mut(key) {
            template.waiting.insert(order.ticket, order);
            template.send(turn);
        }
    }

    /// Cancels a request that was not sent yet. Returns whether that was so.
    pub(super) fn cancel(&mut self, key: &Key, ticket: u64) -> bool {
        let template = self.running.get_mut(key);
        template.is_some_and(|template| template.waiting.remove(&ticket).is_some())
    }

    /// The next message; `None` if there is no more.
    pub(super) fn receive<W: World>(
        &mut self,
        turn: &mut Turn<W>,
        key: &Key,
    ) -> Option<TemplateMessage> {
        let template = self.running.get_mut(key)?;
        let message = match turn.world.reply(template.pid)? {
            (_, Some(Reply::Ready)) if !template.loaded => {
                template.loaded = true;
                TemplateMessage::Loaded(template.pid)
            }
            (sender, Some(Reply::Forked { ticket })) if sender != template.pid => {
                match template.asked.remove(&ticket) {
                    true => TemplateMessage::Forked(ticket, sender),
                    false => TemplateMessage::Uninvited(sender),
                }
            }
            (_, Some(Reply::Failed { ticket, reason })) if template.asked.remove(&ticket) => {
                TemplateMessage::Failed(ticket, reason)
            }
            (_, Some(Reply::Lost { tickets, reason })) => {
                // Some of its workers may run.
                let lost = tickets.into_iter();
                let lost: Vec<_> = lost
                    .filter(|ticket| template.asked.remove(ticket))
                    .collect();
                match lost.is_empty() {
                    true => TemplateMessage::Nothing,
                    false => TemplateMessage::Lost(lost, reason),
                }
            }
            // The message is forged, or answers a request that was given up.
            _ => TemplateMessage::Nothing,
        };
        template.send(turn);
        Some(message)
    }

    /// Lets a template send nothing more. Earlier messages can still be received; a worker that has not introduced itself ends.
    pub(super) fn shut_down<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) {
        if let Some(template) = self.running.get(key) {
            turn.world.shut_down(template.pid);
        }
    }

    /// A template has ended, or is to end. Returns its unanswered tickets.
    pub(super) fn remove<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) -> Vec<u64> {
        let Some(template) = self.running.remove(key) else {
            return Vec::new();
        };
        self.keys.remove(&template.pid);
        turn.world.close(template.pid);
        let tickets = template.asked.into_iter();
        tickets.chain(template.waiting.into_keys()).collect()
    }

    /// Tells a template to end. Returns its unanswered tickets.
    pub(super) fn end<W: World>(&mut self, turn: &mut Turn<W>, key: &Key) -> Vec<u64> {
        let Some(template) = self.running.get(key) else {
            return Vec::new();
        };
        let pid = template.pid;
        // A template that still imports may ignore SIGTERM, and has nothing to lose. One that still forks may hang there, and so
        // may its children, which lead no session of their own yet and are killed with it.
        let signal = match template.loaded && template.is_idle() {
            true => Signal::SIGTERM,
            false => Signal::SIGKILL,
        };
        self.ending.insert(pid, key.clone());
        self.deadlines.set(pid, Some(turn.now + GRACE));
        let unanswered = self.remove(turn, key);
        send(turn, pid, signal);
        unanswered
    }

    /// Whether a process that was reaped was a template that had been told to end.
    pub(super) fn ended_as_told(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(key) = self.ending.remove(&pid) else {
            return false;
        };
        self.deadlines.set(pid, None);
        debug!("{}: {exit}", tag(&key, pid));
        true
    }

    /// Limits the remaining time of templates that were told to end.
    pub(super) fn hurry(&mut self, now: Instant, grace: Duration) {
        let latest = now + grace;
        for pid in self.ending.keys() {
            self.deadlines.bring_forward(pid, latest);
        }
    }

    /// Kills templates that were told to end and have not: a thread or an exit handler of the application keeps them alive.
    pub(super) fn kill_overdue<W: World>(&mut self, turn: &mut Turn<W>) {
        for pid in self.deadlines.take_due(turn.now) {
            if let Some(key) = self.ending.get(&pid) {
                let tag = tag(key, pid);
                warn!("{tag}: sending SIGKILL (still running after it was told to end)");
            }
            send(turn, pid, Signal::SIGKILL);
        }
    }

    /// When a template that was told to end must have ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The template that a process is.
    pub(super) fn key(&self, pid: Pid) -> Option<&Key> {
        self.keys.get(&pid)
    }

    /// All running templates.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.running.keys().cloned().collect()
    }

    /// The program of a process could not be executed. Returns false if the process is not a template.
    pub(super) fn not_executed(&mut self, pid: Pid, why: &str) -> bool {
        let key = self.keys.get(&pid);
        let template = key.and_then(|key| self.running.get_mut(key));
        template
            .map(|template| template.not_executed = Some(why.to_owned()))
            .is_some()
    }

    /// Why the program of a template could not be executed.
    pub(super) fn failure(&self, key: &Key) -> Option<&str> {
        self.running.get(key)?.not_executed.as_deref()
    }

    /// The running templates of an app.
    pub(super) fn of(&self, app: &Name) -> Vec<Key> {
        let range = (app.clone(), 0)..=(app.clone(), Generation::MAX);
        self.running
            .range(range)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whether a process is a template, even one that was told to end.
    pub(super) fn is_template(&self, pid: Pid) -> bool {
        self.keys.contains_key(&pid) || self.ending.contains_key(&pid)
    }

    /// Whether no template is running.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ending.is_empty()
    }

    /// Its process, if it is running.
    pub(super) fn pid(&self, key: &Key) -> Option<Pid> {
        self.running.get(key).map(|template| template.pid)
    }

    /// Whether it has loaded the application.
    pub(super) fn is_loaded(&self, key: &Key) -> bool {
        self.running
            .get(key)
            .is_some_and(|template| template.loaded)
    }

    /// Whether it has no pending requests.
    pub(super) fn is_idle(&self, key: &Key) -> bool {
        self.running.get(key).is_none_or(Template::is_idle)
    }

    /// `app=web template gen=2 pid=4711`
    pub(super) fn tag(&self, key: &Key) -> impl fmt::Display + use<> {
        tag(key, self.pid(key).unwrap_or(Pid::from_raw(0)))
    }
}

fn tag((app, generation): &Key, pid: Pid) -> String {
    format!("app={app} template gen={generation} pid={pid}")
}

impl Template {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }

    fn send<W: World>(&mut self, turn: &mut Turn<W>) {
        while self.loaded
            && let Some((&ticket, order)) = self.waiting.first_key_value()
        {
            // Full: continues when the template has answered. Closed: the kernel reports its death.
            if !turn.world.request_fork(self.pid, order) {
                return;
            }
            self.asked.insert(ticket);
            self.waiting.remove(&ticket);
        }
    }
}
