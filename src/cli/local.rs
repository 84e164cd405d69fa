//! Commands that need no running master: they read the configuration, or the folder, themselves.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::subject::Subject;
use super::{Command, FAILED, USAGE, arguments, check, given, init, read};
use crate::effects::host::ThisHost;
use crate::plan::effective;
use crate::plan::{Host, Plan};

/// What is printed and the exit status, or the message for the user and the exit status.
pub(super) type Answer = Result<(String, u8), (String, u8)>;

/// Performs a command without a master; `None` for one that a master performs.
pub(super) fn perform(command: &Command, config: Option<&Path>) -> Option<Answer> {
    let subject = |arguments: &[OsString]| {
        subject(config.map(Path::to_owned), arguments).map_err(|message| (message, USAGE))
    };
    match command {
        Command::Init => {
            let folder = ThisHost.absolute(Path::new("."));
            Some(init::run(&folder).map_err(|message| (message, FAILED)))
        }
        Command::Effective { arguments } => Some(subject(arguments).and_then(|subject| {
            let given = given(&subject).map_err(|failure| (failure.message, USAGE))?;
            let file = &subject.configuration.file;
            let tables = Plan::effective(given, file, &ThisHost);
            let tables = tables.map_err(|error| (error.to_string(), USAGE))?;
            Ok((effective::text(&tables), super::OK))
        })),
        Command::Check { arguments } => Some(subject(arguments).and_then(|subject| {
            let plan = read(&subject).map_err(|failure| (failure.message, USAGE))?;
            Ok(check::run(&plan))
        })),
        _ => None,
    }
}

/// What is served: by these arguments, else by `-c`, else the usual file of this folder.
fn subject(config: Option<PathBuf>, words: &[OsString]) -> Result<Subject, String> {
    let parsed = arguments::parse(words.iter().cloned());
    let (mut parsed, matches) = parsed.map_err(|error| {
        let message = error.to_string();
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        message.trim_end().to_owned()
    })?;
    if parsed.command.is_some() {
        let word = words.iter().map(|word| word.to_string_lossy()).next();
        return Err(format!(
            "{} is a command, and no application",
            word.unwrap_or_default()
        ));
    }
    parsed.config = config.or(parsed.config);
    Subject::find(&parsed, &matches, words)
}
