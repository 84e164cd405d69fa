//! Workers that end before others start. That there are never too many of them is asserted by [`World`] at each start.

use super::super::tests::{Boot, World, policy};
use super::super::{Action, Event, Generation, Policy, Reason, Replace};
use std::time::Duration;

fn alone(workers: u32) -> Policy {
    Policy {
        replace: Replace::StopFirst,
        ..policy(workers)
    }
}

/// A world in which `workers` workers of generation 1 are ready, and end before others start.
fn running(workers: u32) -> World {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, alone(workers)));
    world.pass(10.0);
    assert_eq!(world.ready(), workers);
    world.log.clear();
    world
}

fn only_the_first(generation: Generation) -> Boot {
    match generation {
        1 => Boot::Good,
        _ => Boot::Dies,
    }
}

fn resumed(world: &World) -> Vec<(Generation, bool, Duration)> {
    let resumed = world.log.iter().filter_map(|action| match *action {
        Action::Resumed {
            generation,
            again,
            gap,
        } => Some((generation, again, gap)),
        _ => None,
    });
    resumed.collect()
}

fn position(world: &World, wanted: impl Fn(&Action) -> bool) -> usize {
    let found = world.log.iter().position(wanted);
    found.unwrap_or_else(|| panic!("{:?}", world.log))
}

#[test]
fn at_a_reload_all_old_workers_end_then_one_new_one_proves_itself_then_the_others_start() {
    let mut world = running(3);
    world.commits = false;
    world.tell(Event::Propose(2, alone(3)));
    let ended = |action: &Action| matches!(action, Action::Terminate(_, Reason::Replaced));
    assert_eq!(world.log.iter().filter(|a| ended(a)).count(), 3);
    assert_eq!(world.alive.len(), 1, "the canary");
    world.pass(5.0);
    assert_eq!(world.alive.len(), 1);
    assert!(world.log.contains(&Action::Proven(2)));
    world.tell(Event::Commit);
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (3, Some(2)));
    assert_eq!(resumed(&world), [(2, false, Duration::from_secs(1))]);
}

#[test]
fn nothing_starts_before_the_last_old_worker_was_reaped() {
    let mut world = running(2);
    world.boot = |generation| match generation {
        1 => Boot::Hangs,
        _ => Boot::Good,
    };
    world.tell(Event::Propose(2, alone(2)));
    world.pass(29.0);
    assert_eq!(world.spawns(), 0, "they have their graceful_timeout");
    world.pass(10.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(2)));
}

#[test]
fn what_a_failed_candidate_displaced_starts_again_at_once() {
    let mut world = running(2);
    world.boot = only_the_first;
    world.tell(Event::Propose(2, alone(2)));
    world.pass(0.01);
    let failed = position(&world, |action| *action == Action::Failed(2));
    let spawn = |action: &Action| matches!(action, Action::Spawn { generation: 1, .. });
    let spawns = world.log[failed..].iter().filter(|a| spawn(a)).count();
    assert_eq!(spawns, 2, "at the same instant");
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(1)));
    assert_eq!(resumed(&world), [(1, true, Duration::from_millis(1010))]);
    assert!(world.supervisor.is_settled());
}

#[test]
fn a_canary_that_fails_its_check_has_ended_before_the_old_generation_starts_again() {
    let mut world = World::running(1);
    world.boot = |generation| match generation {
        1 => Boot::Good,
        _ => Boot::Unfit,
    };
    let checked = Policy {
        check: true,
        ..alone(1)
    };
    world.tell(Event::Propose(2, checked));
    world.pass(5.0);
    assert!(world.log.contains(&Action::Failed(2)));
    assert_eq!((world.ready(), world.supervisor.generation()), (1, Some(1)));
    assert_eq!(resumed(&world).len(), 1, "{:?}", world.log);
}

#[test]
fn a_failure_elsewhere_starts_the_old_generation_again() {
    let mut world = running(2);
    world.commits = false;
    world.tell(Event::Propose(2, alone(2)));
    world.pass(5.0);
    world.tell(Event::Rollback);
    world.pass(5.0);
    assert!(world.alive.values().all(|&generation| generation == 1));
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_generation_in_trouble_is_tried_again_at_once_after_it_was_displaced() {
    let mut world = running(1);
    for _ in 0..6 {
        let worker = world.any();
        world.dies(worker);
        world.pass(0.9);
    }
    world.pass(30.0);
    world.boot = only_the_first;
    world.tell(Event::Propose(2, alone(1)));
    world.pass(1.2);
    assert_eq!((world.ready(), world.supervisor.generation()), (1, Some(1)));
}

#[test]
fn the_next_reload_may_come_while_the_old_generation_starts_again() {
    let mut world = running(2);
    world.boot = |generation| match generation {
        2 => Boot::Dies,
        _ => Boot::Good,
    };
    world.tell(Event::Propose(2, alone(2)));
    world.pass(0.5);
    assert_eq!(world.ready(), 0, "generation 1 is starting");
    world.tell(Event::Propose(3, alone(2)));
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(3)));
    assert_eq!(resumed(&world).len(), 1, "one gap");
}

#[test]
fn a_stop_while_displaced_ends_everything() {
    for delay in [0.0, 0.5, 1.5] {
        let mut world = running(2);
        world.commits = false;
        world.tell(Event::Propose(2, alone(2)));
        world.pass(delay);
        world.log.clear();
        world.tell(Event::Stop);
        world.pass(5.0);
        assert!(world.alive.is_empty());
        assert_eq!(world.spawns(), 0);
        assert_eq!(world.log.last(), Some(&Action::Exit));
    }
}

#[test]
fn a_pause_while_displaced_leaves_the_canary_whose_commit_ends_it() {
    let mut world = running(2);
    world.commits = false;
    world.tell(Event::Propose(2, alone(2)));
    world.tell(Event::Pause);
    world.pass(5.0);
    assert_eq!(world.alive.len(), 1);
    world.tell(Event::Commit);
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(2)));
}

#[test]
fn a_pause_that_a_failed_candidate_meets_ends_with_it() {
    let mut world = running(2);
    world.boot = only_the_first;
    world.tell(Event::Pause);
    world.pass(1.0);
    world.tell(Event::Propose(2, alone(2)));
    world.tell(Event::Rollback);
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(1)));
}

#[test]
fn a_worker_is_recycled_by_ending_it_first() {
    let mut world = running(2);
    let old = world.any();
    world.tell(Event::Recycle(old));
    let end = Action::Terminate(old, Reason::Recycled);
    assert_eq!(world.log.first(), Some(&end));
    assert_eq!(world.spawns(), 1);
    world.pass(5.0);
    assert_eq!(world.ready(), 2);
    assert!(!world.alive.contains_key(&old));
}

#[test]
fn a_worker_that_leaves_or_hangs_is_replaced_when_it_was_reaped() {
    for event in [Event::Stopping, Event::Hung] {
        let mut world = running(1);
        world.boot = |_| Boot::Hangs;
        let old = world.any();
        world.tell(event(old));
        world.pass(1.0);
        assert_eq!(world.spawns(), 0, "it lives");
        world.boot = |_| Boot::Good;
        world.dies(old);
        world.pass(5.0);
        assert_eq!(world.ready(), 1);
    }
}

#[test]
fn a_crash_during_the_trial_starts_nothing_of_the_old_generation() {
    let mut world = running(3);
    world.commits = false;
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Propose(2, alone(3)));
    let old = world.any();
    world.dies(old);
    world.pass(1.0);
    assert_eq!(world.spawns(), 0);
}

#[test]
fn a_candidate_that_starts_first_does_not_let_the_old_ones_be_more() {
    let mut world = running(3);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Propose(2, policy(3)));
    assert_eq!(world.spawns(), 1, "the canary");
    let old = world.any();
    world.tell(Event::Hung(old));
    assert_eq!(world.spawns(), 1, "it lives");
    world.boot = |_| Boot::Good;
    world.dies(old);
    assert_eq!(world.spawns(), 2, "the canary does not hold it up");
    world.tell(Event::Rollback);
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (3, Some(1)));
}

#[test]
fn an_installed_generation_starts_when_the_old_one_has_ended() {
    let mut world = running(2);
    world.tell(Event::Install(2, alone(3)));
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (3, Some(2)));
    assert_eq!(resumed(&world), [(2, false, Duration::from_secs(1))]);
}

#[test]
fn a_worker_that_still_drains_counts_when_more_are_wanted() {
    let mut world = running(2);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Scale(-1));
    world.tell(Event::Scale(1));
    world.pass(1.0);
    assert_eq!(world.spawns(), 0);
    world.boot = |_| Boot::Good;
    world.pass(60.0);
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_candidate_without_the_app_ends_its_workers_and_is_proven_when_they_were_reaped() {
    let mut world = running(2);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Displace(2));
    let ended = |action: &Action| matches!(action, Action::Terminate(_, Reason::Removed));
    assert_eq!(world.log.iter().filter(|a| ended(a)).count(), 2);
    world.pass(29.0);
    assert!(!world.log.contains(&Action::Proven(2)), "one lives");
    world.pass(2.0);
    assert!(world.alive.is_empty());
    assert_eq!(
        position(&world, |a| *a == Action::Proven(2)) + 1,
        world.log.len()
    );
    world.tell(Event::Remove);
    assert!(world.supervisor.is_empty());
    assert_eq!(world.log.last(), Some(&Action::Retire(1)));
    assert_eq!(world.spawns(), 0);
}

#[test]
fn an_app_without_a_worker_is_displaced_at_once() {
    let mut world = running(1);
    world.tell(Event::Pause);
    world.pass(1.0);
    world.log.clear();
    world.tell(Event::Displace(2));
    assert_eq!(world.log, [Action::Proven(2)]);
}

#[test]
fn what_was_displaced_for_another_app_starts_again_when_that_has_left() {
    let mut world = running(2);
    world.tell(Event::Displace(2));
    world.pass(1.0);
    world.tell(Event::Withdraw);
    world.pass(5.0);
    assert_eq!(world.spawns(), 0);
    world.tell(Event::Restore);
    world.pass(2.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(1)));
    assert_eq!(resumed(&world), [(1, true, Duration::from_secs(7))]);
    assert!(world.supervisor.is_settled());
    // A failure elsewhere, before anything was displaced, needs no such order.
    world.tell(Event::Restore);
    world.tell(Event::Withdraw);
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_canary_that_is_withdrawn_ends_and_nothing_starts_until_the_app_is_restored() {
    let mut world = running(2);
    world.commits = false;
    world.tell(Event::Propose(2, alone(2)));
    world.pass(5.0);
    world.tell(Event::Withdraw);
    let end = |action: &Action| matches!(action, Action::Terminate(_, Reason::RolledBack));
    position(&world, end);
    world.pass(5.0);
    assert!(world.alive.is_empty());
    // A pause that comes meanwhile holds.
    world.tell(Event::Pause);
    world.tell(Event::Restore);
    world.pass(5.0);
    assert!(world.alive.is_empty());
    world.tell(Event::Rollback);
    world.pass(5.0);
    assert_eq!(world.ready(), 2);
}

#[test]
fn the_next_candidate_may_come_before_the_app_is_restored() {
    let mut world = running(2);
    world.tell(Event::Displace(2));
    world.pass(1.0);
    world.tell(Event::Withdraw);
    world.tell(Event::Propose(3, alone(2)));
    world.tell(Event::Restore);
    world.pass(5.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (2, Some(3)));
}

#[test]
fn a_stop_of_a_displaced_app_ends_it() {
    for restored in [false, true] {
        let mut world = running(1);
        world.tell(Event::Displace(2));
        world.pass(1.0);
        world.tell(Event::Withdraw);
        if restored {
            world.tell(Event::Restore);
        }
        world.tell(Event::Stop);
        world.pass(5.0);
        assert!(world.alive.is_empty());
        assert_eq!(world.log.last(), Some(&Action::Exit));
    }
}

#[test]
fn workers_that_must_be_alone_count_until_they_have_ended_whatever_the_app_is_then() {
    let mut world = running(1);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Remove);
    world.tell(Event::Propose(2, policy(1)));
    let alone = |world: &World| [1, 2].map(|it| world.supervisor.has_workers_alone(it));
    assert_eq!(alone(&world), [true, false]);
    world.tell(Event::Remove);
    assert_eq!(alone(&world), [true, false]);
    assert!(world.supervisor.stops_first());
    world.pass(100.0);
    assert!(world.alive.is_empty());
    assert_eq!(alone(&world), [false, false]);
    assert!(!world.supervisor.stops_first());
}
