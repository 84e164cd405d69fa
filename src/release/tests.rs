use std::collections::{HashSet, VecDeque};

use super::*;

fn apps(names: &[&str]) -> BTreeSet<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

fn web() -> Name {
    "web".into()
}

/// Apps that are all proven at once.
fn all(names: &[&str]) -> Parts {
    let names = names.iter().map(|name| Name::from(*name));
    names.map(|name| (name, Part::prove())).collect()
}

fn proving(generation: Generation, names: &[&str], unproven: &[&str]) -> State {
    State::Proving {
        generation,
        parts: all(names),
        unproven: apps(unproven),
        waiting: BTreeSet::new(),
        reasons: BTreeMap::new(),
    }
}

/// A master that runs generation 1 of `web` and `old`, in this state.
fn running(state: State) -> Release {
    let last = match state {
        State::Proving { generation, .. } => generation,
        _ => 1,
    };
    Release {
        state,
        current: Some((1, apps(&["old", "web"]))),
        last,
        again: false,
        outcome: None,
    }
}

/// One fact of each kind, about generation 2 where it is about one.
fn facts() -> Vec<Fact> {
    vec![
        Fact::Requested,
        Fact::Prepared(all(&["new", "web"])),
        Fact::NotPrepared("line 3".into()),
        Fact::Reason(web(), 2, "it exits".into()),
        Fact::Proven(web(), 2),
        Fact::Failed(web(), 2),
        Fact::Proven("old".into(), 2),
        Fact::RolledOut,
        Fact::Stuck,
        Fact::Postponed(web(), 2),
        Fact::Stopping,
    ]
}

/// `new` has proven generation 2, `old` is ending, and `web` waits for that.
fn displacing() -> State {
    State::Proving {
        generation: 2,
        parts: [
            ("new".into(), Part::prove()),
            ("old".into(), displaced(&["new"])),
            (web(), after(&["new", "old"])),
        ]
        .into(),
        unproven: apps(&["old"]),
        waiting: apps(&["web"]),
        reasons: BTreeMap::new(),
    }
}

/// The next state, whether another release is wanted then, and the actions, in short form.
fn step(mut release: Release, fact: Fact) -> String {
    let actions = release.handle(fact);
    let state = match &release.state {
        State::Idle => "idle".to_owned(),
        State::Preparing => "preparing".to_owned(),
        State::Proving {
            generation,
            unproven,
            reasons,
            ..
        } => {
            let left = unproven
                .iter()
                .map(|app| &**app)
                .collect::<Vec<_>>()
                .join("+");
            let why = if reasons.is_empty() {
                ""
            } else {
                " with a reason"
            };
            format!("proving {generation} ({left}){why}")
        }
        State::RollingOut { generation } => format!("rolling out {generation}"),
        State::Stopped => "stopped".to_owned(),
    };
    let again = if release.again { ", again" } else { "" };
    let words = actions.iter().map(|action| match action {
        Action::Prepare => "prepare".to_owned(),
        Action::Abandon => "abandon".to_owned(),
        Action::Propose(generation, apps) => format!("propose {generation} to {}", apps.len()),
        Action::Displace(generation, app) => format!("displace {app} by {generation}"),
        Action::Commit(app) => format!("commit {app}"),
        Action::Install(generation, app) => format!("install {generation} in {app}"),
        Action::Postpone(generation, app) => format!("postpone {generation} of {app}"),
        Action::Remove(app) => format!("remove {app}"),
        Action::RollBack(app) => format!("roll back {app}"),
        Action::TakeOver(generation) => format!("take over {generation}"),
        Action::Discard => "discard".to_owned(),
        Action::Done(generation) => format!("done {generation}"),
        Action::RolledBack(reason) => format!("rolled back: {reason}"),
        Action::CannotStart(reason) => format!("cannot start: {reason}"),
    });
    let actions = words.collect::<Vec<_>>().join(", ");
    format!("{state}{again} [{actions}]")
}

/// The whole table: each state with each fact, in a master that runs generation 1 of `old` and `web`, where the candidate
/// changes `web`, adds `new` and removes `old`.
#[test]
fn each_pair_of_state_and_fact_is_decided() {
    let both = proving(2, &["new", "web"], &["new", "web"]);
    let last = proving(2, &["new", "web"], &["web"]);
    let table: [(State, [&str; 11]); 7] = [
        (
            State::Idle,
            [
                "preparing [prepare]",
                "idle [discard]",
                "idle [discard]",
                "idle []",
                "idle []",
                "idle []",
                "idle []",
                "idle []",
                "idle []",
                "idle []",
                "stopped []",
            ],
        ),
        (
            State::Preparing,
            [
                "preparing, again []",
                "proving 2 (new+web) [propose 2 to 2]",
                "idle [discard, roll back old, roll back web, rolled back: line 3]",
                "preparing []",
                "preparing []",
                "preparing []",
                "preparing []",
                "preparing []",
                "preparing []",
                "preparing []",
                "stopped [abandon]",
            ],
        ),
        (
            both,
            [
                "proving 2 (new+web), again []",
                "proving 2 (new+web) [discard]",
                "proving 2 (new+web) [discard]",
                "proving 2 (new+web) with a reason []",
                "proving 2 (new) []",
                "idle [remove new, discard, roll back old, roll back web, rolled back: app=web: its first worker could not be started]",
                "proving 2 (new+web) []",
                "proving 2 (new+web) []",
                "proving 2 (new+web) []",
                "proving 2 (new+web) []",
                "stopped [discard]",
            ],
        ),
        (
            last,
            [
                "proving 2 (web), again []",
                "proving 2 (web) [discard]",
                "proving 2 (web) [discard]",
                "proving 2 (web) with a reason []",
                "rolling out 2 [commit new, commit web, remove old, take over 2]",
                "idle [remove new, discard, roll back old, roll back web, rolled back: app=web: its first worker could not be started]",
                "proving 2 (web) []",
                "proving 2 (web) []",
                "proving 2 (web) []",
                "proving 2 (web) []",
                "stopped [discard]",
            ],
        ),
        (
            displacing(),
            [
                "proving 2 (old), again []",
                "proving 2 (old) [discard]",
                "proving 2 (old) [discard]",
                "proving 2 (old) with a reason []",
                "proving 2 (old) []",
                "idle [remove new, discard, roll back old, roll back web, rolled back: app=web: its first worker could not be started]",
                "proving 2 (web) [propose 2 to 1]",
                "proving 2 (old) []",
                "proving 2 (old) []",
                "proving 2 (old) []",
                "stopped [discard]",
            ],
        ),
        (
            State::RollingOut { generation: 1 },
            [
                "rolling out 1, again []",
                "rolling out 1 [discard]",
                "rolling out 1 [discard]",
                "rolling out 1 []",
                "rolling out 1 []",
                "rolling out 1 []",
                "rolling out 1 []",
                "idle [done 1]",
                "rolling out 1 []",
                "rolling out 1 []",
                "stopped []",
            ],
        ),
        (
            State::Stopped,
            [
                "stopped []",
                "stopped [discard]",
                "stopped [discard]",
                "stopped []",
                "stopped []",
                "stopped []",
                "stopped []",
                "stopped []",
                "stopped []",
                "stopped []",
                "stopped []",
            ],
        ),
    ];
    for (state, expected) in table {
        for (fact, expected) in facts().into_iter().zip(expected) {
            let found = step(running(state.clone()), fact.clone());
            assert_eq!(found, expected, "{state:?} with {fact:?}");
        }
    }
}

/// The first start differs: there is nothing to fall back to, and each app continues as soon as it can.
#[test]
fn a_first_start_keeps_nothing_and_does_not_wait_for_other_apps() {
    let first = |state| Release {
        state,
        current: None,
        ..running(State::Idle)
    };
    let release = || first(proving(1, &["queue", "web"], &["queue", "web"]));
    let stopped = "stopped [discard, cannot start: line 3]";
    assert_eq!(
        step(Release::new(), Fact::NotPrepared("line 3".into())),
        stopped
    );
    assert_eq!(
        step(release(), Fact::Proven(web(), 1)),
        "proving 1 (queue) [commit web]"
    );
    let failed = "stopped [discard, cannot start: app=web: its first worker could not be started]";
    assert_eq!(step(release(), Fact::Failed(web(), 1)), failed);
    let last = first(proving(1, &["queue", "web"], &["web"]));
    assert_eq!(
        step(last, Fact::Proven(web(), 1)),
        "rolling out 1 [commit web, take over 1]"
    );
}

#[test]
fn what_is_requested_during_a_first_start_does_not_wait_for_what_cannot_start_yet() {
    let first = |again| Release {
        current: None,
        again,
        ..running(proving(1, &["queue", "web"], &["queue", "web"]))
    };
    let postponed = || Fact::Postponed(web(), 1);
    let nothing = "proving 1 (queue+web) []";
    assert_eq!(step(first(false), postponed()), nothing);
    assert_eq!(
        step(first(true), postponed()),
        "proving 1 (queue), again [postpone 1 of web]"
    );
    let mut release = first(true);
    let _ = release.handle(Fact::Proven("queue".into(), 1));
    assert_eq!(
        step(release.clone(), postponed()),
        "rolling out 1, again [postpone 1 of web, take over 1]"
    );
    let _ = release.handle(postponed());
    assert_eq!(step(release, Fact::Stuck), "preparing [prepare]");
    // Another one is started when it is proven.
    let mut release = first(true);
    if let State::Proving { parts, waiting, .. } = &mut release.state {
        parts.insert("late".into(), after(&["web"]));
        waiting.insert("late".into());
    }
    assert_eq!(
        step(release, postponed()),
        "proving 1 (queue+web), again []"
    );
}

fn after(names: &[&str]) -> Part {
    Part::Prove { after: apps(names) }
}

fn displaced(names: &[&str]) -> Part {
    Part::Displace { after: apps(names) }
}

/// What is started when, from the preparation to the commit, if all apps prove the candidate in the order in which they may.
fn walk(mut release: Release, parts: &[(&str, Part)]) -> Vec<String> {
    let parts = parts.iter().cloned();
    let parts = parts.map(|(name, part)| (name.into(), part)).collect();
    let mut facts = VecDeque::from([Fact::Prepared(parts)]);
    let mut steps = Vec::new();
    while let Some(fact) = facts.pop_front() {
        let actions = release.clone().handle(fact.clone());
        for action in &actions {
            match action {
                Action::Propose(generation, names) => {
                    let names = names.iter().cloned();
                    facts.extend(names.map(|name| Fact::Proven(name, *generation)));
                }
                Action::Displace(generation, name) => {
                    facts.push_back(Fact::Proven(name.clone(), *generation));
                }
                _ => {}
            }
        }
        steps.push(step(release.clone(), fact.clone()));
        let _ = release.handle(fact);
    }
    steps
}

#[test]
fn an_app_waits_for_those_before_it() {
    let parts = [
        ("db", Part::prove()),
        ("old", after(&["db", "unknown"])),
        ("web", after(&["db", "old"])),
    ];
    assert_eq!(
        walk(running(State::Preparing), &parts),
        [
            "proving 2 (db) [propose 2 to 1]",
            "proving 2 (old) [propose 2 to 1]",
            "proving 2 (web) [propose 2 to 1]",
            "rolling out 2 [commit db, commit old, commit web, take over 2]",
        ]
    );
    let mut release = running(State::Preparing);
    let parts = parts.map(|(name, part)| (name.into(), part)).into();
    let _ = release.handle(Fact::Prepared(parts));
    assert_eq!(
        step(release, Fact::Failed("db".into(), 2)),
        "idle [remove db, discard, roll back old, roll back web, rolled back: app=db: its first worker could not be started]",
        "those that wait are not started"
    );
}

#[test]
fn an_app_is_displaced_before_those_that_wait_for_it_and_removed_at_the_end() {
    let parts = [
        ("new", Part::prove()),
        ("old", displaced(&["new"])),
        ("web", after(&["new", "old"])),
    ];
    assert_eq!(
        walk(running(State::Preparing), &parts),
        [
            "proving 2 (new) [propose 2 to 1]",
            "proving 2 (old) [displace old by 2]",
            "proving 2 (web) [propose 2 to 1]",
            "rolling out 2 [commit new, commit web, remove old, take over 2]",
        ]
    );
    // Together with others, and before an app that takes over without proof.
    let parts = [
        ("new", Part::Install),
        ("old", displaced(&[])),
        ("web", Part::prove()),
    ];
    assert_eq!(
        walk(running(State::Preparing), &parts),
        [
            "proving 2 (old+web) [displace old by 2, propose 2 to 1]",
            "proving 2 (web) []",
            "rolling out 2 [install 2 in new, commit web, remove old, take over 2]",
        ]
    );
    let mut failing = running(displacing());
    let _ = failing.handle(Fact::Proven("old".into(), 2));
    assert_eq!(
        step(failing, Fact::Failed(web(), 2)),
        "idle [remove new, discard, roll back old, roll back web, rolled back: app=web: its first worker could not be started]",
        "it is not removed"
    );
}

/// One that was removed before and still ends is not in the running generation.
#[test]
fn an_app_that_was_removed_before_is_waited_for_and_neither_removed_nor_rolled_back() {
    let parts = [
        ("gone", displaced(&[])),
        ("old", Part::Keep),
        ("web", after(&["gone"])),
    ];
    assert_eq!(
        walk(running(State::Preparing), &parts),
        [
            "proving 2 (gone) [displace gone by 2]",
            "proving 2 (web) [propose 2 to 1]",
            "rolling out 2 [commit web, take over 2]",
        ]
    );
    let mut release = running(State::Preparing);
    let parts = parts.map(|(name, part)| (name.into(), part)).into();
    let _ = release.handle(Fact::Prepared(parts));
    let _ = release.handle(Fact::Proven("gone".into(), 2));
    assert_eq!(
        step(release, Fact::Failed(web(), 2)),
        "idle [discard, roll back old, roll back web, rolled back: app=web: its first worker could not be started]"
    );
}

#[test]
fn an_app_that_is_kept_or_installed_proves_nothing() {
    let parts = [
        ("new", Part::Install),
        ("old", Part::Keep),
        ("web", after(&["new", "old"])),
    ];
    assert_eq!(
        walk(running(State::Preparing), &parts),
        [
            "proving 2 (web) [propose 2 to 1]",
            "rolling out 2 [install 2 in new, commit web, take over 2]",
        ]
    );
    assert_eq!(
        walk(Release::new(), &parts),
        [
            "proving 1 (web) [install 1 in new, propose 1 to 1]",
            "rolling out 1 [commit web, take over 1]",
        ]
    );
    assert_eq!(
        walk(running(State::Preparing), &[("old", Part::Keep)]),
        ["rolling out 2 [remove web, take over 2]"]
    );
    assert_eq!(
        walk(Release::new(), &[("new", Part::Install)]),
        ["rolling out 1 [install 1 in new, take over 1]"]
    );
}

#[test]
fn a_waiting_request_begins_when_the_release_is_over_or_stuck() {
    let again = |state| Release {
        again: true,
        ..running(state)
    };
    let rolling = || again(State::RollingOut { generation: 1 });
    assert_eq!(
        step(rolling(), Fact::RolledOut),
        "preparing [done 1, prepare]"
    );
    assert_eq!(step(rolling(), Fact::Stuck), "preparing [prepare]");
    let failed = step(again(State::Preparing), Fact::NotPrepared("line 3".into()));
    assert_eq!(
        failed,
        "preparing [discard, roll back old, roll back web, rolled back: line 3, prepare]"
    );
    assert_eq!(step(rolling(), Fact::Stopping), "stopped []");
}

#[test]
fn the_last_reason_of_an_app_is_why_it_failed() {
    let mut release = running(proving(2, &["web"], &["web"]));
    for reason in ["its template died", "it exits"] {
        let _ = release.handle(Fact::Reason(web(), 2, reason.into()));
    }
    let _ = release.handle(Fact::Reason(web(), 1, "an old worker dies".into()));
    let _ = release.handle(Fact::Reason("new".into(), 2, "another app".into()));
    let _ = release.handle(Fact::Failed(web(), 2));
    let reason = "app=web: it exits".to_owned();
    assert_eq!(release.outcome(), Some(&Outcome::RolledBack(reason)));
}

#[test]
fn a_fact_about_another_generation_changes_nothing() {
    for fact in [
        Fact::Proven(web(), 1),
        Fact::Failed(web(), 1),
        Fact::Failed(web(), 3),
    ] {
        let release = running(proving(2, &["web"], &["web"]));
        let mut after = release.clone();
        assert_eq!(after.handle(fact), []);
        assert_eq!(after, release);
    }
}

/// All histories of up to eight facts: generations are never reused, each candidate is committed or rolled back once, and what the
/// master opened for it is kept or discarded once.
#[test]
fn every_walk_keeps_the_transaction_whole() {
    let mut seen = HashSet::new();
    let mut walks = vec![(Release::new(), 0u32, Walk::default())];
    let mut steps = 0u64;
    while let Some((release, depth, walk)) = walks.pop() {
        if depth == 8 || !seen.insert(format!("{release:?} {walk:?} {depth}")) {
            continue;
        }
        let generation = release.candidate().unwrap_or(release.last);
        let facts = [
            Fact::Requested,
            Fact::Prepared(all(&["new", "web"])),
            Fact::Prepared(all(&["web"])),
            Fact::Prepared(BTreeMap::from([
                ("new".into(), after(&["web"])),
                (web(), Part::prove()),
            ])),
            Fact::Prepared(BTreeMap::from([
                ("new".into(), Part::Install),
                (web(), Part::Keep),
            ])),
            Fact::Prepared(BTreeMap::from([
                ("new".into(), displaced(&[])),
                (web(), after(&["new"])),
            ])),
            Fact::NotPrepared("line 3".into()),
            Fact::Proven(web(), generation),
            Fact::Proven("new".into(), generation),
            Fact::Failed(web(), generation),
            Fact::RolledOut,
            Fact::Stuck,
            Fact::Postponed(web(), generation),
            Fact::Stopping,
        ];
        for fact in facts {
            let mut next = release.clone();
            let mut walk = walk.clone();
            let was_preparing = *release.state() == State::Preparing;
            // The master reports the end of a preparation only during one, or during one that was under way when it stopped.
            if matches!(fact, Fact::Prepared(_) | Fact::NotPrepared(_)) && !was_preparing {
                continue;
            }
            for action in next.handle(fact) {
                walk.take(&action);
            }
            assert!(next.last >= release.last, "generations only grow");
            assert_eq!(walk.proposed, next.candidate(), "one candidate at a time");
            let preparing = *next.state() == State::Preparing;
            assert!(
                !preparing || walk.preparing,
                "what is being prepared was begun"
            );
            assert!(next.current() <= Some(next.last));
            steps += 1;
            walks.push((next, depth + 1, walk));
        }
    }
    assert!(steps > 1000, "{steps} steps");
}

/// What the master was told to do so far.
#[derive(Debug, Clone)]
struct Walk {
    preparing: bool,
    proposed: Option<Generation>,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            preparing: true,
            proposed: None,
        }
    }
}

impl Walk {
    fn take(&mut self, action: &Action) {
        match action {
            Action::Prepare => {
                assert!(!self.preparing && self.proposed.is_none(), "one at a time");
                self.preparing = true;
            }
            Action::Abandon => {
                assert!(self.preparing);
                self.preparing = false;
            }
            Action::Propose(generation, _)
            | Action::Displace(generation, _)
            | Action::Install(generation, _)
            | Action::Postpone(generation, _) => {
                let begins = self.preparing && self.proposed.is_none();
                assert!(begins || self.proposed == Some(*generation));
                (self.preparing, self.proposed) = (false, Some(*generation));
            }
            Action::TakeOver(generation) => {
                let proposed = self.proposed.take();
                let nothing_to_prove = self.preparing && proposed.is_none();
                assert!(nothing_to_prove || proposed == Some(*generation));
                self.preparing = false;
            }
            Action::Discard => {
                assert!(
                    self.preparing || self.proposed.is_some(),
                    "there is something to discard"
                );
                (self.preparing, self.proposed) = (false, None);
            }
            _ => {}
        }
    }
}
