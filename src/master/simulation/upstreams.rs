//! What the front knows of the workers of apps.

use preforkd_worker::updates::Ready;

use super::disk::UNTOLD;
use super::*;

/// What the front was told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The latest state of each app.
    ready: BTreeMap<String, Ready>,
    /// News that it has not taken in.
    news: u32,
    /// Where it sends requests.
    used: BTreeSet<String>,
    /// The requests that run, each with its number and where it runs.
    requests: BTreeMap<u64, String>,
    /// Since when an address was not told any more.
    taken_out: BTreeMap<String, Instant>,
    /// Everything is to end at once.
    hurried: bool,
}

/// How long it takes to take news in, in milliseconds.
const LAG: u64 = 3;

impl Heard {
    pub fn take(&mut self, app: &Name, state: Option<&str>, now: Instant) {
        let sent: BTreeSet<_> = self.addresses().map(str::to_owned).collect();
        let ready = state.map(|state| Ready::parse(state.as_bytes()).expect("a state"));
        // The workers of this one share an address.
        let is_told = |ready: &Ready| &**app != UNTOLD || ready.workers.is_empty();
        assert!(ready.iter().all(is_told), "{ready:?}");
        let before = match ready.clone() {
            Some(ready) => self.ready.insert(app.to_string(), ready),
            None => self.ready.remove(&**app),
        };
        assert_ne!(before, ready, "only what has changed is told");
        let gone = sent.into_iter().filter(|sent| {
            let mut addresses = self.addresses();
            !addresses.any(|address| address == sent)
        });
        let gone: Vec<_> = gone.map(|gone| (gone, now)).collect();
        self.taken_out.extend(gone);
        self.news += 1;
    }

    /// A signal to the master was sent.
    pub fn signalled(&mut self, signal: Signal) {
        self.hurried |= matches!(signal, Signal::SIGTERM | Signal::SIGINT);
    }

    fn addresses(&self) -> impl Iterator<Item = &str> {
        let workers = self.ready.values().flat_map(|ready| &ready.workers);
        workers.map(|worker| worker.address.as_str())
    }
}

/// The address of a worker that has a listener of its own.
fn address(process: &Process) -> Option<String> {
    match process.kind {
        Kind::Worker {
            record: Some(record),
            ..
        } => Some(format!("unix:/{}.front.{record}", process.app)),
        _ => None,
    }
}

impl Kernel {
    /// A worker is told to end: the front sends it no requests any more.
    pub(super) fn is_told_after_front(&self, pid: Pid) {
        if let Some(address) = self.processes.get(&pid).and_then(address) {
            let sends = self.heard.addresses().any(|known| known == address);
            assert!(!sends, "{address} is told to end, and gets requests");
        }
    }

    /// The front takes news in, and sends requests where they tell.
    pub(super) fn front_hears(&mut self) {
        self.heard.news -= 1;
        if self.heard.news == 0 {
            self.heard.used = self.heard.addresses().map(str::to_owned).collect();
        }
    }

    pub(super) fn front_is_told(&mut self, app: &Name, state: Option<&str>) {
        self.heard.take(app, state, self.now);
        self.after(LAG, Due::FrontHears);
    }

    /// A request goes to a worker that the front knows, if it lives, and is answered after so many milliseconds.
    pub(super) fn front_asks(&mut self, n: usize, milliseconds: u64) {
        let used = &self.heard.used;
        let Some(address) = used.iter().nth(n % used.len().max(1)).cloned() else {
            return;
        };
        let mut processes = self.processes.values();
        // The front may still know the address of a worker that has crashed, whose replacement serves nobody yet.
        let listens = |process: &Process| {
            let serves = process.dead.is_none() && process.ready;
            serves && self::address(process).as_ref() == Some(&address)
        };
        if processes.any(listens) {
            self.after(milliseconds, Due::Answered(self.ticket + 1));
            self.heard.requests.insert(self.ticket, address);
        }
    }

    pub(super) fn is_answered(&mut self, request: u64) {
        self.heard.requests.remove(&request);
    }

    /// The requests end that run at a process.
    pub(super) fn breaks_off(&mut self, pid: Pid) {
        if let Some(address) = self.processes.get(&pid).and_then(address) {
            self.heard.requests.retain(|_, at| *at != address);
        }
    }

    /// See [`World::requests_at`].
    pub(super) fn requests_at(&self, address: &str) -> Option<u64> {
        let running = self.heard.requests.values();
        let number = running.filter(|at| *at == address).count() as u64;
        (self.heard.news == 0).then_some(number)
    }

    /// Whether it was taken out: it goes on with its requests, and is told to end after them.
    pub(super) fn is_taken_out(&self, process: &Process) -> bool {
        let Some(address) = address(process).filter(|_| process.ends_quiet) else {
            return false;
        };
        let sends = self.heard.addresses().any(|known| known == address);
        self.heard.taken_out.contains_key(&address) && !sends
    }

    /// A program with an address of its own is told to end when no request runs there, or half of its time has passed.
    pub(super) fn is_told_when_quiet(&self, pid: Pid, signal: Signal) {
        let process = self
            .processes
            .get(&pid)
            .filter(|_| signal == Signal::SIGTERM);
        let waits = |process: &&Process| {
            let is_first = !process.signalled && !process.leaves && process.busy_since.is_none();
            process.ends_quiet && is_first && process.dead.is_none() && !self.heard.hurried
        };
        let Some(address) = process.filter(waits).and_then(address) else {
            return;
        };
        let since = self.heard.taken_out.get(&address);
        let waited = since.map(|since| self.now - *since);
        let is_quiet = !self.heard.requests.values().any(|at| *at == address);
        let most = crate::plan::App::example(1).policy.quiet_timeout();
        assert!(
            is_quiet || waited.is_some_and(|waited| waited >= most),
            "{address} is told to end with requests, after {waited:?}"
        );
    }

    /// Requests go only to workers that were not reaped.
    pub(super) fn check_upstreams(&self) {
        let all: BTreeSet<_> = self.processes.values().filter_map(address).collect();
        for known in self.heard.addresses() {
            assert!(all.contains(known), "{known}, and there are {all:?}");
        }
    }

    /// When all has settled, requests go to all workers.
    pub(super) fn check_all_are_told(&self) {
        let known: BTreeSet<_> = self.heard.addresses().map(str::to_owned).collect();
        let processes = self.processes.values();
        let serving = processes.filter(|process| process.dead.is_none() && *process.app != *UNTOLD);
        let serving: BTreeSet<_> = serving.filter_map(address).collect();
        assert_eq!(known, serving);
    }
}

/// A reload under way: those that end are taken out before they are told, and the new ones are there when it is done.
#[test]
fn a_reload_takes_the_old_workers_out_and_brings_the_new_ones_in() {
    let mut history = History::new(&[("web", Written::good(4))]);
    history.pass(5_000);
    history.kernel().check_all_are_told();
    let web: Vec<_> = history
        .kernel()
        .heard
        .addresses()
        .map(str::to_owned)
        .collect();
    assert_eq!(web.len(), 4);
    history.take(&Step::Request("reload web"));
    history.pass(60_000);
    history.kernel().check_all_are_told();
    assert_eq!(history.kernel().heard.addresses().count(), 4);
    let generations = history.kernel().processes.values();
    assert!(
        generations
            .map(|process| process.generation)
            .all(|generation| generation == 2)
    );
}

/// An app whose workers have an address each, and one whose workers share one.
const NAMES: [&str; 2] = ["web", UNTOLD];

/// Whether the front refuses the requests of an app, and whether a worker of it runs or was requested.
fn refuses(history: &mut History, name: &str) -> (bool, bool) {
    let app = history.master.workers.apps.get(name);
    let counts = app.map(|app| app.supervisor.counts());
    let has_worker = counts.is_some_and(|counts| counts.ready + counts.starting > 0);
    let told = history.kernel().heard.ready.get(name);
    (told.is_some_and(|ready| ready.refuses), has_worker)
}

/// Ends all workers of an app, as a crash does.
fn crash(history: &mut History, name: &str) {
    let processes = history.kernel().processes.iter();
    let theirs = processes.filter(|(_, process)| &*process.app == name);
    for pid in theirs.map(|(pid, _)| *pid).collect::<Vec<_>>() {
        history.kernel().end(pid, false);
    }
    history.floors.clear();
}

#[test]
fn requests_of_an_app_that_is_not_required_wait_only_for_a_worker_that_starts_until_it_has_served()
{
    let broken = Written::broken();
    let mut history = History::new(&[("api", Written::good(1)), ("web", broken)]);
    history.pass(10_000);
    let mut seen = BTreeSet::new();
    for _ in 0..600 {
        history.pass(100);
        let (refuses, has_worker) = refuses(&mut history, "web");
        assert_eq!(refuses, !has_worker);
        seen.insert(refuses);
    }
    assert!(seen.contains(&true));
    let cured = Written {
        code: Code::Good,
        ..broken
    };
    history.kernel().disk.apps.insert("web", cured);
    history.send(Signal::SIGHUP);
    history.pass(60_000);
    history.kernel().check_all_are_told();
    for _ in 0..10 {
        crash(&mut history, "web");
        history.pass(1);
        assert!(!refuses(&mut history, "web").0, "it is started again");
    }
}

#[test]
fn requests_of_a_required_app_wait_for_its_next_worker() {
    let mut history = History::new(&[("web", Written::good(1))]);
    for _ in 0..100 {
        history.pass(100);
        assert!(!refuses(&mut history, "web").0);
    }
    for _ in 0..10 {
        crash(&mut history, "web");
        for _ in 0..100 {
            history.pass(1);
            assert!(!refuses(&mut history, "web").0);
        }
    }
}

#[test]
fn requests_of_an_app_are_refused_while_it_is_stopped_and_not_while_it_is_restarted() {
    for name in NAMES {
        let apps = [("api", Written::good(1)), (name, Written::good(2))];
        let mut history = History::new(&apps);
        history.pass(10_000);
        history.order(&format!("restart {name}"));
        let mut without = 0;
        for _ in 0..10_000 {
            history.pass(1);
            let (refuses, has_worker) = refuses(&mut history, name);
            assert!(!refuses);
            without += u32::from(!has_worker);
        }
        assert!(without > 0, "it had none in between");
        history.kernel().check_all_are_told();
        history.order(&format!("stop {name}"));
        history.pass(20_000);
        assert_eq!(refuses(&mut history, name), (true, false));
        assert!(!refuses(&mut history, "api").0);
        history.send(Signal::SIGHUP);
        history.pass(10_000);
        assert_eq!(refuses(&mut history, name), (true, false));
        history.order(&format!("start {name}"));
        for _ in 0..10_000 {
            history.pass(1);
            let (refuses, has_worker) = refuses(&mut history, name);
            assert!(!(refuses && has_worker), "it is about to serve");
        }
        assert_eq!(refuses(&mut history, name), (false, true));
        history.kernel().check_all_are_told();
    }
}

#[test]
fn requests_of_an_app_that_is_disabled_are_refused() {
    for name in NAMES {
        let disabled = Written {
            enabled: false,
            ..Written::good(1)
        };
        let mut history = History::new(&[("api", Written::good(1)), (name, disabled)]);
        history.pass(10_000);
        assert_eq!(refuses(&mut history, name), (true, false));
    }
}

#[test]
fn requests_of_an_app_that_was_given_up_are_refused() {
    for name in NAMES {
        for required in [false, true] {
            let app = Written {
                required,
                ..Written::good(4)
            };
            let mut history = History::new(&[("api", Written::good(1)), (name, app)]);
            history.pass(10_000);
            assert_eq!(refuses(&mut history, name), (false, true));
            for _ in 0..2_000 {
                crash(&mut history, name);
                history.pass(100);
            }
            let app = &history.master.workers.apps[name];
            assert!(app.supervisor.is_given_up());
            assert_eq!(refuses(&mut history, name), (true, false));
        }
    }
}

/// A program with an address of its own is told when its requests are answered, and at half of its time.
#[test]
fn a_worker_with_an_address_of_its_own_is_told_to_end_when_it_is_quiet() {
    for (lasts, waits) in [(0, 0), (900, 900), (60_000, 5_000)] {
        let mut history = History::new(&[("web", Written::good(1))]);
        history.pass(5_000);
        history.take(&Step::Asks(0, lasts));
        history.take(&Step::Request("stop web"));
        let begun = history.kernel().now;
        for _ in 0..600 {
            let mut processes = history.kernel().processes.values();
            if processes.any(|process| process.signalled) {
                break;
            }
            history.pass(10);
        }
        let waited = history.kernel().now - begun;
        let waited = u64::try_from(waited.as_millis()).expect("some seconds");
        assert!((waits..waits + 150).contains(&waited), "{lasts}: {waited}");
    }
}

/// A template says that a worker has arrived which does not exist, and the messages of the one that does are lost.
#[test]
fn requests_never_go_to_a_worker_of_a_template_that_does_not_exist() {
    let api = Written {
        template: true,
        required: false,
        ..Written::good(5)
    };
    run_steps(&[
        Step::Write(0, Some(api)),
        Step::Signal(Signal::SIGHUP),
        Step::Pass(820),
        Step::MessageDelay(None),
        Step::Signal(Signal::SIGHUP),
        Step::Pass(5320),
        Step::Crash(5),
        Step::Crash(5),
        Step::Forges(0, 5),
        Step::Pass(300),
    ]);
}
