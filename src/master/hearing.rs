//! What workers and templates say.

use std::io;

use log::{debug, info};
use mio::Interest;
use mio::unix::SourceFd;
use nix::unistd::Pid;
use preforkd_worker::notify;

use super::{Master, NOTIFY, report};
use crate::plan::Plan;
use crate::supervisor::Event;

/// So many messages are read at a time, lest a worker that sends without end takes all memory and all time. It
/// is more than the queue holds at once, so that what was said before a death is always among them.
const MOST_MESSAGES: usize = 1024;

/// As many characters of a worker's status are kept.
const LONGEST_STATUS: usize = 200;

impl Master {
    /// Has sockets ready on which the apps of a plan can be heard.
    pub(super) fn hear_apps_of(&mut self, plan: &Plan) -> io::Result<()> {
        for (name, app) in &plan.apps {
            let before = self.notify.fd(name);
            let uid = app.launch.user.as_ref().map(|user| user.uid);
            let cannot = |error: io::Error| {
                let message = format!("cannot bind the notify socket of app={name}: {error}");
                io::Error::new(error.kind(), message)
            };
            self.notify.bind(name, uid).map_err(cannot)?;
            let now = self
                .notify
                .fd(name)
                .filter(|_| self.notify.fd(name) != before);
            if let Some(fd) = now {
                self.poll
                    .registry()
                    .register(&mut SourceFd(&fd), NOTIFY, Interest::READABLE)
                    .map_err(cannot)?;
            }
        }
        Ok(())
    }

    /// What workers and templates say.
    pub(super) fn read_messages(&mut self) {
        // A worker of a template tells its pid over the template's socket before it says anything else: whose
        // word is taken from the queue here has been introduced there.
        let mut words = Vec::new();
        for app in self.notify.apps() {
            let said = self.notify.receive(app, MOST_MESSAGES);
            self.more_messages |= said.len() == MOST_MESSAGES;
            words.push((app.to_owned(), said));
        }
        self.read_templates();
        for (app, said) in words {
            for (pid, text) in said {
                self.hear(&app, pid, &text);
            }
        }
    }

    fn hear(&mut self, app: &str, pid: Pid, text: &str) {
        let child = self.children.get(pid);
        let Some(child) = child.filter(|child| &*child.app == app) else {
            let text = text.trim_end();
            if text.contains("READY=1") {
                info!("pid {pid} says READY=1, but is no worker itself: it does not count");
            } else {
                debug!("pid {pid} is no worker, but says: {text}");
            }
            return;
        };
        let (app, worker) = (child.app.clone(), child.worker);
        let (mut alive, mut busy, mut retires, mut said) = (false, false, None, None);
        for line in text.lines() {
            match line {
                "READY=1" => self.facts.push_back((app.clone(), Event::Ready(worker))),
                "STOPPING=1" => {
                    if child.told.is_none() {
                        info!("{}: ends by itself", report::Tag(child, pid));
                    }
                    self.facts.push_back((app.clone(), Event::Stopping(worker)));
                }
                "WATCHDOG=1" => alive = true,
                "BUSY=1" => busy = true,
                line => {
                    if let Some(reason) = line.strip_prefix(notify::RETIRE) {
                        retires = Some(reason);
                    }
                    if let Some(status) = line.strip_prefix(notify::STATUS) {
                        let visible = status.chars().filter(|c| !c.is_control());
                        said = Some(visible.take(LONGEST_STATUS).collect());
                    }
                }
            }
        }
        if let Some(child) = self.children.get_mut(pid)
            && said.is_some()
        {
            child.said = said;
        }
        if alive {
            self.alive(pid);
        }
        if busy {
            self.busy(pid);
            self.load_begins(pid);
        }
        if let Some(reason) = retires {
            self.retire(pid, reason);
        }
    }
}
