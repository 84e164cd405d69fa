//! What an earlier master has left, and its guard still ends.

use super::kernel::EARLIER;
use super::*;

/// A history that begins while processes of these apps are left, for so many milliseconds.
fn after(apps: &[(&'static str, Written)], left: &[(&str, u64)]) -> History {
    History::with_kernel(disk(apps), |kernel| {
        let until = |milliseconds: &u64| kernel.now + Duration::from_millis(*milliseconds);
        let left = left
            .iter()
            .map(|(app, time)| (Name::from(*app), until(time)));
        kernel.earlier = left.collect();
    })
}

fn once() -> Written {
    Written {
        replace: Replace::StopFirst,
        ..Written::good(1)
    }
}

fn ready(history: &History, app: &str) -> u32 {
    let app = history.master.workers.apps.get(app);
    app.map_or(0, |app| app.supervisor.counts().ready)
}

fn asked_for_time(history: &mut History) -> usize {
    let notices = history.kernel().notices.iter();
    notices
        .filter(|notice| matches!(notice, Notice::MoreTime(_)))
        .count()
}

fn is_ready(history: &mut History) -> bool {
    let mut notices = history.kernel().notices.iter();
    notices.any(|notice| matches!(notice, Notice::Ready(_)))
}

#[test]
fn only_the_app_waits_of_which_something_is_left() {
    let apps = [("queue", once()), ("web", Written::good(2))];
    // Longer than it may take to start.
    let mut history = after(&apps, &[("queue", 300_000)]);
    history.pass(5000);
    assert_eq!((ready(&history, "web"), ready(&history, "queue")), (2, 0));
    assert!(!is_ready(&mut history), "it is required");
    let status = history.master.status_line();
    assert!(
        status.contains("queue 0/1 ready, waiting for what a killed preforkd has left"),
        "{status}"
    );
    history.pass(290_000);
    assert_eq!(ready(&history, "queue"), 0);
    assert!(history.outcome.is_none(), "it has not failed");
    let asked = asked_for_time(&mut history);
    assert!((55..=60).contains(&asked), "every five seconds: {asked}");
    history.pass(10_000);
    assert_eq!(ready(&history, "queue"), 1);
    assert!(is_ready(&mut history));
    let status = history.master.status_line();
    assert!(!status.contains("waiting"), "{status}");
}

#[test]
fn a_stop_does_not_wait() {
    let mut history = after(&[("queue", once())], &[("queue", 300_000)]);
    history.pass(5000);
    history.send(Signal::SIGTERM);
    history.pass(1000);
    assert_eq!(history.outcome, Some(Outcome::Stopped));
}

#[test]
fn one_that_is_not_required_holds_nothing_up() {
    let optional = Written {
        required: false,
        ..once()
    };
    let apps = [("queue", optional), ("web", Written::good(2))];
    let mut history = after(&apps, &[("queue", 60_000)]);
    history.pass(5000);
    assert!(is_ready(&mut history));
    // A reload neither starts it nor waits for it.
    history.send(Signal::SIGHUP);
    history.pass(5000);
    let done = Some(release::Outcome::Done(2));
    assert_eq!(history.master.release.outcome(), done.as_ref());
    assert_eq!(ready(&history, "queue"), 0);
    history.pass(60_000);
    assert_eq!(ready(&history, "queue"), 1);
}

#[test]
fn a_reload_that_is_asked_for_meanwhile_goes_ahead() {
    let apps = [("queue", once()), ("web", Written::good(2))];
    let mut history = after(&apps, &[("queue", 20_000)]);
    history.pass(5000);
    history.send(Signal::SIGHUP);
    history.pass(5000);
    assert_eq!(history.master.release.current(), Some(1));
    assert_eq!(
        history.master.release.candidate(),
        Some(2),
        "it has to prove that"
    );
    assert!(!is_ready(&mut history), "it is required");
    history.pass(30_000);
    let done = Some(release::Outcome::Done(2));
    assert_eq!(history.master.release.outcome(), done.as_ref());
    assert_eq!((ready(&history, "web"), ready(&history, "queue")), (2, 1));
}

#[test]
fn a_reload_that_needs_nothing_of_what_is_left_does_not_wait() {
    let apps = [("queue", once()), ("web", Written::good(2))];
    let mut history = after(&apps, &[("queue", 300_000)]);
    history.pass(5000);
    history.kernel().disk.apps.remove("queue");
    history.send(Signal::SIGHUP);
    history.pass(5000);
    let done = Some(release::Outcome::Done(2));
    assert_eq!(history.master.release.outcome(), done.as_ref());
    assert!(is_ready(&mut history));
    assert!(!history.master.status_line().contains("queue"));
}

#[test]
fn an_app_that_comes_after_one_that_waits_is_not_started_before_it() {
    let late = Written {
        ordered: true,
        ..Written::good(1)
    };
    let apps = [("queue", once()), ("web", late)];
    let mut history = after(&apps, &[("queue", 20_000)]);
    history.pass(5000);
    history.send(Signal::SIGHUP);
    history.pass(5000);
    assert_eq!(history.master.release.current(), None);
    assert_eq!(ready(&history, "web"), 0);
    history.pass(30_000);
    let done = Some(release::Outcome::Done(2));
    assert_eq!(history.master.release.outcome(), done.as_ref());
    assert_eq!(ready(&history, "web"), 1);
}

#[test]
fn an_app_that_waits_can_be_stopped_and_started_again() {
    let apps = [("queue", once()), ("web", Written::good(2))];
    let mut history = after(&apps, &[("queue", 300_000)]);
    history.pass(5000);
    let stop = history.kernel().asked as i32;
    history.order("stop queue");
    history.pass(1000);
    let answer = history.kernel().answers.get(&stop).cloned();
    assert_eq!(answer.as_deref(), Some("ok\nqueue: stopped\n"));
    assert!(is_ready(&mut history), "nothing else is to start");
    let start = history.kernel().asked as i32;
    history.order("start queue");
    history.pass(5000);
    assert!(!history.kernel().answers.contains_key(&start), "it waits");
    history.pass(300_000);
    assert_eq!(ready(&history, "queue"), 1);
    assert!(history.kernel().answers[&start].starts_with("ok"));
}

#[test]
fn an_address_is_waited_for_while_somebody_may_have_it() {
    let apps = [("queue", once()), ("web", Written::good(2))];
    let mut history = History::with_kernel(disk(&apps), |kernel| {
        let until = kernel.now + Duration::from_secs(60);
        kernel.earlier = [(Name::from("other"), until)].into();
        let plan = kernel.disk.plan().expect("it is good");
        for (_, address) in &plan.apps["web"].sockets {
            kernel.listeners.remove(address);
        }
        kernel.refuses_listeners = true;
    });
    history.pass(5000);
    assert_eq!((ready(&history, "web"), ready(&history, "queue")), (0, 1));
    history.kernel().refuses_listeners = false;
    history.pass(5000);
    assert_eq!((ready(&history, "web"), ready(&history, "queue")), (2, 1));
}

/// A history in which somebody has the address of `web` while something is left for ten seconds.
fn in_use_by(holder: Pid, required: bool) -> History {
    let web = Written {
        required,
        ..Written::good(2)
    };
    let apps = [("queue", Written::good(1)), ("web", web)];
    History::with_kernel(disk(&apps), |kernel| {
        let until = kernel.now + Duration::from_secs(10);
        kernel.earlier = [(Name::from("other"), until)].into();
        let plan = kernel.disk.plan().expect("it is good");
        for (_, address) in &plan.apps["web"].sockets {
            kernel.listeners.remove(address);
        }
        kernel.refuses_listeners = true;
        kernel.holders = vec![holder];
    })
}

#[test]
fn an_address_that_a_stranger_has_is_not_waited_for() {
    let stranger = Pid::from_raw(77);
    let mut history = in_use_by(stranger, true);
    history.pass(1000);
    assert_eq!(history.outcome, Some(Outcome::CouldNotStart));
    let mut history = in_use_by(stranger, false);
    history.pass(1000);
    let status = history.master.status_line();
    assert!(!status.contains("waiting for what"), "{status}");
}

#[test]
fn one_that_is_not_required_waits_for_an_address_like_any_other() {
    let mut history = in_use_by(EARLIER, false);
    history.pass(5000);
    assert!(is_ready(&mut history), "nothing waits for it");
    let status = history.master.status_line();
    assert!(
        status.contains("web 0/2 ready, waiting for what"),
        "{status}"
    );
    assert!(history.master.workers.apps["web"].not_started.is_none());
    history.kernel().refuses_listeners = false;
    history.pass(1000);
    assert_eq!(ready(&history, "web"), 2);
}

#[test]
fn an_address_that_nobody_frees_refuses_the_start() {
    let mut history = History::with_kernel(disk(&[("web", Written::good(2))]), |kernel| {
        let until = kernel.now + Duration::from_secs(10);
        kernel.earlier = [(Name::from("other"), until)].into();
        kernel.listeners.clear();
        kernel.refuses_listeners = true;
    });
    history.pass(9000);
    assert_eq!(history.outcome, None);
    history.pass(9000);
    assert_eq!(history.outcome, Some(Outcome::CouldNotStart));
}

#[test]
fn what_fails_beside_its_earlier_run_is_tried_again_when_that_is_gone() {
    let outcome = Some(Outcome::CouldNotStart);
    for (code, outcome) in [(Code::Good, None), (Code::Broken, outcome)] {
        let node = Written {
            code,
            ..Written::good(1)
        };
        let apps = disk(&[("node", node), ("web", Written::good(2))]);
        let mut history = History::with_kernel(apps, |kernel| {
            let until = kernel.now + Duration::from_secs(20);
            kernel.beside = [(Name::from("node"), until)].into();
        });
        history.pass(10_000);
        assert_eq!((ready(&history, "web"), ready(&history, "node")), (2, 0));
        assert_eq!(history.outcome, None);
        history.pass(20_000);
        assert_eq!(history.outcome, outcome);
        assert_eq!(ready(&history, "node"), u32::from(outcome.is_none()));
    }
}
