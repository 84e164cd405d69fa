//! Log files that several keys name: each needs one upkeep, as the log writer of one key does not know what another one renames.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::log_target::LogTarget;
use super::{Draft, LogFile, Output, Upkeep};
use crate::config::Place;

/// A log file of an app.
#[derive(Debug)]
pub(super) struct Use {
    app: String,
    key: &'static str,
    place: Option<Range<usize>>,
    /// As configured.
    shown: PathBuf,
    /// Without symbolic links in its folder. Rotation changes names in that folder.
    named: PathBuf,
    /// The file behind it; the same as `named` if it does not exist.
    real: PathBuf,
    upkeep: Upkeep,
}

impl Draft<'_> {
    /// The regular files that the keys of the app name, and those that do not exist yet.
    pub(super) fn log_uses(&self, output: &Output) -> Vec<Use> {
        if self.is_unfit() {
            // Nobody writes them, and their upkeep may not be known.
            return Vec::new();
        }
        let written = self.written;
        let access_log = written.access_log.as_ref();
        let all = [
            (
                "stdout",
                written.stdout.as_ref().map(|key| key.place()),
                &output.stdout,
            ),
            (
                "stderr",
                written.stderr.as_ref().map(|key| key.place()),
                &output.stderr,
            ),
            (
                "access_log",
                access_log.map(|key| key.place()),
                &output.access_log,
            ),
        ];
        all.into_iter()
            .filter_map(|(key, place, file)| self.log_use(key, place?, file.as_ref()?))
            .collect()
    }

    fn log_use(
        &self,
        key: &'static str,
        place: Option<Range<usize>>,
        file: &LogFile,
    ) -> Option<Use> {
        let LogTarget::File(path) = &file.target else {
            return None;
        };
        let state = self.host.file_state(path);
        // Fifos and devices are not rotated. What the standard streams are may change.
        if path.starts_with("/dev") || state.is_some() && !self.host.is_file(path) {
            return None;
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        let real_folder = self.host.file_state(folder).map(|state| state.path);
        let name = path.file_name()?;
        let named = real_folder.unwrap_or_else(|| folder.to_owned()).join(name);
        Some(Use {
            app: self.name.to_owned(),
            key,
            place,
            shown: path.clone(),
            real: state.map_or_else(|| named.clone(), |state| state.path),
            named,
            upkeep: file.upkeep.clone(),
        })
    }
}

/// Checks each log file against those before it.
///
/// # Errors
/// Two apps want a different upkeep for one file, or the rotation of one file renames another one.
pub(super) fn check(uses: &[Use]) -> Result<(), Place> {
    for (at, this) in uses.iter().enumerate() {
        for other in &uses[..at] {
            let wrong = |message| {
                let message = format!("{}: {message}", this.key);
                let span = this.place.clone();
                Err(Place { span, message })
            };
            let (shown, app) = (this.shown.display(), &other.app);
            if (this.real == other.real || this.named == other.named)
                && let Some(key) = difference(&this.upkeep, &other.upkeep)
            {
                return wrong(format!(
                    "{shown} is a log file of app.{app} too, with another `{key}` (give both the same `{key}`, or write to another file)"
                ));
            }
            if other.renames_to(this) {
                let rotated = other.shown.display();
                return wrong(format!(
                    "{shown} is a name that `log_rotate` gives to old files of {rotated}, the log file of app.{app} (choose another name)"
                ));
            }
            if this.renames_to(other) {
                let taken = other.shown.display();
                return wrong(format!(
                    "`log_rotate` would rename {shown} to {taken}, the log file of app.{app} (choose another name)"
                ));
            }
        }
    }
    Ok(())
}

/// The first key that differs.
fn difference(one: &Upkeep, other: &Upkeep) -> Option<&'static str> {
    let all = [
        (
            "log_rotate",
            (one.size, one.keep) != (other.size, other.keep),
        ),
        ("log_mode", one.mode != other.mode),
        ("log_owner", one.owner != other.owner),
        ("log_group", one.group != other.group),
    ];
    let mut differing = all.into_iter().filter(|(_, differs)| *differs);
    differing.next().map(|(key, _)| key)
}

impl Use {
    /// Whether the log writer renames its file to that one: FILE.1 and so on.
    fn renames_to(&self, other: &Self) -> bool {
        self.upkeep.size.is_some()
            && (1..=self.upkeep.keep).any(|number| {
                let mut name = OsString::from(&self.named);
                name.push(format!(".{number}"));
                [&other.named, &other.real]
                    .iter()
                    .any(|path| **path == name)
            })
    }
}
