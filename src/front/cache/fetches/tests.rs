use super::super::tests::{asked, purges, terms};
use super::*;

const COOKIE: (&str, &str) = ("cookie", "a=b");

fn english() -> Asked {
    asked("a", &[("accept", "en")])
}

fn french() -> Asked {
    asked("a", &[("accept", "fr")])
}

/// The fetches, and what was purged.
struct Stage {
    fetches: Fetches,
    seen: Seen,
}

impl Stage {
    fn new() -> Self {
        Self {
            fetches: Fetches::default(),
            seen: purges().look([1, 2]),
        }
    }

    fn arrive(&mut self, ticket: u64, asked: &Asked, now: Instant) -> Arrival {
        let until = now + PATIENCE;
        self.fetches.arrive(ticket, asked, self.seen, until, now)
    }

    fn fetches(&mut self, ticket: u64, asked: &Asked, now: Instant) -> Fetching {
        match self.arrive(ticket, asked, now) {
            Arrival::Fetches(fetching) => fetching,
            other => panic!("{ticket}: {other:?}"),
        }
    }

    fn waits(&mut self, ticket: u64, asked: &Asked, now: Instant) {
        let arrival = self.arrive(ticket, asked, now);
        assert!(
            matches!(arrival, Arrival::Waits(_)),
            "{ticket}: {arrival:?}"
        );
    }

    fn is_alone(&mut self, ticket: u64, asked: &Asked, now: Instant) {
        let arrival = self.arrive(ticket, asked, now);
        assert!(matches!(arrival, Arrival::Alone), "{ticket}: {arrival:?}");
    }

    /// Who is released, and whether they may wait again.
    fn released(&mut self, now: Instant) -> Vec<(u64, bool)> {
        assert_eq!(self.fetches.deadline() == 0, self.has_news());
        let released = self.fetches.released(now).into_iter();
        released.map(|one| (one.ticket, one.may_wait)).collect()
    }

    fn has_news(&self) -> bool {
        !self.fetches.released.is_empty() || !lock(&self.fetches.inbox).is_empty()
    }
}

#[test]
fn others_wait_until_the_response_is_stored() {
    let mut stage = Stage::new();
    let fetching = stage.fetches(1, &english(), 0);
    stage.waits(2, &english(), 1);
    stage.waits(3, &english(), 2);
    drop(stage.fetches(9, &asked("b", &[]), 3));
    assert_eq!(stage.released(3), []);
    fetching.has_head(&terms());
    assert_eq!(stage.released(3), []);
    stage.fetches.left(2);
    fetching.ends(End::Stored);
    assert_eq!(stage.released(4), [(3, true)]);
    assert_eq!(stage.fetches.deadline(), NEVER);
}

#[test]
fn what_is_for_one_client_is_not_waited_for_until_one_is_stored() {
    let mut stage = Stage::new();
    let fetching = stage.fetches(1, &english(), 0);
    stage.waits(2, &english(), 0);
    fetching.ends(End::Apart);
    assert_eq!(stage.released(1), [(2, false)]);
    stage.is_alone(2, &english(), 1);
    stage.is_alone(3, &french(), 1);
    stage.fetches.stored(&english(), &terms(), 2);
    let fetching = stage.fetches(4, &english(), 2);
    fetching.ends(End::Apart);
    assert_eq!(stage.released(2), []);
    stage.is_alone(5, &english(), APART + 1);
    let fetching = stage.fetches(6, &english(), APART + 2);
    stage.waits(7, &english(), APART + 2);
    fetching.ends(End::TooLarge);
    assert_eq!(stage.released(APART + 2), [(7, false)]);
    stage.is_alone(8, &asked("a", &[COOKIE]), APART + 2);
}

#[test]
fn those_who_ask_otherwise_are_released_at_the_head_and_not_held_up_again() {
    let mut stage = Stage::new();
    let first = stage.fetches(1, &english(), 0);
    stage.waits(2, &french(), 0);
    stage.waits(3, &english(), 0);
    first.has_head(&terms());
    assert_eq!(stage.released(1), [(2, true)]);
    let second = stage.fetches(2, &french(), 1);
    stage.waits(4, &french(), 1);
    stage.waits(5, &english(), 1);
    drop(first);
    assert_eq!(stage.released(2), [(3, false), (5, false)]);
    second.ends(End::Stored);
    assert_eq!(stage.released(2), [(4, true)]);
    // By then it is known that the language counts.
    let _first = stage.fetches(6, &english(), 3);
    let _second = stage.fetches(7, &french(), 3);
}

#[test]
fn a_response_for_those_without_a_cookie_is_not_waited_for_by_others() {
    let mut stage = Stage::new();
    let with_cookie = asked("a", &[("accept", "en"), COOKIE]);
    let fetching = stage.fetches(1, &english(), 0);
    stage.waits(2, &with_cookie, 0);
    fetching.has_head(&terms());
    assert_eq!(stage.released(0), [(2, true)]);
    stage.is_alone(2, &with_cookie, 0);
    fetching.ends(End::Stored);
    // The other way round, what those with a cookie get says nothing of the others.
    let mut stage = Stage::new();
    let fetching = stage.fetches(1, &with_cookie, 0);
    stage.waits(2, &english(), 0);
    stage.waits(3, &with_cookie, 0);
    fetching.ends(End::Apart);
    assert_eq!(stage.released(0), [(2, true), (3, false)]);
    let fetching = stage.fetches(2, &english(), 0);
    stage.is_alone(3, &with_cookie, 0);
    let for_all = Terms {
        for_cookies: true,
        ..terms()
    };
    fetching.has_head(&for_all);
    fetching.ends(End::Stored);
    let _next = stage.fetches(4, &english(), 1);
    stage.is_alone(5, &with_cookie, 1);
    stage.fetches.stored(&with_cookie, &for_all, 1);
    stage.waits(5, &with_cookie, 1);
}

#[test]
fn one_who_leaves_is_followed_by_another_and_after_a_failure_all_are_sent() {
    let mut stage = Stage::new();
    for (end, may_wait) in [(End::Left, true), (End::Failed, false)] {
        let fetching = stage.fetches(1, &english(), 0);
        stage.waits(2, &english(), 0);
        stage.waits(3, &english(), 0);
        fetching.ends(end);
        let expected = [(2, may_wait), (3, may_wait)];
        assert_eq!(stage.released(0), expected, "{end:?}");
    }
    // One that is dropped without a word has failed.
    let fetching = stage.fetches(1, &english(), 0);
    stage.waits(2, &english(), 0);
    drop(fetching);
    assert_eq!(stage.released(0), [(2, false)]);
}

#[test]
fn nobody_waits_longer_than_its_time() {
    let mut stage = Stage::new();
    let _slow = stage.fetches(1, &english(), 0);
    stage.waits(2, &english(), 0);
    stage.waits(3, &english(), SECOND);
    assert_eq!(stage.fetches.deadline(), PATIENCE);
    assert_eq!(stage.released(PATIENCE - 1), []);
    assert_eq!(stage.released(PATIENCE), [(2, false)]);
    // Who has waited is sent, and another one is waited for then.
    let (seen, now) = (stage.seen, PATIENCE);
    let _next = stage.fetches(4, &english(), now);
    let spent = stage.fetches.arrive(2, &english(), seen, 0, now);
    assert!(matches!(spent, Arrival::Alone), "{spent:?}");
    stage.waits(5, &english(), now + 1);
    assert_eq!(stage.released(now + SECOND), [(3, false)]);
}

#[test]
fn nobody_waits_for_what_was_purged_meanwhile() {
    let purges = purges();
    let mut stage = Stage::new();
    let _old = stage.fetches(1, &english(), 0);
    purges.purge(1);
    stage.seen = purges.look([1, 2]);
    let _new = stage.fetches(2, &english(), 0);
    stage.waits(3, &english(), 0);
}

#[test]
fn a_request_with_a_condition_waits_and_is_not_waited_for() {
    let mut stage = Stage::new();
    let conditional = asked("a", &[("accept", "en"), ("if-none-match", "\"a\"")]);
    stage.is_alone(1, &conditional, 0);
    let _fetching = stage.fetches(2, &english(), 0);
    stage.waits(3, &conditional, 0);
}

#[test]
fn what_is_remembered_and_who_waits_is_bounded() {
    let mut stage = Stage::new();
    let _fetching = stage.fetches(0, &english(), 0);
    let most = MOST_WAITING as u64;
    (1..=most).for_each(|ticket| stage.waits(ticket, &english(), 0));
    stage.is_alone(most + 1, &english(), 0);
    for number in 0..2 * MOST_KNOWN.get() {
        let asked = asked(&number.to_string(), &[]);
        stage.fetches.stored(&asked, &terms(), 0);
    }
    assert_eq!(stage.fetches.known.known.len(), MOST_KNOWN.get());
    // A list of names that is too long is not remembered either: then nobody waits.
    let long = Terms {
        vary: vec![vec![b'x'; MOST_NAMES + 1]],
        ..terms()
    };
    stage.fetches.stored(&asked("b", &[]), &long, 0);
    stage.is_alone(most + 2, &asked("b", &[]), 0);
}
