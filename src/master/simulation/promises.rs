//! What holds after every turn.

use super::*;
use crate::plan::Plan;
use crate::supervisor::Supervisor;

impl History {
    /// The apps whose replacements the backoff delays, and until when.
    pub(super) fn waits(&self, now: Instant) -> BTreeMap<Name, Instant> {
        let apps = self.master.workers.apps.iter();
        let waits = apps.filter_map(|(name, app)| {
            let at = app.supervisor.retry_at().filter(|at| *at > now);
            Some((name.clone(), at?))
        });
        waits.collect()
    }

    pub(super) fn check(&mut self, waits: &BTreeMap<Name, Instant>) {
        self.check_stopped();
        let kernel = &self.master.turn.world;
        let current = self.master.release.current();
        for (app, generation) in &kernel.started {
            let supervisor = &self.master.workers.apps[app].supervisor;
            // A permitted start, or a worker that has stayed up, changes the delay of the others.
            let held = waits
                .get(app)
                .is_some_and(|at| supervisor.retry_at() == Some(*at));
            let held = held && Some(*generation) == current;
            assert!(!held, "no fork comes before the backoff allows it");
        }
        self.check_alone();
        self.check_known_failures();
        let living = || {
            kernel
                .processes
                .values()
                .filter(|process| process.dead.is_none())
        };
        let slots: Vec<_> = living().filter_map(slot).collect();
        let distinct: BTreeSet<_> = slots.iter().collect();
        assert_eq!(
            distinct.len(),
            slots.len(),
            "no slot is given twice: {slots:?}"
        );
        let state = self.master.release.state();
        if *state == State::Stopped {
            return self.check_stop_order();
        }
        for name in self.master.workers.apps.keys() {
            let untold = living()
                .filter(|p| p.app == *name && !p.signalled && !p.leaves && slot(p).is_some())
                .filter(|p| !kernel.is_taken_out(p));
            let serving: BTreeSet<_> = untold.map(|process| process.generation).collect();
            // An app may continue with an older generation than the others.
            let own = self.master.workers.apps[name].supervisor.generation();
            // A release after one in trouble does not wait until that has no older workers.
            let before = self.serving.entry(name.clone()).or_default();
            match state {
                State::RollingOut { .. } => {}
                // Workers of the running generation may also start while the next one is proven.
                State::Proving { .. } => before.extend(own),
                _ => before.clone_from(&serving),
            }
            let new = [current, self.master.release.candidate(), own];
            let known =
                |generation: &u64| before.contains(generation) || new.contains(&Some(*generation));
            assert!(
                serving.iter().all(known),
                "{name}: {serving:?} serve, and before the release {before:?} did"
            );
        }
        self.check_floors();
        self.check_clients();
        self.check_short_lives();
    }

    /// An app that is not required and was never ready, or that was given up, takes no clients while none of its workers lives or was
    /// requested, whatever the other apps do.
    fn check_clients(&mut self) {
        let kernel = &self.master.turn.world;
        let apps = &self.master.workers.apps;
        self.served.retain(|name| apps.contains_key(name));
        let ready = kernel.processes.values().filter(|process| process.ready);
        self.served.extend(ready.map(|process| process.app.clone()));
        let staying = |plan: Option<&Plan>| -> BTreeSet<Address> {
            let listeners = plan.into_iter().flat_map(|plan| &plan.listeners);
            let staying = listeners.filter(|listener| listener.stays_open);
            staying.map(|listener| listener.address.clone()).collect()
        };
        let candidate = self.master.preparation.candidate();
        let proposed = staying(candidate.map(|candidate| &candidate.plan));
        let current = staying(self.master.current.as_ref());
        let is_deserted = |address: &Address| {
            let name = disk::app_at(address);
            let living = kernel.processes.values();
            let mut living = living.filter(|process| process.dead.is_none() && process.app == name);
            let supervisor = apps.get(&name).map(|app| &app.supervisor);
            let starts = supervisor.is_some_and(|app| app.is_paused() || app.counts().starting > 0);
            let is_given_up = supervisor.is_some_and(Supervisor::is_given_up);
            let waits = current.contains(address) || self.served.contains(&name);
            (is_given_up || !waits)
                && !proposed.contains(address)
                && !self.master.choices.will_start(&name)
                && !starts
                && living.all(|process| matches!(process.kind, Kind::Job(_)))
        };
        let open = kernel.listeners.keys();
        let deserted = open.filter(|address| is_deserted(address));
        let deserted = deserted.map(|address| {
            let before = self.deserted.get(address).copied();
            (address.clone(), before.unwrap_or_default() + 1)
        });
        self.deserted = deserted.collect();
        // The master learns of an end in one turn and acts on it in the next.
        let too_long = self.deserted.iter().find(|(_, turns)| **turns > 2);
        assert_eq!(too_long, None, "nobody would answer a client");
    }

    /// A worker that ends at once was never ready, even if nothing but time tells when it is.
    fn check_short_lives(&self) {
        for (pid, process) in &self.master.turn.world.processes {
            let child = self.master.workers.children.get(*pid);
            let counts = child.is_some_and(|child| child.ready_at.is_some());
            let broken = process.code == Code::Broken && slot(process).is_some();
            assert!(!(broken && counts), "{process:?} counts as ready");
        }
    }

    /// No generation is proposed to an app that cannot start, as nothing may end for it.
    fn check_known_failures(&self) {
        let candidate = self.master.release.candidate();
        for (name, app) in &self.master.workers.apps {
            let proposed = candidate.and_then(|candidate| app.plans.get(&candidate));
            let proposed = proposed.filter(|_| app.supervisor.has_candidate());
            let why = proposed.and_then(|plan| plan.cannot_start());
            assert_eq!(why, None, "{name} is proposed");
        }
    }

    pub(super) fn note_order(&mut self) {
        if self.master.is_stopping() {
            return;
        }
        let plan = self.master.plan();
        let apps = plan.into_iter().flat_map(|plan| &plan.apps);
        let workers = &self.master.workers.apps;
        let serves = |name: &&String| {
            let app = workers.get(name.as_str());
            app.is_some_and(|app| !app.removed && !app.supervisor.is_paused())
        };
        let order = apps.map(|(name, app)| {
            let before = app.after.iter().filter(serves).cloned();
            (name.clone(), before.collect())
        });
        self.order = order.collect();
    }

    /// At a graceful stop, no app is told to end while an app that comes after it has a process.
    fn check_stop_order(&self) {
        if self.urgent {
            return;
        }
        let processes = || {
            let all = self.master.turn.world.processes.values();
            all.filter(|p| p.dead.is_none() && !matches!(p.kind, Kind::Job(_)))
        };
        for (then, before) in &self.order {
            let lives = processes().any(|process| *process.app == **then);
            for first in before.iter().filter(|_| lives) {
                let serves = processes().any(|p| *p.app == **first && slot(p).is_some());
                // One that only the candidate has is rolled back, and serves nobody.
                let app = self.master.workers.apps.get(first.as_str());
                let runs = app.is_some_and(|app| app.supervisor.generation().is_some());
                let waits = self.master.stop_order.has(first);
                assert!(
                    waits || !serves || !runs,
                    "{first} was told before {then} has ended: {:?}",
                    self.master.turn.world.processes
                );
            }
        }
    }

    /// A worker that must be alone was started when there were fewer than wanted, with all that earlier ones have started.
    fn check_alone(&self) {
        let kernel = &self.master.turn.world;
        for (name, generation) in &kernel.started {
            let supervisor = &self.master.workers.apps[name].supervisor;
            if !supervisor.stops_first() {
                continue;
            }
            let processes = || kernel.processes.values().filter(|p| p.app == *name);
            // A canary whose own definition starts first may start beside them.
            let mut own = processes().filter(|p| p.generation == *generation);
            if supervisor.generation() != Some(*generation) && own.all(|p| !p.alone) {
                continue;
            }
            let living: Vec<_> = processes()
                .filter(|p| {
                    // A canary of a definition that starts first is not waited for when that is rolled back.
                    let counts = slot(p).is_some() && p.alone || matches!(p.kind, Kind::Rest(_));
                    p.dead.is_none() && counts
                })
                .collect();
            // An app that was removed since the start, in the same turn, wanted as many as before, or a first one.
            let wanted = match self.master.workers.apps[name].removed {
                true => self.wanted.get(name).copied().unwrap_or_default().max(1),
                false => supervisor.counts().wanted,
            };
            let wanted = wanted as usize;
            assert!(living.len() <= wanted, "{name}: {living:?}");
            let mut others = living.iter();
            let same = others.all(|process| process.generation == *generation);
            assert!(same, "{name}: {living:?}");
        }
    }

    fn check_floors(&mut self) {
        // The current release may still reduce the number.
        let kernel = &self.master.turn.world;
        let quiet = kernel.idle && kernel.is_quiet();
        self.floors.retain(|name, _| {
            let app = self.master.workers.apps.get(name);
            app.is_some_and(|app| !app.removed)
        });
        for (name, app) in self.master.workers.configured() {
            let counts = app.supervisor.counts();
            // A pause during the first start begins when it is over.
            // A worker that is the only one, and whose repeated check fails, is aborted. The first generation of an app is not checked.
            let mut plans = app.plans.values();
            let repeats = plans.any(|plan| plan.check.as_ref().is_some_and(|c| c.every.is_some()));
            let may_abort = counts.wanted == 1 && repeats;
            if app.supervisor.stops_first() || app.supervisor.is_paused() || may_abort {
                self.floors.remove(name);
                continue;
            }
            if let Some(floor) = self.floors.get_mut(name) {
                *floor = counts.wanted.min(*floor);
                assert!(
                    counts.ready >= *floor,
                    "{name}: {} of {floor} are ready",
                    counts.ready
                );
            }
            if app.supervisor.is_settled() && quiet {
                let done = counts.finished + counts.failed;
                let running = counts.wanted.saturating_sub(done);
                self.floors.insert(name.clone(), running);
            }
        }
    }
}
