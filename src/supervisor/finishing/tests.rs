//! Workers that end for good.

use super::super::tests::{Boot, World, policy};
use super::super::{Action, Counts, Event, Policy, Readiness, Reason, Restart, WorkerId};

fn once(workers: u32, restart: Restart) -> Policy {
    Policy {
        restart,
        ..policy(workers)
    }
}

const BOTH: [Restart; 2] = [Restart::OnFailure, Restart::Never];

/// A world in which `workers` workers run that are not replaced when they finish.
fn running(workers: u32, restart: Restart) -> World {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, once(workers, restart)));
    world.pass(10.0);
    assert_eq!(world.ready(), workers);
    world.log.clear();
    world
}

fn finish_all(world: &mut World) {
    let all: Vec<WorkerId> = world.alive.keys().copied().collect();
    for id in all {
        world.finishes(id);
    }
}

#[test]
fn a_worker_that_finishes_is_replaced_only_if_it_always_is() {
    for (restart, spawns) in [
        (Restart::Always, 2),
        (Restart::OnFailure, 0),
        (Restart::Never, 0),
    ] {
        let mut world = running(2, restart);
        finish_all(&mut world);
        world.pass(600.0);
        assert_eq!(world.spawns(), spawns, "{restart:?}");
        assert!(world.supervisor.is_settled());
        assert_eq!(world.supervisor.deadline(), None);
    }
}

#[test]
fn finished_workers_count_as_wanted_ones() {
    let mut world = running(2, Restart::Never);
    let first = world.any();
    world.finishes(first);
    let counts = Counts {
        wanted: 2,
        ready: 1,
        finished: 1,
        ..Counts::default()
    };
    assert_eq!(world.supervisor.counts(), counts);
    assert!(world.supervisor.is_settled());
    let second = world.any();
    world.dies(second);
    let counts = Counts {
        wanted: 2,
        finished: 1,
        failed: 1,
        ..Counts::default()
    };
    world.pass(600.0);
    assert_eq!(world.supervisor.counts(), counts);
    assert_eq!(world.spawns(), 0, "a failure is not tried again");
    assert!(!world.supervisor.is_in_trouble());
}

#[test]
fn on_failure_a_worker_is_tried_again_until_it_finishes() {
    let mut world = running(1, Restart::OnFailure);
    world.boot = |_| Boot::Dies;
    let first = world.any();
    world.dies(first);
    world.pass(20.0);
    assert!((3..20).contains(&world.spawns()), "{}", world.spawns());
    assert!(world.supervisor.is_in_trouble());
    world.boot = |_| Boot::Hangs;
    world.pass(30.0);
    finish_all(&mut world);
    assert!(!world.supervisor.is_in_trouble());
    assert!(world.supervisor.is_settled());
    assert_eq!(world.supervisor.counts().finished, 1);
}

#[test]
fn the_first_worker_that_finishes_proves_its_generation() {
    for restart in BOTH {
        let mut world = running(2, restart);
        let checked = Policy {
            check: true,
            ..once(2, restart)
        };
        world.tell(Event::Propose(2, checked));
        let canary = *world.alive.keys().next_back().expect("the canary");
        world.finishes(canary);
        assert!(world.log.contains(&Action::Proven(2)));
        assert_eq!(world.supervisor.generation(), Some(2));
        world.pass(60.0);
        let counts = world.supervisor.counts();
        assert_eq!((counts.finished, counts.starting + counts.ready), (1, 1));
    }
}

#[test]
fn a_check_that_fails_after_the_worker_has_finished_does_not_count() {
    let mut world = running(1, Restart::Never);
    world.commits = false;
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Propose(2, once(1, Restart::Never)));
    let canary = *world.alive.keys().next_back().expect("the canary");
    world.finishes(canary);
    world.tell(Event::CheckFailed(canary));
    world.tell(Event::Commit);
    assert_eq!(world.supervisor.generation(), Some(2));
}

#[test]
fn the_first_worker_that_fails_fails_its_generation() {
    for restart in BOTH {
        let mut world = World::new(|_| Boot::Dies);
        world.tell(Event::Propose(1, once(2, restart)));
        world.pass(60.0);
        assert_eq!(world.spawns(), 1);
        assert!(world.log.contains(&Action::Failed(1)));
    }
}

#[test]
fn each_one_has_a_slot_of_its_own() {
    let mut world = World::new(|_| Boot::Hangs);
    world.tell(Event::Propose(1, once(3, Restart::Never)));
    finish_all(&mut world);
    finish_all(&mut world);
    let slots = world.log.iter().filter_map(|action| match action {
        Action::Spawn { slot, .. } => Some(*slot),
        _ => None,
    });
    assert_eq!(slots.collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(world.supervisor.counts().finished, 3);
}

#[test]
fn a_reload_runs_it_again_and_a_refused_one_does_not() {
    let mut world = running(2, Restart::Never);
    finish_all(&mut world);
    world.boot = |generation| match generation {
        2 => Boot::Dies,
        _ => Boot::Good,
    };
    world.tell(Event::Propose(2, once(2, Restart::Never)));
    world.pass(60.0);
    assert_eq!(world.spawns(), 1);
    assert_eq!(world.supervisor.counts().finished, 2);
    world.tell(Event::Propose(3, once(2, Restart::Never)));
    world.pass(60.0);
    assert_eq!(world.spawns(), 3);
    assert_eq!((world.ready(), world.supervisor.counts().finished), (2, 0));
}

#[test]
fn the_old_one_ends_when_the_new_one_has_finished() {
    let mut world = running(1, Restart::Never);
    let old = world.any();
    world.tell(Event::Propose(2, once(1, Restart::Never)));
    let canary = *world.alive.keys().next_back().expect("the canary");
    world.finishes(canary);
    assert!(!world.alive.contains_key(&old));
    assert!(world.supervisor.is_settled());
}

#[test]
fn one_that_was_told_to_end_has_not_finished() {
    let mut world = running(1, Restart::Never);
    world.tell(Event::Pause);
    world.pass(5.0);
    assert_eq!(world.supervisor.counts().finished, 0);
    world.tell(Event::Rollback);
    world.pass(5.0);
    assert_eq!(world.ready(), 1, "it runs again after the pause");
}

#[test]
fn scaling_starts_only_those_that_were_not_there() {
    let mut world = running(2, Restart::Never);
    finish_all(&mut world);
    world.tell(Event::Scale(1));
    world.pass(5.0);
    assert_eq!((world.spawns(), world.ready()), (1, 1));
    world.tell(Event::Scale(-1));
    world.pass(5.0);
    assert_eq!(world.ready(), 0);
    assert_eq!(world.supervisor.counts().finished, 2);
    assert!(world.supervisor.is_settled());
}

fn task() -> Policy {
    Policy {
        readiness: Readiness::Finished,
        ..once(1, Restart::Never)
    }
}

#[test]
fn a_task_that_must_finish_proves_nothing_by_being_ready() {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, task()));
    world.pass(50.0);
    assert!(!world.log.contains(&Action::Proven(1)));
    assert_eq!(world.ready(), 0);
    let id = world.any();
    world.finishes(id);
    assert!(world.log.contains(&Action::Proven(1)));
    assert!(world.supervisor.is_settled());
}

#[test]
fn a_task_that_does_not_finish_in_time_has_failed() {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, task()));
    world.pass(70.0);
    let id = WorkerId(0);
    assert!(world.log.contains(&Action::Abort(id, Reason::StartTimeout)));
    assert!(world.log.contains(&Action::Failed(1)));
}
