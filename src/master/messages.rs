//! Messages from workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{debug, info};
use nix::unistd::Pid;
use preforkd_worker::notify::Message;

use super::templates::Key;
use super::world::World;
use super::{Master, report, watch};
use crate::release::Name;
use crate::supervisor::Event;

/// The maximum number of messages of an app per turn, so that a worker that floods cannot take all memory and time. It is more
/// than the queue holds, so that messages from before a death are always among them.
pub(super) const MAX_MESSAGES: usize = 1024;

/// The maximum number of log lines about unknown senders per [`LOG_WINDOW`].
const MAX_LINES: u32 = 3;
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Limits the log lines about unknown processes of an app that send READY=1.
#[derive(Debug, Default)]
pub(super) struct LogLimit(BTreeMap<Name, (Instant, u32)>);

impl LogLimit {
    /// Whether another line may be logged.
    fn allow(&mut self, app: &Name, now: Instant) -> bool {
        let (since, number) = self.0.entry(app.clone()).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= LOG_WINDOW {
            (*since, *number) = (now, 0);
        }
        *number = number.saturating_add(1);
        *number <= MAX_LINES
    }

    /// An app was removed.
    pub(super) fn forget(&mut self, app: &Name) {
        self.0.remove(app);
    }
}

impl<W: World> Master<W> {
    /// Reads the messages of an app's workers.
    pub(super) fn read_messages(&mut self, app: &Name) {
        let messages = self.turn.world.messages(app, MAX_MESSAGES);
        if messages.len() == MAX_MESSAGES {
            self.unread.insert(app.clone());
        } else {
            self.unread.remove(app);
        }
        // A worker of a template sends its pid over the template's socket before any other message: the sender of each
        // message in this queue has introduced itself there.
        for key in self.templates.of(app) {
            self.read_template(&key);
        }
        for (pid, text) in messages {
            self.handle_message(app, pid, &text);
        }
    }

    /// Handles the replies of a template.
    pub(super) fn read_template(&mut self, key: &Key) {
        let (turn, templates) = (&mut self.turn, &mut self.templates);
        if !self.workers.read_template(turn, templates, key) {
            self.unread_templates.extend(self.templates.pid(key));
        }
    }

    fn handle_message(&mut self, app: &Name, pid: Pid, text: &str) {
        let turn = &mut self.turn;
        let is_adopted = self.workers.is_adopted(turn, pid);
        let children = &mut self.workers.children;
        let Some(child) = children
            .get_mut(pid)
            .filter(|child| child.app == *app && is_adopted)
        else {
            if Message::parse(text.as_bytes()).ready && self.log_limit.allow(app, turn.now) {
                info!(
                    "app={app}: ignoring READY=1 from pid={pid}, which is not a worker (the worker's own process must send it)"
                );
            } else {
                debug!("app={app}: ignoring a message from pid={pid}, which is not a worker");
            }
            return;
        };
        let worker = child.worker;
        let message = Message::parse(text.as_bytes());
        if message.ready {
            turn.queue_event(app, Event::Ready(worker));
        }
        if message.stopping {
            if !std::mem::replace(&mut child.stopping, true) && child.signalled.is_none() {
                info!(
                    "{}: is ending on its own initiative",
                    report::Tag(child, pid)
                );
            }
            turn.queue_event(app, Event::Stopping(worker));
        }
        if message.watchdog {
            self.watch.alive(turn.now, pid, child);
        }
        if message.busy {
            self.watch.busy(turn.now, pid, child);
            self.loads.becomes_busy(turn, app);
        }
        if let Some(status) = message.status {
            child.status_text = Some(status.into());
        }
        if let Some(reason) = message.retire {
            watch::retire(turn, children, pid, &reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_about_one_app_are_limited_per_time() {
        let (start, web) = (Instant::now(), Name::from("web"));
        let mut log_limit = LogLimit::default();
        let logged = (0..1000).filter(|_| log_limit.allow(&web, start)).count();
        assert_eq!(logged, MAX_LINES as usize);
        assert!(log_limit.allow(&"api".into(), start));
        assert!(log_limit.allow(&web, start + LOG_WINDOW));
    }
}
