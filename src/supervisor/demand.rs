//! The number of workers of an app that follows its load.

use std::time::{Duration, Instant};

/// The limits of a number of workers that follows the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Range {
    /// The minimum. With 0 the app may have no worker while there are no requests.
    pub min: u32,
    /// The maximum.
    pub max: u32,
    /// This number should be idle while others are busy.
    pub spare: u32,
    /// A worker that was not needed for this time is ended.
    pub idle_timeout: Duration,
}

/// What is known of an app's load at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Workers that could not take one more request; `None` where that cannot be seen.
    pub busy: Option<u32>,
    /// Connections that wait to be accepted.
    pub waiting: u32,
}

/// The recent load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    last: Load,
    /// The number of workers that the load needs, if more than are wanted; until [`Demand::grow`].
    lacks: Option<u32>,
    /// Since when `peak` counts.
    since: Instant,
    /// The highest number of workers that was needed.
    peak: u32,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        let last = Load {
            busy: Some(0),
            waiting: 0,
        };
        Self {
            last,
            lacks: None,
            since: now,
            peak: 0,
        }
    }

    /// Records a load.
    pub(super) fn note(&mut self, load: Load, wanted: u32, range: &Range) {
        self.last = load;
        let needed = needed(load, wanted, range);
        if needed > wanted {
            self.lacks = self.lacks.max(Some(needed));
        } else {
            self.peak = self.peak.max(needed);
        }
    }

    /// The number of workers that a load has needed since this was last asked, if that was more than were wanted.
    pub(super) fn grow(&mut self, now: Instant) -> Option<u32> {
        let needed = self.lacks.take()?;
        self.since = now;
        self.peak = needed;
        Some(needed)
    }

    /// When fewer may be enough, if nothing happens until then.
    pub(super) fn deadline(&self, wanted: u32, range: &Range) -> Option<Instant> {
        (wanted > range.min).then(|| self.since + range.idle_timeout)
    }

    /// The number of workers that was enough during a whole `idle_timeout`, if that has passed and they are fewer than
    /// wanted.
    pub(super) fn shrink(&mut self, wanted: u32, range: &Range, now: Instant) -> Option<u32> {
        if self.deadline(wanted, range)? > now {
            return None;
        }
        let enough = self
            .peak
            .max(needed(self.last, wanted, range))
            .max(range.min);
        self.since = now;
        let fewer = enough < wanted;
        self.peak = needed(self.last, enough.min(wanted), range);
        fewer.then_some(enough)
    }
}

fn needed(load: Load, wanted: u32, range: &Range) -> u32 {
    let number = match load.busy {
        // Without work there is no need for spare workers.
        Some(0) if load.waiting == 0 => 0,
        Some(busy) => busy
            .saturating_add(load.waiting)
            .saturating_add(range.spare),
        // A connection that waits is not served by the workers there are; if none waits, one fewer may be enough.
        None if load.waiting == 0 => wanted.saturating_sub(1),
        None => wanted.saturating_add(load.waiting),
    };
    number.clamp(range.min, range.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range {
        min: 1,
        max: 8,
        spare: 2,
        idle_timeout: Duration::from_secs(60),
    };

    fn load(busy: u32, waiting: u32) -> Load {
        let busy = Some(busy);
        Load { busy, waiting }
    }

    /// The number that is wanted because of a load, if more.
    fn told(
        demand: &mut Demand,
        load: Load,
        wanted: u32,
        range: &Range,
        now: Instant,
    ) -> Option<u32> {
        demand.note(load, wanted, range);
        demand.grow(now)
    }

    #[test]
    fn while_some_are_busy_others_are_spare_within_the_range() {
        for (busy, number) in [(0, 1), (1, 3), (4, 6), (6, 8), (100, 8)] {
            assert_eq!(needed(load(busy, 0), 5, &RANGE), number, "{busy} busy");
        }
    }

    #[test]
    fn more_start_at_once_and_fewer_only_when_they_were_enough_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut demand = Demand::new(start);
        assert_eq!(told(&mut demand, load(4, 0), 1, &RANGE, at(1)), Some(6));
        assert_eq!(told(&mut demand, load(2, 0), 6, &RANGE, at(2)), None);
        assert_eq!(told(&mut demand, load(0, 0), 6, &RANGE, at(50)), None);
        assert_eq!(demand.deadline(6, &RANGE), Some(at(61)));
        assert_eq!(demand.shrink(6, &RANGE, at(60)), None);
        // A peak inside the time keeps the number once more.
        assert_eq!(
            demand.shrink(6, &RANGE, at(61)),
            None,
            "six were needed when it began"
        );
        assert_eq!(told(&mut demand, load(1, 0), 6, &RANGE, at(70)), None);
        assert_eq!(demand.shrink(6, &RANGE, at(121)), Some(3));
        assert_eq!(told(&mut demand, load(0, 0), 3, &RANGE, at(122)), None);
        assert_eq!(
            demand.shrink(3, &RANGE, at(181)),
            None,
            "three were needed until then"
        );
        assert_eq!(demand.shrink(3, &RANGE, at(241)), Some(1));
        assert_eq!(demand.deadline(1, &RANGE), None, "nothing is to be done");
    }

    #[test]
    fn without_a_view_of_the_workers_the_queue_tells() {
        let start = Instant::now();
        let blind = |waiting| Load {
            busy: None,
            waiting,
        };
        let mut demand = Demand::new(start);
        assert_eq!(told(&mut demand, blind(3), 2, &RANGE, start), Some(5));
        assert_eq!(told(&mut demand, blind(0), 5, &RANGE, start), None);
        let later = start + RANGE.idle_timeout;
        assert_eq!(demand.shrink(5, &RANGE, later), None);
        assert_eq!(
            demand.shrink(5, &RANGE, later + RANGE.idle_timeout),
            Some(4)
        );
        assert_eq!(
            demand.shrink(4, &RANGE, later + 2 * RANGE.idle_timeout),
            Some(3)
        );
    }

    #[test]
    fn with_a_minimum_of_none_the_last_one_goes_too() {
        let range = Range { min: 0, ..RANGE };
        let mut demand = Demand::new(Instant::now());
        let later = Instant::now() + range.idle_timeout;
        assert_eq!(demand.shrink(2, &range, later), Some(0));
        assert_eq!(told(&mut demand, load(0, 1), 0, &range, later), Some(3));
    }
}
