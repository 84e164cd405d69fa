//! Apps with a schedule.

use super::disk::PERIODIC;
use super::*;

/// A master with an app that has this schedule, and one with workers. Its clock shows 01:00:00.
fn history(cron: &'static str, end: End) -> History {
    let periodic = Periodic {
        cron,
        end,
        timeout: None,
        enabled: true,
    };
    let history = History::with(Disk {
        apps: [("web", Written::good(2))].into(),
        periodic: Some(periodic),
        spoilt: false,
    });
    ready(history)
}

fn ready(mut history: History) -> History {
    history.pass(5000);
    assert_eq!(*history.master.release.state(), State::Idle);
    history
}

impl History {
    fn runs(&mut self) -> u32 {
        self.kernel().runs
    }

    fn running(&mut self) -> Option<Pid> {
        let mut processes = self.kernel().processes.iter();
        let found = processes.find(|(_, process)| &*process.app == PERIODIC);
        found.map(|(&pid, _)| pid)
    }

    /// The status of the app with a schedule.
    fn periodic(&mut self) -> serde_json::Value {
        let number = self.kernel().asked as i32;
        self.order("status");
        self.pass(0);
        let answer = self.kernel().answers[&number].clone();
        let json = answer.strip_prefix("ok\n").expect("a status");
        let status: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert!(crate::client::is_ready(&status), "{status}");
        status["scheduled"][0].clone()
    }

    fn change(&mut self, cron: &'static str, end: End) {
        let periodic = Periodic {
            cron,
            end,
            timeout: None,
            enabled: true,
        };
        self.take(&Step::Schedule(Some(periodic)));
        self.take(&Step::Signal(Signal::SIGHUP));
        self.pass(5000);
    }
}

const MINUTE: u64 = 60_000;

#[test]
fn a_program_is_run_at_each_time_and_never_before() {
    let mut history = history("*/2 * * * *", End::Well);
    history.pass(2 * MINUTE - 5001);
    assert_eq!(history.runs(), 0);
    history.pass(1);
    assert_eq!(history.runs(), 1);
    history.pass(6 * MINUTE + 1000);
    assert_eq!(history.runs(), 4);
    let status = history.periodic();
    assert_eq!(status["next"], "2026-11-27 01:10:00 +00:00");
    assert_eq!(status["last"]["began"], "2026-11-27 01:08:00 +00:00");
    assert_eq!(status["last"]["succeeded"], true);
}

#[test]
fn an_idle_schedule_wakes_nobody() {
    let mut history = history("@yearly", End::Well);
    let kernel = history.kernel();
    kernel.until = kernel.now + Duration::from_millis(60 * MINUTE);
    let mut turns = 0;
    loop {
        history.turn();
        turns += 1;
        if history.kernel().idle {
            break;
        }
    }
    assert!(turns <= 2, "{turns} turns in an hour");
    assert_eq!(history.runs(), 0);
}

#[test]
fn a_run_that_fails_is_shown_and_the_next_one_comes() {
    let mut history = history("* * * * *", End::Badly);
    history.pass(MINUTE);
    let status = history.periodic();
    assert_eq!(status["last"]["succeeded"], false);
    assert_eq!(status["last"]["why"], "exited with status 1 after 100ms");
    history.pass(MINUTE);
    assert_eq!(history.runs(), 2);
}

#[test]
fn a_run_that_cannot_be_started_is_a_failure() {
    let mut history = history("* * * * *", End::Well);
    history.take(&Step::NoForks(1));
    history.pass(MINUTE);
    assert_eq!(history.runs(), 1);
    let status = history.periodic();
    assert_eq!(status["last"]["why"], "cannot be started: no process");
    history.pass(MINUTE);
    assert_eq!(history.periodic()["last"]["succeeded"], true);
}

#[test]
fn a_time_that_comes_while_a_run_goes_on_is_left_out() {
    let mut history = history("* * * * *", End::Hangs);
    history.pass(4 * MINUTE);
    assert_eq!(history.runs(), 1);
    let status = history.periodic();
    assert_eq!(status["running"]["left_out"], 3);
    let pid = history.running().expect("it hangs");
    history.kernel().end(pid, true);
    history.pass(1000);
    assert_eq!(history.runs(), 1, "what was left out is not made up for");
    history.pass(MINUTE);
    assert_eq!(history.runs(), 2);
}

#[test]
fn a_run_that_takes_too_long_is_told_to_end_and_killed() {
    let mut history = History::with(Disk {
        apps: [("web", Written::good(2))].into(),
        periodic: Some(Periodic {
            cron: "0 * * * *",
            end: End::IgnoresSignals,
            timeout: Some(Duration::from_secs(20)),
            enabled: true,
        }),
        spoilt: false,
    });
    history.pass(60 * MINUTE + 20_000);
    assert!(history.running().is_some());
    // `graceful_timeout` of the example.
    history.pass(10_000);
    assert_eq!(history.running(), None);
    let why = history.periodic()["last"]["why"].to_string();
    assert!(
        why.contains("did not end within 20.0s and was terminated"),
        "{why}"
    );
}

#[test]
fn runs_that_a_sleeping_machine_has_missed_are_one() {
    let mut history = history("*/5 * * * *", End::Well);
    history.take(&Step::Sleep(8 * 3600));
    assert_eq!(history.runs(), 1);
    history.pass(1000);
    assert_eq!(history.runs(), 1);
    assert_eq!(history.periodic()["next"], "2026-11-27 09:05:00 +00:00");
}

#[test]
fn runs_that_a_suspended_master_has_missed_are_one() {
    let mut history = history("*/5 * * * *", End::Well);
    history.take(&Step::Stopped(60 * MINUTE));
    history.pass(1000);
    assert_eq!(history.runs(), 1);
}

#[test]
fn the_schedule_follows_a_clock_that_is_set() {
    let mut history = history("30 * * * *", End::Well);
    // By less than three hours: what has passed is made up for.
    history.take(&Step::SetClock(3600));
    assert_eq!(history.runs(), 1);
    assert_eq!(history.periodic()["next"], "2026-11-27 02:30:00 +00:00");
    history.take(&Step::SetClock(-3600));
    assert_eq!(history.periodic()["next"], "2026-11-27 01:30:00 +00:00");
    // A correction: the new time counts.
    history.take(&Step::SetClock(10 * 24 * 3600));
    assert_eq!(history.runs(), 1);
    assert_eq!(history.periodic()["next"], "2026-12-07 01:30:00 +00:00");
    history.pass(30 * MINUTE);
    assert_eq!(history.runs(), 2);
}

#[test]
fn a_reload_changes_the_schedule_and_leaves_a_run_alone() {
    let mut history = history("* * * * *", End::Hangs);
    history.pass(MINUTE);
    let pid = history.running().expect("it hangs");
    history.change("*/10 * * * *", End::Well);
    let status = history.periodic();
    assert_eq!(
        (&status["cron"], status["generation"].as_u64()),
        (&"*/10 * * * *".into(), Some(2))
    );
    assert_eq!(history.running(), Some(pid));
    history.pass(10 * MINUTE);
    assert_eq!(history.runs(), 1, "the old run goes on");
    history.kernel().end(pid, true);
    history.pass(10 * MINUTE);
    assert_eq!(history.runs(), 2);
}

#[test]
fn a_reload_keeps_the_time_of_an_unchanged_schedule() {
    let mut history = history("*/10 * * * *", End::Well);
    let before = history.periodic()["next"].clone();
    history.take(&Step::SetClock(120));
    history.change("*/10 * * * *", End::Badly);
    assert_eq!(history.periodic()["next"], before);
}

#[test]
fn an_app_that_is_no_longer_configured_is_not_run() {
    let mut history = history("* * * * *", End::Hangs);
    history.pass(MINUTE);
    history.take(&Step::Schedule(None));
    history.take(&Step::Signal(Signal::SIGHUP));
    history.pass(5 * MINUTE);
    assert!(history.running().is_some(), "its run is left to finish");
    assert_eq!(history.periodic(), serde_json::Value::Null);
    let pid = history.running().expect("it hangs");
    history.kernel().end(pid, true);
    history.pass(5 * MINUTE);
    assert_eq!(history.runs(), 1);
}

#[test]
fn a_failed_reload_changes_no_schedule() {
    let mut history = history("*/10 * * * *", End::Well);
    let broken = Written {
        code: Code::Broken,
        ..Written::good(2)
    };
    history.take(&Step::Write(2, Some(broken)));
    history.change("* * * * *", End::Well);
    assert_eq!(history.periodic()["cron"], "*/10 * * * *");
}

#[test]
fn a_pause_holds_runs_back_until_a_reload() {
    let mut history = history("* * * * *", End::Well);
    history.take(&Step::Signal(Signal::SIGWINCH));
    history.pass(5 * MINUTE);
    assert_eq!(history.runs(), 0);
    history.take(&Step::Signal(Signal::SIGHUP));
    history.pass(5000);
    assert_eq!(history.runs(), 0, "what was held back is not made up for");
    history.pass(MINUTE);
    assert_eq!(history.runs(), 1);
}

#[test]
fn a_reload_that_fails_ends_a_pause_too() {
    let mut history = history("* * * * *", End::Well);
    history.take(&Step::Signal(Signal::SIGWINCH));
    history.take(&Step::Spoil(true));
    history.take(&Step::Signal(Signal::SIGHUP));
    history.pass(2 * MINUTE);
    assert_eq!(history.runs(), 2);
}

#[test]
fn a_stop_tells_a_run_to_end_and_waits_for_it() {
    for end in [End::Hangs, End::IgnoresSignals] {
        let mut history = history("* * * * *", end);
        history.pass(MINUTE);
        assert!(history.running().is_some());
        history.send(Signal::SIGTERM);
        history.pass(1000);
        let has_ended = history.outcome.is_some();
        assert_eq!(
            has_ended,
            end == End::Hangs,
            "it is killed after graceful_timeout"
        );
        history.pass(10_000);
        assert_eq!(history.outcome, Some(Outcome::Stopped));
        assert_eq!(history.runs(), 1);
    }
}

#[test]
fn a_master_may_have_nothing_but_schedules() {
    let mut history = ready(History::with(Disk {
        apps: BTreeMap::new(),
        periodic: Some(Periodic {
            cron: "* * * * *",
            end: End::Well,
            timeout: None,
            enabled: true,
        }),
        spoilt: false,
    }));
    let ready = Notice::Ready("generation 1: 1 app with a schedule".into());
    assert!(history.kernel().notices.contains(&ready));
    history.pass(MINUTE);
    assert_eq!(history.runs(), 1);
    history.change("*/2 * * * *", End::Well);
    history.send(Signal::SIGTERM);
    history.pass(1000);
    assert_eq!(history.outcome, Some(Outcome::Stopped));
}
