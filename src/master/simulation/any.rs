//! Any history, and its end: without faults everything settles, and a stop ends everything.

use super::*;

/// A history, then a world without faults and a last reload: every app must have all its wanted workers, of that reload.
pub(super) fn run_and_settle(steps: &[Step]) {
    let mut history = run_steps(steps);
    history.stop_faults();
    let answers = &history.master.turn.world.answers;
    if history.outcome.is_none() && history.orders.is_restarting(answers) {
        // Otherwise it stops its apps after the following starts, and they stay stopped if the configuration lacks one of them by then.
        history.pass(600_000);
    }
    if history.outcome.is_none() {
        for order in ["start api", "start queue", "start web", "reload"] {
            history.take(&Step::Request(order));
            history.pass(600_000);
        }
    }
    if history.outcome == Some(Outcome::CouldNotStart) {
        // A fault came before anything was ready.
        return;
    }
    // A worker may just be recycled for its age.
    for _ in 0..40 {
        let mut apps = history.master.workers.apps.values();
        if apps.all(|app| app.supervisor.is_settled()) && history.kernel().is_quiet() {
            break;
        }
        history.pass(500);
    }
    let Master {
        workers,
        release,
        turn,
        jobs,
        ..
    } = &history.master;
    let kernel = &turn.world;
    assert_eq!(*release.state(), State::Idle, "every release has ended");
    let generation = release.current().expect("something runs");
    assert_eq!(release.outcome(), Some(&release::Outcome::Done(generation)));
    assert!(jobs.all(|_| false));
    let configured: BTreeSet<_> = workers.apps.keys().map(|name| &**name).collect();
    assert_eq!(configured, kernel.disk.apps.keys().copied().collect());
    let (mut wanted, mut templates, mut kept) = (0, 0, 0);
    for (name, app) in &workers.apps {
        assert!(app.supervisor.is_settled(), "without faults {name} settles");
        let counts = app.supervisor.counts();
        wanted += counts.wanted - counts.finished - counts.failed;
        let written = kernel.disk.apps[&**name];
        templates += u32::from(written.template);
        // No reload starts the template of such an app again if it has crashed and no worker is needed.
        kept += u32::from(written.template && written.on_change);
    }
    let most = wanted + templates;
    let number = kernel.processes.len() as u32;
    assert!(
        (most - kept..=most).contains(&number),
        "{number} of {most}: {:?}",
        kernel.processes
    );
    for process in kernel.processes.values() {
        let own = workers.apps[&process.app].supervisor.generation();
        assert_eq!(Some(process.generation), own, "{process:?}");
        let may_be_kept = kernel.disk.apps[&*process.app].on_change;
        assert!(
            process.generation == generation || may_be_kept,
            "{process:?}"
        );
    }
    kernel.check_all_are_told();
    assert_eq!(
        kernel.answers.len() as u32,
        kernel.asked,
        "every client was answered"
    );
    assert!(kernel.proposed.is_empty(), "{:?}", kernel.proposed);
    let last = |which: fn(&Notice) -> bool| kernel.notices.iter().rposition(which);
    let reloading = last(|notice| *notice == Notice::Reloading);
    let ready = last(|notice| matches!(notice, Notice::Ready(_)));
    assert!(ready > reloading, "the init system is told of the end");
}

/// A history, then a stop: everything ends and is reaped.
fn run_and_stop(steps: &[Step], signal: Option<Signal>) {
    let mut history = run_steps(steps);
    history.floors.clear();
    if history.outcome.is_none() {
        history.order("stop");
        if let Some(signal) = signal {
            history.urgent = true;
            history.send(signal);
        }
        history.pass(400_000);
    }
    let kernel = &history.master.turn.world;
    assert!(history.outcome.is_some(), "it ends: {:?}", kernel.processes);
    assert!(kernel.processes.is_empty());
    assert!(kernel.answers.len() as u32 >= kernel.asked.saturating_sub(1));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_keeps_the_promises_and_settles(steps in prop::collection::vec(step(), 0..30)) {
        run_and_settle(&steps);
    }

    #[test]
    fn a_stop_ends_any_history(
        steps in prop::collection::vec(step(), 0..30),
        signal in prop::option::of(prop_oneof![Just(Signal::SIGTERM), Just(Signal::SIGINT)]),
    ) {
        run_and_stop(&steps, signal);
    }
}
