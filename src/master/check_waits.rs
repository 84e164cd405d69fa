//! How long workers that were replaced for failed checks are left alone before they are replaced for that again.
//!
//! A check may fail for a cause that fresh workers do not remove, such as a database that is away. So each replacement waits twice
//! as long as the one before, until a check has passed. A new generation begins anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::release::Name;

/// The maximum wait, unless so many checks take longer anyway.
const MOST: Duration = Duration::from_secs(600);

/// What is replaced: all workers of an app, or the one in this slot.
pub(super) type Place = (Name, Option<u32>);

/// The replacements since a check has passed.
#[derive(Default)]
pub(super) struct CheckWaits {
    of: BTreeMap<Place, Replaced>,
}

struct Replaced {
    generation: u64,
    times: u32,
    not_before: Instant,
    /// The log says that it waits.
    said: bool,
}

/// Why there is no replacement now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// How often there was one since a check has passed.
    pub(super) times: u32,
    /// The time until the next one.
    pub(super) left: Duration,
    /// It is the first refusal since the last one.
    pub(super) is_new: bool,
}

impl CheckWaits {
    /// Checks that failed in a row, which takes `row`, ask for a replacement. Returns the minimum time until the next one, if this one
    /// may be now.
    pub(super) fn replace(
        &mut self,
        now: Instant,
        place: &Place,
        generation: u64,
        row: Duration,
    ) -> Result<Duration, Held> {
        let known = self.of.get_mut(place);
        let mut times = 0;
        if let Some(last) = known.filter(|last| last.generation == generation) {
            if now < last.not_before {
                return Err(Held {
                    times: last.times,
                    left: last.not_before - now,
                    is_new: !std::mem::replace(&mut last.said, true),
                });
            }
            times = last.times;
        }
        times = times.saturating_add(1);
        let wait = row.saturating_mul(1 << times.min(20)).min(MOST.max(row));
        let replaced = Replaced {
            generation,
            times,
            not_before: now + wait,
            said: false,
        };
        self.of.insert(place.clone(), replaced);
        Ok(wait)
    }

    /// A check has passed. Returns whether there was a replacement.
    pub(super) fn passed(&mut self, place: &Place) -> bool {
        self.of.remove(place).is_some()
    }

    /// Whether an app was replaced for failed checks, and none has passed since. `runs` tells whether a place still has workers of a
    /// generation.
    pub(super) fn fails(&self, app: &Name, runs: impl Fn(Option<u32>, u64) -> bool) -> bool {
        let of_app = self.of.iter().filter(|((name, _), _)| name == app);
        let mut places = of_app.map(|((_, slot), last)| (*slot, last.generation));
        places.any(|(slot, generation)| runs(slot, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Duration = Duration::from_secs(30);

    #[test]
    fn each_replacement_waits_twice_as_long_until_a_check_passes() {
        let mut waits = CheckWaits::default();
        let place = (Name::from("web"), None);
        let mut now = Instant::now();
        for seconds in [60, 120, 240, 480, 600, 600] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(waits.replace(now, &place, 1, ROW), Ok(wait));
            let early = now + wait - ROW;
            let held = waits.replace(early, &place, 1, ROW).expect_err("too early");
            assert!(held.left == ROW && held.is_new, "{held:?}");
            let held = waits.replace(early, &place, 1, ROW).expect_err("too early");
            assert!(!held.is_new, "it is said once");
            now += wait;
        }
        assert!(waits.fails(&place.0, |slot, generation| slot.is_none()
            && generation == 1));
        assert!(!waits.fails(&place.0, |_, generation| generation == 2));
        let anew = waits.replace(now, &place, 2, ROW);
        assert_eq!(anew, Ok(2 * ROW), "a new generation begins anew");
        assert!(waits.passed(&place) && !waits.passed(&place));
        assert!(!waits.fails(&place.0, |_, _| true));
        assert_eq!(waits.replace(now, &place, 2, ROW), Ok(2 * ROW));
    }

    #[test]
    fn checks_that_take_longer_than_the_maximum_are_not_hurried() {
        let mut waits = CheckWaits::default();
        let hour = Duration::from_secs(3600);
        let place = (Name::from("web"), Some(3));
        let now = Instant::now();
        assert_eq!(waits.replace(now, &place, 1, hour), Ok(hour));
        assert_eq!(waits.replace(now + hour, &place, 1, hour), Ok(hour));
    }
}
