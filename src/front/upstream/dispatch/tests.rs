use std::sync::atomic::{AtomicU64, Ordering};

use preforkd_worker::running::{self, Running};
use proptest::prelude::*;

use super::*;

const SECOND: Instant = 1_000_000_000;

const LIMITS: Limits = Limits {
    most_running: 2,
    queue_length: 3,
    queue_timeout: Duration::from_secs(10),
    health: Policy {
        max_fails: 1,
        within: Duration::from_secs(10),
        pause: Duration::from_secs(5),
    },
    ahead: false,
};

/// A request that is not sent ahead.
fn facts(ticket: Ticket) -> Facts {
    let ahead = false;
    Facts { ticket, ahead }
}

/// One that may be.
fn quick(ticket: Ticket) -> Facts {
    let ahead = true;
    Facts { ticket, ahead }
}

/// Places where as many requests may run as the upstream allows.
fn unlimited(places: &[Place]) -> Vec<(Place, usize)> {
    places.iter().map(|&place| (place, usize::MAX)).collect()
}

fn dispatch(places: &[Place]) -> Dispatch {
    let mut dispatch = Dispatch::new(LIMITS);
    dispatch.set(&unlimited(places));
    dispatch
}

#[test]
fn the_fewest_running_comes_first_and_the_others_wait_in_their_order() {
    let mut d = dispatch(&[1, 2]);
    let places: Vec<_> = (0..4).map(|ticket| d.arrive(facts(ticket), 0)).collect();
    let run = Arrival::Run;
    assert_eq!(places, [run(1), run(2), run(1), run(2)]);
    for ticket in 4..7 {
        assert_eq!(d.arrive(facts(ticket), 0), Arrival::Wait);
    }
    assert_eq!(d.arrive(facts(7), 0), Arrival::Full);
    assert_eq!((d.next(0), d.waiting()), (None, 3));
    d.ended(0, 2, Outcome::Good, 0);
    // One that comes now does not overtake them.
    assert_eq!(d.arrive(facts(8), 0), Arrival::Full);
    assert_eq!((d.next(0), d.next(0)), (Some((4, 2)), None));
    d.ended(0, 1, Outcome::Good, 0);
    d.ended(0, 1, Outcome::Good, 0);
    assert_eq!(
        (d.next(0), d.next(0), d.next(0)),
        (Some((5, 1)), Some((6, 1)), None)
    );
    assert_eq!((d.waiting(), d.running()), (0, 4));
}

#[test]
fn each_address_has_a_limit_of_its_own_which_may_change() {
    let mut d = dispatch(&[]);
    d.set(&[(1, 1), (2, 9)]);
    let places: Vec<_> = (0..4).map(|ticket| d.arrive(facts(ticket), 0)).collect();
    let run = Arrival::Run;
    // No more than the upstream allows, whatever the address says.
    assert_eq!(places, [run(1), run(2), run(2), Arrival::Wait]);
    d.set(&[(1, 2), (2, 9)]);
    assert_eq!((d.next(0), d.next(0)), (Some((3, 1)), None));
    d.set(&[(1, 1), (2, 9)]);
    assert_eq!(d.arrive(facts(4), 0), Arrival::Wait);
    d.ended(0, 1, Outcome::Good, 0);
    assert_eq!(d.next(0), None, "one still runs there");
    d.ended(0, 1, Outcome::Good, 0);
    assert_eq!(d.next(0), Some((4, 1)));
}

#[test]
fn addresses_take_turns_when_nothing_runs() {
    let mut d = dispatch(&[1, 2, 3]);
    let mut order = Vec::new();
    for ticket in 0..6 {
        let Arrival::Run(place) = d.arrive(facts(ticket), 0) else {
            panic!("all are free");
        };
        d.ended(0, place, Outcome::Good, 0);
        order.push(place);
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn who_waits_too_long_is_told() {
    let mut d = dispatch(&[]);
    assert_eq!(d.deadline(), NEVER);
    assert_eq!(d.arrive(facts(1), 0), Arrival::Wait);
    assert_eq!(d.arrive(facts(2), SECOND), Arrival::Wait);
    assert_eq!(d.deadline(), 10 * SECOND);
    assert_eq!(d.expired(10 * SECOND - 1), None);
    assert_eq!(
        (d.expired(10 * SECOND), d.expired(10 * SECOND)),
        (Some(1), None)
    );
    assert!(d.left(2) && !d.left(2));
    assert_eq!((d.deadline(), d.waiting()), (NEVER, 0));
}

#[test]
fn an_address_that_comes_takes_those_that_wait_and_one_that_goes_gets_no_more() {
    let mut d = dispatch(&[]);
    assert_eq!(d.arrive(facts(1), 0), Arrival::Wait);
    d.set(&unlimited(&[7]));
    assert_eq!(d.next(0), Some((1, 7)));
    d.set(&unlimited(&[8]));
    assert!(!d.has(7) && d.has(8));
    assert_eq!(d.arrive(facts(2), 0), Arrival::Run(8));
    assert_eq!(d.running(), 2);
    d.ended(0, 7, Outcome::Bad, 0);
    assert_eq!(d.running(), 1);
    d.set(&unlimited(&[]));
    assert_eq!(d.arrive(facts(3), 0), Arrival::Wait);
}

#[test]
fn nothing_waits_for_an_app_that_is_not_running() {
    let mut d = dispatch(&[1]);
    d.refuse(true);
    assert!(!d.is_refusing(), "there is an address");
    assert_eq!(d.arrive(facts(1), 0), Arrival::Run(1));
    assert_eq!(d.arrive(facts(2), 0), Arrival::Run(1));
    assert_eq!(d.arrive(facts(3), 0), Arrival::Wait);
    // Its worker ends: what runs there goes on, and what waits does not.
    d.set(&[]);
    assert!(d.is_refusing());
    assert_eq!(d.arrive(facts(4), 0), Arrival::Refused);
    assert_eq!((d.expired(NEVER), d.expired(NEVER)), (Some(3), None));
    assert_eq!((d.running(), d.waiting()), (2, 0));
    // What has failed there and could be sent again does not wait either.
    d.ended(1, 1, Outcome::Bad, 0);
    assert_eq!(d.again(1, 1, 0), Arrival::Refused);
    assert_eq!((d.running(), d.waiting()), (1, 0));
    // One that is about to start is waited for.
    d.refuse(false);
    assert!(!d.is_refusing());
    assert_eq!(d.arrive(facts(5), 0), Arrival::Wait);
    d.set(&unlimited(&[2]));
    assert_eq!(d.next(0), Some((5, 2)));
}

#[test]
fn an_address_that_fails_is_left_alone_and_tried_by_one() {
    let mut d = dispatch(&[1, 2]);
    assert_eq!(d.arrive(facts(1), 0), Arrival::Run(1));
    assert_eq!(d.ended(0, 1, Outcome::Bad, 0), Change::Away);
    assert_eq!(d.again(1, 1, 0), Arrival::Run(2));
    assert_eq!(d.arrive(facts(2), 0), Arrival::Run(2));
    assert_eq!(
        d.arrive(facts(3), 0),
        Arrival::Wait,
        "the other one is full"
    );
    assert_eq!(d.next(5 * SECOND - 1), None);
    assert_eq!(d.next(5 * SECOND), Some((3, 1)), "one tries it");
    assert_eq!(d.arrive(facts(4), 5 * SECOND), Arrival::Wait);
    assert_eq!(d.ended(0, 1, Outcome::Good, 6 * SECOND), Change::Back);
    assert_eq!(d.next(6 * SECOND), Some((4, 1)));
}

#[test]
fn nothing_goes_to_an_address_that_is_closed_until_it_is_time_to_try_it_again() {
    let mut d = dispatch(&[1]);
    assert_eq!(d.arrive(facts(7), 0), Arrival::Run(1));
    d.closed(1, SECOND);
    d.ended(0, 1, Outcome::Unknown, 0);
    assert_eq!(d.again(7, 1, 0), Arrival::Wait);
    assert_eq!(d.arrive(facts(8), 0), Arrival::Wait);
    assert_eq!((d.next(0), d.deadline()), (None, SECOND));
    assert!(!d.opened(SECOND - 1));
    // Another one comes meanwhile.
    d.set(&unlimited(&[1, 2]));
    assert_eq!((d.next(0), d.next(0)), (Some((7, 2)), Some((8, 2))));
    assert_eq!(d.deadline(), NEVER);
    assert_eq!(d.arrive(facts(9), 0), Arrival::Wait);
    assert!(d.opened(SECOND) && !d.opened(SECOND));
    assert_eq!(d.next(SECOND), Some((9, 1)));
}

#[test]
fn where_all_have_failed_they_are_tried_all_the_same() {
    let mut d = dispatch(&[1]);
    assert_eq!(d.arrive(facts(1), 0), Arrival::Run(1));
    assert_eq!(d.ended(0, 1, Outcome::Bad, 0), Change::Away);
    // Also the same one, where there is no other.
    assert_eq!(d.again(1, 1, 0), Arrival::Run(1));
    assert_eq!(d.arrive(facts(2), 0), Arrival::Run(1));
}

#[test]
fn what_is_sent_again_goes_before_what_is_new() {
    let mut d = dispatch(&[1]);
    assert_eq!(d.arrive(facts(1), 0), Arrival::Run(1));
    assert_eq!(d.arrive(facts(2), 0), Arrival::Run(1));
    assert_eq!(d.arrive(facts(3), 0), Arrival::Wait);
    d.ended(0, 1, Outcome::Unknown, 0);
    assert_eq!(d.again(1, 1, 0), Arrival::Run(1));
    d.set(&unlimited(&[]));
    d.ended(0, 1, Outcome::Unknown, 0);
    assert_eq!(d.again(2, 1, SECOND), Arrival::Wait);
    assert_eq!(d.deadline(), 10 * SECOND);
    d.set(&unlimited(&[5]));
    assert_eq!((d.next(0), d.next(0)), (Some((2, 5)), Some((3, 5))));
}

/// Two workers that serve one request at a time and have been quick, 10 µs for each request; the time.
fn quick_workers() -> (Dispatch, Instant) {
    let mut d = Dispatch::new(Limits {
        queue_length: 100,
        ahead: true,
        ..LIMITS
    });
    d.set(&[(1, 1), (2, 1)]);
    let mut now = SECOND;
    for ticket in 1000..1032 {
        let Arrival::Run(place) = d.arrive(quick(ticket), now) else {
            panic!("it is idle");
        };
        now += 10_000;
        d.ended(ticket, place, Outcome::Good, now);
    }
    (d, now)
}

/// The places of requests that arrive, with 0 for those that wait.
fn places(d: &mut Dispatch, tickets: std::ops::Range<Ticket>, now: Instant) -> Vec<Place> {
    let arrived = tickets.map(|ticket| match d.arrive(quick(ticket), now) {
        Arrival::Run(place) => place,
        other => {
            assert_eq!(other, Arrival::Wait);
            0
        }
    });
    arrived.collect()
}

#[test]
fn a_busy_worker_that_is_quick_gets_requests_ahead_and_an_idle_one_comes_first() {
    let (mut d, now) = quick_workers();
    assert_eq!(places(&mut d, 0..6, now), [1, 2, 1, 2, 1, 2]);
    assert_eq!((d.running(), d.ahead(), d.waiting()), (2, 4, 0));
    d.ended(0, 1, Outcome::Good, now);
    d.ended(2, 1, Outcome::Good, now);
    d.ended(4, 1, Outcome::Good, now);
    assert_eq!(places(&mut d, 6..8, now), [1, 1]);
    // One that must not be repeated waits for an idle one, and others do not overtake it.
    assert_eq!(d.arrive(facts(8), now), Arrival::Wait);
    assert_eq!((places(&mut d, 9..10, now), d.next(now)), (vec![0], None));
    for ticket in 6..8 {
        d.ended(ticket, 1, Outcome::Good, now);
    }
    assert_eq!((d.next(now), d.next(now)), (Some((8, 1)), Some((9, 1))));
}

#[test]
fn nothing_is_sent_ahead_of_a_worker_that_is_not_known_to_be_quick() {
    let ahead = Limits {
        ahead: true,
        queue_length: 100,
        ..LIMITS
    };
    for (limits, most) in [(ahead, 1), (ahead, 2), (LIMITS, 1)] {
        let mut d = Dispatch::new(limits);
        d.set(&[(1, most)]);
        let mut now = SECOND;
        for ticket in 0..100 {
            let arrival = d.arrive(quick(ticket), now);
            assert_eq!(arrival, Arrival::Run(1));
            // The first of a hundred in the first case.
            now += if limits.ahead && most == 1 && ticket % 10 == 9 {
                PATIENCE
            } else {
                1000
            };
            d.ended(ticket, 1, Outcome::Good, now);
        }
        let all = places(&mut d, 100..104, now);
        assert_eq!(all.iter().filter(|&&place| place > 0).count(), most);
    }
}

#[test]
fn one_slow_request_among_many_quick_ones_does_not_stop_what_is_sent_ahead_and_two_do() {
    for (slow, sends) in [(&[50][..], true), (&[50, 55], false), (&[50, 70], true)] {
        let mut d = Dispatch::new(Limits {
            ahead: true,
            queue_length: 100,
            ..LIMITS
        });
        d.set(&[(1, 1)]);
        let mut now = SECOND;
        for ticket in 0..72 {
            assert_eq!(d.arrive(quick(ticket), now), Arrival::Run(1));
            now += match slow.contains(&ticket) {
                true => PATIENCE,
                false => 1000,
            };
            d.ended(ticket, 1, Outcome::Good, now);
            if ticket == slow[slow.len() - 1] {
                break;
            }
        }
        let all = places(&mut d, 100..102, now);
        assert_eq!(all == [1, 1], sends, "{slow:?}");
    }
}

#[test]
fn what_waits_ahead_waits_no_longer_than_the_budget_in_the_mean() {
    for (took, most) in [(10_000, 25), (100_000, 11), (400_000, 3), (1_100_000, 1)] {
        let (mut d, mut now) = quick_workers();
        d.set(&[(1, 1)]);
        for ticket in 100..400 {
            d.arrive(quick(ticket), now);
            now += took;
            d.ended(ticket, 1, Outcome::Good, now);
        }
        let sent = places(&mut d, 0..40, now);
        let sent = sent.iter().filter(|&&place| place == 1).count();
        assert!(sent.abs_diff(most) <= 1, "{took}: {sent}");
    }
}

#[test]
fn what_is_stuck_behind_a_long_request_goes_elsewhere_in_its_order() {
    let (mut d, now) = quick_workers();
    assert_eq!(places(&mut d, 0..6, now), [1, 2, 1, 2, 1, 2]);
    assert_eq!(d.arrive(quick(6), now + PATIENCE), Arrival::Wait);
    let late = now + PATIENCE;
    assert_eq!((d.deadline(), d.stuck(late - 1)), (late, None));
    assert_eq!(d.stuck(late), Some((1, vec![0, 2, 4])));
    // The worker has begun another one than the first.
    assert_eq!(d.unread(1, &[0, 4], late), [0, 4]);
    for ticket in [4, 0] {
        d.taken_back(ticket, 1);
    }
    assert_eq!((d.waiting(), d.next(late)), (3, None));
    assert_eq!(d.stuck(late), Some((2, vec![1, 3, 5])));
    assert_eq!(d.unread(2, &[3, 5], late), [3, 5]);
    // It has begun this one meanwhile, and has not taken long.
    d.taken_back(5, 2);
    assert_eq!(d.stuck(late), None);
    for ticket in [1, 3] {
        d.ended(ticket, 2, Outcome::Good, late);
    }
    assert_eq!(d.next(late), Some((5, 2)));
    assert_eq!(d.next(late), None, "it is not quick any more");
    d.ended(5, 2, Outcome::Good, late);
    assert_eq!(d.next(late), Some((0, 2)));
    assert_eq!((d.running(), d.ahead(), d.waiting()), (2, 0, 2));
}

#[test]
fn what_is_stuck_at_the_only_worker_is_taken_back_late_or_when_another_one_comes() {
    let (mut d, now) = quick_workers();
    d.set(&[(1, 1)]);
    assert_eq!(places(&mut d, 0..1, now), [1]);
    assert_eq!(d.deadline(), NEVER, "nothing is behind it");
    assert_eq!(places(&mut d, 1..3, now), [1, 1]);
    let late = now + PATIENCE_ALONE;
    assert_eq!((d.deadline(), d.stuck(late - 1)), (late, None));
    assert_eq!(d.stuck(late), Some((1, vec![0, 1, 2])));
    let early = now + PATIENCE;
    d.set(&[(1, 1), (2, 1)]);
    assert_eq!((d.deadline(), d.stuck(early - 1)), (early, None));
    assert_eq!(d.stuck(early), Some((1, vec![0, 1, 2])));
    assert_eq!(d.unread(1, &[1, 2], early), [1, 2]);
    for ticket in [2, 1] {
        d.taken_back(ticket, 1);
    }
    assert_eq!((d.next(early), d.waiting()), (Some((1, 2)), 1));
}

#[test]
fn a_worker_that_serves_others_gives_back_its_first_request_only_if_another_worker_is_idle() {
    let (mut d, now) = quick_workers();
    assert_eq!(places(&mut d, 0..1, now), [1]);
    let mut late = now + PATIENCE;
    assert_eq!(d.deadline(), late);
    assert_eq!(places(&mut d, 1..2, now), [2]);
    assert_eq!(d.stuck(late), Some((1, vec![0])));
    assert!(d.unread(1, &[0], late).is_empty());
    assert_eq!(d.stuck(late), Some((2, vec![1])));
    assert!(d.unread(2, &[], late).is_empty());
    d.ended(1, 2, Outcome::Good, late);
    late += PATIENCE;
    assert_eq!(d.stuck(late), Some((1, vec![0])));
    assert_eq!(d.unread(1, &[0], late), [0]);
    d.taken_back(0, 1);
    assert_eq!(d.next(late), Some((0, 2)));
    assert_eq!(d.arrive(facts(2), late), Arrival::Wait, "1 is occupied");
    assert!(d.deadline() > late && !d.opened(late));
    late += OCCUPIED;
    assert!(d.opened(late));
    assert_eq!(d.next(late), Some((2, 1)));
}

#[derive(Debug, Clone)]
enum Act {
    Arrive,
    End(usize, Outcome),
    Again(usize),
    Leave(usize),
    Set(Vec<Place>),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let outcome = prop::sample::select(vec![Outcome::Good, Outcome::Bad, Outcome::Unknown]);
    prop_oneof![
        4 => Just(Act::Arrive),
        3 => (0usize..9, outcome).prop_map(|(n, outcome)| Act::End(n, outcome)),
        1 => (0usize..9).prop_map(Act::Again),
        1 => (0usize..9).prop_map(Act::Leave),
        1 => prop::collection::vec(1u64..4, 0..4).prop_map(Act::Set),
        1 => (1u64..12).prop_map(Act::Pass),
    ]
}

proptest! {
    /// Whatever happens: each request is told of once, nothing waits while an address has room, and no address has more than it may.
    #[test]
    fn nobody_is_lost_and_nobody_waits_in_vain(acts in prop::collection::vec(act(), 0..60)) {
        let mut d = dispatch(&[1, 2]);
        let (mut now, mut next) = (0, 0);
        let mut running: Vec<(Ticket, Place)> = Vec::new();
        let mut waiting: Vec<Ticket> = Vec::new();
        let mut listed = vec![1, 2];
        for act in acts {
            match act {
                Act::Arrive => {
                    next += 1;
                    match d.arrive(facts(next), now) {
                        Arrival::Run(place) => running.push((next, place)),
                        Arrival::Wait => waiting.push(next),
                        Arrival::Full => prop_assert!(waiting.len() >= LIMITS.queue_length),
                        Arrival::Refused => prop_assert!(false, "it never refuses"),
                    }
                }
                Act::End(n, outcome) if n < running.len() => {
                    let (ticket, place) = running.swap_remove(n);
                    d.ended(ticket, place, outcome, now);
                }
                Act::Again(n) if n < running.len() => {
                    let (ticket, place) = running.swap_remove(n);
                    d.ended(ticket, place, Outcome::Bad, now);
                    match d.again(ticket, place, now) {
                        Arrival::Run(other) => {
                            prop_assert!(other != place || listed.iter().all(|&p| p == place));
                            running.push((ticket, other));
                        }
                        Arrival::Wait => waiting.push(ticket),
                        Arrival::Full | Arrival::Refused => {
                            prop_assert!(false, "it was in already");
                        }
                    }
                }
                Act::Leave(n) if n < waiting.len() => {
                    prop_assert!(d.left(waiting.swap_remove(n)));
                }
                Act::Set(places) => {
                    d.set(&unlimited(&places));
                    listed = places;
                }
                Act::Pass(seconds) => now += seconds * SECOND,
                _ => {}
            }
            while let Some(ticket) = d.expired(now) {
                prop_assert!(waiting.contains(&ticket));
                waiting.retain(|&other| other != ticket);
            }
            while let Some((ticket, place)) = d.next(now) {
                prop_assert!(waiting.contains(&ticket) && listed.contains(&place));
                waiting.retain(|&other| other != ticket);
                running.push((ticket, place));
            }
            prop_assert!(d.deadline() > now);
            prop_assert_eq!((d.waiting(), d.running()), (waiting.len(), running.len()));
            for place in 1..4 {
                let here = running.iter().filter(|&&(_, other)| other == place).count();
                prop_assert!(here <= LIMITS.most_running);
            }
            let idle = !listed.is_empty() && running.is_empty();
            prop_assert!(!idle || waiting.is_empty(), "{:?}", d);
        }
    }

    /// The same with workers that get requests ahead: nothing is lost, those that do not end are taken back, and nothing is stuck while
    /// another worker is idle.
    #[test]
    fn nothing_that_was_sent_ahead_is_lost(acts in prop::collection::vec((0u8..8, 0usize..9, 1u64..3_000_000), 0..200)) {
        let (mut d, mut now) = quick_workers();
        let mut next = 0;
        let mut sent: Vec<(Ticket, Place)> = Vec::new();
        let mut waiting: Vec<Ticket> = Vec::new();
        for (what, n, time) in acts {
            match what {
                0..3 => {
                    next += 1;
                    match d.arrive(Facts { ticket: next, ahead: n > 1 }, now) {
                        Arrival::Run(place) => sent.push((next, place)),
                        Arrival::Wait => waiting.push(next),
                        Arrival::Full | Arrival::Refused => {}
                    }
                }
                3..6 if n < sent.len() => {
                    now += time / 100;
                    let (ticket, place) = sent.remove(n);
                    d.ended(ticket, place, if n == 8 { Outcome::Unknown } else { Outcome::Good }, now);
                }
                6 => now += time,
                _ => d.set(&[(1, 1), (2, 1), (3, n)][..1 + n % 3]),
            }
            while let Some(ticket) = d.expired(now) {
                waiting.retain(|&other| other != ticket);
            }
            d.opened(now);
            while let Some((place, tickets)) = d.stuck(now) {
                let here: Vec<_> = sent.iter().filter(|&&(_, at)| at == place).map(|&(ticket, _)| ticket).collect();
                prop_assert!(tickets.iter().all(|ticket| here.contains(ticket)));
                // The worker has begun the first one, or none.
                let unread = &tickets[n % 2..];
                let mut wanted = d.unread(place, unread, now);
                prop_assert!(wanted.iter().all(|ticket| unread.contains(ticket)));
                while let Some(ticket) = wanted.pop() {
                    d.taken_back(ticket, place);
                    sent.retain(|&(other, _)| other != ticket);
                    waiting.push(ticket);
                }
            }
            while let Some((ticket, place)) = d.next(now) {
                prop_assert!(waiting.contains(&ticket));
                waiting.retain(|&other| other != ticket);
                sent.push((ticket, place));
            }
            prop_assert!(d.deadline() > now);
            prop_assert_eq!((d.waiting(), d.running() + d.ahead()), (waiting.len(), sent.len()));
        }
    }
}

/// Workers of the front and the memory that they share, with these places of so many requests.
fn shared<const N: usize>(places: &[(Place, usize)]) -> ([Dispatch; N], &'static [AtomicU64]) {
    let words: Vec<_> = (0..running::WORDS).map(|_| AtomicU64::new(0)).collect();
    let words: &'static [AtomicU64] = words.leak();
    (begin_all(words, places), words)
}

fn begin_all<const N: usize>(
    words: &'static [AtomicU64],
    places: &[(Place, usize)],
) -> [Dispatch; N] {
    let mut records = 0..;
    [(); N].map(|()| begin(words, records.next().unwrap_or_default(), places))
}

/// A worker of the front with this record.
fn begin(words: &'static [AtomicU64], record: u32, places: &[(Place, usize)]) -> Dispatch {
    let running = Running::begin(words, record, 7).expect("a part");
    let mut dispatch = Dispatch::new(Limits {
        most_running: 9,
        ahead: true,
        ..LIMITS
    });
    dispatch.set(places);
    for (place, _) in places {
        let at = running.place("app=web", &place.to_string());
        dispatch.share(*place, at.expect("room"));
    }
    dispatch.share_queue(running.queue("app=web").expect("room"));
    dispatch
}

#[test]
fn what_other_workers_of_the_front_have_sent_counts() {
    let run = Arrival::Run;
    // A place with a slow request of another one is not taken while one is idle.
    let ([mut a, mut b], _) = shared(&[(1, 1), (2, 1)]);
    assert_eq!(a.arrive(facts(1), 0), run(1));
    assert_eq!(b.arrive(facts(1), 0), run(2));
    // Nor is a place of several requests whose threads are all in use.
    let ([mut a, mut b], words) = shared(&[(1, 2), (2, 2)]);
    let sent: Vec<_> = (0..3).map(|ticket| a.arrive(facts(ticket), 0)).collect();
    assert_eq!(sent, [run(1), run(2), run(1)]);
    assert_eq!(b.arrive(facts(0), 0), run(2));
    // What has ended does not count, nor does anything of one that was killed.
    a.ended(1, 2, Outcome::Good, 0);
    b.ended(0, 2, Outcome::Good, 0);
    assert_eq!(b.arrive(facts(1), 0), run(2));
    words[0].store(0, Ordering::Relaxed);
    assert_eq!(b.arrive(facts(2), 0), run(1));
    assert_eq!(b.arrive(facts(3), 0), run(2));
    assert_eq!(b.arrive(facts(4), 0), run(1));
}

#[test]
fn where_others_have_all_places_a_request_waits_and_is_told_of_the_first_that_is_free() {
    let ([mut a, mut b], _) = shared(&[(1, 1), (2, 1)]);
    let run = Arrival::Run;
    for ticket in [1, 2] {
        a.arrive(facts(ticket), 0);
    }
    // Nobody is woken where nobody waits.
    a.ended(2, 2, Outcome::Good, 0);
    assert!(!a.is_free() && !a.wakes_others());
    assert_eq!(a.arrive(facts(2), 0), run(2));
    assert_eq!(b.arrive(facts(1), 1), Arrival::Wait);
    assert_eq!(b.next(1), None);
    a.ended(1, 1, Outcome::Good, 2);
    assert!(a.is_free() && a.wakes_others() && !a.wakes_others());
    assert_eq!((b.next(2), b.waiting()), (Some((1, 1)), 0));
    // What has room for it at once is no reason to wake anybody.
    b.ended(1, 1, Outcome::Good, 3);
    assert!(!b.wakes_others());
}

#[test]
fn the_queue_has_one_length_and_one_order_for_all_workers_of_the_front() {
    let ([mut a, mut b, mut c], words) = shared(&[(1, 1)]);
    let run = Arrival::Run;
    assert_eq!(a.arrive(facts(1), 0), run(1));
    for (ticket, front) in [(2, &mut b), (3, &mut c)] {
        assert_eq!(front.arrive(facts(ticket), ticket), Arrival::Wait);
    }
    assert_eq!(a.arrive(facts(4), 4), Arrival::Wait);
    for front in [&mut a, &mut b, &mut c] {
        assert_eq!(front.arrive(facts(9), 5), Arrival::Full);
    }
    // The one that gives it back has a request of its own, which came later.
    a.ended(1, 1, Outcome::Good, 6);
    assert_eq!(a.next(6), None);
    assert!(a.wakes_others());
    assert_eq!(c.next(6), None);
    assert_eq!(b.next(6), Some((2, 1)));
    assert_eq!(b.arrive(facts(5), 6), Arrival::Wait);
    b.ended(2, 1, Outcome::Good, 7);
    assert_eq!((b.next(7), a.next(7)), (None, None));
    // One that does not take its turn loses it after a while: it was killed, or has reasons of its own.
    let late = a.deadline();
    assert!(late < 10_000_000, "{late}");
    assert!(a.opened(late));
    assert_eq!(a.next(late), Some((4, 1)));
    // What a worker that was killed holds is looked for.
    let look = b.deadline();
    words[0].store(0, Ordering::Relaxed);
    assert!(look < 200_000_000 && b.opened(look));
    assert_eq!(b.next(look), Some((5, 1)));
    assert_eq!((b.waiting(), c.waiting()), (0, 1));
}

/// A worker of the front, what runs that it has sent, and whether it was woken.
type Acting = (Dispatch, Vec<(Ticket, Place)>, bool);

proptest! {
    /// Three workers of the front, to which things happen in any order, and which learn of being woken in any order: no place ever has more
    /// than it may, nothing waits while there is room once all have learned of it, and what was killed holds nothing for long.
    #[test]
    fn nothing_waits_while_there_is_room_in_any_worker(acts in prop::collection::vec((0u8..9, 0usize..3, 0usize..9), 0..150)) {
        let places = [(1, 1), (2, 2)];
        // It is large, and whoever begins forgets what was there.
        static WORDS: std::sync::OnceLock<&'static [AtomicU64]> = std::sync::OnceLock::new();
        let words = *WORDS.get_or_init(|| shared::<3>(&places).1);
        let mut fronts = begin_all::<3>(words, &places).map(|front| -> Acting { (front, Vec::new(), false) });
        let (mut now, mut ticket) = (SECOND, 0);
        // Looks at what has been given back, and wakes the others.
        fn settle(fronts: &mut [Acting; 3], at: usize, now: Instant) {
            let (front, running, woken) = &mut fronts[at];
            *woken = false;
            running.extend(std::iter::from_fn(|| front.next(now)));
            if front.wakes_others() {
                fronts.iter_mut().for_each(|(_, _, woken)| *woken = true);
            }
        }
        for (what, at, n) in acts {
            now += 1000;
            let (front, running, woken) = &mut fronts[at];
            match what {
                0..4 => {
                    ticket += 1;
                    if let Arrival::Run(place) = front.arrive(facts(ticket), now) {
                        running.push((ticket, place));
                    }
                    settle(&mut fronts, at, now);
                }
                4..7 if n < running.len() => {
                    let (ticket, place) = running.swap_remove(n);
                    front.ended(ticket, place, Outcome::Good, now);
                    settle(&mut fronts, at, now);
                }
                7 if *woken => settle(&mut fronts, at, now),
                8 if n == 0 => {
                    // It is killed, reaped by the master, and another one takes its place; the others look by and by.
                    words[at].store(0, Ordering::Relaxed);
                    fronts[at] = (begin(words, at as u32, &places), Vec::new(), false);
                    now += SECOND / 5;
                    for other in 0..3 {
                        let (front, ..) = &mut fronts[other];
                        if front.opened(now) {
                            settle(&mut fronts, other, now);
                        }
                    }
                }
                _ => {}
            }
            for (place, most) in places {
                let running = fronts.iter().flat_map(|(_, running, _)| running);
                prop_assert!(running.filter(|(_, at)| *at == place).count() <= most);
            }
            // Those that were woken have learned of it in the end, the last ones first.
            if n % 2 == 0 {
                while let Some(at) = (0..3).rev().find(|at| fronts[*at].2) {
                    settle(&mut fronts, at, now);
                }
                let running: usize = fronts.iter().map(|(_, running, _)| running.len()).sum();
                let waiting: usize = fronts.iter().map(|(front, ..)| front.waiting()).sum();
                prop_assert!(waiting == 0 || running == 3, "{waiting} wait, {running} run");
                prop_assert!(waiting <= LIMITS.queue_length);
            }
        }
    }
}

#[test]
fn no_worker_that_waits_is_forgotten_when_all_act_at_the_same_time() {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    const EACH: Ticket = 3000;
    let (fronts, _) = shared::<3>(&[(1, 1), (2, 1)]);
    let (bells, heard): (Vec<_>, Vec<_>) = fronts.iter().map(|_| mpsc::channel()).unzip();
    let served = [(); 2].map(|()| AtomicUsize::new(0));
    // It never comes to the time after which somebody looks without being woken.
    let clock = AtomicU64::new(SECOND);
    std::thread::scope(|scope| {
        for ((mut front, heard), seed) in fronts.into_iter().zip(heard).zip(1u64..) {
            let (bells, served, clock) = (bells.clone(), &served, &clock);
            scope.spawn(move || {
                let mut running = VecDeque::new();
                let (mut arrived, mut answered, mut random) = (0, 0, seed);
                while answered < EACH {
                    let now = clock.fetch_add(1, Ordering::Relaxed);
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let comes = arrived < EACH && random >> 63 == 0 && front.waiting() == 0;
                    if comes {
                        arrived += 1;
                        match front.arrive(facts(arrived), now) {
                            Arrival::Run(place) => running.push_back((arrived, place, false)),
                            // It has not waited.
                            Arrival::Full | Arrival::Refused => answered += 1,
                            Arrival::Wait => {}
                        }
                    } else if let Some((ticket, place, _)) = running.pop_front() {
                        served[place as usize - 1].fetch_sub(1, Ordering::SeqCst);
                        front.ended(ticket, place, Outcome::Good, now);
                        answered += 1;
                    } else if front.waiting() > 0 {
                        heard
                            .recv_timeout(Duration::from_secs(20))
                            .expect("it is woken");
                    }
                    // A request that begins to wait has looked for room itself.
                    let looks = !comes || front.is_free();
                    while looks && let Some((ticket, place)) = front.next(now) {
                        running.push_back((ticket, place, false));
                    }
                    for (_, place, is_counted) in &mut running {
                        if !std::mem::replace(is_counted, true) {
                            let others = served[*place as usize - 1].fetch_add(1, Ordering::SeqCst);
                            assert_eq!(others, 0, "one more than there may be");
                        }
                    }
                    if looks && front.wakes_others() {
                        bells
                            .iter()
                            .for_each(|bell| bell.send(()).unwrap_or_default());
                    }
                }
            });
        }
    });
}

#[test]
fn a_quick_worker_gets_requests_ahead_also_behind_those_of_others_and_takes_turns() {
    let ([mut a, mut b], _) = shared(&[(1, 1)]);
    let mut now = SECOND;
    for ticket in 100..140 {
        for front in [&mut a, &mut b] {
            assert_eq!(front.arrive(quick(ticket), now), Arrival::Run(1));
            now += 10_000;
            front.ended(ticket, 1, Outcome::Good, now);
        }
    }
    assert_eq!(a.arrive(quick(1), now), Arrival::Run(1));
    assert_eq!(b.arrive(quick(1), now), Arrival::Run(1), "ahead");
    // One that must not be repeated waits for the worker to be idle, and nothing overtakes it for long.
    assert_eq!(b.arrive(facts(2), now), Arrival::Wait);
    assert_eq!(a.arrive(quick(2), now + 1), Arrival::Run(1));
    assert_eq!(a.arrive(quick(3), now + PATIENCE + 1), Arrival::Wait);
    let late = now + PATIENCE + 2;
    a.ended(1, 1, Outcome::Good, late);
    a.ended(2, 1, Outcome::Good, late);
    assert!(
        a.next(late).is_none() && !a.wakes_others(),
        "it is not idle"
    );
    b.ended(1, 1, Outcome::Good, late);
    assert_eq!(b.next(late), Some((2, 1)));
}

#[test]
fn an_address_that_was_removed_gets_nothing_more_and_ends_what_runs_there() {
    let mut d = dispatch(&[1, 2]);
    assert_eq!(d.arrive(facts(0), 0), Arrival::Run(1));
    d.remove(1);
    assert!(!d.has(1) && d.has(2));
    let rest: Vec<_> = (1..4).map(|ticket| d.arrive(facts(ticket), 0)).collect();
    let run = Arrival::Run(2);
    assert_eq!(rest, [run, run, Arrival::Wait]);
    d.ended(0, 1, Outcome::Good, 0);
    assert_eq!(d.next(0), None);
    d.remove(2);
    d.ended(1, 2, Outcome::Good, 0);
    d.ended(2, 2, Outcome::Good, 0);
    assert_eq!((d.next(0), d.waiting(), d.running()), (None, 1, 0));
}
