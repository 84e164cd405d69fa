//! What workers and templates say.

use log::{debug, info};
use nix::unistd::Pid;
use preforkd_worker::notify::Message;
use preforkd_worker::text::{LONGEST, clean};

use super::{Master, report};
use crate::supervisor::Event;

/// So many messages are read at a time, lest a worker that sends without end takes all memory and all time. It
/// is more than the queue holds at once, so that what was said before a death is always among them.
const MOST_MESSAGES: usize = 1024;

impl Master {
    /// What workers and templates say.
    pub(super) fn read_messages(&mut self) {
        // A worker of a template tells its pid over the template's socket before it says anything else: whose
        // word is taken from the queue here has been introduced there.
        let words = std::iter::from_fn(|| self.notify.receive()).take(MOST_MESSAGES);
        let words: Vec<_> = words.collect();
        self.more_messages |= words.len() == MOST_MESSAGES;
        self.read_templates();
        for (pid, text) in words {
            self.hear(pid, &text);
        }
    }

    pub(super) fn hear(&mut self, pid: Pid, text: &str) {
        let Some(child) = self.children.get(pid) else {
            if text.contains("READY=1") {
                info!("pid {pid} says READY=1, but is no worker itself: it does not count");
            } else {
                let text = clean(text, LONGEST);
                debug!("pid {pid} is no worker, but says: {text}");
            }
            return;
        };
        let (app, worker) = (child.app.clone(), child.worker);
        let message = Message::parse(text.as_bytes());
        if message.ready {
            self.facts.push_back((app.clone(), Event::Ready(worker)));
        }
        if message.stopping {
            if child.told.is_none() {
                info!("{}: ends by itself", report::Tag(child, pid));
            }
            self.facts.push_back((app, Event::Stopping(worker)));
        }
        if let Some(child) = self.children.get_mut(pid)
            && message.status.is_some()
        {
            child.said = message.status;
        }
        if message.watchdog {
            self.alive(pid);
        }
        if message.busy {
            self.busy(pid);
            self.load_begins(pid);
        }
        if let Some(reason) = message.retire {
            self.retire(pid, &reason);
        }
    }
}
