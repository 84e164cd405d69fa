//! Workers that are told to end when they have no requests, in virtual time.

use super::tests::{Boot, World, policy};
use super::*;
use std::time::Duration;

/// Two workers, of which each has requests for so long after it was taken out.
fn world(serves: fn(WorkerId) -> Option<Duration>) -> World {
    let mut world = World::new(|_| Boot::Good);
    world.serves = serves;
    world.tell(Event::Propose(1, quiet(2)));
    world.pass(10.0);
    world.log.clear();
    world
}

fn quiet(workers: u32) -> Policy {
    Policy {
        ends_quiet: true,
        ..policy(workers)
    }
}

/// When each worker was taken out, told to end and killed, by a look each half a second; in seconds.
fn ends(world: &mut World, seconds: u32) -> Vec<(f64, Action)> {
    let mut seen = Vec::new();
    for half in 0..2 * seconds {
        let log = std::mem::take(&mut world.log).into_iter();
        let ends = log.filter(|action| {
            matches!(
                action,
                Action::TakeOut(..) | Action::Terminate(..) | Action::Kill(..)
            )
        });
        seen.extend(ends.map(|action| (f64::from(half) / 2.0, action)));
        world.pass(0.5);
    }
    seen
}

const ONE: WorkerId = WorkerId(0);
const OTHER: WorkerId = WorkerId(1);

#[test]
fn a_worker_is_told_when_it_has_no_requests_and_at_half_of_its_time_at_the_latest() {
    let mut world = world(|id| (id == ONE).then_some(Duration::from_secs(4)));
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Pause);
    let paused = Reason::Paused;
    assert_eq!(
        ends(&mut world, 40),
        [
            (0.0, Action::TakeOut(ONE, paused)),
            (0.0, Action::TakeOut(OTHER, paused)),
            (4.0, Action::Terminate(ONE, paused)),
            (15.0, Action::Terminate(OTHER, paused)),
            (30.0, Action::Kill(ONE, Reason::GracefulTimeout)),
            (30.0, Action::Kill(OTHER, Reason::GracefulTimeout)),
        ]
    );
}

#[test]
fn all_ways_to_end_a_worker_that_serves_wait_for_its_requests() {
    let ways: [fn(&mut World); 6] = [
        |world| world.tell(Event::Propose(2, quiet(2))),
        |world| world.tell(Event::Scale(-1)),
        |world| world.tell(Event::Recycle(ONE)),
        |world| world.tell(Event::Stop),
        |world| world.tell(Event::Remove),
        |world| {
            let replace = Replace::StopFirst;
            let policy = Policy {
                replace,
                ..quiet(2)
            };
            world.tell(Event::Propose(2, policy));
        },
    ];
    for way in ways {
        let mut world = world(|_| Some(Duration::from_secs(2)));
        way(&mut world);
        let ends = ends(&mut world, 60);
        assert!(!ends.is_empty());
        let taken_out = ends.iter().filter_map(|(at, action)| match action {
            Action::TakeOut(id, reason) => Some((*at + 2.0, Action::Terminate(*id, *reason))),
            _ => None,
        });
        let told = ends
            .iter()
            .filter(|(_, action)| matches!(action, Action::Terminate(..)));
        let (mut told, mut expected): (Vec<_>, Vec<_>) =
            (told.copied().collect(), taken_out.collect());
        let key = |it: &(f64, Action)| format!("{:?}", it.1);
        told.sort_by_key(key);
        expected.sort_by_key(key);
        // What is seen half a second later has happened in between.
        assert_eq!(told.len(), expected.len());
        for (told, expected) in told.iter().zip(&expected) {
            assert_eq!(told.1, expected.1);
            assert!((0.0..=0.5).contains(&(told.0 - expected.0)), "{ends:?}");
        }
    }
}

#[test]
fn who_has_no_requests_is_told_at_once() {
    let mut world = world(|_| Some(Duration::ZERO));
    let before = world.now;
    world.tell(Event::Stop);
    assert_eq!(world.log.last(), Some(&Action::Exit));
    assert_eq!(world.now, before);
}

#[test]
fn a_stop_at_once_waits_for_no_requests() {
    for first in [None, Some(Event::Pause), Some(Event::Scale(-1))] {
        let mut world = world(|_| None);
        first.into_iter().for_each(|first| world.tell(first));
        world.log.clear();
        world.tell(Event::StopNow);
        for id in [ONE, OTHER] {
            let told = Action::Terminate(id, Reason::Stop);
            assert!(world.log.contains(&told), "{:?}", world.log);
        }
        assert_eq!(world.log.last(), Some(&Action::Exit));
    }
}

#[test]
fn a_worker_that_hangs_or_is_not_ready_is_not_waited_for() {
    let mut world = world(|_| None);
    world.tell(Event::HungInPart(ONE));
    assert_eq!(world.log[0], Action::Terminate(ONE, Reason::Hung));
    world.tell(Event::Scale(1));
    world.log.clear();
    world.tell(Event::Scale(-1));
    assert!(matches!(
        world.log[0],
        Action::Terminate(_, Reason::ScaledDown)
    ));
}

#[test]
fn one_that_hangs_while_it_is_waited_for_is_aborted() {
    let mut world = world(|_| None);
    world.tell(Event::Scale(-1));
    assert_eq!(world.log, [Action::TakeOut(OTHER, Reason::ScaledDown)]);
    world.tell(Event::Hung(OTHER));
    assert!(world.log.contains(&Action::Abort(OTHER, Reason::Hung)));
}

#[test]
fn a_master_that_stood_still_gives_a_worker_time_after_it_has_told_it() {
    let mut world = world(|_| None);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Pause);
    world.log.clear();
    world.now += Duration::from_secs(100);
    world.tell(Event::Deadline);
    let paused = Reason::Paused;
    assert_eq!(
        world.log,
        [ONE, OTHER].map(|id| Action::Terminate(id, paused))
    );
    world.log.clear();
    world.pass(14.9);
    assert_eq!(world.log, []);
    world.pass(0.2);
    let late = Reason::GracefulTimeout;
    assert_eq!(world.log, [ONE, OTHER].map(|id| Action::Kill(id, late)));
}
