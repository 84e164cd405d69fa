//! Messages from workers.

use log::{debug, info};
use nix::unistd::Pid;
use preforkd_worker::notify::Message;

use super::templates::Key;
use super::workers::MAX_REPLIES;
use super::world::World;
use super::{Master, report};
use crate::release::Name;
use crate::supervisor::Event;

/// The maximum number of messages of an app per turn, so that a worker that floods cannot take all memory and time. It is more
/// than the queue holds, so that messages from before a death are always among them.
pub(super) const MAX_MESSAGES: usize = 1024;

impl<W: World> Master<W> {
    /// Reads the messages of an app's workers.
    pub(super) fn read_messages(&mut self, app: &Name) {
        let messages = self.turn.world.messages(app, MAX_MESSAGES);
        let more = messages.len() == MAX_MESSAGES;
        if self.floods.messages(&mut self.turn, app, messages.len()) && more {
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
        let pid = templates.pid(key);
        let number = self.workers.read_template(turn, templates, key);
        if let Some(pid) = pid
            && self.floods.replies(turn, pid, number)
            && number == MAX_REPLIES
        {
            self.unread_templates.insert(pid);
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
            if Message::parse(text.as_bytes()).ready
                && self.floods.may_log_unknown_sender(app, turn.now)
            {
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
            self.workers.fronts.changed(app);
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
            self.watch.retire(turn, children, pid, &reason);
        }
    }
}
