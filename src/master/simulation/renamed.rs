//! Apps that need the same thing, such as a port, one after the other.

use super::*;

/// A program of which there must not be two at a time, whatever the name of its app.
fn alone(code: Code) -> Written {
    Written {
        code,
        replace: Replace::StopFirst,
        listeners: 0,
        ..Written::good(1)
    }
}

/// A master with `queue` and such a `web`.
fn running() -> History {
    let mut history = History::new(&[("queue", Written::good(2)), ("web", alone(Code::Good))]);
    history.pass(5000);
    history
}

/// The configuration gets `api` in the place of `web`, or `web` again.
fn rename(history: &mut History, to: &str, code: Code) {
    let (from, to) = match to {
        "web" => (0, 2),
        _ => (2, 0),
    };
    history.take(&Step::Write(to, Some(alone(code))));
    history.take(&Step::Write(from, None));
}

/// Time passes, and at no time two of these apps have a process.
fn pass(history: &mut History, milliseconds: u64) {
    let until = history.kernel().now + Duration::from_millis(milliseconds);
    history.kernel().until = until;
    history.kernel().spins = 0;
    while history.outcome.is_none() {
        history.turn();
        let processes = &history.master.turn.world.processes;
        let alone = processes.values().filter(|p| {
            let counts = slot(p).is_some() && p.alone || matches!(p.kind, Kind::Rest(_));
            p.dead.is_none() && counts && &*p.app != "queue"
        });
        let apps: BTreeSet<_> = alone.map(|process| &process.app).collect();
        assert!(apps.len() <= 1, "{processes:?}");
        if history.kernel().idle {
            return;
        }
    }
}

fn living(history: &mut History, name: &str) -> usize {
    let processes = history.kernel().processes.values();
    let living = processes.filter(|p| &*p.app == name && p.dead.is_none() && !p.signalled);
    living.count()
}

fn web_processes(history: &mut History) -> BTreeSet<Pid> {
    let processes = history.kernel().processes.iter();
    let web = processes.filter(|(_, process)| &*process.app == "web");
    web.map(|(pid, _)| *pid).collect()
}

#[test]
fn an_app_is_renamed() {
    let mut history = running();
    rename(&mut history, "api", Code::Good);
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 10_000);
    let done = release::Outcome::Done(2);
    assert_eq!(history.master.release.outcome(), Some(&done));
    assert_eq!(living(&mut history, "api"), 1);
    assert_eq!(living(&mut history, "web"), 0);
}

fn is_rolled_back(history: &History, because: &str) {
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(why)) if why.contains(because)),
        "{outcome:?}"
    );
}

#[test]
fn the_old_name_serves_again_if_the_new_one_is_not_required_and_fails() {
    let mut history = running();
    let new = Written {
        required: false,
        ..alone(Code::Broken)
    };
    history.take(&Step::Write(0, Some(new)));
    history.take(&Step::Write(2, None));
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 10_000);
    is_rolled_back(&history, "app=api");
    assert_eq!(living(&mut history, "web"), 1);
    assert_eq!(living(&mut history, "api"), 0);
}

#[test]
fn the_old_name_does_not_end_for_a_new_one_that_is_known_not_to_start() {
    let mut history = running();
    assert_eq!(living(&mut history, "web"), 1);
    let web = web_processes(&mut history);
    let new = Written {
        required: false,
        missing: true,
        ..alone(Code::Good)
    };
    history.take(&Step::Write(0, Some(new)));
    history.take(&Step::Write(2, None));
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 10_000);
    is_rolled_back(&history, "no folder of api");
    assert_eq!(web_processes(&mut history), web);
}

#[test]
fn the_old_name_serves_again_if_the_new_one_fails() {
    // In the last case another app fails when the new one has proven the generation.
    for (code, queue) in [
        (Code::Broken, Code::Good),
        (Code::NeverReady, Code::Good),
        (Code::IgnoresSignals, Code::NeverReady),
    ] {
        let mut history = running();
        rename(&mut history, "api", code);
        history.take(&Step::Write(1, Some(alone(queue))));
        history.take(&Step::Signal(Signal::SIGHUP));
        pass(&mut history, 150_000);
        let outcome = history.master.release.outcome();
        assert!(
            matches!(outcome, Some(release::Outcome::RolledBack(_))),
            "{outcome:?}"
        );
        assert_eq!(living(&mut history, "web"), 1, "{code:?}");
        assert_eq!(living(&mut history, "api"), 0);
    }
}

#[test]
fn the_failure_of_another_app_ends_nothing() {
    let mut history = running();
    let before = history.nth(0);
    let web = |history: &mut History| {
        let mut processes = history.kernel().processes.iter();
        processes
            .find(|(_, p)| &*p.app == "web")
            .map(|(&pid, _)| pid)
    };
    let worker = web(&mut history);
    assert!(before.is_some() && worker.is_some());
    rename(&mut history, "api", Code::Good);
    let broken = Written {
        code: Code::Broken,
        ..Written::good(2)
    };
    history.take(&Step::Write(1, Some(broken)));
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 10_000);
    assert_eq!(web(&mut history), worker);
    assert_eq!(living(&mut history, "api"), 0);
}

#[test]
fn one_that_a_command_has_stopped_has_ended_before_a_reload_starts_another() {
    let mut history = History::new(&[
        ("queue", Written::good(2)),
        ("web", alone(Code::IgnoresSignals)),
    ]);
    history.pass(5000);
    history.take(&Step::Request("stop web"));
    history.take(&Step::Write(0, Some(alone(Code::Good))));
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 60_000);
    assert_eq!(living(&mut history, "api"), 1);
    assert_eq!(living(&mut history, "web"), 0);
}

#[test]
fn one_that_failed_has_ended_before_the_old_name_serves_again_even_if_the_next_reload_fails_too() {
    let mut history = running();
    rename(&mut history, "api", Code::IgnoresSignals);
    history.take(&Step::Write(1, Some(alone(Code::Broken))));
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 1000);
    rename(&mut history, "web", Code::Good);
    let broken = Written {
        code: Code::Broken,
        ..Written::good(2)
    };
    history.take(&Step::Write(1, Some(broken)));
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 1000);
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(_))),
        "{outcome:?}"
    );
    assert_eq!(history.master.release.next(), 4, "both have failed");
    let mut processes = history.kernel().processes.values();
    assert!(
        processes.any(|process| &*process.app == "api"),
        "it goes on"
    );
    pass(&mut history, 100_000);
    assert_eq!(living(&mut history, "web"), 1);
}

#[derive(Debug, Clone)]
enum Turn {
    Rename(bool, Code),
    Other(Step),
}

fn turn() -> impl Strategy<Value = Turn> {
    let code = prop_oneof![
        4 => Just(Code::Good),
        1 => Just(Code::Broken),
        1 => Just(Code::NeverReady),
        1 => Just(Code::IgnoresSignals),
    ];
    // A command that starts one of the two names leaves the other one as it runs.
    let other = prop_oneof![
        4 => Just(Step::Signal(Signal::SIGHUP)),
        1 => Just(Step::Signal(Signal::SIGWINCH)),
        1 => Just(Step::Request("stop web")),
        1 => Just(Step::Request("reload")),
        1 => any::<bool>().prop_map(Step::Spoil),
        2 => (0..6usize).prop_map(Step::Crash),
        1 => (0..4u32).prop_map(Step::NoForks),
        1 => prop::option::weighted(0.8, written())
            .prop_map(|queue| Step::Write(1, queue.map(|queue| Written {
                replace: Replace::StartFirst,
                ..queue
            }))),
    ];
    prop_oneof![
        2 => (any::<bool>(), code).prop_map(|(back, code)| Turn::Rename(back, code)),
        4 => other.prop_map(Turn::Other),
        4 => (0..2000u64).prop_map(|time| Turn::Other(Step::Pass(time))),
    ]
}

/// Two releases fail one after the other, the second one at another app after the first one's app has been told to end.
#[test]
fn the_old_name_waits_for_what_every_failed_release_has_left() {
    let mut history = running();
    rename(&mut history, "api", Code::NeverReady);
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 465);
    history.take(&Step::Signal(Signal::SIGHUP));
    pass(&mut history, 5);
    // The check of the configuration, and then the first worker of `queue`.
    for milliseconds in [420, 60_000] {
        history.take(&Step::Crash(3));
        pass(&mut history, milliseconds);
    }
    is_rolled_back(&history, "app=queue");
    assert_eq!(living(&mut history, "web"), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases / 10, ..config() })]

    #[test]
    fn two_names_never_run_at_the_same_time(turns in prop::collection::vec(turn(), 0..20)) {
        let mut history = running();
        for turn in turns {
            match turn {
                Turn::Rename(back, code) => {
                    rename(&mut history, if back { "web" } else { "api" }, code);
                }
                Turn::Other(Step::Pass(time)) => pass(&mut history, time),
                Turn::Other(step) => history.take(&step),
            }
            pass(&mut history, 5);
        }
        history.stop_faults();
        history.take(&Step::Request("reload"));
        for order in ["start api", "start web"] {
            pass(&mut history, 30_000);
            history.take(&Step::Request(order));
        }
        pass(&mut history, 200_000);
        let names = ["api", "web"].map(|name| living(&mut history, name));
        prop_assert_eq!(names.iter().sum::<usize>(), 1);
    }
}
