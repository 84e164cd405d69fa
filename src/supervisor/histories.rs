//! Random histories: whatever happens in whatever order, the promises hold after every event.

use super::tests::{Boot, World, policy};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Step {
    Reload {
        workers: u32,
        good: bool,
        kind: (Replace, Restart),
    },
    Rollback,
    /// A generation without the app is proposed.
    Displace,
    Withdraw,
    Restore,
    Scale(i32),
    Crash(usize),
    Finish(usize),
    Leaves(usize),
    Recycle(usize),
    Outgrown(usize),
    Hang(usize),
    /// A worker that has just been requested cannot be started.
    CannotStart,
    Pause,
    /// Something is left of an earlier run, or no longer.
    EarlierLeft(bool),
    Pass(f64),
    /// An event about a worker that may have been reaped long ago.
    Late(u64),
    /// The events of this many further steps are recorded together.
    Together(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..6u32, any::<bool>(), kind()).prop_map(|(workers, good, kind)| Step::Reload {
            workers,
            good,
            kind
        }),
        Just(Step::Rollback),
        Just(Step::Displace),
        Just(Step::Withdraw),
        Just(Step::Restore),
        (-2..3i32).prop_map(Step::Scale),
        (0..8usize).prop_map(Step::Crash),
        (0..8usize).prop_map(Step::Finish),
        (0..8usize).prop_map(Step::Leaves),
        (0..8usize).prop_map(Step::Recycle),
        (0..8usize).prop_map(Step::Outgrown),
        (0..8usize).prop_map(Step::Hang),
        Just(Step::CannotStart),
        Just(Step::Pause),
        any::<bool>().prop_map(Step::EarlierLeft),
        (0.0..3.0f64).prop_map(Step::Pass),
        (0.0..90.0f64).prop_map(Step::Pass),
        (0..40u64).prop_map(Step::Late),
        (1..5usize).prop_map(Step::Together),
    ]
}

fn kind() -> impl Strategy<Value = (Replace, Restart)> {
    let replace = [Replace::StartFirst, Replace::StopFirst];
    let restart = [Restart::Always, Restart::OnFailure, Restart::Never];
    (
        prop::sample::select(replace.to_vec()),
        prop::sample::select(restart.to_vec()),
    )
}

/// Even generations cannot start, or fail their check if they have one.
fn boot(generation: Generation) -> Boot {
    if generation.is_multiple_of(4) {
        Boot::Unfit
    } else if generation.is_multiple_of(2) {
        Boot::Dies
    } else {
        Boot::Good
    }
}

struct History {
    world: World,
    generation: Generation,
    wanted_reload: Option<(u32, bool, (Replace, Restart))>,
    /// The minimum number of ready workers: the number wanted when the app last settled, unless the history has killed some
    /// or asked for fewer since.
    floor: Option<u32>,
    /// The number of further steps whose events are held back.
    together: usize,
}

impl History {
    fn begin() -> Self {
        let mut world = World::new(boot);
        // A third of the workers have requests for ever.
        world.serves = |id| (id.0 % 3 > 0).then(|| Duration::from_secs(4 * (id.0 % 3 - 1)));
        world.tell(Event::Propose(1, policy(2)));
        world.pass(30.0);
        Self {
            world,
            generation: 1,
            wanted_reload: None,
            floor: None,
            together: 0,
        }
    }

    fn nth(&self, n: usize) -> Option<WorkerId> {
        self.world.alive.keys().nth(n).copied()
    }

    /// Reloads if a reload is wanted and the master would begin it now: not during another rollout.
    fn reload(&mut self) {
        let supervisor = &self.world.supervisor;
        let free = supervisor.is_settled()
            || supervisor.is_in_trouble()
            || supervisor.wish == Wish::Pause
            || supervisor.is_displaced();
        if let Some((workers, good, (replace, restart))) = self.wanted_reload.take_if(|_| free) {
            // The next odd or even number that was never used.
            self.generation += if self.generation.is_multiple_of(2) == good {
                1
            } else {
                2
            };
            let check = !self.generation.is_multiple_of(3);
            let policy = Policy {
                check,
                replace,
                restart,
                ends_quiet: self.generation % 5 < 3,
                ..policy(workers)
            };
            if replace == Replace::StopFirst {
                self.floor = None;
            }
            self.world.tell(Event::Propose(self.generation, policy));
        }
    }

    fn take(&mut self, step: &Step) {
        if self.world.held {
            self.together = self.together.saturating_sub(1);
            // Time does not pass before the events are recorded.
            if self.together == 0 || matches!(step, Step::Pass(_)) {
                self.world.release();
            }
        }
        let world = &mut self.world;
        match *step {
            Step::Reload {
                workers,
                good,
                kind,
            } => {
                self.wanted_reload = Some((workers, good, kind));
                self.reload();
            }
            Step::Rollback => {
                world.tell(Event::Rollback);
                self.floor = None;
            }
            Step::Displace => {
                // It is even or odd as before.
                self.generation += 2;
                world.tell(Event::Displace(self.generation));
                self.floor = None;
            }
            Step::Withdraw => {
                world.tell(Event::Withdraw);
                self.floor = None;
            }
            Step::Restore => world.tell(Event::Restore),
            Step::Scale(by) => {
                world.tell(Event::Scale(by));
                self.floor = None;
            }
            Step::Crash(n) => {
                if let Some(id) = self.nth(n) {
                    self.world.dies(id);
                    self.floor = None;
                }
            }
            Step::Finish(n) => {
                if let Some(id) = self.nth(n) {
                    self.world.finishes(id);
                    self.floor = None;
                }
            }
            Step::Leaves(n) => {
                if let Some(id) = self.nth(n) {
                    self.world.tell(Event::Stopping(id));
                    self.floor = None;
                }
            }
            Step::Recycle(n) => {
                if let Some(id) = self.nth(n) {
                    self.world.tell(Event::Recycle(id));
                }
            }
            Step::Outgrown(n) => {
                if let Some(id) = self.nth(n) {
                    self.world.tell(Event::Outgrown(id));
                }
            }
            Step::Hang(n) => {
                if let Some(id) = self.nth(n) {
                    let whole = n.is_multiple_of(2);
                    let event = if whole {
                        Event::Hung
                    } else {
                        Event::HungInPart
                    };
                    self.world.tell(event(id));
                    self.floor = None;
                }
            }
            Step::CannotStart => {
                let mut workers = world.supervisor.roster.iter();
                let starting = workers.find(|(_, w)| matches!(w.state, State::Starting { .. }));
                if let Some((id, _)) = starting {
                    drop(workers);
                    // The fault is the worker's or the system's.
                    if id.0 % 2 == 0 {
                        world.vanishes(id);
                    } else {
                        world.is_refused(id);
                    }
                    self.floor = None;
                }
            }
            Step::Pause => {
                world.tell(Event::Pause);
                self.floor = None;
            }
            Step::EarlierLeft(held) => {
                world.tell(Event::EarlierLeft(held));
                self.floor = None;
            }
            Step::Together(steps) => {
                self.together = steps;
                world.held = true;
            }
            Step::Pass(seconds) => {
                world.pass(seconds);
                self.reload();
            }
            Step::Late(id) => {
                // Only a reaped worker: the kernel reports no end of a living one.
                if !world.alive.contains_key(&WorkerId(id)) {
                    for event in
                        [Event::Exited, Event::Hopeless, Event::Ready].map(|e| e(WorkerId(id)))
                    {
                        world.tell(event);
                    }
                }
            }
        }
    }

    fn check(&mut self) {
        if self.world.held {
            return;
        }
        let supervisor = &self.world.supervisor;
        supervisor.roster.check();
        let alive: BTreeSet<_> = self.world.alive.keys().copied().collect();
        let known: BTreeSet<_> = supervisor.roster.iter().map(|(id, _)| id).collect();
        assert_eq!(
            alive, known,
            "the supervisor knows exactly the living workers"
        );
        let workers = supervisor.roster.iter();
        let slots: BTreeSet<_> = workers.map(|(_, w)| (w.generation, w.slot)).collect();
        assert_eq!(slots.len(), known.len(), "no slot is given twice");
        let counts = supervisor.counts();
        if supervisor.is_settled() {
            let done = counts.finished + counts.failed;
            self.floor = Some(counts.wanted.saturating_sub(done));
        }
        if supervisor.stops_first() {
            // How many there may be is looked at with each start.
            self.floor = None;
        }
        if let Some(floor) = &mut self.floor {
            let workers = supervisor.roster.iter();
            let active = workers.filter(|(_, w)| w.state.is_active());
            let generations: BTreeSet<_> = active.map(|(_, w)| w.generation).collect();
            assert!(
                generations.len() <= 2,
                "the current one, and one that comes or goes"
            );
            let done = counts.finished + counts.failed;
            *floor = counts.wanted.saturating_sub(done).min(*floor);
            assert!(
                counts.ready >= *floor,
                "a reload or a recycling never leaves fewer than wanted"
            );
        }
    }
}

/// PREFORKD_HISTORIES is the number of histories of each kind; by default it is small.
fn config() -> ProptestConfig {
    let cases = std::env::var("PREFORKD_HISTORIES")
        .ok()
        .and_then(|number| number.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_keeps_the_promises_and_left_alone_settles(steps in prop::collection::vec(step(), 0..40), last in kind()) {
        let mut history = History::begin();
        for step in &steps {
            history.take(step);
            history.check();
        }
        // A reload resumes a paused app; one that had to wait is retried as time passes.
        history.take(&Step::EarlierLeft(false));
        history.take(&Step::Reload { workers: 3, good: true, kind: last });
        for _ in 0..3 {
            history.take(&Step::Pass(400.0));
        }
        history.check();
        let supervisor = &history.world.supervisor;
        prop_assert!(supervisor.is_settled());
        prop_assert_eq!(supervisor.generation(), Some(history.generation));
        prop_assert!(history.world.alive.values().all(|&g| g == history.generation));
        prop_assert_eq!(history.world.alive.len() as u32, supervisor.counts().wanted);
    }

    #[test]
    fn a_stop_always_ends_with_every_child_reaped(steps in prop::collection::vec(step(), 0..30), now in any::<bool>()) {
        let mut history = History::begin();
        for step in &steps {
            history.take(step);
        }
        history.world.release();
        history.world.log.clear();
        history.world.tell(if now { Event::StopNow } else { Event::Stop });
        history.world.pass(120.0);
        prop_assert!(history.world.alive.is_empty());
        let exits = history.world.log.iter().filter(|a| **a == Action::Exit).count();
        prop_assert_eq!(exits, 1);
        prop_assert_eq!(history.world.spawns(), 0);
    }
}
