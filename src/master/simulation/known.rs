//! Histories that have failed.

use super::any::run_and_settle;
use super::*;

#[test]
fn a_worker_that_was_ready_in_time_is_not_late_because_the_master_was_suspended() {
    run_and_settle(&[
        Step::Stopped(5000),
        Step::Signal(Signal::SIGTTIN),
        Step::Stopped(2000),
    ]);
}

#[test]
fn a_first_worker_that_hangs_when_it_becomes_ready_proves_nothing() {
    run_and_settle(&[
        Step::Signal(Signal::SIGHUP),
        Step::Stopped(200),
        Step::Hangs(0),
        Step::Stopped(2000),
    ]);
}

#[test]
fn a_reload_goes_on_when_one_app_is_paused_and_another_in_trouble() {
    run_and_settle(&[
        Step::MessageDelay(None),
        Step::Pass(5251),
        Step::Crash(2),
        Step::Signal(Signal::SIGWINCH),
    ]);
}

#[test]
fn a_worker_that_leaves_before_it_matures_does_not_keep_the_loop_awake() {
    let stuck = Written {
        code: Code::NeverReady,
        listeners: 0,
        ..Written::good(5)
    };
    run_and_settle(&[
        Step::Write(0, Some(stuck)),
        Step::Signal(Signal::SIGHUP),
        Step::Pass(1070),
        Step::Signal(Signal::SIGTTIN),
        Step::Leaves(2),
        Step::Stopped(4701),
        Step::Write(0, None),
    ]);
}

#[test]
fn no_process_takes_the_place_of_a_worker_that_its_template_was_not_asked_for() {
    let web = Written {
        template: true,
        ..Written::good(1)
    };
    // By the socket of the template that runs, and by that of the candidate, which is loading.
    for template in 0..2 {
        let mut history = History::new(&[("web", web)]);
        history.pass(10_000);
        history.send(Signal::SIGHUP);
        history.pass(100);
        assert_eq!(history.kernel().replies.len(), 2);
        history.take(&Step::Forges(template, 1));
        history.pass(10_000);
        let outcome = history.master.release.outcome();
        assert_eq!(outcome, Some(&release::Outcome::Done(2)), "{template}");
    }
}

#[test]
fn a_process_whose_ticket_another_one_has_claimed_has_ended_before_its_app_is_forgotten() {
    let api = Written {
        template: true,
        listeners: 0,
        ..Written::good(1)
    };
    run_and_settle(&[
        Step::Pass(196),
        Step::Signal(Signal::SIGHUP),
        Step::Write(0, Some(api)),
        Step::Pass(224),
        Step::Stopped(300),
        Step::Forges(0, 0),
        Step::Stopped(6000),
    ]);
}

#[test]
fn a_worker_may_be_started_and_its_app_removed_in_the_same_turn() {
    let alone = Written {
        replace: Replace::StopFirst,
        listeners: 0,
        ..Written::good(1)
    };
    let off = Written {
        enabled: false,
        ..alone
    };
    run_and_settle(&[
        Step::Write(
            2,
            Some(Written {
                before: Some(End::Badly),
                ..off
            }),
        ),
        Step::Write(0, Some(off)),
        Step::Request("stop web"),
        Step::Request("start api web"),
        Step::Pass(50),
    ]);
}
