//! The process that keeps certificates: what it finds is told to the workers of the front before the next one starts.

use std::collections::{BTreeMap, VecDeque};

use preforkd_worker::acme::Challenges;

use super::*;
use crate::plan::{Acme, Secret};

/// What a process does that the master starts.
#[derive(Debug, Clone)]
pub(super) enum Keeps {
    /// It ends after a second, having found these challenges.
    Finds(String),
    /// It ends after a second, with status 0 or not, and has found nothing.
    Ends(bool),
    /// It cannot be started.
    Cannot,
}

/// Whether certificates are kept, and how.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// What configurations want from now on.
    pub wanted: Option<Acme>,
    /// What the next processes do; those that follow run until they are ended.
    pub script: VecDeque<Keeps>,
    /// Each start: when, and what the workers of the front had been told.
    pub started: Vec<(Instant, Option<String>)>,
    /// What the processes that run will have found.
    pub finds: BTreeMap<Pid, Option<Secret>>,
    /// What the workers of the front were told.
    pub told: Vec<String>,
}

const SECOND: u64 = 1000;

fn acme(host: &str) -> Acme {
    Acme {
        program: "/usr/bin/preforkd-front".into(),
        user: None,
        state: "/var/lib/preforkd".into(),
        directory: "https://ca.example/".into(),
        ca: None,
        email: None,
        eab: None,
        kinds: Vec::new(),
        sites: [("shop".into(), vec![host.into()])].into(),
    }
}

fn challenges(token: &str) -> String {
    let challenges = Challenges {
        http: [(token.into(), "answer".into())].into(),
        tls: BTreeMap::new(),
    };
    challenges.encode().expect("texts")
}

/// A master that runs two workers, and takes in a configuration that wants certificates.
fn history(script: &[Keeps]) -> History {
    let mut history = History::new(&[("web", Written::good(2))]);
    history.pass(10 * SECOND);
    history.kernel().keeping.script = script.iter().cloned().collect();
    history.want(Some(acme("shop.example")));
    history
}

impl History {
    /// A reload with this.
    fn want(&mut self, wanted: Option<Acme>) {
        self.kernel().keeping.wanted = wanted;
        self.send(Signal::SIGHUP);
        self.pass(0);
    }

    /// The seconds between the starts.
    fn pauses(&mut self) -> Vec<u64> {
        let started = &self.kernel().keeping.started;
        let pauses = started.windows(2).map(|two| two[1].0 - two[0].0);
        pauses.map(|pause| pause.as_secs()).collect()
    }

    fn keepers(&mut self) -> usize {
        self.kernel().keeping.finds.len()
    }
}

#[test]
fn what_is_found_is_told_before_the_next_one_starts() {
    let (one, none) = (challenges("one"), Challenges::default().encode());
    let none = none.expect("texts");
    let mut history = history(&[Keeps::Finds(one.clone()), Keeps::Finds(none.clone())]);
    history.pass(60 * SECOND);
    let keeping = &history.kernel().keeping;
    assert_eq!(keeping.told, [one.clone(), none.clone()]);
    let known: Vec<_> = keeping
        .started
        .iter()
        .map(|(_, told)| told.clone())
        .collect();
    assert_eq!(known, [None, Some(one), Some(none)]);
    assert_eq!((history.pauses(), history.keepers()), (vec![1, 1], 1));
}

#[test]
fn one_that_fails_is_started_again_at_growing_intervals_until_one_succeeds() {
    let fails = [
        Keeps::Ends(false),
        Keeps::Cannot,
        // Neither nothing nor what was not asked for is a result.
        Keeps::Ends(true),
        Keeps::Finds("{}".into()),
        Keeps::Finds(challenges("one")),
        // It is to end when others are to be told.
        Keeps::Finds(challenges("one")),
    ];
    let mut history = history(&fails);
    history.pass(120 * SECOND);
    // One that cannot be started has taken no time; what has succeeded begins anew.
    assert_eq!(history.pauses(), [2, 2, 5, 9, 1, 2]);
    assert_eq!(history.kernel().keeping.told, [challenges("one")]);
    assert_eq!(history.keepers(), 1);
}

#[test]
fn the_intervals_have_an_end() {
    let mut history = history(&vec![Keeps::Ends(false); 30]);
    history.pass(3 * 3600 * SECOND);
    let longest = history.pauses().into_iter().max();
    assert_eq!(longest, Some(601));
}

#[test]
fn a_reload_ends_it_only_if_it_is_to_do_something_else() {
    let mut history = history(&[]);
    history.pass(10 * SECOND);
    let process = |history: &mut History| {
        let all: Vec<_> = history.kernel().keeping.finds.keys().copied().collect();
        assert_eq!(all.len(), 1);
        all[0]
    };
    let first = process(&mut history);
    history.want(Some(acme("shop.example")));
    history.pass(10 * SECOND);
    assert_eq!(process(&mut history), first);
    history.want(Some(acme("other.example")));
    history.pass(10 * SECOND);
    assert_ne!(process(&mut history), first);
    assert_eq!(history.kernel().keeping.started.len(), 2);
    history.want(None);
    history.pass(10 * SECOND);
    assert_eq!(history.keepers(), 0);
}

#[test]
fn a_stop_waits_for_none() {
    let mut history = history(&[Keeps::Ends(false)]);
    history.pass(10 * SECOND);
    assert_eq!(history.keepers(), 1);
    history.send(Signal::SIGTERM);
    history.pass(10 * SECOND);
    assert!(history.outcome.is_some());
    assert_eq!(history.kernel().keeping.started.len(), 2);
}
