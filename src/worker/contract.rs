//! The version of the contract, and the kinds of worker that it knows.

use std::fmt;

use crate::env;

/// The version of everything that a master and preforkd's own workers must agree on: the variables of [`crate::env`], the
/// settings, the messages between master and template, the notify messages, and the layout of the scoreboard. It is
/// incremented when one of these changes, so that a worker or extension of another version is refused at its start.
///
/// Other programs can ignore it, unless they keep a record in the scoreboard: listeners and notify messages are those of
/// systemd.
pub const VERSION: u32 = 5;

/// Compares the master's version with that of this extension.
///
/// # Errors
/// They differ, or the master does not name its version.
pub fn check(get: impl Fn(&str) -> Option<String>) -> Result<(), Mismatch> {
    let master = get(env::CONTRACT);
    if master.as_deref() == Some(VERSION.to_string().as_str()) {
        return Ok(());
    }
    Err(Mismatch {
        master,
        extension: get(env::EXTENSION),
    })
}

/// Master and extension have different versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The master's version.
    pub master: Option<String>,
    /// The path of the extension.
    pub extension: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.extension.as_deref().unwrap_or("unknown");
        write!(
            f,
            "could not start a worker with the extension {path}: it speaks version {VERSION} of the worker contract, \
             but the master speaks "
        )?;
        match &self.master {
            Some(version) => write!(f, "version {}", version.escape_debug())?,
            None => f.write_str("an older version, if any")?,
        }
        f.write_str(
            " (install preforkd and its extension from the same release, then restart preforkd)",
        )
    }
}

impl std::error::Error for Mismatch {}

/// The kind of a worker process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Any program that accepts on an inherited socket. It need not know the contract.
    #[default]
    Command,
    /// Serves a WSGI application in Python.
    Wsgi,
    /// A process that has loaded a WSGI application and forks the workers.
    Template,
    /// Serves the sites.
    Front,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Command, Self::Wsgi, Self::Template, Self::Front];

    /// The value of the variable `PREFORKD_KIND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Wsgi => "wsgi",
            Self::Template => "template",
            Self::Front => "front",
        }
    }

    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(version: Option<&str>) -> Result<(), Mismatch> {
        check(|name| match name {
            env::CONTRACT => version.map(str::to_owned),
            env::EXTENSION => Some("/opt/ext.so".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_same_version_is_accepted() {
        assert_eq!(check_with(Some(&VERSION.to_string())), Ok(()));
    }

    #[test]
    fn another_version_is_refused_and_the_message_names_both_and_what_to_do() {
        let (newer, older) = ((VERSION + 1).to_string(), (VERSION - 1).to_string());
        for other in [newer.as_str(), older.as_str(), "", "one", " 1", "01"] {
            let text = check_with(Some(other)).expect_err("another").to_string();
            let ours = format!("/opt/ext.so: it speaks version {VERSION} of the worker contract");
            assert!(text.contains(&ours), "{text}");
            let theirs = format!("the master speaks version {other} (install preforkd");
            assert!(text.contains(&theirs), "{text}");
        }
        let text = check_with(None).expect_err("none").to_string();
        assert!(
            text.contains("the master speaks an older version, if any (install"),
            "{text}"
        );
    }

    #[test]
    fn kinds_are_known_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("cgi"), None);
    }
}
