//! A new configuration as a transaction: read, checked, bound, proven by one worker of each app; only then
//! committed. Whatever fails before leaves everything as it was, and says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use log::{error, info, warn};

use super::children::{Child, Name};
use super::{App, Master, Outcome, Phase};
use crate::config::Address;
use crate::effects::host::ThisHost;
use crate::effects::private::Private;
use crate::plan::{LogFile, Plan};
use crate::supervisor::{Event, Generation, Supervisor};

/// What was opened for a configuration, to be closed again if it fails.
#[derive(Debug, Default)]
pub(super) struct Opened {
    listeners: Vec<Address>,
    log_files: Vec<LogFile>,
}

/// A configuration that is being proven.
pub(super) struct Reload {
    pub(super) generation: Generation,
    plan: Plan,
    opened: Opened,
    unproven: BTreeSet<Name>,
    /// The listeners over which first workers are checked.
    pub(super) private: BTreeMap<Name, Private>,
    /// How the canaries of the apps ended, in words.
    last_words: BTreeMap<Name, String>,
}

impl Reload {
    pub(super) fn note_death(&mut self, child: &Child, death: &str) {
        if child.generation == self.generation {
            self.note(&child.app, format!("its first worker {death}"));
        }
    }

    /// Notes why an app's first worker is none.
    pub(super) fn note(&mut self, app: &Name, words: String) {
        self.last_words.insert(app.clone(), words);
    }

    /// Notes what became of an app's template.
    pub(super) fn note_template(&mut self, app: &Name, generation: Generation, what: &str) {
        if generation == self.generation {
            self.note(app, format!("its template {what}"));
        }
    }
}

impl Master {
    pub(super) fn want_reload(&mut self, from: &str) {
        if self.phase == Phase::Stopping {
            info!("{from}: not reloading: the master is stopping");
            return;
        }
        info!("{from}: reload");
        self.reload_wanted = true;
    }

    /// Starts the reload that was asked for, unless another is under way: then when that has ended. So many
    /// requests in a row become one, which takes what is on disk after the last of them.
    pub(super) fn start_wanted_reload(&mut self) {
        if !self.reload_wanted || self.is_under_way() || self.is_rolling_out() {
            return;
        }
        self.reload_wanted = false;
        self.phase = Phase::Reloading;
        self.reload_begins();
        self.init.reloading();
        let checked = load(&self.file);
        let opened = checked.and_then(|plan| Ok((self.open(&plan)?, plan)));
        match opened {
            Ok((opened, plan)) => self.prepare(plan, opened),
            Err(reason) => self.refuse(&reason),
        }
        self.tell_supervisors();
    }

    fn open(&mut self, plan: &Plan) -> Result<Opened, String> {
        self.hear_apps_of(plan).map_err(|error| error.to_string())?;
        let listeners = self.listeners.open(&plan.listeners);
        let mut opened = Opened {
            listeners: listeners.map_err(|error| error.to_string())?,
            log_files: Vec::new(),
        };
        match self.log_files.open_and_wait(&plan.log_files()) {
            Ok(files) => opened.log_files = files,
            Err(error) => {
                self.close(&opened);
                return Err(error.to_string());
            }
        }
        Ok(opened)
    }

    /// Closes what was opened for a configuration that has failed.
    pub(super) fn close(&mut self, opened: &Opened) {
        self.listeners.close(&opened.listeners);
        self.log_files.close(&opened.log_files);
    }

    /// Whether a worker of this generation would be the one that has to prove it.
    pub(super) fn is_first_of_reload(&self, generation: Generation) -> bool {
        let reload = self.reload.as_ref();
        reload.is_some_and(|reload| reload.generation == generation)
    }

    /// Whether a configuration is being prepared or proven.
    fn is_under_way(&self) -> bool {
        self.reload.is_some() || self.preparation.is_some()
    }

    /// Whether workers still come and go because of the last commit. A generation in trouble does not count:
    /// the next reload may be what ends the trouble.
    fn is_rolling_out(&self) -> bool {
        let mut apps = self.apps.values().filter(|app| !app.removed);
        self.phase != Phase::Ready
            && apps.any(|app| !app.supervisor.is_settled() && !app.supervisor.is_in_trouble())
            && !self.is_paused()
    }

    fn is_paused(&self) -> bool {
        self.apps.values().all(|app| {
            let counts = app.supervisor.counts();
            counts.ready + counts.starting == 0 && !app.supervisor.is_in_trouble()
        })
    }

    /// Lets the first worker of each app prove a plan whose listeners are open.
    pub(super) fn propose(&mut self, plan: Plan, opened: Opened) {
        self.last_generation += 1;
        let generation = self.last_generation;
        let mut unproven = BTreeSet::new();
        for (name, app_plan) in &plan.apps {
            let name: Name = name.as_str().into();
            let app = self.apps.entry(name.clone()).or_insert_with(|| App {
                supervisor: Supervisor::new(seed(&name)),
                plans: Default::default(),
                removed: false,
                ended: false,
                looks: Default::default(),
            });
            app.removed = false;
            app.plans.insert(generation, Rc::new(app_plan.clone()));
            let event = Event::Propose(generation, app_plan.policy.clone());
            self.facts.push_back((name.clone(), event));
            unproven.insert(name);
        }
        self.reload = Some(Reload {
            generation,
            plan,
            opened,
            unproven,
            private: BTreeMap::new(),
            last_words: BTreeMap::new(),
        });
    }

    /// The first worker of an app is ready.
    pub(super) fn proven(&mut self, name: &Name, generation: Generation) {
        let Some(reload) = self.reload.as_mut().filter(|r| r.generation == generation) else {
            return;
        };
        reload.unproven.remove(name);
        let all = reload.unproven.is_empty();
        if self.current.is_none() {
            // At the first start there is nothing to keep: each app goes on at once.
            self.facts.push_back((name.clone(), Event::Commit));
        }
        if all {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let Some(reload) = self.reload.take() else {
            return;
        };
        let Reload {
            generation, plan, ..
        } = reload;
        if self.current.is_some() {
            info!("generation {generation} is proven; it takes over");
        }
        let listed = |name: &Name| plan.apps.contains_key(&**name);
        for (name, app) in &mut self.apps {
            if listed(name) {
                self.facts.push_back((name.clone(), Event::Commit));
            } else if !app.removed {
                info!("app={name}: no longer configured; its workers finish what they serve");
                app.removed = true;
                self.facts.push_back((name.clone(), Event::Remove));
            }
        }
        self.stop_following();
        for complaint in self.listeners.adapt(&plan.listeners) {
            warn!("the change of a listener does not take effect: {complaint}");
        }
        for address in self.listeners.keep(&plan.listeners) {
            info!("no longer listening on {address}");
        }
        self.log_files.keep(&plan.log_files());
        if let Some((_, old)) = &self.current
            && old.pid_file != plan.pid_file
        {
            warn!("pid_file has changed, which takes effect when preforkd is restarted");
        }
        self.refused = None;
        self.current = Some((generation, plan));
        self.begin_following();
    }

    /// The first worker of an app has ended: nothing of its generation stays.
    pub(super) fn candidate_failed(&mut self, name: &Name, generation: Generation) {
        let Some(reload) = self.reload.take_if(|r| r.generation == generation) else {
            return;
        };
        let words = reload.last_words.get(name).cloned();
        let words = words.unwrap_or_else(|| "its first worker could not be started".into());
        let reason = format!("app={name}: {words}");
        let Some((_, current)) = &self.current else {
            error!("cannot start: {reason}");
            self.refused = Some(format!("cannot start: {reason}"));
            self.outcome = Outcome::CouldNotStart;
            self.stop(&Event::Stop);
            return;
        };
        for (name, app) in &mut self.apps {
            if !current.apps.contains_key(&**name) {
                app.removed = true;
                self.facts.push_back((name.clone(), Event::Remove));
            }
        }
        self.close(&reload.opened);
        self.refuse(&reason);
    }

    /// Says that a reload has failed and what that means.
    pub(super) fn refuse(&mut self, reason: &str) {
        let keeping = match &self.current {
            Some((generation, _)) => format!("keeping generation {generation}"),
            None => "nothing runs yet".into(),
        };
        let refused = format!("reload failed: {reason}");
        error!("{refused}; {keeping}");
        self.init.ready(&format!("{refused}; {keeping}"));
        self.refused = Some(refused);
        self.reload_ends(Some(&format!("{reason}; {keeping}")));
        self.phase = Phase::Ready;
        for name in self.apps.keys() {
            // Also when nothing was tried yet: a reload ends a pause, whatever comes of it.
            self.facts.push_back((name.clone(), Event::Rollback));
        }
    }

    /// Tells the init system when a start or a reload is complete; says whether it is just now.
    pub(super) fn announce_readiness(&mut self) -> bool {
        if !matches!(self.phase, Phase::Starting | Phase::Reloading) || self.is_under_way() {
            return false;
        }
        let Some((generation, plan)) = &self.current else {
            return false;
        };
        let mut apps = self.apps.values().filter(|app| !app.removed);
        let started = self.phase == Phase::Reloading;
        let complete =
            |app: &App| app.supervisor.is_settled() || (started && app.supervisor.is_in_trouble());
        if !apps.all(complete) {
            return false;
        }
        let listeners: Vec<_> = plan
            .listeners
            .iter()
            .map(|l| l.address.to_string())
            .collect();
        let place = match listeners.is_empty() {
            true => String::new(),
            false => format!(", listening on {}", listeners.join(", ")),
        };
        info!("generation {generation} is ready: {}{place}", self.status);
        self.phase = Phase::Ready;
        let line = self.status_line();
        self.init.ready(&line);
        self.reload_ends(None);
        true
    }
}

/// Reads and checks a configuration file.
///
/// # Errors
/// What is wrong with it, in one line.
fn load(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Plan::parse(&text, file, &ThisHost).map_err(|error| error.one_line())
}

/// Something of this process and app, so that masters and apps do not retry in step.
fn seed(name: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(name)
}
