//! What the loop does while its own thread is in a request: it sends what the handler has made, and between two pieces it looks after
//! the other connections. Their requests are read, and wait; no code of an application runs here.

use std::mem;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use super::core::Core;
use super::drive::Turn;
use super::{KEPT_OUTPUT, LISTENERS, SIGNALS, STOP, WAKEUP};
use crate::exchange::{Outlet, Sent};
use crate::message::backlog::Backlog;
use crate::message::response::Response;
use crate::net::standing::Standing;
use crate::net::transport::Transport;
use crate::serve::client::{Client, Flow, Link};
use crate::serve::handler::Observer;
use crate::serve::timers::{Instant, NEVER, now};

/// How often others are looked after, in nanoseconds: rarely enough to cost nothing, and often enough not to be felt.
const LOOK: Instant = 1_000_000;
/// When a client has closed its side and nothing was sent to it for this long, a stream with nothing to send takes it for gone. A client
/// that has only closed its side accepts what is sent; one that is gone answers with a reset.
pub(super) const SILENT: Instant = 1_000_000_000;
/// The start of a request that waits for its client, in the future: that time does not count against `timeout`.
pub(super) const NOT_COUNTED: Instant = i64::MAX as u64;

/// The request that the loop's thread is in.
pub(super) struct Current<T: Transport> {
    key: u64,
    link: Box<Link<T>>,
    /// The client has sent more requests already.
    has_input: bool,
    /// When the application was called, or has last handed something over.
    since: Instant,
    /// When to look after others next.
    look: Instant,
}

impl<O: Observer, T: Transport> Core<O, T> {
    /// The thread goes into the request of this client.
    pub fn begin(&mut self, key: u64, link: Box<Link<T>>, has_input: bool) {
        let since = link.began.max(self.now);
        self.current = Some(Current {
            key,
            link,
            has_input,
            since,
            look: since + LOOK,
        });
    }

    /// The handler has returned.
    pub fn finish(&mut self) -> Box<Link<T>> {
        let Some(current) = self.current.take() else {
            unreachable!("a request was begun")
        };
        self.note_call(current.since);
        self.push_if_due(&current.link);
        self.observer.idle();
        current.link
    }

    /// Notes how long the application has taken; the clock is read.
    fn note_call(&mut self, since: Instant) {
        self.now = now();
        self.cork.called(self.now.saturating_sub(since));
    }

    fn push_if_due(&mut self, link: &Link<T>) {
        if self.cork.is_due(self.now) {
            // This client is not in its place.
            link.transport.push();
            self.push();
        }
    }

    /// Takes what was written unless there is no room, and sends what can be sent.
    fn hand_over(&mut self, current: &mut Current<T>, response: &mut Response) -> Sent {
        self.note_call(current.since);
        current.since = self.now;
        self.observer.goes_on(self.now);
        let is_over = self.breaks_off();
        let link = &mut current.link;
        link.broken |= is_over;
        if link.broken {
            return Sent::Gone;
        }
        if response.ends_with_connection() {
            link.transport.reset_at_death(true);
        }
        let whole = response.is_whole();
        let mut data = response.take_out();
        if link.has_output() {
            let backlog = link.backlog.get_or_insert_with(|| {
                let backlog = Backlog::new(&self.limits, &self.budget);
                backlog.outside(link.out.len() - link.written);
                Arc::new(backlog)
            });
            let sent = backlog.give(&mut data);
            response.give_out(data);
            if sent != Sent::Taken {
                return sent;
            }
        } else {
            link.out = data;
            link.written = 0;
        }
        self.send_current(current, whole);
        response.reuse(&mut self.spare);
        self.push_if_due(&current.link);
        if !whole && self.cork.is_holding() {
            // Nobody knows when the next piece comes.
            current.link.transport.push();
            self.push();
        }
        gone(&current.link)
    }

    /// Sends what the client takes now. `whole`: this is all there is to say.
    fn send_current(&mut self, current: &mut Current<T>, whole: bool) {
        let link = &mut current.link;
        let in_lane = current.has_input && link.is_front && link.transport.has_lane();
        let hold = whole
            && match in_lane {
                true => self.cork.may_wait_in_lane(),
                false => self.cork.may_hold() && link.transport.can_hold() && !current.has_input,
            };
        while !link.blocked && !link.broken && link.has_output() {
            let (flow, sent) = link.flush(hold);
            if sent > 0 {
                self.observer.sent(sent);
                link.deadline = NEVER;
                link.silent_since = self.now;
            }
            match flow {
                Flow::Done if hold => self.cork.hold(current.key, self.now),
                Flow::Done => {}
                Flow::Blocked => {
                    if link.deadline == NEVER {
                        link.deadline = self.after(self.limits.write_timeout);
                    }
                    link.broken = link
                        .transport
                        .watch(&self.epoll, current.key, true)
                        .is_err();
                }
                Flow::Gone => link.broken = true,
            }
        }
        if !link.has_output() && link.out.capacity() <= KEPT_OUTPUT {
            self.spare = mem::take(&mut link.out);
        }
    }

    /// Looks after all connections once; with `block` waits until there is something to do.
    fn look_after(&mut self, current: &mut Current<T>, block: bool) {
        // What was held for the requests before this one must not wait for its end.
        self.push();
        // So that it is seen when the client leaves.
        current.link.broken |= current
            .link
            .transport
            .watch(&self.epoll, current.key, false)
            .is_err();
        if block {
            // A connection that was announced to this worker would wait for it, though others may be free.
            for listener in &mut self.listeners {
                listener.unwatch(&self.epoll);
            }
            if let Some(late) = &mut self.late {
                late.unwatch(&self.epoll);
            }
        }
        let deadline = match block && current.link.blocked && !current.link.broken {
            true => current.link.deadline.min(self.breaks_off),
            false => 0,
        };
        let mut events = mem::take(&mut self.found);
        if let Err(error) = self.wait(deadline, &mut events) {
            // The loop finds the same and ends; until then its clients must not wait.
            log::error!("could not wait for connections: {error}; breaking the response off");
            current.link.broken = true;
        }
        self.now = now();
        self.woken = self.now;
        for &(key, flags) in &events {
            let flags = EventFlags::from_bits_retain(flags);
            match key {
                STOP => self.stop_between(),
                WAKEUP => {}
                SIGNALS => self.interrupted = true,
                key if key == current.key => {
                    current.link.note_event(flags, self.woken, self.now);
                    current.link.broken |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
                }
                listener if listener >= LISTENERS => {}
                key => {
                    if self.note_event(key, flags) {
                        self.go_on_between(key);
                    }
                }
            }
        }
        self.found = events;
        // Without `block` the application goes on at once, and the handlers run in there.
        if block && self.interrupted && self.run_signal_handlers() {
            self.stop_between();
        }
        for _ in 0..self.queue.len() {
            if let Some(key) = self.queue.pop_front() {
                self.go_on_between(key);
            }
        }
        while let Some(key) = self.overdue() {
            if let Some(client) = self.timeout(key) {
                self.drive_between(key, client);
            }
        }
        if current.link.armed <= self.now {
            // The entry of this one came up, and found it lent.
            current.link.armed = NEVER;
        }
        self.layers.flush();
        current.look = self.now + LOOK;
        let link = &mut current.link;
        link.broken |= link.deadline.min(self.breaks_off) <= self.now;
        if !link.blocked {
            self.send_current(current, false);
        }
    }

    pub(super) fn go_on_between(&mut self, key: u64) {
        if let Some(client) = self.clients.get_mut(key)
            && client.may_be_left_unread()
        {
            if !mem::replace(&mut client.link.ready, true) {
                self.ready.push_back(key);
            }
            return;
        }
        if let Some(client) = self.clients.lend(key) {
            self.drive_between(key, client);
        }
    }

    fn drive_between(&mut self, key: u64, mut client: Client<T>) {
        let mut steps = super::drive::STEPS;
        match self.turn(key, &mut client, &mut steps) {
            Turn::Ready => {
                client.link.deadline = NEVER;
                if !mem::replace(&mut client.link.ready, true) {
                    client.link.transport.stands(Standing::Waiting);
                    self.ready.push_back(key);
                }
                self.clients.give_back(key, client);
            }
            turn => self.settle(key, client, turn),
        }
    }

    /// The connection whose request has waited longest for the thread.
    pub(super) fn next_ready(&mut self) -> Option<u64> {
        let key = self.ready.pop_front()?;
        if let Some(client) = self.clients.get_mut(key) {
            client.link.ready = false;
        }
        Some(key)
    }

    /// The worker is to stop, and this thread is in a request. Where others take what waits to be accepted, nothing keeps it
    /// from saying at once that it drains.
    fn stop_between(&mut self) {
        self.stopping = true;
        self.note_stop();
        if self.observer.is_succeeded() && !mem::replace(&mut self.draining, true) {
            self.cease_to_accept();
        }
    }

    fn with_current(&mut self, act: impl FnOnce(&mut Self, &mut Current<T>) -> Sent) -> Sent {
        let Some(mut current) = self.current.take() else {
            return Sent::Gone;
        };
        let sent = act(self, &mut current);
        self.current = Some(current);
        sent
    }
}

impl<O: Observer, T: Transport> Outlet for Core<O, T> {
    fn send(&mut self, response: &mut Response) -> Sent {
        self.with_current(|core, current| {
            let sent = core.hand_over(current, response);
            if sent == Sent::Taken && current.look <= core.now {
                core.look_after(current, false);
                return gone(&current.link);
            }
            sent
        })
    }

    fn wait(&mut self, response: &mut Response) -> Sent {
        self.with_current(|core, current| {
            let sent = loop {
                if current.link.broken {
                    break Sent::Gone;
                }
                let Some(backlog) = current
                    .link
                    .backlog
                    .clone()
                    .filter(|_| current.link.has_output())
                else {
                    break core.hand_over(current, response);
                };
                let mut data = response.take_out();
                let sent = backlog.store(&mut data);
                response.give_out(data);
                if sent != Sent::Full {
                    break sent;
                }
                core.observer.goes_on(NOT_COUNTED);
                core.look_after(current, true);
            };
            core.now = now();
            current.since = core.now;
            core.observer.goes_on(core.now);
            if current.look <= core.now {
                core.look_after(current, false);
            }
            match gone(&current.link) {
                Sent::Gone => Sent::Gone,
                _ => sent,
            }
        })
    }

    fn alive(&mut self) -> Sent {
        self.with_current(|core, current| {
            core.note_call(current.since);
            current.since = core.now;
            core.observer.goes_on(core.now);
            core.push_if_due(&current.link);
            if current.look <= core.now {
                core.look_after(current, false);
            }
            current.link.broken |= current.link.is_silent(core.now) || core.breaks_off();
            gone(&current.link)
        })
    }
}

fn gone<T: Transport>(link: &Link<T>) -> Sent {
    match link.broken {
        true => Sent::Gone,
        false => Sent::Taken,
    }
}

impl<T: Transport> Link<T> {
    /// Notes what the kernel has said when the loop was woken.
    #[inline(always)]
    pub(super) fn note_event(&mut self, flags: EventFlags, woken: Instant, now: Instant) {
        let ended = EventFlags::HUP | EventFlags::ERR;
        let hangup = flags.intersects(EventFlags::RDHUP | ended);
        if hangup || flags.contains(EventFlags::IN) {
            self.readable = true;
            self.readable_since = self.readable_since.min(woken);
        }
        self.blocked &= !flags.intersects(EventFlags::OUT | ended);
        if hangup && !mem::replace(&mut self.hangup, true) {
            self.silent_since = now;
        }
    }

    /// Whether the client has ended its side and nothing since shows that it is still there.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.hangup && self.silent_since.saturating_add(SILENT) <= now
    }
}
