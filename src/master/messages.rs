//! What workers say.

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

/// So many messages of an app are read at a time, lest a worker that sends without end takes all memory and all time. It
/// is more than the queue holds at once, so that what was said before a death is always among them.
pub(super) const MOST_MESSAGES: usize = 1024;

/// So often in each [`FORGIVEN`] the log tells of messages that no worker has sent.
const COMPLAINTS: u32 = 3;
const FORGIVEN: Duration = Duration::from_secs(60);

/// How often the log told of an app's processes that are no workers and say that they are ready.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<Name, (Instant, u32)>);

impl Complaints {
    /// Whether the log may tell of one more.
    fn allow(&mut self, app: &Name, now: Instant) -> bool {
        let (since, number) = self.0.entry(app.clone()).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= FORGIVEN {
            (*since, *number) = (now, 0);
        }
        *number = number.saturating_add(1);
        *number <= COMPLAINTS
    }

    /// An app has gone.
    pub(super) fn forget(&mut self, app: &Name) {
        self.0.remove(app);
    }
}

impl<W: World> Master<W> {
    /// Takes the messages of an app's workers.
    pub(super) fn read_messages(&mut self, app: &Name) {
        let messages = self.turn.world.messages(app, MOST_MESSAGES);
        if messages.len() == MOST_MESSAGES {
            self.unread.insert(app.clone());
        } else {
            self.unread.remove(app);
        }
        // A worker of a template tells its pid over the template's socket before it says anything else: whose
        // message was taken from the queue here has been introduced there.
        for key in self.templates.of(app) {
            self.read_template(&key);
        }
        for (pid, text) in messages {
            self.take_message(app, pid, &text);
        }
    }

    /// Takes the replies of a template.
    pub(super) fn read_template(&mut self, key: &Key) {
        let (turn, templates) = (&mut self.turn, &mut self.templates);
        if !self.workers.read_template(turn, templates, key) {
            self.unread_templates.extend(self.templates.pid(key));
        }
    }

    fn take_message(&mut self, app: &Name, pid: Pid, text: &str) {
        let turn = &mut self.turn;
        let is_adopted = self.workers.is_adopted(turn, pid);
        let children = &mut self.workers.children;
        let Some(child) = children
            .get_mut(pid)
            .filter(|child| child.app == *app && is_adopted)
        else {
            if Message::parse(text.as_bytes()).ready && self.complaints.allow(app, turn.now) {
                info!(
                    "app={app}: ignoring READY=1 from pid {pid}, which is not a worker (the worker's own process has to send it)"
                );
            } else {
                debug!("app={app}: ignoring a message from pid {pid}, which is not a worker");
            }
            return;
        };
        let worker = child.worker;
        let message = Message::parse(text.as_bytes());
        if message.ready {
            turn.tell(app, Event::Ready(worker));
        }
        if message.stopping {
            if !std::mem::replace(&mut child.stopping, true) && child.told.is_none() {
                info!("{}: is ending by itself", report::Tag(child, pid));
            }
            turn.tell(app, Event::Stopping(worker));
        }
        if message.watchdog {
            self.watch.alive(turn.now, pid, child);
        }
        if message.busy {
            self.watch.busy(turn.now, pid, child);
            self.loads.begins(turn, app);
        }
        if let Some(status) = message.status {
            child.said = Some(status.into());
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
    fn complaints_about_one_app_are_few_and_forgiven() {
        let (start, web) = (Instant::now(), Name::from("web"));
        let mut complaints = Complaints::default();
        let told = (0..1000).filter(|_| complaints.allow(&web, start)).count();
        assert_eq!(told, COMPLAINTS as usize);
        assert!(complaints.allow(&"api".into(), start));
        assert!(complaints.allow(&web, start + FORGIVEN));
    }
}
