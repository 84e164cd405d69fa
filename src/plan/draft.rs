//! An app while it is checked: its keys, and what they say together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::lacking::Lacking;
use super::upstreams::Reached;
use super::{App, Host, Launch, Listener, Recycle, Stop, normal};
use crate::config::{self, App as Written, Apps, Place, Ready, When};
use crate::supervisor::{READY_AFTER_EXEC, Readiness};

/// An `[app.NAME]` table while it is checked.
pub(super) struct Draft<'a> {
    pub(super) name: &'a str,
    /// The position of the name in the table's header.
    pub(super) header: Range<usize>,
    pub(super) written: &'a Written,
    /// All apps.
    pub(super) all: &'a BTreeMap<Spanned<String>, Written>,
    pub(super) folder: &'a Path,
    pub(super) host: &'a dyn Host,
    pub(super) lacking: Lacking,
    /// The apps that sites name.
    pub(super) reached: &'a Reached,
}

impl Draft<'_> {
    pub(super) fn app(&self, listeners: &mut Vec<Listener>) -> Result<App, Place> {
        self.refuse_keys_of_the_other_kind()?;
        let mut notices = Vec::new();
        let (mut env, user) = self.environment()?;
        if let Some(time) = &self.written.watchdog {
            // The program's sd_watchdog_enabled(3) reads these.
            env.insert("WATCHDOG_USEC".into(), time.0.as_micros().to_string());
        }
        let own_address = self.own_address(&env)?;
        let sockets = self.sockets(listeners, own_address.is_some(), &mut notices)?;
        let mut warnings = Vec::new();
        let chdir = self.chdir()?;
        let behind = self.host.file_state(&chdir);
        let mut launch = Launch {
            rights: self.rights(user.as_ref(), &mut warnings)?,
            env_clear: *self.written.env_clear,
            program: PathBuf::new(),
            args: Vec::new(),
            env,
            release: behind.map_or_else(|| chdir.clone(), |behind| behind.path),
            chdir,
            user,
            umask: self.written.umask.as_ref().map(|mask| mask.0),
            settings: None,
        };
        let (template, readiness) = match (&self.written.wsgi, &self.written.command) {
            (Some(wsgi), None) => (
                self.wsgi(wsgi, &sockets, &mut launch, &mut warnings)?,
                Readiness::Notify,
            ),
            (None, Some(command)) => (
                false,
                self.command(
                    command,
                    &sockets,
                    self.has_check_listener(own_address.is_some()),
                    &mut launch,
                    &mut warnings,
                )?,
            ),
            (Some(_), Some(command)) => {
                return Err(
                    command.wrong("an app has either `wsgi` or `command`, not both (remove one)")
                );
            }
            (None, None) => {
                return Err(self.wrong(format!(
                    "[app.{}] has neither `wsgi` nor `command` (add one of them)",
                    self.name
                )));
            }
        };
        launch.rights.landlock = self.landlock(&launch, own_address.as_ref(), &mut warnings)?;
        let check = self.check(&launch, own_address.is_some())?;
        let has_listener = !sockets.is_empty();
        let mut policy = self.policy(readiness, check.is_some(), has_listener, &mut notices)?;
        self.doubt_placeholders();
        if let Some(range) = &own_address {
            self.enough_addresses(range, &policy, &mut warnings)?;
        }
        let speech = self.speech()?;
        let own_listener = match &self.written.wsgi {
            Some(_) => self.reached.own_listener(self.name, self.written.backlog.0),
            None => None,
        };
        // Python workers finish by themselves what they have.
        policy.ends_quiet = own_address.is_some() && self.reached.has(self.name);
        let before = self.before(&launch)?;
        let stop = Stop {
            signal: self.stop_signal(&launch.program),
            group: *self.written.stop_group,
        };
        Ok(App {
            enabled: *self.written.enabled,
            on_change: *self.written.reload.when == When::OnChange,
            files: self.files_behind(&launch),
            output: self.output()?,
            sockets,
            before,
            before_at_start: self.before_at_start()?,
            launch,
            certificates: None,
            sites: Vec::new(),
            django: BTreeMap::new(),
            acme: None,
            template,
            policy,
            check,
            threads: self.written.wsgi.as_ref().map(|_| self.written.threads.0),
            is_reached: self.reached.has(self.name),
            is_told: own_listener.is_some() || own_address.is_some() && self.reached.has(self.name),
            own_listener,
            own_address,
            speech,
            stdin: self.stdin(has_listener)?,
            stop,
            hang: self.hang(),
            recycle: Recycle {
                max_age: self.written.max_age.as_ref().map(|age| age.0),
                max_memory: self.written.max_memory.as_ref().map(|size| size.0),
            },
            warnings,
            notices,
            after: BTreeSet::new(),
            required: *self.written.required,
            unfit: None,
            missing: None,
        })
    }

    /// Refuses a key that has no effect for this kind of app.
    fn refuse_keys_of_the_other_kind(&self) -> Result<(), Place> {
        let kind = match (&self.written.wsgi, &self.written.command) {
            (Some(_), None) => Apps::Wsgi,
            (None, Some(_)) => Apps::Command,
            _ => return Ok(()),
        };
        let mut written = self.written.written();
        let wrong = written.find(|(key, _)| key.apps != Apps::Any && key.apps != kind);
        let Some((key, place)) = wrong else {
            return Ok(());
        };
        let advice = match key.instead {
            Some(instead) => format!("use `{instead}`"),
            None => "remove it".into(),
        };
        let message = format!(
            "`{}` is for {}, not for {kind} ({advice})",
            key.name, key.apps
        );
        Err(Place::at(place, message))
    }

    fn chdir(&self) -> Result<PathBuf, Place> {
        let Some(chdir) = &self.written.chdir else {
            return Ok(self.folder.to_owned());
        };
        let path = normal(&self.folder.join(&**chdir));
        if !self.host.is_folder(&path) {
            let missing = chdir.wrong(format!(
                "chdir: there is no folder {} (create it first)",
                path.display()
            ));
            // Its interpreter may be in there.
            match self.written.wsgi {
                Some(_) => self.lacks(missing, ())?,
                None => self.may_come(missing)?,
            }
        }
        Ok(path)
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> Place {
        Place::at(self.header.clone(), message)
    }

    /// When a program is ready.
    pub(super) fn readiness(&self) -> Readiness {
        match self.written.ready.as_deref() {
            None if *self.written.restart == config::Restart::Never => {
                Readiness::After(READY_AFTER_EXEC)
            }
            None | Some(Ready::Notify) => Readiness::Notify,
            Some(Ready::Exec) => Readiness::After(READY_AFTER_EXEC),
            Some(Ready::After(time)) => Readiness::After(*time),
        }
    }
}
