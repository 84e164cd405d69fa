//! Workers that make room for fresh ones: they have served long enough, or have grown.

use std::time::{Duration, Instant};

use log::info;
use nix::unistd::Pid;

use super::{Master, report};
use crate::effects::memory;
use crate::supervisor::Event;

impl Master {
    /// A worker is ready: its age counts from now on.
    pub(super) fn begin_ageing(&mut self, pid: Pid) {
        if let Some(child) = self.children.get_mut(pid) {
            let lifetime = child.recycle.max_age.map(shortened);
            child.retire_at = lifetime.map(|lifetime| Instant::now() + lifetime);
        }
    }

    /// When the next worker is too old.
    pub(super) fn next_retirement(&self) -> Option<Instant> {
        self.children
            .iter()
            .filter_map(|(_, child)| child.retire_at)
            .min()
    }

    /// Replaces the workers that are too old.
    pub(super) fn retire_the_old(&mut self, now: Instant) {
        for pid in self.children.due(now, |child| child.retire_at) {
            self.retire(pid, "it is as old as max_age");
        }
    }

    /// Replaces a worker that is too large.
    pub(super) fn retire_the_large(&mut self, pid: Pid) {
        let most = self
            .children
            .get(pid)
            .and_then(|child| child.recycle.max_memory);
        let Some(most) = most else { return };
        if let Some(share) = memory::share(pid).filter(|&share| share > most) {
            let (share, most) = (bytesize::ByteSize(share), bytesize::ByteSize(most));
            self.retire(
                pid,
                &format!("its share of memory is {share} (max_memory {most})"),
            );
        }
    }

    /// Has a worker replaced; once is enough.
    pub(super) fn retire(&mut self, pid: Pid, reason: &str) {
        let Some(child) = self.children.get_mut(pid) else {
            return;
        };
        child.retire_at = None;
        child.recycle.max_memory = None;
        info!(
            "{}: a fresh worker is to take its place: {reason}",
            report::Tag(child, pid)
        );
        self.facts
            .push_back((child.app.clone(), Event::Recycle(child.worker)));
    }
}

/// Up to a tenth less, by chance, so that workers that were started together do not end together.
fn shortened(lifetime: Duration) -> Duration {
    lifetime.mul_f64(1.0 - fastrand::f64() / 10.0)
}
