//! The ends of templates.

use std::time::{Duration, Instant};

use log::{debug, error, warn};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::children::Name;
use super::performing::send;
use super::{Master, report};
use crate::signals::describe;
use crate::supervisor::{Event, Generation, WorkerId};

/// How long a template that was told to end may take for its exit handlers.
const GRACE: Duration = Duration::from_secs(10);
/// Longer than the kernel takes for anything.
const LONG: Duration = Duration::from_secs(3600);

impl Master {
    /// Whether this process is a template, also one that was told to end.
    pub(super) fn is_template(&self, pid: Pid) -> bool {
        self.leaving_templates.contains_key(&pid)
            || self.templates.values().any(|template| template.pid == pid)
    }

    /// Takes the end of a process for that of a template. Whether it was one.
    pub(super) fn ended_as_template(
        &mut self,
        pid: Pid,
        status: WaitStatus,
        words: Option<&str>,
    ) -> bool {
        if self.leaving_templates.remove(&pid).is_some() {
            debug!("template pid={pid}: {}", describe(status));
            return true;
        }
        let mut templates = self.templates.iter();
        let found = templates.find(|(_, template)| template.pid == pid);
        let Some(key) = found.map(|(key, _)| key.clone()) else {
            return false;
        };
        self.template_ended(key, status, words);
        true
    }

    fn template_ended(&mut self, key: (Name, Generation), status: WaitStatus, words: Option<&str>) {
        self.hear_out(std::slice::from_ref(&key));
        let Some(template) = self.templates.remove(&key) else {
            return;
        };
        self.unwatch(&template.fd());
        let (name, generation) = &key;
        let when = if template.is_loaded() {
            ""
        } else {
            ", before the application was loaded"
        };
        let words = report::last_words(words);
        let death = format!("{}{when}{words}", describe(status));
        error!(
            "app={name} template gen={generation} pid={}: {death}",
            template.pid
        );
        if let Some(reload) = &mut self.reload {
            reload.note_template(name, *generation, &death);
        }
        for ticket in template.unanswered() {
            let worker = WorkerId(ticket);
            self.not_started(name, worker, Event::SpawnFailed(worker));
        }
    }

    /// Ends templates; nobody waits for what they still import.
    pub(super) fn end_templates(&mut self, which: impl Fn(&(Name, Generation)) -> bool) {
        let keys: Vec<_> = self
            .templates
            .keys()
            .filter(|key| which(key))
            .cloned()
            .collect();
        self.hear_out(&keys);
        for key in keys {
            let Some(template) = self.templates.remove(&key) else {
                continue;
            };
            self.unwatch(&template.fd());
            self.leaving_templates
                .insert(template.pid, Instant::now() + GRACE);
            // One that still imports may be deaf to TERM, and has nothing to lose. One that still forks may hang in it, as may
            // what it has forked, which leads no session of its own yet and ends with it.
            let signal = if template.is_loaded() && template.is_idle() {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            };
            send(template.pid, signal);
            for ticket in template.unanswered() {
                let worker = WorkerId(ticket);
                self.not_started(&key.0, worker, Event::SpawnFailed(worker));
            }
        }
    }

    /// Hears what they have said, and nothing after it: no worker may run that nobody knows of.
    fn hear_out(&mut self, keys: &[(Name, Generation)]) {
        for template in keys.iter().filter_map(|key| self.templates.get(key)) {
            template.hear_no_more();
        }
        self.read_templates();
    }

    /// Leaves templates that were told to end no more than so long.
    pub(super) fn hurry_templates(&mut self, grace: Duration) {
        let latest = Instant::now() + grace;
        for deadline in self.leaving_templates.values_mut() {
            *deadline = latest.min(*deadline);
        }
    }

    /// Kills templates that were told to end and have not: a thread or an exit handler of the application keeps them.
    pub(super) fn kill_overdue_templates(&mut self, now: Instant) {
        for (pid, deadline) in &mut self.leaving_templates {
            if *deadline <= now {
                warn!("template pid={pid}: SIGKILL (it was told to end, and has not)");
                send(*pid, Signal::SIGKILL);
                // Once is enough.
                *deadline = now + LONG;
            }
        }
    }

    /// When a template that was told to end has to have.
    pub(super) fn leaving_deadline(&self) -> Option<Instant> {
        self.leaving_templates.values().min().copied()
    }

    pub(super) fn no_templates(&self) -> bool {
        self.templates.is_empty() && self.leaving_templates.is_empty()
    }
}
