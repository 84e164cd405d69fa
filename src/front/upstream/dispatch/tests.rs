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
};

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
    let places: Vec<_> = (0..4).map(|ticket| d.arrive(ticket, 0)).collect();
    let run = Arrival::Run;
    assert_eq!(places, [run(1), run(2), run(1), run(2)]);
    for ticket in 4..7 {
        assert_eq!(d.arrive(ticket, 0), Arrival::Wait);
    }
    assert_eq!(d.arrive(7, 0), Arrival::Full);
    assert_eq!((d.next(0), d.waiting()), (None, 3));
    d.ended(2, Outcome::Good, 0);
    // One that comes now does not overtake them.
    assert_eq!(d.arrive(8, 0), Arrival::Full);
    assert_eq!((d.next(0), d.next(0)), (Some((4, 2)), None));
    d.ended(1, Outcome::Good, 0);
    d.ended(1, Outcome::Good, 0);
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
    let places: Vec<_> = (0..4).map(|ticket| d.arrive(ticket, 0)).collect();
    let run = Arrival::Run;
    // No more than the upstream allows, whatever the address says.
    assert_eq!(places, [run(1), run(2), run(2), Arrival::Wait]);
    d.set(&[(1, 2), (2, 9)]);
    assert_eq!((d.next(0), d.next(0)), (Some((3, 1)), None));
    d.set(&[(1, 1), (2, 9)]);
    assert_eq!(d.arrive(4, 0), Arrival::Wait);
    d.ended(1, Outcome::Good, 0);
    assert_eq!(d.next(0), None, "one still runs there");
    d.ended(1, Outcome::Good, 0);
    assert_eq!(d.next(0), Some((4, 1)));
}

#[test]
fn addresses_take_turns_when_nothing_runs() {
    let mut d = dispatch(&[1, 2, 3]);
    let mut order = Vec::new();
    for ticket in 0..6 {
        let Arrival::Run(place) = d.arrive(ticket, 0) else {
            panic!("all are free");
        };
        d.ended(place, Outcome::Good, 0);
        order.push(place);
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn who_waits_too_long_is_told() {
    let mut d = dispatch(&[]);
    assert_eq!(d.deadline(), NEVER);
    assert_eq!(d.arrive(1, 0), Arrival::Wait);
    assert_eq!(d.arrive(2, SECOND), Arrival::Wait);
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
    assert_eq!(d.arrive(1, 0), Arrival::Wait);
    d.set(&unlimited(&[7]));
    assert_eq!(d.next(0), Some((1, 7)));
    d.set(&unlimited(&[8]));
    assert!(!d.has(7) && d.has(8));
    assert_eq!(d.arrive(2, 0), Arrival::Run(8));
    assert_eq!(d.running(), 2);
    d.ended(7, Outcome::Bad, 0);
    assert_eq!(d.running(), 1);
    d.set(&unlimited(&[]));
    assert_eq!(d.arrive(3, 0), Arrival::Wait);
}

#[test]
fn an_address_that_fails_is_left_alone_and_tried_by_one() {
    let mut d = dispatch(&[1, 2]);
    assert_eq!(d.arrive(1, 0), Arrival::Run(1));
    assert_eq!(d.ended(1, Outcome::Bad, 0), Change::Away);
    assert_eq!(d.again(1, 1, 0), Arrival::Run(2));
    assert_eq!(d.arrive(2, 0), Arrival::Run(2));
    assert_eq!(d.arrive(3, 0), Arrival::Wait, "the other one is full");
    assert_eq!(d.next(5 * SECOND - 1), None);
    assert_eq!(d.next(5 * SECOND), Some((3, 1)), "one tries it");
    assert_eq!(d.arrive(4, 5 * SECOND), Arrival::Wait);
    assert_eq!(d.ended(1, Outcome::Good, 6 * SECOND), Change::Back);
    assert_eq!(d.next(6 * SECOND), Some((4, 1)));
}

#[test]
fn nothing_goes_to_an_address_that_is_closed_until_it_is_time_to_try_it_again() {
    let mut d = dispatch(&[1]);
    assert_eq!(d.arrive(7, 0), Arrival::Run(1));
    d.closed(1, SECOND);
    d.ended(1, Outcome::Unknown, 0);
    assert_eq!(d.again(7, 1, 0), Arrival::Wait);
    assert_eq!(d.arrive(8, 0), Arrival::Wait);
    assert_eq!((d.next(0), d.deadline()), (None, SECOND));
    assert!(!d.opened(SECOND - 1));
    // Another one comes meanwhile.
    d.set(&unlimited(&[1, 2]));
    assert_eq!((d.next(0), d.next(0)), (Some((7, 2)), Some((8, 2))));
    assert_eq!(d.deadline(), NEVER);
    assert_eq!(d.arrive(9, 0), Arrival::Wait);
    assert!(d.opened(SECOND) && !d.opened(SECOND));
    assert_eq!(d.next(SECOND), Some((9, 1)));
}

#[test]
fn where_all_have_failed_they_are_tried_all_the_same() {
    let mut d = dispatch(&[1]);
    assert_eq!(d.arrive(1, 0), Arrival::Run(1));
    assert_eq!(d.ended(1, Outcome::Bad, 0), Change::Away);
    // Also the same one, where there is no other.
    assert_eq!(d.again(1, 1, 0), Arrival::Run(1));
    assert_eq!(d.arrive(2, 0), Arrival::Run(1));
}

#[test]
fn what_is_sent_again_goes_before_what_is_new() {
    let mut d = dispatch(&[1]);
    assert_eq!(d.arrive(1, 0), Arrival::Run(1));
    assert_eq!(d.arrive(2, 0), Arrival::Run(1));
    assert_eq!(d.arrive(3, 0), Arrival::Wait);
    d.ended(1, Outcome::Unknown, 0);
    assert_eq!(d.again(1, 1, 0), Arrival::Run(1));
    d.set(&unlimited(&[]));
    d.ended(1, Outcome::Unknown, 0);
    assert_eq!(d.again(2, 1, SECOND), Arrival::Wait);
    assert_eq!(d.deadline(), 10 * SECOND);
    d.set(&unlimited(&[5]));
    assert_eq!((d.next(0), d.next(0)), (Some((2, 5)), Some((3, 5))));
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
                    match d.arrive(next, now) {
                        Arrival::Run(place) => running.push((next, place)),
                        Arrival::Wait => waiting.push(next),
                        Arrival::Full => prop_assert!(waiting.len() >= LIMITS.queue_length),
                    }
                }
                Act::End(n, outcome) if n < running.len() => {
                    let (_, place) = running.swap_remove(n);
                    d.ended(place, outcome, now);
                }
                Act::Again(n) if n < running.len() => {
                    let (ticket, place) = running.swap_remove(n);
                    d.ended(place, Outcome::Bad, now);
                    match d.again(ticket, place, now) {
                        Arrival::Run(other) => {
                            prop_assert!(other != place || listed.iter().all(|&p| p == place));
                            running.push((ticket, other));
                        }
                        Arrival::Wait => waiting.push(ticket),
                        Arrival::Full => prop_assert!(false, "it was in already"),
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
}
