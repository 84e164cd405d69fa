//! The cost of an event, counted in visited workers, does not grow with the number of workers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::tests::policy;
use super::*;

/// The maximum number of visits per event and action.
const MOST: u64 = 12;

/// A master whose workers are ready at once when started, and end at once when told to, unless they hang.
struct World {
    supervisor: Supervisor,
    now: Instant,
    facts: VecDeque<Event>,
    /// The number of facts to record together.
    batch: usize,
    /// Workers end only when they are killed.
    hang: bool,
    alive: BTreeSet<WorkerId>,
    events: u64,
    actions: u64,
}

impl World {
    fn new(batch: usize) -> Self {
        Self {
            supervisor: Supervisor::new(7),
            now: Instant::now(),
            facts: VecDeque::new(),
            batch,
            hang: false,
            alive: BTreeSet::new(),
            events: 0,
            actions: 0,
        }
    }

    /// Records facts and everything that follows from them.
    fn tell(&mut self, facts: impl IntoIterator<Item = Event>) {
        self.facts.extend(facts);
        while !self.facts.is_empty() {
            let batch = self.batch.min(self.facts.len());
            let events: Vec<_> = self.facts.drain(..batch).collect();
            self.events += batch as u64;
            for action in self.supervisor.handle_all(events, self.now) {
                self.actions += 1;
                self.perform(action);
            }
            // The master reads these on each turn.
            let _ = self.supervisor.deadline();
            let _ = self.supervisor.counts();
            let _ = self.supervisor.lacks_workers();
            self.assert_cheap();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, .. } => {
                self.alive.insert(worker);
                self.facts
                    .extend([Event::Executed(worker), Event::Ready(worker)]);
            }
            Action::Terminate(id, _) | Action::Abort(id, _) if !self.hang => self.ends(id),
            Action::Kill(id, _) => self.ends(id),
            Action::Proven(_) => self.facts.push_back(Event::Commit),
            _ => {}
        }
    }

    fn ends(&mut self, id: WorkerId) {
        if self.alive.remove(&id) {
            self.facts.push_back(Event::Exited(id));
        }
    }

    /// Fails as soon as the cost grows: with many workers the whole test would take long to fail.
    fn assert_cheap(&self) {
        let visits = self.supervisor.roster.visits();
        assert!(visits <= MOST * (self.events + self.actions) + 1000);
    }

    /// Lets time pass until the next deadline.
    fn pass(&mut self) {
        let deadline = self.supervisor.deadline();
        self.now = deadline.expect("something is due");
        self.tell([Event::Deadline]);
    }

    fn tell_each(&mut self, event: fn(WorkerId) -> Event) {
        let facts: Vec<_> = self.alive.iter().map(|&id| event(id)).collect();
        self.tell(facts);
    }

    fn assert_settled(&self, workers: usize) {
        assert!(self.supervisor.is_settled());
        assert_eq!(self.supervisor.counts().ready as usize, workers);
        assert_eq!(self.alive.len(), workers);
    }
}

/// The life of an app with this many workers: the number of visits per event and action.
fn visits(workers: u32, batch: usize) -> u64 {
    let mut world = World::new(batch);
    let number = workers as usize;
    let all = policy(workers);
    world.tell([Event::Propose(1, all.clone())]);
    world.assert_settled(number);

    // A reload.
    world.tell([Event::Propose(2, all.clone())]);
    world.assert_settled(number);

    // Recycle all, one after the other.
    world.tell_each(Event::Recycle);
    world.assert_settled(number);

    // The same because of their size. All of them wait longer and longer.
    world.tell_each(Event::Outgrown);
    world.tell([]);
    world.assert_settled(number);

    // All exit after they have stayed up, and then all hang.
    world.now += Duration::from_secs(5);
    let exits: Vec<_> = world.alive.iter().copied().collect();
    exits.into_iter().for_each(|id| world.ends(id));
    world.tell([]);
    world.assert_settled(number);
    world.now += Duration::from_secs(5);
    world.tell_each(Event::Hung);
    world.assert_settled(number);

    // One fewer, many times, and one more; then many at once.
    let half = workers as i32 / 2;
    for by in [-1, 1] {
        world.tell((0..half).map(|_| Event::Scale(by)));
    }
    world.assert_settled(number);
    for by in [-half, half] {
        world.tell([Event::Scale(by)]);
    }
    world.assert_settled(number);

    // Two reloads whose old workers do not end: the oldest are killed, the others later.
    world.hang = true;
    for generation in [3, 4, 5, 6] {
        world.tell([Event::Propose(generation, all.clone())]);
    }
    assert!(world.alive.len() == 3 * number);
    world.pass();
    world.assert_settled(number);

    // A pause, and a stop that must be forced.
    world.tell([Event::Pause]);
    world.pass();
    world.tell([Event::Propose(7, all)]);
    world.assert_settled(number);
    world.tell([Event::Stop]);
    world.tell([Event::StopNow]);
    assert!(world.alive.is_empty() && world.supervisor.exited);
    world.supervisor.roster.check();

    let visits = world.supervisor.roster.visits();
    visits / (world.events + world.actions)
}

#[test]
fn the_cost_of_an_event_does_not_grow_with_the_number_of_workers() {
    for batch in [1, 64] {
        let [few, many] = [100, 10_000].map(|workers| visits(workers, batch));
        assert!(
            many <= few + 1,
            "{few} visits with 100 workers, {many} with 10,000"
        );
        assert!(many <= MOST, "{many} visits");
    }
}
