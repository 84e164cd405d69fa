use std::sync::atomic::AtomicU64;

use preforkd_worker::purges::{Purges, WORDS};

use super::asked::Asked;
use super::store::{Found, Store, Stored};
use super::terms::Terms;
use crate::upstream::protocol::Protocol;

const SECOND: u64 = 1_000_000_000;

pub(super) fn purges() -> Purges {
    let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
    Purges::new(words.leak())
}

pub(super) fn asked(key: &str, fields: &[(&str, &str)]) -> Asked {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| ((*name).into(), (*value).into()));
    Asked {
        key: key.into(),
        places: [1, 2],
        fields: fields.collect(),
        stores: true,
    }
}

fn stored(asked: &Asked, purges: Purges, length: usize, terms: Terms) -> Stored {
    let values = terms.vary.iter();
    let values = values.map(|name| asked.field(name).map(<[u8]>::to_vec));
    Stored {
        message: vec![b'x'; length],
        protocol: Protocol::Http,
        fields: Vec::new(),
        came: SECOND,
        seen: purges.look(asked.places),
        values: values.collect(),
        terms,
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        age: 3,
        lifetime: 10,
        grace: 5,
        for_cookies: false,
        vary: vec![b"accept".to_vec()],
    }
}

#[test]
fn a_response_is_fresh_then_stale_then_gone() {
    let purges = purges();
    let mut store = Store::new(1 << 20);
    let asked = asked("a", &[("accept", "x")]);
    let seen = purges.look(asked.places);
    store.store(&asked, stored(&asked, purges, 10, terms()));
    let mut at = |second: u64| store.find(&asked, seen, second * SECOND);
    let asks = |found: &Found| matches!(found, Found::Nothing(Some(_)));
    assert!(matches!(at(1), Found::Fresh(_)));
    assert!(matches!(at(7), Found::Fresh(_)));
    let first = at(8);
    assert!(asks(&first));
    assert!(matches!(at(8), Found::Stale(_)));
    drop(first);
    let next = at(12);
    assert!(asks(&next), "the first has failed");
    assert!(matches!(at(12), Found::Stale(_)));
    assert!(matches!(at(13), Found::Nothing(None)));
    assert!(matches!(at(1), Found::Nothing(None)), "it is gone");
}

#[test]
fn what_was_asked_for_least_recently_goes_first() {
    let purges = purges();
    let mut store = Store::new(64 * 1024);
    assert_eq!(store.most_each(), 4096);
    let keys: Vec<Asked> = (0..40).map(|key| asked(&format!("{key}"), &[])).collect();
    let seen = purges.look(keys[0].places);
    for key in &keys {
        store.store(key, stored(key, purges, 4000, terms()));
        assert!(matches!(
            store.find(&keys[0], seen, SECOND),
            Found::Fresh(_)
        ));
    }
    let mut there = keys
        .iter()
        .map(|key| matches!(store.find(key, seen, SECOND), Found::Fresh(_)));
    assert_eq!(there.next(), Some(true));
    assert_eq!(
        there.filter(|is_there| *is_there).count(),
        64 * 1024 / 4512 - 1
    );
    store.store(&keys[1], stored(&keys[1], purges, 5000, terms()));
    assert!(matches!(
        store.find(&keys[1], seen, SECOND),
        Found::Nothing(None)
    ));
}

#[test]
fn variants_of_one_target_are_few_and_replace_each_other() {
    let purges = purges();
    let mut store = Store::new(1 << 20);
    let all: Vec<Asked> = (0..20)
        .map(|number| asked("a", &[("accept", &format!("{number}"))]))
        .collect();
    let seen = purges.look(all[0].places);
    for asked in all.iter().chain(&all) {
        store.store(asked, stored(asked, purges, 10, terms()));
    }
    let mut is_there = |asked: &Asked| matches!(store.find(asked, seen, SECOND), Found::Fresh(_));
    assert_eq!(
        all.iter().map(&mut is_there).collect::<Vec<_>>(),
        [[false; 4].as_slice(), &[true; 16]].concat()
    );
}
