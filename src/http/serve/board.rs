//! What the server's loop does, noted in the scoreboard.

use preforkd_worker::notify::{Notice, Notifier};
use preforkd_worker::scoreboard::{Record, State};

use crate::message::request::Request;
use crate::serve::handler::Observer;

/// What a kind of worker does itself when something happens to its process.
pub trait Life: Send + 'static {
    /// A signal has come, whose handlers run in here; whether the server is to stop for it.
    fn interrupted(&mut self) -> bool;
    /// The server accepts no more connections and finishes.
    fn draining(&mut self) {}
}

/// Writes the worker's record, if there is a scoreboard, and tells the master when the worker is ready and when it stops.
#[derive(Debug)]
pub struct Board<L> {
    life: L,
    record: Option<Record>,
    notifier: Option<Notifier>,
    draining: bool,
    /// Requests until the worker asks to be replaced.
    left: Option<u64>,
}

impl<L: Life> Board<L> {
    /// After `left` requests the worker asks to be replaced.
    pub fn new(
        life: L,
        record: Option<Record>,
        notifier: Option<Notifier>,
        left: Option<u64>,
    ) -> Self {
        Self {
            life,
            record,
            notifier,
            draining: false,
            left,
        }
    }

    /// The worker accepts requests from now on.
    pub fn ready(&mut self) {
        self.idle();
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.notify(&Notice::Ready)
        {
            log::error!(
                "could not tell the master that the worker is ready: {error}; the master will abort it after start_timeout"
            );
        }
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.set_nonblocking()
        {
            log::warn!(
                "could not make the socket to the master non-blocking: {error}; a master that does not read delays requests"
            );
        }
    }

    /// Tells the master, unless it is gone or does not read; says whether it was told.
    fn tell(&self, notice: &Notice) -> bool {
        let notifier = self.notifier.as_ref();
        notifier.is_some_and(|notifier| notifier.notify(notice).is_ok())
    }

    fn ask_for_replacement(&self) -> bool {
        self.tell(&Notice::Retire("it has answered max_requests".into()))
    }

    fn state(&self, state: State) {
        if let Some(record) = self.record
            && !self.draining
        {
            record.state(state);
        }
    }
}

impl<L: Life> Observer for Board<L> {
    fn connections(&mut self, number: usize) {
        if let Some(record) = self.record {
            record.connections(number);
        }
    }

    fn busy(&mut self, since: u64, threads: usize, request: Request<'_>) {
        if let Some(record) = self.record {
            record.busy(since, threads, request.method(), request.path());
            if record.is_marked() && !self.tell(&Notice::Busy) {
                record.keep_mark();
            }
        }
        self.state(State::Busy);
    }

    fn goes_on(&mut self, since: u64) {
        if let Some(record) = self.record {
            record.goes_on(since);
        }
    }

    fn threads(&mut self, number: usize) {
        if let Some(record) = self.record {
            record.threads(number);
        }
    }

    fn idle(&mut self) {
        if let Some(record) = self.record {
            record.idle();
        }
        self.state(State::Idle);
    }

    fn answered(&mut self, status: u16, microseconds: u64) {
        if let Some(record) = self.record {
            record.answered(status, microseconds);
        }
        self.left = match self.left {
            // Not told, it asks again after the next request.
            Some(1) if !self.draining && !self.ask_for_replacement() => Some(1),
            Some(left) => (left > 1).then(|| left - 1),
            None => None,
        };
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(record) = self.record {
            record.sent(bytes);
        }
    }

    fn is_succeeded(&self) -> bool {
        self.record.is_some_and(Record::is_succeeded)
    }

    fn interrupted(&mut self) -> bool {
        self.life.interrupted()
    }

    fn draining(&mut self) {
        self.life.draining();
        self.state(State::Draining);
        self.draining = true;
        // The master may be what died; the worker stops all the same.
        self.tell(&Notice::Stopping);
    }
}
