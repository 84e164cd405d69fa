//! Front workers, and what they know of the workers of other apps.

use preforkd_worker::upstreams::Ready;

use super::disk::FRONT;
use super::*;

/// What a front worker was told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The latest state of each app.
    ready: BTreeMap<String, Ready>,
    /// Its socket is full.
    full: bool,
}

impl Heard {
    fn knows(&self, app: &Name, address: &str) -> bool {
        let ready = self.ready.get(&**app);
        ready.is_some_and(|ready| ready.workers.iter().any(|worker| worker.address == address))
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
    /// A front worker is told something, or its socket is full.
    pub(super) fn hear(&mut self, pid: Pid, state: &str) -> bool {
        let process = self.processes.get(&pid).expect("it was not reaped");
        assert_eq!(&*process.app, FRONT);
        let is_dead = process.dead.is_some();
        let heard = self.heard.entry(pid).or_default();
        if heard.full {
            return false;
        }
        if self.ticket % 5 == 3 && !is_dead {
            heard.full = true;
            self.after(20, Due::Reads(pid));
            return false;
        }
        let ready = Ready::parse(state.as_bytes()).expect("a state");
        heard.ready.insert(ready.app.clone(), ready);
        true
    }

    pub(super) fn reads(&mut self, pid: Pid) {
        if let Some(heard) = self.heard.get_mut(&pid) {
            heard.full = false;
            // The next one that fills the socket is another one.
            self.ticket += 1;
            self.sources.insert(Source::Front(pid));
        }
    }

    /// Front workers that have read all they were told.
    fn informed(&self) -> impl Iterator<Item = &Heard> {
        let all = self.heard.iter().filter(|(pid, heard)| {
            let lives = self
                .processes
                .get(pid)
                .is_some_and(|process| process.dead.is_none());
            lives && !heard.full
        });
        all.map(|(_, heard)| heard)
    }

    /// A worker is told to end: no front worker sends it requests any more.
    pub(super) fn is_told_after_fronts(&self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        if let Some(address) = address(process) {
            let mut informed = self.informed();
            let sends = informed.any(|heard| heard.knows(&process.app, &address));
            assert!(!sends, "{address} is told to end, and gets requests");
        }
    }

    /// Requests go only to workers that were ready and were not reaped.
    pub(super) fn check_upstreams(&self) {
        let ready = self.processes.values().filter(|process| process.ready);
        let ready: BTreeSet<_> = ready.filter_map(address).collect();
        // One without a record cannot be told from the others.
        for heard in self.informed() {
            let told = heard.ready.values().flat_map(|ready| &ready.workers);
            let mut told = told.filter(|worker| worker.address.starts_with("unix:/"));
            assert!(
                told.all(|worker| ready.contains(&worker.address)),
                "{heard:?}, and there are {ready:?}"
            );
        }
    }

    /// When all has settled, requests go to all workers.
    pub(super) fn check_all_are_told(&self) {
        let processes = self.processes.iter();
        let fronts: Vec<_> = processes
            .filter(|(_, process)| *process.app == *FRONT && slot(process).is_some())
            .collect();
        for (pid, front) in fronts {
            // Its template has started it.
            if self.disk.apps[FRONT].template || front.dead.is_some() {
                continue;
            }
            for process in self.processes.values() {
                if *process.app == *FRONT || process.dead.is_some() {
                    continue;
                }
                if let Some(address) = address(process) {
                    let heard = self.heard.get(pid);
                    let knows = heard.is_some_and(|heard| heard.knows(&process.app, &address));
                    assert!(knows, "{pid} does not know {address}: {heard:?}");
                }
            }
        }
    }
}

/// A reload under way: those that end are taken out before they are told, and the new ones are there when it is done.
#[test]
fn a_reload_takes_the_old_workers_out_and_brings_the_new_ones_in() {
    let mut history = History::new(&[(FRONT, Written::good(2)), ("web", Written::good(4))]);
    history.pass(5_000);
    history.kernel().check_all_are_told();
    let addresses = |history: &mut History| -> BTreeSet<String> {
        let heard = history.kernel().heard.values();
        let all = heard.flat_map(|heard| heard.ready.values());
        let workers = all.flat_map(|ready| ready.workers.iter());
        workers.map(|worker| worker.address.clone()).collect()
    };
    let before = addresses(&mut history);
    assert_eq!(before.len(), 4);
    history.take(&Step::Request("reload web"));
    history.pass(60_000);
    history.kernel().check_all_are_told();
    assert_eq!(addresses(&mut history).len(), 4);
    let pid = history.nth(0).expect("there are workers");
    assert!(history.kernel().processes.contains_key(&pid));
}
