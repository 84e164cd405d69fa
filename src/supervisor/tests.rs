//! One test per sentence of the manual, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

/// A world in which started workers behave as `boot` says, and time jumps from deadline to deadline.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) supervisor: Supervisor,
    /// The behaviour of a new worker of a generation.
    pub(super) boot: fn(Generation) -> Boot,
    /// Whether the master commits every proven candidate.
    pub(super) commits: bool,
    /// Living processes.
    pub(super) alive: BTreeMap<WorkerId, Generation>,
    pub(super) log: Vec<Action>,
    ripening: BTreeMap<WorkerId, Instant>,
    /// Processes that have ended and are not reaped yet.
    dying: BTreeSet<WorkerId>,
    /// How long a worker has requests after it was taken out; `None`: for ever.
    pub(super) serves: fn(WorkerId) -> Option<Duration>,
    /// Workers that were taken out and have requests: since when, and until when.
    busy: BTreeMap<WorkerId, (Instant, Option<Instant>)>,
    /// Everything is to end at once.
    hurried: bool,
    facts: VecDeque<Event>,
    telling: bool,
    /// Events are held back until [`World::release`], which records them together.
    pub(super) held: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Boot {
    /// Ready after a second; ends when told to.
    Good,
    /// Exits after 10 ms without having been ready.
    Dies,
    /// Never reports that it is ready, and ends only by KILL.
    Hangs,
    /// Good, but fails a check.
    Unfit,
    /// The system refuses to create a process.
    Refused,
    /// Something is missing that its start needs.
    Missing,
}

pub(super) fn policy(workers: u32) -> Policy {
    Policy {
        workers,
        range: None,
        readiness: Readiness::Notify,
        restart: Restart::Always,
        replace: Replace::StartFirst,
        announces_end: false,
        ends_quiet: false,
        start_timeout: Duration::from_secs(60),
        graceful_timeout: Duration::from_secs(30),
        abort_grace: Duration::from_secs(2),
        check: false,
        soak: Duration::ZERO,
        surge: None,
        give_up: None,
        max_draining: 2,
        backoff: backoff::Policy::default(),
    }
}

impl World {
    pub(super) fn new(boot: fn(Generation) -> Boot) -> Self {
        Self {
            now: Instant::now(),
            supervisor: Supervisor::new(7),
            boot,
            commits: true,
            alive: BTreeMap::new(),
            log: Vec::new(),
            ripening: BTreeMap::new(),
            dying: BTreeSet::new(),
            serves: |_| Some(Duration::ZERO),
            busy: BTreeMap::new(),
            hurried: false,
            facts: VecDeque::new(),
            telling: false,
            held: false,
        }
    }

    /// A world with `workers` ready workers of generation 1.
    pub(super) fn running(workers: u32) -> Self {
        let mut world = Self::new(|_| Boot::Good);
        world.tell(Event::Propose(1, policy(workers)));
        world.pass(10.0);
        assert_eq!(world.ready(), workers);
        world.log.clear();
        world
    }

    /// Records an event and all that follow from it, one after the other, like the master.
    pub(super) fn tell(&mut self, event: Event) {
        self.facts.push_back(event);
        if self.telling || self.held {
            return;
        }
        self.telling = true;
        while let Some(event) = self.facts.pop_front() {
            self.handle([event]);
        }
        self.telling = false;
    }

    /// Records the held events together, and what follows from them one after the other.
    pub(super) fn release(&mut self) {
        self.held = false;
        let facts = std::mem::take(&mut self.facts);
        self.telling = true;
        self.handle(facts);
        self.telling = false;
        self.tell(Event::Deadline);
    }

    fn handle(&mut self, events: impl IntoIterator<Item = Event>) {
        let events: Vec<_> = events.into_iter().collect();
        for event in &events {
            if let Event::Exited(id)
            | Event::Finished(id)
            | Event::Hopeless(id)
            | Event::SpawnFailed(id)
            | Event::Refused(id)
            | Event::Missing(id) = event
            {
                // Reaped or never started: from now on it must not be signalled.
                self.alive.remove(id);
                self.dying.remove(id);
                self.busy.remove(id);
            }
            if let Event::Quiet(id) = event {
                self.busy.remove(id);
            }
            self.hurried |= *event == Event::StopNow;
        }
        let actions = self.supervisor.handle_all(events, self.now);
        self.supervisor.roster.check();
        let spawns = |action: &Action| matches!(action, Action::Spawn { .. });
        assert!(!self.supervisor.earlier_left || !actions.iter().any(spawns));
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        if !matches!(action, Action::Ready(_)) {
            self.log.push(action);
        }
        match action {
            Action::Spawn {
                worker, generation, ..
            } => {
                self.alive.insert(worker, generation);
                let candidate = self.supervisor.candidate.as_ref();
                let beside = candidate.filter(|c| c.policy.replace == Replace::StartFirst);
                let beside = beside.map(|candidate| candidate.generation);
                if self.supervisor.stops_first() && beside != Some(generation) {
                    let wanted = self.supervisor.counts().wanted as usize;
                    let others = self.alive.values().filter(|other| beside != Some(**other));
                    let others: Vec<_> = others.collect();
                    assert!(others.len() <= wanted, "never more than wanted");
                    let mut others = others.into_iter();
                    let alone = others.all(|other| *other == generation);
                    assert!(alone, "never beside another generation");
                }
                let after = match (self.boot)(generation) {
                    Boot::Good | Boot::Unfit => 1000,
                    Boot::Dies => 10,
                    Boot::Hangs => return,
                    Boot::Refused => return self.tell(Event::Refused(worker)),
                    Boot::Missing => return self.tell(Event::Missing(worker)),
                };
                self.ripening
                    .insert(worker, self.now + Duration::from_millis(after));
            }
            Action::TakeOut(id, _) => {
                assert!(self.alive.contains_key(&id), "it has not been reaped");
                let until = (self.serves)(id).map(|time| self.now + time);
                let before = self.busy.insert(id, (self.now, until));
                assert_eq!(before, None, "once");
                if until == Some(self.now) {
                    self.tell(Event::Quiet(id));
                }
            }
            Action::Terminate(id, _) | Action::Abort(id, _) | Action::Kill(id, _) => {
                if let (Action::Terminate(..), Some((since, _))) = (action, self.busy.remove(&id)) {
                    let waited = self.now - since;
                    assert!(
                        self.hurried || waited >= policy(1).quiet_timeout(),
                        "told to end with requests after {waited:?}"
                    );
                }
                let generation = self
                    .alive
                    .get(&id)
                    .expect("no signal goes to a worker that was reaped");
                let obeys = (self.boot)(*generation) != Boot::Hangs;
                if obeys || matches!(action, Action::Kill(..)) {
                    self.dies(id);
                }
            }
            Action::Check(id) => match (self.boot)(self.alive[&id]) {
                Boot::Unfit => self.tell(Event::CheckFailed(id)),
                _ => self.tell(Event::Checked(id)),
            },
            Action::Proven(_) if self.commits => self.tell(Event::Commit),
            _ => {}
        }
    }

    /// A living worker ends.
    pub(super) fn dies(&mut self, id: WorkerId) {
        assert!(self.alive.contains_key(&id), "only a living worker dies");
        self.ripening.remove(&id);
        self.busy.remove(&id);
        if self.dying.insert(id) {
            self.tell(Event::Exited(id));
        }
    }

    /// A living worker ends in good order.
    pub(super) fn finishes(&mut self, id: WorkerId) {
        assert!(self.alive.contains_key(&id), "only a living worker ends");
        self.ripening.remove(&id);
        self.busy.remove(&id);
        if self.dying.insert(id) {
            self.tell(Event::Finished(id));
        }
    }

    /// A worker could not be started.
    pub(super) fn vanishes(&mut self, id: WorkerId) {
        self.ripening.remove(&id);
        self.tell(Event::SpawnFailed(id));
    }

    /// The system refuses to create a process for a worker.
    pub(super) fn is_refused(&mut self, id: WorkerId) {
        self.ripening.remove(&id);
        self.tell(Event::Refused(id));
    }

    /// Lets time pass, jumping from one due event to the next.
    pub(super) fn pass(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        loop {
            let ripe = self
                .ripening
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(&id, &at)| (id, at));
            let quiet = self.busy.iter();
            let quiet = quiet.filter_map(|(&id, (_, until))| Some(((*until)?, id)));
            let quiet = quiet.min();
            let deadline = self.supervisor.deadline();
            let due = deadline.into_iter().chain(ripe.map(|r| r.1));
            let next = due.chain(quiet.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|&at| at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            match (ripe, quiet) {
                (_, Some((at, id))) if at <= self.now => self.tell(Event::Quiet(id)),
                (Some((id, at)), _) if at <= self.now => {
                    self.ripening.remove(&id);
                    match (self.boot)(self.alive[&id]) {
                        Boot::Good | Boot::Unfit => self.tell(Event::Ready(id)),
                        _ => self.dies(id),
                    }
                }
                _ => self.tell(Event::Deadline),
            }
            let deadline = self.supervisor.deadline();
            assert!(
                deadline.is_none_or(|at| at > self.now),
                "a deadline that has passed is not due again"
            );
        }
        self.now = end;
    }

    pub(super) fn ready(&self) -> u32 {
        self.supervisor.counts().ready
    }

    pub(super) fn spawns(&self) -> usize {
        self.log
            .iter()
            .filter(|a| matches!(a, Action::Spawn { .. }))
            .count()
    }

    pub(super) fn any(&self) -> WorkerId {
        *self.alive.keys().next().expect("a worker lives")
    }
}

#[test]
fn one_worker_proves_a_configuration_then_the_others_start() {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, policy(4)));
    assert_eq!(world.spawns(), 1);
    world.pass(1.5);
    assert_eq!(world.spawns(), 4);
    world.pass(1.0);
    assert_eq!(world.log.last(), Some(&Action::Settled));
    assert_eq!(world.ready(), 4);
}

#[test]
fn what_is_installed_needs_no_trial_and_is_retried_with_backoff() {
    let mut world = World::new(|_| Boot::Dies);
    world.tell(Event::Install(1, policy(2)));
    assert_eq!(world.spawns(), 2, "both at once");
    world.pass(60.0);
    assert!(world.supervisor.is_in_trouble());
    assert!((4..40).contains(&world.spawns()), "{}", world.spawns());
    assert!(!world.log.contains(&Action::Failed(1)));
    world.boot = |_| Boot::Good;
    world.pass(60.0);
    assert_eq!(world.ready(), 2);
    world.tell(Event::Install(2, policy(3)));
    world.pass(60.0);
    assert_eq!((world.ready(), world.supervisor.generation()), (3, Some(2)));
}

#[test]
fn nothing_follows_a_proven_canary_until_the_master_commits() {
    let mut world = World::new(|_| Boot::Good);
    world.commits = false;
    world.tell(Event::Propose(1, policy(4)));
    world.pass(5.0);
    assert_eq!(world.spawns(), 1);
    assert_eq!(world.log.last(), Some(&Action::Proven(1)));
    world.tell(Event::Commit);
    assert_eq!(world.spawns(), 4);
}

#[test]
fn a_first_generation_that_cannot_start_fails_after_one_worker() {
    let mut world = World::new(|_| Boot::Dies);
    world.tell(Event::Propose(1, policy(4)));
    world.pass(60.0);
    assert_eq!(world.spawns(), 1);
    assert_eq!(world.log[1..], [Action::Failed(1), Action::Retire(1)]);
}

#[test]
fn a_reload_replaces_every_worker_and_never_has_fewer_ready_than_wanted() {
    let mut world = World::running(4);
    world.tell(Event::Propose(2, policy(4)));
    for _ in 0..200 {
        world.pass(0.1);
        assert!(world.ready() >= 4);
        assert!(world.alive.len() <= 5, "a quarter more at most");
    }
    assert!(world.alive.values().all(|&generation| generation == 2));
    assert!(world.log.contains(&Action::Retire(1)));
    assert_eq!(world.log.last(), Some(&Action::Settled));
}

#[test]
fn a_generation_that_cannot_start_touches_no_worker_of_the_old_one() {
    let mut world = World::running(3);
    world.boot = |generation| {
        if generation == 1 {
            Boot::Good
        } else {
            Boot::Dies
        }
    };
    world.tell(Event::Propose(2, policy(3)));
    world.pass(60.0);
    assert_eq!(world.spawns(), 1);
    assert!(
        !world
            .log
            .iter()
            .any(|a| matches!(a, Action::Terminate(..) | Action::Kill(..)))
    );
    assert!(world.log.contains(&Action::Failed(2)));
    assert_eq!(world.ready(), 3);
}

#[test]
fn a_canary_that_is_not_ready_in_time_is_aborted_then_killed_and_has_failed() {
    let mut world = World::running(2);
    world.boot = |generation| {
        if generation == 1 {
            Boot::Good
        } else {
            Boot::Hangs
        }
    };
    world.tell(Event::Propose(2, policy(2)));
    world.pass(59.9);
    assert_eq!(world.spawns(), world.log.len());
    world.pass(3.0);
    let ends = &world.log[1..];
    assert!(matches!(ends[0], Action::Abort(_, Reason::StartTimeout)));
    assert!(matches!(ends[1], Action::Kill(_, Reason::AbortGrace)));
    assert_eq!(ends[2..4], [Action::Failed(2), Action::Retire(2)]);
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_rolled_back_canary_is_ended() {
    let mut world = World::running(2);
    world.commits = false;
    world.tell(Event::Propose(2, policy(2)));
    world.pass(2.0);
    world.tell(Event::Rollback);
    assert!(world.alive.values().all(|&generation| generation == 1));
    assert_eq!(world.ready(), 2);
    world.pass(1.0);
    assert!(world.supervisor.is_settled());
}

#[test]
fn a_newer_proposal_supersedes_an_unproven_one() {
    let mut world = World::running(2);
    world.tell(Event::Propose(2, policy(2)));
    world.tell(Event::Propose(3, policy(2)));
    world.pass(20.0);
    assert!(world.alive.values().all(|&generation| generation == 3));
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_dead_worker_is_replaced_at_once_in_its_slot() {
    let mut world = World::running(3);
    let second = *world.alive.keys().nth(1).expect("three workers");
    world.dies(second);
    assert!(matches!(
        world.log[..],
        [Action::Spawn {
            slot: 1,
            generation: 1,
            ..
        }]
    ));
}

#[test]
fn workers_that_had_stayed_up_are_all_replaced_at_once() {
    let mut world = World::running(8);
    for _ in 0..8 {
        world.dies(world.any());
    }
    assert_eq!(world.spawns(), 8);
    world.pass(1.0);
    assert_eq!(world.ready(), 8);
}

#[test]
fn a_crash_loop_of_many_workers_starts_few() {
    let mut world = World::running(16);
    world.boot = |_| Boot::Dies;
    for _ in 0..16 {
        world.dies(world.any());
    }
    world.pass(10.0);
    assert!(
        world.spawns() <= 16 + 12,
        "{} starts in 10 s",
        world.spawns()
    );
    world.log.clear();
    world.pass(600.0);
    assert!(world.spawns() <= 45, "{} starts in 10 min", world.spawns());
    world.boot = |_| Boot::Good;
    world.pass(40.0);
    assert_eq!(world.ready(), 16);
}

#[test]
fn a_crash_after_a_quiet_time_is_a_first_crash_again() {
    let mut world = World::running(2);
    world.boot = |_| Boot::Dies;
    world.dies(world.any());
    world.pass(5.0);
    world.boot = |_| Boot::Good;
    world.pass(60.0);
    world.log.clear();
    world.dies(world.any());
    assert_eq!(world.spawns(), 1);
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_again() {
    let mut world = World::running(1);
    world.dies(world.any());
    world.vanishes(world.any());
    world.pass(3.0);
    assert_eq!(world.ready(), 1);
}

#[test]
fn a_refusal_by_the_system_is_retried_each_second_and_then_the_others_follow() {
    let mut world = World::running(4);
    world.boot = |_| Boot::Refused;
    for _ in 0..3 {
        world.dies(world.any());
    }
    world.pass(600.0);
    let spawns = world.spawns();
    assert!((600..1250).contains(&spawns), "{spawns} starts in 10 min");
    world.boot = |_| Boot::Good;
    // At most a second until the next attempt, a second each for the first to be ready, and then for the others.
    world.pass(3.0);
    assert_eq!(world.ready(), 4);
}

#[test]
fn what_is_missing_is_looked_for_at_growing_intervals_and_gives_no_app_up() {
    let mut world = World::running(4);
    let mut patient = policy(4);
    patient.give_up = Some(GiveUp {
        crashes: 2,
        within: Duration::from_secs(600),
        exit: true,
    });
    world.boot = |_| Boot::Missing;
    world.tell(Event::Install(2, patient));
    world.pass(600.0);
    let spawns = world.spawns();
    assert!((20..60).contains(&spawns), "{spawns} starts in 10 min");
    assert!(!world.supervisor.is_given_up());
    world.boot = |_| Boot::Good;
    world.pass(40.0);
    assert_eq!(world.ready(), 4);
}

#[test]
fn ttin_and_ttou_change_the_number_and_keep_at_least_one() {
    let mut world = World::running(2);
    world.tell(Event::Scale(1));
    world.pass(2.0);
    assert_eq!(world.ready(), 3);
    for _ in 0..5 {
        world.tell(Event::Scale(-1));
    }
    world.pass(2.0);
    assert_eq!(world.ready(), 1);
    assert_eq!(world.supervisor.counts().wanted, 1);
}

#[test]
fn the_highest_slots_are_ended_first_when_fewer_are_wanted() {
    let mut world = World::running(3);
    let last = *world.alive.keys().next_back().expect("three workers");
    world.tell(Event::Scale(-1));
    assert_eq!(world.log[0], Action::Terminate(last, Reason::ScaledDown));
}

#[test]
fn a_number_set_by_signal_survives_a_reload_and_a_rollback() {
    let mut world = World::running(2);
    world.tell(Event::Scale(2));
    world.pass(2.0);
    world.tell(Event::Propose(2, policy(2)));
    world.pass(20.0);
    assert_eq!(world.ready(), 4);
    world.commits = false;
    world.tell(Event::Propose(3, policy(9)));
    world.tell(Event::Scale(1));
    world.tell(Event::Rollback);
    world.pass(20.0);
    assert_eq!(world.ready(), 5);
}

#[test]
fn a_changed_number_in_the_configuration_counts_from_the_commit() {
    let mut world = World::running(2);
    world.tell(Event::Scale(3));
    world.tell(Event::Propose(2, policy(4)));
    world.tell(Event::Scale(1));
    world.pass(30.0);
    assert_eq!(world.ready(), 5);
}

#[test]
fn a_worker_that_does_not_end_is_killed_at_the_graceful_timeout() {
    let mut world = World::running(1);
    let id = world.any();
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Stop);
    assert_eq!(world.log, [Action::Terminate(id, Reason::Stop)]);
    world.pass(29.9);
    assert_eq!(world.log.len(), 1);
    world.pass(0.2);
    assert_eq!(
        world.log[1..],
        [Action::Kill(id, Reason::GracefulTimeout), Action::Exit]
    );
}

#[test]
fn stopping_now_gives_one_second_and_a_repeated_request_none() {
    let mut world = World::running(1);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::StopNow);
    world.pass(1.1);
    assert_eq!(world.log.last(), Some(&Action::Exit));

    let mut world = World::running(1);
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Stop);
    world.tell(Event::StopNow);
    assert_eq!(world.log.last(), Some(&Action::Exit));
}

#[test]
fn a_stop_ends_a_starting_worker_and_starts_no_other() {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, policy(3)));
    world.tell(Event::Stop);
    assert!(world.alive.is_empty());
    world.pass(100.0);
    assert_eq!(world.spawns(), 1);
    assert_eq!(world.log.last(), Some(&Action::Exit));
}

#[test]
fn a_worker_that_ends_by_itself_is_replaced_while_it_finishes() {
    let mut world = World::running(2);
    world.tell(Event::Stopping(world.any()));
    assert_eq!(world.spawns(), 1);
    world.pass(1.0);
    assert_eq!(world.ready(), 2);
    world.pass(30.0);
    assert_eq!(world.alive.len(), 2, "one that never ends is killed");
}

#[test]
fn a_pause_ends_all_workers_and_a_commit_brings_them_back() {
    let mut world = World::running(2);
    world.tell(Event::Pause);
    world.pass(5.0);
    assert!(world.alive.is_empty());
    world.tell(Event::Propose(2, policy(2)));
    world.pass(5.0);
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_removed_app_drains_and_can_return_meanwhile() {
    let mut world = World::running(2);
    world.boot = |generation| {
        if generation == 1 {
            Boot::Hangs
        } else {
            Boot::Good
        }
    };
    world.tell(Event::Remove);
    assert_eq!(world.supervisor.counts().leaving, 2);
    assert!(world.log.contains(&Action::Retire(1)));
    assert!(!world.supervisor.is_empty());
    world.tell(Event::Propose(2, policy(2)));
    world.pass(5.0);
    assert_eq!(world.ready(), 2);
    world.tell(Event::Remove);
    world.pass(30.0);
    assert!(world.supervisor.is_empty());
}

#[test]
fn a_rollback_also_ends_a_pause() {
    let mut world = World::running(2);
    world.tell(Event::Pause);
    world.pass(5.0);
    world.tell(Event::Rollback);
    world.pass(5.0);
    assert_eq!(world.ready(), 2);
}

#[test]
fn silent_programs_are_ready_some_time_after_they_were_executed() {
    let mut world = World::new(|_| Boot::Hangs);
    world.tell(Event::Propose(1, executed(1)));
    world.pass(5.0);
    world.tell(Event::Executed(WorkerId(0)));
    world.pass(0.9);
    assert_eq!(world.ready(), 0);
    world.pass(0.1);
    assert_eq!(world.ready(), 1);
}

/// The policy for programs of which only the execution is known.
fn executed(workers: u32) -> Policy {
    Policy {
        readiness: Readiness::After(READY_AFTER_EXEC),
        ..policy(workers)
    }
}

/// Makes the latest worker execute a program that ends at once. Both are seen together or not.
fn ends_at_once(world: &mut World, together: bool) {
    let id = *world.alive.keys().next_back().expect("it was started");
    world.held = together;
    world.tell(Event::Executed(id));
    world.dies(id);
    if together {
        world.release();
    }
}

#[test]
fn a_program_that_ends_at_once_was_never_ready_however_it_came_to_be_started() {
    let is_ready = |world: &World, generation| world.supervisor.roster.tally(generation).ready();
    for together in [true, false] {
        let running = || {
            let mut world = World::new(|_| Boot::Hangs);
            world.tell(Event::Propose(1, executed(1)));
            world.tell(Event::Executed(WorkerId(0)));
            world.pass(10.0);
            assert_eq!(world.ready(), 1);
            world.log.clear();
            world
        };
        // It takes the place of one that has crashed, and is replaced with backoff.
        let mut world = running();
        world.dies(WorkerId(0));
        assert_eq!(world.spawns(), 1, "at once");
        for _ in 0..5 {
            ends_at_once(&mut world, together);
            assert_eq!(is_ready(&world, 1), 0);
            world.pass(5.0);
        }
        assert_eq!(world.spawns(), 6);
        assert!(world.supervisor.is_in_trouble());
        assert!(!world.log.contains(&Action::Settled), "{:?}", world.log);

        // It is one more, or takes the place of one that is recycled, which serves on.
        for event in [Event::Scale(1), Event::Recycle(WorkerId(0))] {
            let mut world = running();
            world.tell(event);
            ends_at_once(&mut world, together);
            assert_eq!((is_ready(&world, 1), world.alive.len()), (1, 2));
            assert!(!world.log.contains(&Action::Settled), "{:?}", world.log);
        }

        // It takes over without proof.
        let mut world = World::new(|_| Boot::Hangs);
        world.tell(Event::Install(1, executed(1)));
        for _ in 0..3 {
            ends_at_once(&mut world, together);
            assert!(!world.log.contains(&Action::Settled), "{:?}", world.log);
            world.pass(5.0);
        }
    }
}

#[test]
fn a_worker_that_was_told_to_end_does_not_become_ready_any_more() {
    let mut world = World::running(1);
    world.boot = |_| Boot::Hangs;
    world.commits = false;
    world.tell(Event::Propose(2, policy(1)));
    world.tell(Event::Rollback);
    let canary = *world.alive.keys().next_back().expect("the canary");
    world.tell(Event::Ready(canary));
    assert_eq!(world.ready(), 1);
    assert_eq!(world.supervisor.counts().leaving, 1);
}

#[test]
fn a_hung_worker_is_aborted_then_killed_and_replaced_meanwhile() {
    let mut world = World::running(2);
    let hung = world.any();
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Hung(hung));
    world.tell(Event::Hung(hung));
    assert!(
        matches!(world.log[..], [Action::Abort(id, Reason::Hung), Action::Spawn { .. }] if id == hung)
    );
    world.pass(2.1);
    assert_eq!(world.log[2], Action::Kill(hung, Reason::AbortGrace));
}

#[test]
fn a_draining_worker_can_hang_too() {
    let mut world = World::running(1);
    let old = world.any();
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Stopping(old));
    world.log.clear();
    world.tell(Event::Hung(old));
    assert_eq!(world.log, [Action::Abort(old, Reason::Hung)]);
}

#[test]
fn a_reload_is_complete_when_no_old_worker_accepts_any_more() {
    for (says, seconds) in [(true, 0.0), (false, 1.0)] {
        let mut world = World::new(|generation| {
            if generation == 1 {
                Boot::Good
            } else {
                Boot::Hangs
            }
        });
        let announcing = Policy {
            announces_end: true,
            ..policy(1)
        };
        world.tell(Event::Propose(1, announcing.clone()));
        world.pass(3.0);
        let old = world.any();
        world.boot = |_| Boot::Hangs;
        world.tell(Event::Propose(2, announcing));
        world.tell(Event::Ready(WorkerId(1)));
        assert!(!world.supervisor.is_settled());
        if says {
            world.tell(Event::Stopping(old));
        }
        world.pass(seconds);
        assert!(world.supervisor.is_settled());
        assert_eq!(
            world.alive.len(),
            2,
            "the old one still finishes what it serves"
        );
    }
}

#[test]
fn workers_are_recycled_one_at_a_time_and_the_replacement_is_ready_first() {
    let mut world = World::running(3);
    let due: Vec<_> = world.alive.keys().copied().collect();
    for &id in &due {
        world.tell(Event::Recycle(id));
    }
    for _ in 0..60 {
        world.pass(0.1);
        assert!(world.ready() >= 3);
        assert!(world.alive.len() <= 4, "one more than wanted at most");
    }
    assert!(due.iter().all(|id| !world.alive.contains_key(id)));
    let ends = world
        .log
        .iter()
        .filter(|a| matches!(a, Action::Terminate(_, Reason::Recycled)));
    assert_eq!(ends.count(), 3);
    assert!(world.supervisor.is_settled());
}

#[test]
fn workers_that_become_too_large_soon_are_replaced_at_growing_intervals() {
    let mut world = World::running(2);
    let mut told = BTreeSet::new();
    let mut ends = Vec::new();
    let start = world.now;
    while world.now < start + Duration::from_secs(600) {
        let alive: Vec<_> = world.alive.keys().copied().collect();
        for id in alive {
            if world.supervisor.roster.is_ready(id) && told.insert(id) {
                world.tell(Event::Outgrown(id));
            }
        }
        world.pass(0.1);
        assert!(world.ready() >= 2, "the old one serves until then");
        let is_end = |a: &Action| matches!(a, Action::Terminate(_, Reason::Recycled));
        if world.log.drain(..).any(|a| is_end(&a)) {
            ends.push(world.now);
        }
    }
    let gaps: Vec<_> = ends.windows(2).map(|w| w[1] - w[0]).collect();
    assert!((20..50).contains(&ends.len()), "{gaps:?}");
    assert!(gaps[0] < Duration::from_secs(4), "{gaps:?}");
    let late = &gaps[7..];
    assert!(
        late.iter().all(|gap| *gap > Duration::from_secs(14)),
        "{gaps:?}"
    );
    // Another reason does not wait, and nor does a fresh generation.
    world.tell(Event::Recycle(world.any()));
    world.pass(2.0);
    let is_start = |a: &Action| matches!(a, Action::Spawn { .. });
    assert_eq!(world.log.drain(..).filter(is_start).count(), 1);
    world.tell(Event::Propose(2, policy(2)));
    world.pass(10.0);
    world.log.clear();
    world.tell(Event::Outgrown(world.any()));
    world.pass(2.0);
    assert_eq!(world.spawns(), 1);
}

#[test]
fn a_replacement_that_cannot_start_costs_no_worker() {
    let mut world = World::running(2);
    world.boot = |_| Boot::Dies;
    world.tell(Event::Recycle(world.any()));
    world.pass(20.0);
    assert_eq!(world.ready(), 2);
    assert!(world.spawns() < 15, "{} starts in 20 s", world.spawns());
}

#[test]
fn a_canary_is_checked_but_not_at_the_first_start() {
    let checked = Policy {
        check: true,
        ..policy(2)
    };
    let mut world = World::new(|generation| match generation {
        2 => Boot::Unfit,
        _ => Boot::Good,
    });
    world.tell(Event::Propose(1, checked.clone()));
    world.pass(10.0);
    assert_eq!(world.ready(), 2);
    world.log.clear();
    world.tell(Event::Propose(2, checked.clone()));
    world.pass(10.0);
    let canary = WorkerId(2);
    let expected = [
        Action::Spawn {
            worker: canary,
            slot: 0,
            generation: 2,
        },
        Action::Check(canary),
        Action::Failed(2),
        Action::Retire(2),
        Action::Terminate(canary, Reason::RolledBack),
    ];
    let told = world.log.iter().filter(|a| !matches!(a, Action::Settled));
    assert!(told.eq(&expected), "{:?}", world.log);
    assert_eq!(world.ready(), 2, "the old ones were not touched");
    world.tell(Event::Propose(3, checked));
    world.pass(10.0);
    assert!(world.log.contains(&Action::Proven(3)));
    assert!(world.alive.values().all(|&generation| generation == 3));
}

#[test]
fn a_canary_must_live_for_the_soak_but_not_at_the_first_start() {
    let soaking = Policy {
        soak: Duration::from_secs(10),
        ..policy(2)
    };
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, soaking.clone().at_first_start()));
    world.pass(3.0);
    assert_eq!(world.ready(), 2, "nothing served before");
    world.tell(Event::Propose(2, soaking.clone()));
    world.pass(10.0);
    assert_eq!(world.spawns(), 3);
    world.pass(20.0);
    assert!(world.alive.values().all(|&generation| generation == 2));

    world.log.clear();
    world.tell(Event::Propose(3, soaking));
    world.pass(5.0);
    let canary = *world.alive.keys().next_back().expect("it lives");
    world.dies(canary);
    assert!(world.log.contains(&Action::Failed(3)));
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_program_that_ends_at_once_fails_the_first_start_whenever_its_end_is_seen() {
    let executed = Policy {
        soak: Duration::from_secs(10),
        ..executed(2)
    };
    for together in [true, false] {
        let mut world = World::new(|_| Boot::Hangs);
        world.tell(Event::Propose(1, executed.clone().at_first_start()));
        world.held = together;
        world.tell(Event::Executed(WorkerId(0)));
        world.dies(WorkerId(0));
        world.release();
        assert!(world.log.contains(&Action::Failed(1)), "{:?}", world.log);
        assert!(!world.log.contains(&Action::Proven(1)), "{:?}", world.log);
    }
    let mut world = World::new(|_| Boot::Hangs);
    world.tell(Event::Propose(1, executed.at_first_start()));
    world.tell(Event::Executed(WorkerId(0)));
    world.pass(0.9);
    assert!(!world.log.contains(&Action::Proven(1)), "{:?}", world.log);
    world.pass(0.2);
    assert!(
        world.log.contains(&Action::Proven(1)),
        "not after ten seconds"
    );
}

#[test]
fn a_generation_that_is_held_starts_no_worker_until_it_is_released_or_replaced() {
    let mut world = World::new(|_| Boot::Good);
    world.held = true;
    world.tell(Event::Install(1, policy(2)));
    world.tell(Event::Hold(1));
    world.release();
    world.pass(30.0);
    assert_eq!(world.spawns(), 0);
    assert!(world.supervisor.is_held() && !world.supervisor.is_settled());
    assert_eq!(world.supervisor.counts().wanted, 2);
    world.tell(Event::Release(2));
    assert!(world.supervisor.is_held(), "that is another one");
    world.tell(Event::Release(1));
    world.pass(5.0);
    assert_eq!(world.ready(), 2);

    world.held = true;
    world.tell(Event::Install(2, policy(2)));
    world.tell(Event::Hold(2));
    world.release();
    world.pass(5.0);
    assert!(world.alive.values().all(|&generation| generation == 1));
    assert_eq!(world.ready(), 2, "the old ones serve meanwhile");
    world.tell(Event::Propose(3, policy(2)));
    world.pass(5.0);
    assert!(!world.supervisor.is_held());
    assert!(world.alive.values().all(|&generation| generation == 3));
    assert_eq!(world.ready(), 2);
}

#[test]
fn an_app_that_is_new_beside_others_must_prove_itself_like_any_other() {
    let checked = Policy {
        check: true,
        soak: Duration::from_secs(10),
        ..policy(2)
    };
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(1, checked));
    world.pass(9.0);
    let is_check = |action: &Action| matches!(action, Action::Check(_));
    assert!(world.log.iter().any(is_check), "{:?}", world.log);
    assert_eq!(world.ready(), 1, "its first worker");
    let canary = *world.alive.keys().next_back().expect("it lives");
    world.dies(canary);
    assert!(world.log.contains(&Action::Failed(1)));
    world.pass(100.0);
    assert_eq!(world.spawns(), 1);
}

#[test]
fn as_many_workers_at_a_time_as_surge_says() {
    let mut world = World::running(4);
    world.tell(Event::Propose(
        2,
        Policy {
            surge: Some(4),
            ..policy(4)
        },
    ));
    world.pass(1.5);
    assert_eq!(world.alive.len(), 7, "the canary has replaced one already");
    world.pass(1.0);
    assert_eq!(world.alive.len(), 4);
}

#[test]
fn an_app_whose_workers_cannot_run_is_given_up_at_once_and_a_reload_takes_it_up_again() {
    let mut world = World::running(2);
    let worker = *world.alive.keys().next().expect("two");
    world.tell(Event::Hopeless(worker));
    world.pass(100.0);
    assert_eq!(world.spawns(), 0);
    assert!(world.supervisor.is_given_up());
    world.tell(Event::Propose(2, policy(2)));
    world.pass(10.0);
    assert_eq!(world.ready(), 2);
    assert!(!world.supervisor.is_given_up());
    // A candidate fails, and what runs goes on.
    world.boot = |_| Boot::Hangs;
    world.tell(Event::Propose(3, policy(2)));
    let canary = *world.alive.keys().next_back().expect("it is the newest");
    world.tell(Event::Hopeless(canary));
    assert!(world.log.contains(&Action::Failed(3)));
    assert_eq!(world.ready(), 2);
    assert!(!world.supervisor.is_given_up());
}

#[test]
fn an_app_whose_workers_keep_failing_is_given_up_and_a_reload_takes_it_up_again() {
    let give_up = GiveUp {
        crashes: 4,
        within: Duration::from_secs(60),
        exit: false,
    };
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(
        1,
        Policy {
            give_up: Some(give_up),
            ..policy(2)
        },
    ));
    world.pass(10.0);
    world.boot = |generation| {
        if generation == 1 {
            Boot::Dies
        } else {
            Boot::Good
        }
    };
    world.dies(world.any());
    world.pass(600.0);
    assert!(world.log.contains(&Action::GaveUp(give_up)));
    assert_eq!(world.ready(), 1, "what runs is kept");
    world.log.clear();
    world.pass(600.0);
    assert_eq!(world.spawns(), 0);
    assert_eq!(world.supervisor.deadline(), None);
    world.tell(Event::Propose(
        2,
        Policy {
            give_up: Some(give_up),
            ..policy(2)
        },
    ));
    world.pass(10.0);
    assert_eq!(world.ready(), 2);
    assert!(!world.supervisor.is_in_trouble());
}

#[test]
fn failures_that_are_far_apart_are_no_reason_to_give_up() {
    let give_up = GiveUp {
        crashes: 3,
        within: Duration::from_secs(10),
        exit: false,
    };
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::Propose(
        1,
        Policy {
            give_up: Some(give_up),
            ..policy(1)
        },
    ));
    for _ in 0..6 {
        world.pass(1.5);
        world.dies(world.any());
        world.pass(20.0);
    }
    assert!(!world.supervisor.is_given_up());
}

#[test]
fn draining_generations_do_not_accumulate() {
    let mut world = World::new(|_| Boot::Good);
    for generation in 1..=6 {
        world.boot = |_| Boot::Good;
        world.tell(Event::Propose(generation, policy(1)));
        // The workers that are told to end now do not.
        world.boot = |_| Boot::Hangs;
        world.tell(Event::Ready(WorkerId(generation - 1)));
    }
    let alive: Vec<_> = world.alive.values().copied().collect();
    assert_eq!(alive, [4, 5, 6], "the current one and two that drain");
    let kills = world
        .log
        .iter()
        .filter(|a| matches!(a, Action::Kill(_, Reason::MaxDraining)));
    assert_eq!(kills.count(), 3);
}

#[test]
fn neighbours_of_a_hung_request_may_finish_before_the_abort() {
    for alone_in_time in [true, false] {
        let mut world = World::running(2);
        let hung = world.any();
        world.boot = |_| Boot::Hangs;
        world.tell(Event::HungInPart(hung));
        assert!(
            matches!(world.log[..], [Action::Terminate(id, Reason::Hung), Action::Spawn { .. }] if id == hung),
            "it accepts no more, and is replaced at once"
        );
        if alone_in_time {
            world.pass(1.0);
            world.tell(Event::Hung(hung));
        } else {
            world.pass(30.0);
        }
        assert_eq!(world.log[2], Action::Abort(hung, Reason::Hung));
        world.pass(2.0);
        assert!(world.log.contains(&Action::Kill(hung, Reason::AbortGrace)));
    }
}

#[test]
fn all_known_facts_are_recorded_before_anything_is_decided() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new(7);
    let _ = supervisor.handle(Event::Propose(1, policy(3)), now);
    let _ = supervisor.handle(Event::Ready(WorkerId(0)), now);
    let started = supervisor.handle(Event::Commit, now);
    let spawns = started.iter().filter(|a| matches!(a, Action::Spawn { .. }));
    assert_eq!(spawns.count(), 2);
    // The master was suspended until both should have been ready, and then learns that they were.
    let late = now + Duration::from_secs(61);
    let events = [Event::Ready(WorkerId(1)), Event::Ready(WorkerId(2))];
    let actions = supervisor.handle_all(events, late);
    assert!(
        !actions.iter().any(|a| matches!(a, Action::Abort(..))),
        "{actions:?}"
    );
    assert!(supervisor.is_settled());
}

#[test]
fn a_canary_that_hangs_while_it_soaks_proves_nothing() {
    let mut world = World::running(1);
    let soaking = Policy {
        soak: Duration::from_secs(10),
        ..policy(1)
    };
    world.tell(Event::Propose(2, soaking));
    world.pass(2.0);
    // It does not die before its time to die of ABRT has passed.
    world.boot = |generation| {
        if generation == 2 {
            Boot::Hangs
        } else {
            Boot::Good
        }
    };
    world.tell(Event::Hung(WorkerId(1)));
    world.pass(30.0);
    assert!(world.log.contains(&Action::Failed(2)), "{:?}", world.log);
    assert!(!world.log.contains(&Action::Proven(2)), "{:?}", world.log);
}

#[test]
fn a_worker_that_has_ended_meanwhile_is_not_signalled() {
    let mut world = World::running(2);
    let hung = world.any();
    world.held = true;
    world.tell(Event::Hung(hung));
    world.dies(hung);
    world.release();
    assert!(
        matches!(world.log[..], [Action::Spawn { .. }]),
        "{:?}",
        world.log
    );
}

#[test]
fn a_canary_that_was_ready_and_has_ended_meanwhile_has_failed() {
    let mut world = World::running(1);
    world.tell(Event::Propose(2, policy(1)));
    world.log.clear();
    world.held = true;
    world.tell(Event::Ready(WorkerId(1)));
    world.dies(WorkerId(1));
    world.release();
    assert_eq!(
        world.log,
        [Action::Failed(2), Action::Retire(2), Action::Settled]
    );
}

#[test]
fn an_app_that_is_removed_and_returns_at_once_starts_from_scratch() {
    let mut world = World::running(2);
    world.held = true;
    world.tell(Event::Propose(2, policy(1)));
    world.tell(Event::Remove);
    world.tell(Event::Propose(3, policy(1)));
    world.release();
    let old = [0, 1].map(|id| Action::Terminate(WorkerId(id), Reason::Removed));
    let canary = Action::Spawn {
        worker: WorkerId(2),
        slot: 0,
        generation: 3,
    };
    let expected = [Action::Retire(1), Action::Retire(2), old[0], old[1], canary];
    assert_eq!(world.log, expected);
    world.pass(2.0);
    assert_eq!(world.supervisor.generation(), Some(3));
    assert_eq!(world.ready(), 1);
}

#[test]
fn a_hung_worker_that_ends_by_itself_is_aborted_if_it_does_not() {
    let mut world = World::running(1);
    let hung = world.any();
    world.boot = |_| Boot::Hangs;
    world.held = true;
    world.tell(Event::HungInPart(hung));
    world.tell(Event::Stopping(hung));
    world.release();
    assert_eq!(world.log[0], Action::Terminate(hung, Reason::Hung));
    world.pass(30.0);
    assert!(world.log.contains(&Action::Abort(hung, Reason::Hung)));
}

#[test]
fn a_program_that_runs_is_not_late_and_an_aborted_worker_does_not_become_ready_with_time() {
    let late = Policy {
        readiness: Readiness::After(Duration::from_secs(61)),
        abort_grace: Duration::from_secs(5),
        ..policy(1)
    };
    for executes in [59.0, 60.1] {
        let mut world = World::running(1);
        world.boot = |_| Boot::Hangs;
        world.tell(Event::Propose(2, late.clone()));
        world.log.clear();
        world.pass(executes);
        world.tell(Event::Executed(WorkerId(1)));
        world.pass(60.9);
        assert!(!world.log.contains(&Action::Proven(2)), "{:?}", world.log);
        world.pass(0.2);
        let expected = [
            Action::Abort(WorkerId(1), Reason::StartTimeout),
            Action::Kill(WorkerId(1), Reason::AbortGrace),
            Action::Failed(2),
        ];
        match executes < 60.0 {
            true => assert_eq!(world.log[0], Action::Proven(2)),
            false => assert_eq!(world.log[..3], expected),
        }
    }
}

#[test]
fn a_worker_that_was_killed_is_not_aborted() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new(7);
    let id = WorkerId(0);
    for event in [
        Event::Propose(1, policy(1)),
        Event::Ready(id),
        Event::Commit,
    ] {
        let _ = supervisor.handle(event, now);
    }
    let actions = supervisor.handle(Event::Hung(id), now);
    assert!(actions.contains(&Action::Abort(id, Reason::Hung)));
    let later = now + Duration::from_secs(2);
    let actions = supervisor.handle(Event::Deadline, later);
    assert!(actions.contains(&Action::Kill(id, Reason::AbortGrace)));
    assert_eq!(supervisor.handle(Event::Hung(id), later), []);
}

#[test]
fn a_late_replacement_delays_the_next_recycling() {
    let mut world = World::running(2);
    world.boot = |_| Boot::Hangs;
    let old: Vec<_> = world.alive.keys().copied().collect();
    for id in old {
        world.tell(Event::Recycle(id));
    }
    // The replacement is aborted, killed, and replaced.
    world.pass(62.0);
    assert_eq!(world.spawns(), 2);
    assert_eq!(world.ready(), 2);
}

#[test]
fn nothing_is_started_while_something_is_left_of_an_earlier_run() {
    let mut world = World::new(|_| Boot::Good);
    world.tell(Event::EarlierLeft(true));
    world.tell(Event::Propose(1, policy(2)));
    world.pass(600.0);
    assert_eq!(world.spawns(), 0);
    assert!(!world.log.contains(&Action::Failed(1)), "it is not late");
    assert_eq!(world.supervisor.deadline(), None);
    world.tell(Event::EarlierLeft(false));
    world.pass(10.0);
    assert_eq!(world.ready(), 2);
    // A worker that ends meanwhile is replaced later.
    world.tell(Event::EarlierLeft(true));
    let first = *world.alive.keys().next().expect("two run");
    world.dies(first);
    world.pass(60.0);
    assert_eq!(world.ready(), 1);
    world.tell(Event::EarlierLeft(false));
    world.pass(10.0);
    assert_eq!(world.ready(), 2);
    world.tell(Event::EarlierLeft(true));
    world.tell(Event::Stop);
    world.pass(60.0);
    assert!(world.log.contains(&Action::Exit));
}
