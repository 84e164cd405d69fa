//! Who can go on: the library wakes connections and streams by putting their keys into a queue, which the loop empties.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// The keys of those that were woken, for all connections of a server.
#[derive(Debug, Clone, Default)]
pub struct Queue(Arc<Mutex<VecDeque<Arc<Sleeper>>>>);

/// The queue as its server has it. Who is in it holds the queue, so neither would ever go.
#[derive(Debug, Default)]
pub struct Owner(Queue);

impl Deref for Owner {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut queue = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.clear();
    }
}

/// A connection or a stream.
#[derive(Debug)]
pub struct Sleeper {
    key: AtomicU64,
    queued: AtomicBool,
    queue: Queue,
}

impl Sleeper {
    /// One with this key.
    pub fn new(queue: &Queue, key: u64) -> Arc<Self> {
        Arc::new(Self {
            key: AtomicU64::new(key),
            queued: AtomicBool::new(false),
            queue: queue.clone(),
        })
    }

    /// It has another key from now on.
    pub fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    /// What wakes it.
    pub fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let queue = self.queue.0.lock();
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            queue.push_back(self.clone());
        }
    }
}

impl Queue {
    /// The key of the first one.
    pub fn next(&self) -> Option<u64> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sleeper = queue.pop_front()?;
        sleeper.queued.store(false, Ordering::Release);
        Some(sleeper.key.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_queued_once_until_it_was_taken() {
        let queue = Queue::default();
        let (one, other) = (Sleeper::new(&queue, 1), Sleeper::new(&queue, 0));
        other.set_key(2);
        for sleeper in [&other, &one, &other] {
            sleeper.waker().wake();
        }
        assert_eq!((queue.next(), queue.next()), (Some(2), Some(1)));
        assert_eq!(queue.next(), None);
        other.waker().wake_by_ref();
        assert_eq!(queue.next(), Some(2));
    }

    #[test]
    fn who_was_woken_and_never_taken_goes_with_the_queue() {
        let queue = Owner::default();
        let sleeper = Sleeper::new(&queue, 1);
        sleeper.waker().wake();
        let left = Arc::downgrade(&sleeper);
        drop(sleeper);
        assert!(left.upgrade().is_some());
        drop(queue);
        assert!(left.upgrade().is_none());
    }
}
