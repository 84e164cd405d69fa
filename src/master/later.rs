//! The apps of the first generation of which no worker was requested yet, as others come before them.

use super::Master;
use super::world::World;
use crate::release::{Name, State};

/// An app that is started later.
pub(super) struct Later {
    pub(super) name: Name,
    /// The number of workers that it will have.
    pub(super) wanted: u32,
    /// What comes before.
    pub(super) waits_for: String,
}

impl<W: World> Master<W> {
    /// These apps, by their names.
    pub(super) fn later(&self) -> Vec<Later> {
        let candidate = self.preparation.candidate();
        let is_first = self.release.current().is_none() && !self.is_stopping();
        let Some(candidate) = candidate.filter(|_| is_first) else {
            return Vec::new();
        };
        let apps = candidate.plan.apps.iter();
        let later = apps.filter_map(|(name, app)| {
            let name = Name::from(name.as_str());
            let waits_for = self.comes_before(&name)?;
            Some(Later {
                name,
                wanted: app.policy.workers,
                waits_for,
            })
        });
        later.collect()
    }

    /// What comes before an app; `None` if it was started.
    fn comes_before(&self, name: &Name) -> Option<String> {
        match self.release.state() {
            State::Preparing => self.preparation.what_runs().map(str::to_owned),
            State::Proving {
                parts,
                unproven,
                waiting,
                ..
            } if waiting.contains(name) => {
                let after = parts.get(name)?.after()?.iter();
                let before = after.filter(|app| unproven.contains(*app) || waiting.contains(*app));
                let before: Vec<&str> = before.map(|app| &**app).collect();
                Some(before.join(", "))
            }
            _ => None,
        }
    }
}
