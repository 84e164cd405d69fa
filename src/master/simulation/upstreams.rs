//! What the front knows of the workers of apps.

use preforkd_worker::updates::Ready;

use super::disk::UNTOLD;
use super::*;

/// What the front was told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The latest state of each app.
    ready: BTreeMap<String, Ready>,
}

impl Heard {
    pub fn take(&mut self, app: &Name, state: Option<&str>) {
        assert_ne!(&**app, UNTOLD);
        let ready = state.map(|state| Ready::parse(state.as_bytes()).expect("a state"));
        let before = match ready.clone() {
            Some(ready) => self.ready.insert(app.to_string(), ready),
            None => self.ready.remove(&**app),
        };
        assert_ne!(before, ready, "only what has changed is told");
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
