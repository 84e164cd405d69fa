//! What the guard has to know: which sessions there are, and how to end them. See [`crate::guard`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use log::{debug, warn};
use nix::unistd::{Pid, geteuid};

use crate::effects::guard::Guard;
use crate::effects::process::Stat;
use crate::guard::orphans::Orphans;
use crate::guard::table::{Files, Identity, Record};
use crate::guard::waiting::Earlier;
use crate::master::world::{Exit, Killed, Left, Rest, Role, Start};
use crate::plan;
use crate::release::Name;

/// The guard, if there is one, and what only matters for it.
pub(super) struct Guarded {
    guard: Option<Guard>,
    /// Masters that have died before this one began, while something is left of them.
    earlier: Vec<Earlier>,
    /// What others have left that were killed together with their guards.
    orphans: Orphans,
    /// How to end what each template forks, and those of its workers that are not children of the master yet.
    templates: HashMap<Pid, Record>,
    forked: HashMap<Pid, Record>,
    /// The notify sockets of each app.
    addresses: BTreeMap<Name, BTreeSet<String>>,
    /// Sessions whose leaders were reaped, and whether somebody waits for the rest.
    leaderless: HashMap<Pid, bool>,
    /// Something could not be noted, which is said once.
    said: bool,
}

impl Guarded {
    /// A master with these files has a guard, unless the kernel ends all processes with it: pid_namespaces(7). The guards of
    /// `earlier` masters still end what is left of these; nobody ends the `orphans`.
    pub(super) fn new(files: &Files, earlier: Vec<Earlier>, orphans: Orphans) -> Self {
        let is_init = std::process::id() == 1;
        let guard = (!is_init).then(|| Guard::new(files, Instant::now()));
        let mut guarded = Self {
            guard: None,
            earlier,
            orphans,
            templates: HashMap::new(),
            forked: HashMap::new(),
            addresses: BTreeMap::new(),
            leaderless: HashMap::new(),
            said: false,
        };
        match guard.transpose() {
            Ok(guard) => guarded.guard = guard,
            Err(error) => guarded.complain(&error),
        }
        guarded.keep(Instant::now());
        guarded
    }

    /// Starts the guard again if necessary, and forgets sessions that nobody waits for. Returns when to come back.
    pub(super) fn keep(&mut self, now: Instant) -> Option<Instant> {
        let mut over = Vec::new();
        self.leaderless.retain(|leader, is_awaited| {
            if !*is_awaited {
                over.push(*leader);
            }
            *is_awaited
        });
        over.into_iter().for_each(|leader| self.forget(leader));
        let guard = self.guard.as_mut()?;
        match guard.ensure(now) {
            Ok(None) => {}
            Ok(Some(pid)) => debug!("the guard pid={pid}: started"),
            Err(error) => warn!("cannot start the guard: {error}; retrying"),
        }
        guard.deadline()
    }

    /// The process of the guard, if it runs.
    pub(super) fn guard_process(&self) -> Option<Pid> {
        self.guard.as_ref()?.process()
    }

    /// The master has these files now.
    pub(super) fn name(&mut self, files: &Files) {
        if let Some(Err(error)) = self.guard.as_ref().map(|guard| guard.name(files)) {
            self.complain(&error);
        }
    }

    /// An earlier master that has left this.
    pub(super) fn earlier_left(&mut self, left: &Left) -> Option<Killed> {
        self.earlier.retain(Earlier::has_left);
        let is_it = |earlier: &&Earlier| match left {
            Left::Anything => true,
            Left::Holding(holders) => holders.is_empty() || earlier.had_started(holders),
            Left::Of(app) => earlier.left(|record| record.is_of(app)),
            Left::Alone(app, plan) => {
                let runs = |record: &Record| plan.all_apps().any(|(name, _)| record.is_of(name));
                earlier.left(|record| record.is_of(app) || !runs(record))
            }
            Left::Whole(app) => earlier.left_any(|record| record.is_of(app)),
            Left::CommandOf(app) => earlier.left(|record| record.is_command_of(app)),
        };
        if let Some(earlier) = self.earlier.iter().find(is_it) {
            return Some(Killed::Guarded {
                master: earlier.master,
                guard: earlier.guard,
            });
        }
        let (worker, name) = match left {
            Left::Anything => self.orphans.left(None)?,
            Left::Holding(holders) => self.orphans.left(Some(*holders))?,
            Left::Of(_) | Left::Alone(..) | Left::Whole(_) | Left::CommandOf(_) => return None,
        };
        let name = name.to_owned();
        Some(Killed::Alone { worker, name })
    }

    /// The next master is to get these listeners if this one dies.
    pub(super) fn leave_sockets(&mut self, sockets: &[(String, u64, BorrowedFd)]) {
        let Some(guard) = &mut self.guard else { return };
        if let Err(error) = guard.leave_sockets(sockets) {
            warn!(
                "cannot leave all listeners to the guard: {error}; if this preforkd is killed, the next one binds them when the last process has closed them"
            );
        }
    }

    /// A process was started.
    pub(super) fn started(&mut self, start: &Start, pid: Pid) {
        let user = start.launch.user.as_ref();
        let user = user.or(start.plan.launch.user.as_ref());
        let is_server = matches!(start.role, Role::Worker(..) | Role::Template);
        let record = Record {
            tag: start.to_string(),
            uid: user.map_or_else(|| geteuid().as_raw(), |user| user.uid),
            // A reload has old and new ones side by side too.
            overlaps: is_server && start.plan.policy.may_be_many()
                || matches!(start.role, Role::Check(_)),
            ..how(start.plan)
        };
        if start.role == Role::Template {
            let tag = format!("app={} gen={}", start.app, start.generation);
            let forked = Record {
                tag,
                ..record.clone()
            };
            self.templates.insert(pid, forked);
        }
        self.note(pid, record);
    }

    /// A template has forked a worker, as this process has said.
    pub(super) fn forked(&mut self, template: Pid, worker: Pid) {
        if let Some(record) = self.templates.get(&template) {
            self.forked.insert(worker, record.clone());
        }
    }

    /// A process is a child of the master, so that nobody else has its number.
    pub(super) fn adopted(&mut self, pid: Pid) {
        if let Some(record) = self.forked.remove(&pid) {
            self.note(pid, record);
        }
    }

    /// A process was reaped.
    pub(super) fn reaped(&mut self, pid: Pid, exit: Option<Exit>) {
        if self.guard.as_mut().is_some_and(|guard| guard.ended(pid)) {
            let how = exit.map_or("ended".into(), |exit| exit.to_string());
            warn!("the guard pid={pid}: {how}; replacing it");
        }
        self.templates.remove(&pid);
        self.forked.remove(&pid);
        self.leaderless.insert(pid, false);
    }

    /// The master has looked for what is left.
    pub(super) fn looked(&mut self, wanted: &BTreeSet<Rest>, found: &BTreeMap<Rest, Vec<Pid>>) {
        for rest in wanted {
            let Rest::Session(leader) = rest else {
                continue;
            };
            match found.contains_key(rest) {
                true => drop(self.leaderless.insert(*leader, true)),
                false => {
                    self.leaderless.remove(leader);
                    self.forget(*leader);
                }
            }
        }
    }

    /// An app has this notify socket.
    pub(super) fn app(&mut self, app: &Name, plan: &plan::App, address: &str) {
        let user = plan.launch.user.as_ref();
        let record = Record {
            tag: format!("app={app}"),
            uid: user.map_or_else(|| geteuid().as_raw(), |user| user.uid),
            address: address.to_owned(),
            ..how(plan)
        };
        let noted = self.guard.as_mut().map(|guard| guard.note_app(&record));
        if let Some(Err(error)) = noted {
            self.complain(&error);
        }
        let addresses = self.addresses.entry(app.clone()).or_default();
        addresses.insert(address.to_owned());
    }

    /// An app is gone.
    pub(super) fn remove_app(&mut self, app: &Name) {
        for address in self.addresses.remove(app).unwrap_or_default() {
            if let Some(Err(error)) = self.guard.as_mut().map(|guard| guard.forget_app(&address)) {
                self.complain(&error);
            }
        }
    }

    /// Nothing is left.
    pub(super) fn leave(self) {
        if let Some(Err(error)) = self.guard.map(Guard::leave) {
            warn!("cannot end the guard: {error}");
        }
    }

    fn note(&mut self, leader: Pid, record: Record) {
        self.leaderless.remove(&leader);
        let Some(guard) = &mut self.guard else { return };
        // It was not reaped, so it is there.
        let Some(stat) = Stat::of(leader) else { return };
        let identity = Some(Identity::of(leader, &stat));
        let record = Record {
            leader: identity,
            ..record
        };
        if let Err(error) = guard.note_session(leader, &record) {
            self.complain(&error);
        }
    }

    fn forget(&mut self, leader: Pid) {
        let forgotten = self
            .guard
            .as_mut()
            .map(|guard| guard.forget_session(leader));
        if let Some(Err(error)) = forgotten {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.said, true) {
            warn!(
                "cannot note for the guard what runs: {error}; if this preforkd is killed, some of its processes may go on"
            );
        }
    }
}

/// How the processes of an app are ended.
fn how(plan: &plan::App) -> Record {
    Record {
        leader: None,
        uid: 0,
        signal: plan.stop.signal.into(),
        group: plan.stop.group,
        grace: plan.policy.graceful_timeout,
        overlaps: false,
        gone: false,
        tag: String::new(),
        address: String::new(),
    }
}
