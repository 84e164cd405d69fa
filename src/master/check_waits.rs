//! How long workers that were replaced for failed checks are left alone before they are replaced for that again.
//!
//! A check may fail for a cause that fresh workers do not remove, such as a database that is away. So each replacement waits twice
//! as long as the one before, until a check has passed: where each worker has an address of its own, that of a worker that came after the
//! replacement, as others say nothing of the cause. So they are replaced one at a time. A new generation begins anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::release::Name;

/// The maximum wait, unless so many checks take longer anyway.
const MOST: Duration = Duration::from_secs(600);

/// The replacements of each app since a check has passed.
#[derive(Default)]
pub(super) struct CheckWaits {
    of: BTreeMap<Name, Replaced>,
}

struct Replaced {
    generation: u64,
    times: u32,
    /// When the last one was.
    at: Instant,
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
        app: &Name,
        generation: u64,
        row: Duration,
    ) -> Result<Duration, Held> {
        let known = self.of.get_mut(app);
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
            at: now,
            not_before: now + wait,
            said: false,
        };
        self.of.insert(app.clone(), replaced);
        Ok(wait)
    }

    /// A check has passed, of a worker that was ready `since` then, or of all. Returns whether there was a replacement that it proves.
    pub(super) fn passed(&mut self, app: &Name, since: Option<Instant>) -> bool {
        let known = self.of.get(app);
        let proves = known.is_some_and(|last| since.is_none_or(|since| since >= last.at));
        if proves {
            self.of.remove(app);
        }
        proves
    }

    /// Whether an app was replaced for failed checks, and none has passed since. `runs` tells whether it still has workers of a
    /// generation.
    pub(super) fn fails(&self, app: &Name, runs: impl Fn(u64) -> bool) -> bool {
        let last = self.of.get(app);
        last.is_some_and(|last| runs(last.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Duration = Duration::from_secs(30);

    #[test]
    fn each_replacement_waits_twice_as_long_until_a_check_passes() {
        let mut waits = CheckWaits::default();
        let app = Name::from("web");
        let mut now = Instant::now();
        for seconds in [60, 120, 240, 480, 600, 600] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(waits.replace(now, &app, 1, ROW), Ok(wait));
            let early = now + wait - ROW;
            let held = waits.replace(early, &app, 1, ROW).expect_err("too early");
            assert!(held.left == ROW && held.is_new, "{held:?}");
            let held = waits.replace(early, &app, 1, ROW).expect_err("too early");
            assert!(!held.is_new, "it is said once");
            now += wait;
        }
        assert!(waits.fails(&app, |generation| generation == 1));
        assert!(!waits.fails(&app, |generation| generation == 2));
        let anew = waits.replace(now, &app, 2, ROW);
        assert_eq!(anew, Ok(2 * ROW), "a new generation begins anew");
        assert!(waits.passed(&app, None) && !waits.passed(&app, None));
        assert!(!waits.fails(&app, |_| true));
        assert_eq!(waits.replace(now, &app, 2, ROW), Ok(2 * ROW));
    }

    #[test]
    fn only_a_worker_that_came_later_proves_that_a_replacement_has_helped() {
        let mut waits = CheckWaits::default();
        let app = Name::from("web");
        let now = Instant::now();
        assert_eq!(waits.replace(now, &app, 1, ROW), Ok(2 * ROW));
        // The next one, which fails for the same cause, has to wait.
        waits.replace(now, &app, 1, ROW).expect_err("too early");
        assert!(!waits.passed(&app, Some(now - ROW)));
        assert!(waits.passed(&app, Some(now + ROW)));
        assert_eq!(waits.replace(now + ROW, &app, 1, ROW), Ok(2 * ROW));
    }

    #[test]
    fn checks_that_take_longer_than_the_maximum_are_not_hurried() {
        let mut waits = CheckWaits::default();
        let hour = Duration::from_secs(3600);
        let app = Name::from("web");
        let now = Instant::now();
        assert_eq!(waits.replace(now, &app, 1, hour), Ok(hour));
        assert_eq!(waits.replace(now + hour, &app, 1, hour), Ok(hour));
    }
}
