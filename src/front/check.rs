//! The program as the process that checks certificates for the configuration: `preforkd-front check`, with the certificates as its input.

use std::io::{self, Read as _, Write as _};

use preforkd_worker::front::Certificates;

use crate::terms::flaws;

/// The first argument, which asks for this.
pub const COMMAND: &str = "check";

/// Reads certificates, and writes a line for each flaw: `error` or `warning`, the site and the reason, with tabs between them.
///
/// # Errors
/// They cannot be read, or the answer cannot be written; the whole message.
pub fn run() -> Result<(), String> {
    let mut json = zeroize::Zeroizing::new(String::new());
    let read = io::stdin().read_to_string(&mut json);
    let could_not = |error: &dyn std::fmt::Display| format!("could not read the input: {error}");
    read.map_err(|error| could_not(&error))?;
    let certificates = Certificates::parse(&json).map_err(|error| could_not(&error))?;
    let mut answer = String::new();
    for flaw in flaws(&certificates) {
        let kind = if flaw.is_warning { "warning" } else { "error" };
        answer.push_str(&format!("{kind}\t{}\t{}\n", flaw.site, flaw.why));
    }
    let written = io::stdout().write_all(answer.as_bytes());
    written.map_err(|error| format!("could not write the answer: {error}"))
}
