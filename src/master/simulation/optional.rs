//! Apps that are not required.

use super::*;
use crate::master::jobs::Task;

#[test]
fn an_app_that_is_not_required_fails_in_the_background() {
    let broken = Written::broken();
    let mut history = History::new(&[("queue", broken), ("web", Written::good(2))]);
    history.pass(10_000);
    assert_eq!(history.outcome, None);
    let ready = |history: &mut History| {
        let notices = history.kernel().notices.iter();
        let ready = notices.filter_map(|notice| match notice {
            Notice::Ready(line) => Some(line.clone()),
            _ => None,
        });
        ready.collect::<Vec<_>>()
    };
    let lines = ready(&mut history);
    assert_eq!(lines.len(), 1, "the others are ready: {lines:?}");
    assert!(lines[0].contains("queue 0/1 ready"), "{lines:?}");
    let status = &history.master.init.status;
    assert!(status.contains("failing"), "{status}");

    // It holds up no reload of the others either.
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    assert_eq!(
        history.master.release.outcome(),
        Some(&release::Outcome::Done(2))
    );

    // Once it serves, a release that would break it is refused.
    history.kernel().disk.apps.insert(
        "queue",
        Written {
            code: Code::Good,
            ..broken
        },
    );
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    assert!(history.master.workers.apps["queue"].supervisor.is_settled());
    assert!(!history.master.workers.apps["queue"].is_installed());
    history.kernel().disk.apps.insert("queue", broken);
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(_))),
        "{outcome:?}"
    );
    assert!(history.master.workers.apps["queue"].supervisor.is_settled());
}

#[test]
fn an_app_that_is_not_required_waits_for_its_listener() {
    let mut history = History::new(&[("web", Written::good(2))]);
    let optional = Written {
        required: false,
        ..Written::good(3)
    };
    history.kernel().refuses_listeners = true;
    history.kernel().disk.apps.insert("queue", optional);
    history.send(Signal::SIGHUP);
    history.pass(60_000);
    let done = |number| Some(release::Outcome::Done(number));
    assert_eq!(history.master.release.outcome(), done(2).as_ref());
    let app = &history.master.workers.apps["queue"];
    assert_eq!(app.supervisor.counts().ready, 0);
    assert!(app.not_started.is_some());

    history.kernel().refuses_listeners = false;
    history.pass(60_000);
    let app = &history.master.workers.apps["queue"];
    // One may be being recycled.
    assert_eq!(app.supervisor.counts().ready, 3);
    assert!(app.not_started.is_none());

    // It serves, so that a reload that would take its listener away is refused.
    history.kernel().refuses_listeners = true;
    let more = Written {
        listeners: 2,
        ..optional
    };
    history.kernel().disk.apps.insert("queue", more);
    history.send(Signal::SIGHUP);
    history.pass(10_000);
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(_))),
        "{outcome:?}"
    );
    let supervisor = &history.master.workers.apps["queue"].supervisor;
    assert_eq!(supervisor.counts().ready, 3);
    assert_eq!(supervisor.generation(), Some(2));
}

#[test]
fn an_app_that_is_not_required_and_has_never_served_listens_only_while_it_is_tried() {
    let broken = Written::broken();
    let mut history = History::new(&[("queue", broken), ("web", Written::good(2))]);
    history.pass(60_000);
    let is_open = |history: &mut History| {
        let app = &history.master.workers.apps["queue"];
        let starting = app.supervisor.counts().starting > 0;
        let addresses = app.plans.values().flat_map(|plan| &plan.sockets);
        let addresses: Vec<_> = addresses.map(|(_, address)| address.clone()).collect();
        assert!(!addresses.is_empty());
        let kernel = history.kernel();
        let open = addresses
            .iter()
            .all(|address| kernel.listeners.contains_key(address));
        (starting, open)
    };
    assert_eq!(is_open(&mut history), (false, false), "it waits");

    // A reload is the next attempt, which fails too.
    history.send(Signal::SIGHUP);
    history.pass(60_000);
    assert_eq!(is_open(&mut history), (false, false), "it waits again");

    let cured = Written {
        code: Code::Good,
        ..broken
    };
    history.kernel().disk.apps.insert("queue", cured);
    history.send(Signal::SIGHUP);
    history.pass(60_000);
    assert_eq!(is_open(&mut history), (false, true), "it serves");

    // What has served keeps its listeners, as any other app does.
    for _ in 0..10 {
        let processes = history.kernel().processes.iter();
        let theirs = processes.filter(|(_, process)| &*process.app == "queue");
        for pid in theirs.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            history.kernel().end(pid, false);
        }
        history.floors.clear();
        history.pass(1);
        assert!(is_open(&mut history).1);
    }
}

/// The listeners of `queue` that are open, and whether a worker of it runs or was requested.
fn open_for(history: &mut History) -> (usize, bool) {
    let supervisor = history.master.workers.apps.get("queue");
    let counts = supervisor.map(|app| app.supervisor.counts());
    let has_worker = counts.is_some_and(|counts| counts.ready + counts.starting > 0);
    let open = history.kernel().listeners.keys();
    let theirs = open.filter(|address| *disk::app_at(address) == *"queue");
    (theirs.count(), has_worker)
}

/// What holds up the others takes several seconds.
#[test]
fn an_app_that_is_not_required_refuses_clients_also_while_others_start_or_are_replaced() {
    let broken = Written {
        listeners: 2,
        ..Written::broken()
    };
    let slow = Written {
        code: Code::NeverReady,
        ..Written::good(2)
    };
    let blocked = Written {
        before: Some(End::Hangs),
        ..Written::good(2)
    };
    for (first, next) in [
        (slow, None),
        (Written::good(2), Some(slow)),
        (Written::good(2), Some(blocked)),
    ] {
        let mut history = History::new(&[("queue", broken), ("web", first)]);
        if let Some(next) = next {
            history.pass(2000);
            history.kernel().disk.apps.insert("web", next);
            history.send(Signal::SIGHUP);
        }
        let mut refused = 0;
        for _ in 0..400 {
            history.pass(10);
            let state = history.master.release.state();
            assert!(
                matches!(state, State::Preparing | State::Proving { .. }),
                "{state:?}"
            );
            match open_for(&mut history) {
                (0, false) => refused += 1,
                (2, true) => {}
                other => panic!("{other:?}"),
            }
        }
        // An attempt may begin and fail between two looks.
        let tried = history.kernel().starts["queue"];
        assert!(refused > 300 && tried > 1, "{refused} {tried}");
    }
}

/// A reload that has bound what was missing for `queue`, and lasts. None if `queue` was tried again before.
fn bound_by_a_reload() -> Option<History> {
    let mut history = History::new(&[("web", Written::good(2))]);
    history.kernel().refuses_listeners = true;
    let queue = Written {
        required: false,
        listeners: 2,
        ..Written::good(1)
    };
    history.kernel().disk.apps.insert("queue", queue);
    history.send(Signal::SIGHUP);
    history.pass(2000);
    assert_eq!(open_for(&mut history), (0, false));
    history.kernel().refuses_listeners = false;
    let held_up = Written {
        before: Some(End::Hangs),
        ..Written::good(2)
    };
    history.kernel().disk.apps.insert("web", held_up);
    history.send(Signal::SIGHUP);
    history.pass(100);
    let is_bound = history.kernel().bound.len() == 1;
    is_bound.then_some(history)
}

#[test]
fn an_app_that_comes_up_during_a_reload_takes_the_listeners_that_were_opened_for_that() {
    for rolled_back in [true, false] {
        let mut tries = (0..100).filter_map(|_| bound_by_a_reload());
        let mut history = tries.next().expect("the next attempt is seconds away");
        assert_eq!(open_for(&mut history), (0, false));
        history.pass(4000);
        assert_eq!(*history.master.release.state(), State::Preparing);
        assert_eq!(ready_of(&history, "queue"), 1, "the running generation");
        assert_eq!(open_for(&mut history), (2, true));
        if !rolled_back {
            let processes = history.kernel().processes.iter();
            let command = processes.filter(|(_, process)| matches!(process.kind, Kind::Job(_)));
            let command = command.map(|(pid, _)| *pid).next().expect("it runs");
            history.kernel().end(command, true);
        }
        history.pass(10_000);
        let generation = history.master.release.current();
        assert_eq!(generation, Some(if rolled_back { 2 } else { 3 }));
        assert_eq!(ready_of(&history, "queue"), 1);
        assert_eq!(open_for(&mut history), (2, true));
    }
}

#[test]
fn an_app_that_a_command_could_not_start_goes_on_to_refuse_clients() {
    let broken = Written {
        listeners: 2,
        ..Written::broken()
    };
    let mut history = History::new(&[("queue", broken), ("web", Written::good(2))]);
    history.pass(10_000);
    history.order("reload queue");
    history.pass(10_000);
    let outcome = history.master.release.outcome();
    assert!(
        matches!(outcome, Some(release::Outcome::RolledBack(_))),
        "{outcome:?}"
    );
    for _ in 0..300 {
        history.pass(100);
        let (open, has_worker) = open_for(&mut history);
        assert_eq!(open, if has_worker { 2 } else { 0 });
    }
}

/// A `queue` of which there must not be two, and that is not required.
fn alone() -> Written {
    Written {
        required: false,
        replace: Replace::StopFirst,
        ..Written::good(1)
    }
}

/// The processes of `queue` and `web`, apart from jobs.
fn all_processes(history: &mut History) -> BTreeSet<Pid> {
    let processes = history.kernel().processes.iter();
    let workers = processes.filter(|(_, process)| slot(process).is_some() && !process.signalled);
    workers.map(|(pid, _)| *pid).collect()
}

#[test]
fn nothing_ends_for_an_app_that_is_known_not_to_start() {
    let missing = Written {
        missing: true,
        ..alone()
    };
    let before = |end| Written {
        before: Some(end),
        ..alone()
    };
    for (next, order, why) in [
        (missing, "reload", "no folder of queue"),
        (missing, "reload queue", "no folder of queue"),
        (missing, "restart queue", "no folder of queue"),
        (before(End::Badly), "reload", "its command `before` exited"),
        (
            before(End::Badly),
            "reload queue",
            "its command `before` exited",
        ),
        (before(End::Hangs), "reload", "its command `before`"),
    ] {
        let mut history = History::new(&[("queue", alone()), ("web", Written::good(2))]);
        history.pass(10_000);
        let processes = all_processes(&mut history);
        assert_eq!(processes.len(), 3);
        history.kernel().disk.apps.insert("queue", next);
        let number = history.kernel().asked as i32;
        history.order(order);
        history.pass(60_000);
        let answer = history.kernel().answers[&number].clone();
        assert!(
            answer.starts_with("error ") && answer.contains(why),
            "{order}: {answer}"
        );
        assert_eq!(all_processes(&mut history), processes, "{order}: {answer}");
    }
}

/// The listener was open when the candidate was prepared, so nobody opens it again.
#[test]
fn a_listener_that_a_candidate_has_is_not_closed_while_it_is_prepared() {
    let mended = Written {
        before: Some(End::Well),
        replace: Replace::StopFirst,
        ..Written::good(1)
    };
    for delay in 0..400 {
        let mut history = History::new(&[("queue", Written::good(1))]);
        history.pass(5000);
        history.kernel().disk.apps.insert("web", Written::broken());
        history.send(Signal::SIGHUP);
        history.pass(delay);
        history.kernel().disk.apps.insert("web", mended);
        history.send(Signal::SIGHUP);
        history.pass(20_000);
        let web = &history.master.workers.apps["web"];
        assert_eq!(web.supervisor.counts().ready, 1);
    }
}

/// It is ready and dies, again and again, while another app of the first start is not ready yet.
#[test]
fn the_first_start_does_not_wait_for_an_app_that_is_not_required_and_was_ready() {
    let optional = Written {
        required: false,
        ..Written::good(1)
    };
    for cleanly in [false, true] {
        let slow = Written {
            template: true,
            ..Written::good(2)
        };
        let mut history = History::new(&[("queue", optional), ("web", slow)]);
        let limit = history.kernel().now + Duration::from_secs(30);
        while history
            .kernel()
            .notices
            .iter()
            .all(|notice| !matches!(notice, Notice::Ready(_)))
        {
            let processes = history.kernel().processes.iter();
            let ready = processes.filter(|(_, process)| &*process.app == "queue" && process.ready);
            let ready: Vec<_> = ready.map(|(&pid, _)| pid).collect();
            for pid in ready {
                history.kernel().end(pid, cleanly);
            }
            assert!(history.outcome.is_none());
            history.pass(10);
            assert!(history.kernel().now < limit);
        }
        assert!(!history.master.workers.apps["queue"].supervisor.is_settled());
    }
}

/// What is said about the readiness of everything, so far.
fn ready_lines(history: &mut History) -> usize {
    let notices = history.kernel().notices.iter();
    let ready = notices.filter(|notice| matches!(notice, Notice::Ready(_)));
    ready.count()
}

/// An app of which the command `before` ends like this, also at the first start.
fn with_before(end: End) -> Written {
    Written {
        required: false,
        before: Some(end),
        ..Written::good(1)
    }
}

fn ready_of(history: &History, name: &str) -> u32 {
    let app = &history.master.workers.apps[name];
    app.supervisor.counts().ready
}

#[test]
fn the_command_before_of_an_app_that_is_not_required_holds_nobody_up() {
    for end in [End::Well, End::Badly, End::Hangs, End::IgnoresSignals] {
        let mut history = History::new(&[("queue", with_before(end)), ("web", Written::good(2))]);
        history.pass(3000);
        assert_eq!(ready_lines(&mut history), 1, "{end:?}: web is ready");
        let runs = history.master.jobs.has(&Task::Before("queue".into()));
        assert_eq!(runs, matches!(end, End::Hangs | End::IgnoresSignals));
        assert_eq!(ready_of(&history, "queue"), u32::from(end == End::Well));
        history.pass(60_000);
        let queue = &history.master.workers.apps["queue"];
        assert_eq!(queue.supervisor.is_given_up(), end != End::Well);
        assert_eq!(history.outcome, None);

        // It does not serve, so that a reload does not wait either.
        history.send(Signal::SIGHUP);
        history.pass(3000);
        let done = release::Outcome::Done(2);
        assert_eq!(history.master.release.outcome(), Some(&done), "{end:?}");
        let cured = with_before(End::Well);
        history.kernel().disk.apps.insert("queue", cured);
        history.send(Signal::SIGHUP);
        history.pass(60_000);
        assert_eq!(ready_of(&history, "queue"), 1, "{end:?}");
    }
}

/// A command of one app never runs beside an earlier one, whatever a release becomes.
#[test]
fn a_command_that_a_named_release_runs_takes_the_place_of_the_one_in_the_background() {
    for end in [End::Well, End::Badly] {
        let hangs = with_before(End::Hangs);
        let mut history = History::new(&[("queue", hangs), ("web", Written::good(2))]);
        history.pass(1000);
        let commands = |history: &mut History| {
            let processes = history.kernel().processes.values();
            let commands =
                processes.filter(|p| matches!(p.kind, Kind::Job(_)) && &*p.app == "queue");
            commands.count()
        };
        assert_eq!(commands(&mut history), 1);
        history.kernel().disk.apps.insert("queue", with_before(end));
        history.order("reload queue");
        for _ in 0..3000 {
            history.pass(1);
            assert!(commands(&mut history) <= 1);
        }
        assert_eq!(ready_of(&history, "queue"), u32::from(end == End::Well));
        let goes_on = end == End::Badly;
        assert_eq!(
            commands(&mut history),
            usize::from(goes_on),
            "that of the running generation"
        );
        assert_eq!(
            history.master.workers.apps["queue"].supervisor.is_held(),
            goes_on
        );
        history.order("stop queue");
        history.pass(10_000);
        assert_eq!(commands(&mut history), 0);
        assert!(!history.master.workers.apps.contains_key("queue"));
    }
}
