//! The order of a start and of a stop.

use super::*;

#[test]
fn the_first_worker_of_an_app_waits_for_the_apps_before_it() {
    let ordered = Written {
        ordered: true,
        ..Written::good(2)
    };
    let mut history = History::new(&[("queue", Written::good(2)), ("web", ordered)]);
    let started = |history: &mut History, name: &str| {
        let processes = history.kernel().processes.values();
        processes.filter(|process| &*process.app == name).count()
    };
    for _ in 0..1000 {
        let queue = Name::from("queue");
        let counts = history.master.workers.apps[&queue].supervisor.counts();
        if counts.ready > 0 {
            break;
        }
        assert_eq!(started(&mut history, "web"), 0);
        let later: Vec<_> = history.master.later();
        let later: Vec<_> = later
            .iter()
            .map(|app| (&*app.name, app.wanted, &*app.waits_for))
            .collect();
        assert_eq!(later, [("web", 2, "queue")]);
        let status = history.master.status_line();
        assert!(
            status.ends_with("; web 0/2 ready, to be started later"),
            "{status}"
        );
        history.pass(1);
    }
    history.pass(10_000);
    assert_eq!(started(&mut history, "web"), 2);
    assert!(history.master.later().is_empty());
    let status = history.master.status_line();
    assert!(!status.contains("later"), "{status}");
}

/// Two apps that serve, with templates: web comes after queue.
fn ordered() -> History {
    let web = Written {
        ordered: true,
        template: true,
        ..Written::good(2)
    };
    let queue = Written {
        template: true,
        ..Written::good(1)
    };
    let mut history = History::new(&[("queue", queue), ("web", web)]);
    history.pass(10_000);
    history
}

/// Whether each living worker of an app was told to end.
fn told(history: &mut History, name: &str) -> Vec<bool> {
    let processes = history.kernel().processes.values();
    let workers = processes.filter(|process| {
        &*process.app == name && process.dead.is_none() && slot(process).is_some()
    });
    workers.map(|process| process.signalled).collect()
}

#[test]
fn an_app_is_told_to_end_when_all_that_come_after_it_have_ended() {
    let mut history = ordered();
    history.send(Signal::SIGTERM);
    history.pass(0);
    assert_eq!(told(&mut history, "web"), [true, true]);
    assert_eq!(told(&mut history, "queue"), [false]);
    let queue = |process: &Process| &*process.app == "queue" && slot(process).is_some();

    // It serves until then: a worker that crashes is replaced.
    let mut processes = history.kernel().processes.iter();
    let worker = processes.find(|(_, process)| queue(process));
    let worker = *worker.expect("it serves").0;
    history.kernel().end(worker, false);
    history.pass(5);
    assert_eq!(told(&mut history, "web"), [true, true]);
    assert_eq!(told(&mut history, "queue"), [false]);
    for _ in 0..1000 {
        if told(&mut history, "web").is_empty() {
            break;
        }
        assert_eq!(told(&mut history, "queue"), [false]);
        history.pass(1);
    }
    history.pass(100);
    assert_ne!(told(&mut history, "queue"), [false]);
    history.pass(10_000);
    assert_eq!(history.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_second_stop_ends_the_order() {
    for (first, second) in [
        (Signal::SIGTERM, Some(Signal::SIGTERM)),
        (Signal::SIGTERM, Some(Signal::SIGINT)),
        (Signal::SIGINT, None),
    ] {
        let mut history = ordered();
        history.urgent = true;
        for signal in std::iter::once(first).chain(second) {
            history.send(signal);
            history.pass(0);
        }
        assert!(told(&mut history, "queue").iter().all(|told| *told));
        let templates = history.kernel().processes.values();
        let mut templates = templates.filter(|p| p.kind == Kind::Template);
        assert!(templates.all(|p| p.signalled));
        history.pass(10_000);
        assert_eq!(history.outcome, Some(Outcome::Stopped));
    }
}

#[test]
fn an_app_ends_before_those_that_it_comes_after() {
    let ordered = |written| Written {
        ordered: true,
        ..written
    };
    let slow = Written {
        code: Code::IgnoresSignals,
        ..Written::good(2)
    };
    let alive = |history: &mut History, name: &str| {
        let processes = history.kernel().processes.values();
        let alive = processes.filter(|process| &*process.app == name && process.dead.is_none());
        alive.count()
    };
    for web in [Written::good(2), slow] {
        let mut history = History::new(&[("queue", Written::good(2)), ("web", ordered(web))]);
        history.pass(10_000);
        history.send(Signal::SIGTERM);
        let mut seen = 0;
        while history.outcome.is_none() {
            let (queue, web) = (alive(&mut history, "queue"), alive(&mut history, "web"));
            assert!(queue == 2 || web == 0, "{queue} and {web}");
            seen += usize::from(queue == 2 && web == 0);
            history.pass(1);
        }
        assert!(seen > 0, "it ends only then");
        assert_eq!(history.outcome, Some(Outcome::Stopped));
    }
    // The second time nobody waits.
    let mut history = History::new(&[("queue", Written::good(2)), ("web", ordered(slow))]);
    history.pass(10_000);
    history.urgent = true;
    for _ in 0..2 {
        history.send(Signal::SIGTERM);
        history.pass(100);
    }
    assert_eq!(alive(&mut history, "queue"), 0);
}

#[test]
fn an_order_that_a_launcher_sends_twice_does_not_hurry() {
    let stubborn = Written {
        code: Code::IgnoresSignals,
        ..Written::good(2)
    };
    let mut history = History::new(&[("web", stubborn)]);
    history.pass(10_000);
    let alive = |history: &mut History| {
        let mut processes = history.kernel().processes.values();
        processes.any(|process| process.dead.is_none())
    };
    for wait in [0, 99] {
        history.send_from(Signal::SIGTERM, Sender::Process(7));
        history.pass(wait);
        assert!(history.master.is_stopping() && alive(&mut history));
    }
    history.urgent = true;
    history.send_from(Signal::SIGTERM, Sender::Process(8));
    history.pass(100);
    assert!(!alive(&mut history));
}

#[test]
fn the_end_of_the_terminal_stops_gracefully_however_often_it_is_said() {
    let mut history = run_steps(&[Step::Pass(5000)]);
    for _ in 0..3 {
        history.send_from(Signal::SIGHUP, Sender::Kernel);
        history.turn();
    }
    assert!(history.master.is_stopping());
    let notices = &history.kernel().notices;
    assert!(!notices.contains(&Notice::Reloading), "it is no reload");
    history.pass(120_000);
    assert_eq!(history.outcome, Some(Outcome::Stopped));
}
