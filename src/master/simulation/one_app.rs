//! Commands about single apps.

use super::disk::PERIODIC;
use super::*;

/// What clients have asked for, and the apps that must be down because of it.
#[derive(Default)]
pub(super) struct Orders {
    sent: BTreeMap<i32, Vec<String>>,
    /// The last request that starts an app.
    started: BTreeMap<Name, i32>,
    down: BTreeSet<Name>,
}

impl Orders {
    pub(super) fn sent(&mut self, number: i32, order: &str) {
        let words: Vec<_> = order.split(' ').map(str::to_owned).collect();
        if let [what, names @ ..] = &words[..]
            && (what == "start" || what == "restart")
        {
            for name in names {
                let name = Name::from(name.as_str());
                self.down.remove(&name);
                self.started.insert(name, number);
            }
        }
        self.sent.insert(number, words);
    }

    /// Whether a restart was not answered.
    pub(super) fn is_restarting(&self, answers: &BTreeMap<i32, String>) -> bool {
        let mut sent = self.sent.iter();
        sent.any(|(number, words)| words[0] == "restart" && !answers.contains_key(number))
    }

    fn answered(&mut self, number: i32, answer: &str) {
        let Some([what, names @ ..]) = self.sent.get(&number).map(Vec::as_slice) else {
            return;
        };
        if what != "stop" || !answer.starts_with("ok") {
            return;
        }
        for name in names {
            let name = Name::from(name.as_str());
            if self.started.get(&name).is_none_or(|start| *start < number) {
                self.down.insert(name);
            }
        }
    }
}

impl History {
    /// A stopped app has no process from the answer on, until somebody starts it.
    pub(super) fn check_stopped(&mut self) {
        let kernel = &mut self.master.turn.world;
        for number in std::mem::take(&mut kernel.answered) {
            self.orders.answered(number, &kernel.answers[&number]);
        }
        // One that is taken out of the configuration is forgotten.
        let plan = self.master.current.as_ref();
        let knows = |name: &Name| plan.is_none_or(|plan| plan.knows(name));
        self.orders.down.retain(knows);
        // A probe is a process of ours.
        let is_of_app =
            |process: &&Process| !matches!(process.kind, Kind::Job(_)) || &*process.app == PERIODIC;
        let mut processes = kernel.processes.values().filter(is_of_app);
        let left = processes
            .find(|process| process.dead.is_none() && self.orders.down.contains(&process.app));
        assert!(left.is_none(), "{left:?} runs, and its app is stopped");
        let mut open = kernel.listeners.keys();
        let left = open.find(|address| self.orders.down.contains(&disk::app_at(address)));
        assert!(left.is_none(), "{left:?} is open, and its app is stopped");
    }

    /// The workers and templates of an app.
    fn processes_of(&mut self, name: &str) -> BTreeSet<Pid> {
        let processes = self.kernel().processes.iter();
        let of = processes.filter(|(_, process)| {
            &*process.app == name && !matches!(process.kind, Kind::Job(_)) && !process.signalled
        });
        of.map(|(&pid, _)| pid).collect()
    }

    fn answer(&mut self, order: &str) -> String {
        let number = self.kernel().asked as i32;
        self.order(order);
        self.pass(20_000);
        let answers = &self.kernel().answers;
        answers.get(&number).cloned().unwrap_or_default()
    }

    fn stands(&mut self, name: &str) -> bool {
        let number = self.kernel().asked as i32;
        self.order("status");
        self.pass(0);
        let answer = &self.kernel().answers[&number];
        let json = answer.strip_prefix("ok\n").expect("a status");
        let status: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let apps = status["apps"].as_array().expect("a list");
        let mut apps = apps.iter();
        !apps.any(|app| app["name"] == name && app["stopped"] == "by command")
    }
}

/// What happens to `web` and `api`, beside an app that nobody names.
fn step_of_others() -> impl Strategy<Value = Step> {
    let order = prop_oneof![
        Just("reload web"),
        Just("reload api web"),
        Just("stop web"),
        Just("stop api"),
        Just("start web"),
        Just("start api web"),
        Just("restart web"),
        Just("restart api web"),
        Just("status"),
    ];
    prop_oneof![
        4 => (prop_oneof![Just(0usize), Just(2)], prop::option::weighted(0.8, written()))
            .prop_map(|(n, written)| Step::Write(n, written)),
        1 => any::<bool>().prop_map(Step::Spoil),
        1 => any::<bool>().prop_map(Step::NoListeners),
        8 => order.prop_map(Step::Request),
        4 => (0..400u64).prop_map(Step::Pass),
        2 => (0..20_000u64).prop_map(Step::Pass),
    ]
}

/// A step, or a reload of all apps.
fn step_of_all() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => step_of_others(),
        1 => Just(Step::Signal(Signal::SIGHUP)),
        1 => Just(Step::Request("reload")),
    ]
}

/// An app that keeps its workers while nobody touches it.
fn steady() -> impl Strategy<Value = Written> {
    let number = prop_oneof![Just(1u32), Just(2), Just(4)];
    (written(), number).prop_map(|(app, workers)| Written {
        code: Code::Good,
        workers,
        check: app.check.map(|_| End::Well),
        before: app.before.map(|_| End::Well),
        ordered: false,
        missing: false,
        enabled: true,
        ..app
    })
}

fn stays(queue: Written, steps: &[Step]) {
    let mut history = History::new(&[("queue", queue), ("web", Written::good(2))]);
    history.pass(5000);
    let before = history.processes_of("queue");
    assert_eq!(
        before.len() as u32,
        queue.workers + u32::from(queue.template)
    );
    for step in steps {
        history.take(step);
        assert_eq!(history.processes_of("queue"), before);
    }
    history.stop_faults();
    history.pass(100_000);
    assert_eq!(history.processes_of("queue"), before);
    assert_eq!(*history.master.release.state(), State::Idle);
    let kernel = history.kernel();
    assert_eq!(kernel.answers.len() as u32, kernel.asked);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_app_that_nobody_names_keeps_its_processes(
        queue in steady(),
        steps in prop::collection::vec(step_of_others(), 0..20),
    ) {
        stays(queue, &steps);
    }

    #[test]
    fn an_app_without_changes_keeps_its_processes_at_reloads(
        queue in steady(),
        steps in prop::collection::vec(step_of_all(), 0..20),
    ) {
        let queue = Written { on_change: true, ..queue };
        stays(queue, &steps);
    }
}

/// A master with `web`, and an app that is due in each minute. Its clock shows 01:00:05.
fn with_schedule(end: End, enabled: bool) -> History {
    let mut history = History::with(Disk {
        apps: [("web", Written::good(2))].into(),
        periodic: Some(Periodic {
            cron: "* * * * *",
            end,
            timeout: None,
            enabled,
        }),
        spoilt: false,
    });
    history.pass(5000);
    history
}

const MINUTE: u64 = 60_000;

#[test]
fn a_stop_of_an_app_with_a_schedule_waits_for_the_run_that_goes_on() {
    let mut history = with_schedule(End::IgnoresSignals, true);
    history.pass(MINUTE);
    let web = history.processes_of("web");
    let number = history.kernel().asked as i32;
    history.order("stop periodic");
    history.pass(9900);
    let answers = &history.kernel().answers;
    assert!(!answers.contains_key(&number), "the run goes on");
    history.pass(200);
    let answer = &history.kernel().answers[&number];
    assert_eq!(answer, "ok\nperiodic: stopped\n");
    assert!(!history.stands(PERIODIC));
    assert_eq!(
        history.answer("reload periodic"),
        "error periodic is stopped (start it with `preforkd start periodic`)\n"
    );
    history.pass(5 * MINUTE);
    assert_eq!(history.kernel().runs, 1);
    assert_eq!(history.processes_of("web"), web);
    history.send(Signal::SIGHUP);
    history.pass(2 * MINUTE);
    assert_eq!(history.kernel().runs, 1, "a reload does not start it");
    assert!(history.answer("start periodic").starts_with("ok"));
    assert!(history.stands(PERIODIC));
    history.pass(MINUTE);
    assert_eq!(history.kernel().runs, 2);
}

#[test]
fn a_start_of_an_app_with_a_schedule_waits_for_the_run_that_ends() {
    let mut history = with_schedule(End::IgnoresSignals, true);
    history.pass(MINUTE);
    history.order("stop periodic");
    history.pass(1000);
    let number = history.kernel().asked as i32;
    history.order("start periodic");
    history.pass(1000);
    assert!(!history.kernel().answers.contains_key(&number));
    history.pass(10_000);
    assert!(history.kernel().answers[&number].starts_with("ok"));
    history.pass(MINUTE);
    assert_eq!(history.kernel().runs, 2);
}

#[test]
fn an_app_with_a_schedule_that_is_not_enabled_is_started_by_a_command() {
    let mut history = with_schedule(End::Well, false);
    history.pass(2 * MINUTE);
    assert_eq!(history.kernel().runs, 0);
    assert!(history.answer("start periodic").starts_with("ok"));
    history.send(Signal::SIGHUP);
    history.pass(MINUTE);
    assert_eq!(history.kernel().runs, 1);
}

#[test]
fn a_command_about_another_app_ends_no_pause_of_a_schedule() {
    let mut history = with_schedule(End::Well, true);
    history.take(&Step::Signal(Signal::SIGWINCH));
    for order in ["stop web", "start web", "reload web"] {
        assert!(history.answer(order).starts_with("ok"), "{order}");
        history.pass(2 * MINUTE);
        assert_eq!(history.kernel().runs, 0, "{order}");
    }
    for order in ["reload periodic", "start periodic"] {
        history.take(&Step::Signal(Signal::SIGWINCH));
        history.pass(2 * MINUTE);
        let before = history.kernel().runs;
        assert!(history.answer(order).starts_with("ok"), "{order}");
        history.pass(2 * MINUTE);
        assert!(history.kernel().runs > before, "{order}");
    }
}

#[test]
fn an_app_with_a_schedule_keeps_its_generation_when_others_are_reloaded() {
    let mut history = with_schedule(End::Well, true);
    assert!(history.answer("reload web").starts_with("ok"));
    let generation = |history: &mut History| {
        let wall = history.kernel().clock().wall;
        history.master.schedules.status(wall)[0]["generation"].clone()
    };
    assert_eq!(generation(&mut history), 1);
    let answer = history.answer("reload periodic");
    assert!(answer.starts_with("ok"), "{answer}");
    assert_eq!(generation(&mut history), 3);
}

#[test]
fn a_stop_holds_though_a_reload_takes_the_app_out_and_the_next_one_adds_it() {
    let web = Written::good(2);
    let mut history = History::new(&[("queue", Written::good(1)), ("web", web)]);
    history.pass(400);
    history.take(&Step::Write(2, None));
    history.take(&Step::Signal(Signal::SIGHUP));
    history.take(&Step::Write(2, Some(web)));
    history.take(&Step::Signal(Signal::SIGHUP));
    let answer = history.answer("stop web");
    assert!(answer.starts_with("ok"), "{answer}");
    assert_eq!(history.processes_of("web"), BTreeSet::new());
    assert!(!history.stands("web"));
}

#[test]
fn a_stop_during_the_start_of_an_app_holds() {
    let mut history = History::new(&[("queue", Written::good(1)), ("web", Written::good(2))]);
    history.pass(5000);
    assert!(history.answer("stop web").starts_with("ok"));
    history.take(&Step::Request("start web"));
    history.pass(70);
    assert_eq!(history.processes_of("web").len(), 1, "it is being proven");
    assert_eq!(history.answer("stop web"), "ok\nweb: stopped\n");
    assert_eq!(history.processes_of("web"), BTreeSet::new());
}

#[test]
fn a_pause_during_a_reload_lasts_until_a_later_one() {
    let mut history = History::new(&[("queue", Written::good(1)), ("web", Written::good(2))]);
    history.pass(5000);
    for meanwhile in [0, 20, 70] {
        history.take(&Step::Signal(Signal::SIGHUP));
        history.pass(meanwhile);
        history.take(&Step::Signal(Signal::SIGWINCH));
        history.pass(MINUTE);
        for app in ["queue", "web"] {
            assert_eq!(history.processes_of(app), BTreeSet::new(), "{meanwhile}");
        }
        history.take(&Step::Signal(Signal::SIGHUP));
        history.pass(MINUTE);
        assert_eq!(history.processes_of("web").len(), 2, "{meanwhile}");
    }
}

#[test]
fn a_pause_during_the_start_begins_when_it_is_over() {
    let mut history = History::new(&[("web", Written::good(2))]);
    history.take(&Step::Signal(Signal::SIGWINCH));
    history.pass(MINUTE);
    assert_eq!(history.processes_of("web"), BTreeSet::new());
    assert!(history.master.release.outcome().is_some());
    assert!(history.answer("start web").starts_with("ok"));
    assert_eq!(history.processes_of("web").len(), 2);
}

#[test]
fn a_start_of_an_app_without_a_ready_worker_tries_it_again() {
    let broken = Written::broken();
    let mut history = History::new(&[("queue", broken), ("web", Written::good(2))]);
    history.pass(10_000);
    for (order, beginning) in [
        (
            "start queue",
            "error queue could not be started: app=queue: ",
        ),
        ("reload queue", "error app=queue: "),
    ] {
        let answer = history.answer(order);
        assert!(answer.starts_with(beginning), "{order}: {answer}");
    }
    history.take(&Step::Write(1, Some(Written::good(1))));
    let answer = history.answer("start queue");
    assert!(
        answer.starts_with("ok\nqueue: started\ngeneration"),
        "{answer}"
    );
    assert_eq!(
        history.answer("start queue"),
        "ok\nqueue: already running\n"
    );
}

#[test]
fn a_restart_stops_nothing_while_the_configuration_is_wrong() {
    let mut history = History::new(&[("queue", Written::good(1)), ("web", Written::good(2))]);
    history.pass(10_000);
    let before = history.processes_of("web");
    assert_eq!(before.len(), 2);
    history.take(&Step::Spoil(true));
    let answer = history.answer("restart web");
    assert!(
        answer.starts_with("error ") && answer.ends_with("; nothing was stopped\n"),
        "{answer}"
    );
    assert_eq!(history.processes_of("web"), before);
    history.take(&Step::Spoil(false));
    let answer = history.answer("restart web");
    assert!(
        answer.starts_with("ok\nweb: started\ngeneration 3"),
        "{answer}"
    );
    assert_eq!(history.processes_of("web").len(), 2);
}

/// Apps that run, and the number of a client that has sent this order so many milliseconds ago.
fn ordered(order: &'static str, passed: u64) -> (History, i32) {
    let mut history = History::new(&[("queue", Written::good(1)), ("web", Written::good(2))]);
    history.pass(10_000);
    let number = history.kernel().asked as i32;
    history.take(&Step::Request(order));
    history.pass(passed);
    (history, number)
}

#[test]
fn a_stop_ends_a_restart_that_is_still_being_checked() {
    let (mut history, number) = ordered("restart web", 0);
    assert!(history.answer("stop web").starts_with("ok"));
    assert_eq!(
        history.kernel().answers[&number],
        "error web not started: another command stops web; nothing was stopped\n"
    );
    assert_eq!(history.processes_of("web"), BTreeSet::new());
}

#[test]
fn a_stop_of_one_app_does_not_keep_others_down_that_are_restarted_with_it() {
    // Before the file was read, while the workers end, and while they start.
    for passed in [0, 60, 130] {
        let (mut history, number) = ordered("restart queue web", passed);
        let answer = history.answer("stop queue");
        assert!(answer.starts_with("ok\nqueue: "), "{passed}: {answer}");
        history.pass(10_000);
        let answer = history.kernel().answers[&number].clone();
        let is_void = answer.contains("queue not started: another command stops queue");
        // The last one was done before the stop.
        assert_eq!(is_void, passed < 130, "{passed}: {answer}");
        assert_eq!(answer.starts_with("error "), is_void, "{passed}: {answer}");
        assert_eq!(history.processes_of("queue"), BTreeSet::new());
        assert_eq!(history.processes_of("web").len(), 2, "{passed}: {answer}");
    }
}

#[test]
fn two_restarts_of_an_app_at_once_are_both_done() {
    for passed in [0, 60, 130, 300] {
        let (mut history, number) = ordered("restart web", passed);
        let second = history.answer("restart web");
        history.pass(10_000);
        for answer in [&history.kernel().answers[&number], &second] {
            assert!(answer.starts_with("ok\nweb: started"), "{passed}: {answer}");
        }
        assert_eq!(history.processes_of("web").len(), 2);
    }
}
