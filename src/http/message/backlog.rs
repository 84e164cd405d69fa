//! A [`Spool`] that the handler fills and the loop empties, on the same thread or on two.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::exchange::Sent;
use crate::limits::Limits;
use crate::message::budget::Budget;
use crate::message::spool::{Next, Room, Spool};

#[derive(Debug)]
pub(crate) struct Backlog {
    state: Mutex<State>,
    /// The client has taken some, or has left.
    change: Condvar,
    /// The loop was told that there is something, and has not looked yet.
    told: AtomicBool,
    /// Only the end of the connection ends this response.
    closes: AtomicBool,
}

#[derive(Debug)]
struct State {
    spool: Spool,
    gone: bool,
}

impl Backlog {
    pub fn new(limits: &Limits, budget: &Arc<Budget>) -> Self {
        Self {
            state: Mutex::new(State {
                spool: Spool::new(limits, budget.clone()),
                gone: false,
            }),
            change: Condvar::new(),
            told: AtomicBool::new(false),
            closes: AtomicBool::new(false),
        }
    }

    // Nothing can panic while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `data` if there is room in memory, and leaves an empty buffer.
    pub fn give(&self, data: &mut Vec<u8>) -> Sent {
        let mut state = self.lock();
        match state.spool.room(data.len()) {
            _ if state.gone => Sent::Gone,
            Room::Memory => {
                state.spool.remember(data);
                Sent::Taken
            }
            Room::File | Room::None => Sent::Full,
        }
    }

    /// The same, also if there is room in the file only: may wait for the disk.
    pub fn store(&self, data: &mut Vec<u8>) -> Sent {
        let mut state = self.lock();
        // Where one file cannot be used there may be another one.
        while !state.gone && state.spool.room(data.len()) == Room::File {
            let Some(place) = state.spool.place() else {
                return Sent::Full;
            };
            // Without the lock: the loop must not wait for the disk.
            drop(state);
            let result = place.write(data);
            state = self.lock();
            if state.spool.written(data.len(), result) {
                data.clear();
                return Sent::Taken;
            }
        }
        drop(state);
        self.give(data)
    }

    /// Takes `data`, to memory or to the file. Without room for it, it is held all the same: whoever makes it is to wait then.
    pub fn hold(&self, mut data: Vec<u8>) {
        let taken = match self.give(&mut data) {
            Sent::Full => self.store(&mut data),
            other => other,
        };
        if taken == Sent::Full {
            self.finish(data);
        }
    }

    /// The bytes that wait, if there is no room for so many more.
    pub fn excess(&self, length: usize) -> Option<usize> {
        let spool = &self.lock().spool;
        (spool.room(length) == Room::None).then(|| spool.held())
    }

    /// Waits until there may be room for `length` bytes, or the client has left.
    pub fn wait(&self, length: usize) {
        let mut state = self.lock();
        while !state.gone && state.spool.room(length) == Room::None {
            state = self
                .change
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes what comes after everything else.
    pub fn finish(&self, last: Vec<u8>) {
        self.lock().spool.finish(last);
    }

    /// Takes out what comes next; see [`Spool::next`].
    pub fn next(&self, out: &mut Vec<u8>) -> Next {
        self.lock().spool.next(out)
    }

    /// See [`Spool::taken`].
    pub fn taken(&self, length: u64) {
        self.lock().spool.taken(length);
        self.change.notify_all();
    }

    /// See [`Spool::outside`].
    pub fn outside(&self, length: usize) {
        self.lock().spool.outside(length);
        self.change.notify_all();
    }

    /// Whether the loop has to be told; it looks after [`Backlog::end_to_tell`].
    pub fn begin_to_tell(&self) -> bool {
        !self.told.swap(true, Ordering::AcqRel)
    }

    /// The loop looks now.
    pub fn end_to_tell(&self) {
        self.told.store(false, Ordering::Release);
    }

    /// Tells whether only the end of the connection ends this response.
    pub fn closes(&self, closes: bool) {
        self.closes.store(closes, Ordering::Relaxed);
    }

    /// What was told.
    pub fn is_closing(&self) -> bool {
        self.closes.load(Ordering::Relaxed)
    }

    pub fn is_gone(&self) -> bool {
        self.lock().gone
    }

    pub fn has_data(&self) -> bool {
        self.lock().spool.has_data()
    }

    /// The client has left.
    pub fn leave(&self) {
        self.lock().gone = true;
        self.change.notify_all();
    }
}
