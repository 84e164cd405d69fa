//! The program as a helper that looks at certificates before they are used: it can link what the master must not, and wait for disks.
//!
//! `preforkd-front check-certificates [--issuers FILE]... [CERTIFICATES KEY]...` prints a line for each pair that can be used: when it expires, in
//! seconds since 1970, and its names. What is wrong stands on standard error, one line each.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::certificate::{Named, Pair};
use super::terms;

/// The first argument, which asks for this.
pub const COMMAND: &str = "check-certificates";

/// What is known of a pair that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// When it expires, in seconds since 1970.
    pub expires: u64,
    /// The names for which it is.
    pub names: Vec<String>,
    /// What should not be as it is.
    pub warnings: Vec<String>,
}

/// Looks at a pair.
///
/// # Errors
/// Why it cannot be used.
pub fn check(chain: Named<'_>, key: Named<'_>, now: SystemTime) -> Result<Verdict, String> {
    let pair = Pair::load(chain, key)?;
    let mut warnings: Vec<_> = pair.check_time(now).err().into_iter().collect();
    if pair.names().is_empty() {
        warnings.push(format!(
            "{}: has no names (subjectAltName), and clients believe it for none",
            chain.name
        ));
    }
    Ok(Verdict {
        expires: pair.expires(),
        names: pair.names().all().collect(),
        warnings,
    })
}

/// Runs the helper with the arguments that follow [`COMMAND`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut failed = false;
    let mut complain = |line: &str, is_fatal: bool| {
        failed |= is_fatal;
        let _ = writeln!(io::stderr(), "{line}");
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(second) = arguments.next() else {
            complain("an argument is missing", true);
            break;
        };
        let checked = match argument == "--issuers" {
            true => issuers(Path::new(&second)),
            false => pair(Path::new(&argument), Path::new(&second)),
        };
        match checked {
            Ok(warnings) => warnings.iter().for_each(|line| complain(line, false)),
            Err(line) => complain(&line, true),
        }
    }
    match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn read(path: &Path) -> Result<(String, Vec<u8>), String> {
    let name = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) => Err(format!("could not read {name}: {error}")),
    }
}

fn named((name, bytes): &(String, Vec<u8>)) -> Named<'_> {
    Named { name, bytes }
}

fn pair(chain: &Path, key: &Path) -> Result<Vec<String>, String> {
    let (chain, key) = (read(chain)?, read(key)?);
    let verdict = check(named(&chain), named(&key), SystemTime::now())?;
    let line = format!("{} {}\n", verdict.expires, verdict.names.join(" "));
    io::stdout()
        .write_all(line.as_bytes())
        .map_err(|error| format!("could not write the answer: {error}"))?;
    Ok(verdict.warnings)
}

fn issuers(path: &Path) -> Result<Vec<String>, String> {
    terms::check_issuers(named(&read(path)?))?;
    Ok(Vec::new())
}
