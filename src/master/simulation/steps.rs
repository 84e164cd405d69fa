//! What happens in a history, at random.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// An app is added to the configuration, changed, or removed.
    Write(usize, Option<Written>),
    /// A syntax error is made, or corrected.
    Spoil(bool),
    /// The app with a schedule is added, changed, or removed.
    Schedule(Option<Periodic>),
    /// Somebody sets the clock by so many seconds.
    SetClock(i64),
    /// The machine sleeps for so many seconds.
    Sleep(u64),
    /// The master gets a signal: HUP, TTIN, TTOU, WINCH, USR1.
    Signal(Signal),
    /// A client of the control socket sends a request.
    Request(&'static str),
    /// A process chosen by the number dies on its own.
    Crash(usize),
    /// A worker reports that it ends, and does so later.
    Leaves(usize),
    /// A worker asks to be replaced.
    Retires(usize),
    /// A worker begins a request that never ends.
    Hangs(usize),
    /// A request goes to a worker that the front knows, and is answered after so many milliseconds.
    Asks(usize, u64),
    /// A process that is not a worker sends READY=1.
    UnknownProcess(usize),
    /// A process with a template's socket claims to be the worker of this ticket.
    Forges(usize, u64),
    /// The next forks fail, this many.
    NoForks(u32),
    /// Whether opening a listener fails from now on.
    NoListeners(bool),
    /// Something of an app is left of an earlier master for so many milliseconds, which is found when the app is added.
    Left(usize, u64),
    /// Messages from now on are delayed by so many milliseconds; `None`: lost.
    MessageDelay(Option<u64>),
    /// Time passes while the master runs.
    Pass(u64),
    /// Time passes while the master is suspended.
    Stopped(u64),
}

impl History {
    pub(super) fn take(&mut self, step: &Step) {
        let harmless = matches!(
            step,
            Step::Pass(_)
                | Step::Write(..)
                | Step::Spoil(_)
                | Step::Schedule(_)
                | Step::SetClock(_)
                | Step::Sleep(_)
                | Step::Signal(Signal::SIGHUP | Signal::SIGUSR1)
                | Step::Request("status" | "reload" | "reopen")
                | Step::Retires(_)
                | Step::UnknownProcess(_)
                | Step::Asks(..)
                | Step::NoListeners(_)
        );
        if !harmless {
            self.floors.clear();
        }
        match *step {
            Step::Write(n, written) => {
                let apps = &mut self.kernel().disk.apps;
                match written {
                    Some(written) => drop(apps.insert(NAMES[n], written)),
                    None if apps.len() > 1 => drop(apps.remove(NAMES[n])),
                    None => {}
                }
            }
            Step::Schedule(periodic) => self.kernel().disk.periodic = periodic,
            Step::SetClock(seconds) => {
                let by = SignedDuration::from_secs(seconds);
                self.kernel().set_clock(by);
            }
            Step::Sleep(seconds) => {
                self.kernel().slept += Duration::from_secs(seconds);
                self.kernel().ring();
            }
            Step::Spoil(spoilt) => self.kernel().disk.spoilt = spoilt,
            Step::Signal(signal) => self.send(signal),
            Step::Request(order) => self.order(order),
            Step::Crash(n) => {
                if let Some(pid) = self.nth(n) {
                    self.kernel().end(pid, false);
                }
            }
            Step::Leaves(n) => {
                if let Some((pid, _)) = self.worker(n) {
                    let process = self.kernel().processes.get_mut(&pid);
                    process.expect("it lives").leaves = true;
                    self.kernel().send_after(0, pid, "STOPPING=1");
                    self.kernel().after(300, Due::Ends(pid, true));
                }
            }
            Step::Retires(n) => {
                if let Some((pid, app)) = self.worker(n) {
                    self.kernel()
                        .send_message(&app, pid, "RETIRE=it is too old");
                }
            }
            Step::Hangs(n) => {
                if let Some((pid, app)) = self.worker(n) {
                    self.hang(pid, &app);
                }
            }
            Step::Asks(n, milliseconds) => self.kernel().front_asks(n, milliseconds),
            Step::UnknownProcess(n) => {
                let app = Name::from(NAMES[n % NAMES.len()]);
                self.kernel()
                    .send_message(&app, Pid::from_raw(7), "READY=1");
            }
            Step::Forges(n, ticket) => {
                let templates: Vec<_> = self.kernel().replies.keys().copied().collect();
                if let Some(template) = templates.get(n) {
                    let reply = Reply::Forked { ticket };
                    self.kernel().reply(*template, Pid::from_raw(7), reply);
                }
            }
            Step::NoForks(number) => self.kernel().failing_forks = number,
            Step::NoListeners(refuses) => self.kernel().refuses_listeners = refuses,
            Step::Left(n, milliseconds) => {
                let until = self.kernel().now + Duration::from_millis(milliseconds);
                self.kernel().earlier.insert(NAMES[n].into(), until);
            }
            Step::MessageDelay(delay) => self.kernel().delay = delay,
            Step::Pass(milliseconds) => self.pass(milliseconds),
            Step::Stopped(milliseconds) => {
                let to = self.kernel().now + Duration::from_millis(milliseconds);
                return self.kernel().advance(to);
            }
        }
        self.pass(0);
    }

    fn hang(&mut self, pid: Pid, app: &Name) {
        let since = self.kernel().nanoseconds();
        let Some(process) = self
            .kernel()
            .processes
            .get_mut(&pid)
            .filter(|process| process.ready)
        else {
            return;
        };
        process.busy_since = Some(since);
        if std::mem::take(&mut process.marked) {
            self.kernel().send_message(app, pid, "BUSY=1");
        }
    }

    /// From now on there are no faults.
    pub(super) fn stop_faults(&mut self) {
        let kernel = self.kernel();
        kernel.failing_forks = 0;
        kernel.earlier.clear();
        kernel.refuses_listeners = false;
        kernel.delay = Some(0);
        kernel.disk.spoilt = false;
        kernel.disk.periodic = None;
        for written in kernel.disk.apps.values_mut() {
            written.code = Code::Good;
            written.enabled = true;
            written.missing = false;
            written.check = written.check.map(|_| End::Well);
            written.before = written.before.map(|_| End::Well);
        }
    }
}

pub(super) fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Well),
        1 => Just(End::Badly),
        1 => Just(End::Hangs),
        1 => Just(End::IgnoresSignals),
    ]
}

pub(super) fn written() -> impl Strategy<Value = Written> {
    let code = prop_oneof![
        4 => Just(Code::Good),
        1 => Just(Code::Broken),
        1 => Just(Code::NeverReady),
        1 => Just(Code::IgnoresSignals),
    ];
    let rare = || prop::option::weighted(0.2, end());
    let part = (
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    let reloads = (prop::bool::weighted(0.9), prop::bool::weighted(0.3));
    let kind = prop_oneof![
        6 => Just((Replace::StartFirst, Restart::Always)),
        2 => Just((Replace::StopFirst, Restart::Always)),
        1 => Just((Replace::StartFirst, Restart::OnFailure)),
        1 => Just((Replace::StopFirst, Restart::Never)),
    ];
    let all = (
        code,
        1..6u32,
        any::<bool>(),
        rare(),
        rare(),
        0..3u8,
        (kind, part, reloads),
    );
    all.prop_map(
        |(
            code,
            workers,
            template,
            check,
            before,
            listeners,
            ((replace, restart), (required, missing, ordered), (enabled, on_change)),
        )| Written {
            code,
            workers,
            // Only programs may be alone or end.
            template: template && (replace, restart) == (Replace::StartFirst, Restart::Always),
            check,
            before,
            listeners,
            required,
            missing,
            ordered,
            replace,
            restart,
            enabled,
            on_change,
        },
    )
}

pub(super) fn periodic() -> impl Strategy<Value = Periodic> {
    let cron = prop_oneof![
        Just("*/7 * * * * *"),
        Just("*/2 * * * *"),
        Just("30 1 * * *")
    ];
    let timeout = (1..60u64).prop_map(|seconds| Some(Duration::from_secs(seconds)));
    let enabled = prop::bool::weighted(0.8);
    let all = (cron, end(), timeout, enabled);
    all.prop_map(|(cron, end, timeout, enabled)| Periodic {
        cron,
        end,
        timeout,
        enabled,
    })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let signal = prop_oneof![
        3 => Just(Signal::SIGHUP),
        1 => Just(Signal::SIGTTIN),
        1 => Just(Signal::SIGTTOU),
        1 => Just(Signal::SIGWINCH),
        1 => Just(Signal::SIGUSR1),
    ];
    let order = prop_oneof![
        Just("status"),
        Just("reload"),
        Just("reopen"),
        Just("scale web=+1"),
        Just("scale queue=2"),
        Just("dance"),
        Just("reload web"),
        Just("reload queue web"),
        Just("reload none"),
        Just("stop web"),
        Just("stop queue api"),
        Just("start web"),
        Just("start queue web"),
        Just("restart web"),
        Just("restart api queue"),
        Just("reload periodic"),
        Just("stop periodic"),
        Just("start periodic"),
        Just("restart periodic web"),
    ];
    prop_oneof![
        4 => (0..3usize, prop::option::weighted(0.8, written())).prop_map(|(n, written)| Step::Write(n, written)),
        1 => any::<bool>().prop_map(Step::Spoil),
        2 => prop::option::weighted(0.8, periodic()).prop_map(Step::Schedule),
        1 => (-20_000..20_000i64).prop_map(Step::SetClock),
        1 => (0..20_000u64).prop_map(Step::Sleep),
        6 => signal.prop_map(Step::Signal),
        4 => order.prop_map(Step::Request),
        3 => (0..12usize).prop_map(Step::Crash),
        1 => (0..8usize).prop_map(Step::Leaves),
        1 => (0..8usize).prop_map(Step::Retires),
        1 => (0..8usize).prop_map(Step::Hangs),
        1 => (0..3usize).prop_map(Step::UnknownProcess),
        4 => (0..9usize, 0..9_000u64).prop_map(|(n, time)| Step::Asks(n, time)),
        1 => (0..3usize, 0..12u64).prop_map(|(n, ticket)| Step::Forges(n, ticket)),
        1 => (0..6u32).prop_map(Step::NoForks),
        1 => any::<bool>().prop_map(Step::NoListeners),
        1 => (0..3usize, 0..60_000u64).prop_map(|(n, time)| Step::Left(n, time)),
        1 => prop::option::of(0..500u64).prop_map(Step::MessageDelay),
        4 => (0..400u64).prop_map(Step::Pass),
        2 => (0..20_000u64).prop_map(Step::Pass),
        2 => (0..9000u64).prop_map(Step::Stopped),
    ]
}
