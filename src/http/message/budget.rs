//! What a worker holds for its clients, in memory and in temporary files: request bodies, and what waits of responses. One limit is
//! for all of it together.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The limit, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    used: AtomicU64,
    /// The warning that no temporary file can be used was logged.
    warned: AtomicBool,
}

impl Budget {
    pub fn new(most: u64) -> Self {
        Self {
            most,
            used: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    pub fn most(&self) -> u64 {
        self.most
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether there is room for `more` bytes.
    pub fn allows(&self, more: u64) -> bool {
        self.used().saturating_add(more) <= self.most
    }

    /// Warns once that temporary files cannot be used.
    #[cold]
    pub fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                "could not write a temporary file in {}: {error} (make sure that the folder is writable and has room, or name another \
                 one: env = {{ TMPDIR = \"PATH\" }}); large request bodies, and responses that clients do not take, are kept in memory, \
                 up to max_buffered",
                std::env::temp_dir().display()
            );
        }
    }

    #[cfg(test)]
    pub fn has_warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }
}

/// What one message takes of a [`Budget`]. It is given back when the share is dropped.
#[derive(Default)]
pub(crate) struct Share {
    /// None as long as it takes nothing: most requests have no body.
    budget: Option<Arc<Budget>>,
    bytes: u64,
}

impl Share {
    /// Takes `more` bytes if there is room.
    pub fn grow(&mut self, budget: &Arc<Budget>, more: u64) -> bool {
        let before = budget.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > budget.most {
            budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        if self.budget.is_none() {
            self.budget = Some(budget.clone());
        }
        self.bytes += more;
        true
    }

    /// Takes `bytes` in all, whether there is room or not.
    pub fn set(&mut self, budget: &Arc<Budget>, bytes: u64) {
        match bytes >= self.bytes {
            true => budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed),
            false => budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        if self.budget.is_none() {
            self.budget = Some(budget.clone());
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Share").field(&self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_stay_within_the_budget_and_are_given_back_once() {
        let budget = Arc::new(Budget::new(10));
        let (mut one, mut other) = (Share::default(), Share::default());
        assert!(one.grow(&budget, 4) && one.grow(&budget, 3));
        assert!(!other.grow(&budget, 4), "only three are left");
        assert!(other.grow(&budget, 3));
        assert!(!budget.allows(1) && budget.allows(0));
        drop(one);
        assert_eq!(budget.used(), 3);
        other.set(&budget, 20);
        assert_eq!(
            budget.used(),
            20,
            "what must be held is counted all the same"
        );
        other.set(&budget, 1);
        assert_eq!(budget.used(), 1);
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
