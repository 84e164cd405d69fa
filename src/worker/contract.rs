//! The version of the contract, and the kinds of worker that it knows.

use std::fmt;

use crate::env;
use crate::version;

/// The version of everything that a master and preforkd's own workers must agree on: the variables of [`crate::env`], the
/// settings, the messages between master and template, the notify messages, and the layout of the scoreboard. It is
/// incremented when one of these changes, so that a worker or extension of another version is refused at its start.
///
/// Other programs can ignore it, unless they keep a record in the scoreboard: listeners and notify messages are those of
/// systemd.
pub const VERSION: u32 = 7;

/// Compares the master's version of the contract with that of this worker. `file` is the extension or the program of the worker.
///
/// # Errors
/// They differ, or the master does not name its version.
pub fn check(get: impl Fn(&str) -> Option<String>, file: &str) -> Result<(), Mismatch> {
    let contract = get(env::CONTRACT);
    if contract.as_deref() == Some(VERSION.to_string().as_str()) {
        return Ok(());
    }
    Err(Mismatch {
        contract,
        file: file.to_owned(),
        master: get(env::MASTER),
    })
}

/// What to tell if master and worker are of different releases that speak the same version of the contract: the files were replaced
/// under a running master.
pub fn other_release(get: impl Fn(&str) -> Option<String>, file: &str) -> Option<String> {
    let own = version::own();
    let master = get(env::MASTER)?;
    let (version, program) = master.split_once(' ')?;
    (version != own).then(|| {
        format!(
            "{file} is of preforkd {own}, but the master, {}, is of preforkd {}; they understand each other, and the worker starts (restart \
             preforkd to run one release)",
            program.escape_debug(),
            version.escape_debug()
        )
    })
}

/// Master and worker have different versions of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The master's version of the contract.
    pub contract: Option<String>,
    /// The path of the extension, or of the program of the worker.
    pub file: String,
    /// The version and the program of the master, if it names them.
    pub master: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "could not start a worker with {}: it speaks version {VERSION} of the worker contract, but the master",
            self.file
        )?;
        if let Some((_, program)) = self.master.as_ref().and_then(|it| it.split_once(' ')) {
            write!(f, " {}", program.escape_debug())?;
        }
        match &self.contract {
            Some(version) => write!(f, " speaks version {}", version.escape_debug())?,
            None => f.write_str(" speaks an older version, if any")?,
        }
        f.write_str(" (install both from the same release, then restart preforkd)")
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
    /// A process that loads a WSGI application, tells of it ([`crate::inspection`]) and ends.
    Inspection,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Command,
        Self::Wsgi,
        Self::Template,
        Self::Front,
        Self::Inspection,
    ];

    /// The value of the variable `PREFORKD_KIND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Wsgi => "wsgi",
            Self::Template => "template",
            Self::Front => "front",
            Self::Inspection => "inspection",
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
        let get = |name: &str| match name {
            env::CONTRACT => version.map(str::to_owned),
            env::MASTER => Some("0.0.1 /opt/bin/preforkd".to_owned()),
            _ => None,
        };
        check(get, "/opt/ext.so")
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
            let theirs =
                format!("the master /opt/bin/preforkd speaks version {other} (install both");
            assert!(text.contains(&theirs), "{text}");
        }
        let text = check_with(None).expect_err("none").to_string();
        assert!(
            text.contains("the master /opt/bin/preforkd speaks an older version, if any (install"),
            "{text}"
        );
        let text = check(|_| None, "/opt/ext.so").expect_err("none");
        assert!(
            text.to_string()
                .contains("but the master speaks an older version"),
            "{text}"
        );
    }

    #[test]
    fn another_release_with_the_same_contract_is_told() {
        let told = |master: Option<&str>| {
            let get = |name: &str| (name == env::MASTER).then(|| master.map(str::to_owned))?;
            other_release(get, "/opt/ext.so")
        };
        let same = format!("{} /opt/bin/preforkd", version::own());
        assert_eq!(told(Some(&same)), None);
        assert_eq!(told(None), None);
        let other = told(Some("0.0.1 /opt/my bin/preforkd")).expect("another");
        let begin = format!(
            "/opt/ext.so is of preforkd {}, but the master, /opt/my bin/preforkd, is of preforkd 0.0.1; ",
            version::own()
        );
        assert!(other.starts_with(&begin), "{other}");
    }

    #[test]
    fn kinds_are_known_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("cgi"), None);
    }
}
